//! What Stripe knows and does: objects, and the events that their changes are.

use super::deliver::now;
use super::form::Params;
use super::objects;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Smallest charge, in cents of USD or EUR.
const AMOUNT_MIN: i64 = 50;
/// Largest amount: eight digits.
const AMOUNT_MAX: i64 = 99_999_999;
/// Objects of a page, unless asked for another number.
const PAGE: i64 = 10;
/// The version of events, as an account's webhook would have it.
const API_VERSION: &str = "2025-09-30.clover";
/// Objects, events and requests that are kept; a test needs far fewer.
const KEPT_MAX: usize = 1_000_000;

/// How a charge of a saved card goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextCharge {
    /// The bank agrees.
    Succeeds,
    /// The bank declines, for example with `insufficient_funds`.
    Declined(String),
    /// The bank wants the customer present.
    AuthenticationRequired,
    /// The money is under way; see [`super::Stripe::end_charge`].
    Processing,
    /// Stripe fails before it did anything: 500.
    Fails,
    /// Stripe is asked too often: 429. Nothing is remembered of the request.
    TooMany,
    /// The charge succeeds, but the connection breaks before the answer.
    AnswerLost,
}

/// A request that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// `POST`, `GET`.
    pub method: String,
    /// `/v1/…`
    pub path: String,
    /// The parameters as a tree.
    pub params: Value,
    /// `Idempotency-Key`
    pub idempotency_key: Option<String>,
    /// `Stripe-Version`
    pub version: Option<String>,
    /// It was answered from memory.
    pub replayed: bool,
}

/// An error as Stripe shapes it.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub status: u16,
    pub kind: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    pub param: Option<String>,
    pub decline_code: Option<String>,
    pub payment_intent: Option<Value>,
    pub charge: Option<Value>,
    /// The request was executed: the answer belongs to its idempotency key.
    pub executed: bool,
    /// The connection breaks in place of the answer.
    pub lost: bool,
}

impl ApiError {
    pub(super) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            status,
            kind,
            code: None,
            message: message.into(),
            param: None,
            decline_code: None,
            payment_intent: None,
            charge: None,
            executed: false,
            lost: false,
        })
    }

    pub(super) fn invalid(what: &str, param: &str) -> Box<Self> {
        let mut error = Self::new(400, "invalid_request_error", format!("{what}: {param}"));
        error.param = Some(param.to_owned());
        error
    }

    pub(super) fn code(mut self: Box<Self>, code: &'static str) -> Box<Self> {
        self.code = Some(code);
        self
    }

    fn missing(kind: &str, id: &str, param: &str) -> Box<Self> {
        let mut error = Self::new(404, "invalid_request_error", format!("No such {kind}: '{id}'"));
        error.param = Some(param.to_owned());
        error.code("resource_missing")
    }

    fn state(message: &str, code: &'static str) -> Box<Self> {
        Self::new(400, "invalid_request_error", message).code(code)
    }

    pub(super) fn body(&self) -> Value {
        let mut error = json!({"type": self.kind, "message": self.message});
        let fields = error.as_object_mut().expect("it was written as an object");
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        set("code", self.code.map(Value::from));
        set("doc_url", self.code.map(|code| format!("https://stripe.com/docs/error-codes/{code}").into()));
        set("param", self.param.clone().map(Value::from));
        set("decline_code", self.decline_code.clone().map(Value::from));
        set("charge", self.charge.clone());
        set(
            "payment_method",
            self.payment_intent.as_ref().map(|intent| intent["last_payment_error"]["payment_method"].clone()),
        );
        set("payment_intent", self.payment_intent.clone());
        json!({"error": error})
    }
}

type Answer = Result<Value, Box<ApiError>>;

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    base: String,
    livemode: bool,
    /// By id. Ids count up, so the order of ids is the order of creation.
    objects: BTreeMap<String, Value>,
    pub events: Vec<Value>,
    pub asked: Vec<Asked>,
    pub next_charges: VecDeque<NextCharge>,
    created: u64,
    /// The request that is being answered, for the events that it causes.
    pub request: Option<(String, Option<String>)>,
}

