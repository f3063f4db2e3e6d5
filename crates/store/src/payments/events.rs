//! Events of a provider: each is taken once, in one transaction with everything that follows from it.

use super::methods::{self, Card};
use super::orders::{self, Order, OrderId, Purpose, Reported, Unfit};
use super::{auto_top_up, reversals};
use crate::accounts;
use crate::credits::{self, Credit, CreditKind};
use crate::database::StoreError;
use crate::sql::Connection;
use domain::ledger::Origin;
use domain::payment::{Claim, Currency, Decline, DisputeState, Minor, OrderReport, OrderState, Provider, RefundState};
use domain::{AccountId, Nanos, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Parked events that wait for one payment.
const PARKED_MAX: u32 = 100;
/// Longest id, kind or reason of a provider that is kept, in characters. Stripe's ids are below 255.
const TEXT_CHARS_MAX: usize = 300;

/// What the operator set.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// An account is suspended while money that it paid with is disputed.
    pub suspend_on_dispute: bool,
}

/// An event whose origin was proved.
#[derive(Clone, Debug)]
pub struct Event {
    /// Who reports.
    pub provider: Provider,
    /// The provider's id of the event: unique for ever.
    pub id: String,
    /// The provider's name of what happened.
    pub kind: String,
    /// Money, or a test.
    pub livemode: bool,
    /// When it happened.
    pub created: Timestamp,
    /// What it means to us; `None` if nothing.
    pub deed: Option<Deed>,
}

/// What an event means, in no provider's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// A payment advanced.
    Order(OrderDeed),
    /// Money goes back.
    Refund(RefundReport),
    /// A payment is disputed.
    Dispute(DisputeReport),
    /// A card was saved, or is known better.
    Card(CardReport),
    /// A card is gone.
    CardGone {
        /// The provider's name for it.
        method: String,
    },
}

/// See [`Deed::Order`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDeed {
    /// The order.
    pub order: OrderId,
    /// What became of it.
    pub report: OrderReport,
    /// What was paid, or is to be.
    pub amount: Minor,
    /// In what.
    pub currency: Currency,
    /// The provider's checkout session.
    pub session: Option<String>,
    /// The provider's payment.
    pub payment: Option<String>,
    /// Who paid, as the provider knows them.
    pub customer: Option<String>,
    /// The card that was paid with and may be charged again.
    pub method: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// The failure is final until a person does something.
    pub hard: bool,
}

/// See [`Deed::Refund`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundReport {
    /// The provider's name for it.
    pub id: String,
    /// The payment that it gives back.
    pub payment: String,
    /// How much.
    pub amount: Minor,
    /// In what.
    pub currency: Currency,
    /// Where it stands.
    pub state: RefundState,
}

/// See [`Deed::Dispute`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisputeReport {
    /// The provider's name for it.
    pub id: String,
    /// The payment that is disputed.
    pub payment: String,
    /// How much.
    pub amount: Minor,
    /// In what.
    pub currency: Currency,
    /// Where it stands.
    pub state: DisputeState,
    /// Why.
    pub reason: String,
}

/// See [`Deed::Card`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardReport {
    /// Whose, as the provider knows them.
    pub customer: String,
    /// The provider's name for the card.
    pub method: String,
    /// What it looks like.
    pub card: Option<Card>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Applied,
    /// It was taken before: nothing happened.
    Replayed,
    /// It is none of ours, or told nothing new.
    Ignored,
    /// It waits for the payment that it speaks of (M-39).
    Parked,
    /// It names an order that there is not. Kept as refused, but nobody's to correct: told again, it is the same.
    Unknown(OrderId),
    /// It does not fit what it speaks of: nothing happened (S-28).
    Refused(String),
}

/// What an event brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What became of it.
    pub outcome: Outcome,
    /// The new credits in the outbox, to be delivered.
    pub credits: Vec<Arc<str>>,
    /// Accounts that were suspended or restored: who is remembered of them must be looked up anew.
    pub accounts_changed: Vec<AccountId>,
    /// Automatic charges that failed.
    pub failed_top_ups: Vec<FailedTopUp>,
}

/// An automatic charge that failed. The audit log has it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedTopUp {
    /// Whose.
    pub account: AccountId,
    /// The order that was not paid.
    pub order: OrderId,
    /// Why.
    pub reason: String,
    /// Automatic top-ups of the account are off now.
    pub switched_off: bool,
}

/// In what a deed is performed.
pub(super) struct Context<'c> {
    pub connection: &'c Connection,
    pub provider: Provider,
    pub livemode: bool,
    pub rules: Rules,
    pub now: Timestamp,
}

