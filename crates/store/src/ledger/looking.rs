//! What the books say, without changing anything.

use super::{DUE_MAX, HoldError, Kept, Ledger, OpenedHold};
use crate::database::StoreError;
use domain::ledger::{Book, Entry, Headroom, Hold, KeyTotals, Legs, Limits};
use domain::{AccountId, KeyId, Seq, Timestamp};

impl Ledger {
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

    pub(super) fn look<T>(&self, account: AccountId, read: impl FnOnce(&Book) -> T) -> Option<T> {
        self.shard(account).lock().get(&account).map(|kept| read(&kept.book))
    }

    /// What `read` finds in an account's book as it will be at `now`, when what the calendar asks for by then has been
    /// posted. The book itself stays as it is.
    pub(super) fn look_at<T>(&self, account: AccountId, now: Timestamp, read: impl FnOnce(&Book) -> T) -> Option<T> {
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
}
