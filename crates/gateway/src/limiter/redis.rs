//! States of limits in Redis, for all nodes together.
//!
//! One script (`decide.lua`) holds the rules of [`domain::rate::state`] a second time, because only there a decision over
//! several states is one step. It works on the same bytes and the server's own time; a suite demands the same answers of
//! both.
//!
//! **Keys.** All of them carry one hash tag, so that a cluster keeps them in one slot and any of them can be asked for
//! together (L-10): a request meets limits of its key, its account and the gateway, and no tag by account could hold the
//! shared ones too. One primary then decides for all; it does some ten thousand decisions a second and core. Each key has a
//! time to live: as long as its state matters.
//!
//! **Requests in flight** are counted by node, and a node's counts hold while its lease does: 60 seconds from its last
//! decision or [`Remote::beat`]. So the places of a node that died are free after that at the latest (L-06).
//!
//! **Nothing is repeated.** What was lost on its way may have been counted (L-11): a decision that was not heard of has
//! taken, and a correction that was not heard of may not give back twice. A script that the server has forgotten is loaded
//! once more, for it was not run. How to go on while the server is away is the limiter's affair.

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, ErrorKind, RedisError, Script, ScriptInvocation, Value};
use domain::rate::{Rule, Standing, Verdict};
use domain::{Timestamp, Zone};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How long an answer is waited for. Then the server counts as away.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// How often [`Remote::beat`] should be called: a node may miss two beats of its lease of 60 seconds.
pub const BEAT_EVERY: Duration = Duration::from_secs(15);
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("decide.lua")));

/// States in a Redis server. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    connection: ConnectionManager,
    /// What all keys begin with, the hash tag in it.
    prefix: Arc<str>,
    /// The name of this process among the nodes.
    node: Arc<str>,
    /// The server has noted that name. If it does not know it then, it has lost what it knew.
    is_known: Arc<AtomicBool>,
}

/// What is asked of one limit. Limits of one decision are of different keys.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Limit and subject.
    pub key: u128,
    /// The limit's rule.
    pub rule: Rule,
    /// What the request costs.
    pub cost: u64,
    /// Of calendar periods.
    pub zone: &'a Zone,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was, by the server's clock.
    pub at: Timestamp,
    /// All had room and were taken from; otherwise none was.
    pub admitted: bool,
    /// The server has lost what it knew since this node last beat: it decided as if nobody had been there before.
    pub forgot: bool,
    /// Of each limit, in their order.
    pub each: Vec<Answered>,
}

/// How one limit decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Whether it had room.
    pub verdict: Verdict,
    /// How it stands after the decision.
    pub standing: Standing,
    /// What was taken.
    pub taken: RemoteTaken,
}

/// What was taken, in the script's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteTaken(Box<[u8]>);

/// What was taken by estimate, and what was used.
#[derive(Clone, Debug)]
pub struct Correction<'a> {
    /// What was asked; its cost is what was reserved.
    pub asked: Asked<'a>,
    /// As the decision answered.
    pub taken: &'a RemoteTaken,
    /// What was used.
    pub actual: u64,
}

impl Remote {
    /// A server by its address, `redis://…` or `redis+unix://…`. It is connected to when it is first asked, and again
    /// after it was away.
    ///
    /// # Errors
    /// If that is no address.
    pub fn connect(url: &str) -> Result<Self, RedisError> {
        Self::connect_as(url, "tollgate")
    }

    /// Whether that is an address.
    ///
    /// # Errors
    /// If it is none.
    pub fn check(url: &str) -> Result<(), RedisError> {
        Client::open(url).map(drop)
    }

    /// The same with another hash tag, for gateways that share a server and nothing else.
    ///
    /// # Errors
    /// If that is no address.
    pub fn connect_as(url: &str, tag: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        let prefix = format!("{{{tag}}}:").into();
        Ok(Self { connection, prefix, node: new_name(), is_known: Arc::default() })
    }

