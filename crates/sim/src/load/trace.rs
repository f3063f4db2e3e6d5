//! Replay of recorded request arrivals: when each came, how much it read, how much it wrote.
//!
//! The traces are those of Azure's LLM services (CC-BY 4.0, Patel et al., Splitwise, ISCA 2024): lines of
//! `TIMESTAMP,ContextTokens,GeneratedTokens`.

use super::{ANSWER_WAIT_MAX, Answer, Client, Events, Target, request};
use crate::mock::Script;
use crate::precise;
use domain::Nanos;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests under way at most; later ones wait and are then late.
const IN_FLIGHT_MAX: usize = 1024;

/// One recorded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Time since the first request.
    pub at: Duration,
    /// Input tokens.
    pub prompt_tokens: u64,
    /// Output tokens.
    pub completion_tokens: u64,
}

/// How a trace is replayed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Keys to present, in turn.
    pub keys: Vec<String>,
    /// The model to ask for.
    pub model: String,
    /// How much faster than recorded.
    pub speed: f64,
    /// Decides who streams and who leaves.
    pub seed: u64,
    /// Of a hundred streaming clients, how many leave before the end.
    pub leave_percent: u8,
    /// Pause between the events of a stream; without one it is over before anybody can leave.
    pub gap_ms: u64,
}

/// What the clients of a replay saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests sent.
    pub requests: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests whose connection failed or whose answer did not end.
    pub failed: u64,
    /// Streams asked for.
    pub streamed: u64,
    /// Streams that the client left.
    pub left: u64,
    /// Events received, comments and `[DONE]` included.
    pub events: u64,
    /// Input tokens of requests answered with 200.
    pub prompt_tokens: u64,
    /// Output tokens of requests answered with 200 and read to the end.
    pub completion_tokens: u64,
    /// Answers that stated a price.
    pub priced: u64,
    /// The sum of the stated prices, in USD.
    pub cost: String,
    /// Statements of a price that are not an amount.
    pub unreadable_prices: u64,
    /// Requests that started more than 100 ms late, because too many were under way.
    pub late: u64,
    /// Length of the replay.
    pub elapsed_ms: u64,
    #[serde(skip)]
    nanos: i64,
}

/// Reads a trace; at most `rows_max` rows.
pub fn parse(text: &str, rows_max: usize) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut first = None;
    for (number, line) in text.lines().enumerate().skip(1).take(rows_max) {
        let row = (|| {
            let mut fields = line.split(',');
            let time: jiff::civil::DateTime = fields.next()?.parse().ok()?;
            let (prompt_tokens, completion_tokens) =
                (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
            let at = time.duration_since(*first.get_or_insert(time)).unsigned_abs();
            Some(Row { at, prompt_tokens, completion_tokens })
        })();
        rows.push(
            row.ok_or_else(|| format!("line {}: not TIMESTAMP,ContextTokens,GeneratedTokens: {line}", number + 1))?,
        );
    }
    Ok(rows)
}

/// Sends every row when it is due and waits for all answers.
pub async fn replay(plan: &Plan, rows: &[Row]) -> Totals {
    let start = Instant::now() + Duration::from_millis(20);
    let totals = Arc::new(Mutex::new(Totals::default()));
    let idle = Arc::new(Mutex::new(Vec::<Client>::new()));
    let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut dice = Dice(plan.seed);
    let mut under_way = JoinSet::new();
    for (number, row) in rows.iter().enumerate() {
        let streamed = dice.roll(3) == 0;
        // A client that leaves does so after at least one event, so that something was delivered.
        let leave_after = (streamed && dice.roll(100) < u64::from(plan.leave_percent))
            .then(|| 1 + dice.roll(row.completion_tokens.max(1)));
        let target = match plan.keys.as_slice() {
            [] => plan.target.clone(),
            keys => plan.target.with_key(&keys[number % keys.len()]),
        };
        let due = start + row.at.div_f64(plan.speed);
        precise::sleep_until(due).await;
        let slot = slots.clone().acquire_owned().await.expect("the slots are never closed");
        let body = body(plan, row, streamed);
        let (totals, idle, row) = (totals.clone(), idle.clone(), *row);
        // A late start is one that had to wait for a slot, not for the timer.
        totals.lock().unwrap_or_else(PoisonError::into_inner).late +=
            u64::from(due.elapsed() > Duration::from_millis(100));
        under_way.spawn(async move {
            let request = request(&target, "/v1/chat/completions", &body);
            drop(body);
            let mut kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut events = Events::default();
            let exchanged = exchange(&target, &mut kept, &request, &mut events, leave_after);
            let answer = tokio::time::timeout(ANSWER_WAIT_MAX, exchanged).await;
            idle.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
            let answer = answer.unwrap_or_else(|late| Err(late.into()));
            totals.lock().unwrap_or_else(PoisonError::into_inner).add(&row, streamed, &events, answer);
            drop(slot);
        });
    }
    while under_way.join_next().await.is_some() {}
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
    totals.cost = Nanos(totals.nanos).to_string();
    totals.elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    totals
}

