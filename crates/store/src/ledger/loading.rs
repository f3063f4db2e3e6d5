//! Books are read at first touch, and dropped when they are quiet and many.

use super::books::{self, Missing, Stored};
use super::{Kept, Ledger, SHARDS, Source};
use crate::database::StoreError;
use domain::ledger::{Book, Limits};
use domain::{AccountId, KeyId, Seq};
use std::sync::atomic::Ordering;

/// Books that may stay in memory while nothing of theirs is under way.
const QUIET_BOOKS_MAX: usize = 100_000;
/// Counters of budgets that one account may keep in memory while nothing is held of them.
const IDLE_COUNTERS_MAX: usize = 10_000;
/// How often a book is read before its account is refused.
const LOADS_MAX: usize = 4;

impl Ledger {
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

    /// Makes sure that the book, and what it says of the key and of the counters, is in memory. A key that a book does not
    /// know is not a key that has used nothing. Answers with the drops that there were before.
    pub(super) async fn load(
        &self,
        account: AccountId,
        key: Option<KeyId>,
        limits: &Limits,
    ) -> Result<u64, StoreError> {
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
    pub(super) fn keep(&self, account: AccountId, book: Book, last: Seq, stored: Stored, drops: u64) -> bool {
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
}
