//! Entries on their way to the disk.

use crate::sql::Connection;
use domain::ledger::Entry;
use domain::{Seq, Timestamp};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Entries that may wait before new holds are refused. Resolutions of open holds are always taken: their number
/// is bounded by the holds.
const WAITING_MAX: usize = 65_536;

/// Too much waits, the disk fails, or the journal is being closed: nothing more is queued now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The journal has ended: what it had not committed by then, it never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// A change that runs on the writer thread between groups.
pub(super) type Change = Box<dyn FnOnce(&mut Connection) + Send>;

/// Entries and changes that wait for the writer.
#[derive(Default)]
pub(super) struct Group {
    pub(super) entries: Vec<Entry>,
    pub(super) changes: Vec<Change>,
    pub(super) flushes: Vec<oneshot::Sender<()>>,
    pub(super) closing: bool,
}

/// See the module's description.
pub struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// The last durable entry.
    committed: AtomicI64,
    /// Whoever waits for an entry, in its order: a commit wakes those whose entries it made durable, and nobody else.
    waiters: Mutex<BTreeMap<(Seq, u64), oneshot::Sender<()>>>,
    /// The last entry that the stored folds contain.
    folded_seq: AtomicI64,
    failing: AtomicBool,
    waiter_count: AtomicU64,
    /// Why nothing will be committed any more.
    ended: watch::Sender<Option<Arc<str>>>,
}

struct Waiting {
    group: Group,
    /// When the oldest waiting entry was queued.
    since: Option<Instant>,
    /// Somebody waits for the group.
    hurried: bool,
    /// A change waits: it is not to wait at all.
    urgent: bool,
    last_seq: i64,
    last_at: Timestamp,
}

