//! What limits promise, over random rules, arrivals and corrections. Named after the cases that they prove.

use super::*;
use crate::calendar::Calendar;
use crate::rate::AMOUNT_MAX;
use crate::time::DAY_MS;
use proptest::prelude::*;
use std::collections::VecDeque;

const ZONE: Zone = Zone::UTC;
/// 2026-11-22T08:00:00Z
const START: Timestamp = Timestamp(1_795_334_400_000);

/// One subject of one rule, looked after as the limiter does it.
#[derive(Clone, Debug)]
struct Subject {
    rule: Rule,
    state: State,
}

impl Subject {
    fn new(rule: Rule) -> Self {
        Self { rule, state: State::default() }
    }

    fn look(&mut self, cost: u64, at: Timestamp) -> Verdict {
        self.rule.adopt(&mut self.state, &ZONE, at);
        self.rule.look(&self.state, cost, &ZONE, at)
    }

    /// Takes if there is room.
    fn ask(&mut self, cost: u64, at: Timestamp) -> Option<Taken> {
        let room = self.look(cost, at) == Verdict::Admitted;
        room.then(|| self.rule.take(&mut self.state, cost, &ZONE, at))
    }

    fn correct(&mut self, taken: Taken, reserved: u64, actual: u64, at: Timestamp) {
        self.rule.correct(&mut self.state, taken, reserved, actual, &ZONE, at);
    }

    fn standing(&self, at: Timestamp) -> Standing {
        self.rule.standing(&self.state, &ZONE, at)
    }
}

/// Something that happens to a subject, so many milliseconds after what happened before it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Ask {
        after_ms: i64,
        cost: u64,
    },
    /// Of what was admitted, one is corrected to a share of what it had reserved, in percent.
    Correct {
        after_ms: i64,
        which: usize,
        percent: u64,
    },
}

fn sliding() -> impl Strategy<Value = Window> {
    prop_oneof![Just(1_i64), 2..50_i64, Just(1_000), Just(60_000), 1..=1_000 * DAY_MS]
        .prop_map(|length_ms| Window::Sliding { length_ms })
}

/// Smooth rules of a size that a bucket fills in 1000 days.
fn smooth() -> impl Strategy<Value = Rule> {
    let lengths = prop_oneof![Just(1_i64), Just(7), Just(1_000), Just(60_000), Just(DAY_MS), 1..=1_000 * DAY_MS];
    let bursts = prop_oneof![Just(None), (1..=3_000_u64).prop_map(Some)];
    (amount(), lengths, bursts).prop_map(|(amount, length_ms, burst)| {
        let most = u128::from(amount) * (1_000 * DAY_MS) as u128 / length_ms as u128;
        let burst = burst.map(|burst: u64| burst.min(most as u64));
        Rule { amount, window: Window::Smooth { length_ms, burst } }
    })
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![1..20_u64, 1..1_000_000_u64, 1..=AMOUNT_MAX, Just(AMOUNT_MAX)]
}

fn calendar() -> impl Strategy<Value = Window> {
    let calendars = [Calendar::Once, Calendar::Hour, Calendar::Day, Calendar::WEEK, Calendar::Month];
    prop::sample::select(calendars.to_vec()).prop_map(Window::Calendar)
}

/// Every kind that time passes in.
fn rule() -> impl Strategy<Value = Rule> {
    let session = prop_oneof![Just(60_000_i64), 1..=10 * DAY_MS].prop_map(|length_ms| Window::Session { length_ms });
    let by_amount = (amount(), prop_oneof![sliding(), calendar(), session]);
    prop_oneof![smooth(), by_amount.prop_map(|(amount, window)| Rule { amount, window })]
}

