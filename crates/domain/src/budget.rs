//! Budgets: caps on what a scope may use up, once or per period.
//!
//! A budget names a scope by filters (all must match) and may count each value of some dimensions by itself ("$5 a day
//! for each end user"). Which counter a request falls into is decided here; the counters are in the account's book.

use crate::calendar::{Calendar, Period, Zone};
use crate::ids::{BudgetId, KeyId, ProjectId};
use crate::ledger::{BudgetLimit, Counted, Metric};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A budget of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its id.
    pub id: BudgetId,
    /// Its name, for messages.
    pub name: Arc<str>,
    /// What it is for.
    pub scope: Scope,
    /// Counted by itself for each value of these.
    pub each: Vec<Dimension>,
    /// What is counted.
    pub metric: Metric,
    /// How much there is: nano-USD, tokens or requests.
    pub limit: i64,
    /// When it starts anew.
    pub period: Calendar,
}

impl BudgetId {
    /// The budget that an account's tier makes of its monthly amount. It has no row: those are counted from 1.
    pub const TIER: Self = Self(0);
}

/// Which requests a budget is for: those that match every filter that is set. None set is the whole account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Requests of keys of that project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Requests of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// Requests for that end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<Arc<str>>,
    /// Requests for that model; a trailing `*` stands for any ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<str>>,
    /// Requests with that tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Arc<str>>,
}

/// What can be counted each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Each project; keys without one together.
    Project,
    /// Each key.
    Key,
    /// Each end user; requests that name none together.
    EndUser,
    /// Each model.
    Model,
}

/// What a request is, as far as budgets ask.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
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
}

impl Scope {
    /// Whether any request of a key in that project can be in the scope.
    pub fn can_match(&self, key: KeyId, project: Option<ProjectId>) -> bool {
        self.key.is_none_or(|wanted| wanted == key) && self.project.is_none_or(|wanted| Some(wanted) == project)
    }

    /// Whether a request is in the scope.
    pub fn matches(&self, asking: &Asking<'_>) -> bool {
        self.can_match(asking.key, asking.project)
            && self.end_user.as_deref().is_none_or(|user| asking.end_user == Some(user))
            && self.model.as_deref().is_none_or(|model| matches_model(model, asking.model))
            && self.tag.as_deref().is_none_or(|tag| asking.tags.contains(&tag))
    }
}

/// A trailing `*` stands for any ending.
pub(crate) fn matches_model(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => pattern == model,
    }
}

impl Budget {
    /// The limit that this budget puts on a request, if it is for it.
    pub fn limit_for(&self, asking: &Asking<'_>, zone: &Zone, at: Timestamp) -> Option<BudgetLimit> {
        self.limit_in(asking, || self.period.period(zone, at))
    }

    /// The same in a period that is known; it is asked for only where the budget limits the request.
    pub fn limit_in(&self, asking: &Asking<'_>, period: impl FnOnce() -> Period) -> Option<BudgetLimit> {
        if !self.scope.matches(asking) {
            return None;
        }
        let counted = Counted { budget: self.id, subject: self.subject(asking), period: period() };
        Some(BudgetLimit { counted, name: self.name.clone(), metric: self.metric, limit: self.limit })
    }

    /// Which counter of the budget a request falls into: the values of its dimensions. Lengths stand before texts, so
    /// that no end user can be named into another's counter.
    fn subject(&self, asking: &Asking<'_>) -> Arc<str> {
        use std::fmt::Write;
        if self.each.is_empty() {
            return Arc::default();
        }
        let mut subject = String::new();
        for dimension in &self.each {
            let separator = if subject.is_empty() { "" } else { "," };
            let written = match dimension {
                Dimension::Project => write!(subject, "{separator}project {}", asking.project.map_or(0, |id| id.0)),
                Dimension::Key => write!(subject, "{separator}key {}", asking.key),
                Dimension::EndUser => {
                    let user = asking.end_user.unwrap_or_default();
                    write!(subject, "{separator}end_user {}:{user}", user.len())
                }
                Dimension::Model => write!(subject, "{separator}model {}:{}", asking.model.len(), asking.model),
            };
            written.expect("writing to a string cannot fail");
        }
        subject.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(scope: Scope, each: &[Dimension]) -> Budget {
        Budget {
            id: BudgetId(1),
            name: "b".into(),
            scope,
            each: each.to_vec(),
            metric: Metric::Money,
            limit: 5,
            period: Calendar::Once,
        }
    }

    const ASKING: Asking<'_> = Asking {
        project: Some(ProjectId(3)),
        key: KeyId(7),
        end_user: Some("ann"),
        model: "gpt-4o-mini",
        tags: &["nightly", "eval"],
    };

