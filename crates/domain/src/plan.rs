//! Plans: what an account can subscribe to. An allowance per cycle, limits within the cycle, and a price.

use crate::calendar::{Calendar, CalendarError, Cycle, Period, Window, Zone};
use crate::ids::PlanId;
use crate::money::{Multiplier, Nanos};
use crate::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Most windows of one plan.
pub const WINDOWS_MAX: usize = 4;

/// The terms of a plan. A subscription keeps a copy, so that changing a plan changes nobody's contract in silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanTerms {
    /// The plan.
    pub plan: PlanId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// How often it starts anew.
    pub cycle: Cycle,
    /// What a cycle costs, paid from the wallet at its start.
    pub price: Nanos,
    /// What a cycle pays for.
    pub allowance: Allowance,
    /// What may be used of the allowance within shorter spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowTerms>,
    /// What a subscriber pays of list prices.
    #[serde(default)]
    pub multiplier: Multiplier,
    /// Whether the wallet pays when the allowance is used up, unless the subscriber says otherwise.
    pub fallback: bool,
}

/// An amount of either kind that a plan can pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// Money at the subscriber's prices.
    Money(Nanos),
    /// Tokens, prompt and answer together, whatever they cost.
    Tokens(u64),
}

/// A limit within a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowTerms {
    /// Its name, for messages: "5 hours".
    pub name: Arc<str>,
    /// The most of the allowance that can be used within it.
    pub limit: Allowance,
    /// How long it is.
    pub length: WindowLength,
}

/// How long a window is and when it begins. Text: `week`, or a length such as `5 hours`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowLength {
    /// From the first use after the one before has ended.
    Session(Window),
    /// The week of the subscriber's calendar, from Monday.
    Week,
}

/// Terms that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTerms(pub &'static str);

impl Allowance {
    /// Nothing of that kind.
    pub fn is_nothing(self) -> bool {
        matches!(self, Self::Money(Nanos::ZERO) | Self::Tokens(0))
    }

    /// The amount in its own unit: nano-USD or tokens.
    pub fn amount(self) -> i64 {
        match self {
            Self::Money(money) => money.0,
            Self::Tokens(tokens) => i64::try_from(tokens).unwrap_or(i64::MAX),
        }
    }

    /// So much of the same kind; nothing rather than less.
    #[must_use]
    pub fn with_amount(self, amount: i64) -> Self {
        match self {
            Self::Money(_) => Self::Money(Nanos(amount.max(0))),
            Self::Tokens(_) => Self::Tokens(amount.max(0).unsigned_abs()),
        }
    }

    fn is_representable(self) -> bool {
        match self {
            Self::Money(money) => money >= Nanos::ZERO,
            Self::Tokens(tokens) => i64::try_from(tokens).is_ok(),
        }
    }
}

impl PlanTerms {
    /// Whether the terms can be sold: nothing negative, nothing without end.
    pub fn check(&self) -> Result<(), BadTerms> {
        if self.price < Nanos::ZERO {
            return Err(BadTerms("a plan's price is not negative"));
        }
        if !self.allowance.is_representable() || self.allowance.is_nothing() {
            return Err(BadTerms("a plan's allowance is more than nothing and fits 64 bits"));
        }
        if self.windows.len() > WINDOWS_MAX {
            return Err(BadTerms("a plan has at most 4 windows"));
        }
        for window in &self.windows {
            if !window.limit.is_representable() || window.limit.is_nothing() {
                return Err(BadTerms("a window's limit is more than nothing and fits 64 bits"));
            }
        }
        Ok(())
    }
}

impl WindowLength {
    /// The window that `at` falls into, given when the one before began.
    pub fn period(self, before: Option<Timestamp>, zone: &Zone, at: Timestamp) -> Period {
        match self {
            Self::Session(window) => window.session(before, at),
            Self::Week => Calendar::WEEK.period(zone, at),
        }
    }
}

impl fmt::Display for WindowLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(window) => window.fmt(f),
            Self::Week => f.write_str("week"),
        }
    }
}

impl FromStr for WindowLength {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        if text == "week" { Ok(Self::Week) } else { text.parse().map(Self::Session) }
    }
}

impl Serialize for WindowLength {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WindowLength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::DAY_MS;