/// What a deed changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// It told something new.
    pub changed: bool,
    /// What it put into the outbox.
    pub credits: Vec<Arc<str>>,
    /// Accounts that were suspended or restored.
    pub accounts_changed: Vec<AccountId>,
    /// Automatic charges that failed.
    pub failed_top_ups: Vec<FailedTopUp>,
}

/// What became of a deed.
#[derive(Default)]
struct Done {
    news: News,
    /// It speaks of a payment that is not known to be paid.
    waits_for: Option<String>,
    /// It told of a payment for which parked events may wait.
    payment: Option<String>,
    /// It names an order that there is not.
    unknown: Option<OrderId>,
    /// It does not fit.
    refused: Option<String>,
}

/// Takes an event: once, whole, or not at all. Run it in a transaction of its own.
pub fn apply(connection: &Connection, event: &Event, rules: Rules, now: Timestamp) -> Result<Applied, StoreError> {
    let context = Context { connection, provider: event.provider, livemode: event.livemode, rules, now };
    let name = event.provider.name();
    if event.id.is_empty() || event.id.chars().count() > TEXT_CHARS_MAX {
        return Err(StoreError::Refused(format!("an event has an id of 1 to {TEXT_CHARS_MAX} characters")));
    }
    let fresh = connection
        .prepare_cached(
            "insert into payment_events (provider, id, kind, outcome, livemode, created_at, received_at)
             values (?1, ?2, ?3, 'applied', ?4, ?5, ?6) on conflict (provider, id) do nothing",
        )?
        .execute((name, &event.id, shortened(&event.kind), event.livemode, event.created.0, now.0))?;
    if fresh == 0 {
        let outcome: String = connection
            .prepare_cached("select outcome from payment_events where provider = ?1 and id = ?2")?
            .query_row((name, &event.id), |row| row.get(0))?;
        // What is parked or was refused is looked at again: its order may be known by now.
        if !matches!(outcome.as_str(), "parked" | "refused") {
            return Ok(Applied { outcome: Outcome::Replayed, ..applied(Done::default()) });
        }
    }
    let Some(deed) = &event.deed else {
        note(&context, &event.id, None, &Done::default())?;
        return Ok(applied(Done::default()));
    };
    let mut done = perform(&context, deed)?;
    note(&context, &event.id, Some(deed), &done)?;
    if let Some(payment) = &done.payment {
        let news = unpark(&context, payment)?;
        done.news.add(news);
    }
    Ok(applied(done))
}

/// Takes what the provider answered to our own request: as good as an event, but without an id.
pub fn apply_answer(
    connection: &Connection,
    provider: Provider,
    livemode: bool,
    deed: &Deed,
    rules: Rules,
    now: Timestamp,
) -> Result<Applied, StoreError> {
    let context = Context { connection, provider, livemode, rules, now };
    let mut done = perform(&context, deed)?;
    if let Some(payment) = &done.payment {
        let news = unpark(&context, payment)?;
        done.news.add(news);
    }
    Ok(applied(done))
}

/// Looks at parked events again, of at most `limit` payments. Two nodes that take a payment and its refund at the same
/// instant do not see each other's; this finds what was left.
pub fn retry_parked(
    connection: &Connection,
    provider: Provider,
    rules: Rules,
    limit: u32,
    now: Timestamp,
) -> Result<Applied, StoreError> {
    let mut statement = connection.prepare_cached(
        "select distinct e.parent from payment_events e
         join payment_orders o on o.provider = e.provider and o.payment = e.parent and o.state = 'paid'
         where e.provider = ?1 and e.outcome = 'parked' limit ?2",
    )?;
    let mut rows = statement.query((provider.name(), limit))?;
    let mut payments: Vec<String> = Vec::new();
    while let Some(row) = rows.next()? {
        payments.push(row.get(0)?);
    }
    let context = Context { connection, provider, livemode: false, rules, now };
    let mut done = Done::default();
    for payment in payments {
        let news = unpark(&context, &payment)?;
        done.news.add(news);
    }
    Ok(applied(done))
}

/// Forgets events received before `before`. Providers repeat an event for days, not for months; what a forgotten one
/// would do again, the states of orders, refunds and disputes still refuse. Returns how many.
pub fn forget_events(connection: &Connection, before: Timestamp) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached("delete from payment_events where received_at < ?1")?.execute([before.0])?)
}

