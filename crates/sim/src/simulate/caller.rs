//! What callers do: ask, stream, lose patience, try again.

use super::Process;
use super::auditor::Auditor;
use super::setting::END_USERS;
use super::upstream::{Fault, Plan};
use crate::load::trace::Dice;
use bytes::Bytes;
use domain::AccountId;
use gateway::relay::Relay;
use gateway::{AnswerBody, Call, Case, Gateway};
use protocol::openai::Endpoint;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::keys::Caller;

/// Tries of one request, each under an id of its own.
const TRIES_MAX: u64 = 3;

/// One caller's next request, tries included.
pub async fn ask(process: Process, caller: Arc<Caller>, mut dice: Dice) {
    let Process { gateway, auditor, setting, .. } = &process;
    for attempt in 0..TRIES_MAX {
        let again = ask_once(gateway, &caller, auditor, setting.odds.leaks, &mut dice).await;
        if !again || attempt + 1 == TRIES_MAX {
            return;
        }
        auditor.note(|reached| reached.retried += 1);
        tokio::time::sleep(Duration::from_millis(dice.roll(200))).await;
    }
}

/// Whether another try makes sense.
async fn ask_once(gateway: &Arc<Gateway>, caller: &Caller, auditor: &Auditor, may_leak: bool, dice: &mut Dice) -> bool {
    let cap = 1 + dice.roll(40);
    let plan = plan(dice, cap, caller.account.id);
    let stream = dice.roll(2) == 0;
    let request: Arc<str> = plan.request().into();
    let text = "word ".repeat(1 + dice.roll(20) as usize);
    let mut body = json!({"model": "m", "stream": stream, "plan": plan,
        "messages": [{"role": "user", "content": text}], "max_tokens": cap});
    if dice.roll(8) == 0 {
        // Left open: the gateway sets the cap, and the plan stays below every cap that it can set.
        body.as_object_mut().expect("an object").remove("max_tokens");
        body["plan"]["completion_tokens"] = json!(plan.completion_tokens.min(16));
    }
    let end_user = END_USERS[dice.roll(END_USERS.len() as u64) as usize];
    body["user"] = json!(end_user);
    auditor.begins(plan.id, &request);
    auditor.is_limited(&request, caller.account.id, caller.key.id, end_user);
    auditor.extends(&request);
    auditor.note(|reached| reached.requests += 1);
    let patience = Duration::from_millis(if dice.roll(4) == 0 { dice.roll(400) } else { 600_000 });
    let body = Bytes::from(body.to_string());
    let serving = gateway.serve(
        caller,
        Call {
            endpoint: Endpoint::Chat.into(),
            boundary: None,
            body,
            tags: None,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            foreign: None,
        },
        request.clone(),
    );
    let answer = match tokio::time::timeout(patience, serving).await {
        Err(_) => {
            auditor.note(|reached| reached.left += 1);
            return dice.roll(2) == 0;
        }
        Ok(Err(failure)) => {
            match failure.case {
                Case::QuotaExceeded { .. } | Case::ExceedsLimit { .. } => auditor.note(|reached| reached.refused += 1),
                _ => auditor.failed(&request),
            }
            return matches!(failure.case, Case::UpstreamFailed | Case::NoUpstream | Case::StoreUnavailable);
        }
        Ok(Ok(answer)) => answer,
    };
    auditor.first_byte(&request);
    match answer.body {
        AnswerBody::Whole(_) => {
            let cost = answer.cost.expect("a whole answer states its cost");
            auditor.complete(&request, i128::from(cost.0));
        }
        // A defect in which nobody ends the stream: only the sweeper is left to resolve its hold.
        AnswerBody::Stream(relay) if may_leak && dice.roll(64) == 0 => {
            auditor.leaks(&request);
            std::mem::forget(relay);
        }
        AnswerBody::Stream(relay) => read(relay, &request, patience, auditor).await,
        AnswerBody::Typed(..) | AnswerBody::Flow(..) => unreachable!("only text is asked for"),
    }
    false
}

/// Reads a stream to its end, or leaves.
async fn read(mut relay: Box<Relay>, request: &str, patience: Duration, auditor: &Auditor) {
    let mut last = Bytes::new();
    let reading = async {
        while let Some(bytes) = std::future::poll_fn(|context| relay.poll_bytes(context)).await {
            last = bytes;
        }
    };
    if tokio::time::timeout(patience, reading).await.is_err() {
        auditor.note(|reached| reached.left += 1);
        return;
    }
    if last.ends_with(b"data: [DONE]\n\n") {
        let cost = relay.cost().expect("a whole stream knows its cost");
        auditor.complete(request, i128::from(cost.0));
    }
}

fn plan(dice: &mut Dice, cap: u64, account: AccountId) -> Plan {
    let after = dice.roll(cap + 4) as usize;
    let fault = match dice.roll(16) {
        0 => Fault::Refuse([400, 401, 429, 500, 503][dice.roll(5) as usize]),
        1 => Fault::Unreachable,
        2 => Fault::Broken,
        3 => Fault::NoUsage,
        4 => Fault::Cut(after),
        5 => Fault::Stall(after),
        6 => Fault::ErrorEvent(after),
        7 => Fault::Malformed(after),
        8 if dice.roll(4) == 0 => Fault::Silent,
        _ => Fault::None,
    };
    Plan {
        id: dice.roll(u64::MAX),
        account: account.0,
        prompt_tokens: 1 + dice.roll(60),
        completion_tokens: dice.roll(cap) + 1,
        latency_ms: dice.roll(300),
        gap_ms: dice.roll(30),
        fault,
    }
}
