//! The little HTTP/1.1 that the mock and the load generator need, without I/O.
//!
//! Both sides of a test need control that a full client or server hides: where a write ends, what a
//! `content-length` claims, when a socket closes. So they own their sockets and share this reading half:
//! [`head`] finds a message head in a buffer, [`Body`] walks the body that follows it. Nothing here allocates.

use std::fmt;
use std::ops::Range;

/// Longest accepted head. Bounds the buffer of a peer that never ends its headers.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest accepted line of a chunk size (extensions included) or block of trailers.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// A message head at the start of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'b> {
    text: &'b str,
    /// Bytes of the head, the blank line included: the body starts here.
    pub size: usize,
}

/// The walk through one message body.
#[derive(Debug)]
pub enum Body {
    /// `content-length` bytes, of which this many are still to come.
    Sized(u64),
    /// `transfer-encoding: chunked`.
    Chunked(Chunk),
    /// Everything up to the close of the connection (responses only).
    UntilClose,
}

/// Where a chunked body stands.
#[derive(Debug)]
pub enum Chunk {
    /// At a size line.
    Size,
    /// Inside data with this many bytes to come.
    Data(u64),
    /// At the line end after data.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

/// What a body makes of the bytes at hand. The caller drops the consumed bytes before the next step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Body bytes are at this range of the buffer; everything up to its end is consumed.
    Data(Range<usize>),
    /// More bytes must be read first.
    More {
        /// Framing bytes that are done with.
        consumed: usize,
    },
    /// The body is complete.
    End {
        /// Framing bytes that are done with.
        consumed: usize,
        /// Where the trailer lines are.
        trailers: Range<usize>,
    },
}

/// Bytes that are not HTTP/1.1 as this module reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for std::io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, malformed)
    }
}

/// The head at the start of `buffer`, or `None` while its end has not arrived.
pub fn head(buffer: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        return if buffer.len() > HEAD_BYTES_MAX { Err(Malformed("the head is too long")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&buffer[..end]).map_err(|_| Malformed("the head is not UTF-8"))?;
    Ok(Some(Head { text, size: end + 4 }))
}

impl<'b> Head<'b> {
    /// The request or status line.
    pub fn first_line(&self) -> &'b str {
        self.text.split("\r\n").next().unwrap_or_default()
    }

    /// Name and value of every header, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b str)> + use<'b> {
        fields(self.text).skip(1)
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&'b str> {
        self.headers().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The status code, when this is a response.
    pub fn status(&self) -> Option<u16> {
        self.first_line().strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
    }

    /// Whether the sender means to close the connection after this message.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// How the body of a request is framed: without a statement, there is none.
    pub fn request_body(&self) -> Result<Body, Malformed> {
        self.stated_body().map(|stated| stated.unwrap_or(Body::Sized(0)))
    }

    /// How the body of a response is framed: without a statement, it lasts until the close.
    pub fn response_body(&self) -> Result<Body, Malformed> {
        match self.status() {
            Some(204 | 304) => Ok(Body::Sized(0)),
            _ => self.stated_body().map(|stated| stated.unwrap_or(Body::UntilClose)),
        }
    }

    fn stated_body(&self) -> Result<Option<Body>, Malformed> {
        let mut length = None;
        for (name, value) in self.headers() {
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Ok(Some(Body::Chunked(Chunk::Size)));
            }
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().map_err(|_| Malformed("content-length is not a number"))?);
            }
        }
        Ok(length.map(Body::Sized))
    }
}

/// The value of `name` among trailer lines.
pub fn trailer<'b>(lines: &'b [u8], name: &str) -> Option<&'b str> {
    let text = std::str::from_utf8(lines).ok()?;
    fields(text).find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\r\n").map(|line| line.split_once(':').map_or((line, ""), |(name, value)| (name, value.trim())))
}

impl Body {
    /// Takes what `buffer` begins with.
    pub fn step(&mut self, buffer: &[u8]) -> Result<Step, Malformed> {
        match self {
            Self::Sized(0) => Ok(Step::End { consumed: 0, trailers: 0..0 }),
            _ if buffer.is_empty() => Ok(Step::More { consumed: 0 }),
            Self::Sized(left) => {
                let taken = at_most(buffer.len(), *left);
                *left -= taken as u64;
                Ok(Step::Data(0..taken))
            }
            Self::UntilClose => Ok(Step::Data(0..buffer.len())),
            Self::Chunked(chunk) => chunk.step(buffer),
        }
    }
}

