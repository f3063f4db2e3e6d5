//! The ledger as the gateway uses it: decisions in memory, durable by the journal.
//!
//! Each account's [`Book`] stands behind the lock of its shard. A decision takes that lock for about a
//! microsecond: it asks the book, queues the entry, applies it. Whether the entry is durable is a second question
//! ([`Ledger::durable`]), asked only before something that cannot be taken back: the first byte of an answer.
//!
//! Books are read from the stored folds at first touch, so a start is as quick with a million keys as with one.

use crate::database::{Database, StoreError};
use crate::journal::Queue;
use crate::progress::{Mark, Slots};
use crate::sql::{Connection, OptionalExtension};
use domain::ledger::{
    Book, Charge, Ending, Entry, Hold, KeyTotals, Kind, Legs, OpenHold, Quota, Refusal, Resolution, Unresolved,
    resolve_abandoned,
};
use domain::price::Price;
use domain::{AccountId, KeyId, Nanos, PriceId, Seq, Timestamp};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Locks that the accounts are spread over.
const SHARDS: usize = 64;
/// The file of marks in the data directory.
pub(crate) const PROGRESS_FILE: &str = "progress";
/// Slots for each request that may be open: a settled one keeps its slot until the settlement is durable.
const SLOTS_PER_OPEN: usize = 2;
/// Books that may stay in memory while nothing of theirs is under way.
const QUIET_BOOKS_MAX: usize = 100_000;
/// How long an answer waits for its hold to become durable before it is given up.
const DURABLE_WAIT: Duration = Duration::from_secs(5);

/// See the module's description.
pub struct Ledger {
    shards: Box<[Mutex<HashMap<AccountId, Kept>>]>,
    queue: Arc<Queue>,
    slots: Slots,
    /// Slots of holds whose settlement is not durable yet: until it is, the mark is what a restart goes by.
    retiring: Mutex<VecDeque<(Seq, u32)>>,
    source: Source,
}

/// Where books come from at first touch.
enum Source {
    /// Nowhere: an account that is not here has no entries. For simulation and tests.
    Memory,
    Sqlite(Database),
}

struct Kept {
    book: Book,
    /// The last entry of this account.
    last: Seq,
    /// The rules rejected an entry that they had made: nothing more is decided for this account.
    quarantined: bool,
}

/// A hold that was opened here; to be resolved once.
#[derive(Debug)]
pub struct OpenedHold {
    /// Whose money.
    pub account: AccountId,
    /// The entry that opened it.
    pub seq: Seq,
    /// The terms.
    pub terms: Hold,
    slot: u32,
    marks: u64,
}

/// Why a request gets no hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// Funds or quotas do not cover it.
    Refused(Refusal),
    /// As many requests are open as may be.
    TooManyOpen,
    /// The journal cannot take it now.
    Unavailable,
}

/// What became of a resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It is this entry.
    Posted(Seq),
    /// The hold had ended before; nothing was charged again.
    AlreadyResolved,
}

/// Prices by version, as resolving an abandoned hold needs them.
pub type PriceLookup<'a> = &'a dyn Fn(PriceId) -> Result<Arc<Price>, StoreError>;

impl Ledger {
    /// A ledger without a disk. Entries wait in [`Ledger::queue`] until somebody confirms them.
    pub fn in_memory(open_max: usize) -> Self {
        Self::with(
            Arc::new(Queue::new(Seq(0), Timestamp(0))),
            Slots::in_memory(open_max * SLOTS_PER_OPEN),
            Source::Memory,
        )
    }

    /// A ledger in memory with the given past: a simulated restart.
    pub fn in_memory_after(entries: &[Entry], open_max: usize) -> Result<Self, StoreError> {
        let (last, last_at) = entries.last().map_or((Seq(0), Timestamp(0)), |entry| (entry.seq, entry.at));
        let ledger = Self::with(
            Arc::new(Queue::new(last, last_at)),
            Slots::in_memory(open_max * SLOTS_PER_OPEN),
            Source::Memory,
        );
        for entry in entries {
            let mut shard = ledger.shard(entry.account).lock();
            let kept = shard.entry(entry.account).or_insert_with(|| Kept::new(Book::default()));
            kept.book.apply(entry).map_err(|broken| StoreError::Damaged(broken.to_string()))?;
            kept.last = entry.seq;
        }
        Ok(ledger)
    }

