//! Entries that the rules do not give are found, and change nothing.

use super::*;

/// What the entry would be, with that changed.
fn check(journal: &Journal, decided: &Decided, forge: impl FnOnce(&mut Legs, &mut Kind)) {
    let (mut legs, mut kind) = decided.clone();
    forge(&mut legs, &mut kind);
    assert_ne!((legs, &kind), (decided.0, &decided.1), "nothing was forged");
    let mut book = journal.book.clone();
    let entry = |legs, kind| Entry { seq: Seq(99), at: journal.now, account: ACCOUNT, previous: Seq(0), legs, kind };
    let broken = book.apply(&entry(legs, kind.clone()));
    assert!(broken.is_err(), "{legs:?} {kind:?}");
    assert_eq!(book, journal.book, "a broken entry changes nothing");
    book.apply(&entry(decided.0, decided.1.clone())).expect("the true one is taken");
}

fn legs_shifted(legs: &mut Legs, from: impl Fn(&mut Legs) -> &mut Nanos, to: impl Fn(&mut Legs) -> &mut Nanos) {
    from(legs).0 -= 1;
    to(legs).0 += 1;
}

fn decided_hold(journal: &Journal, amount: i64, tokens: u64) -> Decided {
    let (legs, parts) = journal.book.hold(&terms(amount, tokens), &unlimited(), journal.now).unwrap();
    (legs, Kind::Hold(Arc::new(Hold { parts, ..terms(amount, tokens) })))
}

fn hold_of(kind: &mut Kind) -> &mut Hold {
    match kind {
        Kind::Hold(terms) => Arc::make_mut(terms),
        other => panic!("{other:?}"),
    }
}

fn charge_of(kind: &mut Kind) -> &mut Charge {
    match kind {
        Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => charge,
        other => panic!("{other:?}"),
    }
}

