//! What the journal is made of.

use super::subscription::Subscription;
use crate::calendar::Period;
use crate::ids::{AccountId, BudgetId, KeyId, PriceId, Seq};
use crate::money::{Multiplier, Nanos};
use crate::time::Timestamp;
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// One balanced, immutable fact about one account.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the journal.
    pub seq: Seq,
    /// When it was decided. Never earlier than the entry before it.
    pub at: Timestamp,
    /// Whose money moved.
    pub account: AccountId,
    /// The account's entry before this one; 0 if it is the first.
    pub previous: Seq,
    /// What moved.
    pub legs: Legs,
    /// Why.
    pub kind: Kind,
}

/// The movements of one entry over the pots of an account. They sum to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legs {
    /// The wallet: what can be held of prepaid money.
    pub available: Nanos,
    /// What is left of grants: promotional credit that expires.
    pub granted: Nanos,
    /// Money that is reserved for requests under way, from the wallet and from grants.
    pub held: Nanos,
    /// Charged for what was consumed, whoever paid it.
    pub spent: Nanos,
    /// Paid for subscriptions.
    pub fees: Nanos,
    /// Owed: what was consumed, refunded or disputed beyond all funds. Zero or below; the next money put in pays it
    /// first.
    pub debt: Nanos,
    /// Where prepaid money comes from: zero or below, but for money that was taken back after it had been spent.
    pub funding: Nanos,
    /// What subscriptions paid in place of the wallet: a source, zero or below.
    pub plan: Nanos,
    /// Where grants come from: zero or below; what expires goes back.
    pub promotion: Nanos,
}

impl Legs {
    /// The names of the pots, as the journal's columns have them and in the order of [`Legs::amounts`].
    pub const NAMES: [&str; 9] =
        ["available", "granted", "held", "spent", "fees", "debt", "funding", "plan", "promotion"];

    /// The movements in the order of [`Legs::NAMES`].
    pub fn amounts(&self) -> [Nanos; 9] {
        let Self { available, granted, held, spent, fees, debt, funding, plan, promotion } = *self;
        [available, granted, held, spent, fees, debt, funding, plan, promotion]
    }

    /// Movements from amounts in the order of [`Legs::NAMES`].
    pub fn from_amounts(amounts: [Nanos; 9]) -> Self {
        let [available, granted, held, spent, fees, debt, funding, plan, promotion] = amounts;
        Self { available, granted, held, spent, fees, debt, funding, plan, promotion }
    }

    /// Both movements together, or `None` beyond 64 bits.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let (mut sums, others) = (self.amounts(), other.amounts());
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum = sum.checked_add(other)?;
        }
        Some(Self::from_amounts(sums))
    }

    /// Zero for a balanced entry.
    pub fn sum(&self) -> Nanos {
        self.amounts().into_iter().sum()
    }

    /// [`Legs::sum`] of legs that may be damaged; `None` beyond 64 bits.
    pub fn checked_sum(&self) -> Option<Nanos> {
        let sum: i128 = self.amounts().into_iter().map(|amount| i128::from(amount.0)).sum();
        i64::try_from(sum).ok().map(Nanos)
    }
}

/// Why money moved.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Money came in or was taken out.
    Fund(Fund),
    /// A request was admitted. Shared with whoever keeps it while it is open.
    Hold(Arc<Hold>),
    /// A held request was priced by what it consumed.
    Settle(Charge),
    /// A held request consumed nothing.
    Void(Release),
    /// The sweeper gave up on a hold whose lease had lapsed: charged by its last mark, which may be nothing.
    Expire(Charge),
    /// Usage that arrived after its hold had expired.
    LateCharge(Charge),
    /// A hold was made larger while its answer flowed.
    Extend(Extension),
    /// Promotional credit was given.
    Grant(GrantGiven),
    /// A grant expired, or an operator took back what was left of it.
    GrantEnd(GrantEnded),
    /// A subscription began, changed or ended, or its next cycle began.
    Subscription(SubscriptionChange),
    /// An operator set used quota back to nothing.
    Reset(Reset),
}

impl Kind {
    /// The hold that an entry of this kind ends.
    pub fn resolves(&self) -> Option<Seq> {
        match self {
            Self::Settle(charge) | Self::Expire(charge) => Some(charge.hold),
            Self::Void(release) => Some(release.hold),
            _ => None,
        }
    }
}

/// Money that came in or was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fund {
    /// By which way.
    pub origin: Origin,
    /// Who did it: an operator's name, or the part of the gateway that acted.
    pub by: Arc<str>,
    /// Why, for people.
    pub note: Arc<str>,
    /// What this is the effect of, outside the ledger: at most one entry in the whole journal has it.
    pub reference: Option<Arc<str>>,
}

