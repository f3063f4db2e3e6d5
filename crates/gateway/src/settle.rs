//! A request that holds money, until it is settled or voided: exactly once, whatever happens.

use crate::clock::Clock;
use crate::counters::Counters;
use crate::growth::{Grown, Growth};
use crate::limiter::{Cost, Entered};
use crate::paid::Paid;
use domain::ledger::{Ending, Resolution};
use domain::{Meter, Nanos, Timestamp, Usage};
use std::sync::Arc;
use store::ledger::{Ledger, OpenedHold, Resolved};
use store::prices::Priced;
use store::progress::Mark;

/// An open hold with everything that resolves it. Dropping it resolves it by what was last marked.
pub struct Held {
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    endpoint: Paid,
    priced: Priced,
    /// The service tier that the request asked for.
    tier_asked: Option<Box<str>>,
    /// `None` once resolved.
    hold: Option<OpenedHold>,
    /// How it grows, if it does.
    growth: Option<Growth>,
    /// Its place within the limits on rates, and for how many choices it asked.
    entered: Option<(Entered, u64)>,
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
    /// Takes charge of a hold. In a box, because it goes from hand to hand: what waits for something is not to carry it twice.
    pub fn new(
        ledger: Arc<Ledger>,
        clock: Arc<Clock>,
        counters: Arc<Counters>,
        endpoint: Paid,
        priced: Priced,
        tier_asked: Option<&str>,
        hold: OpenedHold,
    ) -> Box<Self> {
        counters.opened();
        let tier_asked = tier_asked.map(Box::from);
        Box::new(Self {
            ledger,
            clock,
            counters,
            endpoint,
            priced,
            tier_asked,
            hold: Some(hold),
            growth: None,
            entered: None,
            mark: None,
        })
    }

    /// Lets the hold grow while its stream flows.
    #[must_use]
    pub fn growing(mut self: Box<Self>, growth: Option<Growth>) -> Box<Self> {
        self.growth = growth;
        self
    }

    /// Keeps the request's place within its limits until its end.
    #[must_use]
    pub fn within_limits(mut self: Box<Self>, entered: Option<Entered>, choices: u64) -> Box<Self> {
        self.entered = entered.map(|entered| (entered, choices));
        self
    }

