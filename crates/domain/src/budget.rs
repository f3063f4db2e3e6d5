//! Budgets: caps on what a scope may use up, once or per period.
//!
//! A budget names a scope by filters (all must match) and may count each value of some dimensions by itself ("$5 a day
//! for each end user"). Which counter a request falls into is decided here; the counters are in the account's book.

use crate::calendar::{Calendar, Period, Zone};
use crate::ids::{BudgetId, KeyId, ProjectId};
use crate::ledger::{BudgetLimit, Counted, Metric};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
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

    /// All requests of a key fall under it, in one counter, or none does: it does not look at what they are for.
    pub fn is_same_for_a_key(&self) -> bool {
        let Scope { project: _, key: _, end_user, model, tag } = &self.scope;
        let of_requests = [Dimension::EndUser, Dimension::Model];
        end_user.is_none()
            && model.is_none()
            && tag.is_none()
            && !of_requests.iter().any(|dimension| self.each.contains(dimension))
    }

    /// The same in a period that is known; it is asked for only where the budget limits the request.
    pub fn limit_in(&self, asking: &Asking<'_>, period: impl FnOnce() -> Period) -> Option<BudgetLimit> {
        if !self.scope.matches(asking) {
            return None;
        }
        let counted = Counted { budget: self.id, subject: subject(&self.each, asking), period: period() };
        Some(BudgetLimit { counted, name: self.name.clone(), metric: self.metric, limit: self.limit })
    }
}

/// Which counter of a budget a request falls into: the values of the dimensions that it counts each of. Lengths stand
/// before texts, so that no end user can be named into another's counter.
fn subject(each: &[Dimension], asking: &Asking<'_>) -> Arc<str> {
    use std::fmt::Write;
    if each.is_empty() {
        return Arc::default();
    }
    let mut subject = String::new();
    for dimension in each {
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

/// Which values a counter is for, of the dimensions that its budget counts each of. An inner `None` is for requests that
/// name none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The project.
    pub project: Option<Option<ProjectId>>,
    /// The key.
    pub key: Option<KeyId>,
    /// The end user.
    pub end_user: Option<Option<Arc<str>>>,
    /// The model.
    pub model: Option<Arc<str>>,
}

impl Values {
    /// The values that a counter's subject was made of; `None` if no budget makes such a subject.
    pub fn of_subject(subject: &str) -> Option<Self> {
        let (mut values, mut rest) = (Self::default(), subject);
        while !rest.is_empty() {
            let (dimension, after) = rest.split_once(' ')?;
            rest = match dimension {
                "project" => {
                    let (id, after) = id(after)?;
                    values.project = Some((id != 0).then_some(ProjectId(id)));
                    after
                }
                "key" => {
                    let (id, after) = id(after)?;
                    values.key = Some(KeyId(id));
                    after
                }
                "end_user" => {
                    let (name, after) = text(after)?;
                    values.end_user = Some((!name.is_empty()).then(|| name.into()));
                    after
                }
                "model" => {
                    let (name, after) = text(after)?;
                    values.model = Some(name.into());
                    after
                }
                _ => return None,
            };
            if let Some(next) = rest.strip_prefix(',') {
                rest = next;
            } else if !rest.is_empty() {
                return None;
            }
        }
        Some(values)
    }

    /// The subject of the counter of a budget that counts each of those dimensions; `None` if these are values of others.
    pub fn subject(&self, each: &[Dimension]) -> Option<Arc<str>> {
        let Self { project, key, end_user, model } = self;
        let given = [
            (Dimension::Project, project.is_some()),
            (Dimension::Key, key.is_some()),
            (Dimension::EndUser, end_user.is_some()),
            (Dimension::Model, model.is_some()),
        ];
        if given.into_iter().any(|(dimension, is_given)| is_given != each.contains(&dimension)) {
            return None;
        }
        let asking = Asking {
            project: project.flatten(),
            key: key.unwrap_or_default(),
            end_user: end_user.as_ref().and_then(Option::as_deref),
            model: model.as_deref().unwrap_or_default(),
            tags: &[],
        };
        Some(subject(each, &asking))
    }
}

/// For people: `end user ann, model gpt-4o`; `no end user` where requests name none.
impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut one = |name: &str, value: Option<&dyn fmt::Display>| {
            match value {
                Some(value) => write!(f, "{separator}{name} {value}")?,
                None => write!(f, "{separator}no {name}")?,
            }
            separator = ", ";
            Ok(())
        };
        if let Some(project) = &self.project {
            one("project", project.as_ref().map(|id| id as &dyn fmt::Display))?;
        }
        if let Some(key) = &self.key {
            one("key", Some(key))?;
        }
        if let Some(end_user) = &self.end_user {
            one("end user", end_user.as_ref().map(|name| name as &dyn fmt::Display))?;
        }
        if let Some(model) = &self.model {
            one("model", Some(model))?;
        }
        Ok(())
    }
}

/// An id, and what follows it.
fn id(text: &str) -> Option<(i64, &str)> {
    let end = text.find(',').unwrap_or(text.len());
    let (id, rest) = text.split_at(end);
    Some((id.parse().ok()?, rest))
}

/// A text behind its length, and what follows it.
fn text(text: &str) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
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
    fn only_what_a_key_alone_decides_is_the_same_for_all_its_requests() {
        let check = |scope: &str, each: &[Dimension], expected: bool| {
            let scope: Scope = serde_json::from_str(scope).unwrap();
            assert_eq!(budget(scope, each).is_same_for_a_key(), expected);
        };
        check("{}", &[], true);
        check(r#"{"project":3,"key":7}"#, &[Dimension::Project, Dimension::Key], true);
        check(r#"{"end_user":"ann"}"#, &[], false);
        check(r#"{"model":"gpt-4o*"}"#, &[], false);
        check(r#"{"tag":"eval"}"#, &[], false);
        check("{}", &[Dimension::Key, Dimension::EndUser], false);
        check("{}", &[Dimension::Model], false);
    }

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
    fn values_are_told_in_words() {
        let check = |subject: &str, words: Option<&str>| {
            assert_eq!(Values::of_subject(subject).map(|values| values.to_string()).as_deref(), words, "{subject}");
        };
        check("", Some(""));
        check("end_user 3:ann", Some("end user ann"));
        check("end_user 0:", Some("no end user"));
        check("project 0,key 7,model 10:mock-model", Some("no project, key 7, model mock-model"));
        for damaged in ["end_user", "end_user 4:ann", "end_user 2:ann", "team 1", "key x", "key 7;", "model 1:\u{e9}"] {
            check(damaged, None);
        }
        let ann = Values { end_user: Some(Some("ann".into())), ..Values::default() };
        assert_eq!(ann.subject(&[Dimension::EndUser]).as_deref(), Some("end_user 3:ann"));
        assert_eq!(ann.subject(&[Dimension::EndUser, Dimension::Key]), None);
        assert_eq!(ann.subject(&[]), None);
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
                let subject = subject(&each, asking);
                // It is read back as what it was made of.
                let values = Values::of_subject(&subject).unwrap();
                let named = Some((!end_user.is_empty()).then(|| end_user.into()));
                assert_eq!((&values.end_user, values.model.as_deref()), (&named, Some(model)), "{subject}");
                assert_eq!(values.subject(&each).as_deref(), Some(&*subject));
                assert!(seen.insert(subject), "{end_user:?} {model:?}");
            }
        }
    }
}
