//! Those who wait for a place: they come in by class and arrival, whoever leaves in between, and all of them do.

use super::{BEGINNING, Caller, Reached};
use crate::load::trace::Dice;
use domain::rate::{Dimension, Limit, Metric, Priority, Scope, Window};
use domain::{AccountId, LimitId, Zone};
use gateway::limiter::queue::Ticket;
use gateway::limiter::{Cost, Limiter};
use std::sync::Arc;

/// How much earlier a class seems to have come than the one below it.
const AHEAD_MS: i64 = 5_000;
const LENGTH_MS: i64 = 60_000;

struct Waiter<'a> {
    ticket: Ticket<'a>,
    caller: Caller,
    subjects: Arc<[u128]>,
    /// By this the line is ordered.
    seems: (i64, usize),
}

/// Few places in a time, and more who want one.
pub(super) fn run(dice: &mut Dice, reached: &mut Reached) -> Result<(), String> {
    let limiter = Limiter::new(&[7; 32]);
    let each = if dice.roll(2) == 0 { vec![Dimension::Key] } else { vec![Dimension::Model, Dimension::Account] };
    let (name, scope) = ("few".into(), Scope::default());
    let window = Window::Sliding { length_ms: 1_000 };
    limiter.set_limits(&[Arc::new(Limit {
        id: LimitId(1),
        name,
        metric: Metric::Requests,
        amount: 1 + dice.roll(3),
        window,
        scope,
        each,
    })]);
    let cost = Cost { input_tokens: 1, output_tokens: 1, money: 1, choices: 1 };
    let mut line: Vec<Waiter<'_>> = Vec::new();
    for (turn, at) in (0..).zip((0..LENGTH_MS).step_by(20 + dice.roll(400) as usize)) {
        let now = BEGINNING.plus_ms(at);
        // Nobody new comes in the second half, so that in the end all have had their turn.
        if at < LENGTH_MS / 2 && line.len() < 20 && dice.roll(2) == 0 {
            let caller = Caller::draw(dice);
            let subjects = limiter.subjects(&caller.asking());
            let priority = Priority::ALL[dice.roll(3) as usize];
            let ticket = limiter.queue().stand(AccountId(caller.account), priority, subjects.clone(), now.0);
            let ticket = ticket.ok_or("a short line is full")?;
            let seems = (now.0 + AHEAD_MS * (priority as i64 - Priority::Normal as i64), turn);
            line.push(Waiter { ticket, caller, subjects, seems });
        }
        if !line.is_empty() && dice.roll(16) == 0 {
            drop(line.swap_remove(dice.roll(line.len() as u64) as usize));
            reached.left += 1;
        }
        let waits = |one: &Waiter<'_>, other: &Waiter<'_>| {
            other.seems < one.seems && other.subjects.iter().any(|subject| one.subjects.contains(subject))
        };
        if let Some(wrong) = line.iter().find(|one| one.ticket.is_first() == line.iter().any(|other| waits(one, other)))
        {
            return Err(format!("at {at} {:?} is {} first", wrong.caller, wrong.ticket.is_first()));
        }
        let mut stayed = Vec::new();
        for waiter in std::mem::take(&mut line) {
            let comes = waiter.ticket.is_first()
                && limiter.enter(&waiter.caller.asking(), &Zone::UTC, &cost, now).map(drop).is_ok();
            if comes {
                reached.waited += 1;
            } else {
                stayed.push(waiter);
            }
        }
        line = stayed;
    }
    match line.len() {
        0 if limiter.queue().is_empty() => {
            reached.lines += 1;
            Ok(())
        }
        left => Err(format!("{left} of {} still wait", limiter.queue().len())),
    }
}