/// The ways of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An operator put it in.
    TopUp,
    /// An operator corrected the balance.
    Adjustment,
    /// A redemption code.
    Code,
    /// A card was charged.
    Card,
    /// Money went back to who paid it.
    Refund,
    /// The payer's bank took it back until a dispute is decided.
    Dispute,
    /// The dispute was won.
    DisputeWon,
}

impl Origin {
    /// Every way.
    pub const ALL: [Self; 7] =
        [Self::TopUp, Self::Adjustment, Self::Code, Self::Card, Self::Refund, Self::Dispute, Self::DisputeWon];

    /// The name in the journal and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopUp => "top_up",
            Self::Adjustment => "adjustment",
            Self::Code => "code",
            Self::Card => "card",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
            Self::DisputeWon => "dispute_won",
        }
    }

    /// The way of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.name() == name)
    }

    /// Outside, the money has left already: what is no longer there is owed. Everything else takes out at most what is
    /// there.
    pub fn has_left_already(self) -> bool {
        matches!(self, Self::Refund | Self::Dispute)
    }
}

/// The terms on which a request was admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The key that asked.
    pub key: KeyId,
    /// The request's id, as told to the caller.
    pub request: Arc<str>,
    /// The model that will serve it.
    pub model: Arc<str>,
    /// The upstream that will serve it.
    pub upstream: Arc<str>,
    /// The price version, pinned here.
    pub price: PriceId,
    /// What the account pays of that price, pinned here.
    pub multiplier: Multiplier,
    /// What is reserved.
    pub amount: Nanos,
    /// The usage behind that amount: prompt tokens as [`Usage`] input, the output cap as output.
    pub bound: Usage,
    /// When the sweeper may act.
    pub lease_until: Timestamp,
    /// Where the amount comes from; empty means all of it from the wallet.
    pub parts: Parts,
    /// The counters of budgets that it is counted in.
    pub counted: Arc<[Counted]>,
}

/// The parts of a hold or charge. Nearly always there is one or none: no allocation of its own.
pub type Parts = SmallVec<[Part; 1]>;

/// The periods of a subscription's counters: of the cycle, and of a window or two.
pub type Periods = SmallVec<[Period; 2]>;

/// A part of a hold or charge, by where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where from.
    #[serde(rename = "f")]
    pub source: Source,
    /// How much.
    #[serde(rename = "a", with = "super::raw")]
    pub amount: Nanos,
    /// Tokens that it takes from a subscription's allowance in tokens.
    #[serde(rename = "t", default, skip_serializing_if = "is_zero")]
    pub tokens: u64,
}

fn is_zero(tokens: &u64) -> bool {
    *tokens == 0
}

/// Where the parts of a hold come from, in the order in which they are used up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A grant, by the entry that gave it.
    #[serde(rename = "g")]
    Grant(Seq),
    /// The subscription, in the period of each of its counters: the cycle first, then windows. Two windows in one period are
    /// one counter, named once.
    #[serde(rename = "p")]
    Plan(Periods),
    /// The wallet.
    #[serde(rename = "w")]
    Wallet,
}

/// A counter of a budget that a hold is counted in: pinned, so that a settlement after a reset counts where the hold did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counted {
    /// The budget.
    pub budget: BudgetId,
    /// What the counter is for, where a budget counts each key, end user … by itself; else empty.
    pub subject: Arc<str>,
    /// The period.
    pub period: Period,
}

/// What a request consumed and cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// The hold that it resolves.
    pub hold: Seq,
    /// The key that asked.
    pub key: KeyId,
    /// The model that served it.
    pub model: Arc<str>,
    /// The price version that was pinned by the hold.
    pub price: PriceId,
    /// What the account pays of that price, as pinned by the hold.
    pub multiplier: Multiplier,
    /// What was consumed; of a late charge, what was not charged when its hold expired.
    pub usage: Usage,
    /// The service tier that the provider named, which decides the rates.
    pub service_tier: Option<Arc<str>>,
    /// Price of that usage at the hold's price version and multiplier; of a late charge, the price of all less what was
    /// charged when its hold expired.
    pub cost: Nanos,
    /// How the request ended.
    pub ending: Ending,
    /// The usage is the gateway's own count, because the upstream sent none.
    pub estimated: bool,
    /// Who paid it; empty means the wallet (and debt, where that was not enough).
    pub parts: Parts,
    /// For a late charge, the counters of its hold; empty otherwise, because the hold names them.
    pub counted: Arc<[Counted]>,
    /// Of a late charge: something was charged when its hold expired, so this is more of a request that was counted then.
    pub again: bool,
}

