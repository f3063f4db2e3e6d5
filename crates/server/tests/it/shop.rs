//! A gateway that takes money by card: the executable, a scripted Stripe (`sim::stripe`), and owners who are signed in.

use crate::harness::{Gateway, amount};
use crate::http::{Answer, Caller};
use crate::members::ask;
use domain::Nanos;
use serde_json::{Value, json};
use sim::stripe::{Fault, Stripe};
use std::sync::Arc;

/// Where Stripe delivers its events.
pub const WEBHOOK: &str = "/api/payments/stripe/webhook";
const PASSWORD: &str = "correct horse battery";

/// A gateway with a Stripe.
pub struct Shop {
    pub gateway: Gateway,
    pub stripe: Arc<Stripe>,
}

/// An account and its owner, who is signed in.
pub struct Owner {
    pub account: i64,
    pub name: String,
    pub session: String,
}

impl Shop {
    pub async fn open() -> Self {
        Self::open_with("", "").await
    }

    pub async fn open_with(payments: &str, sections: &str) -> Self {
        let stripe = Stripe::start().expect("a Stripe can be started");
        let (url, key, secret) = (stripe.url(), stripe.secret_key(), stripe.webhook_secret());
        let section = format!(
            "[payments.stripe]\nbase_url = \"{url}\"\nsecret_key = \"{key}\"\nwebhook_secret = \"{secret}\"\n\
             success_url = \"https://example.com/paid?session={{CHECKOUT_SESSION_ID}}\"\n{payments}\n{sections}"
        );
        Self { gateway: Gateway::start_with(&section).await, stripe: Arc::new(stripe) }
    }

    /// A new account without money.
    pub async fn owner(&self, name: &str) -> Owner {
        let account = self.gateway.account(name, Nanos::ZERO).await;
        let invite = json!({"email": format!("{name}@example.com"), "role": "owner"});
        let invited = self.gateway.manage("POST", &format!("/accounts/{account}/invitations"), invite).await;
        let nobody = Caller { address: self.gateway.caller.address, key: "none".to_owned() };
        let accept = json!({"token": invited["token"], "password": PASSWORD, "name": name});
        let session = ask(&nobody, "POST", "/session/password", accept).await.json();
        let session = session["token"].as_str().expect("a session has a token").to_owned();
        Owner { account, name: name.to_owned(), session }
    }

    pub async fn ask(&self, owner: &Owner, method: &str, path: &str, body: Value) -> Answer {
        let caller = Caller { address: self.gateway.caller.address, key: owner.session.clone() };
        ask(&caller, method, &format!("/account{path}"), body).await
    }

    /// Opens a page to pay on. Returns the order and the session at Stripe.
    pub async fn checkout(&self, owner: &Owner, amount: &str) -> (String, String) {
        let opened = self.ask(owner, "POST", "/checkout", json!({"amount": amount})).await;
        assert_eq!(opened.status, 201, "{}", opened.text());
        let (page, text) = (opened.json(), |value: &Value| value.as_str().expect("a text").to_owned());
        let (order, url) = (text(&page["order"]), text(&page["url"]));
        (order, url.rsplit('/').next().expect("the page's address ends with the session").to_owned())
    }

    /// Pays, and delivers everything. Returns the order and the payment at Stripe.
    pub async fn paid(&self, owner: &Owner, amount: &str) -> (String, String) {
        let (order, session) = self.checkout(owner, amount).await;
        self.stripe.complete(&session);
        self.deliver_all().await;
        let payment = self.stripe.object(&session)["payment_intent"].as_str().expect("it was paid").to_owned();
        (order, payment)
    }

    /// A card that may be charged automatically.
    pub async fn save_card(&self, owner: &Owner) {
        let opened = self.ask(owner, "POST", "/auto-top-up/setup", Value::Null).await;
        assert_eq!(opened.status, 201, "{}", opened.text());
        let url = opened.json()["url"].as_str().expect("an address").to_owned();
        self.stripe.complete(url.rsplit('/').next().expect("a session"));
        self.deliver_all().await;
    }

    pub async fn auto(&self, owner: &Owner) -> Value {
        self.ask(owner, "GET", "/auto-top-up", Value::Null).await.json()
    }

    pub async fn set_auto(&self, owner: &Owner, threshold: &str, amount: &str, monthly_max: u32) -> Answer {
        let wanted = json!({"enabled": true, "threshold": threshold, "amount": amount, "monthly_max": monthly_max});
        self.ask(owner, "PUT", "/auto-top-up", wanted).await
    }

    pub fn webhook(&self) -> String {
        format!("http://{}{WEBHOOK}", self.gateway.caller.address)
    }

    pub async fn deliver_with(&self, event: &Value, fault: Fault) -> (u16, Value) {
        let delivered = self.stripe.deliver_with(event, &self.webhook(), fault).await.expect("the webhook answers");
        let body = serde_json::from_str(&delivered.body).unwrap_or_else(|_| panic!("{}", delivered.body));
        (delivered.status, body)
    }

    /// Delivers an event that must be taken. Returns what became of it.
    pub async fn deliver(&self, event: &Value) -> String {
        let (status, body) = self.deliver_with(event, Fault::None).await;
        assert_eq!(status, 200, "{event}: {body}");
        body["outcome"].as_str().expect("an outcome").to_owned()
    }

    pub async fn deliver_all(&self) {
        for event in self.stripe.events() {
            self.deliver(&event).await;
        }
    }

    pub async fn pots(&self, owner: &Owner) -> (Nanos, Nanos) {
        let shown = self.gateway.account_shown(owner.account).await;
        (amount(&shown["balance"]), amount(&shown["owed"]))
    }

    pub async fn balance(&self, owner: &Owner) -> Nanos {
        self.pots(owner).await.0
    }

    pub async fn order(&self, id: &str) -> Value {
        self.gateway.manage("GET", &format!("/orders/{id}"), Value::Null).await
    }

    /// Entries of an account that money from outside made.
    pub fn entries(&self, owner: &Owner) -> Vec<(String, i64)> {
        let journal = self.gateway.journal();
        let mut statement = journal
            .connection()
            .prepare(
                "select reference, -funding from journal where account = ?1 and reference is not null order by seq",
            )
            .expect("the journal can be read");
        let rows = statement.query_map([owner.account], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect).expect("the journal can be read")
    }

    /// Charges of saved cards that Stripe was asked for, without repetitions.
    pub fn charges(&self) -> usize {
        let asked = self.stripe.asked();
        asked
            .iter()
            .filter(|asked| asked.path == "/v1/payment_intents" && asked.method == "POST" && !asked.replayed)
            .count()
    }
}

pub fn usd(text: &str) -> Nanos {
    text.parse().expect("an amount")
}
