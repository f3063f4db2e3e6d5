//! Counters: what was used of something that is limited, and what open holds have reserved of it.

use super::entry::{Counted, Quota, Tally};
use crate::ids::Seq;
use crate::money::{Multiplier, Nanos};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::sync::Arc;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Nano-USD.
    Money,
    /// Tokens, prompt and answer together.
    Tokens,
    /// Requests that were charged or are under way.
    Requests,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::Money, Self::Tokens, Self::Requests];

    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Tokens => "tokens",
            Self::Requests => "requests",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

impl Tally {
    /// The amount in that metric.
    pub fn of(&self, metric: Metric) -> i64 {
        match metric {
            Metric::Money => self.money.0,
            Metric::Tokens => i64::try_from(self.tokens).unwrap_or(i64::MAX),
            Metric::Requests => i64::try_from(self.requests).unwrap_or(i64::MAX),
        }
    }
}

/// What was used of a budget or an allowance in one period, and what is reserved of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// When the period ends.
    pub until: Timestamp,
    /// Charged in the period.
    pub used: Tally,
    /// Reserved by open holds.
    pub held: Tally,
    /// The last entry that changed it here: until the stored sums contain that, it cannot be read from them. 0 where none
    /// has since it was read.
    pub changed: Seq,
}

impl Counter {
    /// What was used and what is reserved, together.
    pub fn taken(&self) -> Tally {
        Tally {
            money: Nanos(self.used.money.0.saturating_add(self.held.money.0)),
            tokens: self.used.tokens.saturating_add(self.held.tokens),
            requests: self.used.requests.saturating_add(self.held.requests),
        }
    }

    /// What is left of `limit` in that metric; nothing rather than less.
    pub fn left(&self, metric: Metric, limit: i64) -> i64 {
        let taken = i128::from(self.used.of(metric)) + i128::from(self.held.of(metric));
        i64::try_from((i128::from(limit) - taken).max(0)).unwrap_or(i64::MAX)
    }
}

/// What a key has used and reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTotals {
    /// Charged in all.
    pub used: Nanos,
    /// Reserved by open holds.
    pub held: Nanos,
    /// Tokens charged in all.
    pub used_tokens: u64,
    /// Tokens reserved by open holds.
    pub held_tokens: u64,
    /// Requests charged in all.
    pub requests: u64,
    /// Of what was used, what an operator set back: it does not count against the quota any more.
    pub forgiven: Nanos,
    /// The same in tokens.
    pub forgiven_tokens: u64,
}

impl KeyTotals {
    /// What counts against the quota in money.
    pub fn used_of_quota(&self) -> Nanos {
        Nanos(self.used.0.saturating_sub(self.forgiven.0))
    }

    /// What counts against the quota in tokens.
    pub fn tokens_of_quota(&self) -> u64 {
        self.used_tokens.saturating_sub(self.forgiven_tokens)
    }

    /// What is left of a quota in money; nothing rather than less.
    pub fn money_left(&self, quota: Nanos) -> Nanos {
        Nanos(quota.0.saturating_sub(self.used_of_quota().0).saturating_sub(self.held.0).max(0))
    }

    /// What is left of a quota in tokens; nothing rather than less.
    pub fn tokens_left(&self, quota: u64) -> u64 {
        quota.saturating_sub(self.tokens_of_quota()).saturating_sub(self.held_tokens)
    }
}

/// A budget as it limits one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetLimit {
    /// The counter, in its present period.
    pub counted: Counted,
    /// The budget's name, for messages.
    pub name: Arc<str>,
    /// What is counted.
    pub metric: Metric,
    /// How much there is in the period.
    pub limit: i64,
}

/// Everything that limits a request beside the money that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The key's quota.
    pub quota: Quota,
    /// The budgets that it falls under.
    pub budgets: BudgetLimits,
    /// Nothing but the subscription may pay: what is held has its price.
    pub plan_alone: bool,
    /// Nothing else of the account may be open: more is held than would be beside others.
    pub only_open: bool,
}

impl Limits {
    /// Only a key's quota.
    pub fn quota(quota: Quota) -> Self {
        Self { quota, ..Self::default() }
    }

    /// The counters that a hold under these limits is counted in.
    pub fn counted(&self) -> Arc<[Counted]> {
        self.budgets.counted.clone()
    }
}

