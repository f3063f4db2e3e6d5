//! The one thread that writes.

use super::folds::Folds;
use super::queue::{Change, Group, Queue};
use super::rows::{INSERT, Row, SELECT};
use crate::database::{StoreError, postgres};
use crate::sql::{Connection, OptionalExtension, Session, Statement};
use domain::ledger::Entry;
use domain::{Seq, Timestamp};
use parking_lot::Mutex;
use rusqlite::TransactionBehavior;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an entry that somebody waits for still waits for company. A commit costs as much as a dozen requests, so
/// a little company is worth a lot; and whoever waits has waited for an upstream, which takes far longer.
const HURRY: Duration = Duration::from_millis(2);
/// How often the folds are written while there is something to write.
const FOLD_INTERVAL: Duration = Duration::from_secs(1);
/// Fold rows that are written at once, whatever the time.
const FOLD_ROWS_MAX: usize = 50_000;
/// How often the lease on a PostgreSQL database is prolonged while nothing is written.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// First and longest pause between attempts to commit.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The running writer. Dropping it commits everything that waits, then ends the thread.
pub struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Holds that were open when the database was opened: for recovery, once.
    open_at_start: Mutex<Vec<Entry>>,
}

impl Writer {
    /// Brings the stored folds up to date and starts the thread.
    pub(crate) fn start(
        mut connection: Connection,
        reopen: impl Fn() -> Result<Connection, StoreError> + Send + 'static,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let (folds, open) = catch_up(&mut connection)?;
        let last_at: Option<i64> = connection
            .query_row("select at from journal order by seq desc limit 1", [], |row| row.get(0))
            .optional()?;
        let queue = Arc::new(Queue::new(folds.last(), Timestamp(last_at.unwrap_or(0))));
        let worker = Worker { connection, reopen: Box::new(reopen), queue: queue.clone(), folds, text: String::new() };
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || worker.run(patience))
            .map_err(|source| StoreError::File { action: "start", path: "the writer thread".into(), source })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), open_at_start: Mutex::new(open) })
    }

    /// The queue in front of the thread.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(crate) fn submit(&self, change: Change) -> Result<(), StoreError> {
        self.queue.submit(change).map_err(|_| StoreError::Unavailable)
    }

    /// Waits until the folds contain everything that is durable now: for reports that must be exact.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let (done, flushed) = tokio::sync::oneshot::channel();
        self.queue.request_flush(done).map_err(|_| StoreError::Unavailable)?;
        flushed.await.map_err(|_| StoreError::Unavailable)
    }

    pub(crate) fn take_open_at_start(&self) -> Vec<Entry> {
        std::mem::take(&mut self.open_at_start.lock())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer thread had panicked");
        }
    }
}

