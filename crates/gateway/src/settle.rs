//! A request that holds money, until it is settled or voided: exactly once, whatever happens.

use crate::clock::Clock;
use crate::counters::Counters;
use crate::growth::{Grown, Growth};
use domain::ledger::{Ending, Resolution};
use domain::{Meter, Nanos, Timestamp, Usage};
use protocol::openai::Endpoint;
use std::sync::Arc;
use store::ledger::{Ledger, OpenedHold};
use store::prices::Priced;
use store::progress::Mark;

/// An open hold with everything that resolves it. Dropping it resolves it by what was last marked.
pub struct Held {
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    endpoint: Endpoint,
    priced: Priced,
    /// The service tier that the request asked for.
    tier_asked: Option<Box<str>>,
    /// `None` once resolved.
    hold: Option<OpenedHold>,
    /// How it grows, if it does.
    growth: Option<Growth>,
    mark: Option<Mark>,
}

/// What a settled request cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The charge.
    pub cost: Nanos,
    /// What was charged for.
    pub usage: Usage,
    /// More was consumed than could be held: the rest is not charged.
    pub was_cut: bool,
}

impl Settled {
    /// No charge.
    pub(crate) const NOTHING: Self = Self { cost: Nanos::ZERO, usage: Usage::NOTHING, was_cut: false };
}

impl Held {
    /// Takes charge of a hold.
    pub fn new(
        ledger: Arc<Ledger>,
        clock: Arc<Clock>,
        counters: Arc<Counters>,
        endpoint: Endpoint,
        priced: Priced,
        tier_asked: Option<&str>,
        hold: OpenedHold,
    ) -> Self {
        counters.opened();
        let tier_asked = tier_asked.map(Box::from);
        Self { ledger, clock, counters, endpoint, priced, tier_asked, hold: Some(hold), growth: None, mark: None }
    }

    /// Lets the hold grow while its stream flows.
    #[must_use]
    pub fn growing(mut self, growth: Option<Growth>) -> Self {
        self.growth = growth;
        self
    }

    /// The hold, while it is open.
    pub fn hold(&self) -> Option<&OpenedHold> {
        self.hold.as_ref()
    }

    /// The model that the hold is for.
    pub fn model(&self) -> Arc<str> {
        self.hold.as_ref().map(|hold| hold.terms.model.clone()).unwrap_or_default()
    }

    /// The most that the request can consume, in tokens: what it is held for, or what its hold can grow to.
    pub fn bound(&self) -> Usage {
        let mut bound = self.hold.as_ref().map(|hold| hold.terms.bound).unwrap_or_default();
        if let Some(growth) = &self.growth {
            bound[Meter::Output] = growth.output_max;
        }
        bound
    }

    /// The answer tokens that the hold pays for, as long as it can grow; `None` when they are all that there can be.
    pub fn output_paid(&self) -> Option<u64> {
        self.growth.as_ref()?.output_paid(self.hold.as_ref()?)
    }

    /// What of a usage the hold pays for as it is: priced within its bound, it is never more than what is held.
    pub fn within(&self, usage: Usage) -> Usage {
        let held = self.hold.as_ref().map(|hold| hold.terms.bound).unwrap_or_default();
        usage.with_input_at_most(held.input_tokens()).with_output_at_most(held.output_tokens())
    }

    /// Makes the hold larger for more of the answer.
    pub fn grow(&mut self) -> Grown {
        let (Some(growth), Some(hold)) = (&self.growth, &mut self.hold) else { return Grown::Exhausted };
        growth.grow(&self.ledger, hold, &self.priced.price, self.clock.now())
    }

    /// Waits until the hold is durable: before the first byte of an answer leaves.
    pub async fn durable(&self) -> Result<(), store::StoreError> {
        match &self.hold {
            Some(hold) => self.ledger.durable(hold.seq).await,
            None => Ok(()),
        }
    }