/// Budgets that a request falls under, with the list of their counters that its hold will have: many requests fall under
/// the same ones, and share both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetLimits {
    limits: Arc<[BudgetLimit]>,
    counted: Arc<[Counted]>,
}

impl FromIterator<BudgetLimit> for BudgetLimits {
    fn from_iter<I: IntoIterator<Item = BudgetLimit>>(limits: I) -> Self {
        let limits: Arc<[BudgetLimit]> = limits.into_iter().collect();
        let counted = limits.iter().map(|budget| budget.counted.clone()).collect();
        Self { limits, counted }
    }
}

impl Deref for BudgetLimits {
    type Target = [BudgetLimit];

    fn deref(&self) -> &[BudgetLimit] {
        &self.limits
    }
}

/// Why a request is not admitted. The numbers explain the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The funds that are left do not cover the request.
    Wallet {
        /// What can be held: wallet, grants and allowance together.
        available: Nanos,
        /// What the request can cost.
        needed: Nanos,
    },
    /// The account owes money.
    Debt {
        /// What it owes.
        owed: Nanos,
    },
    /// The subscription's allowance does not cover the request, and its fallback to the wallet is off.
    Allowance {
        /// The window of the plan that binds; `None` is the cycle itself.
        window: Option<Arc<str>>,
        /// Money or tokens.
        metric: Metric,
        /// How much there is in each period.
        limit: i64,
        /// What is left.
        left: i64,
        /// What the request can take of it, after what grants cover.
        needed: i64,
        /// When there is more.
        resets_at: Timestamp,
    },
    /// The subscription's cycle is not paid.
    Unpaid {
        /// What the cycle costs.
        price: Nanos,
        /// What is in the wallet.
        available: Nanos,
    },
    /// The key's quota in money does not cover the request.
    KeyMoney {
        /// The quota.
        quota: Nanos,
        /// Used so far.
        used: Nanos,
        /// Reserved by requests under way.
        held: Nanos,
        /// What the request can cost.
        needed: Nanos,
    },
    /// The key's quota in tokens does not cover the request.
    KeyTokens {
        /// The quota.
        quota: u64,
        /// Used so far.
        used: u64,
        /// Reserved by requests under way.
        held: u64,
        /// What the request can consume.
        needed: u64,
    },
    /// A budget does not cover the request.
    Budget {
        /// The budget with its limit and period.
        budget: Box<BudgetLimit>,
        /// Used so far in the period.
        used: i64,
        /// Reserved by requests under way.
        held: i64,
        /// What the request can take.
        needed: i64,
    },
    /// No such hold is open.
    NotOpen,
    /// Something else forbids it, as said.
    Forbidden(&'static str),
}

/// What could be held now for a request, whatever it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headroom {
    /// Money within funds, quota and budgets.
    pub money: Nanos,
    /// What leaves no more money than that.
    pub money_by: Binding,
    /// What open requests hold of the same.
    pub money_held: Nanos,
    /// Tokens within quota, budgets and allowance; `None` is no limit.
    pub tokens: Option<u64>,
    /// What leaves no more tokens than that.
    pub tokens_by: Binding,
    /// What open requests hold of the same.
    pub tokens_held: u64,
    /// No request of the account is open.
    pub is_quiet: bool,
    /// What the subscription can pay of that by itself; `None` where there is none that pays, or a grant pays first.
    pub plan: Option<PlanAlone>,
}

/// What a subscription can pay by itself. Its multiplier is for requests that nobody else pays a part of: else a plan would
/// be bought for its multiplier and given back unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanAlone {
    /// Money.
    pub money: Nanos,
    /// Tokens, where it counts them.
    pub tokens: Option<u64>,
    /// What it pays of list prices.
    pub multiplier: Multiplier,
    /// Nobody else could pay: the fallback to the wallet is off.
    pub is_all: bool,
}

/// What leaves the least to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// The funds of the account: wallet, grants and subscription together.
    #[default]
    Funds,
    /// The subscription's allowance, with no wallet behind it.
    Allowance,
    /// The key's quota.
    KeyQuota,
    /// A budget, by its place in [`Limits::budgets`].
    Budget(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_one_name() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
        }
        assert_eq!(Metric::from_name("words"), None);
    }
}