impl World {
    pub(super) fn new(base: String, livemode: bool) -> Self {
        Self {
            base,
            livemode,
            objects: BTreeMap::new(),
            events: Vec::new(),
            asked: Vec::new(),
            next_charges: VecDeque::new(),
            created: 0,
            request: None,
        }
    }

    /// An object or event by its id.
    pub(super) fn find(&self, id: &str) -> Option<Value> {
        if id.starts_with("evt_") {
            return self.events.iter().find(|event| event["id"] == id).cloned();
        }
        self.objects.get(id).cloned()
    }

    fn id(&mut self, prefix: &str, length: usize) -> String {
        self.created += 1;
        assert!(self.objects.len() + self.events.len() < KEPT_MAX, "this Stripe keeps at most {KEPT_MAX} things");
        let mode = if prefix == "cs" { if self.livemode { "live_a1" } else { "test_a1" } } else { "" };
        format!("{prefix}_{mode}{:0length$}", self.created)
    }

    fn put(&mut self, object: Value) -> Value {
        self.objects.insert(super::id_of(&object), object.clone());
        object
    }

    /// Changes fields of an object.
    fn set(&mut self, id: &str, fields: Value) -> Value {
        let object = self.objects.get_mut(id).expect("only objects that were found are changed");
        let Value::Object(fields) = fields else { unreachable!("fields are an object") };
        object.as_object_mut().expect("objects are objects").extend(fields);
        object.clone()
    }

    fn happened(&mut self, kind: &str, object: &Value) {
        let id = self.id("evt", 24);
        let (request, key) = self.request.clone().unzip();
        self.events.push(json!({
            "id": id, "object": "event", "api_version": API_VERSION, "created": now(), "data": {"object": object},
            "livemode": self.livemode, "pending_webhooks": 1,
            "request": {"id": request, "idempotency_key": key.flatten()}, "type": kind,
        }));
    }

    fn get(&self, kind: &str, id: &str, param: &str) -> Answer {
        let object = self.objects.get(id).filter(|object| object["object"] == kind).cloned();
        object.ok_or_else(|| {
            let mut error = ApiError::missing(kind, id, param);
            // What stands in the path is not found; what stands in a parameter is a bad parameter.
            error.status = if matches!(param, "id" | "session" | "intent" | "charge") { 404 } else { 400 };
            error
        })
    }

    fn list(&self, kind: &str, url: &str, params: &Params, keep: impl Fn(&Value) -> bool) -> Answer {
        let objects: Vec<&Value> = match kind {
            "event" => self.events.iter().collect(),
            _ => self.objects.values().filter(|object| object["object"] == kind).collect(),
        };
        let limit = params.integer("limit")?.unwrap_or(PAGE);
        if !(1..=100).contains(&limit) {
            return Err(ApiError::invalid("Out of 1 to 100", "limit"));
        }
        // Newest first, as Stripe lists.
        let mut found: Vec<&Value> = objects.into_iter().rev().filter(|object| keep(object)).collect();
        if let Some(after) = params.text("starting_after") {
            let at = found.iter().position(|object| object["id"] == after);
            found.drain(..=at.ok_or_else(|| ApiError::missing(kind, after, "starting_after"))?);
        }
        let limit = usize::try_from(limit).expect("it is 1 to 100");
        let has_more = found.len() > limit;
        Ok(objects::list(url, found.into_iter().take(limit).cloned().collect(), has_more))
    }