    const SOLD: &str = r#"{"plan":1,"name":"pro","cycle":"month","price":"20.00","allowance":{"money":"25.00"},
        "windows":[{"name":"5 hours","limit":{"tokens":1000},"length":"5 hours"},
                   {"name":"week","limit":{"money":"10"},"length":"week"}],
        "multiplier":"0.9","fallback":true}"#;

    fn sold() -> PlanTerms {
        serde_json::from_str(SOLD).unwrap()
    }

    #[test]
    fn terms_are_read_and_written_alike() {
        let terms = sold();
        assert_eq!(terms.windows[1].length, WindowLength::Week);
        assert_eq!(terms.check(), Ok(()));
        assert_eq!(serde_json::from_str::<PlanTerms>(&serde_json::to_string(&terms).unwrap()).unwrap(), terms);
        assert!(serde_json::from_str::<PlanTerms>(&SOLD.replace("fallback", "fall_back")).is_err());
        assert!(serde_json::from_str::<PlanTerms>(&SOLD.replace("5 hours\"}", "5 hour\"}")).is_ok());
        assert!(serde_json::from_str::<PlanTerms>(&SOLD.replace("\"length\":\"week", "\"length\":\"month")).is_err());
    }

    #[test]
    fn m_29_terms_that_make_no_sense_are_not_sold() {
        let check = |change: &dyn Fn(&mut PlanTerms), sold_so: bool| {
            let mut terms = sold();
            change(&mut terms);
            assert_eq!(terms.check().is_ok(), sold_so, "{terms:?}");
        };
        check(&|terms| terms.price = Nanos::ZERO, true);
        check(&|terms| terms.price = Nanos::MAX, true);
        check(&|terms| terms.price = Nanos(-1), false);
        let allowances = [
            (Allowance::Money(Nanos(1)), true),
            (Allowance::Money(Nanos::MAX), true),
            (Allowance::Money(Nanos::ZERO), false),
            (Allowance::Money(Nanos(-1)), false),
            (Allowance::Tokens(1), true),
            (Allowance::Tokens(i64::MAX as u64), true),
            (Allowance::Tokens(0), false),
            (Allowance::Tokens(i64::MAX as u64 + 1), false),
        ];
        for (allowance, sold_so) in allowances {
            check(&|terms| terms.allowance = allowance, sold_so);
            check(&|terms| terms.windows[1].limit = allowance, sold_so);
        }
        check(&|terms| terms.windows.clear(), true);
        check(&|terms| terms.windows = vec![terms.windows[0].clone(); WINDOWS_MAX], true);
        check(&|terms| terms.windows = vec![terms.windows[0].clone(); WINDOWS_MAX + 1], false);
    }

    #[test]
    fn windows_are_sessions_or_weeks_of_the_calendar() {
        let (zone, thursday) = (Zone::default(), Timestamp(0));
        let week: WindowLength = "week".parse().unwrap();
        let monday = Period { start: Timestamp(-3 * DAY_MS), end: Timestamp(4 * DAY_MS) };
        assert_eq!(week.period(Some(Timestamp(-1)), &zone, thursday), monday);
        let day: WindowLength = "1 day".parse().unwrap();
        let from = |start: i64| Period { start: Timestamp(start), end: Timestamp(start + DAY_MS) };
        assert_eq!(day.period(None, &zone, thursday), from(0));
        assert_eq!(day.period(Some(Timestamp(-1)), &zone, thursday), from(-1));
        assert_eq!(day.period(Some(Timestamp(-DAY_MS)), &zone, thursday), from(0));
        assert_eq!((week.to_string(), day.to_string()), ("week".to_owned(), "1 day".to_owned()));
    }

    #[test]
    fn an_amount_of_an_allowance_is_never_below_nothing() {
        assert_eq!(Allowance::Money(Nanos(5)).with_amount(-1), Allowance::Money(Nanos::ZERO));
        assert_eq!(Allowance::Tokens(5).with_amount(-1), Allowance::Tokens(0));
        assert_eq!(Allowance::Tokens(5).with_amount(7), Allowance::Tokens(7));
        assert_eq!((Allowance::Money(Nanos(5)).amount(), Allowance::Tokens(u64::MAX).amount()), (5, i64::MAX));
    }
}
