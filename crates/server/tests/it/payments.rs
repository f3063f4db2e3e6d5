//! Money in by card, from outside: the executable, and a scripted Stripe (`sim::stripe`) whose events are delivered when
//! and how a test wants them.

use crate::harness::{Gateway, chat, exact_chat};
use crate::http::{PATIENCE, eventually};
use crate::members::ask;
use crate::shop::{Shop, WEBHOOK, usd};
use domain::Nanos;
use serde_json::{Value, json};
use sim::load::trace::Dice;
use sim::stripe::{Fault, NextCharge, sign};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

fn changed(event: &Value, pointer: &str, value: Value) -> Value {
    let mut event = event.clone();
    *event.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    event
}

#[tokio::test]
async fn s_29_s_30_m_38_what_is_paid_is_credited_once_and_by_stripe_alone() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    for wrong in [
        json!({"amount": "4.99"}),
        json!({"amount": "1000.01"}),
        json!({"amount": "-5"}),
        json!({"amount": "5.001"}),
        json!({"amount": "NaN"}),
        json!({"amount": 25}),
        json!({"amount": "25.00", "credit": "1000.00"}),
        json!({"amount": "25.00", "account": 1}),
        json!({"amount": "25.00", "currency": "jpy"}),
        json!({}),
    ] {
        let refused = shop.ask(&ann, "POST", "/checkout", wrong.clone()).await;
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.text());
    }
    assert!(shop.stripe.asked().is_empty(), "nothing of that reached Stripe");

    let (order, session) = shop.checkout(&ann, "25").await;
    assert_eq!(shop.order(&order).await["state"], "pending");
    shop.stripe.complete(&session);
    // The customer is back, and says so. Nobody believes it.
    for path in ["/paid?session=x", "/account/orders?state=paid", "/account"] {
        shop.ask(&ann, "GET", path, Value::Null).await;
    }
    assert_eq!(shop.balance(&ann).await, Nanos::ZERO);
    let events = shop.stripe.events();
    for event in events.iter().rev().chain(&events) {
        shop.deliver(event).await;
    }
    assert_eq!(shop.balance(&ann).await, usd("25.00"));
    assert_eq!(shop.entries(&ann), [(format!("stripe:{order}"), 25_000_000_000)]);
    let own = shop.ask(&ann, "GET", "/orders", Value::Null).await.json();
    assert_eq!((&own["data"][0]["id"], &own["data"][0]["state"]), (&json!(order), &json!("paid")));
    let listed = shop.gateway.cli_json(&["order", "list", "--account", "ann", "--state", "paid", "--json"]).await;
    assert_eq!(listed["data"][0]["credit"], "25.00");
    assert_eq!(shop.gateway.cli_json(&["order", "show", &order, "--json"]).await["session"], session);

    // Somebody else sees nothing of it.
    let bob = shop.owner("bob").await;
    assert_eq!(shop.ask(&bob, "GET", "/orders", Value::Null).await.json()["data"], json!([]));
    let viewer = shop.gateway.key(json!({"account": "ann", "role": "viewer"})).await.caller;
    assert_eq!(ask(&viewer, "GET", "/account/orders", Value::Null).await.status, 200);
    assert_eq!(ask(&viewer, "POST", "/account/checkout", json!({"amount": "25"})).await.status, 403);
    shop.gateway.quiet().await;
    assert!(!shop.gateway.logged().contains("sk_test_simulated") && !shop.gateway.logged().contains("whsec_"), "S-05");
}

