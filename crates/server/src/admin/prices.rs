//! `/api/v1/prices`: what models cost. A changed price is a new version; past charges keep theirs.

use super::error::{ErrorObject, Problem};
use super::extract::{Body, Params};
use super::operator::Operator;
use super::page::{Page, checked_limit};
use super::values::{checked_model, rfc3339};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::PriceId;
use domain::price::PriceSheet;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts;
use store::prices::{self, PriceSource, PriceVersion};
use utoipa::{IntoParams, ToSchema};

/// Most prices of one page: the whole shipped book in two.
const LIMIT_MAX: u32 = 2000;

/// A price that counts now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PriceObject {
    /// The version, as charges name it.
    #[schema(value_type = i64)]
    pub id: PriceId,
    /// The model.
    pub model: String,
    /// The provider it holds for; null is any.
    pub provider: Option<String>,
    /// Who set it: `book`, `config` or `operator`. Later ones win.
    #[schema(example = "operator")]
    pub source: String,
    /// What kind of model it is, if the book says.
    pub mode: Option<String>,
    /// The price: decimal strings in USD.
    #[schema(value_type = Object, example = json!({"input_per_million": "1.00", "output_per_million": "2.00"}))]
    pub price: PriceSheet,
    /// Since when it counts.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// A price to set.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPrice {
    /// The model, by its public name or the upstream's.
    pub model: String,
    /// The provider it holds for. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The price, as in the configuration file: per million tokens, or `model_rate` with `completion_multiplier`.
    #[schema(value_type = Object, example = json!({"input_per_million": "1.00", "output_per_million": "2.00"}))]
    pub price: PriceSheet,
}

/// Which prices to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only models whose name contains this.
    model: Option<String>,
    /// Only prices set by `book`, `config` or `operator`.
    source: Option<String>,
    /// Only versions with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 2000. Default 100.
    limit: Option<u32>,
}

/// Which price to remove.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RemoveParams {
    /// The model.
    model: String,
    /// The provider that the price was set for, if it was.
    provider: Option<String>,
}

impl From<PriceVersion> for PriceObject {
    fn from(version: PriceVersion) -> Self {
        Self {
            id: version.id,
            model: version.model,
            provider: version.provider,
            source: version.source.name().to_owned(),
            mode: version.mode,
            price: version.sheet,
            created_at: rfc3339(version.created_at),
        }
    }
}

/// List the prices that count now.
#[utoipa::path(get, path = "/api/v1/prices", operation_id = "list_prices", tag = "prices", params(ListParams),
    responses((status = 200, body = Page<PriceObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<PriceObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let sources = [PriceSource::Book, PriceSource::Config, PriceSource::Operator].map(PriceSource::name);
    if params.source.as_deref().is_some_and(|source| !sources.contains(&source)) {
        return Err(Problem::bad_field("source", "source is \"book\", \"config\" or \"operator\"."));
    }
    let mut versions = app.database.read(prices::current).await?;
    versions.retain(|version| {
        version.id.0 > params.after.unwrap_or(0)
            && params.model.as_deref().is_none_or(|part| version.model.contains(part))
            && params.source.as_deref().is_none_or(|source| version.source.name() == source)
    });
    let Page { data, next } = Page::of(versions, limit, |version: &PriceVersion| version.id.0);
    Ok(Json(Page { data: data.into_iter().map(PriceObject::from).collect(), next }))
}

/// Set a price. It wins over the configuration file's and the shipped book's from the next request on.
#[utoipa::path(put, path = "/api/v1/prices", operation_id = "set_price", tag = "prices", request_body = SetPrice,
    responses((status = 200, body = PriceObject), (status = 400, body = ErrorObject)))]
pub async fn set(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<SetPrice>,
) -> Result<Json<PriceObject>, Problem> {
    checked_model(&asked.model)?;
    checked_provider(asked.provider.as_deref())?;
    let now = app.now();
    let set = app.database.write(move |transaction| {
        let SetPrice { model, provider, price } = &asked;
        let source = PriceSource::Operator;
        let version = prices::set(transaction, provider.as_deref(), model, source, None, price, now)?;
        let detail = json!({ "provider": provider, "price": price, "version": version.id });
        accounts::audit(transaction, now, &operator.0, "price.set", &format!("model {model}"), &detail)?;
        Ok(version)
    });
    let version = set.await?;
    app.reload_prices().await?;
    Ok(Json(version.into()))
}

/// Withdraw an operator's price: what the file or the book says counts again.
#[utoipa::path(delete, path = "/api/v1/prices", operation_id = "remove_price", tag = "prices", params(RemoveParams),
    responses((status = 204), (status = 404, description = "No operator set that price", body = ErrorObject)))]
pub async fn remove(
    State(app): State<Arc<App>>,
    operator: Operator,
    Params(asked): Params<RemoveParams>,
) -> Result<StatusCode, Problem> {
    let now = app.now();
    let removed = app.database.write(move |transaction| {
        let RemoveParams { model, provider } = &asked;
        let removed = prices::retire(transaction, provider.as_deref(), model, PriceSource::Operator, now)?;
        if removed {
            let detail = json!({ "provider": provider });
            accounts::audit(transaction, now, &operator.0, "price.remove", &format!("model {model}"), &detail)?;
        }
        Ok(removed)
    });
    if !removed.await? {
        let message = "No operator set a price for that model and provider. Prices of the file are changed there.";
        return Err(Problem::not_found(message));
    }
    app.reload_prices().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn checked_provider(provider: Option<&str>) -> Result<(), Problem> {
    match provider {
        Some(name) if checked_model(name).is_err() => {
            Err(Problem::bad_field("provider", "A provider's name is short and printable. Leave it out for any."))
        }
        _ => Ok(()),
    }
}
