//! Payments against the scripted Stripe: what is asked of it, and what its events do.

use super::stripe::{Checkout, Stripe as Client, StripeError};
use super::webhook::{Rejected, Secret};
use domain::payment::{Currency, ExchangeRate, OrderState, Provider, Quote};
use domain::{AccountId, Timestamp};
use gateway::upstream::http_client;
use serde_json::{Value, json};
use sim::load::trace::Dice;
use sim::stripe::{NextCharge, Stripe, sign};
use store::database::{Database, Options};
use store::payments::{Applied, NewOrder, Order, Outcome, Purpose, Rules};
use store::{accounts, payments};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const RULES: Rules = Rules { suspend_on_dispute: true };

/// A Stripe, its client, and a store with one account that is a customer.
struct World {
    stripe: Stripe,
    client: Client,
    secret: Secret,
    database: Database,
    account: AccountId,
    customer: String,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let stripe = Stripe::start().unwrap();
        let client = Client::new(http_client(), &stripe.url(), stripe.secret_key()).unwrap();
        let secret = Secret::new(stripe.webhook_secret()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), Options::default()).unwrap();
        let account = database.write(|connection| accounts::create(connection, "a", NOW)).await.unwrap().id;
        let customer = client.create_customer(account.0, "a", "ord_0").await.unwrap().id;
        let known = customer.clone();
        let remember = database.write(move |connection| {
            payments::remember_customer(connection, Provider::Stripe, account, false, &known, NOW)
        });
        assert_eq!(remember.await.unwrap(), customer);
        Self { stripe, client, secret, database, account, customer, _directory: directory }
    }

    async fn order(&self, purpose: Purpose) -> Order {
        let quote = Quote::new(1000, Currency::USD, ExchangeRate::USD).unwrap();
        let new = NewOrder {
            account: self.account,
            provider: Provider::Stripe,
            livemode: false,
            purpose,
            quote,
            method: None,
        };
        self.database.write(move |connection| payments::create(connection, &new, NOW)).await.unwrap()
    }

    /// Opens a page for a new order. Returns the order and the session.
    async fn checkout(&self) -> (Order, String) {
        let order = self.order(Purpose::Checkout).await;
        let checkout = Checkout {
            order: &order,
            customer: &self.customer,
            product: "Credit",
            save_card: true,
            success_url: "https://example.com/paid",
            cancel_url: "https://example.com/",
        };
        let session = self.client.open_checkout(&checkout).await.unwrap();
        assert_eq!(session.client_reference_id.as_deref(), Some(order.id.as_str()));
        let (id, known) = (order.id.clone(), session.id.clone());
        let attach = self.database.write(move |connection| payments::attach(connection, &id, Some(&known), None));
        attach.await.unwrap();
        (order, session.id)
    }

    /// Takes an event as if Stripe had just delivered it.
    async fn take(&self, event: &Value) -> Applied {
        let body = serde_json::to_vec_pretty(event).unwrap();
        let signature = sign(&body, self.stripe.webhook_secret(), NOW.seconds());
        let event = self.secret.open(Some(&signature), &body, NOW).unwrap();
        self.database.write(move |connection| payments::apply(connection, &event, RULES, NOW)).await.unwrap()
    }

    async fn take_all(&self) {
        for event in self.stripe.events() {
            self.take(&event).await;
        }
    }

    async fn sum(&self) -> i64 {
        let sum = self.database.read(|connection| {
            let mut statement = connection.prepare("select cast(coalesce(sum(amount), 0) as bigint) from credits")?;
            Ok(statement.query_row([], |row| row.get(0))?)
        });
        sum.await.unwrap()
    }

    async fn state(&self, of: &Order) -> OrderState {
        let id = of.id.clone();
        self.database.read(move |connection| payments::order(connection, &id)).await.unwrap().unwrap().state
    }

    /// A card that may be charged: its id at Stripe.
    async fn saved_card(&self) -> String {
        let (_, session) = self.checkout().await;
        self.stripe.complete(&session);
        self.take_all().await;
        let account = self.account;
        let newest =
            self.database.read(move |connection| payments::newest_method(connection, Provider::Stripe, account, false));
        newest.await.unwrap().unwrap().id
    }
}

#[tokio::test]
async fn a_payment_is_credited_when_stripe_says_so_and_once() {
    let world = World::new().await;
    let (order, session) = world.checkout().await;
    world.take_all().await;
    assert_eq!((world.state(&order).await, world.sum().await), (OrderState::Pending, 0));
    world.stripe.complete(&session);
    world.take_all().await;
    world.take_all().await;
    assert_eq!((world.state(&order).await, world.sum().await), (OrderState::Paid, 10_000_000_000));
    let account = world.account;
    let methods =
        world.database.read(move |connection| payments::methods(connection, Provider::Stripe, account, false));
    let card = methods.await.unwrap()[0].card.clone().unwrap();
    assert_eq!((card.brand.as_str(), card.last4.as_str()), ("visa", "4242"));
}