fn change_of(kind: &mut Kind) -> &mut SubscriptionChange {
    match kind {
        Kind::Subscription(change) => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn i_01_an_entry_that_does_not_balance_is_named_as_such() {
    let (seq, at, account, previous) = (Seq(9), NEW_YEAR, ACCOUNT, Seq(8));
    let fund = Fund { origin: Origin::TopUp, by: by(), note: "".into(), reference: None };
    let check = |legs: Legs, sum: i64| {
        let entry = Entry { seq, at, account, previous, legs, kind: Kind::Fund(fund.clone()) };
        assert_eq!(Book::default().apply(&entry), Err(Broken::Unbalanced { seq, sum: Nanos(sum) }), "{legs:?}");
    };
    check(Legs { available: Nanos(5), funding: Nanos(-4), ..Legs::default() }, 1);
    check(Legs { available: Nanos(i64::MAX), spent: Nanos(1), ..Legs::default() }, i64::MAX);
    assert_eq!(Legs { available: Nanos(5), funding: Nanos(-4), ..Legs::default() }.sum(), Nanos(1));
}

/// Sums that were stored wrongly: entries that the rules give would take a pot out of its range.
#[test]
fn i_03_no_pot_leaves_its_range() {
    let check = |pots: Legs, change: &dyn Fn(&mut Book), legs: Legs, kind: Kind, pot: &str, value: i128| {
        let mut book = Book::restore(pots);
        change(&mut book);
        let before = book.clone();
        let (seq, at, previous) = (Seq(9), NEW_YEAR, Seq(8));
        let broken = book.apply(&Entry { seq, at, account: ACCOUNT, previous, legs, kind });
        let expected = match broken {
            Err(Broken::OutOfRange { pot, value, .. }) => (pot, value),
            other => panic!("{other:?}"),
        };
        assert_eq!(expected, (pot, value));
        assert_eq!(book, before, "a broken entry changes nothing");
    };
    let none = Legs::default();
    let open = |book: &mut Book| book.restore_hold(Seq(1), OpenHold { terms: terms(20, 1).into(), at: NEW_YEAR });
    let void = Kind::Void(Release { hold: Seq(1), key: KEY, ending: Ending::UpstreamError });
    let back = Legs { available: Nanos(20), held: Nanos(-20), ..none };
    check(none, &open, back, void.clone(), "held", -20);
    let all = Legs { available: Nanos(i64::MAX), held: Nanos(20), ..none };
    check(all, &open, back, void, "available", i128::from(i64::MAX) + 20);
    let left = Grant { id: Seq(1), left: Nanos(5), held: Nanos(0), expires_at: None };
    let ended = Kind::GrantEnd(GrantEnded { grant: Seq(1), by: Some(by()) });
    let taken = Legs { granted: Nanos(-5), promotion: Nanos(5), ..none };
    check(none, &|book| book.restore_grant(left), taken, ended.clone(), "granted", -5);
    let granted = Legs { granted: Nanos(5), ..none };
    check(granted, &|book| book.restore_grant(left), taken, ended, "promotion", 5);
}

#[test]
fn forged_holds() {
    let mut journal = Journal::with(100);
    let soon = journal.grant(10, Some(1_000)).unwrap();
    let late = journal.grant(10, None).unwrap();
    let hold = decided_hold(&journal, 15, 10);
    check(&journal, &hold, |legs, _| legs.available = Nanos(-1));
    check(&journal, &hold, |legs, _| legs_shifted(legs, |legs| &mut legs.available, |legs| &mut legs.granted));
    check(&journal, &hold, |_, kind| hold_of(kind).parts[0].source = Source::Grant(late));
    check(&journal, &hold, |_, kind| hold_of(kind).parts.swap(0, 1));
    check(&journal, &hold, |_, kind| drop(hold_of(kind).parts.pop()));
    check(&journal, &hold, |_, kind| hold_of(kind).amount = Nanos(14));
    check(&journal, &hold, |legs, kind| {
        (hold_of(kind).amount, hold_of(kind).parts) = (Nanos(-5), Parts::new());
        *legs = Legs { available: Nanos(5), held: Nanos(-5), ..Legs::default() };
    });
    let wallet = decided_hold(&journal, 20, 10);
    check(&journal, &wallet, |legs, kind| {
        hold_of(kind).parts.clear();
        *legs = Legs { available: Nanos(-20), held: Nanos(20), ..Legs::default() };
    });
    journal.fund(Origin::Dispute, -101).unwrap();
    let before = journal.book.clone();
    journal.fund(Origin::TopUp, 1).unwrap();
    let (legs, kind) = decided_hold(&journal, 0, 0);
    let (seq, account, previous) = (Seq(9), ACCOUNT, Seq(8));
    let broken = before.clone().apply(&Entry { seq, at: journal.now, account, previous, legs, kind });
    assert_eq!(broken, Err(Broken::WrongTerms { seq, what: "the account owes money" }));
    assert!(journal.book.grants().iter().any(|grant| grant.id == soon));
}

#[test]
fn forged_holds_of_an_allowance() {
    let mut journal = Journal::with(100);
    let windows = vec![window("week", Allowance::Money(Nanos(5)))];
    journal.start(&Arc::new(PlanTerms { windows, fallback: true, ..plan(10, 20) })).unwrap();
    let hold = decided_hold(&journal, 10, 1);
    let periods = |kind: &mut Kind, forge: &dyn Fn(&mut Periods)| match &mut hold_of(kind).parts[0].source {
        Source::Plan(periods) => forge(periods),
        other => panic!("{other:?}"),
    };
    check(&journal, &hold, |_, kind| periods(kind, &|periods| periods.truncate(1)));
    check(&journal, &hold, |_, kind| periods(kind, &|periods| periods[0].start.0 += 1));
    // Another week than that of the entry.
    check(&journal, &hold, |_, kind| periods(kind, &|periods| periods[1].end = NEW_YEAR));
    check(&journal, &hold, |_, kind| {
        hold_of(kind).parts[0].amount.0 += 1;
        hold_of(kind).parts[1].amount.0 -= 1;
    });
}

#[test]
fn t_15_a_week_by_older_time_zone_data_is_taken() {
    let mut journal = Journal::with(100);
    let windows = vec![window("week", Allowance::Money(Nanos(5)))];
    journal.start(&Arc::new(PlanTerms { windows, ..plan(10, 20) })).unwrap();
    let (legs, mut kind) = decided_hold(&journal, 5, 1);
    let Source::Plan(periods) = &mut hold_of(&mut kind).parts[0].source else { panic!() };
    periods[1].start.0 -= HOUR_MS;
    let hold = journal.post((legs, kind));
    journal.settle(hold, 4, 1).unwrap();
}

#[test]
fn forged_charges() {
    let mut journal = Journal::with(100);
    let grant = journal.grant(10, None).unwrap();
    let hold = journal.hold(20, &unlimited()).unwrap();
    let settled = journal.book.resolve(hold, settle(5, 1), false, journal.now).unwrap();
    check(&journal, &settled, |legs, _| legs.spent = Nanos(6));
    check(&journal, &settled, |legs, _| legs_shifted(legs, |legs| &mut legs.spent, |legs| &mut legs.available));
    check(&journal, &settled, |_, kind| charge_of(kind).parts.clear());
    check(&journal, &settled, |_, kind| charge_of(kind).parts[0].source = Source::Grant(Seq(grant.0 + 1)));
    check(&journal, &settled, |_, kind| charge_of(kind).hold = Seq(98));
    check(&journal, &settled, |_, kind| charge_of(kind).key = KeyId(8));
    check(&journal, &settled, |_, kind| charge_of(kind).price = PriceId(2));
    check(&journal, &settled, |_, kind| charge_of(kind).model = "dearer".into());
    check(&journal, &settled, |_, kind| charge_of(kind).multiplier = "2".parse().unwrap());
    check(&journal, &settled, |_, kind| charge_of(kind).again = true);
    check(&journal, &settled, |legs, kind| {
        (charge_of(kind).cost, charge_of(kind).parts) = (Nanos(-5), Parts::new());
        *legs =
            Legs { available: Nanos(15), granted: Nanos(10), held: Nanos(-20), spent: Nanos(-5), ..Legs::default() };
    });
    journal.settle(hold, 5, 1).unwrap();
    let mut book = journal.book.clone();
    let (seq, at, account, previous) = (Seq(9), journal.now, ACCOUNT, Seq(8));
    let twice = book.apply(&Entry { seq, at, account, previous, legs: settled.0, kind: settled.1 });
    assert_eq!(twice, Err(Broken::NotOpen { seq, hold }));
}

#[test]
fn forged_late_charges() {
    let mut journal = Journal::with(100);
    // Otherwise what was spent would be less than nothing, which is refused by itself.
    let charged = journal.hold(20, &unlimited()).unwrap();
    journal.settle(charged, 20, 1).unwrap();
    let hold = journal.hold(20, &unlimited()).unwrap();
    journal.resolve(hold, Resolution::Void { ending: Ending::LeaseLapsed }, true).unwrap();
    let mut late = journal.book.clone();
    let seq = journal.late_charge(hold, 5, 1).unwrap();
    let entry = journal.entries[seq.0 as usize - 1].clone();
    let wallet = Part { source: Source::Wallet, amount: Nanos(5), tokens: 0 };
    let forges: [&dyn Fn(&mut Charge); 4] = [
        &|charge| charge.key = KeyId(8),
        &|charge| charge.cost = Nanos(-5),
        &|charge| charge.parts = smallvec::smallvec![wallet.clone()],
        &|charge| charge.again = true,
    ];
    for forge in forges {
        let mut forged = entry.clone();
        forge(charge_of(&mut forged.kind));
        if charge_of(&mut forged.kind).cost < Nanos::ZERO {
            forged.legs = Legs { available: Nanos(5), spent: Nanos(-5), ..Legs::default() };
        }
        assert!(late.apply(&forged).is_err());
    }
    late.apply(&entry).unwrap();
    assert_eq!(late.apply(&entry), Err(Broken::NotOpen { seq, hold }));
}

#[test]
fn forged_funds_grants_and_resets() {
    let mut journal = Journal::with(100);
    let fund = Fund { origin: Origin::TopUp, by: by(), note: "".into(), reference: None };
    let funded = journal.book.fund_in(fund, Nanos(5)).unwrap();
    check(&journal, &funded, |legs, _| legs.available = Nanos(6));
    check(&journal, &funded, |legs, _| {
        *legs = Legs { available: Nanos(-101), funding: Nanos(101), ..Legs::default() };
    });
    check(&journal, &funded, |legs, _| {
        *legs = Legs { available: Nanos(5), fees: Nanos(-5), ..Legs::default() };
    });
    check(&journal, &funded, |legs, _| {
        *legs = Legs { available: Nanos(i64::MAX), funding: Nanos(i64::MIN), spent: Nanos(1), ..Legs::default() };
    });

    let given = GrantGiven { expires_at: Some(journal.now.plus_ms(9)), by: by(), note: "".into(), reference: None };
    let granted = journal.book.grant(given, Nanos(5), journal.now).unwrap();
    check(&journal, &granted, |legs, _| {
        *legs = Legs { granted: Nanos(-5), promotion: Nanos(5), ..Legs::default() };
    });
    check(&journal, &granted, |_, kind| {
        let Kind::Grant(grant) = kind else { panic!() };
        grant.expires_at = Some(journal.now);
    });
    let grant = journal.post(granted);
    let revoked = journal.book.revoke_grant(grant, by()).unwrap();
    check(&journal, &revoked, |_, kind| *kind = Kind::GrantEnd(GrantEnded { grant, by: None }));
    check(&journal, &revoked, |_, kind| *kind = Kind::GrantEnd(GrantEnded { grant: Seq(98), by: Some(by()) }));
    check(&journal, &revoked, |legs, _| *legs = Legs { granted: Nanos(-4), promotion: Nanos(4), ..Legs::default() });

    let hold = journal.hold(20, &unlimited()).unwrap();
    journal.settle(hold, 5, 1).unwrap();
    let reset = journal.book.reset(ResetOf::Key(KEY), by(), "".into()).unwrap();
    check(&journal, &reset, |_, kind| {
        let Kind::Reset(reset) = kind else { panic!() };
        reset.forgiven.money.0 += 1;
    });
    check(&journal, &reset, |_, kind| {
        let Kind::Reset(reset) = kind else { panic!() };
        reset.what = ResetOf::Key(KeyId(8));
    });
}

#[test]
fn forged_extensions() {
    let mut journal = Journal::with(100);
    let hold = journal.hold(20, &unlimited()).unwrap();
    let extended = journal.book.extend(hold, Nanos(10), 5, &unlimited(), journal.now).unwrap();
    let extension = |kind: &mut Kind, forge: &dyn Fn(&mut Extension)| match kind {
        Kind::Extend(extension) => forge(extension),
        other => panic!("{other:?}"),
    };
    check(&journal, &extended, |legs, _| legs_shifted(legs, |legs| &mut legs.available, |legs| &mut legs.held));
    check(&journal, &extended, |_, kind| extension(kind, &|extension| extension.hold = Seq(98)));
    check(&journal, &extended, |_, kind| extension(kind, &|extension| extension.key = KeyId(8)));
    check(&journal, &extended, |legs, kind| {
        extension(kind, &|extension| extension.amount = Nanos(-10));
        *legs = Legs { available: Nanos(10), held: Nanos(-10), ..Legs::default() };
    });
    check(&journal, &extended, |_, kind| extension(kind, &|extension| extension.tokens = u64::MAX));
}

#[test]
fn i_18_no_forged_step_of_a_subscription_gives_credit() {
    let mut journal = Journal::with(1_000);
    let start =
        Subscription::start(Arc::new(plan(100, 1_000)), Zone::default(), None, by(), None, journal.now).unwrap();
    let started = journal.book.subscribe(start, journal.now).unwrap();
    check(&journal, &started, |legs, kind| {
        change_of(kind).fee = Nanos(99);
        *legs = Legs { available: Nanos(-99), fees: Nanos(99), ..Legs::default() };
    });
    check(&journal, &started, |_, kind| {
        change_of(kind).state.as_mut().unwrap().allowance = Allowance::Money(Nanos(1_001));
    });
    check(&journal, &started, |_, kind| change_of(kind).state.as_mut().unwrap().paid = Nanos(101));
    check(&journal, &started, |_, kind| change_of(kind).state.as_mut().unwrap().cycle.end = NEW_YEAR);
    check(&journal, &started, |_, kind| change_of(kind).state.as_mut().unwrap().since.0 -= 1);
    check(&journal, &started, |_, kind| change_of(kind).step = SubscriptionStep::Renewed);
    check(&journal, &started, |_, kind| {
        Arc::make_mut(&mut change_of(kind).state.as_mut().unwrap().terms).price = Nanos(-1);
    });
    journal.post(started);
    journal.pass(HOUR_MS);

    let now = journal.book.subscription().unwrap().clone();
    let ended = journal.book.subscribe(now.end(Tally::default(), by(), journal.now).unwrap(), journal.now).unwrap();
    check(&journal, &ended, |legs, kind| {
        change_of(kind).credit.0 += 1;
        legs_shifted(legs, |legs| &mut legs.fees, |legs| &mut legs.available);
    });
    check(&journal, &ended, |legs, kind| {
        (change_of(kind).fee, change_of(kind).credit) = (Nanos(i64::MAX), Nanos(-1));
        *legs = Legs::default();
    });
    let cancelled = journal.book.subscribe(now.cancel(by()).unwrap(), journal.now).unwrap();
    check(&journal, &cancelled, |_, kind| change_of(kind).state.as_mut().unwrap().cycle.end.0 += HOUR_MS);
    check(&journal, &cancelled, |_, kind| change_of(kind).state.as_mut().unwrap().fallback = true);
    check(&journal, &cancelled, |_, kind| change_of(kind).step = SubscriptionStep::Started);
    check(&journal, &cancelled, |_, kind| change_of(kind).step = SubscriptionStep::Ended);
    check(&journal, &cancelled, |_, kind| change_of(kind).state = None);

    // A cycle that is not over is not renewed; one that is over allows nothing else.
    let renewed = now.due(Nanos(1_000), None, now.cycle.end).unwrap();
    assert!(journal.book.subscribe(renewed, journal.now).is_err());
    let late = now.end(Tally::default(), by(), now.cycle.end).unwrap();
    assert!(journal.book.subscribe(late, now.cycle.end).is_err());
}

#[test]
fn t_15_a_change_of_plan_keeps_an_older_end_only_where_it_opens_a_cycle() {
    let changed_to = |journal: &Journal, cycle: Cycle| {
        let to = Arc::new(PlanTerms { cycle, ..plan(200, 2_000) });
        let change = journal.book.subscription().unwrap().change(to, Tally::default(), by(), journal.now).unwrap();
        journal.book.subscribe(change, journal.now).unwrap()
    };
    let later_end = |kind: &mut Kind| change_of(kind).state.as_mut().unwrap().cycle.end.0 += HOUR_MS;
    let mut journal = Journal::with(1_000);
    journal.start(&Arc::new(plan(100, 1_000))).unwrap();
    journal.pass(HOUR_MS);
    check(&journal, &changed_to(&journal, Cycle::Month), |_, kind| later_end(kind));
    let (legs, mut kind) = changed_to(&journal, Cycle::Week);
    later_end(&mut kind);
    journal.post((legs, kind));
}

#[test]
fn t_15_a_cycle_by_older_time_zone_data_is_taken() {
    let mut journal = Journal::with(1_000);
    let start =
        Subscription::start(Arc::new(plan(100, 1_000)), Zone::default(), None, by(), None, journal.now).unwrap();
    let (legs, mut kind) = journal.book.subscribe(start, journal.now).unwrap();
    change_of(&mut kind).state.as_mut().unwrap().cycle.end.0 += HOUR_MS;
    journal.post((legs, kind));
    journal.now = journal.book.subscription().unwrap().cycle.end;
    let (legs, mut kind) = journal.book.due(journal.now).unwrap();
    change_of(&mut kind).state.as_mut().unwrap().cycle.end.0 += HOUR_MS;
    journal.post((legs, kind));
}