    /// Answers a request of the API.
    pub(super) fn answer(&mut self, method: &str, path: &[&str], params: &Params) -> Answer {
        match (method, path) {
            ("POST", ["customers"]) => self.create_customer(params),
            ("GET", ["customers", id]) => self.get("customer", id, "id"),
            ("POST", ["checkout", "sessions"]) => self.create_session(params),
            ("GET", ["checkout", "sessions", id]) => self.get("checkout.session", id, "session"),
            ("POST", ["checkout", "sessions", id, "expire"]) => self.expire(id),
            ("POST", ["payment_intents"]) => self.create_intent(params),
            ("GET", ["payment_intents", id]) => self.get("payment_intent", id, "intent"),
            ("POST", ["payment_intents", id, "confirm"]) => self.confirm_intent(id, params),
            ("POST", ["payment_intents", id, "cancel"]) => self.cancel_intent(id),
            ("GET", ["payment_intents"]) => {
                params.only(&["customer", "limit", "starting_after"])?;
                let customer = params.text("customer").map(Value::from);
                self.list("payment_intent", "/v1/payment_intents", params, |intent| {
                    customer.as_ref().is_none_or(|customer| intent["customer"] == *customer)
                })
            }
            ("GET", ["setup_intents", id]) => self.get("setup_intent", id, "intent"),
            ("GET", ["payment_methods", id]) => self.get("payment_method", id, "id"),
            ("POST", ["payment_methods", id, "detach"]) => self.detach(id),
            ("GET", ["payment_methods"]) => {
                params.only(&["customer", "type", "limit", "starting_after"])?;
                let customer = Value::from(params.required("customer")?);
                self.list("payment_method", "/v1/payment_methods", params, |method| method["customer"] == customer)
            }
            ("GET", ["charges", id]) => self.get("charge", id, "charge"),
            ("POST", ["refunds"]) => self.create_refund(params),
            ("GET", ["refunds", id]) => self.get("refund", id, "id"),
            ("GET", ["disputes", id]) => self.get("dispute", id, "id"),
            ("POST", ["disputes", id, "close"]) => self.advance_dispute(id, "lost"),
            ("GET", ["events"]) => self.list_events(params),
            ("GET", ["events", id]) => self.find(id).ok_or_else(|| ApiError::missing("event", id, "id")),
            _ => {
                let path = path.join("/");
                Err(ApiError::new(404, "invalid_request_error", format!("There is no {method} /v1/{path}")))
            }
        }
    }

    fn create_customer(&mut self, params: &Params) -> Answer {
        params.only(&["name", "email", "description", "metadata", "phone"])?;
        let id = self.id("cus", 14);
        let mut customer = objects::customer(&id, now(), self.livemode);
        for field in ["name", "email", "description", "phone"] {
            customer[field] = params.text(field).map_or(Value::Null, Value::from);
        }
        customer["metadata"] = params.texts("metadata");
        let customer = self.put(customer);
        self.happened("customer.created", &customer);
        Ok(customer)
    }

    fn create_session(&mut self, params: &Params) -> Answer {
        params.only(&[
            "mode",
            "success_url",
            "cancel_url",
            "client_reference_id",
            "customer",
            "customer_email",
            "customer_creation",
            "currency",
            "expires_at",
            "line_items",
            "locale",
            "metadata",
            "payment_intent_data",
            "payment_method_types",
            "setup_intent_data",
            "submit_type",
            "saved_payment_method_options",
            "allow_promotion_codes",
            "billing_address_collection",
        ])?;
        let mode = params.required("mode")?;
        params.required("success_url")?;
        let (amount, currency) = match mode {
            "payment" => {
                let (amount, currency) = total(params)?;
                (Some(amount), Some(currency))
            }
            "setup" if params.at("line_items").is_some() => {
                return Err(ApiError::invalid("Not allowed in setup mode", "line_items"));
            }
            "setup" => (None, params.text("currency").map(str::to_owned)),
            _ => return Err(ApiError::invalid("Must be payment or setup here", "mode")),
        };
        if params.text("client_reference_id").is_some_and(|id| id.len() > 200) {
            return Err(ApiError::invalid("Longer than 200 characters", "client_reference_id"));
        }
        let created = now();
        let expires_at = params.integer("expires_at")?.unwrap_or(created + 86_400);
        // A minute of slack on both sides for clocks that differ.
        if !(created + 29 * 60..=created + 24 * 3600 + 60).contains(&expires_at) {
            return Err(ApiError::invalid("Not between 30 minutes and 24 hours from now", "expires_at"));
        }
        if let Some(customer) = params.text("customer") {
            self.get("customer", customer, "customer")?;
        }
        let id = self.id("cs", 51);
        let mut session = objects::session(&id, created, self.livemode);
        for field in ["success_url", "cancel_url", "client_reference_id", "customer", "customer_email", "locale"] {
            session[field] = params.text(field).map_or(Value::Null, Value::from);
        }
        session["mode"] = mode.into();
        session["metadata"] = params.texts("metadata");
        session["amount_total"] = amount.into();
        session["amount_subtotal"] = amount.into();
        session["currency"] = currency.into();
        session["expires_at"] = expires_at.into();
        session["url"] = format!("{}/c/pay/{id}", self.base).into();
        if mode == "setup" {
            session["payment_status"] = "no_payment_required".into();
        }
        let session = self.put(session);
        // Kept beside the object: an answer does not show it, the payment needs it.
        self.objects.insert(format!("{id}:params"), params.value());
        Ok(session)
    }

