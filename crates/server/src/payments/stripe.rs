//! Asking Stripe.
//!
//! Every request that makes something carries an idempotency key that follows from the order, so that asking again
//! after a lost answer makes nothing twice. Redirects are not followed and proxies of the environment are not used; a
//! request has one time limit and a body one length.

use super::wire::{self, Customer, PaymentError, PaymentIntent, Refund, Session};
use bytes::Bytes;
use domain::payment::Minor;
use gateway::upstream::HttpClient;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use store::payments::{Deed, Order, Purpose};

/// Stripe's own address.
pub const BASE_URL: &str = "https://api.stripe.com";

/// How long an answer may take. A charge waits for the bank; Stripe itself gives up after 80 s or so.
const TIMEOUT: Duration = Duration::from_secs(80);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Payments of a customer among which a lost one is looked for.
const SEARCHED: u32 = 100;
/// Longest id of Stripe's that is put into an address.
const ID_CHARS_MAX: usize = 255;

const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A Stripe account that we ask in the name of.
pub struct Stripe {
    client: HttpClient,
    base: String,
    authorization: HeaderValue,
    livemode: bool,
}

/// An address or key that cannot be used. Names neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccount {
    /// Not an absolute http or https address without query.
    #[error("the address is not one such as {BASE_URL:?}")]
    BaseUrl,
    /// Not a secret or restricted key.
    #[error("the key is not a secret key (sk_test_…, sk_live_…) or a restricted one (rk_test_…, rk_live_…)")]
    SecretKey,
}

/// Why Stripe did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripeError {
    /// Stripe was not reached: nothing happened.
    #[error("Stripe was not reached")]
    NotReached,
    /// There is no answer, or not a whole one: it may have happened. Asking again with the same key tells.
    #[error("Stripe's answer is missing: {0}")]
    Unknown(String),
    /// The card was declined.
    #[error("the card was declined ({code})")]
    Declined {
        /// The bank's reason, or Stripe's.
        code: String,
        /// The payment that failed.
        payment: Option<String>,
    },
    /// Stripe is out of order or asked too often: ask again later.
    #[error("Stripe cannot answer now (status {0})")]
    Later(u16),
    /// Stripe refuses the request itself.
    #[error("Stripe refuses the request (status {status}, {kind}, {code}): {message}")]
    Refused {
        /// The status.
        status: u16,
        /// The kind of error.
        kind: String,
        /// Its code.
        code: String,
        /// Stripe's explanation.
        message: String,
    },
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
    payment_intent: Option<FailedPayment>,
}

#[derive(Deserialize)]
struct FailedPayment {
    id: String,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
}

/// A page on which somebody pays.
#[derive(Clone, Copy, Debug)]
pub struct Checkout<'a> {
    /// What they pay.
    pub order: &'a Order,
    /// Who they are to Stripe.
    pub customer: &'a str,
    /// What they read that they pay for.
    pub product: &'a str,
    /// The card may be charged again without them.
    pub save_card: bool,
    /// Where they return when they paid.
    pub success_url: &'a str,
    /// Where they return when not.
    pub cancel_url: &'a str,
}

impl Stripe {
    /// The account of a secret key, at Stripe's address or another.
    pub fn new(client: HttpClient, base_url: &str, secret_key: &str) -> Result<Self, BadAccount> {
        let base = base_url.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| BadAccount::BaseUrl)?;
        let usable = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none();
        if !usable {
            return Err(BadAccount::BaseUrl);
        }
        let livemode = ["sk_live_", "rk_live_"].iter().any(|prefix| secret_key.starts_with(prefix));
        let is_test = ["sk_test_", "rk_test_"].iter().any(|prefix| secret_key.starts_with(prefix));
        if !livemode && !is_test {
            return Err(BadAccount::SecretKey);
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {secret_key}")).map_err(|_| BadAccount::SecretKey)?;
        authorization.set_sensitive(true);
        Ok(Self { client, base: base.to_owned(), authorization, livemode })
    }

    /// Whether its money is real.
    pub fn livemode(&self) -> bool {
        self.livemode
    }

    /// Makes a customer for an account. `key` says for which deed: the same deed makes one customer.
    pub async fn create_customer(&self, account: i64, name: &str, key: &str) -> Result<Customer, StripeError> {
        let form = Form::new().with("name", name).with("metadata[account]", &account.to_string());
        self.post("/v1/customers", form, Some(&format!("{key}-customer"))).await
    }

    /// Opens a page on which an order is paid.
    pub async fn open_checkout(&self, checkout: &Checkout<'_>) -> Result<Session, StripeError> {
        let Checkout { order, customer, product, save_card, success_url, cancel_url } = *checkout;
        let id = order.id.as_str();
        let mut form = Form::new()
            .with("mode", "payment")
            .with("customer", customer)
            .with("client_reference_id", id)
            .with("success_url", success_url)
            .with("cancel_url", cancel_url)
            .with("line_items[0][quantity]", "1")
            .with("line_items[0][price_data][currency]", order.quote.currency.code())
            .with("line_items[0][price_data][unit_amount]", &order.quote.amount.to_string())
            .with("line_items[0][price_data][product_data][name]", product)
            .with("metadata[order]", id)
            .with("payment_intent_data[metadata][order]", id)
            .with("payment_intent_data[metadata][purpose]", wire::CHECKOUT);
        if save_card {
            form = form.with("payment_intent_data[setup_future_usage]", "off_session");
        }
        self.post("/v1/checkout/sessions", form, Some(id)).await
    }

