//! Stripe's objects, as far as they are used, and what they mean.
//!
//! Unknown fields are left alone and unknown statuses mean nothing: Stripe adds both without a new version.

use domain::payment::{Currency, DisputeState, Minor, OrderReport, RefundState};
use serde::Deserialize;
use store::payments::{Card, CardReport, Deed, DisputeReport, Order, OrderDeed, OrderId, RefundReport};

/// The version that requests are made in. A webhook of another version is understood too, as far as these objects go.
pub const API_VERSION: &str = "2025-09-30.clover";

/// Codes of declines that no later try will change: the card or its owner is needed.
const HARD_DECLINES: [&str; 11] = [
    "authentication_required",
    "expired_card",
    "incorrect_number",
    "invalid_account",
    "lost_card",
    "stolen_card",
    "pickup_card",
    "restricted_card",
    "revocation_of_all_authorizations",
    "revocation_of_authorization",
    "fraudulent",
];

/// Who makes a payment intent, in its metadata.
pub const CHECKOUT: &str = "checkout";
/// See [`CHECKOUT`].
pub const AUTO: &str = "auto";

/// What we write on payments, to know them again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The order.
    pub order: Option<String>,
    /// [`CHECKOUT`] or [`AUTO`].
    pub purpose: Option<String>,
}

/// A customer.
#[derive(Clone, Debug, Deserialize)]
pub struct Customer {
    /// Its id.
    pub id: String,
}

/// A checkout session.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// `payment` or `setup`.
    pub mode: String,
    /// `open`, `complete` or `expired`.
    pub status: Option<String>,
    /// `paid`, `unpaid` or `no_payment_required`.
    pub payment_status: String,
    /// Its page, while it is open.
    pub url: Option<String>,
    /// What is to be paid.
    pub amount_total: Option<Minor>,
    /// In what.
    pub currency: Option<String>,
    /// Our order.
    pub client_reference_id: Option<String>,
    /// Who pays.
    pub customer: Option<String>,
    /// The payment, once there is one.
    pub payment_intent: Option<String>,
}

/// A payment.
#[derive(Clone, Debug, Deserialize)]
pub struct PaymentIntent {
    /// Its id.
    pub id: String,
    /// `succeeded`, `processing`, `requires_payment_method` …
    pub status: String,
    /// What is to be paid.
    pub amount: Minor,
    /// What was.
    #[serde(default)]
    pub amount_received: Minor,
    /// In what.
    pub currency: String,
    /// Who pays.
    pub customer: Option<String>,
    /// With what.
    pub payment_method: Option<String>,
    /// `off_session` when the card may be charged again.
    pub setup_future_usage: Option<String>,
    /// What we wrote on it.
    #[serde(default)]
    pub metadata: Metadata,
    /// Why the last try failed.
    pub last_payment_error: Option<PaymentError>,
}

/// Why a payment failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PaymentError {
    /// `card_declined`, `authentication_required` …
    pub code: Option<String>,
    /// The bank's reason.
    pub decline_code: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SetupIntent {
    status: String,
    customer: Option<String>,
    payment_method: Option<String>,
}

/// A saved card, or another method.
#[derive(Clone, Debug, Deserialize)]
pub struct PaymentMethod {
    /// Its id.
    pub id: String,
    /// Whose.
    pub customer: Option<String>,
    /// What it looks like, if it is a card.
    pub card: Option<CardFace>,
}

/// What a card looks like.
#[derive(Clone, Debug, Deserialize)]
pub struct CardFace {
    brand: String,
    last4: String,
    exp_month: u8,
    exp_year: u16,
}

