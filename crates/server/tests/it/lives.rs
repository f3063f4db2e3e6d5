//! The first and the third life of `docs/money.md`, lived through the executable: its public port, its command line, and a
//! scripted Stripe. A row of figures in the page is a call of [`Life::stands`] here, word for word. The second life takes a
//! year: it is in `crates/server/src/lives.rs`, on a clock of its own.

use crate::harness::Key;
use crate::http::{Answer, Caller};
use crate::members::ask;
use crate::shop::{Owner, Shop};
use serde_json::{Value, json};
use sim::figures::{Figures, Views};

/// Before and after everything that happens in a life.
const FROM: &str = "2020-01-01T00:00:00Z";
const TO: &str = "2120-01-01T00:00:00Z";

/// A gateway with a Stripe and the built-in simulator, and the account that a life is about.
struct Life {
    shop: Shop,
    owner: Owner,
}

impl Life {
    async fn of(name: &str) -> Self {
        let shop = Shop::open_with("", "[simulator]\nlatency_ms = 0").await;
        let owner = shop.owner(name).await;
        Self { shop, owner }
    }

    /// Checks a row of the page in every view: what is in the wallet, owed, put in and spent.
    async fn stands(&self, step: &str, [wallet, owed, put_in, spent]: [&str; 4]) {
        Figures::of_wallet(wallet, owed, put_in, spent).check(step, &self.views().await);
    }

    async fn views(&self) -> Views {
        let name = self.owner.name.as_str();
        let (json, csv) = (statement_as("json"), statement_as("csv"));
        let printed = async |command: &[&str], format: &str| {
            let arguments = [command, &[name, "--from", FROM, "--to", TO, format]].concat();
            self.shop.gateway.cli_text(&arguments).await
        };
        let parsed = |printed: String| serde_json::from_str::<Value>(&printed).expect("JSON is printed");
        Views {
            operator: self.as_operator("").await.json(),
            member: self.as_member("").await.json(),
            command_line: self.shop.gateway.cli_json(&["ledger", "balance", name, "--json"]).await,
            statements: vec![
                self.as_operator(&json).await.json(),
                self.as_member(&json).await.json(),
                parsed(printed(&["statement"], "--json").await),
                parsed(printed(&["ledger", "statement"], "--json").await),
            ],
            tables: vec![
                self.as_operator(&csv).await.text(),
                self.as_member(&csv).await.text(),
                printed(&["statement"], "--csv").await,
                printed(&["ledger", "statement"], "--csv").await,
            ],
        }
    }

    async fn as_operator(&self, path: &str) -> Answer {
        self.shop.gateway.admin("GET", &format!("/accounts/{}{path}", self.owner.account), None).await
    }

    async fn as_member(&self, path: &str) -> Answer {
        self.shop.ask(&self.owner, "GET", path, Value::Null).await
    }

    /// Checks what a key has used of its quota, as its operator, its account's owner, the command line and the key see it.
    async fn key_stands(&self, key: &Key, used: &str, remaining: &str) {
        let id = key.id.to_string();
        let own = ask(&key.caller, "GET", "/account", Value::Null).await.json();
        for shown in [
            self.shop.gateway.key_shown(key.id).await,
            self.as_member(&format!("/keys/{id}")).await.json(),
            self.shop.gateway.cli_json(&["key", "show", &id, "--json"]).await,
            own["key"].clone(),
        ] {
            assert_eq!((&shown["used_of_quota"], &shown["remaining"]), (&json!(used), &json!(remaining)), "{shown}");
        }
    }

    /// The number of the statement's lines of each kind, in the order in which they first appear.
    async fn lines(&self) -> Vec<(String, usize)> {
        let statement = self.as_operator(&statement_as("json")).await.json();
        let mut counts: Vec<(String, usize)> = Vec::new();
        for line in statement["lines"].as_array().expect("lines") {
            let kind = line["kind"].as_str().expect("a kind");
            match counts.iter_mut().find(|(known, _)| known == kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind.to_owned(), 1)),
            }
        }
        counts
    }

    /// The end: `tollgate ledger verify` finds nothing, and nothing is open.
    async fn ends(mut self) {
        let verified = self.shop.gateway.cli_json(&["ledger", "verify", "--json"]).await;
        assert_eq!((&verified["ok"], &verified["verified"]["open_holds"]), (&json!(true), &json!(0)), "{verified}");
        self.shop.gateway.quiet().await;
    }
}

fn statement_as(format: &str) -> String {
    format!("/statement?from={FROM}&to={TO}&format={format}")
}

