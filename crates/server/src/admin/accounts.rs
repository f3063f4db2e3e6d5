//! `/api/v1/accounts`: who pays.

use super::budgets;
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::limits::tier_of;
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::reference::Reference;
use super::tiers::promote;
use super::values::{
    NameOrId, checked_funding, checked_note, checked_time_zone, present, profile_name, required_note, rfc3339,
};
use crate::app::App;
use crate::error::ErrorProfile;
use crate::upkeep::deliver;
use axum::Json;
use axum::extract::State;
use domain::ledger::{Counted, Fund, Origin};
use domain::rate::Weight;
use domain::{AccountId, Multiplier, Nanos, Seq, TierId, Zone};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts::{self, Account, AccountChange, AccountStatus, checked_name};
use store::credits::{self, Credit, CreditKind};
use store::limits::naming_account;
use store::{StoreError, tiers};
use utoipa::{IntoParams, ToSchema};

/// An account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountObject {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: AccountId,
    /// Its name, unique.
    pub name: String,
    /// Whether its keys work.
    #[schema(value_type = String, example = "active")]
    pub status: AccountStatus,
    /// The wallet: prepaid money that can be drawn, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub balance: Nanos,
    /// What is left of grants, in USD. It is drawn before the wallet and expires.
    #[schema(value_type = String, example = "0.00")]
    pub granted: Nanos,
    /// What open requests have reserved of wallet and grants, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub held: Nanos,
    /// What was consumed beyond all funds, in USD; the next top-up pays it first.
    #[schema(value_type = String, example = "0.00")]
    pub owed: Nanos,
    /// What was charged for consumption in all, in USD, whoever paid it.
    #[schema(value_type = String, example = "0.00")]
    pub spent: Nanos,
    /// What was paid for subscriptions in all, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub fees: Nanos,
    /// Its tier.
    pub tier: TierShown,
    /// What it pays of list prices; null is as its tier.
    #[schema(value_type = Option<String>, example = "0.9")]
    pub multiplier: Option<Multiplier>,
    /// What it gets of limits that accounts share, beside others; null is as its tier.
    #[schema(value_type = Option<u32>, example = 3)]
    pub weight: Option<Weight>,
    /// The account that it counts as one with for limits, by id; null is none.
    #[schema(value_type = Option<i64>)]
    pub linked_to: Option<AccountId>,
    /// How errors are dressed for its keys; null is the gateway's default.
    #[schema(example = "tollgate")]
    pub error_profile: Option<String>,
    /// Its callers may see which upstream served them.
    pub shows_upstream: bool,
    /// In which its days and months begin and end.
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// The tier of an account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TierShown {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: TierId,
    /// Its name.
    pub name: String,
    /// What its accounts pay of list prices.
    #[schema(value_type = String, example = "1.00")]
    pub multiplier: Multiplier,
    /// The most that its accounts can consume in a month, in USD, whoever pays; null is without limit. Nothing is for
    /// accounts that have paid nothing: they use up what they were given, and nothing else limits them.
    #[schema(value_type = Option<String>, example = "100.00")]
    pub monthly: Option<Nanos>,
    /// Of it, consumed in this month; null where it limits nothing.
    #[schema(value_type = Option<String>, example = "12.50")]
    pub consumed: Option<Nanos>,
    /// What its accounts get of limits that accounts share, beside others.
    #[schema(value_type = u32, example = 1)]
    pub weight: Weight,
    /// An operator has fixed it: payments do not promote the account.
    pub fixed: bool,
}

/// A new account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Its name, unique.
    pub name: String,
    /// What to put in at once, in USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5.00")]
    pub balance: Option<Nanos>,
    /// How errors are dressed for its keys: `tollgate`, `openai` or `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub error_profile: Option<ErrorProfile>,
    /// Its callers may see which upstream served them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows_upstream: Option<bool>,
    /// In which its days and months begin and end: a name of the IANA database. Default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// What it pays of list prices, from 0 to 1000; absent is as its tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0.9")]
    pub multiplier: Option<Multiplier>,
    /// What it gets of limits that accounts share, beside others, from 1 to 1000; absent is as its tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, example = 3)]
    pub weight: Option<Weight>,
    /// Fixes its tier: an id, or a name. Absent: payments promote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NameOrId>)]
    pub tier: Option<NameOrId>,
}

