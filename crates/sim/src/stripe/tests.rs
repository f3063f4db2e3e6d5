//! The scripted Stripe over a socket: what a client and a webhook see.

use super::{Fault, NextCharge, Options, Stripe, sign};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::convert::Infallible;
use tokio::sync::mpsc;

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

/// Sends a request with more headers.
async fn send(stripe: &Stripe, method: Method, path: &str, form: &str, more: &[(&str, &str)]) -> Option<Answer> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("{}{path}", stripe.url()));
    if !more.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {}", stripe.secret_key()));
    }
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let request = request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form.to_owned())))
        .unwrap();
    let response = client.request(request).await.ok()?;
    let (head, body) = response.into_parts();
    let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
    Some(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

async fn post(stripe: &Stripe, path: &str, form: &str) -> Answer {
    send(stripe, Method::POST, path, form, &[]).await.unwrap()
}

async fn get(stripe: &Stripe, path: &str) -> Answer {
    send(stripe, Method::GET, path, "", &[]).await.unwrap()
}

const SESSION: &str = "mode=payment&success_url=https://example.com/ok&client_reference_id=ord_1\
    &line_items[0][quantity]=1&line_items[0][price_data][currency]=usd\
    &line_items[0][price_data][unit_amount]=1000&line_items[0][price_data][product_data][name]=Credit\
    &payment_intent_data[metadata][order]=ord_1&payment_intent_data[setup_future_usage]=off_session";

async fn session(stripe: &Stripe) -> String {
    let customer = post(stripe, "/v1/customers", "name=a").await.body["id"].as_str().unwrap().to_owned();
    let created = post(stripe, "/v1/checkout/sessions", &format!("{SESSION}&customer={customer}")).await;
    assert_eq!(created.status, 200, "{}", created.body);
    created.body["id"].as_str().unwrap().to_owned()
}

/// A saved card and its customer.
async fn saved_card(stripe: &Stripe) -> (String, String) {
    let id = session(stripe).await;
    stripe.complete(&id);
    let method = stripe.last_event("payment_method.attached")["data"]["object"].clone();
    (method["customer"].as_str().unwrap().to_owned(), method["id"].as_str().unwrap().to_owned())
}

fn charge_form((customer, method): &(String, String), amount: u32) -> String {
    format!(
        "amount={amount}&currency=usd&customer={customer}&payment_method={method}&off_session=true&confirm=true\
         &metadata[order]=ord_2"
    )
}

fn kinds(stripe: &Stripe) -> Vec<String> {
    stripe.events().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_session_is_paid_and_its_events_tell_the_whole_story() {
    let stripe = Stripe::start().unwrap();
    let id = session(&stripe).await;
    let open = get(&stripe, &format!("/v1/checkout/sessions/{id}")).await.body;
    assert_eq!((open["status"].as_str(), open["payment_status"].as_str()), (Some("open"), Some("unpaid")));
    assert_eq!((open["amount_total"].as_i64(), open["payment_intent"].as_str()), (Some(1000), None));
    assert!(open["url"].as_str().unwrap().starts_with(&stripe.url()));
    stripe.complete(&id);
    let done = get(&stripe, &format!("/v1/checkout/sessions/{id}")).await.body;
    assert_eq!((done["status"].as_str(), done["payment_status"].as_str()), (Some("complete"), Some("paid")));
    let intent = stripe.object(done["payment_intent"].as_str().unwrap());
    assert_eq!((intent["status"].as_str(), intent["metadata"]["order"].as_str()), (Some("succeeded"), Some("ord_1")));
    assert_eq!(
        kinds(&stripe),
        [
            "customer.created",
            "payment_method.attached",
            "payment_intent.created",
            "charge.succeeded",
            "payment_intent.succeeded",
            "checkout.session.completed"
        ]
    );
    let listed = get(&stripe, "/v1/events?types[]=checkout.session.completed&types[]=charge.succeeded&limit=1").await;
    assert_eq!(listed.body["data"][0]["data"]["object"]["client_reference_id"], "ord_1");
    assert_eq!(listed.body["has_more"], true);
}

#[tokio::test]
async fn money_may_be_late_or_not_come_and_sessions_expire() {
    let stripe = Stripe::start().unwrap();
    let (late, never, expired) = (session(&stripe).await, session(&stripe).await, session(&stripe).await);
    stripe.complete_later(&late);
    let completed = stripe.last_event("checkout.session.completed")["data"]["object"].clone();
    assert_eq!(
        (completed["status"].as_str(), completed["payment_status"].as_str()),
        (Some("complete"), Some("unpaid"))
    );
    stripe.arrive(&late);
    let arrived = &stripe.last_event("checkout.session.async_payment_succeeded")["data"]["object"];
    assert_eq!(arrived["payment_status"], "paid");
    stripe.complete_later(&never);
    stripe.fail(&never);
    assert!(kinds(&stripe).ends_with(&[
        "charge.failed".to_owned(),
        "payment_intent.payment_failed".to_owned(),
        "checkout.session.async_payment_failed".to_owned()
    ]));
    let answer = post(&stripe, &format!("/v1/checkout/sessions/{expired}/expire"), "").await;
    assert_eq!((answer.status, answer.body["status"].as_str()), (200, Some("expired")));
    let again = post(&stripe, &format!("/v1/checkout/sessions/{expired}/expire"), "").await;
    assert_eq!(again.status, 400);
}

#[tokio::test]
async fn a_saved_card_is_charged_declined_or_wants_its_owner() {
    let stripe = Stripe::start().unwrap();
    let card = saved_card(&stripe).await;
    stripe.next_charges([
        NextCharge::Declined("insufficient_funds".to_owned()),
        NextCharge::AuthenticationRequired,
        NextCharge::Processing,
    ]);
    let declined = post(&stripe, "/v1/payment_intents", &charge_form(&card, 2000)).await;
    let error = &declined.body["error"];
    assert_eq!((declined.status, error["type"].as_str()), (402, Some("card_error")));
    assert_eq!(
        (error["code"].as_str(), error["decline_code"].as_str()),
        (Some("card_declined"), Some("insufficient_funds"))
    );
    assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
    assert_eq!(error["payment_intent"]["last_payment_error"]["payment_method"]["id"], card.1);
    let absent = post(&stripe, "/v1/payment_intents", &charge_form(&card, 2000)).await.body;
    assert_eq!(absent["error"]["code"], "authentication_required");
    let slow = post(&stripe, "/v1/payment_intents", &charge_form(&card, 2000)).await.body;
    assert_eq!(slow["status"], "processing");
    stripe.end_charge(slow["id"].as_str().unwrap(), true);
    let paid = post(&stripe, "/v1/payment_intents", &charge_form(&card, 2000)).await;
    assert_eq!((paid.status, paid.body["status"].as_str()), (200, Some("succeeded")));
    let stranger =
        post(&stripe, "/v1/payment_intents", &charge_form(&("cus_x".to_owned(), card.1.clone()), 2000)).await;
    assert_eq!(stranger.status, 400);
}

#[tokio::test]
async fn an_idempotency_key_replays_and_refuses_other_parameters() {
    let stripe = Stripe::start().unwrap();
    let card = saved_card(&stripe).await;
    let keyed = async |form: &str, path: &str, key: &str| {
        send(&stripe, Method::POST, path, form, &[("idempotency-key", key)]).await.map(|answer| {
            let replayed = answer.headers.contains_key("idempotent-replayed");
            (answer.status, answer.body, replayed)
        })
    };
    let form = charge_form(&card, 2000);
    stripe.next_charges([NextCharge::AnswerLost]);
    assert!(keyed(&form, "/v1/payment_intents", "k1").await.is_none(), "the answer is lost");
    let (status, first, replayed) = keyed(&form, "/v1/payment_intents", "k1").await.unwrap();
    assert_eq!((status, first["status"].as_str(), replayed), (200, Some("succeeded"), true));
    let (status, other, _) = keyed(&charge_form(&card, 2001), "/v1/payment_intents", "k1").await.unwrap();
    assert_eq!((status, other["error"]["type"].as_str()), (400, Some("idempotency_error")));
    let (status, elsewhere, _) = keyed("name=x", "/v1/customers", "k1").await.unwrap();
    assert_eq!((status, elsewhere["error"]["type"].as_str()), (400, Some("idempotency_error")));
    // A decline is remembered, a refused parameter or a limit is not.
    stripe.next_charges([NextCharge::Declined("generic_decline".to_owned()), NextCharge::TooMany]);
    for replayed in [false, true] {
        assert_eq!(keyed(&form, "/v1/payment_intents", "k2").await.map(|(s, _, r)| (s, r)), Some((402, replayed)));
    }
    assert_eq!(keyed(&form, "/v1/payment_intents", "k3").await.map(|(s, ..)| s), Some(429));
    assert_eq!(keyed(&form, "/v1/payment_intents", "k3").await.map(|(s, _, r)| (s, r)), Some((200, false)));
    assert_eq!(keyed("amount=x", "/v1/payment_intents", "k4").await.map(|(s, ..)| s), Some(400));
    assert_eq!(keyed(&form, "/v1/payment_intents", "k4").await.map(|(s, ..)| s), Some(200));
}

#[tokio::test]
async fn who_asks_must_know_the_key_and_a_version() {
    let stripe = Stripe::start_with(Options { secret_key: "sk_live_x".to_owned(), ..Options::default() }).unwrap();
    let status =
        async |headers: &[(&str, &str)]| send(&stripe, Method::GET, "/v1/events", "", headers).await.unwrap().status;
    assert_eq!(status(&[]).await, 200);
    assert_eq!(status(&[("authorization", "Basic c2tfbGl2ZV94Og==")]).await, 200);
    assert_eq!(status(&[("authorization", "Bearer sk_live_y")]).await, 401);
    assert_eq!(status(&[("authorization", "")]).await, 401);
    assert_eq!(status(&[("stripe-version", "2025-09-30.clover")]).await, 200);
    assert_eq!(status(&[("stripe-version", "newest")]).await, 400);
    let customer = post(&stripe, "/v1/customers", "").await;
    assert_eq!(customer.body["livemode"], true);
    assert!(customer.headers["request-id"].to_str().unwrap().starts_with("req_"));
    assert_eq!(get(&stripe, "/v1/customers/cus_none").await.body["error"]["code"], "resource_missing");
    let unknown = post(&stripe, "/v1/customers", "nmae=x").await;
    assert_eq!((unknown.status, unknown.body["error"]["code"].as_str()), (400, Some("parameter_unknown")));
}

#[tokio::test]
async fn refunds_and_disputes_move_money_and_say_so() {
    let stripe = Stripe::start().unwrap();
    let id = session(&stripe).await;
    stripe.complete(&id);
    let intent = stripe.object(&id)["payment_intent"].as_str().unwrap().to_owned();
    let part = post(&stripe, "/v1/refunds", &format!("payment_intent={intent}&amount=400")).await;
    assert_eq!((part.status, part.body["status"].as_str()), (200, Some("succeeded")));
    assert_eq!(stripe.last_event("charge.refunded")["data"]["object"]["amount_refunded"], 400);
    let too_much = post(&stripe, "/v1/refunds", &format!("payment_intent={intent}&amount=601")).await;
    assert_eq!(too_much.status, 400);
    let rest = stripe.refund_later(&intent, 600);
    stripe.end_refund(&rest, "failed");
    assert_eq!(stripe.last_event("refund.failed")["data"]["object"]["status"], "failed");

    let dispute = stripe.dispute(&intent, 600);
    assert_eq!(stripe.object(&dispute)["balance_transactions"][0]["amount"], -600);
    stripe.advance_dispute(&dispute, "won");
    assert!(kinds(&stripe).ends_with(&[
        "charge.dispute.created".to_owned(),
        "charge.dispute.funds_withdrawn".to_owned(),
        "charge.dispute.closed".to_owned(),
        "charge.dispute.funds_reinstated".to_owned(),
    ]));
    let inquiry = stripe.inquire(&intent, 600);
    assert_eq!(stripe.object(&inquiry)["status"], "warning_needs_response");
    stripe.advance_dispute(&inquiry, "warning_closed");
    assert_eq!(stripe.object(&inquiry)["balance_transactions"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_card_is_saved_without_a_payment() {
    let stripe = Stripe::start().unwrap();
    let created =
        post(&stripe, "/v1/checkout/sessions", "mode=setup&currency=usd&success_url=https://example.com").await;
    stripe.complete(created.body["id"].as_str().unwrap());
    let intent = stripe.last_event("setup_intent.succeeded")["data"]["object"].clone();
    let method = get(&stripe, &format!("/v1/payment_methods/{}", intent["payment_method"].as_str().unwrap())).await;
    assert_eq!(
        (method.body["customer"].clone(), method.body["card"]["last4"].as_str()),
        (intent["customer"].clone(), Some("4242"))
    );
    let path = format!("/v1/payment_methods?customer={}", intent["customer"].as_str().unwrap());
    assert_eq!(get(&stripe, &path).await.body["data"].as_array().unwrap().len(), 1);
}

/// A webhook that hands on what it receives: signature and body.
async fn receiver() -> (String, mpsc::UnboundedReceiver<(Option<String>, Bytes)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    let signature = request.headers().get("stripe-signature");
                    let signature = signature.map(|value| value.to_str().unwrap().to_owned());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    tell.send((signature, body)).unwrap();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                }
            });
            let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(server);
        }
    });
    (url, told)
}