    #[test]
    fn a_scope_matches_when_every_filter_does() {
        let check = |json: &str, expected: bool| {
            let scope: Scope = serde_json::from_str(json).unwrap();
            assert_eq!(scope.matches(&ASKING), expected, "{json}");
        };
        check("{}", true);
        check(r#"{"project":3,"key":7,"end_user":"ann","model":"gpt-4o-mini","tag":"eval"}"#, true);
        check(r#"{"model":"gpt-4o*"}"#, true);
        check(r#"{"model":"gpt-4o"}"#, false);
        check(r#"{"project":4}"#, false);
        check(r#"{"key":8}"#, false);
        check(r#"{"end_user":"Ann"}"#, false);
        check(r#"{"tag":"night"}"#, false);
        check(r#"{"project":3,"tag":"prod"}"#, false);
    }

    #[test]
    fn each_value_has_a_counter_of_its_own() {
        let zone = Zone::default();
        let subject = |each: &[Dimension], asking: &Asking<'_>| {
            let limit = budget(Scope::default(), each).limit_for(asking, &zone, Timestamp(0)).unwrap();
            limit.counted.subject.to_string()
        };
        assert_eq!(subject(&[], &ASKING), "");
        assert_eq!(subject(&[Dimension::Key, Dimension::EndUser], &ASKING), "key 7,end_user 3:ann");
        let nobody = Asking { end_user: None, ..ASKING };
        assert_eq!(subject(&[Dimension::EndUser], &nobody), "end_user 0:");
        let sly = Asking { end_user: Some("a,model 1:b"), model: "c", ..ASKING };
        let plain = Asking { end_user: Some("a"), model: "b,model 1:c", ..ASKING };
        let each = [Dimension::EndUser, Dimension::Model];
        assert_ne!(subject(&each, &sly), subject(&each, &plain));
    }

    #[test]
    fn a_limit_is_for_the_period_of_the_request() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let daily = Budget { period: Calendar::Day, ..budget(Scope { key: Some(KeyId(7)), ..Scope::default() }, &[]) };
        // 23:30 UTC on 31 December is 00:30 of the next year in Berlin.
        let at = Timestamp(1_767_223_800_000);
        let limit = daily.limit_for(&ASKING, &zone, at).unwrap();
        assert_eq!((limit.metric, limit.limit, limit.counted.budget), (Metric::Money, 5, BudgetId(1)));
        assert_eq!(limit.counted.period.start, Timestamp(1_767_222_000_000));
        assert_eq!(daily.limit_for(&Asking { key: KeyId(8), ..ASKING }, &zone, at), None);
    }

    #[test]
    fn who_names_nothing_is_counted_together_and_never_in_anothers_counter() {
        let zone = Zone::default();
        let subject = |each: &[Dimension], asking: Asking<'_>| {
            budget(Scope::default(), each).limit_for(&asking, &zone, Timestamp(0)).unwrap().counted.subject
        };
        let nobody = Asking { project: None, end_user: None, ..ASKING };
        let each = [Dimension::Project, Dimension::EndUser];
        assert_eq!(&*subject(&each, nobody), "project 0,end_user 0:");
        // Names made to look like the rest of another subject.
        let names = ["", "a", "0:", "1:a", "a,model 1:a", "a,model 1:b,", "1:a,model 1:a", "\u{0}", "ä", "a\u{308}"];
        let each = [Dimension::EndUser, Dimension::Model];
        let mut seen = std::collections::HashSet::new();
        for end_user in names {
            for model in names {
                let asking = Asking { end_user: Some(end_user), model, ..ASKING };
                assert!(seen.insert(subject(&each, asking)), "{end_user:?} {model:?}");
            }
        }
    }
}
