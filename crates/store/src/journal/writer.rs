//! The one thread that writes.

use super::columns::{Columns, parameters};
use super::folds::{Folds, NotWritten};
use super::queue::{Change, Group, Queue};
use super::rows::{COLUMNS, EXTEND, INSERT, Row, SELECT, TEXTS, Texts};
use crate::database::{StoreError, postgres};
use crate::sql::{Connection, OptionalExtension, Session, Statement, Transaction};
use domain::ledger::{Entry, Kind};
use domain::{Seq, Timestamp};
use parking_lot::Mutex;
use rusqlite::TransactionBehavior;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Inserts a row; the same text for every group, so that its statement is found.
static INSERT_ROW: LazyLock<String> = LazyLock::new(|| format!("{INSERT} values ({})", parameters(COLUMNS)));

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
/// Committed entries that are kept in memory for a PostgreSQL database that loses them: seconds of them at full load.
pub(crate) const RECENT_MAX: usize = 20_000;
/// How long a journal that is being closed tries to commit what waits.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

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
        let (mut folds, open) = catch_up(&mut connection)?;
        if folds.is_dirty() {
            folds.write(&mut connection)?;
        }
        let last_at: Option<i64> = connection
            .query_row("select at from journal order by seq desc limit 1", [], |row| row.get(0))
            .optional()?;
        let queue = Arc::new(Queue::new(folds.last(), Timestamp(last_at.unwrap_or(0))));
        let worker = Worker::new(connection, Box::new(reopen), queue.clone(), folds);
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
    let folds = read_folds(&reading)?;
    let mut by_seq = reading.prepare_cached(&format!("{SELECT} where seq = ?1"))?;
    let mut open = Vec::new();
    for (seq, terms) in folds.open_holds() {
        // As it was opened, with all that it was extended by since.
        open.push(Entry { kind: Kind::Hold(terms.clone()), ..read_one(&mut by_seq, seq)? });
    }
    drop(by_seq);
    reading.rollback()?;
    Ok((folds, open))
}