/// One request of 2,000 prompt tokens and so many answer tokens.
async fn request(caller: &Caller, answer_tokens: u64) -> Answer {
    let body = json!({
        "model": "sim-large",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": answer_tokens,
        "simulator": {"latency_ms": 0, "prompt_tokens": 2_000, "completion_tokens": answer_tokens},
    });
    caller.chat(&body).await
}

/// The same, served at that price.
async fn served(caller: &Caller, answer_tokens: u64, price: &str) {
    let answer = request(caller, answer_tokens).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.cost().map(|cost| cost.to_string()).as_deref(), Some(price));
}

#[tokio::test]
async fn a_developer_with_a_five_dollar_key() {
    let life = Life::of("dana").await;
    let gateway = &life.shop.gateway;
    gateway.cli_json(&["account", "top-up", "dana", "20.00", "--json"]).await;
    let laptop = gateway.key(json!({"account": "dana", "name": "laptop", "quota": "5.00"})).await;
    life.stands("the operator puts in $20.00", ["20.00", "0.00", "20.00", "0.00"]).await;

    for _ in 0..500 {
        served(&laptop.caller, 500, "0.01").await;
    }
    life.stands("500 requests at $0.01", ["15.00", "0.00", "20.00", "5.00"]).await;
    life.key_stands(&laptop, "5.00", "0.00").await;

    let refused = request(&laptop.caller, 500).await;
    assert_eq!(refused.error(), (402, "billing_error".to_owned(), "quota_exceeded".to_owned()));
    assert_eq!(refused.header("x-tollgate-quota-scope"), Some("key"));
    assert!(refused.text().contains("$5.00 of $5.00"), "{}", refused.text());
    life.stands("the 501st is refused", ["15.00", "0.00", "20.00", "5.00"]).await;

    gateway.cli_json(&["key", "reset", &laptop.id.to_string(), "--note", "a new month", "--json"]).await;
    life.key_stands(&laptop, "0.00", "5.00").await;
    served(&laptop.caller, 500, "0.01").await;
    life.stands("set back, one more is served", ["14.99", "0.00", "20.00", "5.01"]).await;
    life.key_stands(&laptop, "0.01", "4.99").await;

    let lines = [("top_up", 1), ("charge", 501), ("reset", 1)];
    assert_eq!(life.lines().await, lines.map(|(kind, count)| (kind.to_owned(), count)));
    life.ends().await;
}

#[tokio::test]
async fn a_resellers_customer_who_tops_up_by_card_disputes_and_is_refunded() {
    let life = Life::of("shop").await;
    let (shop, gateway) = (&life.shop, &life.shop.gateway);
    gateway.cli_json(&["account", "edit", "shop", "--multiplier", "1.2", "--json"]).await;
    gateway.cli_json(&["price", "set", "sim-large", "--input", "100.00", "--output", "1000.00", "--json"]).await;
    let caller = gateway.key(json!({"account": "shop"})).await.caller;

    let (order, payment) = shop.paid(&life.owner, "50.00").await;
    told_again(shop).await;
    life.stands("a card pays $50.00", ["50.00", "0.00", "50.00", "0.00"]).await;

    for _ in 0..10 {
        served(&caller, 800, "1.20").await;
    }
    life.stands("10 requests at $1.20", ["38.00", "0.00", "50.00", "12.00"]).await;

    let dispute = shop.stripe.dispute(&payment, 5_000);
    told_again(shop).await;
    life.stands("a dispute is opened", ["0.00", "12.00", "0.00", "12.00"]).await;

    let refused = request(&caller, 800).await;
    assert_eq!(refused.error(), (403, "permission_error".to_owned(), "account_suspended".to_owned()));
    life.stands("the account is suspended", ["0.00", "12.00", "0.00", "12.00"]).await;

    shop.stripe.advance_dispute(&dispute, "won");
    told_again(shop).await;
    life.stands("the dispute is won", ["38.00", "0.00", "50.00", "12.00"]).await;

    gateway.cli_json(&["order", "refund", &order, "--amount", "38.00", "--reason", "closed", "--json"]).await;
    life.stands("what is left is refunded", ["0.00", "0.00", "12.00", "12.00"]).await;
    told_again(shop).await;
    life.stands("the refund is told twice", ["0.00", "0.00", "12.00", "12.00"]).await;

    let lines = [("card", 1), ("charge", 10), ("dispute", 1), ("dispute_won", 1), ("refund", 1)];
    assert_eq!(life.lines().await, lines.map(|(kind, count)| (kind.to_owned(), count)));
    life.ends().await;
}

/// Stripe tells everything that ever happened, twice.
async fn told_again(shop: &Shop) {
    shop.deliver_all().await;
    shop.deliver_all().await;
}