    /// The present.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
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
    pub fn settle(
        mut self: Box<Self>,
        usage: Usage,
        service_tier: Option<Arc<str>>,
        estimated: bool,
        ending: Ending,
    ) -> Settled {
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
    pub fn void(mut self: Box<Self>, ending: Ending) {
        self.mark = None;
        let now = self.clock.now();
        self.resolve(ending, now);
    }

    fn resolve(&mut self, ending: Ending, now: Timestamp) -> Settled {
        let Some(hold) = self.hold.take() else { return Settled::NOTHING };
        self.counters.ended(self.endpoint, ending);
        let Some(Mark { usage, estimated, service_tier }) = self.mark.take().filter(|mark| !mark.usage.is_zero())
        else {
            self.post(hold, Resolution::Void { ending }, now);
            return Settled::NOTHING;
        };
        let cost = match self.priced.price.charge_at(&usage, service_tier.as_deref(), hold.terms.multiplier) {
            Ok(cost) => cost,
            // Beyond 64 bits of nano-USD no report of usage is to be believed.
            Err(error) => {
                tracing::error!(%error, seq = %hold.seq, "a usage cannot be priced; nothing is charged");
                self.post(hold, Resolution::Void { ending: Ending::GatewayFault }, now);
                return Settled::NOTHING;
            }
        };
        let settle = Resolution::Settle { usage, service_tier, cost, ending, estimated };
        match self.post(hold, settle, now) {
            Resolved::Posted(_) => {
                self.counters.charged(&usage, cost, estimated);
                Settled { cost, usage, was_cut: false }
            }
            Resolved::AlreadyResolved | Resolved::Quarantined => Settled::NOTHING,
        }
    }

    /// What the ledger does not take is said here, with the request that it belongs to.
    fn post(&mut self, hold: OpenedHold, resolution: Resolution, now: Timestamp) -> Resolved {
        self.leave_limits(&resolution, now);
        let (account, seq, request) = (hold.account, hold.seq, hold.terms.request.clone());
        let charged = match &resolution {
            Resolution::Settle { cost, .. } => *cost,
            Resolution::Void { .. } => Nanos::ZERO,
        };
        let resolved = self.ledger.resolve(hold, resolution, now);
        match resolved {
            Resolved::Posted(_) => {}
            Resolved::AlreadyResolved if charged == Nanos::ZERO => {}
            Resolved::AlreadyResolved => {
                tracing::error!(%account, %seq, %request, %charged, "usage came too late for its hold; it is not charged");
            }
            Resolved::Quarantined => {
                self.counters.quarantined();
                tracing::error!(
                    %account, %seq, %request, %charged,
                    "the ledger rejects the end of a request: nothing is charged, its money stays held, and the account \
                     takes nothing more until the gateway is started again"
                );
            }
        }
        resolved
    }
}

impl Held {
    /// Makes exact what the limits were told at first. What never reached an upstream counts for nothing.
    fn leave_limits(&mut self, resolution: &Resolution, now: Timestamp) {
        let Some((entered, choices)) = self.entered.take() else { return };
        match resolution {
            Resolution::Void { ending: Ending::UpstreamUnreachable | Ending::GatewayFault } => entered.cancel(now),
            Resolution::Void { .. } => entered.settle(&Cost { choices, ..Cost::default() }, now),
            Resolution::Settle { usage, cost, .. } => entered.settle(&Cost::of_usage(usage, *cost, choices), now),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ledger::{Hold, Limits};
    use domain::price::PriceSheet;
    use domain::{AccountId, KeyId, Multiplier, PriceId};
    use protocol::openai::Endpoint;
    use std::time::Duration;

    const ACCOUNT: AccountId = AccountId(1);
    const NOW: Timestamp = Timestamp(1_000);

    #[tokio::test(start_paused = true)]
    async fn m_08_a_caller_is_not_told_a_cost_that_the_ledger_did_not_take() {
        let (ledger, counters) = (Arc::new(Ledger::in_memory(10)), Arc::new(Counters::new()));
        // Nobody writes this journal, so nothing becomes durable.
        let fund = ledger.top_up(ACCOUNT, Nanos(1_000_000), "", NOW);
        assert!(tokio::time::timeout(Duration::from_millis(1), fund).await.is_err());
        let sheet = r#"{"input_per_million":"0.001","output_per_million":"0.001"}"#;
        let price = Arc::new(serde_json::from_str::<PriceSheet>(sheet).unwrap().compile().unwrap());
        let open = async || {
            let terms = Hold {
                key: KeyId(1),
                request: "r".into(),
                model: "m".into(),
                upstream: "u".into(),
                price: PriceId(1),
                multiplier: Multiplier::ONE,
                amount: Nanos(100),
                bound: Usage::tokens(50, 50),
                lease_until: NOW,
                parts: Default::default(),
                counted: Arc::default(),
            };
            ledger.hold(ACCOUNT, &terms, &Limits::default(), NOW).await.unwrap()
        };
        let (first, second, third) = (open().await, open().await, open().await);
        let held = |hold| {
            let (clock, priced) = (Arc::new(Clock::standing_at(NOW)), Priced { id: PriceId(1), price: price.clone() });
            Held::new(ledger.clone(), clock, counters.clone(), Endpoint::Chat.into(), priced, None, hold)
        };
        let settled = held(first).settle(Usage::tokens(10, 20), None, false, Ending::Complete);
        assert_eq!(settled.cost, Nanos(30));
        // So much was charged that no charge more fits the account's sums.
        let rest = Resolution::Settle {
            usage: Usage::tokens(1, 0),
            service_tier: None,
            cost: Nanos(i64::MAX - 30),
            ending: Ending::Complete,
            estimated: false,
        };
        assert!(matches!(ledger.resolve(second, rest, NOW), Resolved::Posted(_)));
        let settled = held(third).settle(Usage::tokens(10, 20), None, false, Ending::Complete);
        assert_eq!(settled, Settled::NOTHING);
        assert_eq!((ledger.open_holds(), ledger.totals(ACCOUNT).await.unwrap().held), (1, Nanos(100)));
    }
}