    /// The ledger of a data directory. Holds that an earlier process left open are put back;
    /// [`crate::recovery::resolve_left_open`] is to be called with the marks before anything else.
    pub fn open(database: Database, open_max: usize) -> Result<(Self, Vec<(Seq, Mark)>), StoreError> {
        let slots = open_max * SLOTS_PER_OPEN;
        let (slots, marks) = Slots::open(&database.directory().join(PROGRESS_FILE), slots)?;
        let queue = database.writer().queue().clone();
        let left_open = database.writer().take_open_at_start();
        let ledger = Self::with(queue, slots, Source::Sqlite(database.clone()));
        database.read_now(|connection| {
            for entry in left_open {
                let Kind::Hold(terms) = entry.kind else { continue };
                let mut shard = ledger.shard(entry.account).lock();
                let kept = match shard.entry(entry.account) {
                    std::collections::hash_map::Entry::Occupied(kept) => kept.into_mut(),
                    std::collections::hash_map::Entry::Vacant(empty) => {
                        empty.insert(Kept::new(Book::restore(read_totals(connection, entry.account)?)))
                    }
                };
                if kept.book.key(terms.key).is_none() {
                    kept.book.restore_key(terms.key, read_key_totals(connection, terms.key)?);
                }
                kept.book.restore_hold(entry.seq, OpenHold { terms, at: entry.at });
                kept.last = entry.seq;
            }
            Ok(())
        })?;
        Ok((ledger, marks))
    }