impl Chunk {
    fn step(&mut self, buffer: &[u8]) -> Result<Step, Malformed> {
        let mut at = 0;
        loop {
            let rest = &buffer[at..];
            match self {
                Self::Size => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        return starved(at, rest, "a chunk size line is too long");
                    };
                    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                    let size = hexadecimal(line.split(|byte| *byte == b';').next().unwrap_or(line).trim_ascii())?;
                    at += end + 1;
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(_) if rest.is_empty() => return Ok(Step::More { consumed: at }),
                Self::Data(left) => {
                    let taken = at_most(rest.len(), *left);
                    *left -= taken as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Step::Data(at..at + taken));
                }
                Self::DataEnd if rest.starts_with(b"\r\n") => {
                    at += 2;
                    *self = Self::Size;
                }
                Self::DataEnd if rest.len() < 2 => return Ok(Step::More { consumed: at }),
                Self::DataEnd => return Err(Malformed("chunk data is longer than its size")),
                Self::Trailers if rest.starts_with(b"\r\n") => {
                    return Ok(Step::End { consumed: at + 2, trailers: at..at });
                }
                Self::Trailers => {
                    let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
                        return starved(at, rest, "the trailers are too long");
                    };
                    return Ok(Step::End { consumed: at + end + 4, trailers: at..at + end });
                }
            }
        }
    }
}

fn starved(consumed: usize, rest: &[u8], complaint: &'static str) -> Result<Step, Malformed> {
    if rest.len() > CHUNK_LINE_BYTES_MAX { Err(Malformed(complaint)) } else { Ok(Step::More { consumed }) }
}

fn hexadecimal(digits: &[u8]) -> Result<u64, Malformed> {
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(Malformed("a chunk size is not a hexadecimal number"))
}

fn at_most(have: usize, wanted: u64) -> usize {
    usize::try_from(wanted).map_or(have, |wanted| wanted.min(have))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `piece` bytes; gives the body and the trailers.
    fn decode(mut body: Body, wire: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut buffer, mut out) = (Vec::new(), Vec::new());
        for bytes in wire.chunks(piece) {
            buffer.extend_from_slice(bytes);
            loop {
                let consumed = match body.step(&buffer).unwrap() {
                    Step::Data(range) => {
                        out.extend_from_slice(&buffer[range.clone()]);
                        range.end
                    }
                    Step::More { consumed } => {
                        buffer.drain(..consumed);
                        break;
                    }
                    Step::End { trailers, .. } => return (out, buffer[trailers].to_vec()),
                };
                buffer.drain(..consumed);
            }
        }
        panic!("the body did not end");
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_split() {
        let wire = b"5;x=y\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nx-cost: 1.5\r\nx-b: 2\r\n\r\n";
        for piece in 1..wire.len() {
            let (body, trailers) = decode(Body::Chunked(Chunk::Size), wire, piece);
            assert_eq!(body, b"hello 0123456789", "in pieces of {piece}");
            assert_eq!(trailer(&trailers, "X-Cost"), Some("1.5"));
        }
    }

    #[test]
    fn heads_are_read() {
        let wire = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 20\r\nContent-Length: 2\r\n\r\n{}";
        let head = head(wire).unwrap().unwrap();
        assert_eq!(head.status(), Some(429));
        assert_eq!(head.header("retry-after"), Some("20"));
        assert_eq!(&wire[head.size..], b"{}");
        assert!(matches!(head.response_body(), Ok(Body::Sized(2))));
    }

    #[test]
    fn broken_framing_is_refused() {
        for wire in [&b"xyz\r\n"[..], b"1\r\nab\r\n", b"+1\r\na\r\n", b"fffffffffffffffff\r\n"] {
            let mut body = Body::Chunked(Chunk::Size);
            let first = body.step(wire);
            let second = match first {
                Ok(Step::Data(range)) => body.step(&wire[range.end..]),
                other => other,
            };
            assert!(second.is_err(), "{wire:?} gave {second:?}");
        }
    }
}