/// Adds the rows that the stored folds lack, and finds the holds that are open.
fn catch_up(connection: &mut Connection) -> Result<(Folds, Vec<Entry>), StoreError> {
    let reading = connection.transaction()?;
    let (applied, oldest_open): (i64, i64) =
        reading.query_row("select applied, oldest_open from progress", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut folds = Folds::new(Seq(applied));
    let mut by_seq = reading.prepare_cached(&format!("{SELECT} where seq = ?1"))?;
    for seq in open_at(&reading, oldest_open, applied)? {
        folds.restore_open(&read_one(&mut by_seq, seq)?);
    }
    {
        let mut statement = reading.prepare(&format!("{SELECT} where seq > ?1 order by seq"))?;
        let mut rows = statement.scan([applied])?;
        while let Some(row) = rows.next()? {
            folds.add(&Row::read(row)?);
        }
    }
    let open = folds.open_holds().map(|seq| read_one(&mut by_seq, seq)).collect::<Result<Vec<_>, _>>()?;
    drop(by_seq);
    reading.rollback()?;
    if folds.is_dirty() {
        write_folds(&mut folds, connection)?;
    }
    Ok((folds, open))
}

/// The holds that were open when the folds were written. Only numbers are read of those that had ended.
fn open_at(connection: &Connection, oldest_open: i64, applied: i64) -> Result<BTreeSet<Seq>, StoreError> {
    let mut open = BTreeSet::new();
    let mut statement = connection.prepare(
        "select seq, hold from journal
         where seq >= ?1 and seq <= ?2 and (kind = 2 or hold is not null) order by seq",
    )?;
    let mut rows = statement.scan([oldest_open, applied])?;
    while let Some(row) = rows.next()? {
        match row.get::<_, Option<i64>>(1)? {
            None => open.insert(Seq(row.get(0)?)),
            Some(hold) => open.remove(&Seq(hold)),
        };
    }
    Ok(open)
}

fn read_one(by_seq: &mut Statement<'_>, seq: Seq) -> Result<Entry, StoreError> {
    let mut rows = by_seq.query([seq.0])?;
    Row::read(rows.next()?.ok_or_else(|| StoreError::Damaged(format!("journal row {seq} is gone")))?)
}

fn write_folds(folds: &mut Folds, connection: &mut Connection) -> Result<(), StoreError> {
    folds.write(connection.as_sqlite_mut().ok_or(StoreError::Unavailable)?)
}

struct Worker {
    connection: Connection,
    reopen: Box<dyn Fn() -> Result<Connection, StoreError> + Send>,
    queue: Arc<Queue>,
    folds: Folds,
    text: String,
}

impl Worker {
    fn run(mut self, patience: Duration) {
        let (mut folded_at, mut renewed_at) = (Instant::now(), Instant::now());
        loop {
            let Group { entries, changes, flushes, closing } =
                self.queue.take(HURRY.min(patience), patience, FOLD_INTERVAL);
            if !entries.is_empty() {
                self.commit_until_durable(&entries);
                renewed_at = Instant::now();
            }
            if !changes.is_empty() && !self.connection.is_usable() {
                self.reopen_database();
            }
            for change in changes {
                change(&mut self.connection);
                renewed_at = Instant::now();
            }
            if renewed_at.elapsed() >= RENEW_INTERVAL {
                self.renew_lease();
                renewed_at = Instant::now();
            }
            let due = folded_at.elapsed() >= FOLD_INTERVAL || self.folds.len() >= FOLD_ROWS_MAX;
            if self.folds.is_dirty() && (due || closing || !flushes.is_empty()) {
                self.write_folds();
                folded_at = Instant::now();
            }
            for done in flushes {
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            if closing && self.queue.is_empty() {
                if let Some(fence) = self.connection.as_postgres().and_then(Session::fence) {
                    postgres::give_back_lease(&self.connection, fence);
                }
                return;
            }
        }
    }

    /// Commits a group, however long it takes. A failed attempt may still have been committed, so the journal
    /// is asked before the next one.
    fn commit_until_durable(&mut self, entries: &[Entry]) {
        let (first, last) = match entries {
            [first, .., last] => (first.seq, last.seq),
            [only] => (only.seq, only.seq),
            [] => return,
        };
        let mut pause = RETRY_PAUSES.0;
        while let Err(error) = self.commit(entries) {
            tracing::error!(%error, entries = entries.len(), "cannot commit to the journal; trying again");
            self.queue.report_failure();
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_PAUSES.1);
            self.reopen_database();
            if self.is_committed(first) {
                break;
            }
        }
        for entry in entries {
            self.folds.add(entry);
        }
        self.queue.confirm(last);
    }

    fn reopen_database(&mut self) {
        match (self.reopen)() {
            Ok(connection) => self.connection = connection,
            Err(error) => tracing::error!(%error, "cannot reopen the database"),
        }
    }

    /// Every transaction prolongs the lease on a PostgreSQL database: while there are none, an empty one.
    fn renew_lease(&mut self) {
        if self.connection.as_postgres().is_none() {
            return;
        }
        if !self.connection.is_usable() {
            self.reopen_database();
        }
        if let Err(error) = self.connection.transaction().and_then(|transaction| transaction.commit()) {
            tracing::error!(%error, "cannot prolong the lease on the database");
        }
    }

    fn commit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        // The journal over PostgreSQL is to come.
        let connection = self.connection.as_sqlite_mut().ok_or(StoreError::Unavailable)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = transaction.prepare_cached(INSERT)?;
            for entry in entries {
                Row::insert(&mut statement, entry, &mut self.text)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// A group is all there or not there at all, so its first entry tells.
    fn is_committed(&self, first: Seq) -> bool {
        self.connection
            .query_row("select 1 from journal where seq = ?1", [first.0], |_| Ok(()))
            .optional()
            .is_ok_and(|found| found.is_some())
    }

    fn write_folds(&mut self) {
        match write_folds(&mut self.folds, &mut self.connection) {
            Ok(()) => self.queue.confirm_folded(self.folds.last()),
            Err(error) => tracing::error!(%error, "cannot write the sums; they are kept"),
        }
    }
}