impl Queue {
    /// A queue behind a journal whose last row is `last`, of the time `last_at`.
    pub fn new(last: Seq, last_at: Timestamp) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                group: Group::default(),
                since: None,
                hurried: false,
                urgent: false,
                last_seq: last.0,
                last_at,
            }),
            wake: Condvar::new(),
            committed: AtomicI64::new(last.0),
            waiters: Mutex::default(),
            folded_seq: AtomicI64::new(last.0),
            failing: AtomicBool::new(false),
            waiter_count: AtomicU64::new(0),
            ended: watch::Sender::new(None),
        }
    }

    /// Queues the entry that `make` builds for its place and time, unless it refuses. Times never run backwards, whatever
    /// the clock does. `may_refuse` is for new holds: they are refused when the queue is full or the disk fails.
    pub fn push<E: From<Full>>(
        &self,
        now: Timestamp,
        may_refuse: bool,
        make: impl FnOnce(Seq, Timestamp) -> Result<Entry, E>,
    ) -> Result<Seq, E> {
        let mut waiting = self.waiting.lock();
        let full = waiting.group.entries.len() >= WAITING_MAX || self.failing.load(Ordering::Relaxed);
        if may_refuse && (full || waiting.group.closing) {
            return Err(Full.into());
        }
        let (seq, at) = (Seq(waiting.last_seq + 1), waiting.last_at.max(now));
        let entry = make(seq, at)?;
        (waiting.last_seq, waiting.last_at) = (seq.0, at);
        waiting.group.entries.push(entry);
        if waiting.since.is_none() {
            waiting.since = Some(Instant::now());
            self.wake.notify_one();
        }
        Ok(seq)
    }

    /// The last entry that was decided, durable or not.
    pub fn decided(&self) -> Seq {
        Seq(self.waiting.lock().last_seq)
    }

    /// The time of the last entry that was decided.
    pub fn decided_at(&self) -> Timestamp {
        self.waiting.lock().last_at
    }

    /// The last durable entry.
    pub fn committed(&self) -> Seq {
        Seq(self.committed.load(Ordering::Acquire))
    }

    /// The last entry that the stored folds contain.
    pub fn folded(&self) -> Seq {
        Seq(self.folded_seq.load(Ordering::Acquire))
    }

    /// Commits are failing now, or have ended.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Waits until an entry is durable, and has its group committed soon.
    pub async fn durable(&self, seq: Seq) -> Result<(), Ended> {
        let (durable, waits) = oneshot::channel();
        {
            let mut waiters = self.waiters.lock();
            // Under the lock, so that a commit that ends now is either seen here or sees this waiter.
            if self.committed() >= seq {
                return Ok(());
            }
            if self.ended.borrow().is_some() {
                return Err(Ended);
            }
            let number = self.waiter_count.fetch_add(1, Ordering::Relaxed);
            waiters.insert((seq, number), durable);
        }
        self.urge();
        waits.await.map_err(|_| Ended)
    }

    /// Somebody waits: do not wait for company as long as one could.
    fn urge(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.hurried {
            waiting.hurried = true;
            self.wake.notify_one();
        }
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().group.entries.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn submit(&self, change: Change) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.group.closing || waiting.group.changes.len() >= WAITING_MAX || self.is_failing() {
            return Err(Full);
        }
        waiting.group.changes.push(change);
        waiting.urgent = true;
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn request_flush(&self, done: oneshot::Sender<()>) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.group.closing {
            return Err(Full);
        }
        waiting.group.flushes.push(done);
        waiting.urgent = true;
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn is_closing(&self) -> bool {
        self.waiting.lock().group.closing
    }

    pub(super) fn close(&self) {
        self.waiting.lock().group.closing = true;
        self.wake.notify_one();
    }

    /// Waits for something to do: until the oldest entry has waited `patience` (or `hurry`, if somebody waits for it),
    /// or a change came, or nothing came for `idle`. The closing mark stays set.
    pub(super) fn take(&self, hurry: Duration, patience: Duration, idle: Duration) -> Group {
        let started = Instant::now();
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.urgent || waiting.group.closing {
                break;
            }
            let deadline = match waiting.since {
                Some(since) if waiting.hurried => since + hurry,
                Some(since) => since + patience,
                None => started + idle,
            };
            if self.wake.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        (waiting.urgent, waiting.hurried, waiting.since) = (false, false, None);
        let closing = waiting.group.closing;
        let group = std::mem::take(&mut waiting.group);
        waiting.group.closing = closing;
        Group { closing, ..group }
    }

    /// Takes what waits, for a journal that lives in memory; [`Queue::confirm`] makes it durable.
    pub fn take_entries(&self) -> Vec<Entry> {
        let mut waiting = self.waiting.lock();
        (waiting.since, waiting.hurried) = (None, false);
        std::mem::take(&mut waiting.group.entries)
    }

    /// Everything up to `seq` is durable.
    pub fn confirm(&self, seq: Seq) {
        self.failing.store(false, Ordering::Relaxed);
        let reached = {
            let mut waiters = self.waiters.lock();
            self.committed.store(seq.0, Ordering::Release);
            let beyond = waiters.split_off(&(Seq(seq.0 + 1), 0));
            std::mem::replace(&mut *waiters, beyond)
        };
        for (_, durable) in reached {
            // Whoever waited may have left.
            let _ = durable.send(());
        }
    }

    /// A commit failed; it will be repeated.
    pub fn report_failure(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// The database can be written again.
    pub(super) fn report_recovery(&self) {
        self.failing.store(false, Ordering::Relaxed);
    }

    /// Tells all whose changes and flushes wait that they will not be done. They would wait behind a commit that fails.
    pub(super) fn refuse_changes(&self) {
        let refused = {
            let mut waiting = self.waiting.lock();
            (std::mem::take(&mut waiting.group.changes), std::mem::take(&mut waiting.group.flushes))
        };
        drop(refused);
    }

    /// Nothing will be committed any more: whoever waits is told so, and nothing new is taken.
    pub(super) fn end(&self, why: Arc<str>) {
        self.report_failure();
        self.close();
        self.refuse_changes();
        let mut waiters = self.waiters.lock();
        self.ended.send_replace(Some(why));
        waiters.clear();
    }

    /// Waits until the journal cannot go on, and says why. While it can, forever.
    pub async fn ended(&self) -> Arc<str> {
        let mut ended = self.ended.subscribe();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.expect("the sender lives as long as the queue, and there is a reason")
    }

    pub(super) fn confirm_folded(&self, seq: Seq) {
        self.folded_seq.store(seq.0, Ordering::Release);
    }
}