/// Deeds on the scale of a rule: costs that matter to its amount, at distances that matter to its window.
fn deeds(rule: Rule, percent: std::ops::RangeInclusive<u64>, count: usize) -> impl Strategy<Value = Vec<Deed>> {
    let length_ms = length_ms(rule);
    let after = move || prop_oneof![Just(0_i64), 0..=(length_ms / 50).max(1), 0..=length_ms + 1];
    let most = rule.most();
    let costs = prop_oneof![Just(1_u64), 0..=(most / 5).max(1), 0..=most];
    prop::collection::vec(
        prop_oneof![
            3 => (after(), costs).prop_map(|(after_ms, cost)| Deed::Ask { after_ms, cost }),
            1 => (after(), any::<usize>(), percent)
                .prop_map(|(after_ms, which, percent)| Deed::Correct { after_ms, which, percent }),
        ],
        0..count,
    )
}

fn length_ms(rule: Rule) -> i64 {
    match rule.window {
        Window::Sliding { length_ms } | Window::Session { length_ms } => length_ms,
        Window::Smooth { length_ms, .. } => {
            let fills = u128::from(rule.most()) * length_ms as u128;
            length_ms.max(i64::try_from(fills.div_ceil(u128::from(rule.amount))).unwrap())
        }
        Window::Calendar(calendar) => calendar.longest_ms().unwrap_or(1_000 * DAY_MS),
        Window::Now | Window::Request => 0,
    }
}

#[derive(Clone, Copy, Debug)]
struct Admission {
    at: Timestamp,
    taken: Taken,
    reserved: u64,
    actual: u64,
    corrected: bool,
}

/// Lets the deeds happen; what was admitted, and the time in the end.
fn play(subject: &mut Subject, deeds: &[Deed]) -> (Vec<Admission>, Timestamp) {
    let (mut admitted, mut now): (Vec<Admission>, _) = (Vec::new(), START);
    for deed in deeds {
        match *deed {
            Deed::Ask { after_ms, cost } => {
                now = now.plus_ms(after_ms);
                if let Some(taken) = subject.ask(cost, now) {
                    admitted.push(Admission { at: now, taken, reserved: cost, actual: cost, corrected: false });
                }
            }
            Deed::Correct { after_ms, which, percent } => {
                now = now.plus_ms(after_ms);
                let open: Vec<_> = admitted.iter_mut().filter(|admission| !admission.corrected).collect();
                if open.is_empty() {
                    continue;
                }
                let index = which % open.len();
                let admission = open.into_iter().nth(index).unwrap();
                admission.corrected = true;
                admission.actual = (u128::from(admission.reserved) * u128::from(percent) / 100) as u64;
                subject.correct(admission.taken, admission.reserved, admission.actual, now);
            }
        }
        let decoded = State::decode(&subject.state.encode());
        assert_eq!(decoded.as_ref(), Some(&subject.state));
    }
    (admitted, now)
}