impl Totals {
    fn add(&mut self, row: &Row, streamed: bool, events: &Events, answer: io::Result<Answer>) {
        self.requests += 1;
        self.streamed += u64::from(streamed);
        self.events += events.seen;
        let Ok(answer) = answer else {
            self.failed += 1;
            return;
        };
        *self.by_status.entry(answer.status).or_default() += 1;
        self.left += u64::from(answer.left);
        if answer.status == 200 {
            self.prompt_tokens += row.prompt_tokens;
            self.completion_tokens += if answer.left { 0 } else { row.completion_tokens };
        }
        if let Some(cost) = &answer.cost {
            match cost.parse::<Nanos>().ok().and_then(|cost| self.nanos.checked_add(cost.0)) {
                Some(sum) => {
                    self.nanos = sum;
                    self.priced += 1;
                }
                None => self.unreadable_prices += 1,
            }
        }
    }
}

async fn exchange(
    target: &Target,
    kept: &mut Option<Client>,
    request: &[u8],
    events: &mut Events,
    leave_after: Option<u64>,
) -> io::Result<Answer> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::connect(target).await?,
    };
    let answer = client
        .exchange(request, |piece| {
            events.count(piece);
            if leave_after.is_some_and(|after| events.seen >= after) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .await?;
    if answer.keep_alive {
        *kept = Some(client);
    }
    Ok(answer)
}

/// A chat request with as many words as the row has input tokens, and a script for the mock to answer by.
fn body(plan: &Plan, row: &Row, streamed: bool) -> String {
    let output = row.completion_tokens;
    let script = Script {
        prompt_tokens: Some(row.prompt_tokens),
        completion_tokens: Some(output),
        gap_ms: (streamed && plan.gap_ms > 0).then_some(plan.gap_ms),
        ..Script::default()
    };
    let script = serde_json::to_string(&script).expect("a script is always JSON");
    let words = "word ".repeat(usize::try_from(row.prompt_tokens).unwrap_or(0));
    let model = serde_json::Value::from(plan.model.as_str());
    format!(
        r#"{{"model":{model},"max_tokens":{output},"stream":{streamed},"mock":{script},"messages":[{{"role":"user","content":"{words}"}}]}}"#
    )
}

/// Random numbers from a seed (SplitMix64): the same seed gives the same replay on every machine.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Mock;

    const TRACE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:46.9951690,96,109\n2023-11-16 18:15:47.0000000,8,3\n";

    #[test]
    fn rows_are_relative_to_the_first() {
        let rows = parse(TRACE, 10).unwrap();
        assert_eq!(rows[0], Row { at: Duration::ZERO, prompt_tokens: 374, completion_tokens: 44 });
        assert_eq!(rows[1].at, Duration::from_nanos(314_579_000));
        assert_eq!(parse(TRACE, 1).unwrap().len(), 1);
        assert!(parse("h\n2023,1,2", 9).unwrap_err().contains("line 2"));
    }

    #[test]
    fn stated_prices_are_summed_exactly_and_unreadable_ones_are_told_apart() {
        let row = Row { at: Duration::ZERO, prompt_tokens: 5, completion_tokens: 3 };
        let mut totals = Totals::default();
        for cost in [Some("0.000000001"), Some("1.10"), Some("free"), None] {
            let answer = Answer { status: 200, cost: cost.map(str::to_owned), ..Answer::default() };
            totals.add(&row, false, &Events::default(), Ok(answer));
        }
        totals.add(&row, true, &Events::default(), Err(io::ErrorKind::UnexpectedEof.into()));
        assert_eq!((totals.nanos, totals.priced, totals.unreadable_prices), (1_100_000_001, 2, 1));
        assert_eq!((totals.requests, totals.failed, totals.prompt_tokens), (5, 1, 20));
    }

    #[tokio::test]
    async fn a_replay_agrees_with_the_mock_and_repeats() {
        let mock = Mock::start().unwrap();
        let rows: Vec<_> = parse(TRACE, 10).unwrap().into_iter().cycle().take(60).collect();
        let plan = Plan {
            target: Target::parse(&mock.url(), "k").unwrap(),
            keys: vec!["a".to_owned(), "b".to_owned()],
            model: "m".to_owned(),
            speed: 20.0,
            seed: 7,
            leave_percent: 50,
            gap_ms: 1,
        };
        let totals = replay(&plan, &rows).await;
        assert_eq!((totals.requests, totals.failed, totals.by_status[&200]), (60, 0, 60));
        assert!(totals.streamed > 5 && totals.left > 0, "{totals:?}");
        assert!(mock.idle(Duration::from_secs(5)).await);
        let counted = mock.stats().by_model["m"].clone();
        assert_eq!(counted.requests, 60);
        assert!(counted.prompt_tokens + counted.unfinished_prompt_tokens == totals.prompt_tokens, "{counted:?}");
        let again = replay(&plan, &rows).await;
        assert_eq!((again.streamed, again.left), (totals.streamed, totals.left));
    }
}
