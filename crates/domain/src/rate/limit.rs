//! What a limit is, and which requests it is for.

use super::Weight;
use crate::budget::matches_model;
use crate::calendar::Calendar;
use crate::ids::{AccountId, KeyId, LimitId, ProjectId, TierId};
use crate::time::DAY_MS;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The largest amount of a limit: 2^48. So that a script in Redis, whose numbers are 64-bit floats, decides exactly as this
/// crate does. As money it is $281,474.97 in one window.
pub const AMOUNT_MAX: u64 = 1 << 48;
/// The longest window: a thousand days.
pub const LENGTH_MS_MAX: i64 = 1_000 * DAY_MS;
const LENGTH_BOUNDS: &str = "a window is from 1 millisecond to 1000 days";
/// Models that one limit can name.
pub const MODELS_MAX: usize = 100;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Requests that are admitted.
    Requests,
    /// Prompt tokens.
    InputTokens,
    /// Answer tokens.
    OutputTokens,
    /// Both.
    TotalTokens,
    /// Nano-USD.
    Money,
    /// Requests under way. The window is always [`Window::Now`].
    InFlight,
    /// Choices of one request (`n`). The window is always [`Window::Request`].
    Choices,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 7] = [
        Self::Requests,
        Self::InputTokens,
        Self::OutputTokens,
        Self::TotalTokens,
        Self::Money,
        Self::InFlight,
        Self::Choices,
    ];

    /// The name in files, the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::TotalTokens => "total_tokens",
            Self::Money => "money",
            Self::InFlight => "in_flight",
            Self::Choices => "choices",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

/// The time that an amount is for.
///
/// Text: `minute`, `90 seconds`, `7 days` (sliding); `smooth minute`, `smooth minute burst 10`; `calendar day`,
/// `calendar month`, `calendar week from sunday`; `session 5 hours`; `now`; `request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Never more than the amount in any stretch of time of that length, wherever it begins.
    Sliding {
        /// Milliseconds.
        length_ms: i64,
    },
    /// A bucket that holds `burst` and fills evenly by the amount in that time. In any stretch of that length up to the
    /// amount and the burst together can pass.
    Smooth {
        /// Milliseconds.
        length_ms: i64,
        /// The bucket's size; the amount itself, unless it is said.
        burst: Option<u64>,
    },
    /// From boundary to boundary of a calendar, in the time zone of the account that pays (UTC where accounts share it).
    Calendar(Calendar),
    /// From first use, for so long; the next use after that begins another.
    Session {
        /// Milliseconds.
        length_ms: i64,
    },
    /// As long as a request is under way.
    Now,
    /// Each request by itself.
    Request,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its id.
    pub id: LimitId,
    /// Its name: unique, for messages and headers.
    pub name: Arc<str>,
    /// What is counted.
    pub metric: Metric,
    /// How much there is. Nothing at all is allowed as well: 0 shuts the scope.
    pub amount: u64,
    /// In what time.
    pub window: Window,
    /// For which requests.
    pub scope: Scope,
    /// Counted by itself for each value of these.
    pub each: Vec<Dimension>,
}

/// Which requests a limit is for: those that match everything that is set. Nothing set is the whole gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Requests that this account pays for, with those of the accounts linked to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Requests of accounts in that tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierId>,
    /// Requests of keys of that project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Requests of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// Requests for that end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<Arc<str>>,
    /// Requests for one of these models, a group that is limited together; a trailing `*` stands for any ending. None named
    /// is every model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Arc<str>>,
    /// Requests with that tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Arc<str>>,
}

/// What can be counted each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Each account; accounts that are linked together.
    Account,
    /// Each project; keys without one together, by account.
    Project,
    /// Each key.
    Key,
    /// Each end user of an account; requests that name none together.
    EndUser,
    /// Each model.
    Model,
    /// Each client address; of IPv6 each network of 64 bits, for a host has all of one (L-14).
    Address,
}

/// What a request is, as far as limits ask.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Who pays: the account, or the one that it is linked to.
    pub payer: AccountId,
    /// What it gets of limits that accounts share, beside the others.
    pub weight: Weight,
    /// Its tier.
    pub tier: TierId,
    /// The key's project.
    pub project: Option<ProjectId>,
    /// The key.
    pub key: KeyId,
    /// The end user that the request names.
    pub end_user: Option<&'a str>,
    /// The model asked for.
    pub model: &'a str,
    /// The request's tags.
    pub tags: &'a [&'a str],
    /// Where it comes from.
    pub address: IpAddr,
}