    /// The customer completes a session. With `later`, the money is under way.
    pub(super) fn complete(&mut self, id: &str, later: bool) -> Answer {
        let session = self.get("checkout.session", id, "session")?;
        if session["status"] != "open" {
            return Err(ApiError::state("Only an open session can be completed", "checkout_session_not_open"));
        }
        let params = self.objects.get(&format!("{id}:params")).cloned().unwrap_or_default();
        let setup = session["mode"] == "setup";
        let keeps = setup || params["payment_intent_data"]["setup_future_usage"].is_string();
        let mut customer = session["customer"].clone();
        if customer.is_null() && keeps {
            customer = self.create_customer(&Params::default())?["id"].clone();
        }
        let method_id = self.id("pm", 24);
        let owner = customer.as_str().filter(|_| keeps);
        let method = self.put(objects::payment_method(&method_id, owner, now(), self.livemode));
        let done = json!({"status": "complete", "url": null, "customer": customer});
        if keeps {
            self.happened("payment_method.attached", &method);
        }
        if setup {
            let intent_id = self.id("seti", 24);
            let customer = customer.as_str().expect("a customer was made if there was none");
            let mut intent = objects::setup_intent(&intent_id, customer, &method_id, now(), self.livemode);
            intent["metadata"] = object_or_empty(&params["setup_intent_data"]["metadata"]);
            let intent = self.put(intent);
            self.happened("setup_intent.created", &intent);
            self.happened("setup_intent.succeeded", &intent);
            self.set(id, done);
            let session = self.set(id, json!({"setup_intent": intent_id}));
            self.happened("checkout.session.completed", &session);
            return Ok(session);
        }
        let intent_id = self.id("pi", 24);
        let amount = session["amount_total"].as_i64().expect("a payment has an amount");
        let currency = session["currency"].as_str().expect("a payment has a currency");
        let mut intent = objects::payment_intent(&intent_id, amount, currency, now(), self.livemode);
        intent["customer"] = customer;
        intent["payment_method"] = method_id.into();
        intent["metadata"] = object_or_empty(&params["payment_intent_data"]["metadata"]);
        intent["description"] = params["payment_intent_data"]["description"].clone();
        intent["setup_future_usage"] = params["payment_intent_data"]["setup_future_usage"].clone();
        let intent = self.put(intent);
        self.happened("payment_intent.created", &intent);
        if later {
            self.start_processing(&intent_id);
        } else {
            self.succeed(&intent_id);
        }
        self.set(id, done);
        let payment_status = if later { "unpaid" } else { "paid" };
        let session = self.set(id, json!({"payment_intent": intent_id, "payment_status": payment_status}));
        self.happened("checkout.session.completed", &session);
        Ok(session)
    }

    /// The money of a completed session arrives, or does not.
    pub(super) fn end_async(&mut self, id: &str, succeeds: bool) -> Answer {
        let session = self.get("checkout.session", id, "session")?;
        let intent = session["payment_intent"].as_str().unwrap_or_default().to_owned();
        self.end_intent(&intent, succeeds)?;
        let session = if succeeds { self.set(id, json!({"payment_status": "paid"})) } else { session };
        let kind = if succeeds { "succeeded" } else { "failed" };
        self.happened(&format!("checkout.session.async_payment_{kind}"), &session);
        Ok(session)
    }