#[tokio::test]
async fn m_38_late_money_is_credited_when_it_arrives_and_money_that_never_comes_is_not() {
    let world = World::new().await;
    let ((late, late_session), (never, never_session)) = (world.checkout().await, world.checkout().await);
    let (expired, expired_session) = world.checkout().await;
    world.stripe.complete_later(&late_session);
    world.stripe.complete_later(&never_session);
    world.stripe.expire(&expired_session);
    world.take_all().await;
    assert_eq!((world.state(&late).await, world.sum().await), (OrderState::Processing, 0));
    world.stripe.arrive(&late_session);
    world.stripe.fail(&never_session);
    world.take_all().await;
    assert_eq!(world.state(&late).await, OrderState::Paid);
    assert_eq!(world.state(&never).await, OrderState::Failed);
    assert_eq!(world.state(&expired).await, OrderState::Expired);
    assert_eq!(world.sum().await, 10_000_000_000);
}

#[tokio::test]
async fn m_37_m_38_m_39_refunds_and_disputes_in_reverse_order_end_the_same() {
    let world = World::new().await;
    let (order, session) = world.checkout().await;
    world.stripe.complete(&session);
    let payment = world.stripe.object(&session)["payment_intent"].as_str().unwrap().to_owned();
    let refund = world.stripe.refund_later(&payment, 300);
    world.stripe.end_refund(&refund, "succeeded");
    let lost = world.stripe.inquire(&payment, 200);
    world.stripe.advance_dispute(&lost, "needs_response");
    world.stripe.advance_dispute(&lost, "lost");
    let won = world.stripe.dispute(&payment, 500);
    world.stripe.advance_dispute(&won, "won");
    for event in world.stripe.events().iter().rev() {
        world.take(event).await;
    }
    world.take_all().await;
    assert_eq!((world.state(&order).await, world.sum().await), (OrderState::Paid, 5_000_000_000));
}

#[tokio::test]
async fn a_saved_card_is_charged_once_even_if_the_answer_is_lost() {
    let world = World::new().await;
    let card = world.saved_card().await;
    let order = world.order(Purpose::Auto).await;
    world.stripe.next_charges([NextCharge::AnswerLost]);
    let lost = world.client.charge_saved(&order, &world.customer, &card, "Credit").await;
    assert!(matches!(lost, Err(StripeError::Unknown(_))), "{lost:?}");
    let charged = world.client.charge_saved(&order, &world.customer, &card, "Credit").await.unwrap();
    assert_eq!(charged.status, "succeeded");
    let found = world.client.find_payment(&order, &world.customer).await.unwrap().unwrap();
    assert_eq!(found.id, charged.id);
    let deed = charged.deed().unwrap().unwrap();
    let answered = world
        .database
        .write(move |connection| payments::apply_answer(connection, Provider::Stripe, false, &deed, RULES, NOW));
    assert_eq!(answered.await.unwrap().credits.len(), 1);
    world.take_all().await;
    assert_eq!(world.sum().await, 20_000_000_000, "the first payment and this one");
    let charges = world
        .stripe
        .asked()
        .iter()
        .filter(|asked| asked.path == "/v1/payment_intents" && asked.method == "POST")
        .count();
    assert_eq!((charges, world.stripe.asked().iter().filter(|asked| asked.replayed).count()), (2, 1));
}

#[tokio::test]
async fn declines_and_outages_are_told_apart() {
    let world = World::new().await;
    let card = world.saved_card().await;
    world.stripe.next_charges([
        NextCharge::Declined("insufficient_funds".to_owned()),
        NextCharge::AuthenticationRequired,
        NextCharge::Fails,
        NextCharge::TooMany,
    ]);
    let mut codes = Vec::new();
    let mut orders = Vec::new();
    for _ in 0..4 {
        let order = world.order(Purpose::Auto).await;
        codes.push(match world.client.charge_saved(&order, &world.customer, &card, "Credit").await {
            Err(StripeError::Declined { code, payment: Some(_) }) => code,
            Err(StripeError::Later(status)) => status.to_string(),
            other => panic!("{other:?}"),
        });
        orders.push(order);
    }
    assert_eq!(codes, ["insufficient_funds", "authentication_required", "500", "429"]);
    world.take_all().await;
    assert_eq!(world.state(&orders[0]).await, OrderState::Failed);
    assert_eq!(world.state(&orders[1]).await, OrderState::Failed);
    assert_eq!(world.state(&orders[2]).await, OrderState::Pending);
    let (id, other) = (orders[1].id.clone(), world.order(Purpose::Auto).await);
    let failed = world.database.read(move |connection| payments::order(connection, &id)).await.unwrap().unwrap();
    assert_eq!(failed.failure.as_deref(), Some("authentication_required"));
    let unknown = world.client.charge_saved(&other, &world.customer, "pm_none", "Credit").await;
    assert!(matches!(unknown, Err(StripeError::Refused { ref code, .. }) if code == "resource_missing"), "{unknown:?}");
    for id in ["", "../events", "pm_1?x", "pm 1"] {
        assert!(matches!(world.client.session(id).await, Err(StripeError::Refused { .. })), "{id}");
    }
}