/// A refund.
#[derive(Debug, Deserialize)]
pub struct Refund {
    id: String,
    amount: Minor,
    currency: String,
    payment_intent: Option<String>,
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Dispute {
    id: String,
    amount: Minor,
    currency: String,
    payment_intent: Option<String>,
    status: String,
    #[serde(default)]
    reason: String,
}

/// An object that is not as Stripe documents it.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Fields are missing or of another type.
    #[error("the object is not as documented: {0}")]
    Json(#[from] serde_json::Error),
    /// A currency that is none.
    #[error("{0:?} is not a currency")]
    Currency(String),
}

fn currency(code: &str) -> Result<Currency, Unreadable> {
    code.parse().map_err(|_| Unreadable::Currency(code.chars().take(16).collect()))
}

/// What an event of that type says. `None` if it says nothing to us.
pub fn deed(kind: &str, object: &str) -> Result<Option<Deed>, Unreadable> {
    match kind {
        "checkout.session.completed"
        | "checkout.session.async_payment_succeeded"
        | "checkout.session.async_payment_failed"
        | "checkout.session.expired" => {
            let session: Session = serde_json::from_str(object)?;
            let failed = kind == "checkout.session.async_payment_failed";
            if failed { session.failed() } else { session.deed() }
        }
        "payment_intent.succeeded"
        | "payment_intent.processing"
        | "payment_intent.payment_failed"
        | "payment_intent.canceled" => {
            let intent: PaymentIntent = serde_json::from_str(object)?;
            if kind == "payment_intent.payment_failed" { intent.failed() } else { intent.deed() }
        }
        "setup_intent.succeeded" => {
            let intent: SetupIntent = serde_json::from_str(object)?;
            let (Some(customer), Some(method), "succeeded") =
                (intent.customer, intent.payment_method, intent.status.as_str())
            else {
                return Ok(None);
            };
            Ok(Some(Deed::Card(CardReport { customer, method, card: None })))
        }
        "payment_method.attached" | "payment_method.updated" | "payment_method.automatically_updated" => {
            let method: PaymentMethod = serde_json::from_str(object)?;
            let (Some(customer), Some(card)) = (method.customer, method.card) else { return Ok(None) };
            Ok(Some(Deed::Card(CardReport { customer, method: method.id, card: Some(card.into()) })))
        }
        "payment_method.detached" => {
            let method: PaymentMethod = serde_json::from_str(object)?;
            Ok(Some(Deed::CardGone { method: method.id }))
        }
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            let refund: Refund = serde_json::from_str(object)?;
            refund.deed()
        }
        "charge.dispute.created"
        | "charge.dispute.updated"
        | "charge.dispute.closed"
        | "charge.dispute.funds_withdrawn"
        | "charge.dispute.funds_reinstated" => {
            let dispute: Dispute = serde_json::from_str(object)?;
            dispute.deed()
        }
        _ => Ok(None),
    }
}

impl Session {
    /// What its state says of an order of ours. Sessions of other uses of the same Stripe account say nothing.
    pub fn deed(&self) -> Result<Option<Deed>, Unreadable> {
        let report = match (self.status.as_deref(), self.payment_status.as_str()) {
            // Only the payment itself pays: a session can be complete with its money still under way.
            (Some("complete"), "paid") => OrderReport::Paid,
            (Some("complete"), "unpaid") => OrderReport::Processing,
            (Some("expired"), _) => OrderReport::Expired,
            _ => return Ok(None),
        };
        self.reported(report, None)
    }

    fn failed(&self) -> Result<Option<Deed>, Unreadable> {
        self.reported(OrderReport::Failed, Some("the payment failed at the bank".to_owned()))
    }

    fn reported(&self, report: OrderReport, failure: Option<String>) -> Result<Option<Deed>, Unreadable> {
        let order = self.client_reference_id.as_deref().and_then(OrderId::parse);
        let (Some(order), "payment") = (order, self.mode.as_str()) else { return Ok(None) };
        Ok(Some(Deed::Order(OrderDeed {
            order,
            report,
            amount: self.amount_total.unwrap_or_default(),
            currency: currency(self.currency.as_deref().unwrap_or_default())?,
            session: Some(self.id.clone()),
            payment: self.payment_intent.clone(),
            customer: self.customer.clone(),
            method: None,
            failure,
            hard: false,
        })))
    }
}

