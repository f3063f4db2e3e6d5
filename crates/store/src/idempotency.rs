//! What requests with an idempotency key came to: one row per tenant and key, so that a repetition gets the stored
//! answer and costs nothing more.
//!
//! [`Records::begin`] makes the row, durably and for one of any number of contenders, before anything is done. The
//! [`Claim`] that the winner gets must be ended: kept, lost or released. What is not ended, because the process died
//! or has a defect, becomes `unknown`, and [`Records::upkeep`] reads in the journal what it was charged.

mod rows;
#[cfg(test)]
mod tests;

use crate::database::{Database, StoreError};
use crate::sealing::{Sealing, keyed_digest};
use crate::secrets::Secrets;
use aws_lc_rs::hmac;
use domain::time::DAY_MS;
use domain::{AccountId, Nanos, Seq, Timestamp};
use rows::{Claimed, Ending, Found, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Shortest time that answers may be kept.
pub const RETENTION_MS_MIN: i64 = DAY_MS;
/// How long a claim may wait for the store.
const BEGIN_WAIT: Duration = Duration::from_secs(5);
/// How long an answer waits for its record. While the store fails, the answer leaves and the record follows.
const END_WAIT: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to write how a claim ended.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Rows that are deleted in one transaction: between two of them the journal's groups are committed.
const PRUNE_ROWS: u32 = 64;
/// Such transactions in one upkeep.
const PRUNE_BATCHES_MAX: usize = 200;
/// Unknown outcomes that are looked up at once.
const UNKNOWN_ROWS: u32 = 1_000;
/// Rows of the journal that are read at once.
const JOURNAL_ROWS: u32 = 20_000;

/// The longest that things are kept, and the most.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// From the end of a request, how long its answer is kept, in milliseconds. At least [`RETENTION_MS_MIN`].
    pub retention_ms: i64,
    /// The largest body that is kept.
    pub answer_bytes_max: usize,
    /// The most bytes of bodies that are kept in all. Beyond it, answers are noted without their bodies.
    pub kept_bytes_max: u64,
}

/// Whose key it is. The same key of another tenant is another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Callers: whoever pays.
    pub fn account(account: AccountId) -> Self {
        Self(format!("account:{account}").into())
    }

    /// Members of an account, each by what the audit log calls them.
    pub fn member(account: AccountId, who: &str) -> Self {
        Self(format!("member:{account}:{who}").into())
    }

    /// Operators, each by the name.
    pub fn operator(name: &str) -> Self {
        Self(format!("operator:{name}").into())
    }
}

/// A request with a key, as it is claimed.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Whose it is.
    pub tenant: &'a Tenant,
    /// The key as presented, its syntax checked.
    pub key: &'a str,
    /// Everything that makes it the same request: method, path, body. Only a digest of it is stored.
    pub content: &'a [&'a [u8]],
    /// Its id, which a repetition is told.
    pub id: &'a Arc<str>,
    /// No hold of it will be at or before this row of the journal. `None` if it holds no money.
    pub after: Option<Seq>,
    /// It may run again where the first one broke off: whatever that had done by then is not done a second time.
    pub runs_again: bool,
}

/// What a request with a key meets.
pub enum Begun {
    /// It is the first: to be done, and the claim to be ended.
    First(Claim),
    /// The first has ended.
    Ended(Ended),
    /// The first is under way.
    Running,
    /// The key was used for another request.
    Mismatch,
    /// It is not known yet how the first ended.
    Unknown,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its id.
    pub request_id: String,
    /// What it was charged. `None` where nothing is charged by this layer's knowledge.
    pub cost: Option<Nanos>,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a request came to.
#[derive(Debug)]
pub enum Outcome {
    /// This answer, to be given again.
    Answer(Answer),
    /// There is no answer to be given.
    Lost(Lost),
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, those that belong to it and not to its connection.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is larger than what is kept, or all together would be.
    TooLarge,
    /// The caller left before its end, and it was not read further.
    CallerLeft,
    /// The process died, or had a defect, before the answer was stored; or it can no longer be opened.
    Interrupted,
}

/// See the module's description.
pub struct Records {
    database: Database,
    settings: Settings,
    sealing: Sealing,
    digests: hmac::Key,
    /// Claims that are not ended durably.
    open: AtomicUsize,
    /// Bytes of bodies that are kept, sealed, in all. A few too many or too few where something ended during the count.
    kept_bytes: AtomicI64,
    /// What earlier processes have kept is counted in. Not at the start, which it must not delay.
    counts_earlier: AtomicBool,
    /// There may be rows in state `unknown`.
    any_unknown: AtomicBool,
    /// One has become so.
    became_unknown: Notify,
}

impl Records {
    /// The records of a data directory. What an earlier process left running becomes unknown.
    pub async fn open(database: Database, secrets: &Secrets, settings: Settings) -> Result<Arc<Self>, StoreError> {
        let left = database.write(|transaction| rows::mark_left_running(transaction)).await?;
        if left > 0 {
            tracing::warn!(requests = left, "an earlier process had died with idempotent requests under way");
        }
        let settings = Settings { retention_ms: settings.retention_ms.max(RETENTION_MS_MIN), ..settings };
        Ok(Arc::new(Self {
            database,
            settings,
            sealing: Sealing::new(secrets, "idempotency/body"),
            digests: hmac::Key::new(hmac::HMAC_SHA256, &secrets.derived("idempotency/digest")),
            open: AtomicUsize::new(0),
            kept_bytes: AtomicI64::new(0),
            counts_earlier: AtomicBool::new(false),
            any_unknown: AtomicBool::new(true),
            became_unknown: Notify::new(),
        }))
    }

