//! `/api/v1/codes`: redemption codes. A code's text is in the answer that makes it and nowhere else.

use super::accounts::{self as api_accounts, AccountObject, AccountRef};
use super::csv::{self, Csv};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::reference::RunsAgain;
use super::values::{rfc3339, stored};
use crate::app::App;
use crate::upkeep::deliver;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::{AccountId, Nanos, Seq, Timestamp};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use store::codes::{self, BATCH_MAX, Code, NewCode, NotRedeemed};
use store::credits::Delivered;
use store::secrets::code_hint;
use store::sql::Transaction;
use store::{StoreError, accounts};
use utoipa::{IntoParams, ToSchema};

/// How long a wrong code counts: 15 minutes.
const WINDOW_MS: i64 = 15 * 60 * 1000;
/// When an account that is stopped may try again, at the latest.
const RETRY_SECONDS: u64 = WINDOW_MS.unsigned_abs() / 1000;
/// Wrong codes that one account can present in that time. Guessing is hopeless at any rate; it need not be cheap.
const WRONG_MAX: u32 = 20;
/// Accounts whose wrong codes are remembered.
const ACCOUNTS_MAX: usize = 10_000;

/// A redemption code, without its text.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CodeObject {
    /// Its id.
    pub id: i64,
    /// Enough of the text to tell it from others.
    #[schema(example = "TG-…JNPST")]
    pub hint: String,
    /// The name of those that were made together.
    pub batch: String,
    /// What it gives, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub amount: Nanos,
    /// It gives a grant that lasts so many days from its redemption; null: it gives money.
    pub grant_days: Option<u32>,
    /// How many accounts can redeem it, each once.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// From then on nobody can; null is never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// Whether it can be redeemed.
    pub status: CodeStatus,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// Whether a code can be redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CodeStatus {
    /// It can.
    Active,
    /// It has been as often as it can be.
    Used,
    /// Its time is over.
    Expired,
    /// An operator revoked it.
    Revoked,
}

impl CodeStatus {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// New codes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCodes {
    /// How many, 1 to 10000. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What each gives, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub amount: Nanos,
    /// How many accounts can redeem each, every one once. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Each gives a grant that lasts so many days from its redemption. Absent: it gives money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_days: Option<u32>,
    /// From then on nobody can redeem them; absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// A name for those that are made together.
    pub batch: String,
}

/// Codes with their texts.
// No `Debug`: what can be printed ends up printed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewCodes {
    /// As many as were asked for.
    pub data: Vec<NewCodeText>,
}

/// A code with its text.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewCodeText {
    /// Its id.
    pub id: i64,
    /// The text. Shown this once.
    #[schema(example = "TG-7K3MQ-X0A9V-2RBCD-E5FGH-JNPST")]
    pub code: String,
}

/// Which codes to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only those of this batch.
    batch: Option<String>,
    /// Only codes with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 200; 1 to 10000 for CSV. Default 100.
    limit: Option<u32>,
}

/// Which codes to revoke.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct BatchParams {
    /// Those of this batch.
    batch: String,
}

/// How many codes were revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// Those that were not before.
    pub revoked: usize,
}

/// A code that is presented.
// No `Debug`: what can be printed ends up printed.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redeem {
    /// Its text. Small letters, spaces and dashes do not matter.
    #[schema(example = "TG-7K3MQ-X0A9V-2RBCD-E5FGH-JNPST")]
    pub code: String,
}

/// A code that was redeemed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Redemption {
    /// The ledger's entry; null: the store was slow, and the credit follows by itself.
    #[schema(value_type = Option<i64>)]
    pub entry: Option<Seq>,
    /// The account after it.
    pub account: AccountObject,
}

/// Wrong codes by account.
#[derive(Default)]
pub struct WrongCodes {
    counts: Mutex<HashMap<AccountId, (u32, Timestamp)>>,
}

impl WrongCodes {
    /// Whether an account may present a code at `now`. Counts it as a wrong one until it is told otherwise, so that many
    /// at once are as many.
    fn begin(&self, account: AccountId, now: Timestamp) -> bool {
        let mut counts = self.counts.lock();
        let is_over = |began: Timestamp| !(began.0..began.0.saturating_add(WINDOW_MS)).contains(&now.0);
        if counts.len() >= ACCOUNTS_MAX && !counts.contains_key(&account) {
            counts.retain(|_, (_, began)| !is_over(*began));
            if counts.len() >= ACCOUNTS_MAX {
                // So many accounts with wrong codes in so short a time: nobody gets to guess on.
                return false;
            }
        }
        let count = counts.entry(account).or_insert((0, now));
        if is_over(count.1) {
            *count = (0, now);
        }
        count.0 += 1;
        count.0 <= WRONG_MAX
    }

    /// The code was a code.
    fn was_right(&self, account: AccountId) {
        if let Some(count) = self.counts.lock().get_mut(&account) {
            count.0 = count.0.saturating_sub(1);
        }
    }
}