fn played(percent: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = (Rule, Vec<Deed>)> {
    rule().prop_flat_map(move |rule| (Just(rule), deeds(rule, percent.clone(), 40)))
}

/// Two states cannot be told apart, now or later.
fn assert_same(rule: Rule, one: &State, other: &State, at: Timestamp) {
    let length_ms = length_ms(rule);
    for after_ms in [0, 1, length_ms / 7, length_ms / 2, length_ms - 1, length_ms, length_ms + 1] {
        let at = at.plus_ms(after_ms);
        assert_eq!(rule.standing(one, &ZONE, at), rule.standing(other, &ZONE, at), "after {after_ms} ms");
        for cost in [1, rule.most() / 3 + 1, rule.most()] {
            assert_eq!(
                rule.look(one, cost, &ZONE, at),
                rule.look(other, cost, &ZONE, at),
                "{cost} after {after_ms} ms"
            );
        }
    }
}

proptest! {
    #[test]
    fn l_01_a_sliding_window_is_exact(
        (rule, deeds) in (amount(), sliding())
            .prop_map(|(amount, window)| Rule { amount, window })
            .prop_flat_map(|rule| (Just(rule), deeds(rule, 0..=100, 60))),
    ) {
        let length_ms = length_ms(rule);
        let mut subject = Subject::new(rule);
        let mut admitted: Vec<Admission> = Vec::new();
        let mut now = START;
        for deed in deeds {
            let used = |admitted: &[Admission], now: Timestamp| -> u64 {
                admitted.iter().filter(|entry| entry.at.plus_ms(length_ms) > now).map(|entry| entry.actual).sum()
            };
            match deed {
                Deed::Ask { after_ms, cost } => {
                    now = now.plus_ms(after_ms);
                    let room = used(&admitted, now) + cost <= rule.amount;
                    let taken = subject.ask(cost, now);
                    prop_assert_eq!(taken.is_some(), room);
                    admitted.extend(taken.map(|taken| Admission {
                        at: now, taken, reserved: cost, actual: cost, corrected: false,
                    }));
                }
                Deed::Correct { after_ms, which, percent } => {
                    now = now.plus_ms(after_ms);
                    let count = admitted.len().max(1);
                    if let Some(entry) = admitted.get_mut(which % count).filter(|entry| !entry.corrected) {
                        (entry.corrected, entry.actual) = (true, entry.reserved * percent / 100);
                        subject.correct(entry.taken, entry.reserved, entry.actual, now);
                    }
                }
            }
            prop_assert_eq!(subject.standing(now).remaining, rule.amount - used(&admitted, now));
        }
    }

    #[test]
    fn l_01_a_smooth_window_lets_through_the_burst_and_what_fills_in_the_meantime(
        (rule, deeds) in smooth().prop_flat_map(|rule| (Just(rule), deeds(rule, 0..=100, 60))),
    ) {
        let Window::Smooth { length_ms, .. } = rule.window else { unreachable!() };
        let (admitted, _) = play(&mut Subject::new(rule), &deeds);
        for (first, from) in admitted.iter().enumerate() {
            let mut sum = 0;
            for to in &admitted[first..] {
                sum += u128::from(to.actual);
                let passed = (to.at.0 - from.at.0) as u128;
                let most = u128::from(rule.most()) * length_ms as u128 + u128::from(rule.amount) * passed;
                prop_assert!(sum * length_ms as u128 <= most);
            }
        }
    }

    #[test]
    fn l_01_a_merged_log_lets_no_more_through(gaps in prop::collection::vec(0..4_i64, 1_000..1_500), amount in 500..1_000_u64) {
        let rule = Rule { amount, window: Window::Sliding { length_ms: 2_000 } };
        let mut subject = Subject::new(rule);
        let (mut admitted, mut now) = (VecDeque::new(), START);
        for gap in gaps {
            now = now.plus_ms(gap);
            while admitted.pop_front_if(|at: &mut Timestamp| at.plus_ms(2_000) <= now).is_some() {}
            if subject.ask(1, now).is_some() {
                admitted.push_back(now);
                prop_assert!(admitted.len() as u64 <= amount);
            }
            let Used::Sliding(log) = &subject.state.0 else { unreachable!() };
            prop_assert!(log.len() <= sliding::MARKS_MAX);
        }
        // And that it is full is for at most a window.
        prop_assert!(subject.standing(now).whole_in_ms <= 2_000);
    }

    #[test]
    fn l_02_arrivals_at_exactly_the_rate_are_never_refused(rule in smooth(), cost in 1..5_u64, steps in 1..300_u64) {
        let Window::Smooth { length_ms, .. } = rule.window else { unreachable!() };
        let cost = cost.min(rule.amount);
        // The smallest bucket: for one such request, and for being up to a millisecond late, as times are whole ones.
        let burst = Some(cost + rule.amount.div_ceil(length_ms as u64));
        let rule = Rule { window: Window::Smooth { length_ms, burst }, ..rule };
        let mut subject = Subject::new(rule);
        for step in 0..steps {
            let exact = u128::from(step * cost) * length_ms as u128;
            let at = START.plus_ms(exact.div_ceil(u128::from(rule.amount)) as i64);
            prop_assert!(subject.ask(cost, at).is_some(), "step {}", step);
        }
    }

    #[test]
    fn l_03_too_much_is_refused_for_good_and_nothing_is_a_peek((rule, deeds) in played(0..=200)) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let before = subject.clone();
        prop_assert_eq!(subject.look(rule.most() + 1, now), Verdict::Never);
        prop_assert_eq!(subject.look(u64::MAX, now), Verdict::Never);
        prop_assert_eq!(subject.look(0, now), Verdict::Admitted);
        prop_assert!(subject.ask(0, now).is_some());
        prop_assert_eq!(&subject.state, &before.state);
        let shut = Rule { amount: 0, ..rule };
        for cost in [0, 1] {
            prop_assert_eq!(shut.look(&subject.state, cost, &ZONE, now), Verdict::Never);
        }
        prop_assert_eq!(shut.standing(&subject.state, &ZONE, now).remaining, 0);
    }

    #[test]
    fn l_04_a_wait_is_exact_and_agrees_with_the_standing((rule, deeds) in played(0..=200), cost in 1..=100_u64) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let cost = (u128::from(rule.most()) * u128::from(cost)).div_ceil(100) as u64;
        let standing = subject.standing(now);
        match subject.look(cost, now) {
            Verdict::Admitted => prop_assert!(cost <= standing.remaining),
            Verdict::Wait(ms) => {
                prop_assert!(cost > standing.remaining);
                prop_assert!(1 <= ms && ms <= standing.whole_in_ms);
                let ms = i64::try_from(ms).unwrap();
                let mut later = subject.clone();
                prop_assert_ne!(later.look(cost, now.plus_ms(ms - 1)), Verdict::Admitted);
                prop_assert_eq!(later.look(cost, now.plus_ms(ms)), Verdict::Admitted);
            }
            Verdict::Never => prop_assert_eq!(rule.window, Window::Calendar(Calendar::Once)),
        }
        if standing.remaining > 0 {
            prop_assert_eq!(subject.look(standing.remaining, now), Verdict::Admitted);
        }
        prop_assert_ne!(subject.look(standing.remaining + 1, now), Verdict::Admitted);
        if standing.whole_in_ms < FOREVER_MS {
            let whole = now.plus_ms(standing.whole_in_ms as i64);
            prop_assert!(rule.is_idle(&subject.state, whole));
            prop_assert_eq!(subject.standing(whole), Standing { limit: rule.amount, remaining: rule.most(), whole_in_ms: 0 });
            prop_assert!(standing.whole_in_ms == 0 || !rule.is_idle(&subject.state, whole.plus_ms(-1)));
        }
    }

    #[test]
    fn l_05_what_was_not_used_is_as_if_it_had_not_been_taken(
        (rule, deeds) in played(100..=100), shares in (1..=100_u64, 0..=100_u64), held_ms in 0..=2_000_000_i64,
    ) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let reserved = (u128::from(subject.standing(now).remaining) * u128::from(shares.0) / 100) as u64;
        let actual = (u128::from(reserved) * u128::from(shares.1) / 100) as u64;
        let mut exact = subject.clone();
        let taken = subject.ask(reserved, now).unwrap();
        exact.ask(actual, now).unwrap();
        let now = now.plus_ms(held_ms);
        subject.correct(taken, reserved, actual, now);
        assert_same(rule, &subject.state, &exact.state, now);
    }

    #[test]
    fn l_05_a_correction_of_a_busy_bucket_gives_no_more_than_was_missing(
        (rule, deeds) in smooth().prop_flat_map(|rule| (Just(rule), deeds(rule, 0..=100, 60))),
    ) {
        let mut subject = Subject::new(rule);
        let mut exact = Subject::new(rule);
        let (admitted, now) = play(&mut subject, &deeds);
        for admission in admitted {
            rule.take(&mut exact.state, admission.actual, &ZONE, admission.at);
        }
        prop_assert!(subject.standing(now).remaining <= exact.standing(now).remaining);
    }

    #[test]
    fn l_05_what_was_used_beyond_is_taken_as_of_now((rule, deeds) in played(100..=100), more in 1..=1_000_u64) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let Some(taken) = subject.ask(1, now) else { return Ok(()) };
        let now = now.plus_ms(3);
        let before = subject.standing(now).remaining;
        subject.correct(taken, 1, 1 + more, now);
        prop_assert_eq!(subject.standing(now).remaining, before.saturating_sub(more));
    }

    #[test]
    fn l_07_a_change_is_no_gift((rule, deeds) in played(0..=150), other in rule(), burst in 1..1_000_u64) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let used = rule.most() - subject.standing(now).remaining;
        let same_window = Rule { window: rule.window, ..other };
        let other_burst = match rule.window {
            Window::Smooth { length_ms, .. } => {
                Rule { window: Window::Smooth { length_ms, burst: Some(burst.min(other.amount)) }, ..other }
            }
            _ => same_window,
        };
        // A smooth burst that would not fill in 1000 days is no limit.
        let sane = |rule: &Rule| length_ms(*rule) <= 1_000 * DAY_MS;
        for new in [other, same_window, other_burst].into_iter().filter(sane) {
            let shorter = std::mem::discriminant(&rule.window) == std::mem::discriminant(&new.window)
                && length_ms(new) < length_ms(rule)
                && !matches!(rule.window, Window::Smooth { .. } | Window::Calendar(_));
            let mut changed = Subject { rule: new, ..subject.clone() };
            let standing = changed.standing(now);
            // A log or a session that is shorter now looks less far back: that is the change.
            if !shorter {
                prop_assert!(standing.remaining <= new.most().saturating_sub(used), "{used} {new:?} {standing:?}");
            }
            prop_assert!(standing.whole_in_ms == FOREVER_MS || standing.whole_in_ms <= length_ms(new).unsigned_abs());
            changed.rule.adopt(&mut changed.state, &ZONE, now);
            prop_assert_eq!(changed.standing(now), standing);
            // And a limit that was shut for a moment is as it was.
            let shut = Rule { amount: 0, ..rule };
            let mut reopened = subject.clone();
            shut.adopt(&mut reopened.state, &ZONE, now);
            prop_assert_eq!(reopened.standing(now), subject.standing(now));
        }
    }

    #[test]
    fn l_08_all_given_back_is_as_if_never_taken((rule, deeds) in played(0..=150), cost in 1..=100_u64) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let cost = (u128::from(rule.most()) * u128::from(cost) / 100) as u64;
        let before = subject.clone();
        if let Some(taken) = subject.ask(cost, now) {
            subject.correct(taken, cost, 0, now);
        }
        assert_same(rule, &subject.state, &before.state, now);
    }

    #[test]
    fn l_09_a_clock_that_went_back_locks_out_for_a_window_at_most(
        (rule, deeds) in played(0..=1_000), back_ms in prop_oneof![1..100_000_i64, 0..=60 * DAY_MS, Just(20_000 * DAY_MS)],
        cost in 1..=100_u64,
    ) {
        let mut subject = Subject::new(rule);
        let (admitted, now) = play(&mut subject, &deeds);
        let now = now.plus_ms(-back_ms);
        let before = subject.standing(now.plus_ms(back_ms)).remaining;
        subject.rule.adopt(&mut subject.state, &ZONE, now);
        let standing = subject.standing(now);
        let most = length_ms(rule) + counted::STEP_BACK_MS;
        prop_assert!(standing.whole_in_ms == FOREVER_MS || standing.whole_in_ms <= most.unsigned_abs());
        // Nor is it a gift.
        prop_assert!(standing.remaining <= before);
        let cost = (u128::from(rule.most()) * u128::from(cost)).div_ceil(100) as u64;
        if let Verdict::Wait(ms) = subject.look(cost, now) {
            prop_assert_eq!(subject.look(cost, now.plus_ms(ms as i64)), Verdict::Admitted);
        }
        // Corrections of what was taken at a time that is no more are taken without harm.
        for admission in admitted.iter().filter(|admission| !admission.corrected) {
            subject.correct(admission.taken, admission.reserved, 0, now);
        }
        prop_assert!(subject.standing(now).remaining <= rule.most());
    }

    #[test]
    fn i_22_no_state_reaches_further_than_a_window((rule, deeds) in played(0..=100_000)) {
        let mut subject = Subject::new(rule);
        let (_, now) = play(&mut subject, &deeds);
        let standing = subject.standing(now);
        prop_assert!(standing.whole_in_ms == FOREVER_MS || standing.whole_in_ms <= length_ms(rule).unsigned_abs());
        prop_assert!(rule.forgotten_after(&ZONE, now) >= now.plus_ms(standing.whole_in_ms as i64));
    }

    #[test]
    fn bytes_that_are_no_state_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), rule in rule()) {
        if let Some(state) = State::decode(&bytes) {
            let mut subject = Subject { rule, state };
            subject.look(1, START);
            if let Some(taken) = subject.ask(1, START) {
                subject.correct(taken, 1, 0, START);
            }
            subject.standing(START);
        }
    }
}

