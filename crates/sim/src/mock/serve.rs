//! One connection of the mock: requests in, scripted bytes out.

use super::Shared;
use super::answer::{self, Answer, Content, Kind, Usage, put};
use super::media;
use super::native::{self, Written};
use super::request::Call;
use super::script::{Close, LengthFault, Script};
use super::stats::{Ending, Outcome};
use crate::http1::{self, Body, Head, Step};
use crate::precise;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest accepted request body.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes accepted behind a request while it is being answered.
const PIPELINED_BYTES_MAX: usize = 1024 * 1024;
/// Longest silence: of an idle caller, and of a script that stalls.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// A burst is written once this much has gathered.
const BURST_BYTES: usize = 16 * 1024;
/// Time for the peer to read what was sent before a reset throws it away.
const BEFORE_RESET: Duration = Duration::from_millis(20);
/// Bounds on what one request can ask the mock to make.
const WORDS_MAX: u64 = 1_000_000;
const CHOICES_MAX: u64 = 128;
const INPUTS_MAX: u64 = 2048;
const DIMENSIONS_MAX: u64 = 4096;
const BOMB_MEBIBYTES_MAX: u32 = 1024;
/// Output tokens per choice when neither the script nor the request says anything.
const COMPLETION_TOKENS_DEFAULT: u64 = 16;

struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
    /// Bytes read and not yet consumed.
    inbox: Vec<u8>,
    /// Bytes to write with the next flush.
    outbox: Vec<u8>,
    /// Events with content in the outbox, counted as delivered once it is flushed.
    outbox_chunks: u64,
    /// Memory for bodies and events under construction.
    scratch: Vec<u8>,
    /// Bytes per write.
    split: Option<usize>,
    /// Bytes until the connection is cut, and how.
    cut: Option<(u64, Close)>,
}

/// Where a whole request lies.
struct Received {
    head_size: usize,
    body: Range<usize>,
    /// A chunked body, joined.
    joined: Option<Vec<u8>>,
    consumed: usize,
    closes: bool,
}

/// What a request is answered with. A whole body is left in the scratch memory.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) script: Option<Box<Script>>,
    pub(super) events: Option<Stream>,
    pub(super) outcome: Outcome,
    /// How a complete delivery counts.
    pub(super) ending: Ending,
    /// Requests to the mock itself are not counted.
    counted: bool,
    /// Number for the request id.
    pub(super) number: u64,
}

/// The events of a stream: made as they are sent, or written in advance.
pub(super) enum Stream {
    Chat(Answer),
    Written(Written),
}

/// Serves one caller until either side has enough.
pub(super) async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut connection = Connection {
        stream,
        shared,
        inbox: Vec::with_capacity(4096),
        outbox: Vec::with_capacity(4096),
        outbox_chunks: 0,
        scratch: Vec::new(),
        split: None,
        cut: None,
    };
    // An error here means that the caller is gone or does not speak HTTP: there is nobody to tell.
    let _ = connection.serve().await;
}

impl Connection {
    async fn serve(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(received) = self.receive().await? {
            self.scratch.clear();
            let body = received.joined.as_deref().unwrap_or(&self.inbox[received.body.clone()]);
            let reply = match http1::head(&self.inbox[..received.head_size])? {
                Some(head) => decide(&self.shared, &head, body, &mut self.scratch),
                None => return Ok(()),
            };
            if reply.counted {
                self.shared.counters.begin(&self.inbox[..received.head_size], body);
            }
            self.inbox.drain(..received.consumed);

            let (script, mut outcome) = (reply.script.as_deref(), reply.outcome.clone());
            self.split = script.and_then(|script| script.split).map(|split| split.max(1));
            self.cut = script.and_then(|script| Some((script.cut_at_byte?, script.how.unwrap_or_default())));
            self.outbox.clear();
            self.outbox_chunks = 0;
            let sent = self.send(&reply, &mut outcome).await;
            if reply.counted {
                let (Ok(ending) | Err(ending)) = sent;
                self.shared.counters.end(&outcome, ending);
            }
            if sent.is_err() || received.closes {
                break;
            }
        }
        Ok(())
    }

