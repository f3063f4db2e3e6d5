//! What a key has used and has left, in the shapes that client tools know from OpenAI and from one-api's family.
//!
//! All of them work with the caller's own key, also when it is out of quota or has expired: that is when people
//! look. Amounts in quota units are 1/500,000 USD.

use crate::app::App;
use crate::relay::{Asker, known};
use crate::router::{Peer, json};
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use domain::Nanos;
use domain::ledger::KeyTotals;
use domain::money::NANOS_PER_USD;
use gateway::{Case, Failure};
use http::{HeaderMap, StatusCode, Uri};
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::json as value;
use std::net::IpAddr;
use std::sync::Arc;
use store::keys::{Caller, KeyStatus};
use store::usage::{Scope, cost_between};

/// Quota units in one USD, as one-api's family counts.
const UNITS_PER_USD: i64 = 500_000;
/// Nano-USD in a cent.
const NANOS_PER_CENT: i64 = NANOS_PER_USD / 100;

/// `start_date` and `end_date`, days in UTC, both included.
#[derive(Deserialize)]
pub struct Range {
    start_date: Option<String>,
    end_date: Option<String>,
}

/// What a key stands at.
struct Standing {
    caller: Arc<Caller>,
    totals: KeyTotals,
    /// What it can still use: its quota's rest, or less if the wallet holds less. What is reserved by requests under
    /// way still counts as left.
    left: Nanos,
}

impl Standing {
    fn granted(&self) -> Nanos {
        Nanos(self.totals.used.0.saturating_add(self.left.0))
    }

    fn is_unlimited(&self) -> bool {
        self.caller.key.quota.money.is_none()
    }

    fn expires_at(&self) -> i64 {
        self.caller.key.expires_at.map_or(0, |at| at.seconds())
    }
}

/// `GET /v1/dashboard/billing/usage`: cents, exact to the nano-USD.
pub async fn usage(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    Query(range): Query<Range>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&app, peer, &uri, &headers, async |standing| {
        let used = used_between(&app, &range, standing).await?;
        Ok(format!(r#"{{"object":"list","total_usage":{}}}"#, cents(used)))
    })
    .await
}

async fn used_between(app: &App, range: &Range, standing: Standing) -> Result<Nanos, Failure> {
    let first = day(range.start_date.as_deref(), "start_date")?.unwrap_or(i64::MIN);
    let last = day(range.end_date.as_deref(), "end_date")?.unwrap_or(i64::MAX);
    if (first, last) == (i64::MIN, i64::MAX) {
        return Ok(standing.totals.used);
    }
    app.ledger.flush().await.map_err(unavailable)?;
    let scope = Scope::Key(standing.caller.key.id);
    app.database.read(move |connection| cost_between(connection, scope, first, last)).await.map_err(unavailable)
}

/// `GET /v1/dashboard/billing/subscription`
pub async fn subscription(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&app, peer, &uri, &headers, async |standing| {
        let limit = usd(standing.granted());
        Ok(format!(
            r#"{{"object":"billing_subscription","has_payment_method":true,"soft_limit_usd":{limit},"hard_limit_usd":{limit},"system_hard_limit_usd":{limit},"access_until":{}}}"#,
            standing.expires_at()
        ))
    })
    .await
}

/// `GET /api/user/token`
pub async fn user_token(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&app, peer, &uri, &headers, async |standing| {
        let Caller { key, account, .. } = &*standing.caller;
        let tokens_left = key.quota.tokens.map(|limit| limit.saturating_sub(standing.totals.used_tokens));
        let body = value!({
            "success": true,
            "message": "",
            "data": {
                "id": key.id,
                "name": key.name,
                "account": account.name,
                "status": key.status.name(),
                "remain_quota": standing.left.quota_units(UNITS_PER_USD),
                "used_quota": standing.totals.used.quota_units(UNITS_PER_USD),
                "unlimited_quota": standing.is_unlimited(),
                "remain_usd": standing.left,
                "used_usd": standing.totals.used,
                "remain_tokens": tokens_left,
                "used_tokens": standing.totals.used_tokens,
                "request_count": standing.totals.requests,
                "expired_time": if standing.expires_at() == 0 { -1 } else { standing.expires_at() },
            },
        });
        Ok(body.to_string())
    })
    .await
}

