//! The ledger as the gateway uses it: decisions in memory, durable by the journal.
//!
//! Each account's [`Book`] stands behind the lock of its shard. A decision takes that lock for about a
//! microsecond: it asks the book, queues the entry, applies it. Whether the entry is durable is a second question
//! ([`Ledger::durable`]), asked only before something that cannot be taken back: the first byte of an answer.
//!
//! Books are read from the stored folds at first touch, so a start is as quick with a million keys as with one.

mod books;

use crate::database::{Database, StoreError};
use crate::journal::{Full, Queue, RECENT_MAX};
use crate::progress::{Mark, Slots};
use books::{Missing, Stored};
use domain::ledger::{
    Book, Charge, Decided, Ending, Entry, Fund, Headroom, Hold, KeyTotals, Kind, Legs, Limits, OpenHold, Origin, Parts,
    Refusal, Resolution, Unresolved, resolve_abandoned,
};
use domain::price::Price;
use domain::{AccountId, KeyId, Multiplier, Nanos, PriceId, Seq, Timestamp};
use parking_lot::Mutex;
use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Locks that the accounts are spread over.
const SHARDS: usize = 64;
/// The file of marks in the data directory.
pub(crate) const PROGRESS_FILE: &str = "progress";
/// Slots for each request that may be open: a settled one keeps its slot until the settlement is durable.
const SLOTS_PER_OPEN: usize = 2;
/// Books that may stay in memory while nothing of theirs is under way.
const QUIET_BOOKS_MAX: usize = 100_000;
/// Counters of budgets that one account may keep in memory while nothing is held of them.
const IDLE_COUNTERS_MAX: usize = 10_000;
/// How often one decision may meet something that the calendar asks for first.
const DUE_MAX: usize = 2_000;
/// How often a book is read before its account is refused.
const LOADS_MAX: usize = 4;
/// How long an answer waits for its hold to become durable before it is given up.
const DURABLE_WAIT: Duration = Duration::from_secs(5);
/// The same while commits fail.
const DURABLE_WAIT_FAILING: Duration = Duration::from_millis(500);

/// See the module's description.
pub struct Ledger {
    shards: Box<[Mutex<foldhash::HashMap<AccountId, Kept>>]>,
    queue: Arc<Queue>,
    slots: Slots,
    /// Slots of holds whose settlement is not durable yet: until it is, the mark is what a restart goes by.
    retiring: Mutex<VecDeque<(Seq, u32)>>,
    /// Entries with a reference that were posted and are perhaps not durable yet, or only since a moment: a second one is
    /// not posted.
    referenced: tokio::sync::Mutex<HashMap<Arc<str>, Seq>>,
    /// How often something was dropped from memory. What was read or found before the last time may be missing or old.
    drops: AtomicU64,
    source: Source,
}

/// Where books come from at first touch.
enum Source {
    /// Nowhere: an account that is not here has no entries. For simulation and tests.
    Memory,
    Stored(Database),
}

struct Kept {
    book: Book,
    /// The last entry of this account.
    last: Seq,
    /// Holds that were opened here and that nobody has come to resolve yet, given up by the sweeper or not. Bounded by
    /// the slots, of which each has one.
    unresolved: usize,
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
    pub terms: Arc<Hold>,
    slot: u32,
    marks: u64,
}

