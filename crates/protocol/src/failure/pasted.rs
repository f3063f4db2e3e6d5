//! An answer as a person pastes it: the whole of it as `curl -i` prints it, its body alone, or what an SDK printed.

use super::{Failure, Told};
use crate::moment::{AWAY_MS_MAX, Moment};
use crate::provider::{self, Provider};
use bytes::Bytes;
use domain::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most headers that are read.
const HEADERS_MAX: usize = 200;

/// An answer, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pasted {
    /// The status, if it was there.
    pub status: Option<u16>,
    /// The head. What is no header is left out.
    pub headers: HeaderMap,
    /// The rest.
    pub body: Bytes,
}

/// There is nothing to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is nothing: paste a status line with headers and body, as `curl -i` prints them, or the body alone")]
pub struct BadPaste;

impl Pasted {
    /// Takes a text apart. Of several heads (a proxy's, 100 Continue, redirects) the last counts.
    pub fn read(text: &str) -> Result<Self, BadPaste> {
        let mut rest = text.trim_start_matches('\u{feff}').trim_start();
        if rest.is_empty() {
            return Err(BadPaste);
        }
        let mut pasted = Self::default();
        // `curl -v` marks what came with "< ".
        let verbose = rest.lines().any(|line| line.starts_with("< HTTP/"));
        let plain;
        if verbose {
            plain = unmarked(rest);
            rest = plain.trim_start();
        }
        while let Some(status) = status_line(rest) {
            let mut lines = rest.split_inclusive('\n');
            let mut at = lines.next().map_or(0, str::len);
            pasted = Self { status: Some(status), ..Self::default() };
            for line in lines {
                at += line.len();
                let line = line.trim_end_matches(['\r', '\n']);
                if line.trim().is_empty() {
                    break;
                }
                pasted.take_header(line);
            }
            rest = &rest[at..];
            if status_line(rest.trim_start()).is_some() {
                rest = rest.trim_start();
            }
        }
        if pasted.status.is_none()
            && let Some((status, body)) = printed_by_sdk(rest)
        {
            (pasted.status, rest) = (Some(status), body);
        }
        pasted.body = Bytes::copy_from_slice(rest.trim_end_matches(['\r', '\n']).as_bytes());
        Ok(pasted)
    }

    /// Whose answer it most likely is.
    pub fn provider(&self) -> Provider {
        provider::guess(self.status.unwrap_or(0), &self.headers, &self.body)
    }

    /// When it came: by its `date`, which may be hours ago, else `now`.
    pub fn answered_at(&self, now: Timestamp) -> Timestamp {
        let date = self.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        match date.and_then(Moment::retry_after) {
            Some(Moment::At(at)) if at < now && now.0 - at.0 <= AWAY_MS_MAX => at,
            _ => now,
        }
    }

    /// The failure that it tells; none where it is an answer of success.
    pub fn failure(&self, provider: Provider, now: Timestamp) -> Option<Failure> {
        match self.status {
            Some(status @ 300..) => Some(Failure::read(provider, status, &self.headers, &self.body, now)),
            Some(_) => Failure::inside(provider, &self.headers, &self.body, now),
            // A body alone can be either. What is no JSON is no answer of a model.
            None => Failure::inside(provider, &self.headers, &self.body, now).or_else(|| {
                let is_answer = serde_json::from_slice::<serde_json::Value>(&self.body).is_ok() || self.is_stream();
                let is_error = Told::json(&self.body).is_some();
                (is_error || !is_answer).then(|| Failure::read(provider, 0, &self.headers, &self.body, now))
            }),
        }
    }

    fn is_stream(&self) -> bool {
        ["data:", "event:", ":"].iter().any(|field| self.body.starts_with(field.as_bytes()))
    }

    fn take_header(&mut self, line: &str) {
        let Some((name, value)) = line.split_once(':') else { return };
        let (Ok(name), Ok(value)) = (name.trim().parse::<HeaderName>(), HeaderValue::from_str(value.trim())) else {
            return;
        };
        if self.headers.len() < HEADERS_MAX {
            self.headers.append(name, value);
        }
    }
}

/// `HTTP/1.1 429 Too Many Requests`, `HTTP/2 429`.
fn status_line(text: &str) -> Option<u16> {
    let line = text.lines().next()?.strip_prefix("HTTP/")?;
    line.split_ascii_whitespace().nth(1)?.parse().ok().filter(|status| (100..1000).contains(status))
}