    /// Opens a page on which a card is saved and nothing is paid. `key` says for which deed.
    pub async fn open_setup(
        &self,
        customer: &str,
        currency: &str,
        (success_url, cancel_url): (&str, &str),
        key: &str,
    ) -> Result<Session, StripeError> {
        let form = Form::new()
            .with("mode", "setup")
            .with("customer", customer)
            .with("currency", currency)
            .with("success_url", success_url)
            .with("cancel_url", cancel_url);
        self.post("/v1/checkout/sessions", form, Some(key)).await
    }

    /// A checkout session as it is now.
    pub async fn session(&self, id: &str) -> Result<Session, StripeError> {
        self.get(&format!("/v1/checkout/sessions/{}", segment(id)?)).await
    }

    /// Charges a saved card without its owner. A decline is an error; so is a bank that wants the owner.
    pub async fn charge_saved(
        &self,
        order: &Order,
        customer: &str,
        method: &str,
        description: &str,
    ) -> Result<PaymentIntent, StripeError> {
        let id = order.id.as_str();
        let purpose = match order.purpose {
            Purpose::Auto => wire::AUTO,
            Purpose::Checkout => wire::CHECKOUT,
        };
        let form = Form::new()
            .with("amount", &order.quote.amount.to_string())
            .with("currency", order.quote.currency.code())
            .with("customer", customer)
            .with("payment_method", method)
            .with("off_session", "true")
            .with("confirm", "true")
            .with("description", description)
            .with("metadata[order]", id)
            .with("metadata[purpose]", purpose);
        self.post("/v1/payment_intents", form, Some(id)).await
    }

    /// Gives a payment back, or part of it. `key` says for which deed; `reason` is kept with the refund.
    pub async fn refund(&self, payment: &str, amount: Minor, reason: &str, key: &str) -> Result<Deed, StripeError> {
        let form = Form::new()
            .with("payment_intent", payment)
            .with("amount", &amount.to_string())
            .with("metadata[reason]", reason);
        let refund: Refund = self.post("/v1/refunds", form, Some(key)).await?;
        match refund.deed() {
            Ok(Some(deed)) => Ok(deed),
            _ => Err(StripeError::Unknown("the refund is in no state that is known".to_owned())),
        }
    }

    /// A payment as it is now.
    pub async fn payment(&self, id: &str) -> Result<PaymentIntent, StripeError> {
        self.get(&format!("/v1/payment_intents/{}", segment(id)?)).await
    }

    /// The payment of an order whose answer was lost so long ago that Stripe has forgotten the key.
    pub async fn find_payment(&self, order: &Order, customer: &str) -> Result<Option<PaymentIntent>, StripeError> {
        let path = format!("/v1/payment_intents?customer={}&limit={SEARCHED}", segment(customer)?);
        let page: Page<PaymentIntent> = self.get(&path).await?;
        let is_ours = |intent: &PaymentIntent| intent.metadata.order.as_deref() == Some(order.id.as_str());
        Ok(page.data.into_iter().find(is_ours))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, StripeError> {
        self.ask(Method::GET, path, Form::new(), None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, form: Form, key: Option<&str>) -> Result<T, StripeError> {
        self.ask(Method::POST, path, form, key).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        form: Form,
        key: Option<&str>,
    ) -> Result<T, StripeError> {
        let mut request = Request::new(Full::new(Bytes::from(form.0)));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base).parse().expect("a checked base and a path of our own");
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(VERSION, HeaderValue::from_static(wire::API_VERSION));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(key) = key {
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(key).expect("keys are letters, digits and dashes"));
        }
        let answer = tokio::time::timeout(TIMEOUT, self.send(request)).await;
        let (status, body) = answer.map_err(|_| StripeError::Unknown("it took too long".to_owned()))??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| StripeError::Unknown(error.to_string()));
        }
        Err(refusal(status, &body))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), StripeError> {
        let response = self.client.request(request).await.map_err(|error| {
            // What is told of an error must not hold an address.
            if error.is_connect() {
                StripeError::NotReached
            } else {
                StripeError::Unknown("the connection broke".to_owned())
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| StripeError::Unknown("it broke off or is too long".to_owned()))?;
        Ok((head.status, body.to_bytes()))
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> StripeError {
    let detail = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error).unwrap_or_default();
    let code = status.as_u16();
    if status == StatusCode::PAYMENT_REQUIRED || detail.kind == "card_error" {
        let reason = PaymentError { code: detail.code, decline_code: detail.decline_code };
        let code = reason.decline_code.or(reason.code).unwrap_or_else(|| "card_declined".to_owned());
        return StripeError::Declined { code, payment: detail.payment_intent.map(|payment| payment.id) };
    }
    // 409: a request with the same key is still under way.
    if status.is_server_error() || matches!(code, 409 | 429) {
        return StripeError::Later(code);
    }
    StripeError::Refused {
        status: code,
        kind: detail.kind,
        code: detail.code.unwrap_or_default(),
        message: detail.message.unwrap_or_default().chars().take(300).collect(),
    }
}

/// An id of Stripe's, as part of an address: letters, digits and underscores, or it is none.
fn segment(id: &str) -> Result<&str, StripeError> {
    let is_id = !id.is_empty()
        && id.len() <= ID_CHARS_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_id.then_some(id).ok_or_else(|| StripeError::Refused {
        status: 400,
        kind: "invalid_request_error".to_owned(),
        code: "resource_missing".to_owned(),
        message: "what was given is no id of Stripe's".to_owned(),
    })
}

/// Parameters as Stripe takes them.
struct Form(String);

impl Form {
    fn new() -> Self {
        Self(String::new())
    }

    fn with(self, name: &str, value: &str) -> Self {
        Self(form_urlencoded::Serializer::new(self.0).append_pair(name, value).finish())
    }
}
