//! Entries on their way to the disk.

use domain::ledger::Entry;
use domain::{Seq, Timestamp};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Entries that may wait before new holds are refused. Resolutions of open holds are always taken: their number
/// is bounded by the holds.
const WAITING_MAX: usize = 65_536;

/// Why an entry was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Too much waits, the disk fails, or the journal is being closed.
    Busy,
    /// Whoever makes the entry rejected it.
    Rejected,
}

/// How far the journal is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The last durable entry.
    pub seq: Seq,
    /// The last attempt to commit failed and is being repeated.
    pub failing: bool,
}

/// A change that runs on the writer thread between groups.
pub(super) type Change = Box<dyn FnOnce(&mut Connection) + Send>;

/// Entries and changes that wait for the writer.
#[derive(Default)]
pub(super) struct Group {
    pub(super) entries: Vec<Entry>,
    pub(super) changes: Vec<Change>,
    pub(super) flushes: Vec<tokio::sync::oneshot::Sender<()>>,
    pub(super) closing: bool,
}

/// See the module's description.
pub struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    committed: watch::Sender<Committed>,
    /// A copy of the committed place that is read without a lock.
    committed_seq: AtomicI64,
    /// The last entry that the stored folds contain.
    folded_seq: AtomicI64,
    failing: AtomicBool,
}

struct Waiting {
    group: Group,
    /// When the oldest waiting entry was queued.
    since: Option<Instant>,
    /// Somebody waits for the group: do not wait for more company.
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
                urgent: false,
                last_seq: last.0,
                last_at,
            }),
            wake: Condvar::new(),
            committed: watch::Sender::new(Committed { seq: last, failing: false }),
            committed_seq: AtomicI64::new(last.0),
            folded_seq: AtomicI64::new(last.0),
            failing: AtomicBool::new(false),
        }
    }

    /// Queues the entry that `make` builds for its place and time, unless it rejects it. Times never run backwards, whatever the clock
    /// does. `may_refuse` is for new holds: they are refused when the queue is full or the disk fails.
    pub fn push(
        &self,
        now: Timestamp,
        may_refuse: bool,
        make: impl FnOnce(Seq, Timestamp) -> Result<Entry, ()>,
    ) -> Result<Seq, Full> {
        let mut waiting = self.waiting.lock();
        let full = waiting.group.entries.len() >= WAITING_MAX || self.failing.load(Ordering::Relaxed);
        if may_refuse && (full || waiting.group.closing) {
            return Err(Full::Busy);
        }
        let (seq, at) = (Seq(waiting.last_seq + 1), waiting.last_at.max(now));
        let entry = make(seq, at).map_err(|()| Full::Rejected)?;
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

    /// The last durable entry.
    pub fn committed(&self) -> Seq {
        Seq(self.committed_seq.load(Ordering::Acquire))
    }

    /// The last entry that the stored folds contain.
    pub fn folded(&self) -> Seq {
        Seq(self.folded_seq.load(Ordering::Acquire))
    }

    /// Commits are failing now.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Follows the durable place.
    pub fn subscribe(&self) -> watch::Receiver<Committed> {
        self.committed.subscribe()
    }

    /// Somebody waits: commit what is there without waiting for more.
    pub fn urge(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.urgent {
            waiting.urgent = true;
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
        if waiting.group.closing || waiting.group.changes.len() >= WAITING_MAX {
            return Err(Full::Busy);
        }
        waiting.group.changes.push(change);
        waiting.urgent = true;
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn request_flush(&self, done: tokio::sync::oneshot::Sender<()>) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.group.closing {
            return Err(Full::Busy);
        }
        waiting.group.flushes.push(done);
        waiting.urgent = true;
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.waiting.lock().group.closing = true;
        self.wake.notify_one();
    }

    /// Waits for something to do: until somebody is in a hurry, or the oldest entry has waited `patience`, or
    /// nothing came for `idle`. The closing mark stays set.
    pub(super) fn take(&self, patience: Duration, idle: Duration) -> Group {
        let started = Instant::now();
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.urgent || waiting.group.closing {
                break;
            }
            let deadline = match waiting.since {
                Some(since) => since + patience,
                None => started + idle,
            };
            if self.wake.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        waiting.urgent = false;
        waiting.since = None;
        let closing = waiting.group.closing;
        let group = std::mem::take(&mut waiting.group);
        waiting.group.closing = closing;
        Group { closing, ..group }
    }

    /// Takes what waits, for a journal that lives in memory; [`Queue::confirm`] makes it durable.
    pub fn take_entries(&self) -> Vec<Entry> {
        let mut waiting = self.waiting.lock();
        (waiting.since, waiting.urgent) = (None, false);
        std::mem::take(&mut waiting.group.entries)
    }

    /// Everything up to `seq` is durable.
    pub fn confirm(&self, seq: Seq) {
        self.failing.store(false, Ordering::Relaxed);
        self.committed_seq.store(seq.0, Ordering::Release);
        self.committed.send_replace(Committed { seq, failing: false });
    }

    /// A commit failed; it will be repeated.
    pub fn report_failure(&self) {
        self.failing.store(true, Ordering::Relaxed);
        self.committed.send_modify(|committed| committed.failing = true);
    }

    pub(super) fn confirm_folded(&self, seq: Seq) {
        self.folded_seq.store(seq.0, Ordering::Release);
    }
}