#[test]
fn what_is_in_flight_is_counted() {
    let mut subject = Subject::new(Rule { amount: 2, window: Window::Now });
    let first = subject.ask(1, START).unwrap();
    let second = subject.ask(1, START).unwrap();
    assert_eq!(subject.look(1, START.plus_ms(DAY_MS)), Verdict::Wait(IN_FLIGHT_WAIT_MS));
    assert_eq!(subject.standing(START), Standing { limit: 2, remaining: 0, whole_in_ms: 0 });
    subject.correct(first, 1, 0, START);
    assert_eq!(subject.look(1, START), Verdict::Admitted);
    assert!(!subject.rule.is_idle(&subject.state, START.plus_ms(DAY_MS)));
    subject.correct(second, 1, 0, START);
    assert_eq!(subject.state, State::default());
}

#[test]
fn a_limit_of_each_request_keeps_nothing() {
    let mut subject = Subject::new(Rule { amount: 4, window: Window::Request });
    for _ in 0..3 {
        assert!(subject.ask(4, START).is_some());
    }
    assert_eq!(subject.look(5, START), Verdict::Never);
    assert_eq!((subject.state.clone(), subject.standing(START).remaining), (State::default(), 4));
}

#[test]
fn l_05_a_bucket_gives_back_only_what_has_not_come_back_by_itself() {
    let mut subject = Subject::new(Rule { amount: 60, window: "smooth minute burst 10".parse().unwrap() });
    let first = subject.ask(10, START).unwrap();
    // Full again after ten seconds, and emptied again: the ten that were held long are not there a second time.
    let now = START.plus_ms(10_000);
    subject.ask(10, now).unwrap();
    subject.correct(first, 10, 0, now);
    assert_eq!(subject.standing(now).remaining, 0);
}