#[tokio::test]
async fn m_38_orders_that_end_otherwise_credit_nothing_and_late_money_is_credited() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    let ((late, late_session), (never, never_session)) =
        (shop.checkout(&ann, "10").await, shop.checkout(&ann, "20").await);
    let (expired, expired_session) = shop.checkout(&ann, "30").await;
    shop.stripe.complete_later(&late_session);
    shop.stripe.complete_later(&never_session);
    shop.stripe.expire(&expired_session);
    shop.deliver_all().await;
    for (order, state) in [(&late, "processing"), (&never, "processing"), (&expired, "expired")] {
        assert_eq!(shop.order(order).await["state"], state);
    }
    assert_eq!(shop.balance(&ann).await, Nanos::ZERO);
    shop.stripe.arrive(&late_session);
    shop.stripe.fail(&never_session);
    shop.deliver_all().await;
    assert_eq!(shop.order(&late).await["state"], "paid");
    assert_eq!(shop.order(&never).await["state"], "failed");
    assert_eq!(shop.balance(&ann).await, usd("10.00"));
    // Pages that nobody pays on are few.
    for _ in 0..20 {
        shop.checkout(&ann, "10").await;
    }
    assert_eq!(shop.ask(&ann, "POST", "/checkout", json!({"amount": "10"})).await.status, 429);
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn k_10_k_11_killed_while_a_payment_is_taken_it_is_credited_once() {
    // Entries wait for company, so that a kill often falls between an event and its entry.
    let mut shop = Shop::open_with("", "[ledger]\ngroup_commit_ms = 40").await;
    let ann = shop.owner("ann").await;
    let mut dice = Dice(10);
    let (mut before, mut between, mut after) = (0, 0, 0);
    for round in 1..=16 {
        let (_, session) = shop.checkout(&ann, "10").await;
        shop.stripe.complete(&session);
        let paid = shop.stripe.last_event("checkout.session.completed");
        let (stripe, url) = (shop.stripe.clone(), shop.webhook());
        let delivery = tokio::spawn(async move { stripe.deliver(&paid, &url).await });
        let lifetime = Duration::from_millis(dice.roll(12));
        assert!(tokio::time::timeout(lifetime, std::future::pending::<()>()).await.is_err());
        shop.gateway.kill9();
        let answered = delivery.await.expect("no panic").is_ok();
        let known = shop.gateway.journal().connection().query_row(
            "select (select count(*) from payment_orders where state = 'paid'), (select count(*) from credits where seq is null)",
            [],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        );
        match known.expect("the database can be read") {
            (paid, _) if paid < round => before += 1,
            (_, 1..) => between += 1,
            _ => after += 1,
        }
        shop.gateway.restart().await;
        // What was answered is there without another word.
        if answered {
            eventually(PATIENCE, "the credit", async || {
                (shop.balance(&ann).await == Nanos(round * 10_000_000_000)).then_some(())
            })
            .await;
        }
        shop.deliver_all().await;
        shop.deliver_all().await;
        let expected = Nanos(round * 10_000_000_000);
        eventually(PATIENCE, "the credit", async || (shop.balance(&ann).await == expected).then_some(())).await;
    }
    eprintln!(
        "killed {before} times before the event was taken, {between} times before its entry, {after} times after"
    );
    assert!(before + between > 0 && after > 0, "the test is blind: {before}, {between}, {after}");
    assert_eq!(shop.entries(&ann).len(), 16);
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn m_39_sixty_four_deliveries_of_one_event_are_one_credit() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    let (_, session) = shop.checkout(&ann, "10").await;
    shop.stripe.complete(&session);
    let paid = shop.stripe.last_event("checkout.session.completed");
    let mut deliveries = JoinSet::new();
    for _ in 0..64 {
        let (stripe, url, event) = (shop.stripe.clone(), shop.webhook(), paid.clone());
        deliveries.spawn(async move { stripe.deliver(&event, &url).await.expect("an answer") });
    }
    let answers = deliveries.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.body.contains("applied")).count(), 1);
    assert_eq!((shop.balance(&ann).await, shop.entries(&ann).len()), (usd("10.00"), 1));
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn m_37_m_39_refunds_take_what_was_credited_and_what_is_spent_is_owed() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    let (order, payment) = shop.paid(&ann, "10").await;
    // Partly by an operator: the answer counts at once, the event tells nothing new.
    let refunded =
        shop.gateway.cli_json(&["order", "refund", &order, "--amount", "3.00", "--reason", "goodwill", "--json"]).await;
    assert_eq!((&refunded["returned"], &refunded["refunds"][0]["taken"]), (&json!("3.00"), &json!("3.00")));
    assert_eq!(shop.balance(&ann).await, usd("7.00"));
    shop.deliver_all().await;
    assert_eq!(shop.balance(&ann).await, usd("7.00"));
    // More than is left is refused, before and at Stripe; the same key refunds once.
    let path = format!("/orders/{order}/refunds");
    for wrong in [json!({"amount": "7.01", "reason": "x"}), json!({"amount": "0.00", "reason": "x"})] {
        assert_eq!(shop.gateway.admin("POST", &path, Some(wrong.clone())).await.status, 409, "{wrong}");
    }
    for wrong in [json!({"amount": "1.001", "reason": "x"}), json!({"amount": "1.00"}), json!({"reason": " "})] {
        assert_eq!(shop.gateway.admin("POST", &path, Some(wrong.clone())).await.status, 400, "{wrong}");
    }
    assert_eq!(shop.gateway.admin("POST", "/orders/ord_1/refunds", Some(json!({"reason": "x"}))).await.status, 404);
    let body = json!({"amount": "1.00", "reason": "again"}).to_string();
    for _ in 0..2 {
        let keyed = shop.gateway.operator.post_bytes_with(
            &format!("/api/v1{path}"),
            &[("idempotency-key", "refund-1")],
            body.as_bytes(),
        );
        assert_eq!(shop.gateway.operator.raw(&keyed).await.expect("an answer").status, 200);
    }
    assert_eq!(shop.balance(&ann).await, usd("6.00"));
    // At Stripe's own pages; it fails later and comes back.
    let late = shop.stripe.refund_later(&payment, 200);
    shop.deliver_all().await;
    assert_eq!(shop.balance(&ann).await, usd("4.00"));
    shop.stripe.end_refund(&late, "failed");
    shop.deliver_all().await;
    assert_eq!(shop.balance(&ann).await, usd("6.00"));
    // Some is spent, then all that is left is refunded.
    let caller = shop.gateway.key(json!({"account": "ann"})).await.caller;
    let (body, price) = exact_chat(1_000, json!({}));
    assert_eq!(caller.chat(&body).await.status, 200);
    shop.gateway.manage("POST", &path, json!({"reason": "closed"})).await;
    shop.deliver_all().await;
    assert_eq!(shop.pots(&ann).await, (Nanos::ZERO, price));
    let shown = shop.order(&order).await;
    assert_eq!((&shown["returned"], shown["refunds"].as_array().map(Vec::len)), (&json!("10.00"), Some(4)));
    assert_eq!(shop.gateway.admin("POST", &path, Some(json!({"reason": "x"}))).await.status, 409);
    let audit = shop.gateway.cli_json(&["audit", "--json"]).await["data"].to_string();
    assert!(audit.contains("order.refund") && audit.contains("goodwill") && audit.contains(&order), "{audit}");
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn m_39_a_refund_before_its_payment_waits_and_then_counts() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    let (_, session) = shop.checkout(&ann, "10").await;
    shop.stripe.complete(&session);
    let payment = shop.stripe.object(&session)["payment_intent"].as_str().expect("paid").to_owned();
    shop.stripe.refund(&payment, 400);
    assert_eq!(shop.deliver(&shop.stripe.last_event("refund.created")).await, "parked");
    assert_eq!(shop.balance(&ann).await, Nanos::ZERO);
    shop.gateway.kill9();
    shop.gateway.restart().await;
    shop.deliver(&shop.stripe.last_event("payment_intent.succeeded")).await;
    assert_eq!(shop.balance(&ann).await, usd("6.00"));
    shop.deliver_all().await;
    assert_eq!(shop.balance(&ann).await, usd("6.00"));
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn m_38_a_dispute_freezes_the_account_until_it_is_won() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    let (order, payment) = shop.paid(&ann, "10").await;
    let caller = shop.gateway.key(json!({"account": "ann"})).await.caller;
    assert_eq!(caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);
    let spent = usd("10.00").0 - shop.balance(&ann).await.0;
    let dispute = shop.stripe.dispute(&payment, 1000);
    shop.deliver_all().await;
    assert_eq!(caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 403, "at once");
    assert_eq!(shop.ask(&ann, "POST", "/checkout", json!({"amount": "10"})).await.status, 403);
    assert_eq!(shop.pots(&ann).await, (Nanos::ZERO, Nanos(spent)));
    assert_eq!(shop.order(&order).await["disputes"][0]["suspended"], true);
    shop.stripe.advance_dispute(&dispute, "won");
    shop.deliver_all().await;
    assert_eq!(shop.pots(&ann).await, (Nanos(usd("10.00").0 - spent), Nanos::ZERO));
    assert_eq!(caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);

    // Another one is lost: the money stays away, and the account shut until an operator opens it.
    let (second, payment) = shop.paid(&ann, "20").await;
    let before = shop.balance(&ann).await;
    let dispute = shop.stripe.dispute(&payment, 2000);
    shop.stripe.advance_dispute(&dispute, "lost");
    shop.deliver_all().await;
    assert_eq!(shop.balance(&ann).await, Nanos(before.0 - usd("20.00").0));
    assert_eq!(shop.order(&second).await["disputes"][0]["state"], "lost");
    assert_eq!(caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 403);
    assert!(shop.gateway.cli(&["account", "activate", &ann.name]).await.status.success());
    assert_eq!(caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn m_38_accounts_go_on_during_a_dispute_where_the_operator_wants_it() {
    let mut shop = Shop::open_with("suspend_on_dispute = false", "").await;
    let ann = shop.owner("ann").await;
    let (_, payment) = shop.paid(&ann, "10").await;
    let caller = shop.gateway.key(json!({"account": "ann"})).await.caller;
    shop.stripe.dispute(&payment, 400);
    shop.deliver_all().await;
    assert_eq!(shop.balance(&ann).await, usd("6.00"));
    assert_eq!(caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn s_27_what_is_not_proved_to_be_stripes_is_refused() {
    let mut shop = Shop::open().await;
    let ann = shop.owner("ann").await;
    let (order, session) = shop.checkout(&ann, "10").await;
    shop.stripe.complete(&session);
    let paid = shop.stripe.last_event("checkout.session.completed");
    for fault in [
        Fault::WrongSecret,
        Fault::EmptySecret,
        Fault::Unsigned,
        Fault::Skewed(-310),
        Fault::Skewed(310),
        Fault::Reserialized,
        Fault::Tampered,
        Fault::OldScheme,
    ] {
        let (status, body) = shop.deliver_with(&paid, fault).await;
        assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")), "{fault:?}");
    }
    // Raw requests: no body, too much of it, two signatures, signed but no event.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let now = i64::try_from(now).expect("seconds fit");
    let secret = shop.stripe.webhook_secret();
    let raw = async |headers: &[(&str, &str)], body: &[u8]| {
        let bytes = shop.gateway.caller.post_bytes_with(WEBHOOK, headers, body);
        shop.gateway.caller.raw(&bytes).await.expect("an answer").status
    };
    let body = serde_json::to_vec(&paid).expect("JSON");
    let right = sign(&body, secret, now);
    assert_eq!(raw(&[], b"").await, 400);
    assert_eq!(raw(&[("stripe-signature", &right), ("stripe-signature", &right)], &body).await, 400);
    for no_event in [
        &b"{}"[..],
        b"[]",
        b"null",
        b"\xff\xfe",
        br#"{"id":"","type":"x","created":1,"livemode":false,"data":{"object":{}}}"#,
    ] {
        assert_eq!(raw(&[("stripe-signature", &sign(no_event, secret, now))], no_event).await, 400);
    }
    let large = vec![b' '; 300_000];
    assert_eq!(raw(&[("stripe-signature", &sign(&large, secret, now))], &large).await, 400);
    let got = shop.gateway.caller.get(WEBHOOK).await;
    assert_eq!(got.status, 405);
    // The operator's key is no signature.
    let keyed = shop.gateway.operator.post(WEBHOOK, &body).await.expect("an answer");
    assert_eq!(keyed.status, 400);
    assert_eq!((shop.balance(&ann).await, &shop.order(&order).await["state"]), (Nanos::ZERO, &json!("pending")));

    // One of several signatures is enough; a replay is known.
    let (status, body) = shop.deliver_with(&paid, Fault::TwoSignatures).await;
    assert_eq!((status, &body["outcome"]), (200, &json!("applied")));
    assert_eq!(shop.deliver(&paid).await, "known");
    assert_eq!(shop.balance(&ann).await, usd("10.00"));
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn s_27_where_payments_are_not_set_up_there_is_no_webhook() {
    let mut gateway = Gateway::start().await;
    let body = b"{}";
    for answer in [gateway.caller.post(WEBHOOK, body).await.expect("an answer"), gateway.caller.get(WEBHOOK).await] {
        assert_eq!(answer.error(), (404, "invalid_request_error".to_owned(), "unknown_endpoint".to_owned()));
    }
    let admin = gateway.key(json!({"role": "admin"})).await.caller;
    assert_eq!(ask(&admin, "POST", "/account/checkout", json!({"amount": "10"})).await.status, 404);
    assert_eq!(ask(&admin, "GET", "/account/auto-top-up", Value::Null).await.status, 404);
    assert_eq!(ask(&admin, "GET", "/account/orders", Value::Null).await.json()["data"], json!([]));
    gateway.quiet().await;
}

#[tokio::test]
async fn s_28_what_contradicts_an_order_is_refused_and_what_is_of_no_order_is_taken_and_forgotten() {
    let mut shop = Shop::open().await;
    let (ann, bob) = (shop.owner("ann").await, shop.owner("bob").await);
    let (order, session) = shop.checkout(&ann, "10").await;
    let (_, other) = shop.checkout(&bob, "10").await;
    shop.stripe.complete(&session);
    let paid = shop.stripe.last_event("checkout.session.completed");
    let others = shop.stripe.object(&other);
    for (number, (pointer, value)) in [
        ("/data/object/amount_total", json!(1)),
        ("/data/object/amount_total", json!(100_000)),
        ("/data/object/currency", json!("jpy")),
        ("/livemode", json!(true)),
        ("/data/object/customer", others["customer"].clone()),
        ("/data/object/id", json!(other)),
    ]
    .into_iter()
    .enumerate()
    {
        let forged = changed(&changed(&paid, pointer, value), "/id", json!(format!("evt_forged{number}")));
        let (status, body) = shop.deliver_with(&forged, Fault::None).await;
        assert_eq!(status, 400, "{pointer}: {body}");
        // Told again it is looked at again, and is as wrong.
        assert_eq!(shop.deliver_with(&forged, Fault::None).await.0, 400, "{pointer}");
    }
    for (number, guess) in [json!(format!("ord_{}", "0".repeat(32))), json!("1"), Value::Null].into_iter().enumerate() {
        let stray = changed(&paid, "/data/object/client_reference_id", guess);
        let outcome = shop.deliver(&changed(&stray, "/id", json!(format!("evt_stray{number}")))).await;
        assert!(outcome == "unknown" || outcome == "ignored", "{outcome}");
    }
    assert_eq!(shop.deliver(&changed(&paid, "/type", json!("some.new.thing"))).await, "ignored");
    let unpaid = changed(&changed(&paid, "/data/object/payment_status", json!("unpaid")), "/id", json!("evt_unpaid"));
    shop.deliver(&unpaid).await;
    assert_eq!((shop.balance(&ann).await, shop.balance(&bob).await), (Nanos::ZERO, Nanos::ZERO));
    assert_eq!(shop.order(&order).await["state"], "processing");
    shop.deliver(&shop.stripe.last_event("payment_intent.succeeded")).await;
    assert_eq!((shop.balance(&ann).await, shop.balance(&bob).await), (usd("10.00"), Nanos::ZERO));
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn low_accounts_are_topped_up_automatically_and_at_most_so_often_a_month() {
    let mut shop = Shop::open().await;
    let (ann, bob) = (shop.owner("ann").await, shop.owner("bob").await);
    let none = shop.set_auto(&ann, "5.00", "10", 3).await;
    assert_eq!(none.status, 409, "no card is saved: {}", none.text());
    shop.save_card(&ann).await;
    for (threshold, amount, monthly_max) in [("0", "10", 3), ("5.00", "1", 3), ("5.00", "10", 0), ("5.00", "10", 101)] {
        let refused = shop.set_auto(&ann, threshold, amount, monthly_max).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    // An answer that is lost is asked for again, and charges nothing twice.
    shop.stripe.next_charges([NextCharge::AnswerLost, NextCharge::TooMany]);
    // So high that one charge is not enough: the month is.
    assert_eq!(shop.set_auto(&ann, "50.00", "10", 3).await.status, 200);
    let full = eventually(PATIENCE, "three charges", async || {
        let auto = shop.auto(&ann).await;
        assert_eq!(auto["enabled"], true, "{auto}");
        (auto["state"] == "month_used_up").then_some(auto)
    })
    .await;
    assert_eq!((&full["this_month"], &full["card"]["last4"]), (&json!(3), &json!("4242")));
    eventually(PATIENCE, "the credits", async || (shop.balance(&ann).await == usd("30.00")).then_some(())).await;
    let orders = shop.ask(&ann, "GET", "/orders", Value::Null).await.json();
    let orders = orders["data"].as_array().expect("orders");
    assert!(orders.len() == 3 && orders.iter().all(|order| order["purpose"] == "auto" && order["state"] == "paid"));
    for asked in shop.stripe.asked().iter().filter(|asked| asked.path == "/v1/payment_intents") {
        let key = asked.idempotency_key.as_deref();
        assert_eq!(key, asked.params["metadata"]["order"].as_str(), "the order is the key");
        assert!(orders.iter().any(|order| order["id"].as_str() == key));
    }
    // The next account's turn shows that there was a look in between, which left the first one alone.
    shop.save_card(&bob).await;
    assert_eq!(shop.set_auto(&bob, "5.00", "10", 3).await.status, 200);
    eventually(PATIENCE, "the other's credit", async || (shop.balance(&bob).await == usd("10.00")).then_some(())).await;
    assert_eq!(shop.auto(&bob).await["state"], "enough_left");
    assert_eq!(
        (shop.balance(&ann).await, shop.charges()),
        (usd("30.00"), 5),
        "four that were paid, one too many asked"
    );
    // What Stripe reports of them is known already.
    shop.deliver_all().await;
    assert_eq!((shop.balance(&ann).await, shop.balance(&bob).await), (usd("30.00"), usd("10.00")));
    assert_eq!((shop.entries(&ann).len(), shop.entries(&bob).len()), (3, 1));
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn declined_top_ups_rest_or_are_switched_off_and_are_told() {
    let mut shop = Shop::open().await;
    let (ann, bob) = (shop.owner("ann").await, shop.owner("bob").await);
    for owner in [&ann, &bob] {
        shop.save_card(owner).await;
    }
    shop.stripe.next_charges([NextCharge::Declined("insufficient_funds".to_owned())]);
    assert_eq!(shop.set_auto(&ann, "5.00", "10", 3).await.status, 200);
    let resting = eventually(PATIENCE, "the decline", async || {
        let auto = shop.auto(&ann).await;
        (auto["state"] == "resting").then_some(auto)
    })
    .await;
    assert_eq!(
        (&resting["enabled"], &resting["failures"], &resting["reason"], &resting["this_month"]),
        (&json!(true), &json!(1), &json!("insufficient_funds"), &json!(0))
    );
    assert!(resting["retry_at"].is_string());
    shop.stripe.next_charges([NextCharge::AuthenticationRequired]);
    assert_eq!(shop.set_auto(&bob, "5.00", "10", 3).await.status, 200);
    let off = eventually(PATIENCE, "the hard decline", async || {
        let auto = shop.auto(&bob).await;
        (auto["state"] == "off").then_some(auto)
    })
    .await;
    assert_eq!((&off["enabled"], &off["reason"]), (&json!(false), &json!("authentication_required")));
    // Once each, whoever tells it: the answer, and the event.
    shop.deliver_all().await;
    let audit = shop.gateway.cli_json(&["audit", "--operator", "provider:stripe", "--json"]).await;
    let failures = audit["data"].as_array().expect("deeds");
    assert_eq!(failures.len(), 2, "{audit}");
    assert!(failures.iter().all(|deed| deed["action"] == "auto_top_up.failed"));
    assert!(shop.gateway.logged().contains("an automatic top-up failed"));
    let metrics = shop.gateway.caller.get("/metrics").await.text();
    assert!(metrics.contains("tollgate_auto_top_up_failures_total 2"), "{metrics}");
    assert_eq!((shop.balance(&ann).await, shop.balance(&bob).await), (Nanos::ZERO, Nanos::ZERO));
    // Switched on again by its owner, it starts afresh.
    assert_eq!(shop.set_auto(&bob, "5.00", "10", 3).await.json()["failures"], 0);
    eventually(PATIENCE, "the credit", async || (shop.balance(&bob).await == usd("10.00")).then_some(())).await;
    assert_eq!((shop.balance(&ann).await, shop.charges()), (Nanos::ZERO, 3));
    shop.gateway.quiet().await;
}

#[tokio::test]
async fn k_10_a_charge_whose_end_a_killed_gateway_did_not_hear_is_asked_for_again() {
    let mut shop = Shop::open().await;
    let (ann, bob) = (shop.owner("ann").await, shop.owner("bob").await);
    for owner in [&ann, &bob] {
        shop.save_card(owner).await;
    }
    shop.stripe.next_charges([NextCharge::AnswerLost]);
    assert_eq!(shop.set_auto(&ann, "5.00", "10", 3).await.status, 200);
    eventually(PATIENCE, "the charge", async || (shop.charges() == 1).then_some(())).await;
    shop.gateway.kill9();
    shop.gateway.restart().await;
    eventually(PATIENCE, "the credit", async || (shop.balance(&ann).await == usd("10.00")).then_some(())).await;
    assert!(shop.stripe.asked().iter().any(|asked| asked.replayed), "by the same key");

    // A charge that takes days: nothing else is charged meanwhile, and the event ends it.
    shop.stripe.next_charges([NextCharge::Processing]);
    assert_eq!(shop.set_auto(&bob, "5.00", "10", 3).await.status, 200);
    eventually(PATIENCE, "the charge", async || {
        (shop.stripe.events().iter().any(|event| event["type"] == "payment_intent.processing")).then_some(())
    })
    .await;
    let order = eventually(PATIENCE, "the answer", async || {
        let orders = shop.ask(&bob, "GET", "/orders?state=processing", Value::Null).await.json();
        orders["data"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(shop.auto(&bob).await["state"], "under_way");
    let payment = shop.order(&order).await["payment"].as_str().expect("a payment").to_owned();
    shop.stripe.end_charge(&payment, true);
    shop.deliver(&shop.stripe.last_event("payment_intent.succeeded")).await;
    assert_eq!((shop.balance(&bob).await, shop.charges()), (usd("10.00"), 2));
    shop.gateway.quiet().await;
}