/// `GET /api/usage/token/`
pub async fn token_usage(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&app, peer, &uri, &headers, async |standing| {
        let key = &standing.caller.key;
        let limits: serde_json::Map<_, _> =
            key.models.iter().flatten().map(|model| (model.clone(), value!(true))).collect();
        let body = value!({
            "code": true,
            "message": "ok",
            "data": {
                "object": "token_usage",
                "name": key.name,
                "total_granted": standing.granted().quota_units(UNITS_PER_USD),
                "total_used": standing.totals.used.quota_units(UNITS_PER_USD),
                "total_available": standing.left.quota_units(UNITS_PER_USD),
                "unlimited_quota": standing.is_unlimited(),
                "model_limits": limits,
                "model_limits_enabled": key.models.is_some(),
                "expires_at": standing.expires_at(),
            },
        });
        Ok(body.to_string())
    })
    .await
}

/// Answers whoever asks, if they may, with what `tell` makes of how they stand.
async fn answer(
    app: &App,
    peer: IpAddr,
    uri: &Uri,
    headers: &HeaderMap,
    tell: impl AsyncFnOnce(Standing) -> Result<String, Failure>,
) -> Response {
    let mut asker = Asker::unknown(app, peer);
    let told = async {
        let caller = known(app, headers, uri, &mut asker).await?;
        tell(standing(app, caller).await?).await
    };
    match told.await {
        Ok(body) => asker.told(app, None, json(StatusCode::OK, body)),
        Err(failure) => asker.failed(app, failure, headers),
    }
}

/// How they stand. Expired keys may look; blocked ones may not.
async fn standing(app: &App, caller: Arc<Caller>) -> Result<Standing, Failure> {
    if caller.key.status != KeyStatus::Active {
        let message = format!("The key \"{}\" is blocked. Use another key, or ask its owner.", caller.key.name);
        return Err(Failure::new(Case::KeyDisabled, message));
    }
    let (account, key) = (caller.account.id, caller.key.id);
    let pots = app.ledger.totals(account).await.map_err(unavailable)?;
    let totals = app.ledger.key_totals(account, key).await.map_err(unavailable)?;
    let wallet = pots.available.0.saturating_add(pots.held.0).saturating_add(pots.debt.0).max(0);
    let of_quota = caller.key.quota.money.map_or(i64::MAX, |quota| quota.0.saturating_sub(totals.used.0).max(0));
    Ok(Standing { caller, totals, left: Nanos(wallet.min(of_quota)) })
}

fn unavailable(error: store::StoreError) -> Failure {
    Failure::new(Case::StoreUnavailable, "Usage cannot be read now. Try again in a moment.")
        .retry_after(std::time::Duration::from_secs(1))
        .detail(error.to_string())
}

fn day(text: Option<&str>, param: &'static str) -> Result<Option<i64>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let bad = || {
        let message = format!("{param} must be a day such as 2026-11-22.");
        Failure::new(Case::BadRequest, message).param(Some(param))
    };
    let date: Date = text.parse().map_err(|_| bad())?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad())?.timestamp();
    Ok(Some(domain::Timestamp(at.as_millisecond()).day()))
}

/// USD as a JSON number, exact.
fn usd(amount: Nanos) -> String {
    amount.to_string()
}

/// Cents as a JSON number, exact.
fn cents(amount: Nanos) -> String {
    let (whole, fraction) = (amount.0 / NANOS_PER_CENT, (amount.0 % NANOS_PER_CENT).abs());
    let text = format!("{whole}.{fraction:07}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_are_exact() {
        for (nanos, text) in
            [(0, "0"), (10_000_000, "1"), (12_340_000_000, "1234"), (1, "0.0000001"), (15_000_000, "1.5")]
        {
            assert_eq!(cents(Nanos(nanos)), text);
        }
    }

    #[test]
    fn days_are_read_or_refused() {
        assert_eq!(day(Some("1970-01-02"), "start_date").unwrap(), Some(1));
        assert_eq!(day(None, "start_date").unwrap(), None);
        assert!(day(Some("yesterday"), "start_date").is_err());
        assert!(day(Some("2026-02-30"), "start_date").is_err());
    }
}