/// Why something is not a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLimit(pub String);

impl Scope {
    /// Whether any request of a key can be in the scope.
    pub fn can_match(&self, payer: AccountId, tier: TierId, key: KeyId, project: Option<ProjectId>) -> bool {
        self.account.is_none_or(|wanted| wanted == payer)
            && self.tier.is_none_or(|wanted| wanted == tier)
            && self.key.is_none_or(|wanted| wanted == key)
            && self.project.is_none_or(|wanted| Some(wanted) == project)
    }

    /// Whether a request is in the scope.
    pub fn matches(&self, asking: &Asking<'_>) -> bool {
        self.can_match(asking.payer, asking.tier, asking.key, asking.project)
            && self.end_user.as_deref().is_none_or(|user| asking.end_user == Some(user))
            && (self.models.is_empty() || self.models.iter().any(|model| matches_model(model, asking.model)))
            && self.tag.as_deref().is_none_or(|tag| asking.tags.contains(&tag))
    }
}

impl Dimension {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Tells a hasher which value of the dimension a request counts for.
    pub fn value(self, asking: &Asking<'_>, hasher: &mut impl Hasher) {
        (self as u8).hash(hasher);
        match self {
            Self::Account => asking.payer.0.hash(hasher),
            Self::Project => match asking.project {
                Some(project) => (1, project.0).hash(hasher),
                None => (0, asking.payer.0).hash(hasher),
            },
            Self::Key => asking.key.0.hash(hasher),
            Self::EndUser => (asking.payer.0, asking.end_user).hash(hasher),
            Self::Model => asking.model.hash(hasher),
            Self::Address => match asking.address {
                IpAddr::V4(address) => address.octets().hash(hasher),
                IpAddr::V6(address) => match address.to_ipv4_mapped() {
                    Some(address) => address.octets().hash(hasher),
                    None => address.octets()[..8].hash(hasher),
                },
            },
        }
    }
}

impl Limit {
    /// Accounts share what it gives: it names no account, project or key, and counts none of them by itself.
    pub fn is_shared(&self) -> bool {
        let of_one = self.scope.account.is_some() || self.scope.project.is_some() || self.scope.key.is_some();
        !of_one && self.each.iter().all(|dimension| *dimension == Dimension::Model)
    }

    /// Refuses what makes no sense, in words for whoever wrote it.
    pub fn check(&self) -> Result<(), BadLimit> {
        let bad = |why: String| Err(BadLimit(format!("limit \"{}\": {why}", self.name)));
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_of_name) {
            return bad("a name is 1 to 64 letters, digits, or any of . _ -".to_owned());
        }
        if self.amount > AMOUNT_MAX {
            return bad(format!("an amount is at most {AMOUNT_MAX}"));
        }
        match (self.metric, self.window) {
            (Metric::InFlight, Window::Now) | (Metric::Choices, Window::Request) => {}
            (Metric::InFlight, _) => return bad("requests in flight are counted now: its window is `now`".to_owned()),
            (_, Window::Now) => return bad("only requests in flight are counted `now`".to_owned()),
            (Metric::Choices, _) => return bad("choices are limited by request: its window is `request`".to_owned()),
            (Metric::Requests, Window::Request) => return bad("one request is always one request".to_owned()),
            _ => {}
        }
        match self.window {
            Window::Sliding { length_ms } | Window::Smooth { length_ms, .. } | Window::Session { length_ms }
                if !(1..=LENGTH_MS_MAX).contains(&length_ms) =>
            {
                return bad(LENGTH_BOUNDS.to_owned());
            }
            Window::Smooth { burst: Some(burst), .. } if !(1..=AMOUNT_MAX).contains(&burst) => {
                return bad(format!("a burst is from 1 to {AMOUNT_MAX}"));
            }
            Window::Smooth { length_ms, burst: Some(burst) }
                if self.amount > 0
                    && u128::from(burst) * u128::from(length_ms.unsigned_abs())
                        > u128::from(self.amount) * u128::from(LENGTH_MS_MAX.unsigned_abs()) =>
            {
                return bad("at that rate its burst would not be there again in 1000 days".to_owned());
            }
            _ => {}
        }
        if self.scope.models.len() > MODELS_MAX {
            return bad(format!("it names more than {MODELS_MAX} models"));
        }
        let mut each = self.each.clone();
        each.sort_unstable();
        each.dedup();
        if each.len() != self.each.len() {
            return bad("a dimension is named twice".to_owned());
        }
        Ok(())
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

impl Window {
    /// The time zone that matters to it: of the account that pays, where the limit is of one.
    pub fn zone_matters(self) -> bool {
        matches!(self, Self::Calendar(_))
    }