#[test]
fn l_09_a_period_that_has_begun_stays_when_the_clock_steps_back() {
    let midnight = Timestamp((START.day() + 1) * DAY_MS);
    let mut subject = Subject::new(Rule { amount: 5, window: Window::Calendar(Calendar::Day) });
    subject.ask(5, midnight.plus_ms(-1)).unwrap();
    subject.ask(3, midnight).unwrap();
    // Neither is the old day's use forgotten, nor the new one's when it comes again.
    assert_eq!(subject.standing(midnight.plus_ms(-1)).remaining, 2);
    subject.ask(2, midnight.plus_ms(-1)).unwrap();
    assert_eq!(subject.look(1, midnight.plus_ms(1)), Verdict::Wait(DAY_MS as u64 - 1));
}

#[test]
fn l_07_a_period_that_has_begun_keeps_its_end_in_another_zone() {
    let rule = Rule { amount: 5, window: Window::Calendar(Calendar::Day) };
    let mut state = State::default();
    rule.take(&mut state, 5, &ZONE, START);
    let berlin = "Europe/Berlin".parse().unwrap();
    let midnight = (START.day() + 1) * DAY_MS - START.0;
    assert_eq!(rule.look(&state, 1, &berlin, START), Verdict::Wait(midnight as u64));
}

/// A million states with keys of 16 bytes stay far below 200 MiB.
#[test]
fn states_are_small() {
    assert_eq!(size_of::<State>(), 40);
    assert!(size_of::<Taken>() <= 40);
}
