//! Callers who drive the ledger themselves: with budgets, holds that grow, charges beyond them, and writers who are
//! forgotten or come too late.

use super::Process;
use super::setting::{END_USERS, MODEL, Setting};
use crate::load::trace::Dice;
use domain::ledger::{Ending, Hold, Limits, Parts, Resolution, Subscription};
use domain::{Meter, Nanos, PriceId, Usage};
use std::sync::Arc;
use std::time::Duration;
use store::keys::Caller;
use store::ledger::{HoldError, OpenedHold, Resolved};
use store::progress::Mark;

/// How long a hold may stay open, by the steady clock.
const LEASE_MS: i64 = 60_000;

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Nothing,
    Overrun,
    /// Its task dies without a word.
    Forgotten,
    /// It comes back after the sweeper.
    Late,
    /// It comes back after the sweeper and wants to give back what it holds.
    LateVoid,
}

/// One request.
pub async fn ask(process: Process, caller: Arc<Caller>, mut dice: Dice) {
    let Process { ledger, clock, auditor, setting, .. } = &process;
    let account = caller.account.id;
    let end_user = END_USERS[dice.roll(END_USERS.len() as u64) as usize];
    let request: Arc<str> = format!("direct_{:x}", dice.roll(u64::MAX)).into();
    let end = end(&process, &mut dice);
    let (input, most) = (1 + dice.roll(60), 1 + dice.roll(100));
    let first = if dice.roll(2) == 0 { most } else { 1 + dice.roll(most) };
    let of_plan = ledger.read(account, |book| book.subscription().map(Subscription::multiplier)).await;
    let of_plan = of_plan.expect("memory is always there").filter(|_| dice.roll(2) == 0);
    let (multiplier, plan_alone) = (of_plan.unwrap_or(caller.account.price_multiplier()), of_plan.is_some());
    let bound = usage(input, first);
    let terms = Hold {
        key: caller.key.id,
        request: request.clone(),
        model: MODEL.into(),
        upstream: "simulated".into(),
        price: PriceId(1),
        multiplier,
        amount: setting.cost(&bound, multiplier),
        bound,
        lease_until: clock.steady().plus_ms(LEASE_MS),
        parts: Parts::new(),
        counted: Arc::default(),
    };
    let limits = || Limits { plan_alone, ..Setting::limits(&caller, end_user, clock.now()) };
    auditor.note(|reached| reached.requests += 1);
    auditor.is_limited(&request, account, caller.key.id, end_user);
    match end {
        End::Overrun => auditor.overruns(&request),
        End::Forgotten | End::Late | End::LateVoid => auditor.leaks(&request),
        End::Whole | End::Nothing => {}
    }
    let mut hold = match ledger.hold(account, &terms, &limits(), clock.now()).await {
        Ok(hold) => hold,
        Err(HoldError::Refused(refusal)) => return auditor.refused(&refusal),
        Err(HoldError::TooManyOpen | HoldError::Unavailable) => return auditor.failed(&request),
    };
    if ledger.durable(hold.seq).await.is_err() {
        ledger.resolve(hold, Resolution::Void { ending: Ending::GatewayFault }, clock.now());
        return auditor.failed(&request);
    }
    auditor.first_byte(&request);
    let total = 1 + dice.roll(most) + if end == End::Overrun { dice.roll(200) } else { 0 };
    let consumed = stream(&process, &mut hold, total, end, &limits, &mut dice).await;
    let is_late = matches!(end, End::Late | End::LateVoid);
    match end {
        End::Forgotten => return,
        End::Late | End::LateVoid => tokio::time::sleep(Duration::from_millis(LEASE_MS as u64 + 20_000)).await,
        End::Whole | End::Nothing | End::Overrun => {}
    }
    if matches!(end, End::Nothing | End::LateVoid) {
        let resolved = ledger.resolve(hold, Resolution::Void { ending: Ending::UpstreamCut }, clock.now());
        if resolved == Resolved::AlreadyResolved {
            auditor.note(|reached| reached.stale_writers += 1);
        } else if !is_late {
            auditor.failed(&request);
        }
        return;
    }
    let cost = setting.cost(&consumed, multiplier);
    let settle = Resolution::Settle {
        usage: consumed,
        service_tier: None,
        cost,
        ending: Ending::Complete,
        estimated: dice.roll(4) == 0,
    };
    // The mark says what a restart charges until the settlement is durable.
    ledger.mark(&mut hold, &Mark { usage: consumed, ..Mark::default() });
    ledger.resolve(hold, settle, clock.now());
    auditor.complete(&request, i128::from(cost.0));
}

/// Lets an answer flow, and the hold grow with it. Answers with what was consumed.
async fn stream(
    process: &Process,
    hold: &mut OpenedHold,
    total: u64,
    end: End,
    limits: &impl Fn() -> Limits,
    dice: &mut Dice,
) -> Usage {
    let Process { ledger, clock, auditor, setting, .. } = process;
    let input = hold.terms.bound[Meter::Input];
    let marks = dice.roll(3) > 0;
    let mut produced = 0;
    while produced < total {
        let next = total.min(produced + 1 + dice.roll(16));
        let held = hold.terms.bound[Meter::Output];
        if next > held && end != End::Overrun {
            let more = next - held + dice.roll(8);
            let amount = setting.cost(&usage(input, held + more), hold.terms.multiplier);
            let amount = Nanos(amount.0 - hold.terms.amount.0);
            auditor.extends(&hold.terms.request);
            match ledger.extend(hold, amount, more, &limits(), clock.now()) {
                Ok(()) => {}
                Err(refused) => {
                    auditor.note(|reached| reached.refused_extensions += 1);
                    if let HoldError::Refused(refusal) = refused
                        && end != End::LateVoid
                    {
                        auditor.refused(&refusal);
                    }
                    break;
                }
            }
        }
        produced = next;
        if marks {
            ledger.mark(hold, &Mark { usage: usage(input, produced), estimated: true, service_tier: None });
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(40))).await;
    }
    usage(input, produced)
}

fn end(process: &Process, dice: &mut Dice) -> End {
    let odds = &process.setting.odds;
    match dice.roll(16) {
        0 | 1 => End::Nothing,
        2 | 3 if odds.overruns => End::Overrun,
        4 if odds.leaks => End::Forgotten,
        5 if odds.leaks => End::Late,
        6 if odds.leaks => End::LateVoid,
        _ => End::Whole,
    }
}

fn usage(input: u64, output: u64) -> Usage {
    let mut usage = Usage::default();
    usage[Meter::Input] = input;
    usage[Meter::Output] = output;
    usage
}