/// What to change of an account. What is absent stays. Money is moved by top-ups only.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAccount {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `active` or `suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub status: Option<AccountStatus>,
    /// `tollgate`, `openai` or `relay`; null for the gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub error_profile: Option<Option<ErrorProfile>>,
    /// Whether its callers may see which upstream served them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shows_upstream: Option<bool>,
    /// In which its days and months begin and end: a name of the IANA database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// What it pays of list prices, from 0 to 1000; null is as its tier.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "0.9")]
    pub multiplier: Option<Option<Multiplier>>,
    /// What it gets of limits that accounts share, beside others, from 1 to 1000; null is as its tier.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<u32>, example = 3)]
    pub weight: Option<Option<Weight>>,
    /// Fixes its tier: an id, or a name. Null: payments promote it from the tier that it has.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<NameOrId>)]
    pub tier: Option<Option<NameOrId>>,
    /// Lets it count as one with another account for limits: an id, or a name. Accounts that are linked to it follow; what each
    /// pays stays its own. Null: it counts by itself again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<AccountRef>)]
    pub linked_to: Option<Option<AccountRef>>,
}

/// Money put in, or taken out when below zero.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopUp {
    /// How much, in USD. Below zero it is taken out.
    #[schema(value_type = String, example = "5.00")]
    pub amount: Nanos,
    /// Default `top_up`, or `adjustment` for an amount below zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TopUpKind>,
    /// Why: kept in the ledger beside the operator's name. An `adjustment` or `refund` that is named as such needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopUpKind {
    /// A payment. More than nothing.
    TopUp,
    /// A correction in either direction; what is taken out has to be available. No payment.
    Adjustment,
    /// A payment that went back to the payer. Below zero; what is no longer there is owed.
    Refund,
}

/// Which accounts to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only the account of exactly this name.
    name: Option<String>,
    /// Only accounts with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

/// An account by id (a JSON number) or by name (a text). A text of digits that is nobody's name is an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "an account is named by its name or its id")]
pub enum AccountRef {
    /// Its id.
    Id(i64),
    /// Its name.
    Name(String),
}

/// The account that is meant.
pub async fn find(app: &App, wanted: AccountRef) -> Result<Account, Problem> {
    let found = app.database.read(move |connection| match wanted {
        AccountRef::Id(id) => accounts::by_id(connection, AccountId(id)),
        AccountRef::Name(text) => match (accounts::by_name(connection, &text)?, text.parse()) {
            (None, Ok(id)) => accounts::by_id(connection, AccountId(id)),
            (found, _) => Ok(found),
        },
    });
    found.await?.ok_or_else(|| Problem::not_found("There is no such account."))
}

/// In which days and months of an account begin and end.
pub fn zone_of(account: &Account) -> Zone {
    // It was checked when it was set; a database of time zones without it is an older one than then.
    account.time_zone.parse().unwrap_or_default()
}

/// An account as it is shown.
pub async fn object(app: &App, account: Account) -> Result<AccountObject, StoreError> {
    let pots = app.ledger.totals(account.id).await?;
    let consumed = consumed_of_tier(app, &account).await?;
    Ok(AccountObject {
        id: account.id,
        name: account.name,
        status: account.status,
        balance: pots.available,
        granted: pots.granted,
        held: pots.held,
        owed: pots.debt.negated(),
        spent: pots.spent,
        fees: pots.fees,
        tier: TierShown {
            id: account.tier.id,
            name: account.tier.name,
            multiplier: account.tier.multiplier,
            monthly: account.tier.monthly,
            consumed,
            weight: account.tier.weight,
            fixed: account.tier.fixed,
        },
        multiplier: account.multiplier,
        weight: account.weight,
        linked_to: account.linked_to,
        error_profile: account.error_profile,
        shows_upstream: account.shows_upstream,
        time_zone: account.time_zone,
        created_at: rfc3339(account.created_at),
    })
}

/// What an account has consumed in this month of what its tier lets it.
async fn consumed_of_tier(app: &App, account: &Account) -> Result<Option<Nanos>, StoreError> {
    let Some(kept) = budgets::of_tier(account) else { return Ok(None) };
    let counted = Counted {
        budget: kept.budget.id,
        subject: Arc::default(),
        period: kept.budget.period.period(&zone_of(account), app.now()),
    };
    let counter = budgets::counter(app, &kept, &counted).await?;
    Ok(Some(counter.used.money))
}