    /// The largest body that is kept.
    pub fn answer_bytes_max(&self) -> usize {
        self.settings.answer_bytes_max
    }

    /// Claims that are not ended durably. A stop waits until there is none.
    pub fn open_claims(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Claims a key, durably, or tells what stands in the way.
    pub async fn begin(self: &Arc<Self>, request: Request<'_>, now: Timestamp) -> Result<Begun, StoreError> {
        let Request { tenant, key, content, id, after, runs_again } = request;
        let place = Place {
            tenant: tenant.0.clone(),
            key: keyed_digest(&self.digests, &[tenant.0.as_bytes(), key.as_bytes()]),
            request: id.clone(),
        };
        let fingerprint = keyed_digest(&self.digests, content);
        // From here on whatever happens, also that nobody polls this any more, the row is ended or taken back.
        let mut claim = Claim::new(self.clone(), place.clone());
        let claiming = self.database.write(move |tx| rows::claim(tx, &place, &fingerprint, after, runs_again, now));
        let claimed = tokio::time::timeout(BEGIN_WAIT, claiming).await.map_err(|_| StoreError::Unavailable)??;
        let (claimed, freed) = claimed;
        self.kept_bytes.fetch_sub(freed, Ordering::Relaxed);
        let found = match claimed {
            Claimed::Mine(broke_off) => {
                claim.state = ClaimState::Running;
                claim.broke_off = broke_off;
                return Ok(Begun::First(claim));
            }
            Claimed::Taken(found) => found,
        };
        claim.forget();
        Ok(match found {
            Found::OtherContent => Begun::Mismatch,
            Found::Running => Begun::Running,
            Found::Unknown => Begun::Unknown,
            Found::Done { place, cost, outcome } => {
                let outcome = match outcome {
                    Outcome::Lost(lost) => Outcome::Lost(lost),
                    Outcome::Answer(sealed) => self.opened(&place, sealed),
                };
                Begun::Ended(Ended { request_id: place.request.to_string(), cost, outcome })
            }
        })
    }

    fn opened(&self, place: &Place, sealed: Answer) -> Outcome {
        match self.sealing.open(&place.context(), sealed.body) {
            Some(body) => Outcome::Answer(Answer { body, ..sealed }),
            None => {
                tracing::error!(request_id = %place.request, "a kept answer cannot be opened: is the pepper another one?");
                Outcome::Lost(Lost::Interrupted)
            }
        }
    }

    /// What is to be done now and then: finds out what became of unknown requests, and drops what was kept long enough.
    pub async fn upkeep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.resolve_unknown(now).await?;
        if !self.counts_earlier.load(Ordering::Relaxed) {
            let earlier = self.database.read(rows::kept_bytes).await?;
            self.kept_bytes.fetch_add(earlier, Ordering::Relaxed);
            self.counts_earlier.store(true, Ordering::Relaxed);
        }
        for _ in 0..PRUNE_BATCHES_MAX {
            let pruning = self.database.write(move |transaction| rows::prune(transaction, now, PRUNE_ROWS));
            let (pruned, freed) = pruning.await?;
            self.kept_bytes.fetch_sub(freed, Ordering::Relaxed);
            if pruned < PRUNE_ROWS as usize {
                break;
            }
        }
        Ok(())
    }

    /// Waits until [`Records::upkeep`] has something to find out. Nothing is lost by not waiting to the end.
    pub async fn became_unknown(&self) {
        self.became_unknown.notified().await;
    }

    /// Reads in the journal what unknown requests were charged. Those that still hold money stay unknown.
    async fn resolve_unknown(&self, now: Timestamp) -> Result<(), StoreError> {
        if !self.any_unknown.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let resolved = self.resolve_some_unknown(now).await;
        // Those of whom nothing could be said are looked up again; so are those beyond the limit.
        if !matches!(resolved, Ok(0)) {
            self.any_unknown.store(true, Ordering::Release);
        }
        resolved.map(|_| ())
    }

