//! A load generator that is cheap enough to share a core with the mock.
//!
//! [`closed_loop`] keeps N connections busy and measures throughput; [`open_loop`] sends by the clock, whatever the
//! answers do, and measures latency from the time a request was due; [`trace`] replays recorded arrival times and
//! sizes. All speak through [`Client`], a small HTTP/1.1 client over a raw socket.

mod client;
pub mod trace;

pub use client::{Answer, Client, Target, request};

use crate::precise;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest wait for one answer under load.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause of a connection after a failure, so that a dead server is not hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// Requests of an open loop that may wait for answers at the same time.
const OPEN_LOOP_IN_FLIGHT_MAX: usize = 4096;

/// What [`closed_loop`] counted within its window.
#[derive(Clone, Debug)]
pub struct Tally<P> {
    /// Answers with status 200 that ended as they should.
    pub answers: u64,
    /// Server-sent events that arrived, those of unfinished streams included.
    pub events: u64,
    /// Everything else.
    pub failures: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// What the probe said at the start and at the end of the window.
    pub probes: (P, P),
}

/// What [`open_loop`] measured.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// From the time a request was due to the last byte of its answer, in ascending order.
    pub sorted: Vec<Duration>,
    /// Requests without a proper answer.
    pub failures: u64,
}

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    events: AtomicU64,
    failures: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    fn read(&self) -> [u64; 3] {
        [&self.answers, &self.events, &self.failures].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Keeps `connections` busy with `request` for a warm-up and then a measured window. `probe` is called at both
/// edges of the window, to read for instance the processor time of the server.
///
/// The connections start spread over the first half of the warm-up, so that slow streams are out of step.
pub async fn closed_loop<P>(
    target: &Target,
    request: &Arc<[u8]>,
    connections: usize,
    warm_up: Duration,
    window: Duration,
    probe: impl Fn() -> P,
) -> Tally<P> {
    let counts = Arc::new(Counts::default());
    let mut workers = JoinSet::new();
    for number in 0..connections {
        #[allow(clippy::cast_precision_loss)] // A few thousand at most.
        let delay = warm_up.mul_f64(0.5 * number as f64 / connections as f64);
        let worker = keep_busy(target.clone(), request.clone(), counts.clone());
        workers.spawn(async move {
            tokio::time::sleep(delay).await;
            worker.await;
        });
    }
    tokio::time::sleep(warm_up).await;
    let (start, before, first) = (Instant::now(), counts.read(), probe());
    tokio::time::sleep(window).await;
    let (after, last, elapsed) = (counts.read(), probe(), start.elapsed());
    counts.stop.store(true, Ordering::Relaxed);
    let drained = async { while workers.join_next().await.is_some() {} };
    // Who has not ended by then hangs on a dead server; dropping the set ends the task.
    let _ = tokio::time::timeout(Duration::from_secs(2), drained).await;
    Tally {
        answers: after[0] - before[0],
        events: after[1] - before[1],
        failures: after[2] - before[2],
        elapsed,
        probes: (first, last),
    }
}

async fn keep_busy(target: Target, request: Arc<[u8]>, counts: Arc<Counts>) {
    let mut kept = None;
    while !counts.stop.load(Ordering::Relaxed) {
        match tokio::time::timeout(ANSWER_WAIT_MAX, exchange(&target, &mut kept, &request, &counts.events)).await {
            Ok(Ok(())) => {
                counts.answers.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// One exchange over the kept connection, or a new one. Counts the events of the answer as they arrive; any status
/// but 200 is an error.
async fn exchange(
    target: &Target,
    kept: &mut Option<Client>,
    request: &[u8],
    event_count: &AtomicU64,
) -> io::Result<()> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::connect(target).await?,
    };
    let mut events = Events::default();
    let answer = client
        .exchange(request, |piece| {
            let before = events.seen;
            events.count(piece);
            event_count.fetch_add(events.seen - before, Ordering::Relaxed);
            ControlFlow::Continue(())
        })
        .await?;
    if answer.keep_alive {
        *kept = Some(client);
    }
    if answer.status == 200 { Ok(()) } else { Err(io::Error::other(format!("status {}", answer.status))) }
}

/// Sends `total` requests at `per_second`, each when it is due.
pub async fn open_loop(target: &Target, request: &Arc<[u8]>, per_second: f64, total: u32) -> Latencies {
    let idle = Arc::new(Mutex::new(Vec::<Client>::new()));
    let events = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + Duration::from_millis(5);
    let mut answers = JoinSet::new();
    let mut latencies = Latencies::default();
    for number in 0..total {
        let due = start + Duration::from_secs_f64(f64::from(number) / per_second);
        precise::sleep_until(due).await;
        if answers.len() >= OPEN_LOOP_IN_FLIGHT_MAX {
            latencies.failures += 1;
            continue;
        }
        let (target, request, idle, events) = (target.clone(), request.clone(), idle.clone(), events.clone());
        answers.spawn(async move {
            let mut kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let done = tokio::time::timeout(ANSWER_WAIT_MAX, exchange(&target, &mut kept, &request, &events)).await;
            let latency = due.elapsed();
            idle.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
            matches!(done, Ok(Ok(()))).then_some(latency)
        });
    }
    while let Some(answer) = answers.join_next().await {
        match answer {
            Ok(Some(latency)) => latencies.sorted.push(latency),
            _ => latencies.failures += 1,
        }
    }
    latencies.sorted.sort_unstable();
    latencies
}

impl Latencies {
    /// The latency that the given part of the answers did not exceed; zero without answers.
    pub fn quantile(&self, part: f64) -> Duration {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = ((self.sorted.len() as f64 * part).ceil() as usize).clamp(1, self.sorted.len().max(1));
        self.sorted.get(place - 1).copied().unwrap_or_default()
    }
}

/// Counts server-sent events by the blank lines that end them (line ends are LF, as the mock writes them).
#[derive(Debug, Default)]
pub struct Events {
    /// Events so far, comments and `[DONE]` included.
    pub seen: u64,
    after_line_end: bool,
}

impl Events {
    /// Counts the events that end within the next piece of a body.
    pub fn count(&mut self, piece: &[u8]) {
        let mut expected = if self.after_line_end { Some(0) } else { None };
        for at in memchr::memchr_iter(b'\n', piece) {
            if expected == Some(at) {
                self.seen += 1;
                expected = None;
            } else {
                expected = Some(at + 1);
            }
        }
        self.after_line_end = expected == Some(piece.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Mock;

    #[test]
    fn events_are_counted_however_they_are_split() {
        let stream = b"data: a\n\ndata: b\n\n: c\n\ndata: [DONE]\n\n";
        for size in 1..stream.len() {
            let mut events = Events::default();
            stream.chunks(size).for_each(|piece| events.count(piece));
            assert_eq!(events.seen, 4, "in pieces of {size}");
        }
    }

    #[test]
    fn a_quantile_is_one_of_the_latencies() {
        let sorted = (1..=100).map(Duration::from_millis).collect();
        let latencies = Latencies { sorted, failures: 0 };
        assert_eq!(latencies.quantile(0.5), Duration::from_millis(50));
        assert_eq!(latencies.quantile(0.99), Duration::from_millis(99));
        assert_eq!(Latencies::default().quantile(0.5), Duration::ZERO);
    }

    #[tokio::test]
    async fn both_loops_count_what_the_mock_counts() {
        let mock = Mock::start().unwrap();
        let target = Target::parse(&mock.url(), "any").unwrap();
        let body = r#"{"model":"m","stream":true,"max_tokens":3,"messages":[{"role":"user","content":"hi"}]}"#;
        let request = request(&target, "/v1/chat/completions", body);
        let tally = closed_loop(&target, &request, 2, Duration::ZERO, Duration::from_millis(100), || ()).await;
        assert!(tally.answers > 0 && tally.failures == 0, "{tally:?}");
        assert!(tally.events.abs_diff(tally.answers * 6) <= 24, "role, 3 words, finish, [DONE]: {tally:?}");

        mock.reset();
        let latencies = open_loop(&target, &request, 1000.0, 50).await;
        assert_eq!((latencies.sorted.len(), latencies.failures), (50, 0));
        assert_eq!(mock.stats().by_model["m"].finished, 50);
    }
}