#[tokio::test]
async fn nothing_is_charged_by_an_endpoint_that_is_gone() {
    let world = World::new().await;
    let url = world.stripe.url();
    drop(world.stripe);
    let client = Client::new(http_client(), &url, "sk_test_x").unwrap();
    // The listener closes with its task: either nobody listens any more, or the connection breaks.
    let gone = client.create_customer(1, "a", "ord_1").await;
    assert!(matches!(gone, Err(StripeError::NotReached | StripeError::Unknown(_))), "{gone:?}");
}

#[test]
fn s_27_only_fresh_signatures_over_these_bytes_open_an_event() {
    let secret = Secret::new("whsec_right").unwrap();
    let body = br#"{"id":"evt_1","object":"event","type":"x.y","created":1,"livemode":false,"data":{"object":{}}}"#;
    let seconds = NOW.seconds();
    let right = sign(body, "whsec_right", seconds);
    let digest = right.split_once(",v1=").unwrap().1.to_owned();
    let open = |header: Option<&str>, body: &[u8]| secret.open(header, body, NOW);
    assert_eq!(open(Some(&right), body).unwrap().id, "evt_1");

    let forged =
        |header: &str, body: &[u8]| assert!(matches!(open(Some(header), body), Err(Rejected::Forged)), "{header}");
    forged(&sign(body, "whsec_wrong", seconds), body);
    forged(&sign(body, "", seconds), body);
    forged(&right, &[body.as_slice(), b" "].concat());
    let reserialized = serde_json::to_vec(&serde_json::from_slice::<Value>(body).unwrap()).unwrap();
    forged(&right, &reserialized);
    forged(&format!("t={},v1={digest}", seconds + 1), body);
    forged(&format!("t={seconds},v1={}", "0".repeat(64)), body);

    let several = format!("t={seconds},v1={},v0={digest},v1={digest}", "a".repeat(64));
    assert!(open(Some(&several), body).is_ok(), "one of several is enough");

    for header in [
        "",
        "t=",
        "v1=",
        &format!("t={seconds}"),
        &format!("v1={digest}"),
        &format!("t={seconds},v0={digest}"),
        &format!("t={seconds},v1={}", &digest[2..]),
        &format!("t={seconds},v1={}zz", &digest[2..]),
        &format!("t={seconds},t={seconds},v1={digest}"),
        &format!("t=+{seconds},v1={digest}"),
        &"x".repeat(5000),
    ] {
        assert!(matches!(open(Some(header), body), Err(Rejected::Unsigned)), "{header}");
    }
    assert!(matches!(open(None, body), Err(Rejected::Unsigned)));

    for (skew, fresh) in [(-300, true), (300, true), (-301, false), (301, false)] {
        let header = sign(body, "whsec_right", seconds + skew);
        assert_eq!(open(Some(&header), body).is_ok(), fresh, "{skew}");
    }
    let ancient = sign(body, "whsec_right", 0);
    assert!(matches!(open(Some(&ancient), body), Err(Rejected::Stale)));
    let beyond = format!("t=99999999999999999999,v1={digest}");
    assert!(matches!(open(Some(&beyond), body), Err(Rejected::Stale)));
}