    /// A payment that is processing ends.
    pub(super) fn end_intent(&mut self, id: &str, succeeds: bool) -> Answer {
        let intent = self.get("payment_intent", id, "intent")?;
        if intent["status"] != "processing" {
            return Err(ApiError::state("It is not processing", "payment_intent_unexpected_state"));
        }
        if succeeds {
            return Ok(self.succeed(id));
        }
        Ok(self.decline(id, "card_declined", "generic_decline"))
    }

    pub(super) fn expire(&mut self, id: &str) -> Answer {
        if self.get("checkout.session", id, "session")?["status"] != "open" {
            return Err(ApiError::state("Only an open session can expire", "checkout_session_not_open"));
        }
        let session = self.set(id, json!({"status": "expired", "url": null}));
        self.happened("checkout.session.expired", &session);
        Ok(session)
    }

    fn create_intent(&mut self, params: &Params) -> Answer {
        params.only(&[
            "amount",
            "currency",
            "customer",
            "payment_method",
            "payment_method_types",
            "automatic_payment_methods",
            "off_session",
            "confirm",
            "metadata",
            "description",
            "setup_future_usage",
            "error_on_requires_action",
            "receipt_email",
            "statement_descriptor_suffix",
        ])?;
        let currency = params.required("currency")?;
        params.required("amount")?;
        let amount = params.integer("amount")?.unwrap_or_default();
        check_amount(amount, currency, "amount")?;
        let (confirm, off_session) = (params.boolean("confirm")?, params.boolean("off_session")?);
        if off_session && !confirm {
            return Err(ApiError::invalid("Only together with confirm", "off_session"));
        }
        let method = params.text("payment_method");
        if let Some(method) = method {
            let found = self.get("payment_method", method, "payment_method")?;
            if !found["customer"].is_null() && found["customer"].as_str() != params.text("customer") {
                return Err(ApiError::invalid("It belongs to another customer", "payment_method"));
            }
        }
        if let Some(customer) = params.text("customer") {
            self.get("customer", customer, "customer")?;
        }
        if confirm && method.is_none() {
            return Err(ApiError::invalid("Needed to confirm", "payment_method").code("parameter_missing"));
        }
        let next =
            if confirm { self.next_charges.pop_front().unwrap_or(NextCharge::Succeeds) } else { NextCharge::Succeeds };
        refuse_first(&next)?;
        let id = self.id("pi", 24);
        let mut intent = objects::payment_intent(&id, amount, currency, now(), self.livemode);
        for field in ["customer", "payment_method", "description", "setup_future_usage", "receipt_email"] {
            intent[field] = params.text(field).map_or(Value::Null, Value::from);
        }
        intent["metadata"] = params.texts("metadata");
        if method.is_some() {
            intent["status"] = "requires_confirmation".into();
        }
        let intent = self.put(intent);
        self.happened("payment_intent.created", &intent);
        if confirm { self.attempt(&id, &next) } else { Ok(intent) }
    }

    fn confirm_intent(&mut self, id: &str, params: &Params) -> Answer {
        params.only(&["payment_method", "off_session", "return_url", "error_on_requires_action"])?;
        let intent = self.get("payment_intent", id, "intent")?;
        if !matches!(intent["status"].as_str(), Some("requires_confirmation" | "requires_payment_method")) {
            return Err(ApiError::state("It cannot be confirmed now", "payment_intent_unexpected_state"));
        }
        if let Some(method) = params.text("payment_method") {
            self.get("payment_method", method, "payment_method")?;
            self.set(id, json!({"payment_method": method}));
        }
        let next = self.next_charges.pop_front().unwrap_or(NextCharge::Succeeds);
        refuse_first(&next)?;
        self.attempt(id, &next)
    }