/// Why a request gets no hold.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The book contradicts itself: nothing was posted, the money stays held, and the account is quarantined. The next
    /// start tries again, by the mark.
    Quarantined,
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
        let mut referenced = HashMap::new();
        let mut ledger = Self::with(
            Arc::new(Queue::new(last, last_at)),
            Slots::in_memory(open_max * SLOTS_PER_OPEN),
            Source::Memory,
        );
        for entry in entries {
            let mut shard = ledger.shard(entry.account).lock();
            let kept = shard.entry(entry.account).or_insert_with(|| Kept::new(Book::default(), Seq(0)));
            kept.book.apply(entry).map_err(|broken| StoreError::Damaged(broken.to_string()))?;
            kept.last = entry.seq;
            let reference = match &entry.kind {
                Kind::Fund(fund) => &fund.reference,
                Kind::Grant(grant) => &grant.reference,
                _ => &None,
            };
            referenced.extend(reference.iter().map(|reference| (reference.clone(), entry.seq)));
        }
        *ledger.referenced.get_mut() = referenced;
        Ok(ledger)
    }

    /// The ledger of a data directory. Holds that an earlier process left open are put back;
    /// [`crate::recovery::resolve_left_open`] is to be called with the marks before anything else.
    pub fn open(database: Database, open_max: usize) -> Result<(Self, Vec<(Seq, Mark)>), StoreError> {
        let slots = open_max * SLOTS_PER_OPEN;
        let (slots, marks) = Slots::open(&database.directory().join(PROGRESS_FILE), slots)?;
        let queue = database.writer().queue().clone();
        let left_open = database.writer().take_open_at_start();
        let ledger = Self::with(queue, slots, Source::Stored(database.clone()));
        database.read_now(|connection| {
            for entry in left_open {
                let Kind::Hold(terms) = entry.kind else { continue };
                let mut shard = ledger.shard(entry.account).lock();
                let kept = match shard.entry(entry.account) {
                    Place::Occupied(kept) => kept.into_mut(),
                    Place::Vacant(empty) => {
                        let (book, last) = books::read(connection, entry.account)?;
                        empty.insert(Kept::new(book, last))
                    }
                };
                let missing = Missing::of(&kept.book, Some(terms.key), &terms.counted);
                books::complete(connection, entry.account, &missing)?.put_into(&mut kept.book);
                kept.book.restore_hold(entry.seq, OpenHold { terms, at: entry.at });
            }
            Ok(())
        })?;
        Ok((ledger, marks))
    }

    fn with(queue: Arc<Queue>, slots: Slots, source: Source) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            queue,
            slots,
            retiring: Mutex::default(),
            referenced: tokio::sync::Mutex::default(),
            drops: AtomicU64::new(0),
            source,
        }
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
        limits: &Limits,
        now: Timestamp,
    ) -> Result<OpenedHold, HoldError> {
        let drops = self.load(account, Some(terms.key), limits).await.map_err(|_| HoldError::Unavailable)?;
        let slot = self.take_slot().ok_or(HoldError::TooManyOpen)?;
        match self.hold_in_book(account, terms, limits, drops, now) {
            Ok((seq, terms)) => Ok(OpenedHold { account, seq, terms, slot, marks: 0 }),
            Err(error) => {
                self.slots.give_back(slot);
                Err(error)
            }
        }
    }

    fn hold_in_book(
        &self,
        account: AccountId,
        asked: &Hold,
        limits: &Limits,
        drops: u64,
        now: Timestamp,
    ) -> Result<(Seq, Arc<Hold>), HoldError> {
        let mut terms = Arc::new(Hold { counted: limits.counted(), ..asked.clone() });
        let mut shard = self.shard(account).lock();
        let kept = Kept::deciding(&mut shard, account)?;
        // A counter that the book does not know is not one of which nothing was used.
        let may_lack = self.drops() != drops;
        if may_lack && !Missing::of_limits(&kept.book, Some(asked.key), limits).is_nothing() {
            return Err(HoldError::Unavailable);
        }
        let seq = self.decide_in(kept, account, now, |book, at| {
            let (legs, parts) = book.hold(asked, limits, at)?;
            Arc::make_mut(&mut terms).parts = parts;
            Ok((legs, Kind::Hold(terms.clone())))
        })?;
        kept.unresolved += 1;
        Ok((seq, terms))
    }

    /// Makes an open hold larger while its answer flows, or says why not.
    pub fn extend(
        &self,
        hold: &mut OpenedHold,
        amount: Nanos,
        tokens: u64,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), HoldError> {
        let mut parts = Parts::new();
        self.decide(hold.account, now, |book, at| {
            let decided = book.extend(hold.seq, amount, tokens, limits, at)?;
            if let Kind::Extend(extension) = &decided.1 {
                parts.clone_from(&extension.parts);
            }
            Ok(decided)
        })?;
        Arc::make_mut(&mut hold.terms).enlarge(amount, tokens, &parts);
        Ok(())
    }

    /// Decides something that may be refused, after everything that the calendar asks for at that moment.
    fn decide(
        &self,
        account: AccountId,
        now: Timestamp,
        decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
    ) -> Result<Seq, HoldError> {
        let mut shard = self.shard(account).lock();
        self.decide_in(Kept::deciding(&mut shard, account)?, account, now, decide)
    }

    fn decide_in(
        &self,
        kept: &mut Kept,
        account: AccountId,
        mut now: Timestamp,
        mut decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
    ) -> Result<Seq, HoldError> {
        for _ in 0..DUE_MAX {
            self.post_due(kept, account, now, false)?;
            match self.post(kept, account, now, true, |book, at| {
                // The journal's time may be ahead of this clock: then the calendar is asked again.
                if at > now && book.due(at).is_some() {
                    return Err(NotPosted::Due(at));
                }
                decide(book, at).map_err(NotPosted::Refused)
            }) {
                Err(NotPosted::Due(at)) => now = at,
                posted => return Ok(posted?),
            }
        }
        Err(HoldError::Unavailable)
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
            Resolved::Posted(_) | Resolved::AlreadyResolved => self.slots.give_back(hold.slot),
            // Its mark is what the next start goes by.
            Resolved::Quarantined => {}
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
        let kept = shard.get_mut(&hold.account).expect("a book whose holds are not resolved is never dropped");
        kept.unresolved -= 1;
        let posted = self.post(kept, hold.account, now, false, |book, at| {
            let resolved = match book.open_hold(hold.seq) {
                Some(_) => book.resolve(hold.seq, resolution, false, at),
                None => match late_charge(hold, resolution) {
                    Some(charge) => book.late_charge(charge, at),
                    None => Err(Unresolved::NotOpen(hold.seq)),
                },
            };
            resolved.map_err(|Unresolved::NotOpen(_)| NotPosted::Refused(Refusal::NotOpen))
        });
        match posted {
            Ok(seq) => Resolved::Posted(seq),
            Err(NotPosted::Refused(_)) => Resolved::AlreadyResolved,
            // What ends a hold is always taken, whatever the calendar says; what is left is a contradiction.
            Err(NotPosted::Broken | NotPosted::Busy | NotPosted::Due(_)) => Resolved::Quarantined,
        }
    }

    /// Resolves holds whose lease has lapsed by `steady`, the clock that leases are measured with, by their last mark,
    /// oldest first. Returns how many. Those of quarantined accounts stay open.
    pub fn sweep(&self, steady: Timestamp, now: Timestamp, price: PriceLookup<'_>) -> Result<usize, StoreError> {
        let mut lapsed = Vec::new();
        for shard in &self.shards {
            for (&account, kept) in shard.lock().iter().filter(|(_, kept)| !kept.quarantined) {
                let late = kept.book.open_holds().filter(|(_, hold)| hold.terms.lease_until < steady);
                lapsed.extend(late.map(|(seq, hold)| (seq, account, hold.terms.price, hold.terms.multiplier)));
            }
        }
        lapsed.sort_unstable();
        let mut given_up = 0;
        for &(seq, account, version, multiplier) in &lapsed {
            let (mark, ending) = (self.slots.find(seq), Ending::LeaseLapsed);
            given_up +=
                usize::from(self.give_up(account, seq, (version, multiplier), mark, ending, true, now, price)?);
        }
        Ok(given_up)
    }

    /// Resolves every hold that an earlier process left open, by what it had marked. Returns how many. One that the book
    /// contradicts stays open: nobody else's start is to wait for it.
    pub fn resolve_left_open(
        &self,
        marks: &HashMap<Seq, Mark>,
        now: Timestamp,
        price: PriceLookup<'_>,
    ) -> Result<usize, StoreError> {
        let mut open = Vec::new();
        for shard in &self.shards {
            for (&account, kept) in shard.lock().iter() {
                open.extend(
                    kept.book.open_holds().map(|(seq, hold)| (seq, account, hold.terms.price, hold.terms.multiplier)),
                );
            }
        }
        open.sort_unstable();
        let mut given_up = 0;
        for &(seq, account, version, multiplier) in &open {
            let mark = marks.get(&seq).cloned();
            let ending = if mark.is_some() { Ending::Crashed } else { Ending::CrashedUnknown };
            given_up +=
                usize::from(self.give_up(account, seq, (version, multiplier), mark, ending, false, now, price)?);
        }
        Ok(given_up)
    }

    /// Whether it is done.
    #[expect(clippy::too_many_arguments, reason = "one private step of two loops; a struct would only rename them")]
    fn give_up(
        &self,
        account: AccountId,
        hold: Seq,
        (version, multiplier): (PriceId, Multiplier),
        mark: Option<Mark>,
        ending: Ending,
        by_sweeper: bool,
        now: Timestamp,
        price: PriceLookup<'_>,
    ) -> Result<bool, StoreError> {
        let marked = match mark {
            None => None,
            Some(Mark { usage, estimated, service_tier }) => {
                let cost = price(version)?
                    .charge_at(&usage, service_tier.as_deref(), multiplier)
                    .map_err(|error| StoreError::Damaged(format!("the mark of hold {hold}: {error}")))?;
                Some((usage, service_tier, cost, estimated))
            }
        };
        let mut shard = self.shard(account).lock();
        let Some(kept) = shard.get_mut(&account) else { return Ok(false) };
        let posted = self.post(kept, account, now, false, |book, at| {
            let resolved = book.resolve(hold, resolve_abandoned(marked, ending), by_sweeper, at);
            resolved.map_err(|Unresolved::NotOpen(_)| NotPosted::Refused(Refusal::NotOpen))
        });
        match posted {
            Ok(_) => Ok(true),
            // Between the look and this lock the request may have resolved its hold itself: nothing left to do then.
            Err(NotPosted::Refused(_)) => Ok(false),
            // Said and quarantined by `post`.
            Err(NotPosted::Broken) => Ok(false),
            Err(NotPosted::Busy | NotPosted::Due(_)) => Err(StoreError::Unavailable),
        }
    }

    /// Puts money in, or takes it out when below zero, in an operator's name. Answers once it is durable.
    pub async fn top_up(
        &self,
        account: AccountId,
        amount: Nanos,
        note: &str,
        now: Timestamp,
    ) -> Result<Seq, HoldError> {
        let fund = Fund { origin: Origin::TopUp, by: "operator".into(), note: note.into(), reference: None };
        self.post_durable(account, now, |book, _| book.fund_in(fund.clone(), amount)).await
    }

    /// Posts what `decide` finds right in the book, after everything that the calendar asks for first. Answers once it is
    /// durable. `decide` may be asked more than once.
    pub async fn post_durable(
        &self,
        account: AccountId,
        now: Timestamp,
        decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
    ) -> Result<Seq, HoldError> {
        self.load(account, None, &Limits::default()).await.map_err(|_| HoldError::Unavailable)?;
        let seq = self.decide(account, now, decide)?;
        self.durable(seq).await.map_err(|_| HoldError::Unavailable)?;
        Ok(seq)
    }

    /// [`Ledger::post_durable`] for an entry that carries `reference`: posted once, whoever asks how often, also across
    /// restarts. Later calls answer with the entry of the first.
    pub async fn post_once(
        &self,
        account: AccountId,
        reference: &Arc<str>,
        now: Timestamp,
        decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
    ) -> Result<Seq, HoldError> {
        self.load(account, None, &Limits::default()).await.map_err(|_| HoldError::Unavailable)?;
        let seq = {
            let mut referenced = self.referenced.lock().await;
            let committed = self.queue.committed();
            if let Source::Stored(_) = &self.source {
                // Also those that a database might still lose (D-14).
                referenced.retain(|_, seq| seq.0 + RECENT_MAX as i64 > committed.0);
            }
            let known = match referenced.get(reference) {
                Some(&seq) => Some(seq),
                None => self.find_reference(reference).await.map_err(|_| HoldError::Unavailable)?,
            };
            match known {
                Some(seq) => seq,
                None => {
                    let seq = self.decide(account, now, decide)?;
                    referenced.insert(reference.clone(), seq);
                    seq
                }
            }
        };
        self.durable(seq).await.map_err(|_| HoldError::Unavailable)?;
        Ok(seq)
    }

    /// The entry that carries a reference, once it is durable; `None` if there is none.
    pub async fn posted(&self, reference: &Arc<str>) -> Result<Option<Seq>, StoreError> {
        let known = self.referenced.lock().await.get(reference).copied();
        let seq = match known {
            Some(seq) => Some(seq),
            None => self.find_reference(reference).await?,
        };
        if let Some(seq) = seq {
            self.durable(seq).await?;
        }
        Ok(seq)
    }

    /// The durable entry that carries a reference.
    async fn find_reference(&self, reference: &Arc<str>) -> Result<Option<Seq>, StoreError> {
        let Source::Stored(database) = &self.source else { return Ok(None) };
        let reference = reference.clone();
        database.read(move |connection| books::by_reference(connection, &reference)).await
    }

    /// Posts what the calendar asks for in an account, if anything: cycles that began, grants that expired.
    pub async fn touch(&self, account: AccountId, now: Timestamp) -> Result<(), StoreError> {
        self.load(account, None, &Limits::default()).await?;
        let mut shard = self.shard(account).lock();
        let Some(kept) = shard.get_mut(&account).filter(|kept| !kept.quarantined) else { return Ok(()) };
        self.post_due(kept, account, now, true).map_err(|_| StoreError::Unavailable)
    }

    /// Accounts for which the calendar asks something at `now`, at most `limit`.
    pub async fn due_accounts(&self, now: Timestamp, limit: u32) -> Result<Vec<AccountId>, StoreError> {
        let Source::Stored(database) = &self.source else { return Ok(Vec::new()) };
        database.read(move |connection| books::due_accounts(connection, now, limit)).await
    }

    /// Waits until an entry is durable. At once if it is already.
    pub async fn durable(&self, seq: Seq) -> Result<(), StoreError> {
        if self.queue.committed() >= seq {
            return Ok(());
        }
        // While commits fail, the wait is cut short: the answer is refused, the entries stay and follow.
        let mut durable = pin!(self.queue.durable(seq));
        let mut left = DURABLE_WAIT;
        loop {
            match tokio::time::timeout(DURABLE_WAIT_FAILING, &mut durable).await {
                Ok(done) => return done.map_err(|_| StoreError::Unavailable),
                Err(_) => left = left.saturating_sub(DURABLE_WAIT_FAILING),
            }
            if left.is_zero() || self.queue.is_failing() {
                return Err(StoreError::Unavailable);
            }
        }
    }

    /// Waits until everything that was decided is durable and in the stored sums.
    pub async fn flush(&self) -> Result<(), StoreError> {
        match &self.source {
            Source::Memory => Ok(()),
            Source::Stored(database) => database.writer().flush().await,
        }
    }

    /// The pots of an account.
    pub async fn totals(&self, account: AccountId) -> Result<Legs, StoreError> {
        self.read(account, |book| book.totals()).await
    }

    /// What `read` finds in an account's book.
    pub async fn read<T>(&self, account: AccountId, read: impl FnOnce(&Book) -> T) -> Result<T, StoreError> {
        self.load(account, None, &Limits::default()).await?;
        self.look(account, read).ok_or(StoreError::Unavailable)
    }

    /// What a key has used and reserved.
    pub async fn key_totals(&self, account: AccountId, key: KeyId) -> Result<KeyTotals, StoreError> {
        self.load(account, Some(key), &Limits::default()).await?;
        Ok(self.look(account, |book| book.key(key).unwrap_or_default()).unwrap_or_default())
    }

    /// What could be held now for a request of a key under these limits.
    pub async fn headroom(
        &self,
        account: AccountId,
        key: KeyId,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Headroom, StoreError> {
        self.load(account, Some(key), limits).await?;
        Ok(self.look_at(account, now, |book| book.headroom(key, limits, now)).unwrap_or_default())
    }

    /// The same without an allowance that counts tokens, for a request that needs more of them than are left. To be asked
    /// after [`Ledger::headroom`].
    pub fn headroom_beside_tokens(&self, account: AccountId, key: KeyId, limits: &Limits, now: Timestamp) -> Headroom {
        self.look_at(account, now, |book| book.headroom_beside_tokens(key, limits, now)).unwrap_or_default()
    }

    /// What an open hold could be extended by now, under the limits that it was opened with: what
    /// [`Ledger::headroom`] says, and what [`Ledger::headroom_beside_tokens`] says.
    pub fn room(&self, hold: &OpenedHold, limits: &Limits, now: Timestamp) -> [Headroom; 2] {
        let key = hold.terms.key;
        let rooms = |book: &Book| [book.headroom(key, limits, now), book.headroom_beside_tokens(key, limits, now)];
        self.look_at(hold.account, now, rooms).unwrap_or_default()
    }

    /// What [`Ledger::hold`] would say now. Nothing is posted: what the calendar asks for first is only thought of.
    pub async fn would_hold(
        &self,
        account: AccountId,
        terms: &Hold,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), HoldError> {
        self.load(account, Some(terms.key), limits).await.map_err(|_| HoldError::Unavailable)?;
        let is_quarantined = self.shard(account).lock().get(&account).is_none_or(|kept| kept.quarantined);
        if is_quarantined {
            return Err(HoldError::Unavailable);
        }
        let held = self.look_at(account, now, |book| book.hold(terms, limits, now));
        held.ok_or(HoldError::Unavailable)?.map(|_| ()).map_err(HoldError::Refused)
    }

    /// What `read` finds in an account's book, with what it knows of a key and of the counters of these limits.
    pub async fn read_with<T>(
        &self,
        account: AccountId,
        key: Option<KeyId>,
        limits: &Limits,
        read: impl FnOnce(&Book) -> T,
    ) -> Result<T, StoreError> {
        self.load(account, key, limits).await?;
        self.look(account, read).ok_or(StoreError::Unavailable)
    }

    /// Open holds of all accounts.
    pub fn open_holds(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().values().map(|kept| kept.book.open_holds().count()).sum::<usize>())
            .sum()
    }

    /// Drops books and counters of which nothing is under way and everything is stored, when there are many.
    pub fn evict_quiet(&self) {
        let per_shard = QUIET_BOOKS_MAX / SHARDS;
        let (folded, at) = (self.queue.folded(), self.queue.decided_at());
        if matches!(self.source, Source::Memory) {
            return;
        }
        for shard in &self.shards {
            let mut books = shard.lock();
            let mut dropped = false;
            for kept in books.values_mut() {
                dropped |= kept.book.prune(at, folded, IDLE_COUNTERS_MAX);
            }
            if books.len() > per_shard {
                let before = books.len();
                books.retain(|_, kept| !kept.is_quiet(folded));
                dropped |= books.len() < before;
            }
            if dropped {
                // Before anybody can see it.
                self.drops.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// The book of an account is in memory.
    #[cfg(test)]
    pub(crate) fn knows(&self, account: AccountId) -> bool {
        self.look(account, |_| ()).is_some()
    }

    /// What a defect could do to a book.
    #[cfg(test)]
    pub(crate) fn damage(&self, account: AccountId, damage: impl FnOnce(&mut Book)) {
        damage(&mut self.shard(account).lock().get_mut(&account).expect("the book is in memory").book);
    }

    fn look<T>(&self, account: AccountId, read: impl FnOnce(&Book) -> T) -> Option<T> {
        self.shard(account).lock().get(&account).map(|kept| read(&kept.book))
    }

    /// What `read` finds in an account's book as it will be at `now`, when what the calendar asks for by then has been
    /// posted. The book itself stays as it is.
    fn look_at<T>(&self, account: AccountId, now: Timestamp, read: impl FnOnce(&Book) -> T) -> Option<T> {
        let shard = self.shard(account).lock();
        let Kept { book, last, .. } = shard.get(&account)?;
        let Some(mut due) = book.due(now) else { return Some(read(book)) };
        let (mut book, mut last) = (book.clone(), *last);
        for _ in 0..DUE_MAX {
            let (legs, kind) = due;
            let entry = Entry { seq: Seq(last.0 + 1), at: now, account, previous: last, legs, kind };
            if book.apply(&entry).is_err() {
                break;
            }
            last = entry.seq;
            match book.due(now) {
                Some(next) => due = next,
                None => break,
            }
        }
        Some(read(&book))
    }

    fn shard(&self, account: AccountId) -> &Mutex<foldhash::HashMap<AccountId, Kept>> {
        &self.shards[account.0 as usize % SHARDS]
    }

    /// Makes sure that the book, and what it says of the key and of the counters, is in memory. A key that a book does not
    /// know is not a key that has used nothing. Answers with the drops that there were before.
    async fn load(&self, account: AccountId, key: Option<KeyId>, limits: &Limits) -> Result<u64, StoreError> {
        for _ in 0..LOADS_MAX {
            let drops = self.drops();
            let missing = self.look(account, |book| Missing::of_limits(book, key, limits));
            if missing.as_ref().is_some_and(Missing::is_nothing) {
                return Ok(drops);
            }
            let wanted = missing.unwrap_or_else(|| Missing::of_limits(&Book::default(), key, limits));
            let Source::Stored(database) = &self.source else {
                let mut shard = self.shard(account).lock();
                let kept = shard.entry(account).or_insert_with(|| Kept::new(Book::default(), Seq(0)));
                Stored::nothing(&wanted).put_into(&mut kept.book);
                return Ok(drops);
            };
            let read = move |connection: &crate::sql::Connection| {
                let (book, last) = books::read(connection, account)?;
                Ok((book, last, books::complete(connection, account, &wanted)?))
            };
            let (book, last, stored) = database.read(read).await?;
            if self.keep(account, book, last, stored, drops) {
                return Ok(drops);
            }
            // Sums that lack a late charge are written now.
            database.writer().flush().await?;
        }
        Err(StoreError::Unavailable)
    }

    /// Keeps what was read, unless it may be older than what was dropped meanwhile, or than a charge of which the book knows
    /// only that there was one.
    fn keep(&self, account: AccountId, book: Book, last: Seq, stored: Stored, drops: u64) -> bool {
        let mut shard = self.shard(account).lock();
        if self.drops() != drops {
            return false;
        }
        // Another request may have been quicker. Then what it loaded, and has perhaps moved since, stays.
        let kept = shard.entry(account).or_insert_with(|| Kept::new(book, last));
        let is_whole = kept.book.unread() <= last;
        if is_whole {
            stored.put_into(&mut kept.book);
        }
        is_whole
    }

    fn drops(&self) -> u64 {
        self.drops.load(Ordering::Acquire)
    }

    /// Posts everything that the calendar asks for at `now`, each decided at the journal's own time.
    fn post_due(&self, kept: &mut Kept, account: AccountId, now: Timestamp, may_refuse: bool) -> Result<(), NotPosted> {
        for _ in 0..DUE_MAX {
            if kept.book.due(now).is_none() {
                return Ok(());
            }
            let decide = |book: &Book, at| book.due(at).ok_or(NotPosted::Refused(Refusal::NotOpen));
            self.post(kept, account, now, may_refuse, decide)?;
        }
        Ok(())
    }

    /// Decides, queues and applies an entry, all under the account's lock and the journal's, so that the order of
    /// decisions is the order of rows. An entry that the book rejects was made by a defect: it is not queued, and the
    /// account decides nothing more.
    fn post(
        &self,
        kept: &mut Kept,
        account: AccountId,
        now: Timestamp,
        may_refuse: bool,
        decide: impl FnOnce(&Book, Timestamp) -> Result<Decided, NotPosted>,
    ) -> Result<Seq, NotPosted> {
        let previous = kept.last;
        let book = &mut kept.book;
        let posted = self.queue.push(now, may_refuse, |seq, at| {
            let (legs, kind) = decide(book, at)?;
            let entry = Entry { seq, at, account, previous, legs, kind };
            book.apply(&entry).map_err(|broken| {
                tracing::error!(%account, %broken, "the ledger contradicts itself; the account is quarantined");
                NotPosted::Broken
            })?;
            Ok(entry)
        });
        match posted {
            Ok(seq) => kept.last = seq,
            Err(NotPosted::Broken) => kept.quarantined = true,
            Err(_) => {}
        }
        posted
    }
}

/// The journal did not take an entry.
#[derive(Clone, Debug)]
enum NotPosted {
    /// The rules refuse it.
    Refused(Refusal),
    /// At the journal's time, something else comes first.
    Due(Timestamp),
    /// The journal takes nothing now.
    Busy,
    /// The book rejects what it had decided.
    Broken,
}

impl From<Full> for NotPosted {
    fn from(_: Full) -> Self {
        Self::Busy
    }
}

impl From<NotPosted> for HoldError {
    fn from(not_posted: NotPosted) -> Self {
        match not_posted {
            NotPosted::Refused(refusal) => Self::Refused(refusal),
            NotPosted::Due(_) | NotPosted::Busy | NotPosted::Broken => Self::Unavailable,
        }
    }
}

impl Kept {
    fn new(book: Book, last: Seq) -> Self {
        Self { book, last, unresolved: 0, quarantined: false }
    }

    /// The book of an account that may decide something.
    fn deciding(shard: &mut foldhash::HashMap<AccountId, Self>, account: AccountId) -> Result<&mut Self, HoldError> {
        // Missing means dropped in the instant after it was loaded: as rare as it is harmless to refuse.
        shard.get_mut(&account).filter(|kept| !kept.quarantined).ok_or(HoldError::Unavailable)
    }

    /// It can be dropped, and read again. Usage may still come for a hold that the sweeper gave up: what was charged for
    /// it is not in the stored sums. After a restart nobody is left who could come.
    fn is_quiet(&self, folded: Seq) -> bool {
        self.book.is_quiet() && self.unresolved == 0 && self.last <= folded && !self.quarantined
    }
}

/// What arrived too late for its hold, as a charge of its own.
fn late_charge(hold: &OpenedHold, resolution: Resolution) -> Option<Charge> {
    let Resolution::Settle { usage, service_tier, cost, ending, estimated } = resolution else { return None };
    let Hold { key, price, multiplier, .. } = *hold.terms;
    let (model, counted) = (hold.terms.model.clone(), hold.terms.counted.clone());
    let (hold, parts, again) = (hold.seq, Parts::new(), false);
    Some(Charge {
        hold,
        key,
        model,
        price,
        multiplier,
        usage,
        service_tier,
        cost,
        ending,
        estimated,
        parts,
        counted,
        again,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ledger::{BudgetLimit, Counted, Metric};
    use domain::{BudgetId, Period, Usage};

    const ACCOUNT: AccountId = AccountId(1);
    const HOUR: i64 = 3_600_000;

    /// M-02: between the look at what a decision needs and the decision, it can be dropped.
    #[tokio::test]
    async fn m_02_nobody_decides_by_a_counter_that_was_dropped_a_moment_ago() {
        let scratch = crate::testing::sqlite();
        let (ledger, _) = Ledger::open(scratch.database.clone(), 10).unwrap();
        let (now, later) = (Timestamp(0), Timestamp(HOUR));
        ledger.top_up(ACCOUNT, Nanos(1_000), "", now).await.unwrap();
        let limit = |id| {
            let period = Period { start: now, end: later };
            let counted = Counted { budget: BudgetId(id), subject: "".into(), period };
            BudgetLimit { counted, name: "b".into(), metric: Metric::Money, limit: 100 }
        };
        let limits = Limits { budgets: (0..70).map(limit).collect(), ..Limits::default() };
        let terms = |amount: i64| Hold {
            key: KeyId(1),
            request: "r".into(),
            model: "m".into(),
            upstream: "u".into(),
            price: PriceId(1),
            multiplier: Multiplier::ONE,
            amount: Nanos(amount),
            bound: Usage::tokens(1, 1),
            lease_until: later,
            parts: Parts::new(),
            counted: Arc::default(),
        };
        let hold = ledger.hold(ACCOUNT, &terms(80), &limits, now).await.unwrap();
        let settle = Resolution::Settle {
            usage: Usage::tokens(1, 1),
            service_tier: None,
            cost: Nanos(80),
            ending: Ending::Complete,
            estimated: false,
        };
        ledger.resolve(hold, settle, later);
        ledger.flush().await.unwrap();

        let drops = ledger.load(ACCOUNT, Some(KeyId(1)), &limits).await.unwrap();
        ledger.evict_quiet();
        let held = ledger.hold_in_book(ACCOUNT, &terms(80), &limits, drops, now);
        assert_eq!(held, Err(HoldError::Unavailable));
        // What was read before it was dropped is not kept either.
        let (book, last) = scratch.database.read_now(|connection| books::read(connection, ACCOUNT)).unwrap();
        let old = Stored::nothing(&Missing::of_limits(&book, None, &limits));
        assert!(!ledger.keep(ACCOUNT, book, last, old, drops));
        let held = ledger.hold(ACCOUNT, &terms(80), &limits, now).await;
        assert!(matches!(held, Err(HoldError::Refused(Refusal::Budget { .. }))), "{held:?}");
    }
}
