//! `/api/v1/tiers`: what accounts have to have paid to be promoted, and what they pay then.

use super::error::{ErrorObject, Problem};
use super::extract::Body;
use super::operator::Operator;
use super::values::present;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::rate::Weight;
use domain::tier::Tier;
use domain::{AccountId, Multiplier, Nanos, TierId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::{StoreError, accounts, tiers};
use utoipa::ToSchema;

/// A tier.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TierObject {
    /// Its id, which is its rank: greater ones are higher.
    #[schema(value_type = i64)]
    pub id: TierId,
    /// Its name.
    pub name: String,
    /// What has to be paid in all, in USD: top-ups and cards, less refunds and disputes. Null: given by operators alone.
    #[schema(value_type = Option<String>, example = "100.00")]
    pub paid: Option<Nanos>,
    /// Days that have to have passed since the first payment.
    pub days: u32,
    /// What its accounts pay of list prices.
    #[schema(value_type = String, example = "1.00")]
    pub multiplier: Multiplier,
    /// The most that its accounts can consume in a month of their time zone, in USD, whoever pays; null is without limit.
    /// "0.00" is for accounts that have paid nothing: they use up what they were given, and nothing else limits them.
    #[schema(value_type = Option<String>, example = "500.00")]
    pub monthly: Option<Nanos>,
    /// What its accounts get of limits that accounts share, beside others.
    #[schema(value_type = u32, example = 1)]
    pub weight: Weight,
}

/// Every tier.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Tiers {
    /// The lowest first.
    pub data: Vec<TierObject>,
}

/// What a tier is to be. What is absent stays; a new tier needs a name.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTier {
    /// Its id, which is its rank.
    pub id: i64,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What has to be paid in all, in USD. Null: given by operators alone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "100.00")]
    pub paid: Option<Option<Nanos>>,
    /// Days that have to have passed since the first payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// What its accounts pay of list prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0.9")]
    pub multiplier: Option<Multiplier>,
    /// The most that its accounts can consume in a month of their time zone, in USD, whoever pays; null is without limit.
    /// "0.00" is for accounts that have paid nothing: they use up what they were given, and nothing else limits them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "500.00")]
    pub monthly: Option<Option<Nanos>>,
    /// What its accounts get of limits that accounts share, beside others, from 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, example = 1)]
    pub weight: Option<Weight>,
}

impl From<Tier> for TierObject {
    fn from(tier: Tier) -> Self {
        let Tier { id, name, paid, days, multiplier, monthly, weight } = tier;
        Self { id, name: name.to_string(), paid, days, multiplier, monthly, weight }
    }
}

/// List tiers.
#[utoipa::path(get, path = "/api/v1/tiers", operation_id = "list_tiers", tag = "tiers",
    responses((status = 200, body = Tiers)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Tiers>, Problem> {
    let tiers = app.database.read(tiers::list).await?;
    Ok(Json(Tiers { data: tiers.into_iter().map(TierObject::from).collect() }))
}

/// Set a tier, or make one.
///
/// Accounts that qualify by it are promoted within a minute; none is demoted.
#[utoipa::path(put, path = "/api/v1/tiers", operation_id = "set_tier", tag = "tiers", request_body = SetTier,
    responses((status = 200, body = TierObject), (status = 400, body = ErrorObject)))]
pub async fn set(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<SetTier>,
) -> Result<Json<TierObject>, Problem> {
    let now = app.now();
    let set = app.database.write(move |transaction| {
        let id = TierId(asked.id);
        let present = tiers::list(transaction)?.into_iter().find(|tier| tier.id == id);
        let name = asked.name.as_deref().map(str::trim);
        let tier = match (present, name) {
            (Some(tier), name) => Tier { name: name.map_or(tier.name.clone(), Arc::from), ..tier },
            (None, Some(name)) => {
                let (multiplier, weight) = (Multiplier::ONE, Weight::ONE);
                Tier { id, name: name.into(), paid: None, days: 0, multiplier, monthly: None, weight }
            }
            (None, None) => return Err(StoreError::Refused("a new tier needs a name".to_owned())),
        };
        let tier = Tier {
            paid: asked.paid.unwrap_or(tier.paid),
            days: asked.days.unwrap_or(tier.days),
            multiplier: asked.multiplier.unwrap_or(tier.multiplier),
            monthly: asked.monthly.unwrap_or(tier.monthly),
            weight: asked.weight.unwrap_or(tier.weight),
            ..tier
        };
        tiers::set(transaction, &tier)?;
        accounts::audit(transaction, now, &operator.0, "tier.set", &format!("tier {id}"), &json!(asked))?;
        Ok(tier)
    });
    let tier = set.await?;
    app.forget_callers();
    Ok(Json(tier.into()))
}

/// Promotes an account whose payments have changed, if that is due. The payment itself is booked: a failure is logged, and
/// the next payment does it again.
pub async fn promote(app: &App, account: AccountId) {
    let now = app.now();
    match app.database.write(move |transaction| tiers::refresh(transaction, account, now)).await {
        Ok(None) => {}
        Ok(Some(tier)) => {
            tracing::info!(%account, tier = %tier.name, "an account was promoted by what it has paid");
            app.forget_callers();
        }
        Err(error) => tracing::error!(%account, %error, "cannot see whether an account is to be promoted"),
    }
}