    fn attempt(&mut self, id: &str, next: &NextCharge) -> Answer {
        let error = match next {
            NextCharge::Succeeds => return Ok(self.succeed(id)),
            NextCharge::Processing => return Ok(self.start_processing(id)),
            NextCharge::AnswerLost => {
                self.succeed(id);
                let mut error = ApiError::new(500, "api_error", "nobody reads this");
                error.lost = true;
                error
            }
            NextCharge::AuthenticationRequired => {
                self.declined(id, "authentication_required", "authentication_required")
            }
            NextCharge::Declined(why) => self.declined(id, "card_declined", why),
            NextCharge::Fails | NextCharge::TooMany => unreachable!("refused before anything was done"),
        };
        Err(error)
    }

    fn declined(&mut self, id: &str, code: &'static str, decline_code: &str) -> Box<ApiError> {
        let intent = self.decline(id, code, decline_code);
        let mut error = ApiError::new(402, "card_error", format!("The card was declined ({decline_code}).")).code(code);
        error.decline_code = Some(decline_code.to_owned());
        error.charge = Some(intent["latest_charge"].clone());
        error.payment_intent = Some(intent);
        error.executed = true;
        error
    }

    fn succeed(&mut self, id: &str) -> Value {
        let intent = self.objects[id].clone();
        let charge_id = self.id("ch", 24);
        let charge = self.put(objects::charge(&charge_id, &intent, "succeeded", now()));
        let intent = self.set(
            id,
            json!({
                "status": "succeeded", "amount_received": intent["amount"], "latest_charge": charge_id,
                "last_payment_error": null, "processing": null,
            }),
        );
        self.happened("charge.succeeded", &charge);
        self.happened("payment_intent.succeeded", &intent);
        intent
    }

    fn start_processing(&mut self, id: &str) -> Value {
        let intent = self.set(id, json!({"status": "processing"}));
        self.happened("payment_intent.processing", &intent);
        intent
    }

    fn decline(&mut self, id: &str, code: &str, decline_code: &str) -> Value {
        let intent = self.objects[id].clone();
        let charge_id = self.id("ch", 24);
        let mut charge = objects::charge(&charge_id, &intent, "failed", now());
        charge["failure_code"] = code.into();
        let charge = self.put(charge);
        let method = intent["payment_method"].as_str().and_then(|method| self.find(method));
        let intent = self.set(
            id,
            json!({
                "status": "requires_payment_method", "latest_charge": charge_id, "payment_method": null,
                "processing": null,
                "last_payment_error": {
                    "type": "card_error", "code": code, "decline_code": decline_code, "charge": charge_id,
                    "message": format!("The card was declined ({decline_code})."), "payment_method": method,
                },
            }),
        );
        self.happened("charge.failed", &charge);
        self.happened("payment_intent.payment_failed", &intent);
        intent
    }

    fn cancel_intent(&mut self, id: &str) -> Answer {
        let intent = self.get("payment_intent", id, "intent")?;
        if matches!(intent["status"].as_str(), Some("succeeded" | "canceled" | "processing")) {
            return Err(ApiError::state("It cannot be cancelled now", "payment_intent_unexpected_state"));
        }
        let intent = self.set(id, json!({"status": "canceled", "canceled_at": now()}));
        self.happened("payment_intent.canceled", &intent);
        Ok(intent)
    }

    fn detach(&mut self, id: &str) -> Answer {
        self.get("payment_method", id, "id")?;
        let method = self.set(id, json!({"customer": null}));
        self.happened("payment_method.detached", &method);
        Ok(method)
    }

    fn create_refund(&mut self, params: &Params) -> Answer {
        params.only(&["payment_intent", "charge", "amount", "reason", "metadata"])?;
        let intent = match (params.text("payment_intent"), params.text("charge")) {
            (Some(intent), _) => intent.to_owned(),
            (None, Some(charge)) => {
                let charge = self.get("charge", charge, "charge")?;
                charge["payment_intent"].as_str().unwrap_or_default().to_owned()
            }
            (None, None) => return Err(ApiError::invalid("One of payment_intent and charge is needed", "charge")),
        };
        let amount = params.integer("amount")?;
        self.refund(&intent, amount, "succeeded")
    }