    fn with(queue: Arc<Queue>, slots: Slots, source: Source) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect();
        Self { shards, queue, slots, retiring: Mutex::default(), source }
    }

    /// The queue in front of the journal.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The marks of requests under way.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Opens a hold, or says why not. Nothing is durable yet.
    pub async fn hold(
        &self,
        account: AccountId,
        terms: &Hold,
        quota: Quota,
        now: Timestamp,
    ) -> Result<OpenedHold, HoldError> {
        self.load(account, Some(terms.key)).await.map_err(|_| HoldError::Unavailable)?;
        let slot = self.take_slot().ok_or(HoldError::TooManyOpen)?;
        match self.hold_in_book(account, terms, quota, now) {
            Ok(seq) => Ok(OpenedHold { account, seq, terms: terms.clone(), slot, marks: 0 }),
            Err(error) => {
                self.slots.give_back(slot);
                Err(error)
            }
        }
    }

    fn hold_in_book(&self, account: AccountId, terms: &Hold, quota: Quota, now: Timestamp) -> Result<Seq, HoldError> {
        let mut shard = self.shard(account).lock();
        // Missing means evicted in the instant after it was loaded: as rare as it is harmless to refuse.
        let kept = shard.get_mut(&account).filter(|kept| !kept.quarantined).ok_or(HoldError::Unavailable)?;
        let legs = kept.book.hold(terms, quota).map_err(HoldError::Refused)?;
        self.post(kept, account, legs, Kind::Hold(terms.clone()), now, true).map_err(|_| HoldError::Unavailable)
    }

    /// Notes how far the request behind a hold has come, so that a restart can settle it.
    pub fn mark(&self, hold: &mut OpenedHold, mark: &Mark) {
        self.slots.mark(hold.slot, hold.seq, hold.marks, mark);
        hold.marks += 1;
    }

    /// Settles or voids a hold. Usage for a hold that the sweeper has given up becomes a late charge.
    pub fn resolve(&self, hold: OpenedHold, resolution: Resolution, now: Timestamp) -> Resolved {
        let charges = matches!(resolution, Resolution::Settle { .. });
        let outcome = self.resolve_in_book(&hold, resolution, now);
        match outcome {
            Resolved::Posted(seq) if charges => self.retiring.lock().push_back((seq, hold.slot)),
            _ => self.slots.give_back(hold.slot),
        }
        outcome
    }

    /// A free slot, after taking back those whose settlements have become durable.
    fn take_slot(&self) -> Option<u32> {
        let committed = self.queue.committed();
        let mut retiring = self.retiring.lock();
        while let Some(&(_, slot)) = retiring.front().filter(|(seq, _)| *seq <= committed) {
            retiring.pop_front();
            self.slots.give_back(slot);
        }
        drop(retiring);
        self.slots.take()
    }

    fn resolve_in_book(&self, hold: &OpenedHold, resolution: Resolution, now: Timestamp) -> Resolved {
        let mut shard = self.shard(hold.account).lock();
        let kept = shard.get_mut(&hold.account).expect("a book with an open hold is never evicted");
        let posted = match kept.book.resolve(hold.seq, resolution.clone(), false) {
            Ok((legs, kind)) => self.post(kept, hold.account, legs, kind, now, false),
            Err(Unresolved::NotOpen(_)) => match late_charge(hold, resolution) {
                Some(charge) => match kept.book.late_charge(&charge) {
                    Ok(legs) => self.post(kept, hold.account, legs, Kind::LateCharge(charge), now, false),
                    Err(Unresolved::NotOpen(_)) => return Resolved::AlreadyResolved,
                },
                None => return Resolved::AlreadyResolved,
            },
        };
        posted.map_or(Resolved::AlreadyResolved, Resolved::Posted)
    }

    /// Resolves holds whose lease has lapsed by `steady`, the clock that leases are measured with, by their last mark.
    /// Returns how many.
    pub fn sweep(&self, steady: Timestamp, now: Timestamp, price: PriceLookup<'_>) -> Result<usize, StoreError> {
        let mut lapsed = Vec::new();
        for shard in &self.shards {
            for (&account, kept) in shard.lock().iter() {
                let late = kept.book.open_holds().filter(|(_, hold)| hold.terms.lease_until < steady);
                lapsed.extend(late.map(|(seq, hold)| (account, seq, hold.terms.price)));
            }
        }
        for &(account, seq, version) in &lapsed {
            let mark = self.slots.find(seq);
            self.give_up(account, seq, version, mark, Ending::LeaseLapsed, true, now, price)?;
        }
        Ok(lapsed.len())
    }

    /// Resolves every hold that an earlier process left open, by what it had marked. Returns how many.
    pub fn resolve_left_open(
        &self,
        marks: &HashMap<Seq, Mark>,
        now: Timestamp,
        price: PriceLookup<'_>,
    ) -> Result<usize, StoreError> {
        let mut open = Vec::new();
        for shard in &self.shards {
            for (&account, kept) in shard.lock().iter() {
                open.extend(kept.book.open_holds().map(|(seq, hold)| (seq, account, hold.terms.price)));
            }
        }
        open.sort_unstable();
        for &(seq, account, version) in &open {
            let mark = marks.get(&seq).cloned();
            let ending = if mark.is_some() { Ending::Crashed } else { Ending::CrashedUnknown };
            self.give_up(account, seq, version, mark, ending, false, now, price)?;
        }
        Ok(open.len())
    }

    #[expect(clippy::too_many_arguments, reason = "one private step of two loops; a struct would only rename them")]
    fn give_up(
        &self,
        account: AccountId,
        hold: Seq,
        version: PriceId,
        mark: Option<Mark>,
        ending: Ending,
        by_sweeper: bool,
        now: Timestamp,
        price: PriceLookup<'_>,
    ) -> Result<(), StoreError> {
        let marked = match mark {
            None => None,
            Some(Mark { usage, estimated, service_tier }) => {
                let cost = price(version)?
                    .charge(&usage, service_tier.as_deref())
                    .map_err(|error| StoreError::Damaged(format!("the mark of hold {hold}: {error}")))?;
                Some((usage, service_tier, cost, estimated))
            }
        };
        let mut shard = self.shard(account).lock();
        let Some(kept) = shard.get_mut(&account) else { return Ok(()) };
        // Between the look and this lock the request may have resolved its hold itself: nothing left to do then.
        if let Ok((legs, kind)) = kept.book.resolve(hold, resolve_abandoned(marked, ending), by_sweeper) {
            self.post(kept, account, legs, kind, now, false).map_err(|_| StoreError::Unavailable)?;
        }
        Ok(())
    }

    /// Puts money in, or takes it out when below zero. Answers once it is durable.
    pub async fn top_up(
        &self,
        account: AccountId,
        amount: Nanos,
        note: &str,
        now: Timestamp,
    ) -> Result<Seq, HoldError> {
        self.load(account, None).await.map_err(|_| HoldError::Unavailable)?;
        let seq = {
            let mut shard = self.shard(account).lock();
            let kept = shard.get_mut(&account).filter(|kept| !kept.quarantined).ok_or(HoldError::Unavailable)?;
            let legs = kept.book.top_up(amount).map_err(HoldError::Refused)?;
            let kind = Kind::TopUp { note: note.into() };
            self.post(kept, account, legs, kind, now, true).map_err(|_| HoldError::Unavailable)?
        };
        self.durable(seq).await.map_err(|_| HoldError::Unavailable)?;
        Ok(seq)
    }

    /// Waits until an entry is durable. At once if it is already.
    pub async fn durable(&self, seq: Seq) -> Result<(), StoreError> {
        if self.queue.committed() >= seq {
            return Ok(());
        }
        // While commits fail, the wait is cut short: the answer is refused, the entries stay and follow.
        tokio::time::timeout(DURABLE_WAIT, self.queue.durable(seq)).await.map_err(|_| StoreError::Unavailable)
    }

    /// Waits until everything that was decided is durable and in the stored sums.
    pub async fn flush(&self) -> Result<(), StoreError> {
        match &self.source {
            Source::Memory => Ok(()),
            Source::Sqlite(database) => database.writer().flush().await,
        }
    }

    /// The pots of an account.
    pub async fn totals(&self, account: AccountId) -> Result<Legs, StoreError> {
        self.load(account, None).await?;
        Ok(self.look(account, |book| book.totals()).unwrap_or_default())
    }

    /// What a key has used and reserved.
    pub async fn key_totals(&self, account: AccountId, key: KeyId) -> Result<KeyTotals, StoreError> {
        self.load(account, Some(key)).await?;
        Ok(self.look(account, |book| book.key(key).unwrap_or_default()).unwrap_or_default())
    }

    /// What a key can still use: money within wallet and quota, and tokens within its quota.
    pub async fn headroom(
        &self,
        account: AccountId,
        key: KeyId,
        quota: Quota,
    ) -> Result<(Nanos, Option<u64>), StoreError> {
        self.load(account, Some(key)).await?;
        Ok(self.look(account, |book| book.headroom(key, quota)).unwrap_or((Nanos::ZERO, None)))
    }

    /// Open holds of all accounts.
    pub fn open_holds(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().values().map(|kept| kept.book.open_holds().count()).sum::<usize>())
            .sum()
    }

    /// Drops books of which nothing is under way and everything is stored, when there are many.
    pub fn evict_quiet(&self) {
        let per_shard = QUIET_BOOKS_MAX / SHARDS;
        let folded = self.queue.folded();
        if matches!(self.source, Source::Memory) {
            return;
        }
        for shard in &self.shards {
            let mut books = shard.lock();
            if books.len() > per_shard {
                books.retain(|_, kept| !kept.book.is_quiet() || kept.last > folded || kept.quarantined);
            }
        }
    }

    fn look<T>(&self, account: AccountId, read: impl FnOnce(&Book) -> T) -> Option<T> {
        self.shard(account).lock().get(&account).map(|kept| read(&kept.book))
    }

    fn shard(&self, account: AccountId) -> &Mutex<HashMap<AccountId, Kept>> {
        &self.shards[account.0 as usize % SHARDS]
    }

    /// Makes sure that the book, and what it says of the key, is in memory. A key that a book does not know is
    /// not a key that has used nothing.
    async fn load(&self, account: AccountId, key: Option<KeyId>) -> Result<(), StoreError> {
        let known = |book: &Book| key.is_none_or(|key| book.key(key).is_some());
        if self.look(account, known) == Some(true) {
            return Ok(());
        }
        let (totals, of_key) = match &self.source {
            Source::Memory => (Legs::default(), KeyTotals::default()),
            Source::Sqlite(database) => {
                let read = move |connection: &Connection| {
                    let of_key = key.map(|key| read_key_totals(connection, key)).transpose()?;
                    Ok((read_totals(connection, account)?, of_key.unwrap_or_default()))
                };
                database.read(read).await?
            }
        };
        // Another request may have been quicker. Then what it loaded, and has perhaps moved since, stays.
        let mut shard = self.shard(account).lock();
        let kept = shard.entry(account).or_insert_with(|| Kept::new(Book::restore(totals)));
        if let Some(key) = key
            && kept.book.key(key).is_none()
        {
            kept.book.restore_key(key, of_key);
        }
        Ok(())
    }

    /// Queues an entry and applies it, both under the account's lock. An entry that the book rejects was made by
    /// a defect: it is not queued, and the account decides nothing more.
    fn post(
        &self,
        kept: &mut Kept,
        account: AccountId,
        legs: Legs,
        kind: Kind,
        now: Timestamp,
        may_refuse: bool,
    ) -> Result<Seq, NotPosted> {
        let posted = self.queue.push(now, may_refuse, |seq, at| {
            let entry = Entry { seq, at, account, legs, kind };
            match kept.book.apply(&entry) {
                Ok(()) => Ok(entry),
                Err(broken) => {
                    tracing::error!(%account, %broken, "the ledger contradicts itself; the account is quarantined");
                    Err(())
                }
            }
        });
        match posted {
            Ok(seq) => {
                kept.last = seq;
                Ok(seq)
            }
            Err(full) => {
                kept.quarantined |= full == crate::journal::Full::Rejected;
                Err(NotPosted)
            }
        }
    }
}

