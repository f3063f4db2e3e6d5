//! Orders: what an account was quoted, and how its payment stands.

use super::events::{Context, OrderDeed, shortened};
use crate::database::StoreError;
use crate::sql::{Connection, Params, Row};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use domain::payment::{Claim, ExchangeRate, Mismatch, OrderState, Provider, Quote};
use domain::{AccountId, Nanos, Timestamp};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fmt::Write as _;

/// Random bytes of an order's id: nobody guesses 128 bits (S-28).
const ID_BYTES: usize = 16;

/// The public id of an order: `ord_` and 32 hexadecimal digits. Also the idempotency key of what it asks its provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(String);

/// What makes an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A person pays on the provider's page.
    Checkout,
    /// The account's saved card is charged because its balance is low.
    Auto,
}

/// An order to be.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// Who pays and is credited.
    pub account: AccountId,
    /// Through whom.
    pub provider: Provider,
    /// Money, or a test.
    pub livemode: bool,
    /// What makes it.
    pub purpose: Purpose,
    /// The terms.
    pub quote: Quote,
    /// The saved card that is charged, if one is.
    pub method: Option<String>,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Who pays and is credited.
    pub account: AccountId,
    /// Through whom.
    pub provider: Provider,
    /// Money, or a test.
    pub livemode: bool,
    /// What makes it.
    pub purpose: Purpose,
    /// The terms.
    pub quote: Quote,
    /// Where it stands.
    pub state: OrderState,
    /// The provider's checkout session.
    pub session: Option<String>,
    /// The provider's payment.
    pub payment: Option<String>,
    /// The saved card that is charged, if one is.
    pub method: Option<String>,
    /// Why the last payment failed.
    pub failure: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its state changed last.
    pub changed_at: Timestamp,
}

impl OrderId {
    fn random() -> Self {
        let mut bytes = [0_u8; ID_BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the system's random source never fails once the system is up");
        let mut text = String::with_capacity(4 + 2 * ID_BYTES);
        text.push_str("ord_");
        for byte in bytes {
            write!(text, "{byte:02x}").expect("writing into a string never fails");
        }
        Self(text)
    }

    /// The id that a text is, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("ord_")?;
        let is_id = digits.len() == 2 * ID_BYTES && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Purpose {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Auto => "auto",
        }
    }
}

const COLUMNS: &str = "id, account, provider, livemode, purpose, amount, currency, rate, credit, state, session,
                       payment, method, failure, created_at, changed_at";

fn read(row: Row<'_>) -> Result<Order, StoreError> {
    let id = OrderId(row.get(0)?);
    let damaged = |what: &str| StoreError::Damaged(format!("order {id}: {what}"));
    let (provider, purpose, currency): (String, String, String) = (row.get(2)?, row.get(4)?, row.get(6)?);
    let state: String = row.get(9)?;
    Ok(Order {
        account: AccountId(row.get(1)?),
        provider: Provider::from_name(&provider).ok_or_else(|| damaged("provider"))?,
        livemode: row.get(3)?,
        purpose: match purpose.as_str() {
            "checkout" => Purpose::Checkout,
            "auto" => Purpose::Auto,
            _ => return Err(damaged("purpose")),
        },
        quote: Quote {
            amount: row.get(5)?,
            currency: currency.parse().map_err(|_| damaged("currency"))?,
            rate: ExchangeRate::from_nanos(row.get(7)?).map_err(|_| damaged("rate"))?,
            credit: Nanos(row.get(8)?),
        },
        state: OrderState::from_name(&state).ok_or_else(|| damaged("state"))?,
        session: row.get(10)?,
        payment: row.get(11)?,
        method: row.get(12)?,
        failure: row.get(13)?,
        created_at: Timestamp(row.get(14)?),
        changed_at: Timestamp(row.get(15)?),
        id,
    })
}

/// Makes an order. It must be durable before its provider hears of it: then no report can find it missing.
pub fn create(connection: &Connection, new: &NewOrder, now: Timestamp) -> Result<Order, StoreError> {
    let id = OrderId::random();
    connection
        .prepare_cached(
            "insert into payment_orders (id, account, provider, livemode, purpose, amount, currency, rate, credit,
                                         state, method, created_at, changed_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', ?10, ?11, ?11)",
        )?
        .execute((
            id.as_str(),
            new.account.0,
            new.provider.name(),
            new.livemode,
            new.purpose.name(),
            new.quote.amount,
            new.quote.currency.code(),
            new.quote.rate.nanos(),
            new.quote.credit.0,
            &new.method,
            now.0,
        ))?;
    order(connection, &id)?.ok_or_else(|| StoreError::Damaged(format!("order {id} vanished")))
}

/// The order of that id.
pub fn order(connection: &Connection, id: &OrderId) -> Result<Option<Order>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from payment_orders where id = ?1"))?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map(read).transpose()
}

/// The order that a provider's payment pays.
pub(super) fn by_payment(
    connection: &Connection,
    provider: Provider,
    payment: &str,
) -> Result<Option<Order>, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!("select {COLUMNS} from payment_orders where provider = ?1 and payment = ?2"))?;
    let mut rows = statement.query((provider.name(), payment))?;
    rows.next()?.map(read).transpose()
}

/// Which orders to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Which {
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only those in this state.
    pub state: Option<OrderState>,
}