    /// Reads one whole request; `None` when the caller closed instead.
    async fn receive(&mut self) -> io::Result<Option<Received>> {
        let (head_size, mut framing, closes, expects) = loop {
            if let Some(head) = http1::head(&self.inbox)? {
                let old = head.first_line().ends_with("HTTP/1.0");
                break (head.size, head.request_body()?, head.closes() || old, head.header("expect").is_some());
            }
            if !self.read().await? {
                return Ok(None);
            }
        };
        if expects {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if let Body::Sized(size) = framing {
            // The common case keeps the body where it was read to.
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > BODY_BYTES_MAX {
                return self.refuse_size().await;
            }
            while self.inbox.len() < head_size + size {
                if !self.read().await? {
                    return Ok(None);
                }
            }
            let body = head_size..head_size + size;
            return Ok(Some(Received { head_size, consumed: body.end, body, joined: None, closes }));
        }
        let (mut joined, mut at) = (Vec::new(), head_size);
        loop {
            match framing.step(&self.inbox[at..])? {
                Step::Data(range) => {
                    joined.extend_from_slice(&self.inbox[at + range.start..at + range.end]);
                    at += range.end;
                    if joined.len() > BODY_BYTES_MAX {
                        return self.refuse_size().await;
                    }
                }
                Step::More { consumed } => {
                    at += consumed;
                    if !self.read().await? {
                        return Ok(None);
                    }
                }
                Step::End { consumed, .. } => {
                    at += consumed;
                    return Ok(Some(Received { head_size, body: 0..0, joined: Some(joined), consumed: at, closes }));
                }
            }
        }
    }

    async fn refuse_size(&mut self) -> io::Result<Option<Received>> {
        self.stream
            .write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await?;
        Ok(None)
    }

    /// Reads more; false when the caller closed or fell silent.
    async fn read(&mut self) -> io::Result<bool> {
        match tokio::time::timeout(SILENCE_MAX, self.stream.read_buf(&mut self.inbox)).await {
            Ok(read) => Ok(read? > 0),
            Err(_) => Ok(false),
        }
    }

    /// Sends a reply. `Err` means that the connection cannot be used again.
    async fn send(&mut self, reply: &Reply, outcome: &mut Outcome) -> Result<Ending, Ending> {
        let Some(script) = &reply.script else {
            return match &reply.events {
                Some(stream) => self.send_events(reply, stream, &Script::default(), outcome).await,
                None => {
                    let size = self.scratch.len();
                    self.put_head(reply, "", &format_args!("content-length: {size}\r\n"));
                    self.outbox.extend_from_slice(&self.scratch);
                    self.flush(outcome).await?;
                    Ok(reply.ending)
                }
            };
        };
        if let Some(wait) = script.first_byte_ms {
            self.unless_gone(precise::sleep(Duration::from_millis(wait))).await?;
        }
        if script.hang_head {
            self.outbox.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-ty");
            self.flush(outcome).await?;
            return self.hang().await;
        }
        match &reply.events {
            Some(stream) => self.send_events(reply, stream, script, outcome).await,
            None => self.send_whole(reply, script, outcome).await,
        }
    }

    async fn send_whole(&mut self, reply: &Reply, script: &Script, outcome: &mut Outcome) -> Result<Ending, Ending> {
        let size = self.scratch.len();
        let extra = extra_headers(script);
        match script.content_length {
            None => self.put_head(reply, &extra, &format_args!("content-length: {size}\r\n")),
            Some(LengthFault::Short) => {
                self.put_head(reply, &extra, &format_args!("content-length: {}\r\n", size.saturating_sub(10)));
            }
            Some(LengthFault::Long) => {
                self.put_head(reply, &extra, &format_args!("content-length: {}\r\n", size + 10));
            }
            Some(LengthFault::Twice) => self.put_head(
                reply,
                &extra,
                &format_args!("content-length: {size}\r\ncontent-length: {}\r\n", size + 10),
            ),
            Some(LengthFault::WithChunked) => {
                self.put_head(reply, &extra, &format_args!("content-length: {size}\r\ntransfer-encoding: chunked\r\n"))
            }
        }
        if let Some(after) = script.cut_after.or(script.stall_after) {
            let kept = if after == 0 { 0 } else { size / 2 };
            self.outbox.extend_from_slice(&self.scratch[..kept]);
            self.flush(outcome).await?;
            return match script.cut_after {
                Some(_) => self.close(script.how.unwrap_or_default()).await,
                None => self.hang().await,
            };
        }
        if script.content_length == Some(LengthFault::WithChunked) {
            put!(self.outbox, "{size:x}\r\n");
            self.outbox.extend_from_slice(&self.scratch);
            self.outbox.extend_from_slice(b"\r\n0\r\n\r\n");
        } else {
            self.outbox.extend_from_slice(&self.scratch);
        }
        self.flush(outcome).await?;
        if script.content_length.is_some() {
            return self.close(script.how.unwrap_or_default()).await;
        }
        Ok(reply.ending)
    }

    async fn send_events(
        &mut self,
        reply: &Reply,
        stream: &Stream,
        script: &Script,
        outcome: &mut Outcome,
    ) -> Result<Ending, Ending> {
        let line_end = if script.crlf { "\r\n" } else { "\n" };
        self.put_head(reply, &extra_headers(script), &format_args!("transfer-encoding: chunked\r\n"));
        if script.bom {
            self.put_chunk("\u{feff}".as_bytes());
        }
        let gap = script.gap_ms.map(Duration::from_millis);
        let mut next = Instant::now();
        let events = stream.events();
        for index in 0..=events {
            if script.cut_after == Some(index) {
                self.flush(outcome).await?;
                return self.close(script.how.unwrap_or_default()).await;
            }
            if script.stall_after == Some(index) {
                self.flush(outcome).await?;
                return self.hang().await;
            }
            if script.error_after == Some(index) {
                self.scratch.clear();
                let name = stream.failure(script, index, &mut self.scratch);
                self.put_event(name, line_end);
                self.outbox.extend_from_slice(b"0\r\n\r\n");
                self.flush(outcome).await?;
                return Ok(Ending::Broken);
            }
            if script.malformed_after == Some(index) {
                self.scratch.clear();
                put!(self.scratch, r#"{{"id":"broken","choices":[{{"index":0,"delta":{{"content":" wo"#);
                self.put_event(None, line_end);
            }
            if index == events {
                break;
            }
            if script.comments && index % 4 == 0 {
                self.put_chunk(format!(": keep-alive{line_end}{line_end}").as_bytes());
            }
            self.scratch.clear();
            let name = stream.event(index, &mut self.scratch);
            self.put_event(name, line_end);
            self.outbox_chunks += u64::from(stream.has_content(index));
            if let Some(gap) = gap {
                self.flush(outcome).await?;
                next += gap;
                self.unless_gone(tokio::time::sleep_until(next.into())).await?;
            } else if self.outbox.len() > BURST_BYTES {
                self.flush(outcome).await?;
            }
        }
        for _ in 0..if script.no_done || !stream.says_done() { 0 } else { 1 + u8::from(script.done_twice) } {
            self.scratch.clear();
            self.scratch.extend_from_slice(b"[DONE]");
            self.put_event(None, line_end);
        }
        self.outbox.extend_from_slice(b"0\r\n\r\n");
        self.flush(outcome).await?;
        Ok(reply.ending)
    }

    fn put_head(&mut self, reply: &Reply, extra: &str, framing: &std::fmt::Arguments<'_>) {
        let (status, reason) = (reply.status, reason(reply.status));
        let content_type = reply.script.as_ref().and_then(|script| script.content_type.as_deref());
        put!(
            self.outbox,
            "HTTP/1.1 {status} {reason}\r\ncontent-type: {}\r\nx-request-id: req_mock{}\r\nopenai-processing-ms: 1\r\n{extra}{framing}\r\n",
            content_type.unwrap_or(reply.content_type),
            reply.number,
        );
    }

    /// The scratch memory as one event in one chunk.
    fn put_event(&mut self, name: Option<&str>, line_end: &str) {
        let named = name.map_or_else(String::new, |name| format!("event: {name}{line_end}"));
        put!(self.outbox, "{:x}\r\n{named}data: ", named.len() + 6 + self.scratch.len() + 2 * line_end.len());
        self.outbox.extend_from_slice(&self.scratch);
        put!(self.outbox, "{line_end}{line_end}\r\n");
    }

    fn put_chunk(&mut self, bytes: &[u8]) {
        put!(self.outbox, "{:x}\r\n", bytes.len());
        self.outbox.extend_from_slice(bytes);
        self.outbox.extend_from_slice(b"\r\n");
    }

    /// Writes the outbox, as the script wants it split and cut.
    async fn flush(&mut self, outcome: &mut Outcome) -> Result<(), Ending> {
        let mut size = self.outbox.len();
        let mut cut_now = None;
        if let Some((left, how)) = &mut self.cut {
            if size as u64 >= *left {
                size = usize::try_from(*left).unwrap_or(size);
                cut_now = Some(*how);
            } else {
                *left -= size as u64;
            }
        }
        let outbox = &self.outbox[..size];
        match self.split {
            None => self.stream.write_all(outbox).await.map_err(|_| Ending::Left)?,
            Some(split) => {
                for piece in outbox.chunks(split) {
                    self.stream.write_all(piece).await.map_err(|_| Ending::Left)?;
                    // Lets the peer read this piece alone.
                    tokio::task::yield_now().await;
                }
            }
        }
        self.outbox.clear();
        outcome.delivered_chunks += std::mem::take(&mut self.outbox_chunks);
        match cut_now {
            Some(how) => self.close(how).await.map(drop),
            None => Ok(()),
        }
    }

    async fn close(&mut self, how: Close) -> Result<Ending, Ending> {
        if how == Close::Rst {
            tokio::time::sleep(BEFORE_RESET).await;
            // Without this option the close would be an orderly one; nothing else depends on it.
            let _ = self.stream.set_zero_linger();
        } else {
            // The peer may be gone already: closed is closed.
            let _ = self.stream.shutdown().await;
        }
        Err(Ending::Broken)
    }

    /// Says nothing until the caller leaves.
    async fn hang(&mut self) -> Result<Ending, Ending> {
        self.unless_gone(tokio::time::sleep(SILENCE_MAX)).await?;
        Err(Ending::Broken)
    }

    /// Waits, but not for a caller who has left.
    async fn unless_gone(&mut self, wait: impl Future<Output = ()>) -> Result<(), Ending> {
        let gone = async {
            loop {
                if self.stream.readable().await.is_err() {
                    return;
                }
                match self.stream.try_read_buf(&mut self.inbox) {
                    Ok(0) => return,
                    Ok(_) if self.inbox.len() > PIPELINED_BYTES_MAX => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        tokio::select! {
            () = wait => Ok(()),
            () = gone => Err(Ending::Left),
        }
    }
}

/// Chooses the answer to a request; a whole body goes to `out`.
fn decide(shared: &Shared, head: &Head<'_>, body: &[u8], out: &mut Vec<u8>) -> Reply {
    let mut line = head.first_line().split(' ');
    let (method, path) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let target = path;
    let path = path.split('?').next().unwrap_or_default();
    let mut reply = Reply {
        status: 200,
        content_type: "application/json",
        script: None,
        events: None,
        outcome: Outcome::default(),
        ending: Ending::Finished,
        counted: false,
        number: 0,
    };
    match (method, path) {
        ("GET", "/mock/stats") => {
            serde_json::to_writer(out, &shared.counters.stats()).expect("the counts are always JSON");
            return reply;
        }
        ("POST", "/mock/reset") => {
            shared.counters.reset();
            out.extend_from_slice(b"{}");
            return reply;
        }
        ("POST", "/mock/script") => {
            match serde_json::from_slice(body) {
                Ok(script) => {
                    shared.play(script);
                    out.extend_from_slice(b"{}");
                }
                Err(error) => return refuse(reply, 400, Some(&format!("This is no script: {error}")), out),
            }
            return reply;
        }
        _ => {}
    }
    reply.counted = true;
    reply.number = shared.counters.number();
    if let Some(dialect) = native::dialect_of(head, path) {
        return native::decide(shared, dialect, head, target, body, reply, out);
    }
    if shared.authorization.is_some() && head.header("authorization") != shared.authorization.as_deref() {
        return refuse(reply, 401, None, out);
    }
    if method == "POST"
        && let Some(endpoint) = media::Endpoint::at(path)
    {
        return match media::Asked::read(endpoint, head.header("content-type"), body) {
            Ok(asked) => follow_media(reply, asked, shared, out),
            Err(message) => refuse(reply, 400, Some(&message), out),
        };
    }
    let endpoint = match (method, path) {
        ("POST", "/v1/chat/completions") => Endpoint::Generate(Kind::Chat),
        ("POST", "/v1/completions") => Endpoint::Generate(Kind::Completion),
        ("POST", "/v1/embeddings") => Endpoint::Embed,
        ("GET", "/v1/models") => {
            out.extend_from_slice(br#"{"object":"list","data":["#);
            for (place, model) in shared.models.iter().enumerate() {
                out.extend_from_slice(if place == 0 { b"" } else { b"," });
                answer::model(model, out);
            }
            out.extend_from_slice(b"]}");
            return reply;
        }
        ("GET", path) if path.strip_prefix("/v1/models/").is_some_and(|id| shared.models.iter().any(|m| m == id)) => {
            answer::model(&path["/v1/models/".len()..], out);
            return reply;
        }
        _ => {
            reply.status = 404;
            reply.ending = Ending::Failed;
            answer::error(&format!("Invalid URL ({method} {path})"), "invalid_request_error", "", out);
            return reply;
        }
    };
    let mut call: Call<'_> = match serde_json::from_slice(body) {
        Ok(call) => call,
        Err(error) => {
            return refuse(reply, 400, Some(&format!("We could not parse the body of your request: {error}")), out);
        }
    };
    call.mock = call.mock.or_else(|| shared.script());
    follow(reply, endpoint, call, out)
}

impl Stream {
    /// Events with data, `[DONE]` not counted.
    fn events(&self) -> u64 {
        match self {
            Self::Chat(answer) => answer.events(),
            Self::Written(written) => written.events.len() as u64,
        }
    }

    /// The data of the event with that index go to `out`; its name is returned.
    fn event(&self, index: u64, out: &mut Vec<u8>) -> Option<&'static str> {
        match self {
            Self::Chat(answer) => {
                answer.event(index, out);
                None
            }
            Self::Written(written) => {
                let event = written.at(index);
                out.extend_from_slice(event.data.as_bytes());
                event.name
            }
        }
    }

    /// Whether that event carries generated content.
    fn has_content(&self, index: u64) -> bool {
        match self {
            Self::Chat(answer) => answer.has_content(index),
            Self::Written(written) => written.at(index).content,
        }
    }

    /// The event of a failure after `sent` events: its data go to `out`; its name is returned.
    fn failure(&self, script: &Script, sent: u64, out: &mut Vec<u8>) -> Option<&'static str> {
        match self {
            Self::Chat(_) => {
                put_error(script, 500, out);
                None
            }
            Self::Written(written) => written.failure(script, sent, out),
        }
    }

    /// Ends by `[DONE]`.
    fn says_done(&self) -> bool {
        matches!(self, Self::Chat(_))
    }
}

enum Endpoint {
    Generate(Kind),
    Embed,
}

/// Answers a parsed request as its script says.
fn follow(mut reply: Reply, endpoint: Endpoint, call: Call<'_>, out: &mut Vec<u8>) -> Reply {
    reply.outcome.model = Some(call.model.clone().into_owned());
    let plain = Script::default();
    let script = call.mock.as_deref().unwrap_or(&plain);
    let inputs = call.prompt.as_ref().or(call.input.as_ref());
    let missing = match &endpoint {
        Endpoint::Generate(Kind::Chat) if call.messages.is_none() => Some("messages"),
        Endpoint::Generate(Kind::Completion) if inputs.is_none() => Some("prompt"),
        Endpoint::Embed if inputs.is_none() => Some("input"),
        _ => None,
    };
    if let Some(name) = missing {
        return refuse(reply, 400, Some(&format!("Missing required parameter: '{name}'.")), out);
    }
    if matches!((&endpoint, &call.messages), (Endpoint::Generate(Kind::Chat), Some(messages)) if messages.count == 0) {
        let said =
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return refuse(reply, 400, Some(said), out);
    }

    if !fails(&mut reply, script, &mut |status, out| put_error(script, status, out), out) {
        reply.status = script.status.unwrap_or(200);
        match endpoint {
            Endpoint::Embed => embed(&mut reply, script, &call, out),
            Endpoint::Generate(kind) => generate(&mut reply, kind, script, &call, out),
        }
    }
    reply.script = call.mock;
    reply
}

/// A request to an endpoint beside text, answered as its script says.
fn follow_media(mut reply: Reply, mut asked: media::Asked, shared: &Shared, out: &mut Vec<u8>) -> Reply {
    reply.outcome.model = Some(asked.model().to_owned());
    let script = asked.script.take().or_else(|| shared.script());
    let plain = Script::default();
    let said = script.as_deref().unwrap_or(&plain);
    if !fails(&mut reply, said, &mut |status, out| put_error(said, status, out), out) {
        reply.status = said.status.unwrap_or(200);
        let made = asked.answer(said, reply.number, out);
        reply.content_type = made.content_type;
        let Outcome { streamed, prompt_tokens, completion_tokens, .. } = &mut reply.outcome;
        (*streamed, *prompt_tokens, *completion_tokens) = (made.streamed, made.input, made.output);
    }
    reply.script = script;
    reply
}

/// Whether the script wants something else than an answer, which then is in `out`; `put_error` writes an error with a status.
pub(super) fn fails(
    reply: &mut Reply,
    script: &Script,
    put_error: &mut dyn FnMut(u16, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> bool {
    if let Some(location) = &script.redirect {
        reply.status = script.status.unwrap_or(307);
        put!(out, r#"{{"location":"#);
        answer::put_text(location, out);
        put!(out, "}}");
    } else if let Some(raw) = &script.raw_body {
        reply.status = script.status.unwrap_or(200);
        out.extend_from_slice(raw.as_bytes());
    } else if let Some(mebibytes) = script.gzip_bomb {
        answer::gzip_bomb(mebibytes.min(BOMB_MEBIBYTES_MAX), out);
    } else if script.status.is_some_and(|status| status >= 300)
        || (script.error.is_some() && script.error_after.is_none())
    {
        reply.status = script.status.unwrap_or(200);
        put_error(reply.status, out);
    } else {
        return false;
    }
    reply.ending = Ending::Failed;
    true
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn embed(reply: &mut Reply, script: &Script, call: &Call<'_>, out: &mut Vec<u8>) {
    let inputs = call.input.as_ref().or(call.prompt.as_ref());
    let (items, tokens) = inputs.map_or((0, 0), |inputs| (inputs.items.min(INPUTS_MAX), inputs.tokens));
    let prompt = script.prompt_tokens.unwrap_or(tokens);
    reply.outcome.prompt_tokens = prompt;
    let base64 = call.encoding_format.as_deref() == Some("base64");
    let dimensions = call.dimensions.unwrap_or(8).min(DIMENSIONS_MAX);
    let model = script.model.as_deref().unwrap_or(&call.model);
    answer::embeddings(model, items, dimensions, base64, prompt, script.usage, out);
}

fn generate(reply: &mut Reply, kind: Kind, script: &Script, call: &Call<'_>, out: &mut Vec<u8>) {
    let n = call.n.unwrap_or(1).clamp(1, CHOICES_MAX);
    let (choices, counted_prompt) = match (kind, &call.messages, &call.prompt) {
        (Kind::Chat, Some(messages), _) => (n, messages.words + 3 * messages.count + 3),
        (Kind::Completion, _, Some(prompt)) => ((n * prompt.items.max(1)).min(CHOICES_MAX), prompt.tokens),
        _ => (n, 0),
    };
    let cap = call.max_completion_tokens.or(call.max_tokens);
    let completion = script
        .completion_tokens
        .unwrap_or_else(|| cap.map_or(COMPLETION_TOKENS_DEFAULT, |cap| cap.min(COMPLETION_TOKENS_DEFAULT)));
    let reasoning = script.reasoning_tokens.unwrap_or(0);
    let usage = Usage {
        prompt: script.prompt_tokens.unwrap_or(counted_prompt),
        completion: completion.saturating_mul(choices),
        cached: script.cached_tokens.unwrap_or(0),
        reasoning: reasoning.saturating_mul(choices),
    };
    let words = script.words.unwrap_or_else(|| completion.saturating_sub(reasoning)).min(WORDS_MAX);
    let text = script.text.as_deref().map(|text| native::pieces(Some(text), 0));
    let answer = Answer {
        kind,
        content: match () {
            () if script.tool_calls => Content::ToolCalls,
            () if script.refusal => Content::Refusal,
            () => Content::Text,
        },
        number: reply.number,
        created: now_s(),
        model: script.model.as_deref().unwrap_or(&call.model).to_owned(),
        choices,
        words: text.as_ref().map_or(words, |text| text.len() as u64),
        text,
        calls: script.calls(),
        capped: cap.is_some_and(|cap| completion >= cap),
        usage,
        fault: script.usage,
        include_usage: call.stream_options.as_ref().is_some_and(|options| options.include_usage),
    };
    reply.outcome.prompt_tokens = usage.prompt;
    reply.outcome.completion_tokens = usage.completion;
    reply.outcome.cached_tokens = usage.cached;
    let asked = call.stream.unwrap_or(false);
    if (asked || script.stream_when_json) && !script.json_when_stream {
        reply.content_type = "text/event-stream; charset=utf-8";
        reply.outcome.streamed = true;
        reply.events = Some(Stream::Chat(answer));
    } else {
        answer.json(out);
    }
}

fn refuse(mut reply: Reply, status: u16, message: Option<&str>, out: &mut Vec<u8>) -> Reply {
    let (usual, kind, code) = answer::usual_error(status);
    reply.status = status;
    reply.ending = Ending::Failed;
    answer::error(message.unwrap_or(usual), kind, code, out);
    reply
}

fn put_error(script: &Script, status: u16, out: &mut Vec<u8>) {
    match &script.error {
        Some(error) => put!(out, r#"{{"error":{error}}}"#),
        None => {
            let (message, kind, code) = answer::usual_error(status);
            answer::error(message, kind, code, out);
        }
    }
}

fn extra_headers(script: &Script) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        // A script cannot end the header early: that would be another test's business (split, cut).
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        lines.push_str(&format!("{name}: {value}\r\n"));
    };
    if let Some(retry_after) = &script.retry_after {
        line("retry-after", &retry_after.as_str().map_or_else(|| retry_after.to_string(), str::to_owned));
    }
    if let Some(location) = &script.redirect {
        line("location", location);
    }
    if script.gzip_bomb.is_some() {
        line("content-encoding", "gzip");
    }
    for (name, value) in &script.headers {
        line(name, value);
    }
    if script.cut_after.is_none() && script.content_length.is_some() {
        line("connection", "close");
    }
    lines
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Mock")
}