    /// What was used of it outlives a restart of the gateway: it is longer than a minute.
    pub fn outlives_restarts(self) -> bool {
        match self {
            Self::Sliding { length_ms } | Self::Smooth { length_ms, .. } | Self::Session { length_ms } => {
                length_ms > 60_000
            }
            Self::Calendar(_) => true,
            Self::Now | Self::Request => false,
        }
    }
}

/// Units of lengths, largest first.
const UNITS: [(&str, &str, i64); 5] = [
    ("days", "day", DAY_MS),
    ("hours", "hour", 3_600_000),
    ("minutes", "minute", 60_000),
    ("seconds", "second", 1_000),
    ("milliseconds", "millisecond", 1),
];

struct Length(i64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (many, one, unit_ms) = UNITS.iter().find(|(.., unit_ms)| self.0 % unit_ms == 0).expect("1 divides all");
        match self.0 / unit_ms {
            1 => f.write_str(one),
            count => write!(f, "{count} {many}"),
        }
    }
}

fn length(text: &str) -> Option<i64> {
    let (count, unit) = match text.split_once(' ') {
        Some((count, unit)) => (count.parse::<u32>().ok()?, unit),
        None => (1, text),
    };
    let (.., unit_ms) = UNITS.iter().find(|(many, one, _)| [*many, *one].contains(&unit))?;
    i64::from(count).checked_mul(*unit_ms)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sliding { length_ms } => write!(f, "{}", Length(*length_ms)),
            Self::Smooth { length_ms, burst: None } => write!(f, "smooth {}", Length(*length_ms)),
            Self::Smooth { length_ms, burst: Some(burst) } => {
                write!(f, "smooth {} burst {burst}", Length(*length_ms))
            }
            Self::Calendar(calendar) => write!(f, "calendar {calendar}"),
            Self::Session { length_ms } => write!(f, "session {}", Length(*length_ms)),
            Self::Now => f.write_str("now"),
            Self::Request => f.write_str("request"),
        }
    }
}

impl FromStr for Window {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let shown = || text.chars().take(60).collect::<String>();
        let bad = || {
            let shown = shown();
            BadLimit(format!(
                "no window is written {shown:?}; for example \"minute\", \"90 seconds\", \"smooth minute\", \
                 \"smooth minute burst 10\", \"calendar day\", \"session 5 hours\", \"now\" or \"request\""
            ))
        };
        let ms = |text: &str| match length(text) {
            Some(ms) if !(1..=LENGTH_MS_MAX).contains(&ms) => Err(BadLimit(format!("{:?}: {LENGTH_BOUNDS}", shown()))),
            ms => ms.ok_or_else(bad),
        };
        let words = text.trim();
        match words.split_once(' ') {
            _ if words == "now" => Ok(Self::Now),
            _ if words == "request" => Ok(Self::Request),
            Some(("smooth", rest)) => match rest.split_once(" burst ") {
                Some((time, burst)) => {
                    let burst = Some(burst.parse().map_err(|_| bad())?);
                    Ok(Self::Smooth { length_ms: ms(time)?, burst })
                }
                None => Ok(Self::Smooth { length_ms: ms(rest)?, burst: None }),
            },
            Some(("calendar", rest)) => rest.parse().map(Self::Calendar).map_err(|_| bad()),
            Some(("session", rest)) => Ok(Self::Session { length_ms: ms(rest)? }),
            _ => Ok(Self::Sliding { length_ms: ms(words)? }),
        }
    }
}

