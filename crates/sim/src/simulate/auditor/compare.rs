//! At the end: a book, whether it served or was read again from the journal, says what the plain sums say (I-05).

use super::account::{Account, Counter, FOREVER, KeySums};
use super::sums::{Pots, Sums};
use domain::ledger::{Book, Tally};

impl Account {
    /// Whether a book says the same.
    pub fn compare(&self, book: &Book) -> Result<(), String> {
        let differs = |what: &str| Err(format!("{what} differ: {book:?}"));
        if Pots::from(&book.totals()) != self.pots {
            return differs("pots");
        }
        if book.open_holds().count() != self.holds.len() {
            return differs("open holds");
        }
        let kept = self.grants.iter().filter(|(_, grant)| grant.left > 0 || grant.held > 0);
        let grants: Vec<_> = kept.map(|(id, grant)| (*id, grant.left, grant.held, grant.expires_at)).collect();
        let mut found: Vec<_> = book
            .grants()
            .iter()
            .map(|grant| {
                let expires_at = grant.expires_at.unwrap_or(FOREVER);
                (grant.id, i128::from(grant.left.0), i128::from(grant.held.0), expires_at)
            })
            .collect();
        found.sort_unstable_by_key(|grant| grant.0);
        if grants != found {
            return differs("grants");
        }
        if book.subscription() != self.subscription.as_deref() || book.free_until() != self.free_until {
            return differs("subscriptions");
        }
        // A book forgets counters of periods that have ended.
        for (slot, period, counter) in book.plan_counters() {
            let sums = self.plan.get(&(slot, period));
            if !sums.is_some_and(|sums| sums.is(&counter.used, &counter.held)) {
                return differs("counters of the plan");
            }
        }
        for (counted, sums) in &self.budgets {
            let counter = book.budget(counted);
            if counter.is_some_and(|counter| !sums.is(&counter.used, &counter.held)) {
                return differs("counters of budgets");
            }
        }
        for (key, totals) in book.keys() {
            let used = Sums::of_request(totals.used.0.into(), totals.used_tokens, totals.requests);
            let held = Sums::of_request(totals.held.0.into(), totals.held_tokens, 0);
            let forgiven = Sums::of_request(totals.forgiven.0.into(), totals.forgiven_tokens, 0);
            let nothing = KeySums::default();
            let sums = self.keys.get(&key).unwrap_or(&nothing);
            if (sums.used, sums.held.without_requests(), sums.forgiven) != (used, held, forgiven) {
                return differs("sums of keys");
            }
        }
        Ok(())
    }
}

impl Counter {
    fn is(&self, used: &Tally, held: &Tally) -> bool {
        (self.used, self.held) == (Sums::from(used), Sums::from(held))
    }
}