/// Headers made of the true one by a few changes open the event only if they still say what it says.
#[test]
fn s_27_no_change_to_a_signature_opens_another_door() {
    const PIECES: [&str; 12] = ["t=", "v1=", "v0=", ",", "=", "0", "f", " ", "\u{e9}", "t", "9", "whsec_right"];
    let secret = Secret::new("whsec_right").unwrap();
    let body = br#"{"id":"evt_1","object":"event","type":"x.y","created":1,"livemode":false,"data":{"object":{}}}"#;
    let seconds = NOW.seconds();
    let right = sign(body, "whsec_right", seconds);
    let (time, digest) = right.split_once(',').unwrap();
    let mut dice = Dice(27);
    let mut opened = 0;
    for _ in 0..50_000 {
        let mut header: Vec<char> = right.chars().collect();
        for _ in 0..=dice.roll(3) {
            let at = usize::try_from(dice.roll(header.len() as u64 + 1)).unwrap();
            match dice.roll(4) {
                0 if at < header.len() => drop(header.remove(at)),
                1 if at < header.len() => header[at] = char::from(b' ' + u8::try_from(dice.roll(95)).unwrap()),
                2 => header.truncate(at),
                _ => {
                    let piece = PIECES[usize::try_from(dice.roll(PIECES.len() as u64)).unwrap()];
                    header.splice(at..at, piece.chars());
                }
            }
        }
        let header: String = header.into_iter().collect();
        if secret.open(Some(&header), body, NOW).is_ok() {
            opened += 1;
            // An item that is not understood changes nothing; the time and the digest must be there as they were. The
            // digits of a digest may be of either case.
            let lower = header.to_lowercase();
            let items: Vec<&str> = lower.split(',').map(str::trim).collect();
            assert!(items.contains(&time) && items.contains(&digest), "{header}");
            assert_eq!(items.iter().filter(|item| item.starts_with("t=")).count(), 1, "{header}");
        }
    }
    assert!(opened > 100, "the test is blind: {opened}");
}

#[test]
fn s_07_there_is_no_empty_signing_secret() {
    for secret in ["", " ", "whsec_", "whsec_  ", "sk_test_x", "null"] {
        assert!(Secret::new(secret).is_none(), "{secret:?}");
    }
}

#[test]
fn s_28_events_that_are_none_of_ours_or_not_final_pay_nothing() {
    let check = |kind: &str, object: Value| super::wire::deed(kind, &object.to_string());
    let order = format!("ord_{}", "a".repeat(32));
    let session = |change: Value| {
        let mut session = json!({
            "id": "cs_1", "mode": "payment", "status": "complete", "payment_status": "paid", "url": null,
            "amount_total": 1000, "currency": "usd", "client_reference_id": order, "customer": null,
            "payment_intent": "pi_1", "expires_at": 1, "livemode": false, "added_later": {"x": 1},
        });
        session.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        session
    };
    let pays = |kind: &str, object: Value| {
        let deed = check(kind, object).unwrap();
        matches!(deed, Some(payments::Deed::Order(ref deed)) if deed.report == domain::payment::OrderReport::Paid)
    };
    let completed = "checkout.session.completed";
    assert!(pays(completed, session(json!({}))));
    for change in [
        json!({"payment_status": "unpaid"}),
        json!({"payment_status": "no_payment_required"}),
        json!({"status": "open"}),
        json!({"mode": "subscription"}),
        json!({"mode": "setup"}),
        json!({"client_reference_id": null}),
        json!({"client_reference_id": "1"}),
    ] {
        assert!(!pays(completed, session(change.clone())), "{change}");
    }
    assert!(!pays("checkout.session.async_payment_succeeded", session(json!({"payment_status": "unpaid"}))));
    assert!(!pays("checkout.session.async_payment_failed", session(json!({}))));
    assert!(!pays("some.new.event", session(json!({}))));
    assert!(check(completed, session(json!({"currency": "u$d"}))).is_err());
    assert!(check(completed, session(json!({"amount_total": "1000"}))).is_err());

    let intent = |status: &str, received: i64, metadata: Value| {
        json!({
            "id": "pi_1", "status": status, "amount": 1000, "amount_received": received, "currency": "usd",
            "customer": null, "payment_method": null, "setup_future_usage": null, "metadata": metadata,
            "last_payment_error": null, "livemode": false,
        })
    };
    let ours = json!({"order": order, "purpose": "auto"});
    assert!(pays("payment_intent.succeeded", intent("succeeded", 1000, ours.clone())));
    assert!(!pays("payment_intent.succeeded", intent("processing", 0, ours.clone())));
    assert!(!pays("payment_intent.succeeded", intent("requires_capture", 0, ours)));
    assert!(!pays("payment_intent.succeeded", intent("succeeded", 1000, json!({}))));
}

#[tokio::test]
async fn events_of_connected_accounts_and_unknown_kinds_are_ignored() {
    let world = World::new().await;
    let (order, session) = world.checkout().await;
    world.stripe.complete(&session);
    let mut event = world.stripe.last_event("checkout.session.completed");
    event["account"] = "acct_other".into();
    assert_eq!(world.take(&event).await.outcome, Outcome::Ignored);
    let unknown = world.stripe.last_event("charge.succeeded");
    assert_eq!(world.take(&unknown).await.outcome, Outcome::Ignored);
    assert_eq!(world.state(&order).await, OrderState::Pending);
}
