//! Everything else that is posted: money that comes and goes, what has a reference, what the calendar asks for; and the one
//! way by which any entry gets into a book and the journal.

use super::{DUE_MAX, HoldError, Kept, Ledger, Source, books};
use crate::database::StoreError;
use crate::journal::{Full, RECENT_MAX};
use domain::ledger::{Book, Decided, Entry, Fund, Limits, Origin, Refusal};
use domain::{AccountId, Nanos, Seq, Timestamp};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer waits for its hold to become durable before it is given up.
const DURABLE_WAIT: Duration = Duration::from_secs(5);
/// The same while commits fail.
const DURABLE_WAIT_FAILING: Duration = Duration::from_millis(500);

impl Ledger {
    /// Decides something that may be refused, after everything that the calendar asks for at that moment.
    pub(super) fn decide(
        &self,
        account: AccountId,
        now: Timestamp,
        decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
    ) -> Result<Seq, HoldError> {
        let mut shard = self.shard(account).lock();
        self.decide_in(Kept::deciding(&mut shard, account)?, account, now, decide)
    }

    pub(super) fn decide_in(
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
    pub(super) async fn find_reference(&self, reference: &Arc<str>) -> Result<Option<Seq>, StoreError> {
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

    /// Posts everything that the calendar asks for at `now`, each decided at the journal's own time.
    pub(super) fn post_due(
        &self,
        kept: &mut Kept,
        account: AccountId,
        now: Timestamp,
        may_refuse: bool,
    ) -> Result<(), NotPosted> {
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
    pub(super) fn post(
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
pub(super) enum NotPosted {
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