/// The stored folds' place, and what they lack.
fn read_folds(reading: &Connection) -> Result<Folds, StoreError> {
    let (applied, oldest_open): (i64, i64) =
        reading.query_row("select applied, oldest_open from progress", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut folds = Folds::new(Seq(applied));
    let mut by_seq = reading.prepare_cached(&format!("{SELECT} where seq = ?1"))?;
    for seq in open_at(reading, oldest_open, applied)? {
        folds.restore_open(&read_one(&mut by_seq, seq)?);
    }
    let mut statement = reading.prepare(&format!("{SELECT} where seq > ?1 order by seq"))?;
    let mut rows = statement.scan([applied])?;
    while let Some(row) = rows.next()? {
        folds.add(&Row::read(row)?);
    }
    Ok(folds)
}

/// The journal's last row.
fn end_of_journal(connection: &Connection) -> Result<Seq, StoreError> {
    Ok(connection.query_row("select coalesce(max(seq), 0) from journal", [], |row| row.get(0).map(Seq))?)
}

/// The rows of the holds that were open when the folds were written, each followed by those of its extensions. Only
/// numbers are read of the holds that had ended.
fn open_at(connection: &Connection, oldest_open: i64, applied: i64) -> Result<Vec<Seq>, StoreError> {
    let mut open = BTreeMap::<Seq, Vec<Seq>>::new();
    let mut statement = connection.prepare(
        "select seq, hold, kind from journal
         where seq >= ?1 and seq <= ?2 and (kind = 2 or hold is not null) order by seq",
    )?;
    let mut rows = statement.scan([oldest_open, applied])?;
    while let Some(row) = rows.next()? {
        let seq = Seq(row.get(0)?);
        match (row.get::<_, Option<i64>>(1)?.map(Seq), row.get(2)?) {
            (None, _) => {
                open.insert(seq, Vec::new());
            }
            (Some(hold), EXTEND) => open.entry(hold).or_default().push(seq),
            (Some(hold), _) => {
                open.remove(&hold);
            }
        };
    }
    Ok(open.into_iter().flat_map(|(hold, extensions)| std::iter::once(hold).chain(extensions)).collect())
}

fn read_one(by_seq: &mut Statement<'_>, seq: Seq) -> Result<Entry, StoreError> {
    let mut rows = by_seq.query([seq.0])?;
    Row::read(rows.next()?.ok_or_else(|| StoreError::Damaged(format!("journal row {seq} is gone")))?)
}

struct Worker {
    connection: Connection,
    reopen: Box<dyn Fn() -> Result<Connection, StoreError> + Send>,
    queue: Arc<Queue>,
    folds: Folds,
    /// The stored folds may not be those that `folds` continue: they are to be read again.
    folds_are_unknown: bool,
    /// What the database did may not be what it answered: it is to be looked at before anything else is done with it.
    is_unknown: bool,
    /// The last entries that were committed to a PostgreSQL database, which may lose them when it fails over (D-14).
    recent: VecDeque<Entry>,
    columns: Columns,
    texts: Texts,
}

impl Worker {
    fn new(
        connection: Connection,
        reopen: Box<dyn Fn() -> Result<Connection, StoreError> + Send>,
        queue: Arc<Queue>,
        folds: Folds,
    ) -> Self {
        Self {
            connection,
            reopen,
            queue,
            folds,
            folds_are_unknown: false,
            is_unknown: false,
            recent: VecDeque::new(),
            columns: Columns::new(COLUMNS, &TEXTS),
            texts: Texts::default(),
        }
    }

    fn run(mut self, patience: Duration) {
        let (mut folded_at, mut renewed_at) = (Instant::now(), Instant::now());
        loop {
            let Group { entries, changes, flushes, closing } =
                self.queue.take(HURRY.min(patience), patience, FOLD_INTERVAL);
            if !entries.is_empty() {
                if let Err(why) = self.commit_until_durable(entries) {
                    return self.give_up(&why);
                }
                renewed_at = Instant::now();
            }
            if !changes.is_empty() {
                self.find_place_or_warn();
                renewed_at = Instant::now();
            }
            for change in changes {
                change(&mut self.connection);
            }
            if renewed_at.elapsed() >= RENEW_INTERVAL || self.queue.is_failing() {
                self.renew_lease();
                renewed_at = Instant::now();
            }
            let due = folded_at.elapsed() >= FOLD_INTERVAL || self.folds.len() >= FOLD_ROWS_MAX;
            if self.folds.is_dirty() && (due || closing || !flushes.is_empty()) {
                self.write_folds();
                folded_at = Instant::now();
            }
            if self.is_taken_over() {
                return self.give_up(&StoreError::TakenOver);
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

    /// Nothing will be committed here any more. Whoever runs the process is told why.
    fn give_up(&self, why: &StoreError) {
        tracing::error!(error = %why, waiting = self.queue.len(), "the journal has ended");
        self.queue.end(why.to_string().into());
    }

    fn is_taken_over(&self) -> bool {
        self.connection.as_postgres().is_some_and(Session::is_taken_over)
    }

    /// Commits a group, however long it takes, unless the process is ending. A failed attempt may still have been committed, so the journal
    /// is asked before the next one. An error means that no attempt can ever succeed.
    fn commit_until_durable(&mut self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
        let (mut pause, mut closing_since) = (RETRY_PAUSES.0, None);
        loop {
            match self.find_place().and_then(|end| if end >= last { Ok(()) } else { self.commit(&entries) }) {
                Ok(()) => break,
                Err(error @ (StoreError::TakenOver | StoreError::Damaged(_))) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, entries = entries.len(), "cannot commit to the journal; trying again");
                    self.is_unknown = true;
                    self.queue.report_failure();
                    self.queue.refuse_changes();
                    if self.queue.is_closing()
                        && closing_since.get_or_insert_with(Instant::now).elapsed() > CLOSE_PATIENCE
                    {
                        return Err(error);
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
            }
        }
        // Callers wait for this, and for the sums nobody.
        self.queue.confirm(last);
        // Folds that had to be read again have them already.
        let known = self.folds.last();
        entries.iter().filter(|entry| entry.seq > known).for_each(|entry| self.folds.add(entry));
        if self.connection.as_postgres().is_some() {
            self.recent.extend(entries);
            self.recent.drain(..self.recent.len().saturating_sub(RECENT_MAX));
        }
        Ok(())
    }

    /// After anything that leaves open what the database did: connects again, and looks where the journal ends. What
    /// had been confirmed and is not there is posted again (D-14). Returns the last row that is known to be there.
    fn find_place(&mut self) -> Result<Seq, StoreError> {
        let confirmed = self.queue.committed();
        if !self.is_unknown && self.connection.is_usable() {
            return Ok(confirmed);
        }
        self.is_unknown = true;
        self.connection = (self.reopen)()?;
        // It takes the fence's row, for which it waits until an earlier attempt of ours, that may still be under way, is
        // over; and once its own commit is confirmed, so is that of everything it has seen (D-13, D-15).
        let looking = self.connection.transaction()?;
        let mut end = end_of_journal(&looking)?;
        if end < confirmed {
            post_again(&looking, &self.recent, end, confirmed, &mut self.columns, &mut self.texts)?;
            self.folds_are_unknown = true;
            end = confirmed;
        }
        looking.commit()?;
        if self.folds_are_unknown {
            self.read_folds_again()?;
        }
        self.is_unknown = false;
        Ok(end)
    }

    fn find_place_or_warn(&mut self) {
        if let Err(error) = self.find_place() {
            tracing::error!(%error, "the database cannot be used");
        }
    }

    fn read_folds_again(&mut self) -> Result<(), StoreError> {
        let reading = self.connection.transaction()?;
        let folds = read_folds(&reading)?;
        reading.rollback()?;
        (self.folds, self.folds_are_unknown) = (folds, false);
        Ok(())
    }

    /// Every transaction prolongs the lease on a PostgreSQL database: while there are none, an empty one.
    fn renew_lease(&mut self) {
        if self.connection.as_postgres().is_none() {
            return;
        }
        self.find_place_or_warn();
        match self.connection.transaction().and_then(|transaction| transaction.commit()) {
            Ok(()) => self.queue.report_recovery(),
            Err(error) => {
                tracing::error!(%error, "cannot prolong the lease on the database");
                self.queue.report_failure();
            }
        }
    }

    fn commit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let Some(connection) = self.connection.as_sqlite_mut() else { return self.commit_at_once(entries) };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = transaction.prepare_cached(&INSERT_ROW)?;
            for entry in entries {
                Row::insert(&mut statement, entry, &mut self.texts)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// All entries in one statement, which inserts them only where the journal ends before the first.
    fn commit_at_once(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        insert(&transaction, entries, &mut self.columns, &mut self.texts)?;
        transaction.commit()?;
        Ok(())
    }

    fn write_folds(&mut self) {
        if let Err(error) = self.find_place() {
            tracing::error!(%error, "cannot write the sums; they are kept");
            return;
        }
        match self.folds.write(&mut self.connection) {
            Ok(()) => self.queue.confirm_folded(self.folds.last()),
            Err(NotWritten::Kept(error)) => tracing::error!(%error, "cannot write the sums; they are kept"),
            Err(NotWritten::Unknown(error)) => {
                tracing::error!(%error, "cannot tell whether the sums were written; they will be read again");
                (self.folds_are_unknown, self.is_unknown) = (true, true);
            }
        }
    }
}

/// Inserts entries where the journal ends before the first of them.
fn insert<'e>(
    transaction: &Transaction<'_>,
    entries: impl IntoIterator<Item = &'e Entry>,
    columns: &mut Columns,
    texts: &mut Texts,
) -> Result<(), StoreError> {
    columns.clear();
    let mut first = None;
    for entry in entries {
        first.get_or_insert(entry.seq);
        columns.begin_row();
        let Ok(()) = Row::write(columns, entry, texts);
    }
    let Some(first) = first else { return Ok(()) };
    let (parameters, before) = (parameters(COLUMNS), first.0 - 1);
    let follows = format!("where (select coalesce(max(seq), 0) from journal) = {before}");
    let inserted = columns.run(
        transaction,
        &format!("{INSERT} select {parameters} {follows}"),
        &format!("{INSERT} select * from unnest({parameters}) {follows}"),
    )?;
    if inserted == 0 {
        // The connection leads to another server than before. Where that one stands is to be found out.
        tracing::error!(%first, "the journal does not end before the row that is to follow");
        return Err(StoreError::Unavailable);
    }
    Ok(())
}

/// Posts again what was confirmed and is gone, if it is still known.
fn post_again(
    transaction: &Transaction<'_>,
    recent: &VecDeque<Entry>,
    end: Seq,
    confirmed: Seq,
    columns: &mut Columns,
    texts: &mut Texts,
) -> Result<(), StoreError> {
    let lost = confirmed.0 - end.0;
    let known = recent.iter().filter(|entry| entry.seq > end && entry.seq <= confirmed);
    if known.clone().count() as i64 != lost {
        return Err(StoreError::Damaged(format!(
            "the database has lost {lost} rows of the journal that it had confirmed, after row {end}, and this process \
             does not have all of them any more: restore them from the former primary"
        )));
    }
    tracing::error!(
        lost,
        after = %end,
        "the database has lost rows of the journal that it had confirmed, as after a failover to a standby that lagged; \
         they are posted again. What operators and callers changed beside money in those moments may be lost"
    );
    insert(transaction, known, columns, texts)
}
