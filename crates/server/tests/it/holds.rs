//! Holds that are safe and not greedy: what is held where funds are short, and what becomes of it.

use crate::harness::{Gateway, Outcome, amount, chat, price, stream};
use crate::http::{Answer, Caller, Incoming};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::load::trace::Dice;
use tokio::task::JoinSet;

impl Gateway {
    /// Takes money out of an account until so much is left.
    async fn leave(&self, account: i64, left: Nanos) {
        let balance = amount(&self.account_shown(account).await["balance"]);
        let path = format!("/accounts/{account}/top-ups");
        self.manage("POST", &path, json!({"amount": Nanos(left.0 - balance.0)})).await;
    }

    /// An account with a key.
    async fn payer(&self, name: &str, balance: Nanos, terms: Value) -> (i64, Caller, i64) {
        let account = self.account(name, balance).await;
        let mut all = json!({"account": name});
        all.as_object_mut().expect("an object").extend(terms.as_object().expect("an object").clone());
        let key = self.key(all).await;
        (account, key.caller, key.id)
    }
}

#[tokio::test]
async fn ten_at_once_that_need_a_third_of_the_funds_are_all_served() {
    let mut gateway = Gateway::start().await;
    const TOKENS: u64 = 5_000;
    let each = price(10, TOKENS);
    let funds = Nanos(each.0 * 30);
    for round in 0..8_u32 {
        let [streamed, learned, by_quota] = [0, 1, 2].map(|bit| round >> bit & 1 == 1);
        let case = format!("streamed {streamed}, learned {learned}, by quota {by_quota}");
        let balance = Nanos(each.0 * 1_000);
        let (account, caller, key) = gateway.payer(&case, balance, json!({})).await;
        let script = json!({"prompt_tokens": 10, "completion_tokens": TOKENS, "first_byte_ms": 300});
        // More than all funds could pay for.
        let body = chat(json!({"stream": streamed, "max_tokens": 1_000_000, "mock": script}));
        if learned {
            for _ in 0..3 {
                assert_eq!(caller.chat(&body).await.cost(), Some(each), "{case}");
            }
        }
        let used = amount(&gateway.key_shown(key).await["used"]);
        if by_quota {
            let quota = json!({"quota": Nanos(used.0 + funds.0)});
            gateway.manage("PATCH", &format!("/keys/{key}"), quota).await;
        } else {
            gateway.leave(account, funds).await;
        }
        let mut exchanges = JoinSet::new();
        for _ in 0..10 {
            let (caller, body) = (caller.clone(), body.clone());
            exchanges.spawn(async move { caller.chat(&body).await });
        }
        for answer in exchanges.join_all().await {
            assert_eq!(answer.status, 200, "{case}: {}", answer.text());
            assert_eq!(answer.cost(), Some(each), "{case}");
            let words = if streamed { answer.streamed_text() } else { answer.text() };
            assert_eq!(words.matches(" word").count(), TOKENS as usize, "{case}");
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!((fate.ending, fate.estimated), (Ending::Complete, false), "{case}");
        }
        let shown = gateway.key_shown(key).await;
        assert_eq!(amount(&shown["used"]), Nanos(used.0 + each.0 * 10), "{case}");
    }
    gateway.quiet().await;
}

/// A stream that comes slowly, with what came of it up to its first word. Its hold is for less than the most that it can
/// come to.
async fn slow_stream(caller: &Caller, script: Value) -> (Incoming, String) {
    let mut fields = json!({"max_tokens": 4_000, "stream_options": {"include_usage": true}});
    let mut mock = json!({"prompt_tokens": 10, "gap_ms": 8});
    mock.as_object_mut().expect("an object").extend(script.as_object().expect("an object").clone());
    fields["mock"] = mock;
    let mut begun = caller.begin_chat(&stream(fields)).await;
    assert_eq!(begun.status, 200);
    let text = begun.until(" word").await;
    (begun, text)
}