    /// Refunds a payment, all that is left of it unless told how much.
    pub(super) fn refund(&mut self, intent: &str, amount: Option<i64>, status: &str) -> Answer {
        let charge = self.charge_of(intent)?;
        let left = charge["amount_captured"].as_i64().unwrap_or_default()
            - charge["amount_refunded"].as_i64().unwrap_or_default();
        if left == 0 {
            return Err(ApiError::state("Everything is refunded already", "charge_already_refunded"));
        }
        let amount = amount.unwrap_or(left);
        if amount <= 0 || amount > left {
            return Err(ApiError::invalid(&format!("Not between 1 and the unrefunded {left}"), "amount"));
        }
        let id = self.id("re", 24);
        let refund = self.put(objects::refund(&id, &charge, amount, status, now()));
        let charge = self.add_refunded(&charge, amount);
        self.happened("refund.created", &refund);
        self.happened("charge.refunded", &charge);
        self.happened("charge.refund.updated", &refund);
        Ok(refund)
    }

    pub(super) fn end_refund(&mut self, id: &str, status: &str) -> Answer {
        let refund = self.get("refund", id, "id")?;
        let failed = matches!(status, "failed" | "canceled");
        if failed && let Some(charge) = refund["charge"].as_str().and_then(|charge| self.find(charge)) {
            self.add_refunded(&charge, -refund["amount"].as_i64().unwrap_or_default());
        }
        let refund = self.set(id, json!({"status": status}));
        self.happened("refund.updated", &refund);
        self.happened("charge.refund.updated", &refund);
        if status == "failed" {
            self.happened("refund.failed", &refund);
        }
        Ok(refund)
    }

    fn add_refunded(&mut self, charge: &Value, amount: i64) -> Value {
        let refunded = charge["amount_refunded"].as_i64().unwrap_or_default() + amount;
        let whole = Some(refunded) == charge["amount"].as_i64();
        self.set(&super::id_of(charge), json!({"amount_refunded": refunded, "refunded": whole}))
    }

    pub(super) fn dispute(&mut self, intent: &str, amount: i64, inquiry: bool) -> Answer {
        let charge = self.charge_of(intent)?;
        self.set(&super::id_of(&charge), json!({"disputed": true}));
        let id = self.id("dp", 24);
        let mut dispute = objects::dispute(&id, &charge, amount, now());
        if inquiry {
            dispute["status"] = "warning_needs_response".into();
            dispute["is_charge_refundable"] = true.into();
        }
        let dispute = self.put(dispute);
        self.happened("charge.dispute.created", &dispute);
        Ok(if inquiry { dispute } else { self.move_funds(&id, -amount, "withdrawn") })
    }

    /// A dispute gets another status, and money moves where that means it.
    pub(super) fn advance_dispute(&mut self, id: &str, status: &str) -> Answer {
        let before = self.get("dispute", id, "id")?;
        let amount = before["amount"].as_i64().unwrap_or_default();
        let was_inquiry = before["status"].as_str().is_some_and(|status| status.starts_with("warning_"));
        let dispute = self.set(id, json!({"status": status}));
        if matches!(status, "won" | "lost" | "warning_closed") {
            self.happened("charge.dispute.closed", &dispute);
        } else {
            self.happened("charge.dispute.updated", &dispute);
        }
        Ok(match status {
            "won" => self.move_funds(id, amount, "reinstated"),
            "needs_response" | "lost" if was_inquiry => self.move_funds(id, -amount, "withdrawn"),
            _ => dispute,
        })
    }

    fn move_funds(&mut self, id: &str, amount: i64, how: &str) -> Value {
        let movement_id = self.id("txn", 24);
        let dispute = self.objects[id].clone();
        let movement = objects::dispute_movement(&movement_id, &dispute, amount, now());
        let mut movements = dispute["balance_transactions"].as_array().cloned().unwrap_or_default();
        movements.push(movement);
        let dispute = self.set(id, json!({"balance_transactions": movements}));
        self.happened(&format!("charge.dispute.funds_{how}"), &dispute);
        dispute
    }