/// What OpenAI's and Anthropic's Python SDKs print: `Error code: 429 - {'error': …}`.
fn printed_by_sdk(text: &str) -> Option<(u16, &str)> {
    let (before, after) = text.split_once("Error code: ")?;
    if before.contains('{') {
        return None;
    }
    let (status, body) = after.split_once(" - ")?;
    Some((status.trim().parse().ok().filter(|status| (100..1000).contains(status))?, body.trim()))
}

/// The lines that came, of what `curl -v` prints: heads without their mark, and what is not marked at all.
fn unmarked(text: &str) -> String {
    let came =
        text.lines().filter(|line| !line.starts_with("> ") && !line.starts_with("* ") && !matches!(*line, ">" | "*"));
    let mut plain = String::with_capacity(text.len());
    for line in came {
        plain.push_str(if line == "<" { "" } else { line.strip_prefix("< ").unwrap_or(line) });
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_alone_says_enough() {
        use crate::failure::Cause;
        let check = |text: &str, expected: Option<Cause>| {
            let pasted = Pasted::read(text).unwrap();
            let failure = pasted.failure(pasted.provider(), Timestamp(0));
            assert_eq!(failure.map(|failure| failure.cause), expected, "{text}");
        };
        check(r#"{"error":{"message":"m","code":"insufficient_quota"}}"#, Some(Cause::QuotaBalance));
        check(r#"{"error":{"message":"m","code":429}}"#, Some(Cause::RateRequests));
        check(r#"{"message":"Unauthorized","request_id":"1"}"#, Some(Cause::Server));
        check("data: {\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}}\n\n", Some(Cause::Overloaded));
        check("{\"error\":{\"code\":\"insufficient_quota\",\"mess", Some(Cause::QuotaBalance));
        check("upstream connect error", Some(Cause::Server));
        check(r#"{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}"#, None);
        check("data: {\"choices\":[]}\n\ndata: [DONE]\n\n", None);
    }

    #[test]
    fn an_answer_is_as_old_as_it_says_within_reason() {
        let now = Timestamp(1_795_341_600_000);
        let check = |date: &str, ago_ms: i64| {
            let pasted = Pasted::read(&format!("HTTP/2 429\ndate: {date}\n\n")).unwrap();
            assert_eq!(now.0 - pasted.answered_at(now).0, ago_ms, "{date}");
        };
        check("Sun, 22 Nov 2026 09:00:00 GMT", 3_600_000);
        check("Sun, 22 Nov 2026 11:00:00 GMT", 0);
        check("Thu, 01 Jan 1970 00:00:00 GMT", 0);
        check("12", 0);
    }

    #[test]
    fn answers_are_taken_apart() {
        let check = |text: &str, status: Option<u16>, headers: &[(&str, &str)], body: &str| {
            let pasted = Pasted::read(text).unwrap();
            assert_eq!((pasted.status, &*pasted.body), (status, body.as_bytes()), "{text:?}");
            assert_eq!(pasted.headers.len(), headers.len(), "{text:?}");
            for (name, value) in headers {
                assert_eq!(pasted.headers.get(*name).unwrap(), value);
            }
        };
        check(
            "HTTP/2 429\r\nretry-after: 7\r\nx-a: b\r\n\r\n{\"a\":1}\r\n",
            Some(429),
            &[("retry-after", "7"), ("x-a", "b")],
            "{\"a\":1}",
        );
        check("HTTP/1.1 429 Too Many Requests\nRetry-After: 7\n\n{}", Some(429), &[("retry-after", "7")], "{}");
        check("HTTP/1.1 200 Connection established\r\n\r\nHTTP/2 401\r\na: b\r\n\r\nx", Some(401), &[("a", "b")], "x");
        check("HTTP/1.1 100 Continue\n\nHTTP/1.1 500 No\n\n", Some(500), &[], "");
        check("HTTP/2 503", Some(503), &[], "");
        check(
            "HTTP/2 200\nbroken line\n: x\nb: c\n\ndata: {}\n\ndata: [DONE]",
            Some(200),
            &[("b", "c")],
            "data: {}\n\ndata: [DONE]",
        );
        check("{\"error\":{}}\n", None, &[], "{\"error\":{}}");
        check("* ALPN\n> GET / HTTP/2\n>\n< HTTP/2 404\n< a: b\n<\n{\"x\":1}", Some(404), &[("a", "b")], "{\"x\":1}");
        check(
            "openai.RateLimitError: Error code: 429 - {'error': {'code': 'x'}}",
            Some(429),
            &[],
            "{'error': {'code': 'x'}}",
        );
        check("Error code: none - x", None, &[], "Error code: none - x");
        for nothing in ["", " \r\n\t", "\u{feff}"] {
            assert_eq!(Pasted::read(nothing), Err(BadPaste));
        }
    }
}