/// The journal did not take the entry.
struct NotPosted;

impl Kept {
    fn new(book: Book) -> Self {
        Self { book, last: Seq(0), quarantined: false }
    }
}

/// What arrived too late for its hold, as a charge of its own.
fn late_charge(hold: &OpenedHold, resolution: Resolution) -> Option<Charge> {
    let Resolution::Settle { usage, service_tier, cost, ending, estimated } = resolution else { return None };
    let Hold { key, price, .. } = hold.terms;
    let model = hold.terms.model.clone();
    Some(Charge { hold: hold.seq, key, model, price, usage, service_tier, cost, ending, estimated })
}

fn read_totals(connection: &Connection, account: AccountId) -> Result<Legs, StoreError> {
    let totals = connection
        .prepare_cached("select available, held, spent, debt, funding from balances where account = ?1")?
        .query_row([account.0], |row| {
            let pot = |column| row.get(column).map(Nanos);
            Ok(Legs { available: pot(0)?, held: pot(1)?, spent: pot(2)?, debt: pot(3)?, funding: pot(4)? })
        })
        .optional()?;
    Ok(totals.unwrap_or_default())
}

fn read_key_totals(connection: &Connection, key: KeyId) -> Result<KeyTotals, StoreError> {
    let totals = connection
        .prepare_cached("select used, held, used_tokens, held_tokens, requests from key_totals where key = ?1")?
        .query_row([key.0], |row| {
            Ok(KeyTotals {
                used: Nanos(row.get(0)?),
                held: Nanos(row.get(1)?),
                used_tokens: row.get(2)?,
                held_tokens: row.get(3)?,
                requests: row.get(4)?,
            })
        })
        .optional()?;
    Ok(totals.unwrap_or_default())
}