/// Text of a provider, within the length that is kept.
pub(super) fn shortened(text: &str) -> &str {
    text.char_indices().nth(TEXT_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

impl OrderDeed {
    /// What we ourselves know to have become of an order, in its own terms.
    pub fn ours(order: &Order, report: OrderReport, failure: Option<String>) -> Self {
        Self {
            order: order.id.clone(),
            report,
            amount: order.quote.amount,
            currency: order.quote.currency,
            session: None,
            payment: None,
            customer: None,
            method: None,
            failure,
            hard: false,
        }
    }
}

impl News {
    fn add(&mut self, other: Self) {
        self.changed |= other.changed;
        self.credits.extend(other.credits);
        self.accounts_changed.extend(other.accounts_changed);
        self.failed_top_ups.extend(other.failed_top_ups);
    }
}

impl From<News> for Done {
    fn from(news: News) -> Self {
        Self { news, ..Self::default() }
    }
}

impl Done {
    fn refused(why: impl ToString) -> Self {
        Self { refused: Some(why.to_string()), ..Self::default() }
    }

    fn waits_for(payment: &str) -> Self {
        Self { waits_for: Some(payment.to_owned()), ..Self::default() }
    }
}

fn applied(done: Done) -> Applied {
    let News { changed, credits, accounts_changed, failed_top_ups } = done.news;
    let outcome = match (done.refused, done.unknown, done.waits_for) {
        (Some(why), ..) => Outcome::Refused(why),
        (None, Some(order), _) => Outcome::Unknown(order),
        (None, None, Some(_)) => Outcome::Parked,
        (None, None, None) if changed => Outcome::Applied,
        (None, None, None) => Outcome::Ignored,
    };
    Applied { outcome, credits, accounts_changed, failed_top_ups }
}

/// Keeps what became of an event, and what it says while that may still matter.
fn note(context: &Context<'_>, id: &str, deed: Option<&Deed>, done: &Done) -> Result<(), StoreError> {
    let outcome = match done {
        Done { refused: Some(_), .. } | Done { unknown: Some(_), .. } => "refused",
        Done { waits_for: Some(_), .. } => "parked",
        Done { news: News { changed: true, .. }, .. } => "applied",
        Done { .. } => "ignored",
    };
    let no_order = || done.unknown.as_ref().map(|order| format!("there is no order {order}"));
    let reason = done.refused.clone().or_else(no_order);
    let parked = if done.waits_for.is_some() { deed } else { None };
    let deed = parked.map(|deed| serde_json::to_string(deed).expect("a deed is always JSON"));
    context
        .connection
        .prepare_cached(
            "update payment_events set outcome = ?3, reason = ?4, parent = ?5, deed = ?6
             where provider = ?1 and id = ?2",
        )?
        .execute((context.provider.name(), id, outcome, reason, &done.waits_for, deed))?;
    Ok(())
}

/// Takes the events that waited for a payment, in the order in which they happened.
fn unpark(context: &Context<'_>, payment: &str) -> Result<News, StoreError> {
    let mut statement = context.connection.prepare_cached(
        "select id, deed, livemode from payment_events where provider = ?1 and parent = ?2 and outcome = 'parked'
         order by created_at, id limit ?3",
    )?;
    let mut rows = statement.query((context.provider.name(), payment, PARKED_MAX))?;
    let mut parked: Vec<(String, String, bool)> = Vec::new();
    while let Some(row) = rows.next()? {
        parked.push((row.get(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default(), row.get(2)?));
    }
    let mut news = News::default();
    for (id, deed, livemode) in parked {
        let deed: Deed =
            serde_json::from_str(&deed).map_err(|error| StoreError::Damaged(format!("parked event {id}: {error}")))?;
        let context = Context { livemode, ..*context };
        let done = perform(&context, &deed)?;
        note(&context, &id, Some(&deed), &done)?;
        news.add(done.news);
    }
    Ok(news)
}

fn perform(context: &Context<'_>, deed: &Deed) -> Result<Done, StoreError> {
    let Context { connection, provider, livemode, now, .. } = *context;
    match deed {
        Deed::Order(deed) => perform_order(context, deed),
        Deed::Refund(report) => match paid_order(context, &report.payment, report.currency)? {
            Ok(order) => {
                let reported = reversals::report_refund(context, &order, report)?;
                Ok(reported.map_or_else(Done::refused, Done::from))
            }
            Err(done) => Ok(done),
        },
        Deed::Dispute(report) => match paid_order(context, &report.payment, report.currency)? {
            Ok(order) => Ok(reversals::report_dispute(context, &order, report)?.into()),
            Err(done) => Ok(done),
        },
        Deed::Card(report) => {
            let Some(account) = methods::account_of_customer(connection, provider, &report.customer)? else {
                return Ok(Done::default());
            };
            methods::save_method(connection, provider, account, livemode, &report.method, report.card.as_ref(), now)?;
            Ok(News { changed: true, ..News::default() }.into())
        }
        Deed::CardGone { method } => {
            let changed = methods::forget_method(connection, provider, method)?;
            Ok(News { changed, ..News::default() }.into())
        }
    }
}

fn perform_order(context: &Context<'_>, deed: &OrderDeed) -> Result<Done, StoreError> {
    let Context { connection, provider, livemode, now, .. } = *context;
    let Some(order) = orders::order(connection, &deed.order)? else {
        return Ok(Done { unknown: Some(deed.order.clone()), ..Done::default() });
    };
    let owner = match &deed.customer {
        Some(customer) => methods::account_of_customer(connection, provider, customer)?,
        None => None,
    };
    if owner.is_some_and(|owner| owner != order.account) {
        return Ok(Done::refused(Unfit::OtherAccount));
    }
    let Reported { order, entered } = match orders::report(context, order, deed)? {
        Ok(reported) => reported,
        Err(unfit) => return Ok(Done::refused(unfit)),
    };
    let mut news = News { changed: entered.is_some(), ..News::default() };
    match entered {
        Some(OrderState::Paid) => news.credits.push(paid(context, &order)?),
        Some(OrderState::Failed | OrderState::Cancelled) if order.purpose == Purpose::Auto => {
            news.failed_top_ups.push(failed(context, &order, deed)?);
        }
        _ => {}
    }
    if let (Some(owner), Some(method)) = (owner, &deed.method) {
        methods::save_method(connection, provider, owner, livemode, method, None, now)?;
        news.changed = true;
    }
    Ok(Done { news, payment: deed.payment.clone(), ..Done::default() })
}

/// An automatic charge failed: counted against the next one, and noted where people look.
fn failed(context: &Context<'_>, order: &Order, deed: &OrderDeed) -> Result<FailedTopUp, StoreError> {
    let Context { connection, provider, now, .. } = *context;
    let decline = if deed.hard { Decline::Hard } else { Decline::Soft };
    let reason = deed.failure.as_deref().map_or("the card was declined", shortened).to_owned();
    let settings = auto_top_up::failed(connection, order.account, decline, &reason, now)?;
    let switched_off = settings.is_some_and(|settings| !settings.enabled);
    let detail = serde_json::json!({"order": &order.id, "reason": &reason, "switched_off": switched_off});
    let (by, subject) = (format!("provider:{}", provider.name()), format!("account {}", order.account));
    accounts::audit(connection, now, &by, "auto_top_up.failed", &subject, &detail)?;
    Ok(FailedTopUp { account: order.account, order: order.id.clone(), reason, switched_off })
}

/// The one place that credits a payment.
fn paid(context: &Context<'_>, order: &Order) -> Result<Arc<str>, StoreError> {
    let quote = &order.quote;
    let amount = quote.currency.amount_text(quote.amount);
    let note = format!("card payment of {amount} {}, order {}", quote.currency, order.id);
    if order.purpose == Purpose::Auto {
        auto_top_up::succeeded(context.connection, order.account, context.now)?;
    }
    enqueue(context, order, Origin::Card, order.id.as_str(), quote.credit, note)
}

/// Puts money that an order moves into the outbox, under a reference that the same deed always has.
pub(super) fn enqueue(
    context: &Context<'_>,
    order: &Order,
    origin: Origin,
    deed: &str,
    amount: Nanos,
    note: String,
) -> Result<Arc<str>, StoreError> {
    let provider = order.provider.name();
    let reference: Arc<str> = format!("{provider}:{deed}").into();
    let credit = Credit {
        reference: reference.clone(),
        account: order.account,
        kind: CreditKind::Money(origin),
        amount,
        note: note.into(),
        by: provider.into(),
    };
    credits::enqueue(context.connection, &credit, context.now)?;
    Ok(reference)
}

/// The paid order that a refund or dispute speaks of; or, in its place, what becomes of the event.
fn paid_order(context: &Context<'_>, payment: &str, currency: Currency) -> Result<Result<Order, Done>, StoreError> {
    let Context { connection, provider, livemode, .. } = *context;
    let order = orders::by_payment(connection, provider, payment)?;
    let Some(order) = order.filter(|order| order.state == OrderState::Paid) else {
        return Ok(Err(Done::waits_for(payment)));
    };
    // How much of it is given back, the machines of refunds and disputes judge.
    let claim = Claim { provider, amount: order.quote.amount, currency, livemode };
    match order.quote.check(order.provider, order.livemode, &claim) {
        Ok(()) => Ok(Ok(order)),
        Err(mismatch) => Ok(Err(Done::refused(mismatch))),
    }
}