fn object(code: Code, now: Timestamp) -> CodeObject {
    let Code { id, hint, terms, used, revoked, created_by, created_at } = code;
    let status = match () {
        () if revoked => CodeStatus::Revoked,
        () if used >= terms.uses => CodeStatus::Used,
        () if terms.expires_at.is_some_and(|expiry| expiry <= now) => CodeStatus::Expired,
        () => CodeStatus::Active,
    };
    CodeObject {
        id,
        hint,
        batch: terms.batch,
        amount: terms.amount,
        grant_days: terms.grant_days,
        uses: terms.uses,
        used,
        expires_at: terms.expires_at.map(rfc3339),
        status,
        created_by,
        created_at: rfc3339(created_at),
    }
}

/// Redeems a code for an account, or tells what became of it where the first request broke off and had redeemed it. Answers
/// with the ledger's entry; `None`: the credit follows by itself.
pub async fn redeem_for(
    app: &App,
    account: AccountId,
    by: Arc<str>,
    code: &str,
    RunsAgain(began): RunsAgain,
) -> Result<Option<Seq>, Problem> {
    let digest = app.authenticator.secrets().code_digest(code);
    if let (Some(began), Some(digest)) = (began, digest) {
        let found = app.database.read(move |connection| codes::redeemed(connection, &digest, account, began)).await?;
        if let Some(reference) = found {
            return credited(app, account, &reference).await;
        }
    }
    let now = app.now();
    if !app.wrong_codes.begin(account, now) {
        return Err(Problem::too_many("Too many wrong codes were presented. Try again in 15 minutes.", RETRY_SECONDS));
    }
    let unknown = || Problem::not_found("There is no such code, or it is over. Look for a mistype.");
    let digest = digest.ok_or_else(unknown)?;
    let redeeming = move |transaction: &Transaction<'_>| codes::redeem(transaction, &digest, account, &by, now);
    let redeemed = app.database.write(redeeming).await?;
    if redeemed != Err(NotRedeemed::Unknown) {
        app.wrong_codes.was_right(account);
    }
    let reference = redeemed.map_err(|why| match why {
        NotRedeemed::Unknown => unknown(),
        NotRedeemed::UsedUp => Problem::in_the_way("code_used", "The code has been redeemed already."),
        NotRedeemed::Twice => Problem::in_the_way("code_used", "This account has redeemed the code already."),
    })?;
    credited(app, account, &reference).await
}

/// Posts the credit of a code that is redeemed, unless it was posted.
async fn credited(app: &App, account: AccountId, reference: &Arc<str>) -> Result<Option<Seq>, Problem> {
    let entry = match deliver(app, reference).await {
        Ok(Delivered::Posted(entry)) => Some(entry),
        Ok(Delivered::Refused(why)) => {
            tracing::error!(%reference, %why, "the ledger refuses what a code gives; it is kept with the reason");
            let message = format!("The code is redeemed, but the ledger refuses what it gives: {why}.");
            return Err(Problem::in_the_way("refused", message));
        }
        // It is on its way, and delivered by itself.
        Err(_) => None,
    };
    app.ledger.touch(account, app.now()).await?;
    Ok(entry)
}