#[tokio::test]
async fn m_10_a_stream_that_can_get_no_more_ends_as_by_its_length() {
    let mut gateway = Gateway::start().await;
    let (account, caller, _) = gateway.payer("short", price(0, 5_000), json!({})).await;
    let (begun, first) = slow_stream(&caller, json!({"completion_tokens": 2_000})).await;
    assert_eq!(begun.header("x-tollgate-output-cap"), None);
    let request_id = begun.request_id();
    // Somebody takes what it would have grown into.
    gateway.leave(account, Nanos(100)).await;
    let answer = begun.whole().await.expect("a whole stream");
    let events = answer.events();
    let (done, events) = events.split_last().expect("an end");
    let (usage, events) = events.split_last().expect("the usage");
    let usage: Value = serde_json::from_str(usage).expect("JSON");
    let finish: Value = serde_json::from_str(events.last().expect("the finish")).expect("JSON");
    assert_eq!((done.as_str(), &usage["choices"]), ("[DONE]", &json!([])));
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert_eq!((&finish["id"], &finish["model"]), (&usage["id"], &json!("mock-model")));
    let fate = gateway.fate(&request_id).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::FundsExhausted, true));
    assert!(fate.cost <= fate.held, "{fate:?}");
    assert_eq!(answer.cost(), Some(fate.cost));
    // What was passed on is what is charged, and what is told.
    let words = (first + &answer.text()).matches(" word").count();
    assert!((200..=400).contains(&words), "{words}");
    assert_eq!((&fate.usage["output"], &usage["usage"]["completion_tokens"]), (&json!(words), &json!(words)));
    assert_eq!(usage["usage"]["prompt_tokens"], fate.usage["input"]);
    assert!(answer.text().contains(&format!(": x-tollgate-output-cap: {words}\n")), "{}", answer.text());
    let shown = gateway.account_shown(account).await;
    assert_eq!(amount(&shown["balance"]).0, 100 + fate.held.0 - fate.cost.0);
    assert_eq!(amount(&shown["owed"]), Nanos::ZERO);
    gateway.quiet().await;
}

