//! The simulated provider: answers as the request's own plan says.

use bytes::Bytes;
use domain::AccountId;
use domain::ledger::Book;
use gateway::upstream::{Local, Reply, ReplyBody, SendError};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body, Frame};
use protocol::openai::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use store::ledger::Ledger;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What the upstream does with one request; travels inside it as a field that the gateway does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Ties the upstream's side of a request to the caller's.
    pub id: u64,
    /// Whose request it is.
    pub account: i64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub latency_ms: u64,
    pub gap_ms: u64,
    pub fault: Fault,
}

impl Plan {
    /// The id of its request.
    pub fn request(&self) -> String {
        format!("req_{:x}", self.id)
    }
}

/// How it fails, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    None,
    Refuse(u16),
    Unreachable,
    Broken,
    /// Never answers.
    Silent,
    /// Without usage.
    NoUsage,
    /// After so many pieces: the connection breaks …
    Cut(usize),
    /// … or falls silent …
    Stall(usize),
    /// … or reports an error …
    ErrorEvent(usize),
    /// … or sends what nobody can read.
    Malformed(usize),
}

/// What a request carries.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    stream: bool,
    plan: Plan,
}

/// The upstream.
pub struct Provider {
    pub seen: Arc<Seen>,
    /// To see what is held for a request when it comes in.
    pub ledger: Arc<Ledger>,
}

/// What the upstream saw, to be compared by the auditor.
#[derive(Default)]
pub struct Seen(Mutex<Vec<(u64, bool)>>);

impl Seen {
    fn note(&self, plan: u64, was_held: bool) {
        self.0.lock().expect("nothing panics under this lock").push((plan, was_held));
    }

    /// The plans of all requests that came in, and whether a hold was open for them then.
    pub fn take(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut self.0.lock().expect("nothing panics under this lock"))
    }
}

impl Local for Provider {
    fn send(&self, _: Endpoint, body: Bytes) -> Pin<Box<dyn Future<Output = Result<Reply, SendError>> + Send>> {
        let Asked { stream, plan } = serde_json::from_slice(&body).expect("the gateway forwards what callers wrote");
        let (seen, ledger) = (self.seen.clone(), self.ledger.clone());
        Box::pin(async move {
            let request = plan.request();
            let is_held = |book: &Book| book.open_holds().any(|(_, hold)| *hold.terms.request == *request);
            let was_held = ledger.read(AccountId(plan.account), is_held).await;
            seen.note(plan.id, was_held.is_ok_and(|held| held));
            sleep(Duration::from_millis(plan.latency_ms)).await;
            match plan.fault {
                Fault::Unreachable => Err(SendError::Connect("refused".to_owned())),
                Fault::Broken => Err(SendError::Broken("reset".to_owned())),
                Fault::Silent => std::future::pending().await,
                Fault::Refuse(status) => Ok(refusal(status)),
                _ if stream => Ok(reply("text/event-stream", ReplyBody::Local(Box::pin(Pieces::new(&plan))))),
                _ => Ok(reply("application/json", ReplyBody::whole(whole(&plan)))),
            }
        })
    }
}

fn reply(kind: &'static str, body: ReplyBody) -> Reply {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
    Reply { status: StatusCode::OK, headers, body }
}

fn refusal(status: u16) -> Reply {
    let body = json!({"error": {"message": "simulated", "type": "server_error", "param": null, "code": null}});
    let status = StatusCode::from_u16(status).expect("plans name real statuses");
    Reply { status, ..reply("application/json", ReplyBody::whole(body.to_string())) }
}

fn usage(plan: &Plan) -> serde_json::Value {
    json!({"prompt_tokens": plan.prompt_tokens, "completion_tokens": plan.completion_tokens,
           "total_tokens": plan.prompt_tokens + plan.completion_tokens})
}

fn whole(plan: &Plan) -> String {
    let text = " word".repeat(plan.completion_tokens as usize);
    let mut answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
    match plan.fault {
        Fault::NoUsage => {}
        Fault::Malformed(_) => return "<html>not an answer</html>".to_owned(),
        Fault::ErrorEvent(_) => return json!({"error": {"message": "simulated"}}).to_string(),
        _ => answer["usage"] = usage(plan),
    }
    answer.to_string()
}

/// A stream, one token an event.
struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    gap: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    fault: Fault,
}

impl Pieces {
    fn new(plan: &Plan) -> Self {
        let event = |data: serde_json::Value| Bytes::from(format!("data: {data}\n\n"));
        let chunk = |delta: serde_json::Value, finish: serde_json::Value| {
            event(json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                         "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
        };
        let mut pieces = vec![chunk(json!({"role": "assistant", "content": ""}), json!(null))];
        pieces.extend((0..plan.completion_tokens).map(|_| chunk(json!({"content": " word"}), json!(null))));
        pieces.push(chunk(json!({}), json!("stop")));
        if plan.fault != Fault::NoUsage {
            pieces.push(event(json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                     "choices": [], "usage": usage(plan)})));
        }
        pieces.push(Bytes::from_static(b"data: [DONE]\n\n"));
        let last = match plan.fault {
            Fault::ErrorEvent(after) => Some((after, event(json!({"error": {"message": "simulated"}})))),
            Fault::Malformed(after) => Some((after, Bytes::from_static(b"data: {not json\n\n"))),
            Fault::Cut(after) | Fault::Stall(after) => {
                pieces.truncate(after);
                None
            }
            _ => None,
        };
        if let Some((after, last)) = last {
            pieces.truncate(after);
            pieces.push(last);
        }
        Self { pieces: pieces.into_iter(), gap: Duration::from_millis(plan.gap_ms), pause: None, fault: plan.fault }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        match self.pieces.next() {
            Some(piece) => {
                self.pause = Some(Box::pin(sleep_until(Instant::now() + self.gap)));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None => match self.fault {
                Fault::Cut(_) => Poll::Ready(Some(Err(SendError::Broken("cut".to_owned())))),
                Fault::Stall(_) => Poll::Pending,
                _ => Poll::Ready(None),
            },
        }
    }
}