#[tokio::test]
async fn deliveries_are_signed_over_the_bytes_that_are_sent() {
    let stripe = Stripe::start().unwrap();
    session(&stripe).await;
    let event = stripe.events()[0].clone();
    let (url, mut told) = receiver().await;
    let delivered = stripe.deliver(&event, &url).await.unwrap();
    assert_eq!((delivered.status, delivered.body.as_str()), (200, "ok"));
    let (signature, body) = told.recv().await.unwrap();
    let signature = signature.unwrap();
    let time = signature[2..signature.find(',').unwrap()].parse().unwrap();
    assert_eq!(signature, sign(&body, stripe.webhook_secret(), time));

    let faults = [
        (Fault::WrongSecret, false),
        (Fault::EmptySecret, false),
        (Fault::Reserialized, false),
        (Fault::Tampered, false),
        (Fault::OldScheme, false),
        (Fault::TwoSignatures, true),
        (Fault::Skewed(-301), true),
    ];
    for (fault, holds) in faults {
        stripe.deliver_with(&event, &url, fault).await.unwrap();
        let (signature, body) = told.recv().await.unwrap();
        let signature = signature.unwrap();
        let time = signature[2..signature.find(',').unwrap()].parse().unwrap();
        let right = sign(&body, stripe.webhook_secret(), time);
        let digest = right.split_once(',').unwrap().1;
        assert_eq!(signature.contains(digest), holds, "{fault:?}");
    }
    stripe.deliver_with(&event, &url, Fault::Unsigned).await.unwrap();
    assert_eq!(told.recv().await.unwrap().0, None);
}

#[tokio::test]
async fn a_configured_webhook_gets_every_event_in_order() {
    let (url, mut told) = receiver().await;
    let stripe = Stripe::start_with(Options { webhook_url: Some(url), ..Options::default() }).unwrap();
    let id = session(&stripe).await;
    let paid = send(&stripe, Method::POST, &format!("/_control/sessions/{id}/complete"), "{}", &[]).await.unwrap();
    assert_eq!(paid.status, 200);
    for event in stripe.events() {
        let (_, body) = told.recv().await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), event);
    }
}

#[tokio::test]
async fn the_page_of_a_session_pays_it_and_leads_back() {
    let stripe = Stripe::start().unwrap();
    let id = session(&stripe).await;
    let back = send(&stripe, Method::POST, &format!("/c/pay/{id}"), "", &[]).await.unwrap();
    assert_eq!((back.status, back.headers["location"].to_str().unwrap()), (303, "https://example.com/ok"));
    assert_eq!(stripe.object(&id)["payment_status"], "paid");
}
