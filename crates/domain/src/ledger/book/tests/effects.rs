//! What entries change beside the pots adds up to what was charged.

use super::*;

/// Adds what the entries of the journal change, by what is changed: money, tokens, requests that were used, then held.
fn sums(journal: &Journal) -> BTreeMap<String, [i64; 6]> {
    let mut sums: BTreeMap<String, [i64; 6]> = BTreeMap::new();
    let mut book = Book::default();
    for entry in &journal.entries {
        let about = match &entry.kind {
            Kind::Extend(extension) => Some(extension.hold),
            kind => kind.resolves(),
        };
        let hold = about.and_then(|hold| book.open_hold(hold)).map(|open| open.terms.clone());
        entry.effects(hold.as_deref(), &mut |effect| {
            let (name, used, held) = match effect {
                Effect::Key { key, used, held, .. } => (format!("key {key}"), used, held),
                Effect::Budget { counted, used, held } => (format!("budget {}", counted.budget), used, held),
                Effect::Plan { slot, used, held, .. } => (format!("plan {slot}"), used, held),
                Effect::Grant { id, left, held } => {
                    let money = |money| Change { money, ..Change::default() };
                    (format!("grant {id}"), money(left), money(held))
                }
            };
            let sum = sums.entry(name).or_default();
            let amounts = [used.money, used.tokens, used.requests, held.money, held.tokens, held.requests];
            sum.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
        });
        book.apply(entry).unwrap();
    }
    sums
}

#[test]
fn changes_add_up_and_stay_at_the_ends_of_64_bits() {
    let mut sum = Change { money: 1, tokens: i64::MAX, requests: 3 };
    sum.add(Change { money: -5, tokens: 1, requests: 2 });
    assert_eq!(sum, Change { money: -4, tokens: i64::MAX, requests: 5 });
}

#[test]
fn the_effects_of_a_finished_hold_are_what_was_charged_and_nothing_stays_reserved() {
    let check = |finish: &dyn Fn(&mut Journal, Seq), expected: &[(&str, [i64; 6])]| {
        let mut journal = Journal::with(1_000);
        journal.grant(10, None).unwrap();
        let windows = vec![window("week", Allowance::Tokens(500))];
        journal.start(&Arc::new(PlanTerms { windows, fallback: true, ..plan(0, 30) })).unwrap();
        let counted = Counted { budget: BudgetId(5), subject: "".into(), period: Period::ALL_TIME };
        let budget = BudgetLimit { counted, name: "b".into(), metric: Metric::Money, limit: 200 };
        let limits = Limits { quota: Quota::default(), budgets: [budget].into_iter().collect(), ..Limits::default() };
        let hold = journal.hold_for(KEY, 50, 100, &limits).unwrap();
        journal.extend(hold, 25, 50, &limits).unwrap();
        finish(&mut journal, hold);
        let found = sums(&journal);
        let found: Vec<_> = found.iter().map(|(name, sums)| (name.as_str(), *sums)).collect();
        assert_eq!(found, expected);
        assert!(journal.book.is_quiet());
    };
    let charged = |grant: i64, plan: [i64; 2], all: [i64; 3]| {
        let [money, tokens, requests] = all;
        vec![
            ("budget 5", [money, tokens, requests, 0, 0, 0]),
            ("grant 2", [grant, 0, 0, 0, 0, 0]),
            ("key 7", [money, tokens, requests, 0, 0, 0]),
            ("plan 0", [plan[0], plan[1], 0, 0, 0, 0]),
            ("plan 1", [plan[0], plan[1], 0, 0, 0, 0]),
        ]
    };
    check(&|journal, hold| assert!(journal.settle(hold, 6, 3).is_ok()), &charged(4, [0, 0], [6, 3, 1]));
    check(&|journal, hold| assert!(journal.settle(hold, 60, 120).is_ok()), &charged(0, [30, 60], [60, 120, 1]));
    check(&|journal, hold| assert!(journal.settle(hold, 90, 160).is_ok()), &charged(0, [30, 54], [90, 160, 1]));
    check(&|journal, hold| assert!(journal.void(hold).is_ok()), &charged(10, [0, 0], [0, 0, 0]));
    let void = Resolution::Void { ending: Ending::LeaseLapsed };
    check(&|journal, hold| assert!(journal.resolve(hold, void.clone(), true).is_ok()), &charged(10, [0, 0], [0, 0, 0]));
    check(
        &|journal, hold| {
            journal.resolve(hold, settle(6, 3), true).unwrap();
            journal.late_charge(hold, 16, 8).unwrap();
        },
        &charged(0, [6, 3], [16, 8, 1]),
    );
}