impl Serialize for Window {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_written_as_they_are_read() {
        for text in [
            "minute",
            "90 seconds",
            "7 days",
            "smooth minute",
            "smooth second burst 3",
            "calendar day",
            "calendar month",
            "calendar week from sunday",
            "session 5 hours",
            "now",
            "request",
            "250 milliseconds",
        ] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        assert_eq!("60 seconds".parse::<Window>().unwrap().to_string(), "minute");
        for text in ["", "0 seconds", "1001 days", "-1 days", "fortnight", "smooth", "smooth minute burst", "1.5 hours"]
        {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }

    fn limit(scope: &str, each: &[Dimension]) -> Limit {
        Limit {
            id: LimitId(1),
            name: "rpm".into(),
            metric: Metric::Requests,
            amount: 5,
            window: Window::Sliding { length_ms: 60_000 },
            scope: serde_json::from_str(scope).unwrap(),
            each: each.to_vec(),
        }
    }

    const ASKING: Asking<'_> = Asking {
        payer: AccountId(2),
        weight: Weight::ONE,
        tier: TierId(1),
        project: Some(ProjectId(3)),
        key: KeyId(7),
        end_user: Some("ann"),
        model: "gpt-4o-mini",
        tags: &["nightly"],
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    #[test]
    fn a_scope_matches_when_everything_set_does() {
        let check =
            |scope: &str, expected: bool| assert_eq!(limit(scope, &[]).scope.matches(&ASKING), expected, "{scope}");
        check("{}", true);
        check(
            r#"{"account":2,"tier":1,"project":3,"key":7,"end_user":"ann","models":["x","gpt-4o*"],"tag":"nightly"}"#,
            true,
        );
        for other in [
            r#"{"account":3}"#,
            r#"{"tier":2}"#,
            r#"{"project":4}"#,
            r#"{"key":8}"#,
            r#"{"end_user":"bob"}"#,
            r#"{"models":["gpt-4o"]}"#,
            r#"{"tag":"x"}"#,
        ] {
            check(other, false);
        }
    }

    #[test]
    fn l_14_values_are_told_apart_and_ipv6_hosts_are_not() {
        let value = |dimension: Dimension, asking: &Asking<'_>| {
            let mut hasher = std::hash::DefaultHasher::new();
            dimension.value(asking, &mut hasher);
            hasher.finish()
        };
        let address = |text: &str| Asking { address: text.parse().unwrap(), ..ASKING };
        let of = |text| value(Dimension::Address, &address(text));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        for each in [Dimension::Key, Dimension::EndUser, Dimension::Model, Dimension::Account, Dimension::Project] {
            let other = match each {
                Dimension::Key => Asking { key: KeyId(8), ..ASKING },
                Dimension::EndUser => Asking { end_user: None, ..ASKING },
                Dimension::Model => Asking { model: "x", ..ASKING },
                Dimension::Account => Asking { payer: AccountId(9), ..ASKING },
                _ => Asking { project: None, ..ASKING },
            };
            assert_ne!(value(each, &ASKING), value(each, &other));
            assert_eq!(value(Dimension::Address, &ASKING), value(Dimension::Address, &other));
            assert!((each as usize) < Dimension::COUNT);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = limit("{}", &[Dimension::Key]);
        assert_eq!(good.check(), Ok(()));
        let bad = |limit: Limit| assert!(limit.check().is_err(), "{limit:?}");
        bad(Limit { name: "".into(), ..good.clone() });
        bad(Limit { name: "a b".into(), ..good.clone() });
        bad(Limit { amount: AMOUNT_MAX + 1, ..good.clone() });
        bad(Limit { metric: Metric::InFlight, ..good.clone() });
        bad(Limit { window: Window::Now, ..good.clone() });
        bad(Limit { window: Window::Request, ..good.clone() });
        bad(Limit { window: Window::Sliding { length_ms: 0 }, ..good.clone() });
        bad(Limit { window: Window::Session { length_ms: LENGTH_MS_MAX + 1 }, ..good.clone() });
        bad(Limit { window: Window::Smooth { length_ms: 1, burst: Some(0) }, ..good.clone() });
        bad(Limit { amount: 1, window: Window::Smooth { length_ms: DAY_MS, burst: Some(1_001) }, ..good.clone() });
        bad(Limit { each: vec![Dimension::Key, Dimension::Key], ..good.clone() });
    }
}
