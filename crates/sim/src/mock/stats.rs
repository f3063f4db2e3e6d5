//! What the mock was asked and what it answered.

use crate::http1::Head;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests kept word for word.
const RECENT_MAX: usize = 20;
/// Bytes kept of each of their bodies.
const RECENT_BODY_BYTES_MAX: usize = 256 * 1024;

/// The answer of `GET /mock/stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Requests to `/v1/…`, refused and failed ones included.
    pub requests: u64,
    /// Requests being answered now.
    pub in_flight: u64,
    /// Answers during which the caller went away.
    pub cancelled: u64,
    /// Counts of each model that a request named.
    pub by_model: BTreeMap<String, ModelStats>,
    /// The last requests, oldest first.
    pub recent: Vec<Recorded>,
}

/// Counts of one model. The token counts are those of whole answers only: what a provider would bill for sure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStats {
    /// Requests that named the model.
    pub requests: u64,
    /// Requests answered with an error status, a redirect or a body that is not an answer.
    pub failed: u64,
    /// Whole answers.
    pub finished: u64,
    /// Input tokens of whole answers.
    pub prompt_tokens: u64,
    /// Output tokens of whole answers.
    pub completion_tokens: u64,
    /// Cached input tokens of whole answers.
    pub cached_tokens: u64,
    /// Answers sent as streams, whole or not.
    pub streams: u64,
    /// Events with content handed to the network, of all streams.
    pub delivered_chunks: u64,
    /// Answers that were begun and not finished: cut, stalled, broken off, or the caller left.
    pub unfinished: u64,
    /// Input tokens of those.
    pub unfinished_prompt_tokens: u64,
    /// Events with content that those had handed to the network.
    pub unfinished_chunks: u64,
}

/// A request as it arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// `POST /v1/chat/completions HTTP/1.1`.
    pub line: String,
    /// The headers with names in lower case; of repeated ones the last.
    pub headers: BTreeMap<String, String>,
    /// The body, cut at 256 KiB.
    pub body: String,
    /// The full length of the body.
    pub body_bytes: usize,
}

/// How the answer to one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Refused or failed before any answer.
    Failed,
    /// A whole answer was handed to the network.
    Finished,
    /// The script broke the answer off.
    Broken,
    /// The caller went away.
    Left,
}

/// What is counted when an answer ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) model: Option<String>,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) streamed: bool,
    pub(super) delivered_chunks: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    numbers: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: u64,
    in_flight: u64,
    cancelled: u64,
    by_model: BTreeMap<String, ModelStats>,
    /// Head and body bytes as they came; turned into [`Recorded`] only when somebody asks.
    recent: VecDeque<(Vec<u8>, Vec<u8>, usize)>,
}

impl Counters {
    /// A number for the ids of one answer; never given twice, also after a reset.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a request in; [`Counters::end`] must follow.
    pub(super) fn begin(&self, head: &[u8], body: &[u8]) {
        let mut inner = self.lock();
        inner.requests += 1;
        inner.in_flight += 1;
        // The oldest record's memory is used again: the mock must stay cheap under load.
        let (mut kept_head, mut kept_body, _) = if inner.recent.len() == RECENT_MAX {
            inner.recent.pop_front().unwrap_or_default()
        } else {
            Default::default()
        };
        kept_head.clear();
        kept_head.extend_from_slice(head);
        kept_body.clear();
        kept_body.extend_from_slice(&body[..body.len().min(RECENT_BODY_BYTES_MAX)]);
        inner.recent.push_back((kept_head, kept_body, body.len()));
    }

    pub(super) fn end(&self, outcome: &Outcome, ending: Ending) {
        let mut inner = self.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        inner.cancelled += u64::from(ending == Ending::Left);
        let Some(model) = &outcome.model else { return };
        if !inner.by_model.contains_key(model) {
            inner.by_model.insert(model.clone(), ModelStats::default());
        }
        let counts = inner.by_model.get_mut(model).expect("inserted above when it was missing");
        counts.requests += 1;
        counts.streams += u64::from(outcome.streamed);
        counts.delivered_chunks += outcome.delivered_chunks;
        match ending {
            Ending::Failed => counts.failed += 1,
            Ending::Finished => {
                counts.finished += 1;
                counts.prompt_tokens += outcome.prompt_tokens;
                counts.completion_tokens += outcome.completion_tokens;
                counts.cached_tokens += outcome.cached_tokens;
            }
            Ending::Broken | Ending::Left => {
                counts.unfinished += 1;
                counts.unfinished_prompt_tokens += outcome.prompt_tokens;
                counts.unfinished_chunks += outcome.delivered_chunks;
            }
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.lock().in_flight
    }

    pub(super) fn reset(&self) {
        let mut inner = self.lock();
        *inner = Inner { in_flight: inner.in_flight, ..Inner::default() };
    }

    pub(super) fn stats(&self) -> Stats {
        let inner = self.lock();
        Stats {
            requests: inner.requests,
            in_flight: inner.in_flight,
            cancelled: inner.cancelled,
            by_model: inner.by_model.clone(),
            recent: inner.recent.iter().map(|(head, body, size)| Recorded::new(head, body, *size)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    fn new(head: &[u8], body: &[u8], body_bytes: usize) -> Self {
        let (line, headers) = match crate::http1::head(head) {
            Ok(Some(head)) => (head.first_line().to_owned(), headers(&head)),
            _ => (String::from_utf8_lossy(head).into_owned(), BTreeMap::new()),
        };
        Self { line, headers, body: String::from_utf8_lossy(body).into_owned(), body_bytes }
    }
}

fn headers(head: &Head<'_>) -> BTreeMap<String, String> {
    head.headers().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}
