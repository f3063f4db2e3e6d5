//! Holds: opened, made larger, marked, resolved once.

use super::books::Missing;
use super::posting::NotPosted;
use super::{HoldError, Kept, Ledger, OpenedHold, Resolved};
use crate::progress::Mark;
use domain::ledger::{Charge, Hold, Kind, Limits, Parts, Refusal, Resolution, Unresolved};
use domain::{AccountId, Nanos, Seq, Timestamp};
use std::sync::Arc;

impl Ledger {
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

    pub(super) fn hold_in_book(
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
    pub(super) fn take_slot(&self) -> Option<u32> {
        let committed = self.queue.committed();
        let mut retiring = self.retiring.lock();
        while let Some(&(_, slot)) = retiring.front().filter(|(seq, _)| *seq <= committed) {
            retiring.pop_front();
            self.slots.give_back(slot);
        }
        drop(retiring);
        self.slots.take()
    }

    pub(super) fn resolve_in_book(&self, hold: &OpenedHold, resolution: Resolution, now: Timestamp) -> Resolved {
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
