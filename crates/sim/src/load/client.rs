//! The HTTP/1.1 client of the load generator: one connection, one exchange at a time, no retries.

use crate::http1::{self, Step};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room made for each read.
const READ_BYTES: usize = 16 * 1024;

/// A server and the key to present to it.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    key: Arc<str>,
}

/// What is known of an answer besides its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The price, from the header or the trailer `x-tollgate-cost`.
    pub cost: Option<String>,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
    /// Whether the receiver of the body stopped before its end.
    pub left: bool,
    /// Bytes of the body that were read.
    pub body_bytes: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Target {
    /// A target from `http://ADDRESS:PORT`. Names are not resolved: load goes to loopback.
    pub fn parse(url: &str, key: &str) -> Result<Self, String> {
        let address = url.trim_end_matches('/').trim_end_matches("/v1").strip_prefix("http://").unwrap_or(url);
        let address = address.replace("localhost", "127.0.0.1");
        match address.parse() {
            Ok(address) => Ok(Self { address, key: key.into() }),
            Err(error) => Err(format!("{url} is not http://ADDRESS:PORT: {error}")),
        }
    }

    /// The same server with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { address: self.address, key: key.into() }
    }
}

/// A whole POST request with a JSON body. `te: trailers` lets a server put the price behind a stream.
pub fn request(target: &Target, path: &str, body: &str) -> Arc<[u8]> {
    let (address, key, size) = (target.address, &target.key, body.len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nte: trailers\r\n\
         content-type: application/json\r\naccept: */*\r\nuser-agent: tollgate-load\r\ncontent-length: {size}\r\n\r\n{body}"
    )
    .into_bytes()
    .into()
}

impl Client {
    /// Connects.
    pub async fn connect(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// Sends a whole request and reads its answer. `each` gets the body piece by piece, without its framing, and
    /// may break off; the connection must then be dropped, which is how a client leaves.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        let (mut answer, mut body) = loop {
            if let Some(head) = http1::head(&self.buffer)? {
                let status = head.status().ok_or_else(|| bad("the status line is not one"))?;
                let size = head.size;
                if (100..200).contains(&status) {
                    self.buffer.drain(..size);
                    continue;
                }
                let answer = Answer {
                    status,
                    cost: head.header("x-tollgate-cost").map(str::to_owned),
                    keep_alive: !head.closes(),
                    ..Answer::default()
                };
                let body = head.response_body()?;
                self.buffer.drain(..size);
                break (answer, body);
            }
            if self.read().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let mut at = 0;
        loop {
            match body.step(&self.buffer[at..])? {
                Step::Data(range) => {
                    let piece = &self.buffer[at + range.start..at + range.end];
                    answer.body_bytes += piece.len() as u64;
                    let flow = each(piece);
                    at += range.end;
                    if flow.is_break() {
                        return Ok(Answer { left: true, keep_alive: false, ..answer });
                    }
                }
                Step::More { consumed } => {
                    self.buffer.drain(..at + consumed);
                    at = 0;
                    if self.read().await? == 0 {
                        return match body {
                            http1::Body::UntilClose => Ok(Answer { keep_alive: false, ..answer }),
                            _ => Err(ErrorKind::UnexpectedEof.into()),
                        };
                    }
                }
                Step::End { consumed, trailers } => {
                    let lines = &self.buffer[at + trailers.start..at + trailers.end];
                    if let Some(cost) = http1::trailer(lines, "x-tollgate-cost") {
                        answer.cost = Some(cost.to_owned());
                    }
                    self.buffer.drain(..at + consumed);
                    return Ok(answer);
                }
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
