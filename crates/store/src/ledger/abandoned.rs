//! Holds that nobody comes to resolve: those whose lease has lapsed, and those that an earlier process left open.

use super::posting::NotPosted;
use super::{Ledger, PriceLookup};
use crate::database::StoreError;
use crate::progress::Mark;
use domain::ledger::{Ending, Refusal, Unresolved, resolve_abandoned};
use domain::{AccountId, Multiplier, PriceId, Seq, Timestamp};
use std::collections::HashMap;

impl Ledger {
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
    pub(super) fn give_up(
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
}
