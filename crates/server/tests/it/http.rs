//! A plain HTTP/1.1 client over one socket. It sends any bytes, also wrong ones, reads answers piece by piece, and
//! leaves when it is dropped.

use domain::Nanos;
use serde_json::Value;
use sim::http1::{self, Body, Step};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longest wait for anything that a server should send at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits something that must not take long.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Looks again and again until there is something to see.
pub async fn eventually<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Some(value) = look().await {
                return value;
            }
        }
    };
    within(limit, what, found).await
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
}

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Incoming {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub trailers: Vec<(String, String)>,
    connection: Connection,
    framing: Body,
    ended: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub trailers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: Vec::new() })
    }

    /// A connection on which little can be under way: a reader that stops is noticed soon.
    pub async fn open_narrow(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        Ok(Self { stream: socket.connect(address).await?, inbox: Vec::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends while reading, as one must when the server may answer before it has read everything.
    pub async fn send_and_answer(self, bytes: &[u8]) -> io::Result<Answer> {
        let (mut reading, mut writing) = self.stream.into_split();
        let received = async {
            let mut received = Vec::new();
            loop {
                match reading.read_buf(&mut received).await {
                    Ok(0) | Err(_) => return received,
                    Ok(_) if is_whole(&received) => return received,
                    Ok(_) => {}
                }
            }
        };
        // A server that has answered may close before it has read the rest.
        let (_, received) = tokio::join!(writing.write_all(bytes), received);
        let stream = writing.reunite(reading).map_err(io::Error::other)?;
        Self { stream, inbox: received }.incoming().await?.whole().await
    }

    /// Reads until the server closes; what it said until then.
    pub async fn until_closed(mut self) -> Vec<u8> {
        while let Ok(1..) = self.read().await {}
        self.inbox
    }

    /// Reads the head of an answer.
    pub async fn incoming(mut self) -> io::Result<Incoming> {
        loop {
            if let Some(head) = http1::head(&self.inbox)? {
                let (status, size) = (head.status().ok_or(ErrorKind::InvalidData)?, head.size);
                if (100..200).contains(&status) {
                    self.inbox.drain(..size);
                    continue;
                }
                let headers = head.headers().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
                let (headers, framing) = (headers.collect(), head.response_body()?);
                self.inbox.drain(..size);
                let trailers = Vec::new();
                return Ok(Incoming { status, headers, trailers, connection: self, framing, ended: false });
            }
            if self.read().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.inbox.reserve(16 * 1024);
        self.stream.read_buf(&mut self.inbox).await
    }
}

/// Whether an answer with a stated length is there to its end.
fn is_whole(received: &[u8]) -> bool {
    let Ok(Some(head)) = http1::head(received) else { return false };
    let size = head.header("content-length").and_then(|size| size.parse::<usize>().ok());
    size.is_some_and(|size| received.len() >= head.size + size)
}

impl Incoming {
    /// The next piece of the body; `None` at its proper end.
    pub async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let inbox = &mut self.connection.inbox;
            match self.framing.step(inbox)? {
                Step::Data(range) => {
                    let piece = inbox[range.clone()].to_vec();
                    inbox.drain(..range.end);
                    return Ok(Some(piece));
                }
                Step::More { consumed } => {
                    inbox.drain(..consumed);
                    if self.connection.read().await? == 0 {
                        return match self.framing {
                            Body::UntilClose => Ok(None),
                            _ => Err(ErrorKind::UnexpectedEof.into()),
                        };
                    }
                }
                Step::End { consumed, trailers } => {
                    let lines = String::from_utf8_lossy(&inbox[trailers]).into_owned();
                    let fields = lines.split("\r\n").filter_map(|line| line.split_once(':'));
                    self.trailers =
                        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
                    inbox.drain(..consumed);
                    self.ended = true;
                }
            }
        }
    }

    /// Reads until the body so far contains `text`.
    pub async fn until(&mut self, text: &str) -> String {
        let mut body = String::new();
        while !body.contains(text) {
            let piece = within(PATIENCE, "the next piece of a stream", self.piece()).await;
            match piece.expect("the stream goes on") {
                Some(piece) => body.push_str(&String::from_utf8_lossy(&piece)),
                None => panic!("the stream ended without {text:?}: {body}"),
            }
        }
        body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn request_id(&self) -> String {
        self.header("x-request-id").expect("every answer names its request").to_owned()
    }

    /// Reads to the end.
    pub async fn whole(mut self) -> io::Result<Answer> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: self.status, headers: self.headers, trailers: self.trailers, body })
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn request_id(&self) -> String {
        self.header("x-request-id").expect("every answer names its request").to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("status {}, {error}: {}", self.status, self.text()),
        }
    }

    /// The stated price: in the header, or behind a stream in the trailer.
    pub fn cost(&self) -> Option<Nanos> {
        let stated = find(&self.trailers, "x-tollgate-cost").or(self.header("x-tollgate-cost"))?;
        Some(stated.parse().expect("a stated price is an amount"))
    }

    /// Status, type and code of an error in OpenAI's shape.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String) {
        let body = self.json();
        let error = &body["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("no {name}: {body}")).to_owned();
        assert!(!text("message").is_empty() && error.get("param").is_some(), "{body}");
        (self.status, text("type"), text("code"))
    }

    /// The payloads of a stream's events.
    pub fn events(&self) -> Vec<String> {
        let text = self.text().replace("\r\n", "\n");
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// The text that a stream's deltas make.
    pub fn streamed_text(&self) -> String {
        let deltas = self.events().into_iter().filter_map(|event| serde_json::from_str::<Value>(&event).ok());
        deltas.filter_map(|delta| delta["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    }
}

fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str())
}

/// A caller: an address and a key.
#[derive(Clone, Debug)]
pub struct Caller {
    pub address: SocketAddr,
    pub key: String,
}

impl Caller {
    /// The bytes of a POST with a JSON body.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Vec<u8> {
        self.post_bytes_with(path, &[], body)
    }

    /// The same, with further headers.
    pub fn post_bytes_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let Self { address, key } = self;
        let size = body.len();
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             te: trailers\r\n{more}content-length: {size}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn begin(&self, path: &str, body: &[u8]) -> io::Result<Incoming> {
        let mut connection = Connection::open(self.address).await?;
        connection.send(&self.post_bytes(path, body)).await?;
        connection.incoming().await
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.begin(path, body).await?.whole().await
    }

    /// A chat that must be answered, one way or another.
    pub async fn chat(&self, body: &Value) -> Answer {
        let body = body.to_string();
        let exchange = self.post("/v1/chat/completions", body.as_bytes());
        within(PATIENCE, "an answer", exchange).await.expect("a whole answer")
    }

    /// The same, up to the head of the answer.
    pub async fn begin_chat(&self, body: &Value) -> Incoming {
        let body = body.to_string();
        let begun = self.begin("/v1/chat/completions", body.as_bytes());
        within(PATIENCE, "the head of an answer", begun).await.expect("an answer")
    }

    /// A GET with the caller's key.
    pub async fn get(&self, path: &str) -> Answer {
        let Self { address, key } = self;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\r\n");
        self.raw(request.as_bytes()).await.expect("a whole answer")
    }

    /// Sends any bytes and reads the answer.
    pub async fn raw(&self, bytes: &[u8]) -> io::Result<Answer> {
        let exchange = async {
            let mut connection = Connection::open(self.address).await?;
            connection.send(bytes).await?;
            connection.incoming().await?.whole().await
        };
        within(PATIENCE, "an answer to raw bytes", exchange).await
    }
}