    fn charge_of(&self, intent: &str) -> Answer {
        let intent = self.get("payment_intent", intent, "payment_intent")?;
        if intent["status"] != "succeeded" {
            return Err(ApiError::state("It was not paid", "payment_intent_unexpected_state"));
        }
        self.get("charge", intent["latest_charge"].as_str().unwrap_or_default(), "charge")
    }

    fn list_events(&self, params: &Params) -> Answer {
        params.only(&["type", "types", "created", "delivery_success", "limit", "starting_after", "ending_before"])?;
        let kinds: Vec<Value> = match (params.text("type"), params.at("types").and_then(Value::as_array)) {
            (Some(kind), _) => vec![kind.into()],
            (None, Some(kinds)) => kinds.clone(),
            (None, None) => Vec::new(),
        };
        let since = params.integer("created.gte")?.unwrap_or(i64::MIN);
        let until = params.integer("created.lte")?.unwrap_or(i64::MAX);
        self.list("event", "/v1/events", params, |event| {
            let created = event["created"].as_i64().unwrap_or_default();
            (kinds.is_empty() || kinds.contains(&event["type"])) && (since..=until).contains(&created)
        })
    }
}

/// What has no effect and is not remembered.
fn refuse_first(next: &NextCharge) -> Result<(), Box<ApiError>> {
    match next {
        NextCharge::Fails => {
            let mut error = ApiError::new(500, "api_error", "Something went wrong at Stripe");
            error.executed = true;
            Err(error)
        }
        NextCharge::TooMany => Err(ApiError::new(429, "invalid_request_error", "Too many requests").code("rate_limit")),
        _ => Ok(()),
    }
}

/// The sum of the line items and their currency.
fn total(params: &Params) -> Result<(i64, String), Box<ApiError>> {
    let missing = || ApiError::invalid("Needed in payment mode", "line_items").code("parameter_missing");
    let items = params.at("line_items").and_then(Value::as_array).ok_or_else(missing)?;
    let (mut sum, mut currency) = (0_i64, None);
    for index in 0..items.len() {
        let at = |name: &str| format!("line_items.{index}.{name}");
        let of = params.required(&at("price_data.currency"))?.to_owned();
        params.required(&at("price_data.product_data.name"))?;
        params.required(&at("price_data.unit_amount"))?;
        let amount = params.integer(&at("price_data.unit_amount"))?.unwrap_or_default();
        let quantity = params.integer(&at("quantity"))?.ok_or_else(|| ApiError::invalid("Missing", &at("quantity")))?;
        if currency.get_or_insert_with(|| of.clone()) != &of {
            return Err(ApiError::invalid("All line items have one currency", "line_items"));
        }
        sum = amount.checked_mul(quantity).and_then(|amount| sum.checked_add(amount)).unwrap_or(i64::MAX);
    }
    let currency = currency.ok_or_else(missing)?;
    check_amount(sum, &currency, "line_items")?;
    Ok((sum, currency))
}

fn check_amount(amount: i64, currency: &str, param: &str) -> Result<(), Box<ApiError>> {
    let is_code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_lowercase());
    if !is_code {
        return Err(ApiError::invalid("Not a currency in lower case", "currency"));
    }
    let min = if matches!(currency, "usd" | "eur") { AMOUNT_MIN } else { 1 };
    if amount < min {
        return Err(ApiError::invalid("Below the least amount", param).code("amount_too_small"));
    }
    if amount > AMOUNT_MAX {
        return Err(ApiError::invalid("Above the greatest amount", param).code("amount_too_large"));
    }
    let step = match currency {
        "bhd" | "jod" | "kwd" | "omr" | "tnd" => 10,
        "isk" | "ugx" => 100,
        _ => 1,
    };
    if amount % step != 0 {
        return Err(ApiError::invalid("Not a whole step of its currency", param));
    }
    Ok(())
}

fn object_or_empty(value: &Value) -> Value {
    if value.is_object() { value.clone() } else { json!({}) }
}