    /// Decides over all limits of a request: takes from all, or changes nothing. `at` is the time here, near which the
    /// server's should be: it says which periods of calendars are sent along.
    ///
    /// # Errors
    /// If no answer came. Then it may still have been taken.
    pub async fn decide(&self, asked: &[Asked<'_>], at: Timestamp) -> Result<Answer, RedisError> {
        self.decide_at(asked, at, SERVER_TIME).await
    }

    /// Makes exact what was taken by estimate, as [`Rule::correct`] does.
    ///
    /// # Errors
    /// If no answer came. It may still have happened, and must not be repeated.
    pub async fn correct(&self, corrections: &[Correction<'_>], at: Timestamp) -> Result<(), RedisError> {
        self.correct_at(corrections, at, SERVER_TIME).await
    }

    /// Prolongs the lease of this node; how many nodes live, and whether the server has lost what it knew since the last
    /// time.
    ///
    /// # Errors
    /// If no answer came.
    pub async fn beat(&self) -> Result<(u64, bool), RedisError> {
        self.beat_at(SERVER_TIME).await
    }

    /// The same server under another name of this node, under which nothing is counted yet.
    #[must_use]
    pub fn renamed(&self) -> Self {
        Self { node: new_name(), is_known: Arc::default(), ..self.clone() }
    }

    /// Gives this node's name up, and with it all requests in flight that are counted under it. Whether the server has
    /// lost what it knew.
    ///
    /// # Errors
    /// If no answer came.
    pub async fn leave(&self) -> Result<bool, RedisError> {
        let mut leave = ::redis::cmd("ZREM");
        leave.arg(format!("{}nodes", self.prefix)).arg(&*self.node);
        let left: u64 = leave.query_async(&mut self.connection.clone()).await?;
        Ok(self.is_known.swap(false, Ordering::Relaxed) && left == 0)
    }

    /// What the server forgets when its memory is full, unless that is nothing. States that are forgotten before their
    /// time give their limits anew: the policy has to be `noeviction`.
    ///
    /// # Errors
    /// If no answer came.
    pub async fn evicts(&self) -> Result<Option<String>, RedisError> {
        let info: String = ::redis::cmd("INFO").arg("memory").query_async(&mut self.connection.clone()).await?;
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::trim);
        Ok(policy.filter(|policy| *policy != "noeviction").map(str::to_owned))
    }

    async fn decide_at(&self, asked: &[Asked<'_>], at: Timestamp, clock: Timestamp) -> Result<Answer, RedisError> {
        if asked.is_empty() {
            return Ok(Answer { at, admitted: true, forgot: false, each: Vec::new() });
        }
        let mut call = self.call("decide", clock);
        for asked in asked {
            call.key(self.key(asked.key)).arg(asked.encode(at));
        }
        let is_known = self.is_known.load(Ordering::Relaxed);
        let answer: Vec<Value> = call.invoke_async(&mut self.connection.clone()).await?;
        let [Value::Int(at), Value::Int(admitted), Value::Int(unknown), each @ ..] = answer.as_slice() else {
            return Err(unreadable());
        };
        let each: Option<Vec<Answered>> =
            asked.iter().zip(each).map(|(asked, answer)| Answered::decode(asked, answer)).collect();
        let each = each.filter(|each| each.len() == asked.len()).ok_or_else(unreadable)?;
        Ok(Answer { at: Timestamp(*at), admitted: *admitted == 1, forgot: is_known && *unknown == 1, each })
    }

    async fn correct_at(
        &self,
        corrections: &[Correction<'_>],
        at: Timestamp,
        clock: Timestamp,
    ) -> Result<(), RedisError> {
        if corrections.is_empty() {
            return Ok(());
        }
        let mut call = self.call("correct", clock);
        for Correction { asked, taken, actual } in corrections {
            let mut argument = asked.encode(at);
            argument.extend(bounded(*actual).to_le_bytes());
            argument.extend_from_slice(&taken.0);
            call.key(self.key(asked.key)).arg(argument);
        }
        call.invoke_async(&mut self.connection.clone()).await
    }

    async fn beat_at(&self, clock: Timestamp) -> Result<(u64, bool), RedisError> {
        let (_, nodes, unknown): (i64, u64, u64) =
            self.call("beat", clock).invoke_async(&mut self.connection.clone()).await?;
        Ok((nodes, self.is_known.swap(true, Ordering::Relaxed) && unknown == 1))
    }

    fn call(&self, what: &str, clock: Timestamp) -> ScriptInvocation<'static> {
        let mut call = SCRIPT.prepare_invoke();
        call.key(format!("{}nodes", self.prefix)).arg(what).arg(&*self.node).arg(clock.0);
        call
    }

    fn key(&self, key: u128) -> String {
        format!("{}{key:032x}", self.prefix)
    }
}

/// The server's own clock decides.
const SERVER_TIME: Timestamp = Timestamp(0);

fn new_name() -> Arc<str> {
    format!("{:016x}", RandomState::new().build_hasher().finish()).into()
}

/// No cost is larger for the script: it is more than any limit has.
const COST_MAX: u64 = domain::rate::state::COUNT_MAX;

fn bounded(cost: u64) -> i64 {
    cost.min(COST_MAX) as i64
}

fn unreadable() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the script for limits answered what this version does not understand").into()
}

impl RemoteTaken {
    /// A place among the requests in flight, which are all alike.
    pub(super) fn in_flight() -> Self {
        Self(Box::new([5]))
    }
}

impl Asked<'_> {
    fn encode(&self, at: Timestamp) -> Vec<u8> {
        let numbers = self.rule.encode(self.zone, at).into_iter().chain([bounded(self.cost)]);
        numbers.flat_map(i64::to_le_bytes).collect()
    }
}

impl Answered {
    fn decode(asked: &Asked<'_>, answer: &Value) -> Option<Self> {
        let Value::BulkString(bytes) = answer else { return None };
        let (numbers, taken) = bytes.split_first_chunk::<32>()?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
        let verdict = (numbers.next()?, numbers.next()?);
        let verdict = match verdict {
            (0, _) => Verdict::Admitted,
            (1, ms) => Verdict::Wait(ms),
            (2, _) => Verdict::Never,
            _ => return None,
        };
        let standing = Standing { limit: asked.rule.amount, remaining: numbers.next()?, whole_in_ms: numbers.next()? };
        Some(Self { verdict, standing, taken: RemoteTaken(taken.into()) })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password.
        f.debug_struct("Remote").field("prefix", &self.prefix).field("node", &self.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
