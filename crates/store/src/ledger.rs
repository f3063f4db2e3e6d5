//! The ledger as the gateway uses it: decisions in memory, durable by the journal.
//!
//! Each account's [`Book`] stands behind the lock of its shard. A decision takes that lock for about a
//! microsecond: it asks the book, queues the entry, applies it. Whether the entry is durable is a second question
//! ([`Ledger::durable`]), asked only before something that cannot be taken back: the first byte of an answer.
//!
//! Books are read from the stored folds at first touch, so a start is as quick with a million keys as with one.
//!
//! Here is what a ledger is and how it is opened. What it does stands by subject: holds in `holding`, those that nobody
//! comes for in `abandoned`, everything else that is posted in `posting`, questions in `looking`, its memory in `loading`.

mod abandoned;
mod books;
mod holding;
mod loading;
mod looking;
mod posting;

use crate::database::{Database, StoreError};
use crate::journal::Queue;
use crate::progress::{Mark, Slots};
use books::Missing;
use domain::ledger::{Book, Entry, Hold, Kind, OpenHold, Refusal};
use domain::price::Price;
use domain::{AccountId, PriceId, Seq, Timestamp};
use parking_lot::Mutex;
use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Locks that the accounts are spread over.
const SHARDS: usize = 64;
/// The file of marks in the data directory.
pub(crate) const PROGRESS_FILE: &str = "progress";
/// Slots for each request that may be open: a settled one keeps its slot until the settlement is durable.
const SLOTS_PER_OPEN: usize = 2;
/// How often one decision may meet something that the calendar asks for first.
const DUE_MAX: usize = 2_000;

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

    /// Where it is kept, if it is kept anywhere.
    pub fn database(&self) -> Option<&Database> {
        match &self.source {
            Source::Memory => None,
            Source::Stored(database) => Some(database),
        }
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

    fn shard(&self, account: AccountId) -> &Mutex<foldhash::HashMap<AccountId, Kept>> {
        &self.shards[account.0 as usize % SHARDS]
    }

    fn drops(&self) -> u64 {
        self.drops.load(Ordering::Acquire)
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

#[cfg(test)]
mod tests;