    /// How many were unknown.
    async fn resolve_some_unknown(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut unknown = self.database.read(|connection| rows::unknown(connection, UNKNOWN_ROWS)).await?;
        let count = unknown.len();
        let mut unread = unknown.iter().filter_map(|unknown| unknown.after).min();
        while let Some(after) = unread {
            let mut so_far = unknown;
            let reading = self.database.read(move |connection| {
                let last = rows::read_journal(connection, &mut so_far, after, JOURNAL_ROWS)?;
                Ok((so_far, last))
            });
            (unknown, unread) = reading.await?;
        }
        if count == 0 {
            return Ok(0);
        }
        let expires_at = now.plus_ms(self.settings.retention_ms);
        unknown.retain(rows::Unknown::is_settled);
        self.database.write(move |transaction| rows::settle_unknown(transaction, &unknown, expires_at)).await?;
        Ok(count)
    }

    /// Writes how a claim ended, however long that takes, in a task of its own.
    fn end(self: Arc<Self>, place: Place, ending: Ending) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let (place, ending) = (Arc::new(place), Arc::new(ending));
            let mut pause = RETRY_PAUSES.0;
            loop {
                let (at, how) = (place.clone(), ending.clone());
                match self.database.write(move |transaction| rows::end(transaction, &at, &how)).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::error!(%error, request_id = %place.request, "cannot store how an idempotent request \
                            ended; trying again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY_PAUSES.1);
                    }
                }
            }
            if matches!(*ending, Ending::Unknown) {
                self.any_unknown.store(true, Ordering::Release);
                self.became_unknown.notify_one();
            }
            self.open.fetch_sub(1, Ordering::AcqRel);
        })
    }
}

/// A key that this request has. Dropping it leaves the outcome unknown.
pub struct Claim {
    records: Arc<Records>,
    place: Place,
    state: ClaimState,
    broke_off: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimState {
    /// The row may or may not be there, and nothing was done.
    Claiming,
    Running,
    Over,
}

impl Claim {
    fn new(records: Arc<Records>, place: Place) -> Self {
        records.open.fetch_add(1, Ordering::AcqRel);
        Self { records, place, state: ClaimState::Claiming, broke_off: None }
    }

    /// When a first request with the key began that broke off: this one is to end what that may have begun.
    pub fn broke_off(&self) -> Option<Timestamp> {
        self.broke_off
    }

    /// The largest body that is kept.
    pub fn answer_bytes_max(&self) -> usize {
        self.records.settings.answer_bytes_max
    }

    /// Tenant and key as one text, for whatever is to happen once by it. Tells nothing of the key.
    pub fn reference(&self) -> Arc<str> {
        let mut reference = format!("idem:{}:", self.place.tenant);
        for byte in self.place.key {
            use std::fmt::Write;
            write!(reference, "{byte:02x}").expect("writing to a string cannot fail");
        }
        reference.into()
    }

    /// Keeps an answer for repetitions; returns once that is durable. Of an answer that is too large, that it was.
    pub async fn keep(
        self,
        status: u16,
        headers: &[(String, String)],
        body: &[u8],
        cost: Option<Nanos>,
        now: Timestamp,
    ) {
        let Settings { answer_bytes_max, kept_bytes_max, .. } = self.records.settings;
        let kept_bytes = self.records.kept_bytes.load(Ordering::Relaxed).max(0).unsigned_abs();
        if body.len() > answer_bytes_max || kept_bytes + body.len() as u64 > kept_bytes_max {
            return self.lose(Lost::TooLarge, cost, now).await;
        }
        let body = self.records.sealing.seal(&self.place.context(), body);
        self.records.kept_bytes.fetch_add(body.len() as i64, Ordering::Relaxed);
        let headers = serde_json::to_string(headers).expect("texts can be written as JSON");
        let expires_at = now.plus_ms(self.records.settings.retention_ms);
        self.end(Ending::Kept { status, headers, body, cost, expires_at }).await;
    }

    /// Notes that there is no answer for repetitions, and why; returns once that is durable.
    pub async fn lose(self, why: Lost, cost: Option<Nanos>, now: Timestamp) {
        let expires_at = now.plus_ms(self.records.settings.retention_ms);
        self.end(Ending::Lost { why, cost, expires_at }).await;
    }

    /// Gives the key back, because nothing was done; returns once that is durable.
    pub async fn release(self) {
        self.end(Ending::Released).await;
    }

    async fn end(mut self, ending: Ending) {
        self.state = ClaimState::Over;
        let ended = self.records.clone().end(self.place.clone(), ending);
        if tokio::time::timeout(END_WAIT, ended).await.is_err() {
            tracing::warn!(request_id = %self.place.request, "an answer leaves before its record is stored");
        }
    }

    /// The row is another request's.
    fn forget(mut self) {
        self.state = ClaimState::Over;
        self.records.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let ending = match self.state {
            ClaimState::Over => return,
            ClaimState::Claiming => Ending::Released,
            ClaimState::Running => Ending::Unknown,
        };
        // Outside a runtime the process is ending: the next start finds the row.
        if tokio::runtime::Handle::try_current().is_ok() {
            // Ends by itself.
            drop(self.records.clone().end(self.place.clone(), ending));
        }
    }
}