#[tokio::test]
async fn what_an_upstream_produced_unseen_is_charged_as_far_as_there_is_money() {
    let mut gateway = Gateway::start().await;
    let hidden = json!({"completion_tokens": 3_000, "words": 40});
    for (name, left, charged) in [("rich", None, 3_000), ("poor", Some(Nanos(0)), 0)] {
        let (account, caller, _) = gateway.payer(name, price(0, 5_000), json!({})).await;
        // Only a model that is not known to hide anything is held for less than it can come to.
        gateway
            .manage(
                "PUT",
                "/prices",
                json!({"model": name, "price": {"input_per_million": "1", "output_per_million": "2"}}),
            )
            .await;
        let (begun, _) = slow_stream(&caller, hidden.clone()).await;
        let request_id = begun.request_id();
        if let Some(left) = left {
            gateway.leave(account, left).await;
        }
        let answer = begun.whole().await.expect("a whole stream");
        assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
        let fate = gateway.fate(&request_id).await;
        assert_eq!((fate.ending, answer.cost()), (Ending::Complete, Some(fate.cost)), "{name} {fate:?}");
        assert!(fate.cost <= fate.held, "{name} {fate:?}");
        match left {
            None => assert_eq!((fate.cost, fate.estimated), (price(10, charged), false), "{fate:?}"),
            Some(_) => {
                assert!(fate.estimated && fate.usage["output"].as_u64().expect("a count") < 1_000, "{fate:?}");
                assert_eq!(amount(&gateway.account_shown(account).await["owed"]), Nanos::ZERO);
            }
        }
        if left.is_none() {
            // From now on it is known to hide tokens, and capped to what is held.
            let body = stream(json!({"max_tokens": 4_000, "mock": {"completion_tokens": 10}}));
            let capped = caller.chat(&body).await;
            assert!(capped.header("x-tollgate-output-cap").is_some(), "{:?}", capped.headers);
            // A restart forgets it, as it forgets everything that is only a guess.
            gateway.terminate();
            gateway.exited(std::time::Duration::from_secs(10)).await;
            gateway.restart().await;
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_10_what_comes_beyond_a_wrong_maximum_is_charged_or_was_never_asked_for() {
    let mut gateway = Gateway::start().await;
    let (_, caller, _) = gateway.payer("wrong", price(0, 1_000_000), json!({})).await;
    let sheet = json!({"input_per_million": "1", "output_per_million": "2", "max_output_tokens": 10});
    gateway.manage("PUT", "/prices", json!({"model": "mock-model", "price": sheet})).await;
    let script = json!({"prompt_tokens": 10, "completion_tokens": 300});
    for streamed in [false, true] {
        // Nobody sent a cap: the price book alone says what the most is.
        let answer = caller.chat(&chat(json!({"stream": streamed, "mock": script}))).await;
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.cost, fate.estimated), (price(10, 300), false), "{fate:?}");
        assert_eq!(answer.header("x-tollgate-output-cap"), None);
        assert!(fate.held < fate.cost, "{fate:?}");
        // More than the model gives is asked for: the upstream is told, and what it then sends beyond is its own affair.
        let body = chat(json!({"stream": streamed, "max_tokens": 500, "mock": script}));
        let answer = caller.chat(&body).await;
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((&fate.usage["output"], fate.estimated), (&json!(10), true), "{fate:?}");
        assert_eq!(answer.header("x-tollgate-output-cap"), Some("10"));
        let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
        assert_eq!(sent["max_tokens"], 10);
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn a_key_can_ask_to_be_refused_rather_than_cut() {
    let mut gateway = Gateway::start().await;
    let body = json!({"max_tokens": 4_000, "mock": {"prompt_tokens": 10, "completion_tokens": 20}});
    for streamed in [false, true] {
        let name = format!("exact {streamed}");
        let (account, caller, key) = gateway.payer(&name, price(0, 4_000), json!({"on_short_funds": "refuse"})).await;
        assert_eq!(gateway.key_shown(key).await["on_short_funds"], "refuse");
        let mut body = chat(body.clone());
        body["stream"] = json!(streamed);
        let refused = caller.chat(&body).await;
        assert_eq!(refused.error(), (402, "billing_error".to_owned(), "quota_exceeded".to_owned()));
        assert!(!gateway.was_held(&refused.request_id()));
        gateway.manage("PATCH", &format!("/keys/{key}"), json!({"on_short_funds": "cap"})).await;
        assert_eq!(caller.chat(&body).await.status, 200);
        gateway.manage("PATCH", &format!("/keys/{key}"), json!({"on_short_funds": "refuse"})).await;
        gateway.leave(account, price(1_000, 4_000)).await;
        let served = caller.chat(&body).await;
        assert_eq!((served.status, served.header("x-tollgate-output-cap")), (200, None), "{}", served.text());
        assert!(gateway.fate(&served.request_id()).await.held >= price(0, 4_000));
    }
    gateway.quiet().await;
}

/// What becomes of one of a thousand.
fn draw(dice: &mut Dice) -> (Value, bool) {
    let tokens = 1 + dice.roll(30);
    let mut script = json!({"prompt_tokens": 1 + dice.roll(30), "completion_tokens": tokens});
    let leaves = dice.roll(10) == 0;
    match dice.roll(10) {
        0 => script["words"] = json!(tokens / 4),
        1 => script["completion_tokens"] = json!(tokens * 20),
        2 => script["usage"] = json!("missing"),
        3 => script["usage"] = json!("every"),
        4 => script["cut_after"] = json!(1 + dice.roll(tokens)),
        5 => script["gap_ms"] = json!(2),
        6 => script["reasoning_tokens"] = json!(tokens / 2),
        _ => {}
    }
    let mut body = chat(json!({"stream": dice.roll(3) > 0, "mock": script}));
    match dice.roll(4) {
        0 => {}
        1 => body["max_tokens"] = json!(1_000_000),
        _ => body["max_tokens"] = json!(tokens + dice.roll(500)),
    }
    if dice.roll(8) == 0 {
        body["n"] = json!(2);
    }
    (body, leaves)
}

#[tokio::test]
async fn a_thousand_requests_on_a_dollar_take_a_dollar_and_not_a_nano_usd_more() {
    let mut gateway = Gateway::start().await;
    // A dollar is five thousand tokens.
    let dear = json!({"model": "mock-model", "price": {"input_per_million": "10", "output_per_million": "200"}});
    gateway.manage("PUT", "/prices", dear).await;
    let dollar = Nanos(1_000_000_000);
    let (account, caller, key) = gateway.payer("a dollar", dollar, json!({})).await;
    let mut dice = Dice(7);
    let (mut served, mut refused) = (0, 0);
    for _ in 0..40 {
        let mut exchanges = JoinSet::new();
        for _ in 0..25 {
            let (caller, (body, leaves)) = (caller.clone(), draw(&mut dice));
            exchanges.spawn(async move {
                let begun = caller.begin_chat(&body).await;
                // Whoever leaves is charged for what came.
                let answer: Option<Answer> = if leaves { None } else { begun.whole().await.ok() };
                answer.map(|answer| answer.status)
            });
        }
        for status in exchanges.join_all().await.into_iter().flatten() {
            match status {
                200 => served += 1,
                402 => refused += 1,
                other => assert_eq!(other, 502, "cut before anything came"),
            }
        }
    }
    gateway.quiet().await;
    let shown = gateway.account_shown(account).await;
    let [balance, spent, owed] = ["balance", "spent", "owed"].map(|name| amount(&shown[name]));
    assert_eq!((owed, balance.0 + spent.0), (Nanos::ZERO, dollar.0), "{shown}");
    let fates: Vec<_> = gateway.journal().fates_of_key(key).into_iter().map(|fate| fate.expect("an end")).collect();
    assert!(fates.iter().all(|fate| fate.cost <= fate.held), "{fates:?}");
    assert_eq!(fates.iter().map(|fate| fate.cost).sum::<Nanos>(), spent);
    // It is used, not locked up: what is left pays for no answer of sixteen tokens to a prompt of four hundred bytes.
    assert!(served > 50 && refused > 50, "{served} {refused}");
    assert!(balance < Nanos(400 * 10_000 + 16 * 200_000), "{balance}");
}