impl Charge {
    /// Nothing of it counts anywhere, not as a request either.
    pub(super) fn consumes_nothing(&self) -> bool {
        self.usage.is_zero() && self.cost == Nanos::ZERO
    }

    /// How many requests it counts as, where it counts at all.
    pub fn requests(&self) -> u64 {
        u64::from(!self.again)
    }
}

/// The end of a hold that cost nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The hold that it resolves.
    pub hold: Seq,
    /// The key that asked.
    pub key: KeyId,
    /// Why nothing was consumed.
    pub ending: Ending,
}

/// What a hold was enlarged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    /// The hold.
    pub hold: Seq,
    /// The key that asked.
    pub key: KeyId,
    /// How much more is reserved.
    pub amount: Nanos,
    /// How many more answer tokens that pays for.
    pub tokens: u64,
    /// Where it comes from; empty means all of it from the wallet.
    pub parts: Parts,
}

/// Promotional credit that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantGiven {
    /// From then on nothing of it can be held.
    pub expires_at: Option<Timestamp>,
    /// Who gave it.
    pub by: Arc<str>,
    /// Why, for people.
    pub note: Arc<str>,
    /// What this is the effect of, outside the ledger: at most one entry in the whole journal has it.
    pub reference: Option<Arc<str>>,
}

/// The end of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantEnded {
    /// The grant, by the entry that gave it.
    pub grant: Seq,
    /// The operator who took it back; `None` where it expired by itself.
    pub by: Option<Arc<str>>,
}

/// A step in the life of a subscription, with the state that it leads to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionChange {
    /// The step.
    pub step: SubscriptionStep,
    /// Who took it: a person, or the gateway's calendar.
    pub by: Arc<str>,
    /// What is paid for it.
    pub fee: Nanos,
    /// What is given back for it.
    pub credit: Nanos,
    /// The subscription from then on; `None` when it has ended.
    pub state: Option<Box<Subscription>>,
}

impl SubscriptionChange {
    /// Takes the cycle that `posted` opens in place of its own, if that could be one: where a cycle ends is a matter of
    /// the time-zone data of the day on which it was opened, and newer data must not make an old entry wrong (T-15).
    pub(super) fn keep_calendar_of(&mut self, posted: &Self, at: Timestamp) {
        let (Some(state), Some(posted)) = (&mut self.state, &posted.state) else { return };
        let opens = match self.step {
            SubscriptionStep::Started | SubscriptionStep::Renewed | SubscriptionStep::Unpaid => true,
            SubscriptionStep::Changed => state.cycle.start == state.since,
            _ => false,
        };
        let begin = state.cycle.start.max(at);
        if opens && posted.cycle.start == posted.since && posted.cycle.contains(begin) {
            (state.cycle, state.since) = (posted.cycle, posted.since);
        }
    }

    /// Until when a plan that costs nothing gives its allowance by this step.
    pub fn free_until(&self) -> Option<Timestamp> {
        let state = self.state.as_ref().filter(|state| state.terms.price == Nanos::ZERO);
        state.map(|state| state.cycle.end)
    }
}

/// The steps in the life of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStep {
    /// It began.
    Started,
    /// Its next cycle began, and was paid.
    Renewed,
    /// Its next cycle began, but the wallet did not cover the price: nothing can be drawn from it.
    Unpaid,
    /// The cycle was paid after all.
    Paid,
    /// Another plan from now on.
    Changed,
    /// Another plan from the next cycle on.
    ChangeScheduled,
    /// It will end with its cycle.
    Cancelled,
    /// It will not end with its cycle after all.
    Resumed,
    /// The fallback to the wallet was switched on or off.
    FallbackSet,
    /// It ended.
    Ended,
}

impl SubscriptionStep {
    /// What a statement calls it.
    pub fn line(self) -> &'static str {
        match self {
            Self::Started => "plan_started",
            Self::Renewed => "plan_renewed",
            Self::Unpaid => "plan_unpaid",
            Self::Paid => "plan_paid",
            Self::Changed => "plan_changed",
            Self::ChangeScheduled => "plan_change_scheduled",
            Self::Cancelled => "plan_cancelled",
            Self::Resumed => "plan_resumed",
            Self::FallbackSet => "plan_fallback_set",
            Self::Ended => "plan_ended",
        }
    }
}

/// Used quota that an operator set back to nothing. The cadence stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Who did it.
    pub by: Arc<str>,
    /// Why, for people.
    pub note: Arc<str>,
    /// What was set back.
    pub what: ResetOf,
    /// What had been used of it and is forgiven.
    pub forgiven: Tally,
}