impl PaymentIntent {
    /// What its state says of an order of ours.
    pub fn deed(&self) -> Result<Option<Deed>, Unreadable> {
        match self.status.as_str() {
            "succeeded" => self.reported(OrderReport::Paid, self.amount_received),
            "processing" => self.reported(OrderReport::Processing, self.amount),
            "requires_payment_method" if self.last_payment_error.is_some() => self.failed(),
            // Nobody is there to act on a charge of a saved card.
            "requires_action" if self.is_auto() => self.failed(),
            "canceled" if self.is_auto() => self.reported(OrderReport::Cancelled, self.amount),
            _ => Ok(None),
        }
    }

    /// On Stripe's page, a failed try is followed by the next one, and its session tells the end. A charge of a saved
    /// card has one try.
    fn failed(&self) -> Result<Option<Deed>, Unreadable> {
        if self.is_auto() { self.reported(OrderReport::Failed, self.amount) } else { Ok(None) }
    }

    fn is_auto(&self) -> bool {
        self.metadata.purpose.as_deref() == Some(AUTO)
    }

    fn reported(&self, report: OrderReport, amount: Minor) -> Result<Option<Deed>, Unreadable> {
        let Some(order) = self.metadata.order.as_deref().and_then(OrderId::parse) else { return Ok(None) };
        let error = self.last_payment_error.clone().unwrap_or_default();
        let reasons = [error.decline_code, error.code];
        let hard = reasons.iter().flatten().any(|code| HARD_DECLINES.contains(&code.as_str()))
            || self.status == "requires_action";
        let failed = report == OrderReport::Failed;
        let failure = reasons.into_iter().flatten().next().filter(|_| failed);
        let kept = self.setup_future_usage.as_deref() == Some("off_session") && report == OrderReport::Paid;
        Ok(Some(Deed::Order(OrderDeed {
            order,
            report,
            amount,
            currency: currency(&self.currency)?,
            session: None,
            payment: Some(self.id.clone()),
            customer: self.customer.clone(),
            method: self.payment_method.clone().filter(|_| kept),
            failure,
            hard: failed && hard,
        })))
    }
}

/// What a decline says of an order that was charged to a saved card.
pub fn declined(order: &Order, code: &str, payment: Option<String>) -> OrderDeed {
    let deed = OrderDeed::ours(order, OrderReport::Failed, Some(code.to_owned()));
    OrderDeed { payment, hard: HARD_DECLINES.contains(&code), ..deed }
}

impl From<CardFace> for Card {
    fn from(face: CardFace) -> Self {
        Self { brand: face.brand, last4: face.last4, exp_month: face.exp_month, exp_year: face.exp_year }
    }
}

impl Refund {
    /// What its state says of a payment.
    pub fn deed(self) -> Result<Option<Deed>, Unreadable> {
        let state = match self.status.as_deref() {
            Some("pending" | "requires_action") => RefundState::Pending,
            Some("succeeded") => RefundState::Succeeded,
            Some("failed" | "canceled") => RefundState::Failed,
            _ => return Ok(None),
        };
        let Some(payment) = self.payment_intent else { return Ok(None) };
        let currency = currency(&self.currency)?;
        Ok(Some(Deed::Refund(RefundReport { id: self.id, payment, amount: self.amount, currency, state })))
    }
}

impl Dispute {
    fn deed(self) -> Result<Option<Deed>, Unreadable> {
        let state = match self.status.as_str() {
            "warning_needs_response" | "warning_under_review" => DisputeState::Inquiry,
            "needs_response" | "under_review" => DisputeState::Opened,
            "won" => DisputeState::Won,
            "lost" => DisputeState::Lost,
            "warning_closed" | "prevented" | "charge_refunded" => DisputeState::Dismissed,
            _ => return Ok(None),
        };
        let Some(payment) = self.payment_intent else { return Ok(None) };
        let currency = currency(&self.currency)?;
        let Self { id, amount, reason, .. } = self;
        Ok(Some(Deed::Dispute(DisputeReport { id, payment, amount, currency, state, reason })))
    }
}