    /// Notes what has been consumed so far. Survives the death of the process.
    ///
    /// The tier of a mark is the one that is charged, so that a charge by the mark, too, can be priced from its record.
    pub fn progress(&mut self, mut mark: Mark) {
        let charged =
            self.priced.price.tier_charged(&mark.usage, mark.service_tier.as_deref(), self.tier_asked.as_deref());
        if charged.is_none() {
            mark.service_tier = None;
        }
        if let Some(hold) = &mut self.hold {
            self.ledger.mark(hold, &mark);
            self.mark = Some(mark);
        }
    }

    /// Charges what was consumed.
    ///
    /// The mark is written first: between this call and the durable settlement lie a few milliseconds in which the
    /// process may die, and then the mark says what to charge.
    pub fn settle(mut self, usage: Usage, service_tier: Option<Arc<str>>, estimated: bool, ending: Ending) -> Settled {
        let named = service_tier.clone();
        let covered = self.covered(usage, service_tier.as_deref());
        let was_cut = covered != usage;
        self.progress(Mark { usage: covered, estimated: estimated || was_cut, service_tier });
        if let (Some(tier), Some(Mark { service_tier: None, .. })) = (named, &self.mark) {
            let model = self.model();
            tracing::warn!(%model, %tier, "an upstream names a dearer tier than was asked for; it costs the standard price");
        }
        if was_cut {
            let (model, output, charged) = (self.model(), usage.output_tokens(), covered.output_tokens());
            tracing::warn!(%model, output, charged, "more was produced than could be held; the rest is not charged");
        }
        let now = self.clock.now();
        Settled { was_cut, ..self.resolve(ending, now) }
    }

    /// What of a usage is charged, where the hold was less than the request could consume.
    fn covered(&mut self, usage: Usage, service_tier: Option<&str>) -> Usage {
        let (Some(growth), Some(hold)) = (&self.growth, &mut self.hold) else { return usage };
        let (price, multiplier) = (&self.priced.price, hold.terms.multiplier);
        let cost = |usage: &Usage| {
            let tier = price.tier_charged(usage, service_tier, self.tier_asked.as_deref());
            price.charge_at(usage, tier, multiplier).ok()
        };
        growth.cover(&self.ledger, hold, usage, cost, self.clock.now())
    }

    /// Gives everything back.
    pub fn void(mut self, ending: Ending) {
        self.mark = None;
        let now = self.clock.now();
        self.resolve(ending, now);
    }

    fn resolve(&mut self, ending: Ending, now: Timestamp) -> Settled {
        let Some(hold) = self.hold.take() else { return Settled::NOTHING };
        self.counters.ended(self.endpoint, ending);
        let Some(Mark { usage, estimated, service_tier }) = self.mark.take().filter(|mark| !mark.usage.is_zero())
        else {
            self.ledger.resolve(hold, Resolution::Void { ending }, now);
            return Settled::NOTHING;
        };
        let cost = match self.priced.price.charge_at(&usage, service_tier.as_deref(), hold.terms.multiplier) {
            Ok(cost) => cost,
            // Beyond 64 bits of nano-USD no report of usage is to be believed.
            Err(error) => {
                tracing::error!(%error, seq = %hold.seq, "a usage cannot be priced; nothing is charged");
                self.ledger.resolve(hold, Resolution::Void { ending: Ending::GatewayFault }, now);
                return Settled::NOTHING;
            }
        };
        self.counters.charged(&usage, cost, estimated);
        self.ledger.resolve(hold, Resolution::Settle { usage, service_tier, cost, ending, estimated }, now);
        Settled { cost, usage, was_cut: false }
    }
}

impl Drop for Held {
    /// The backstop: whoever knows how the request ended has called [`Held::settle`] or [`Held::void`].
    fn drop(&mut self) {
        if self.hold.is_some() {
            let ending = if std::thread::panicking() { Ending::GatewayFault } else { Ending::ClientLeft };
            let now = self.clock.now();
            self.resolve(ending, now);
        }
    }
}
