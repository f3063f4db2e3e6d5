//! What limits a request beside the money that is there: the key's quota, and the budgets that the request falls under.

use crate::failure::{Case, Failure};
use domain::Timestamp;
use domain::budget::Asking;
use domain::ledger::Limits;
use protocol::openai::{Demand, add_tags};
use store::keys::Caller;

/// Adds the tags of the header `x-tollgate-tags` to those that the request has in its body.
pub fn tag(request: &mut Demand<'_>, tags: &str) -> Result<(), Failure> {
    add_tags(&mut request.tags, tags)
        .map_err(|bad| Failure::new(Case::BadRequest, format!("The header x-tollgate-tags: {}.", bad.message)))
}

/// The limits of a request that is decided on at `at`. They name the periods of that moment, and go with the request
/// to its end.
pub fn limits(caller: &Caller, request: &Demand<'_>, at: Timestamp) -> Limits {
    let Caller { key, budgets, zone, .. } = caller;
    if budgets.is_empty() {
        return Limits::quota(key.quota);
    }
    let tags: Vec<&str> = request.tags.iter().map(String::as_str).collect();
    let asking = Asking {
        project: key.project,
        key: key.id,
        end_user: request.end_user.as_deref(),
        model: &request.model,
        tags: &tags,
    };
    Limits { quota: key.quota, budgets: budgets.limits_for(&asking, zone, at), ..Limits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use bytes::Bytes;
    use domain::budget::{Budget, Dimension, Scope};
    use domain::calendar::Calendar;
    use domain::ledger::{Hold, Metric, Parts, Refusal};
    use domain::{AccountId, BudgetId, KeyId, Multiplier, Nanos, PriceId, Usage};
    use protocol::openai::{Endpoint, Request};
    use std::sync::Arc;
    use store::ledger::{HoldError, Ledger};

    const ACCOUNT: AccountId = AccountId(1);

    fn caller(zone: &str, budgets: &[Budget]) -> Caller {
        let budgets = Arc::new(budgets.iter().cloned().collect());
        Caller { budgets, zone: zone.parse().unwrap(), ..fixture::caller() }
    }

    fn budget(scope: Scope, each: &[Dimension], period: Calendar) -> Budget {
        let (id, name, metric) = (BudgetId(1), "b".into(), Metric::Money);
        Budget { id, name, scope, each: each.to_vec(), metric, limit: 10, period }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    /// How many budgets limit such a request, and for whom they count.
    fn subjects(caller: &Caller, fields: &str, tags: Option<&str>) -> Vec<String> {
        let body = Bytes::from(format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}]{fields}}}"#));
        let mut request = Request::read(Endpoint::Chat, &body).unwrap();
        if let Some(tags) = tags {
            tag(&mut request, tags).unwrap();
        }
        let limits = limits(caller, &request, at("2026-11-22T12:00:00Z"));
        limits.budgets.iter().map(|limit| limit.counted.subject.to_string()).collect()
    }

    #[test]
    fn end_users_and_tags_come_from_wherever_they_are_given() {
        let nothing: [String; 0] = [];
        let of_user = caller("UTC", &[budget(Scope::default(), &[Dimension::EndUser], Calendar::Day)]);
        assert_eq!(subjects(&of_user, r#","user":"ann""#, None), ["end_user 3:ann"]);
        assert_eq!(subjects(&of_user, r#","metadata":{"end_user":"bob"}"#, None), ["end_user 3:bob"]);
        assert_eq!(subjects(&of_user, "", None), ["end_user 0:"]);
        let of_tag = caller("UTC", &[budget(Scope { tag: Some("t".into()), ..Scope::default() }, &[], Calendar::Day)]);
        assert_eq!(subjects(&of_tag, "", Some("s, t")), [""]);
        assert_eq!(subjects(&of_tag, r#","metadata":{"tags":["t"]}"#, Some("s")), [""]);
        assert_eq!(subjects(&of_tag, "", Some("s")), nothing);
        assert_eq!(subjects(&caller("UTC", &[]), "", Some("t")), nothing);
        let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        let mut request = Request::read(Endpoint::Chat, body).unwrap();
        let refused = tag(&mut request, &"x".repeat(200)).unwrap_err();
        assert!(refused.message.starts_with("The header x-tollgate-tags: "), "{}", refused.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_of_a_day_begins_anew_at_midnight_where_the_account_is() {
        let caller = caller("Europe/Berlin", &[budget(Scope::default(), &[], Calendar::Day)]);
        let ledger = Ledger::in_memory(10);
        let (evening, midnight) = (at("2026-11-22T22:59:59.999Z"), at("2026-11-22T23:00:00Z"));
        // Nobody writes this journal, so nothing becomes durable.
        let fund = ledger.top_up(ACCOUNT, Nanos(1_000), "", evening);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), fund).await.is_err());
        let body = br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#;
        let request = Request::read(Endpoint::Chat, body).unwrap();
        let hold = async |now: Timestamp| {
            let terms = Hold {
                key: KeyId(1),
                request: "r".into(),
                model: "m".into(),
                upstream: "u".into(),
                price: PriceId(1),
                multiplier: Multiplier::ONE,
                amount: Nanos(6),
                bound: Usage::tokens(1, 1),
                lease_until: now,
                parts: Parts::new(),
                counted: Arc::default(),
            };
            ledger.hold(ACCOUNT, &terms, &limits(&caller, &request, now), now).await
        };
        let of_today = hold(evening).await.unwrap();
        let Err(HoldError::Refused(Refusal::Budget { budget, held, .. })) = hold(evening).await else {
            panic!("six and six are more than ten")
        };
        assert_eq!((budget.counted.period.end, held), (midnight, 6));
        let of_tomorrow = hold(midnight).await.unwrap();
        // What was held before midnight is charged to the day before: it leaves tomorrow as it is.
        let void = domain::ledger::Resolution::Void { ending: domain::ledger::Ending::ClientLeft };
        ledger.resolve(of_today, void.clone(), midnight);
        assert!(hold(midnight).await.is_err());
        ledger.resolve(of_tomorrow, void, midnight);
        hold(midnight).await.unwrap();
    }
}
