//! Automatic top-up: when a balance falls below X, charge Y, at most N times a month.

use super::{Currency, Minor};
use crate::money::Nanos;
use crate::time::Timestamp;

/// Failures in a row after which it is switched off.
pub const FAILURES_MAX: u32 = 3;
/// The wait after a first failure; it doubles with each further one.
const RETRY_WAIT_MS: i64 = 3_600_000;

/// What an account wants, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoTopUp {
    /// Whether it is on. Turned off by the owner, or by failures.
    pub enabled: bool,
    /// Below this, it charges.
    pub threshold: Nanos,
    /// What it charges.
    pub amount: Minor,
    /// In what.
    pub currency: Currency,
    /// At most so many times in a month of the account's time zone.
    pub monthly_max: u32,
    /// Failures in a row.
    pub failures: u32,
    /// Why it was switched off, or why the last charge failed. Kept until the owner switches it on again.
    pub reason: Option<String>,
    /// Not before then.
    pub retry_at: Option<Timestamp>,
}

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The time.
    pub now: Timestamp,
    /// What the account can spend.
    pub available: Nanos,
    /// Charges of this month that succeeded or may still.
    pub this_month: u32,
    /// A charge is under way.
    pub under_way: bool,
    /// There is a saved card.
    pub has_method: bool,
    /// The account is not suspended.
    pub active: bool,
}

/// Charge now, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Charge.
    Charge,
    /// Do not.
    Wait(WhyNot),
}

/// Why there is no charge now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// It is off, or the account is suspended.
    Off,
    /// The balance is high enough.
    EnoughLeft,
    /// A charge is under way: its end must be known first, or one shortage could be paid for twice.
    UnderWay,
    /// The month's number is used up.
    MonthUsedUp,
    /// There is no card.
    NoMethod,
    /// The last charge failed not long ago.
    TooSoon,
}

/// How a charge failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decline {
    /// It may work later: too little money on the card, a bank that is out.
    Soft,
    /// It will not work until a person does something: the bank wants the customer present, the card is gone.
    Hard,
}

impl AutoTopUp {
    /// Whether to charge now.
    pub fn decide(&self, at: &Circumstances) -> Verdict {
        let why = if !self.enabled || !at.active || self.monthly_max == 0 {
            WhyNot::Off
        } else if at.available >= self.threshold {
            WhyNot::EnoughLeft
        } else if at.under_way {
            WhyNot::UnderWay
        } else if at.this_month >= self.monthly_max {
            WhyNot::MonthUsedUp
        } else if !at.has_method {
            WhyNot::NoMethod
        } else if self.retry_at.is_some_and(|retry_at| at.now < retry_at) {
            WhyNot::TooSoon
        } else {
            return Verdict::Charge;
        };
        Verdict::Wait(why)
    }

    /// After a charge that failed: rested for a while, or off with the reason kept.
    #[must_use]
    pub fn after_failure(&self, decline: Decline, reason: &str, now: Timestamp) -> Self {
        let failures = self.failures.saturating_add(1);
        let off = decline == Decline::Hard || failures >= FAILURES_MAX;
        let wait = RETRY_WAIT_MS << failures.saturating_sub(1).min(8);
        Self {
            enabled: self.enabled && !off,
            failures,
            reason: Some(reason.to_owned()),
            retry_at: Some(now.plus_ms(wait)),
            ..self.clone()
        }
    }

    /// After a charge that was paid.
    #[must_use]
    pub fn after_success(&self) -> Self {
        // Switched off stays off: a late success is no consent to the next charge.
        let reason = if self.enabled { None } else { self.reason.clone() };
        Self { failures: 0, reason, retry_at: None, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings() -> AutoTopUp {
        AutoTopUp {
            enabled: true,
            threshold: Nanos(5_000_000_000),
            amount: 2000,
            currency: Currency::USD,
            monthly_max: 2,
            failures: 0,
            reason: None,
            retry_at: None,
        }
    }

    fn low() -> Circumstances {
        Circumstances {
            now: Timestamp(1_000),
            available: Nanos(4_999_999_999),
            this_month: 1,
            under_way: false,
            has_method: true,
            active: true,
        }
    }

    #[test]
    fn it_charges_below_the_threshold_and_only_then() {
        assert_eq!(settings().decide(&low()), Verdict::Charge);
        let check = |at: Circumstances, why| assert_eq!(settings().decide(&at), Verdict::Wait(why));
        check(Circumstances { available: Nanos(5_000_000_000), ..low() }, WhyNot::EnoughLeft);
        check(Circumstances { under_way: true, ..low() }, WhyNot::UnderWay);
        check(Circumstances { this_month: 2, ..low() }, WhyNot::MonthUsedUp);
        check(Circumstances { has_method: false, ..low() }, WhyNot::NoMethod);
        check(Circumstances { active: false, ..low() }, WhyNot::Off);
        assert_eq!(AutoTopUp { enabled: false, ..settings() }.decide(&low()), Verdict::Wait(WhyNot::Off));
    }

    #[test]
    fn failures_make_it_wait_and_then_switch_it_off_with_the_reason_kept() {
        let once = settings().after_failure(Decline::Soft, "card_declined", Timestamp(0));
        assert!(once.enabled);
        assert_eq!(
            once.decide(&Circumstances { now: Timestamp(RETRY_WAIT_MS - 1), ..low() }),
            Verdict::Wait(WhyNot::TooSoon)
        );
        assert_eq!(once.decide(&Circumstances { now: Timestamp(RETRY_WAIT_MS), ..low() }), Verdict::Charge);
        let thrice =
            once.after_failure(Decline::Soft, "b", Timestamp(0)).after_failure(Decline::Soft, "c", Timestamp(0));
        assert_eq!((thrice.enabled, thrice.reason.as_deref()), (false, Some("c")));
        assert_eq!((thrice.after_success().enabled, thrice.after_success().reason.as_deref()), (false, Some("c")));
        let hard = settings().after_failure(Decline::Hard, "authentication_required", Timestamp(0));
        assert!(!hard.enabled);
        assert_eq!(once.after_success(), settings());
    }

    #[test]
    fn each_further_failure_doubles_the_wait() {
        for (failures, hours) in [(0, 1), (1, 2), (2, 4), (8, 256), (9, 256), (u32::MAX, 256)] {
            let failed = AutoTopUp { failures, ..settings() }.after_failure(Decline::Soft, "x", Timestamp(0));
            assert_eq!(failed.retry_at, Some(Timestamp(hours * RETRY_WAIT_MS)), "{failures}");
        }
    }

    proptest! {
        #[test]
        fn it_never_charges_more_often_than_the_month_allows(
            tries in 1_u32..100, monthly_max in 0_u32..10, outcomes in proptest::collection::vec(any::<bool>(), 100),
        ) {
            let mut settings = AutoTopUp { monthly_max, ..settings() };
            let mut paid = 0;
            for hour in 0..tries {
                let at = Circumstances { now: Timestamp(i64::from(hour) * RETRY_WAIT_MS), this_month: paid, ..low() };
                if settings.decide(&at) == Verdict::Charge {
                    settings = if outcomes[hour as usize] {
                        paid += 1;
                        settings.after_success()
                    } else {
                        settings.after_failure(Decline::Soft, "x", at.now)
                    };
                }
            }
            prop_assert!(paid <= monthly_max);
            prop_assert!(settings.failures <= FAILURES_MAX);
        }
    }
}