/// What can be set back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetOf {
    /// What a key has used of its quota.
    Key(KeyId),
    /// What was used of a budget in its period.
    Budget(Counted),
    /// What was used of a counter of the subscription: its cycle (0) or one of its windows (1 …), in that period.
    Plan(u8, Period),
}

/// Amounts of everything that can be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Money.
    #[serde(with = "super::raw")]
    pub money: Nanos,
    /// Tokens, prompt and answer together.
    pub tokens: u64,
    /// Requests.
    pub requests: u64,
}

/// How a request ended: recorded on every charge and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The whole answer was relayed.
    Complete,
    /// The caller went away.
    ClientLeft,
    /// The upstream closed the stream before its end.
    UpstreamCut,
    /// The upstream fell silent for longer than the idle limit.
    UpstreamStalled,
    /// The upstream reported an error inside the stream, or answered with one.
    UpstreamError,
    /// The upstream sent something that cannot be read.
    UpstreamMalformed,
    /// The upstream could not be reached.
    UpstreamUnreachable,
    /// The request took longer than any request may.
    TimedOut,
    /// The gateway was stopped.
    Stopped,
    /// The gateway failed: a defect of ours, at our expense.
    GatewayFault,
    /// The process died; resolved at the next start from the last progress mark.
    Crashed,
    /// The process died before anything shows that the upstream answered.
    CrashedUnknown,
    /// The lease lapsed without an end.
    LeaseLapsed,
    /// Funds covered no more of the answer: it was ended cleanly where they did.
    FundsExhausted,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 14] = [
        Self::Complete,
        Self::ClientLeft,
        Self::UpstreamCut,
        Self::UpstreamStalled,
        Self::UpstreamError,
        Self::UpstreamMalformed,
        Self::UpstreamUnreachable,
        Self::TimedOut,
        Self::Stopped,
        Self::GatewayFault,
        Self::Crashed,
        Self::CrashedUnknown,
        Self::LeaseLapsed,
        Self::FundsExhausted,
    ];

    /// The name in the journal, the metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientLeft => "client_left",
            Self::UpstreamCut => "upstream_cut",
            Self::UpstreamStalled => "upstream_stalled",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
            Self::GatewayFault => "gateway_fault",
            Self::Crashed => "crashed",
            Self::CrashedUnknown => "crashed_unknown",
            Self::LeaseLapsed => "lease_lapsed",
            Self::FundsExhausted => "funds_exhausted",
        }
    }

    /// The ending of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == name)
    }
}

/// What is to become of an open hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// Charge what was consumed.
    Settle {
        /// What was consumed.
        usage: Usage,
        /// The service tier that the provider named.
        service_tier: Option<Arc<str>>,
        /// Price of the usage at the hold's price version.
        cost: Nanos,
        /// How the request ended.
        ending: Ending,
        /// The usage is the gateway's own count.
        estimated: bool,
    },
    /// Give everything back.
    Void {
        /// How the request ended.
        ending: Ending,
    },
}

/// What a key may use up in its life. Nothing set is no limit beyond the account's wallet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Money.
    pub money: Option<Nanos>,
    /// Tokens, prompt and answer together.
    pub tokens: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// These names stand in journals.
    #[test]
    fn endings_have_one_name_in_the_journal_and_outside() {
        for ending in Ending::ALL {
            assert_eq!(serde_json::to_value(ending).unwrap(), ending.name());
            assert_eq!(Ending::from_name(ending.name()), Some(ending));
        }
        assert_eq!(Ending::from_name("lost"), None);
    }

    #[test]
    fn a_statement_calls_each_step_by_its_name_in_the_journal() {
        use SubscriptionStep as Step;
        let steps = [Step::Started, Step::Renewed, Step::Unpaid, Step::Paid, Step::Changed, Step::ChangeScheduled];
        for step in steps.into_iter().chain([Step::Cancelled, Step::Resumed, Step::FallbackSet, Step::Ended]) {
            let name = serde_json::to_value(step).unwrap();
            assert_eq!(step.line(), format!("plan_{}", name.as_str().unwrap()));
        }
    }

    #[test]
    fn a_part_is_written_short() {
        let check = |source: Source, tokens: u64, written: serde_json::Value| {
            let part = Part { source, amount: Nanos(-7), tokens };
            assert_eq!(serde_json::to_value(&part).unwrap(), written);
            assert_eq!(serde_json::from_value::<Part>(written).unwrap(), part);
        };
        check(Source::Wallet, 0, json!({"f": "w", "a": -7}));
        check(Source::Grant(Seq(3)), 9, json!({"f": {"g": 3}, "a": -7, "t": 9}));
    }
}