/// Create an account.
#[utoipa::path(post, path = "/api/v1/accounts", operation_id = "create_account", tag = "accounts",
    request_body = CreateAccount,
    responses((status = 201, body = AccountObject), (status = 400, body = ErrorObject),
              (status = 409, description = "The name is taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(new): Body<CreateAccount>,
) -> Result<(StatusCode, Json<AccountObject>), Problem> {
    let balance = new.balance.unwrap_or(Nanos::ZERO);
    if balance < Nanos::ZERO {
        return Err(Problem::bad_field("balance", "An account starts with nothing or more."));
    }
    checked_funding(Nanos::ZERO, balance)?;
    let time_zone = new.time_zone.as_deref().map(checked_time_zone).transpose()?;
    let now = app.now();
    let created = app.database.write(move |transaction| {
        let name = checked_name(&new.name)?;
        if accounts::by_name(transaction, name)?.is_some() {
            return Ok(None);
        }
        let account = accounts::create(transaction, name, now)?;
        let change = AccountChange {
            error_profile: Some(new.error_profile.map(profile_name)),
            shows_upstream: new.shows_upstream,
            time_zone,
            tier: new.tier.as_ref().map(|tier| tier_of(transaction, tier)).transpose()?.map(Some),
            multiplier: new.multiplier.map(Some),
            weight: new.weight.map(Some),
            ..AccountChange::default()
        };
        let Some(account) = accounts::change(transaction, account.id, &change)? else { return Ok(None) };
        let id = account.id;
        accounts::audit(transaction, now, &operator.0, "account.create", &format!("account {id}"), &json!(new))?;
        let opening = (balance > Nanos::ZERO).then(|| Credit {
            reference: format!("account:{id}:opening").into(),
            account: id,
            kind: CreditKind::Money(Origin::TopUp),
            amount: balance,
            note: "opening balance".into(),
            by: operator.0.clone(),
        });
        if let Some(opening) = &opening {
            credits::enqueue(transaction, opening, now)?;
        }
        Ok(Some((account, opening.map(|opening| opening.reference))))
    });
    let (account, opening) = created.await?.ok_or_else(name_is_taken)?;
    if let Some(opening) = opening {
        deliver(&app, &opening).await.map_err(|error| {
            let id = account.id;
            Problem::from(error).after(&format!("The account was created with id {id}; its balance is on its way."))
        })?;
    }
    Ok((StatusCode::CREATED, Json(shown(&app, account.id).await?)))
}

/// The account of that id as it is shown.
pub async fn shown(app: &App, id: AccountId) -> Result<AccountObject, Problem> {
    let account = find(app, AccountRef::Id(id.0)).await?;
    Ok(object(app, account).await?)
}

fn name_is_taken() -> Problem {
    Problem::conflict("name", "An account of that name exists already.")
}

/// List accounts.
#[utoipa::path(get, path = "/api/v1/accounts", operation_id = "list_accounts", tag = "accounts", params(ListParams),
    responses((status = 200, body = Page<AccountObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<AccountObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let found = app.database.read(move |connection| match params.name {
        Some(name) => Ok(accounts::by_name(connection, &name)?.into_iter().collect()),
        None => accounts::list(connection, AccountId(params.after.unwrap_or(0)), limit + 1),
    });
    let Page { data, next } = Page::of(found.await?, limit, |account: &Account| account.id.0);
    let mut objects = Vec::with_capacity(data.len());
    for account in data {
        objects.push(object(&app, account).await?);
    }
    Ok(Json(Page { data: objects, next }))
}

/// Show an account.
#[utoipa::path(get, path = "/api/v1/accounts/{id}", operation_id = "show_account", tag = "accounts",
    params(("id" = i64, Path)),
    responses((status = 200, body = AccountObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<AccountObject>, Problem> {
    let account = find(&app, AccountRef::Id(id)).await?;
    Ok(Json(object(&app, account).await?))
}

/// Change an account.
#[utoipa::path(patch, path = "/api/v1/accounts/{id}", operation_id = "change_account", tag = "accounts",
    params(("id" = i64, Path)), request_body = ChangeAccount,
    responses((status = 200, body = AccountObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject), (status = 409, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeAccount>,
) -> Result<Json<AccountObject>, Problem> {
    let id = find(&app, AccountRef::Id(id)).await?.id;
    let time_zone = asked.time_zone.as_deref().map(checked_time_zone).transpose()?;
    let link = match asked.linked_to.clone() {
        Some(Some(head)) => Some(Some(checked_link(&app, id, head).await?)),
        Some(None) => Some(None),
        None => None,
    };
    let now = app.now();
    let changed = app.database.write(move |transaction| {
        if let Some(name) = &asked.name
            && accounts::by_name(transaction, checked_name(name)?)?.is_some_and(|other| other.id != id)
        {
            return Ok(None);
        }
        let change = AccountChange {
            name: asked.name.clone(),
            status: asked.status,
            error_profile: asked.error_profile.map(|profile| profile.map(profile_name)),
            shows_upstream: asked.shows_upstream,
            time_zone,
            tier: match &asked.tier {
                Some(Some(tier)) => Some(Some(tier_of(transaction, tier)?)),
                Some(None) => Some(None),
                None => None,
            },
            multiplier: asked.multiplier,
            weight: asked.weight,
        };
        let mut detail = json!(asked);
        match link {
            Some(Some(head)) => detail["followed_by"] = json!(accounts::link(transaction, id, head)?),
            Some(None) => accounts::unlink(transaction, id)?,
            None => {}
        }
        accounts::audit(transaction, now, &operator.0, "account.change", &format!("account {id}"), &detail)?;
        let changed = accounts::change(transaction, id, &change)?;
        if asked.tier == Some(None) && tiers::refresh(transaction, id, now)?.is_some() {
            return accounts::by_id(transaction, id);
        }
        Ok(changed)
    });
    let account = changed.await?.ok_or_else(name_is_taken)?;
    app.forget_callers();
    app.gateway.set_suspended(account.id, account.status == AccountStatus::Suspended);
    Ok(Json(object(&app, account).await?))
}

/// The account that another is to be linked to. The database's limits are looked at with the deed; here are the file's.
async fn checked_link(app: &App, id: AccountId, head: AccountRef) -> Result<AccountId, Problem> {
    let head = find(app, head).await.map_err(|problem| problem.after("Nothing was linked."))?;
    match naming_account(app.limits.of_file().iter(), id) {
        None => Ok(head.id),
        Some(limit) => {
            let message = format!(
                "Limit \"{}\" of the configuration file is for this account alone: change it there.",
                limit.name
            );
            Err(Problem::bad_field("linked_to", message))
        }
    }
}

/// Put money in, or take it out.
///
/// The ledger's entry is the record of it: it keeps the operator's name and the note. With an Idempotency-Key it is booked
/// once, however often it is asked for.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/top-ups", operation_id = "top_up_account", tag = "accounts",
    params(("id" = i64, Path)), request_body = TopUp,
    responses((status = 200, description = "The account after it", body = AccountObject),
              (status = 400, body = ErrorObject),
              (status = 402, description = "More than is available cannot be taken out", body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 503, description = "Not confirmed; look at the balance first, or repeat it with the same \
                                            Idempotency-Key", body = ErrorObject)))]
pub async fn top_up(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    reference: Reference,
    Body(asked): Body<TopUp>,
) -> Result<Json<AccountObject>, Problem> {
    let account = find(&app, AccountRef::Id(id)).await?.id;
    put_in(&app, account, operator.0, reference, &asked).await?;
    Ok(Json(shown(&app, account).await?))
}

/// Books money in an account.
pub async fn put_in(
    app: &App,
    account: AccountId,
    by: Arc<str>,
    reference: Reference,
    asked: &TopUp,
) -> Result<Seq, Problem> {
    let fund = Fund { origin: asked.origin()?, by, note: asked.checked_note()?, reference: reference.0.clone() };
    let amount = asked.amount;
    let seq = match reference.posted(app).await? {
        Some(seq) => seq,
        None => {
            let funded = app.ledger.totals(account).await?.funding.negated();
            checked_funding(funded, amount)?;
            reference.post(app, account, |book, _| book.fund_in(fund.clone(), amount)).await?
        }
    };
    // A cycle that could not be paid before is paid now.
    app.ledger.touch(account, app.now()).await?;
    promote(app, account).await;
    Ok(seq)
}

impl TopUp {
    fn origin(&self) -> Result<Origin, Problem> {
        let refused = |message| Err(Problem::bad_field("amount", message));
        let is_out = self.amount < Nanos::ZERO;
        match self.kind {
            _ if self.amount == Nanos::ZERO => refused("An amount of zero changes nothing."),
            Some(TopUpKind::TopUp) if is_out => {
                refused("A top-up is more than nothing. To take money out, say \"adjustment\" or \"refund\".")
            }
            Some(TopUpKind::Refund) if !is_out => refused("A refund takes money out: its amount is below zero."),
            None if is_out => Ok(Origin::Adjustment),
            None | Some(TopUpKind::TopUp) => Ok(Origin::TopUp),
            Some(TopUpKind::Adjustment) => Ok(Origin::Adjustment),
            Some(TopUpKind::Refund) => Ok(Origin::Refund),
        }
    }

    fn checked_note(&self) -> Result<Arc<str>, Problem> {
        match self.kind {
            Some(TopUpKind::Adjustment) => required_note(self.note.as_deref(), "An adjustment"),
            Some(TopUpKind::Refund) => required_note(self.note.as_deref(), "A refund"),
            Some(TopUpKind::TopUp) | None => checked_note(self.note.as_deref()),
        }
    }
}