/// Create codes. The answer holds their texts, this once; as CSV where that is accepted.
#[utoipa::path(post, path = "/api/v1/codes", operation_id = "create_codes", tag = "codes", request_body = CreateCodes,
    responses((status = 201, content((NewCodes = "application/json"), (String = "text/csv"))),
              (status = 400, body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    headers: HeaderMap,
    Body(asked): Body<CreateCodes>,
) -> Result<Response, Problem> {
    let count = asked.count.unwrap_or(1);
    if !(1..=BATCH_MAX).contains(&count) {
        return Err(Problem::bad_field("count", format!("count is a number from 1 to {BATCH_MAX}.")));
    }
    let now = app.now();
    let new = NewCode {
        batch: asked.batch.clone(),
        amount: asked.amount,
        grant_days: asked.grant_days,
        uses: asked.uses.unwrap_or(1),
        expires_at: asked.expires_at.map(stored),
    };
    new.check(now)?;
    let secrets = app.authenticator.secrets();
    let made = (0..count).map(|_| {
        let code = secrets.generate_code();
        let digest = secrets.code_digest(&code).expect("a generated code has the form of one");
        (code, digest)
    });
    let made: Vec<_> = made.collect();
    let created = app.database.write(move |transaction| {
        let mut data = Vec::with_capacity(made.len());
        for (code, digest) in made {
            let id = codes::create(transaction, &new, &code_hint(&code), &digest, &operator.0, now)?;
            data.push(NewCodeText { id, code });
        }
        let subject = format!("codes {}", new.batch.trim());
        accounts::audit(transaction, now, &operator.0, "code.create", &subject, &json!(asked))?;
        Ok(data)
    });
    let data = created.await?;
    if !csv::is_asked_for(&headers) {
        return Ok((StatusCode::CREATED, Json(NewCodes { data })).into_response());
    }
    let mut table = Csv::new(&["id", "code"]);
    for NewCodeText { id, code } in data {
        table.plain(id);
        table.plain(code);
        table.end();
    }
    Ok((StatusCode::CREATED, table).into_response())
}

/// List codes, without their texts; as CSV where that is accepted.
#[utoipa::path(get, path = "/api/v1/codes", operation_id = "list_codes", tag = "codes", params(ListParams),
    responses((status = 200, content((Page<CodeObject> = "application/json"), (String = "text/csv"))),
              (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Params(params): Params<ListParams>,
) -> Result<Response, Problem> {
    let is_table = csv::is_asked_for(&headers);
    let limit = checked_limit(params.limit, if is_table { BATCH_MAX } else { LIMIT_MAX })?;
    let now = app.now();
    let found = app
        .database
        .read(move |connection| codes::list(connection, params.batch.as_deref(), params.after.unwrap_or(0), limit + 1));
    let codes = found.await?.into_iter().map(|code| object(code, now)).collect();
    let page = Page::of(codes, limit, |code: &CodeObject| code.id);
    Ok(if is_table { as_table(&page.data).into_response() } else { Json(page).into_response() })
}

fn as_table(codes: &[CodeObject]) -> Csv {
    let mut table = Csv::new(&[
        "id",
        "hint",
        "batch",
        "amount",
        "grant_days",
        "uses",
        "used",
        "expires_at",
        "status",
        "created_by",
        "created_at",
    ]);
    for code in codes {
        table.plain(code.id);
        table.plain(&code.hint);
        table.text(&code.batch);
        table.plain(code.amount);
        table.optional(code.grant_days);
        table.plain(code.uses);
        table.plain(code.used);
        table.optional(code.expires_at);
        table.plain(code.status.name());
        table.text(&code.created_by);
        table.plain(code.created_at);
        table.end();
    }
    table
}

/// Revoke a code. What was redeemed stays.
#[utoipa::path(delete, path = "/api/v1/codes/{id}", operation_id = "revoke_code", tag = "codes",
    params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn revoke(State(app): State<Arc<App>>, operator: Operator, Id(id): Id) -> Result<StatusCode, Problem> {
    let now = app.now();
    let revoked = app.database.write(move |transaction| {
        let revoked = codes::revoke(transaction, id)?;
        if revoked {
            accounts::audit(transaction, now, &operator.0, "code.revoke", &format!("code {id}"), &json!({}))?;
        }
        Ok(revoked)
    });
    if !revoked.await? {
        return Err(Problem::not_found("There is no code of that id that could be redeemed."));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Revoke every code of a batch. What was redeemed stays.
#[utoipa::path(delete, path = "/api/v1/codes", operation_id = "revoke_codes", tag = "codes", params(BatchParams),
    responses((status = 200, body = Revoked), (status = 400, body = ErrorObject)))]
pub async fn revoke_batch(
    State(app): State<Arc<App>>,
    operator: Operator,
    Params(BatchParams { batch }): Params<BatchParams>,
) -> Result<Json<Revoked>, Problem> {
    let now = app.now();
    let revoking = app.database.write(move |transaction| {
        let revoked = codes::revoke_batch(transaction, batch.trim())?;
        if revoked > 0 {
            let subject = format!("codes {}", batch.trim());
            accounts::audit(transaction, now, &operator.0, "code.revoke", &subject, &json!({ "revoked": revoked }))?;
        }
        Ok::<_, StoreError>(revoked)
    });
    Ok(Json(Revoked { revoked: revoking.await? }))
}

/// Redeem a code for an account.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/redemptions", operation_id = "redeem_code", tag = "codes",
    params(("id" = i64, Path)), request_body = Redeem,
    responses((status = 200, body = Redemption), (status = 400, body = ErrorObject),
              (status = 404, description = "No such account, or no such code", body = ErrorObject),
              (status = 409, description = "It has been redeemed", body = ErrorObject),
              (status = 429, description = "Too many wrong codes", body = ErrorObject)))]
pub async fn redeem(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    again: RunsAgain,
    Body(asked): Body<Redeem>,
) -> Result<Json<Redemption>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    let entry = redeem_for(&app, account, operator.0, &asked.code, again).await?;
    Ok(Json(Redemption { entry, account: api_accounts::shown(&app, account).await? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_codes_are_counted_for_a_while() {
        let (wrong, account) = (WrongCodes::default(), AccountId(1));
        for _ in 0..100 {
            assert!(wrong.begin(account, Timestamp(0)));
            wrong.was_right(account);
        }
        for _ in 0..WRONG_MAX {
            assert!(wrong.begin(account, Timestamp(0)));
        }
        assert!(!wrong.begin(account, Timestamp(WINDOW_MS - 1)));
        assert!(wrong.begin(AccountId(2), Timestamp(WINDOW_MS - 1)));
        assert!(wrong.begin(account, Timestamp(WINDOW_MS)));
        for other in 3..20_000 {
            wrong.begin(AccountId(other), Timestamp(WINDOW_MS));
        }
        assert!(wrong.counts.lock().len() <= ACCOUNTS_MAX);
    }
}