/// Orders, newest first, at most `limit`; with `after`, those that follow that order.
pub fn list(
    connection: &Connection,
    which: Which,
    after: Option<&OrderId>,
    limit: u32,
) -> Result<Vec<Order>, StoreError> {
    // Each with its index; what they leave is a walk backwards that ends at the limit.
    let of_account = if which.account.is_some() { "account = ?1" } else { "coalesce(?1, account) = account" };
    let in_state = if which.state.is_some() { "state = ?2" } else { "coalesce(?2, state) = state" };
    let sql = format!(
        "select {COLUMNS} from payment_orders
         where {of_account} and {in_state}
           and (created_at, id) < (coalesce((select created_at from payment_orders where id = ?3), ?4),
                                   coalesce(?3, ''))
         order by created_at desc, id desc limit ?5"
    );
    let account = which.account.map(|account| account.0);
    let (state, after) = (which.state.map(OrderState::name), after.map(OrderId::as_str));
    read_all(connection, &sql, (account, state, after, i64::MAX, limit))
}

/// Orders that are open though they were made before `before`, oldest first, at most `limit`: their provider should be
/// asked. With `after`, those that follow that order.
pub fn open_before(
    connection: &Connection,
    before: Timestamp,
    after: Option<&OrderId>,
    limit: u32,
) -> Result<Vec<Order>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from payment_orders
         where state in ('pending', 'processing') and created_at < ?1
           and (created_at, id) > (coalesce((select created_at from payment_orders where id = ?2), -1),
                                   coalesce(?2, ''))
         order by created_at, id limit ?3"
    );
    read_all(connection, &sql, (before.0, after.map(OrderId::as_str), limit))
}

/// Automatic orders whose charge has not been answered, oldest first, at most `limit`.
pub fn unanswered_charges(connection: &Connection, limit: u32) -> Result<Vec<Order>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from payment_orders where state = 'pending' and purpose = 'auto'
         order by created_at, id limit ?1"
    );
    read_all(connection, &sql, [limit])
}

/// How many pages of an account are open.
pub fn open_checkouts(connection: &Connection, account: AccountId) -> Result<u32, StoreError> {
    let open: i64 = connection
        .prepare_cached(
            "select count(*) from payment_orders where account = ?1 and purpose = 'checkout' and state = 'pending'",
        )?
        .query_row([account.0], |row| row.get(0))?;
    Ok(u32::try_from(open).unwrap_or(u32::MAX))
}

fn read_all(connection: &Connection, sql: &str, parameters: impl Params) -> Result<Vec<Order>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut orders = Vec::new();
    while let Some(row) = rows.next()? {
        orders.push(read(row)?);
    }
    Ok(orders)
}

/// Notes what its provider calls an order: the session of its page, or the payment of its charge. Names that are
/// there already stay.
pub fn attach(
    connection: &Connection,
    id: &OrderId,
    session: Option<&str>,
    payment: Option<&str>,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update payment_orders set session = coalesce(session, ?2), payment = coalesce(payment, ?3) where id = ?1",
        )?
        .execute((id.as_str(), session, payment))?;
    Ok(())
}

/// Why a report does not fit an order. Nothing follows from it (S-28).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Terms(#[from] Mismatch),
    #[error("the order has another checkout session")]
    OtherSession,
    #[error("the order has another payment")]
    OtherPayment,
    #[error("the payment pays another order")]
    PaysAnother,
    #[error("the customer is another account's")]
    OtherAccount,
}

/// What a report about an order brought.
pub(super) struct Reported {
    /// The order before it.
    pub order: Order,
    /// Its new state, if the report changed it.
    pub entered: Option<OrderState>,
}

/// Takes a report about an order: all terms fit, or nothing happens. The state is changed only from the one that was
/// read, so of two nodes that take reports at once, one has to look again.
pub(super) fn report(
    context: &Context<'_>,
    order: Order,
    deed: &OrderDeed,
) -> Result<Result<Reported, Unfit>, StoreError> {
    let Context { connection, provider, livemode, now, .. } = *context;
    let claim = Claim { provider, amount: deed.amount, currency: deed.currency, livemode };
    if let Err(mismatch) = order.quote.check(order.provider, order.livemode, &claim) {
        return Ok(Err(mismatch.into()));
    }
    let differs = |known: &Option<String>, told: &Option<String>| known.is_some() && told.is_some() && known != told;
    if differs(&order.session, &deed.session) {
        return Ok(Err(Unfit::OtherSession));
    }
    if differs(&order.payment, &deed.payment) {
        return Ok(Err(Unfit::OtherPayment));
    }
    if let Some(payment) = &deed.payment
        && by_payment(connection, order.provider, payment)?.is_some_and(|other| other.id != order.id)
    {
        return Ok(Err(Unfit::PaysAnother));
    }
    attach(connection, &order.id, deed.session.as_deref(), deed.payment.as_deref())?;
    let entered = order.state.after(deed.report);
    if let Some(next) = entered {
        let failure = deed.failure.as_deref().map(shortened);
        let changed = connection
            .prepare_cached(
                "update payment_orders set state = ?3, failure = ?4, changed_at = ?5 where id = ?1 and state = ?2",
            )?
            .execute((order.id.as_str(), order.state.name(), next.name(), failure, now.0))?;
        if changed != 1 {
            return Err(StoreError::Unavailable);
        }
    }
    Ok(Ok(Reported { order, entered }))
}
