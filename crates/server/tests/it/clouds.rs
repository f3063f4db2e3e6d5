//! Providers whose addresses, credentials and streams are their own: Azure, Vertex and Bedrock, by servers that answer as
//! those do and keep what they were asked.

mod azure;
mod bedrock;
mod vertex;

use crate::harness::{Fate, Gateway, Outcome, price};
use crate::http::{Answer, PATIENCE, within};
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::http1;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const INPUT: u64 = 21;
pub const OUTPUT: u64 = 7;

/// A server that answers what it is told to, one request for each connection.
pub struct Cloud {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// Answers by the end of the request's path, without its query.
    answers: Vec<(&'static str, Reply)>,
    asked: VecDeque<Asked>,
}

/// What a request is answered.
#[derive(Clone)]
pub struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub head: String,
    pub body: Vec<u8>,
}

impl Cloud {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::<Mutex<Script>>::default();
        let cloud = Self { address, script: Arc::clone(&script) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(exchange(stream, Arc::clone(&script)));
            }
        });
        cloud
    }

    /// From now on, requests whose path ends so are answered that.
    pub fn answers(&self, path: &'static str, reply: Reply) {
        let mut script = self.script.lock().expect("no panic");
        script.answers.retain(|(known, _)| *known != path);
        script.answers.push((path, reply));
    }

    /// The requests since the last look.
    pub fn asked(&self) -> Vec<Asked> {
        self.script.lock().expect("no panic").asked.drain(..).collect()
    }

    /// The only request since the last look.
    #[track_caller]
    pub fn asked_once(&self) -> Asked {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }
}

impl Reply {
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: format!("content-type: {kind}\r\n"), body: body.into() }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub fn events(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, "text/event-stream", body)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }
}

impl Asked {
    /// Method and path.
    pub fn line(&self) -> &str {
        self.head.lines().next().expect("a request line").strip_suffix(" HTTP/1.1").expect("HTTP/1.1")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Reads one request and answers it.
async fn exchange(mut stream: TcpStream, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    let mut inbox = Vec::new();
    let asked = loop {
        if let Some(head) = http1::head(&inbox)? {
            let length: usize = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if inbox.len() >= head.size + length {
                let text = String::from_utf8_lossy(&inbox[..head.size]).into_owned();
                break Asked { head: text, body: inbox[head.size..].to_vec() };
            }
        }
        if stream.read_buf(&mut inbox).await? == 0 {
            return Ok(());
        }
    };
    let path = asked.line().split(['?', ' ']).nth(1).expect("a path").to_owned();
    let reply = {
        let mut script = script.lock().expect("no panic");
        script.asked.push_back(asked);
        let known = script.answers.iter().find(|(end, _)| path.ends_with(end));
        known.map_or_else(
            || Reply::new(418, "text/plain", format!("nothing is said of {path}")),
            |(_, reply)| reply.clone(),
        )
    };
    let Reply { status, headers, body } = reply;
    let head = format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// An upstream with these settings, and a priced route `public` to a model of it.
fn declared(provider: &str, settings: &str, model: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"cloud\"\nprovider = \"{provider}\"\n{settings}\n\
         [[routes]]\nmodel = \"public\"\nupstreams = [\"cloud\"]\nupstream_model = \"{model}\"\n\
         [[prices]]\nmodel = \"public\"\ninput_per_million = \"1.00\"\noutput_per_million = \"2.00\"\n\
         cache_write_5m_per_million = \"1.25\"\nmax_output_tokens = 900\n"
    )
}

/// A chat, and a message, of the route.
fn requests(stream: bool) -> [(&'static str, Value); 2] {
    let said = json!([{"role": "user", "content": "hi"}]);
    [
        ("/v1/chat/completions", json!({"model": "public", "messages": said, "stream": stream})),
        ("/v1/messages", json!({"model": "public", "messages": said, "max_tokens": 50, "stream": stream})),
    ]
}

impl Gateway {
    async fn asks_of(&self, (path, body): &(&str, Value)) -> Answer {
        let body = body.to_string();
        within(PATIENCE, "an answer", self.caller.post(path, body.as_bytes())).await.expect("a whole answer")
    }

    /// The answer says that, and is charged by its usage.
    #[track_caller]
    fn is_charged<'a>(&'a self, answer: &'a Answer, says: &'a [&'a str]) -> impl Future<Output = Fate> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let text = answer.text();
            assert_eq!(answer.status, 200, "{place}: {text}");
            assert!(says.iter().all(|said| text.contains(said)), "{place}: {says:?} in {text}");
            let fate = self.fate(&answer.request_id()).await;
            let expected = (Outcome::Settled, Ending::Complete, false, price(INPUT, OUTPUT));
            assert_eq!((fate.outcome, fate.ending, fate.estimated, fate.cost), expected, "{place}: {text}");
            fate
        }
    }

    /// The request failed with that status, and costs nothing.
    #[track_caller]
    fn is_voided<'a>(&'a self, answer: &'a Answer, status: u16) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            assert_eq!(answer.status, status, "{place}: {}", answer.text());
            let fate = self.fate(&answer.request_id()).await;
            assert_eq!((fate.outcome, fate.cost.0), (Outcome::Voided, 0), "{place}: {}", answer.text());
        }
    }
}

/// A message of Anthropic's, whole and as its events.
fn message() -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": null,
           "content": [{"type": "text", "text": "Hello there"}], "stop_reason": "end_turn",
           "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT}})
}

fn message_events() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
               "model": "claude", "stop_reason": null, "usage": {"input_tokens": INPUT, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
               "usage": {"output_tokens": OUTPUT}}),
        json!({"type": "message_stop"}),
    ]
}
