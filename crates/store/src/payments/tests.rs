//! Payments over a real SQLite: what events do to orders, accounts and the outbox.

use super::*;
use crate::accounts::{self, AccountStatus};
use crate::sql::Connection;
use crate::testing;
use domain::payment::{
    AutoTopUp, Currency, Decline, DisputeState, ExchangeRate, OrderReport, OrderState, Provider, Quote, RefundState,
    Reversed,
};
use domain::{AccountId, Nanos, Timestamp};
use proptest::prelude::*;

const RULES: Rules = Rules { suspend_on_dispute: true };
const NOW: Timestamp = Timestamp(1_000_000);

/// Runs a test on each kind of database, in a transaction of its own.
fn on_each(test: impl Fn(&Connection) + Clone + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for scratch in testing::databases() {
        let test = test.clone();
        let tested = scratch.database.write(move |transaction| {
            test(transaction);
            Ok(())
        });
        runtime.block_on(tested).unwrap();
    }
}

/// A fresh database in memory, for many cases.
fn memory() -> Connection {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    for migration in &crate::database::MIGRATIONS {
        connection.execute_batch(migration.sqlite).unwrap();
    }
    Connection::sqlite_writer(connection)
}

/// An account with an order of 10 USD.
fn ordered(connection: &Connection, name: &str, purpose: Purpose) -> Order {
    let account = accounts::create(connection, name, NOW).unwrap().id;
    order_of(connection, account, purpose, "usd", 1000)
}

fn order_of(connection: &Connection, account: AccountId, purpose: Purpose, currency: &str, amount: i64) -> Order {
    let quote = Quote::new(amount, currency.parse().unwrap(), ExchangeRate::USD).unwrap();
    create(
        connection,
        &NewOrder { account, provider: Provider::Stripe, livemode: false, purpose, quote, method: None },
        NOW,
    )
    .unwrap()
}

fn deed(order: &Order, report: OrderReport) -> OrderDeed {
    OrderDeed {
        order: order.id.clone(),
        report,
        amount: order.quote.amount,
        currency: order.quote.currency,
        session: None,
        payment: Some(format!("pi_{}", &order.id.as_str()[4..12])),
        customer: None,
        method: None,
        failure: None,
        hard: false,
    }
}

fn payment_of(order: &Order) -> String {
    deed(order, OrderReport::Paid).payment.unwrap()
}

fn refund(order: &Order, id: &str, amount: i64, state: RefundState) -> Deed {
    Deed::Refund(RefundReport {
        id: id.to_owned(),
        payment: payment_of(order),
        amount,
        currency: order.quote.currency,
        state,
    })
}

fn dispute(order: &Order, id: &str, amount: i64, state: DisputeState) -> Deed {
    Deed::Dispute(DisputeReport {
        id: id.to_owned(),
        payment: payment_of(order),
        amount,
        currency: order.quote.currency,
        state,
        reason: "fraudulent".to_owned(),
    })
}

fn event(id: &str, deed: Deed) -> Event {
    Event {
        provider: Provider::Stripe,
        id: id.to_owned(),
        kind: "a.kind".to_owned(),
        livemode: false,
        created: NOW,
        deed: Some(deed),
    }
}

fn told(connection: &Connection, id: &str, deed: Deed) -> Outcome {
    apply(connection, &event(id, deed), RULES, NOW).unwrap().outcome
}

fn refused(outcome: &Outcome, part: &str) {
    assert!(matches!(outcome, Outcome::Refused(why) if why.contains(part)), "{outcome:?}");
}

/// The outbox: reference and amount.
fn outbox(connection: &Connection) -> Vec<(String, String, i64)> {
    let mut statement = connection.prepare("select reference, kind, amount from credits order by reference").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        found.push((row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap()));
    }
    found
}

fn sum(connection: &Connection) -> i64 {
    outbox(connection).iter().map(|(_, _, amount)| amount).sum()
}

fn state(connection: &Connection, of: &Order) -> OrderState {
    order(connection, &of.id).unwrap().unwrap().state
}

fn status(connection: &Connection, of: &Order) -> AccountStatus {
    accounts::by_id(connection, of.account).unwrap().unwrap().status
}

#[test]
fn s_28_order_ids_cannot_be_guessed_and_only_ids_are_read() {
    on_each(|connection| {
        let (one, other) = (ordered(connection, "a", Purpose::Checkout), ordered(connection, "b", Purpose::Checkout));
        assert_ne!(one.id, other.id);
        assert_eq!(OrderId::parse(one.id.as_str()), Some(one.id.clone()));
        let upper = one.id.as_str().to_uppercase();
        for text in ["", "ord_", "ord_1", "1", upper.as_str(), &format!("{}0", one.id), &one.id.as_str()[4..]] {
            assert_eq!(OrderId::parse(text), None, "{text}");
        }
    });
}

#[test]
fn a_payment_is_credited_once_whoever_reports_it_how_often() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        let paid = || Deed::Order(deed(&order, OrderReport::Paid));
        assert_eq!(told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Processing))), Outcome::Applied);
        assert_eq!(outbox(connection), []);
        assert_eq!(told(connection, "evt_2", paid()), Outcome::Applied);
        assert_eq!(told(connection, "evt_2", paid()), Outcome::Replayed);
        assert_eq!(told(connection, "evt_3", paid()), Outcome::Ignored);
        let answer = apply_answer(connection, Provider::Stripe, false, &paid(), RULES, NOW).unwrap();
        assert_eq!((answer.outcome, answer.credits.len()), (Outcome::Ignored, 0));
        let reference = format!("stripe:{}", order.id);
        assert_eq!(outbox(connection), [(reference, "card".to_owned(), 10_000_000_000)]);
    });
}

#[test]
fn m_38_money_that_comes_after_the_order_expired_is_credited() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        assert_eq!(told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Expired))), Outcome::Applied);
        assert_eq!(state(connection, &order), OrderState::Expired);
        assert_eq!(told(connection, "evt_2", Deed::Order(deed(&order, OrderReport::Paid))), Outcome::Applied);
        assert_eq!(told(connection, "evt_3", Deed::Order(deed(&order, OrderReport::Cancelled))), Outcome::Ignored);
        assert_eq!((state(connection, &order), sum(connection)), (OrderState::Paid, 10_000_000_000));
    });
}

#[test]
fn s_28_what_does_not_fit_the_order_credits_nothing() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        attach(connection, &order.id, Some("cs_1"), None).unwrap();
        let other = ordered(connection, "b", Purpose::Checkout);
        remember_customer(connection, Provider::Stripe, other.account, false, "cus_b", NOW).unwrap();
        let paid = || deed(&order, OrderReport::Paid);
        let euro: Currency = "eur".parse().unwrap();
        let check = |name: &str, deed: OrderDeed, part: &str| {
            refused(&told(connection, name, Deed::Order(deed)), part);
            assert_eq!(outbox(connection), [], "{name}");
        };
        check("amount", OrderDeed { amount: 999, ..paid() }, "over 1000");
        check("more", OrderDeed { amount: 1001, ..paid() }, "1001");
        check("currency", OrderDeed { currency: euro, ..paid() }, "EUR");
        check("session", OrderDeed { session: Some("cs_2".to_owned()), ..paid() }, "session");
        check("customer", OrderDeed { customer: Some("cus_b".to_owned()), ..paid() }, "another account");
        let guessed = OrderId::parse(&format!("ord_{}", "0".repeat(32))).unwrap();
        let stray = told(connection, "guessed", Deed::Order(OrderDeed { order: guessed.clone(), ..paid() }));
        assert_eq!((stray, outbox(connection)), (Outcome::Unknown(guessed), Vec::new()));
        let live = Event { livemode: true, ..event("live", Deed::Order(paid())) };
        refused(&apply(connection, &live, RULES, NOW).unwrap().outcome, "mode");
        assert_eq!((state(connection, &order), sum(connection)), (OrderState::Pending, 0));

        // The true report still counts.
        let right = OrderDeed { session: Some("cs_1".to_owned()), ..paid() };
        assert_eq!(told(connection, "evt_1", Deed::Order(right)), Outcome::Applied);
        assert_eq!(sum(connection), 10_000_000_000);
    });
}

#[test]
fn i_12_one_payment_pays_one_order_and_an_order_has_one_payment() {
    on_each(|connection| {
        let (one, other) = (ordered(connection, "a", Purpose::Checkout), ordered(connection, "b", Purpose::Checkout));
        assert_eq!(told(connection, "evt_1", Deed::Order(deed(&one, OrderReport::Paid))), Outcome::Applied);
        let twice = OrderDeed { payment: Some(payment_of(&one)), ..deed(&other, OrderReport::Paid) };
        refused(&told(connection, "evt_2", Deed::Order(twice)), "pays another order");
        let second = OrderDeed { payment: Some("pi_second".to_owned()), ..deed(&one, OrderReport::Paid) };
        refused(&told(connection, "evt_3", Deed::Order(second)), "another payment");
        assert_eq!(sum(connection), 10_000_000_000);
    });
}

#[test]
fn m_37_refunds_partial_full_twice_and_more_than_paid() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid)));
        assert_eq!(told(connection, "evt_2", refund(&order, "re_1", 333, RefundState::Pending)), Outcome::Applied);
        assert_eq!(told(connection, "evt_3", refund(&order, "re_1", 333, RefundState::Succeeded)), Outcome::Applied);
        assert_eq!(sum(connection), 6_670_000_000);
        refused(&told(connection, "evt_4", refund(&order, "re_2", 668, RefundState::Succeeded)), "exceed");
        assert_eq!(told(connection, "evt_5", refund(&order, "re_3", 667, RefundState::Succeeded)), Outcome::Applied);
        assert_eq!(sum(connection), 0);
        refused(&told(connection, "evt_6", refund(&order, "re_4", 1, RefundState::Succeeded)), "exceed");
        // One comes back: it can be refunded again.
        assert_eq!(told(connection, "evt_7", refund(&order, "re_1", 333, RefundState::Failed)), Outcome::Applied);
        assert_eq!(told(connection, "evt_8", refund(&order, "re_1", 333, RefundState::Failed)), Outcome::Ignored);
        assert_eq!(sum(connection), 3_330_000_000);
        assert_eq!(told(connection, "evt_9", refund(&order, "re_5", 333, RefundState::Succeeded)), Outcome::Applied);
        assert_eq!(sum(connection), 0);
        assert_eq!(refunds(connection, &order.id).unwrap().len(), 3);
    });
}

#[test]
fn m_38_a_dispute_freezes_the_account_and_winning_restores_it() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid)));
        told(connection, "evt_2", dispute(&order, "dp_1", 1000, DisputeState::Inquiry));
        assert_eq!((sum(connection), status(connection, &order)), (10_000_000_000, AccountStatus::Active));
        let opened =
            apply(connection, &event("evt_3", dispute(&order, "dp_1", 1000, DisputeState::Opened)), RULES, NOW);
        let opened = opened.unwrap();
        assert!(opened.credits.len() == 1 && opened.accounts_changed == [order.account]);
        assert_eq!((sum(connection), status(connection, &order)), (0, AccountStatus::Suspended));
        let won =
            apply(connection, &event("evt_4", dispute(&order, "dp_1", 1000, DisputeState::Won)), RULES, NOW).unwrap();
        assert!(won.credits.len() == 1 && won.accounts_changed == [order.account]);
        assert_eq!((sum(connection), status(connection, &order)), (10_000_000_000, AccountStatus::Active));
        assert_eq!(told(connection, "evt_5", dispute(&order, "dp_1", 1000, DisputeState::Lost)), Outcome::Ignored);
        assert_eq!(sum(connection), 10_000_000_000);
    });
}

#[test]
fn m_38_a_lost_dispute_keeps_the_money_and_the_suspension() {
    on_each(|connection| {
        let one = ordered(connection, "a", Purpose::Checkout);
        let other = order_of(connection, one.account, Purpose::Checkout, "usd", 500);
        told(connection, "evt_1", Deed::Order(deed(&one, OrderReport::Paid)));
        told(connection, "evt_2", Deed::Order(deed(&other, OrderReport::Paid)));
        told(connection, "evt_3", dispute(&one, "dp_1", 1000, DisputeState::Opened));
        told(connection, "evt_4", dispute(&other, "dp_2", 500, DisputeState::Opened));
        assert_eq!(sum(connection), 0);
        // Winning the first leaves the suspension to the second, losing that one leaves it to the operator.
        told(connection, "evt_5", dispute(&one, "dp_1", 1000, DisputeState::Won));
        assert_eq!(status(connection, &one), AccountStatus::Suspended);
        told(connection, "evt_6", dispute(&other, "dp_2", 500, DisputeState::Lost));
        assert_eq!((sum(connection), status(connection, &one)), (10_000_000_000, AccountStatus::Suspended));
        assert!(disputes(connection, &other.id).unwrap()[0].suspended);
    });
}

#[test]
fn an_operators_suspension_is_not_lifted_by_winning() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid)));
        let change = accounts::AccountChange { status: Some(AccountStatus::Suspended), ..Default::default() };
        accounts::change(connection, order.account, &change).unwrap();
        told(connection, "evt_2", dispute(&order, "dp_1", 1000, DisputeState::Opened));
        told(connection, "evt_3", dispute(&order, "dp_1", 1000, DisputeState::Won));
        assert_eq!(status(connection, &order), AccountStatus::Suspended);
    });
}

#[test]
fn m_37_a_dispute_over_a_refunded_payment_takes_only_what_is_left() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid)));
        told(connection, "evt_2", refund(&order, "re_1", 600, RefundState::Succeeded));
        told(connection, "evt_3", dispute(&order, "dp_1", 1000, DisputeState::Opened));
        assert_eq!(sum(connection), 0);
        let all = Reversed { amount: 1000, taken: Nanos(10_000_000_000) };
        assert_eq!(reversed(connection, &order.id).unwrap(), all);
        told(connection, "evt_4", dispute(&order, "dp_1", 1000, DisputeState::Won));
        assert_eq!(sum(connection), 4_000_000_000);
    });
}

#[test]
fn m_39_a_refund_before_its_payment_waits_for_it() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        assert_eq!(told(connection, "evt_2", refund(&order, "re_1", 400, RefundState::Succeeded)), Outcome::Parked);
        assert_eq!(told(connection, "evt_2", refund(&order, "re_1", 400, RefundState::Succeeded)), Outcome::Parked);
        assert_eq!(outbox(connection), []);
        assert_eq!(told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid))), Outcome::Applied);
        assert_eq!(sum(connection), 6_000_000_000);
        assert_eq!(told(connection, "evt_2", refund(&order, "re_1", 400, RefundState::Succeeded)), Outcome::Replayed);
        assert_eq!(sum(connection), 6_000_000_000);
    });
}

#[test]
fn m_39_what_two_nodes_parked_past_each_other_is_found_later() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        told(connection, "evt_2", dispute(&order, "dp_1", 1000, DisputeState::Opened));
        // As if another node had taken the payment without seeing what waits for it.
        connection.execute("update payment_orders set state = 'paid', payment = ?1", [payment_of(&order)]).unwrap();
        let retried = retry_parked(connection, Provider::Stripe, RULES, 10, NOW).unwrap();
        assert!(retried.credits.len() == 1 && retried.accounts_changed == [order.account]);
        assert_eq!(sum(connection), -10_000_000_000);
        assert_eq!(retry_parked(connection, Provider::Stripe, RULES, 10, NOW).unwrap().outcome, Outcome::Ignored);
    });
}

#[test]
fn cards_are_saved_for_the_customer_and_never_change_hands() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        let other = ordered(connection, "b", Purpose::Checkout);
        for (order, customer) in [(&order, "cus_a"), (&other, "cus_b")] {
            remember_customer(connection, Provider::Stripe, order.account, false, customer, NOW).unwrap();
        }
        let first = remember_customer(connection, Provider::Stripe, order.account, false, "cus_x", NOW).unwrap();
        assert_eq!(first, "cus_a");
        let paid = OrderDeed {
            customer: Some("cus_a".to_owned()),
            method: Some("pm_1".to_owned()),
            ..deed(&order, OrderReport::Paid)
        };
        told(connection, "evt_1", Deed::Order(paid));
        let card = Card { brand: "visa".to_owned(), last4: "4242".to_owned(), exp_month: 8, exp_year: 2030 };
        for (id, customer) in [("evt_2", "cus_a"), ("evt_3", "cus_b")] {
            let report =
                CardReport { customer: customer.to_owned(), method: "pm_1".to_owned(), card: Some(card.clone()) };
            told(connection, id, Deed::Card(report));
        }
        let saved = newest_method(connection, Provider::Stripe, order.account, false).unwrap().unwrap();
        assert_eq!((saved.id.as_str(), saved.card), ("pm_1", Some(card)));
        assert_eq!(methods(connection, Provider::Stripe, other.account, false).unwrap(), []);
        assert_eq!(
            methods(connection, Provider::Stripe, order.account, true).unwrap(),
            [],
            "test cards are not live ones"
        );
        let stranger = CardReport { customer: "cus_z".to_owned(), method: "pm_9".to_owned(), card: None };
        assert_eq!(told(connection, "evt_4", Deed::Card(stranger)), Outcome::Ignored);
        told(connection, "evt_5", Deed::CardGone { method: "pm_1".to_owned() });
        assert_eq!(newest_method(connection, Provider::Stripe, order.account, false).unwrap(), None);
    });
}

#[test]
fn automatic_charges_are_counted_and_their_failures_kept() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Auto);
        let settings = AutoTopUp {
            enabled: true,
            threshold: Nanos(1),
            amount: 1000,
            currency: Currency::USD,
            monthly_max: 3,
            failures: 0,
            reason: None,
            retry_at: None,
        };
        set_auto_top_up(connection, order.account, &settings, NOW).unwrap();
        let low = || low_accounts(connection, AccountId(0), 10, NOW).unwrap();
        assert_eq!(low(), [], "a charge is under way");
        assert_eq!(charges_since(connection, order.account, NOW).unwrap(), (1, true));
        let failed = OrderDeed {
            failure: Some("authentication_required".to_owned()),
            hard: true,
            ..deed(&order, OrderReport::Failed)
        };
        told(connection, "evt_1", Deed::Order(failed.clone()));
        told(connection, "evt_2", Deed::Order(failed));
        let now = auto_top_up(connection, order.account).unwrap().unwrap();
        assert_eq!(now, settings.after_failure(Decline::Hard, "authentication_required", NOW));
        assert!(!now.enabled && now.failures == 1);
        assert_eq!(charges_since(connection, order.account, NOW).unwrap(), (0, false));
        assert_eq!(low(), []);
        set_auto_top_up(connection, order.account, &settings, NOW).unwrap();
        assert_eq!(low(), [(order.account, settings)]);
        // Charges of an earlier month do not count, unless they are still under way.
        let second = order_of(connection, order.account, Purpose::Auto, "usd", 1000);
        assert_eq!(charges_since(connection, order.account, NOW.plus_ms(1)).unwrap(), (0, true));
        told(connection, "evt_3", Deed::Order(deed(&second, OrderReport::Paid)));
        assert_eq!(charges_since(connection, order.account, NOW).unwrap(), (1, false));
    });
}

#[test]
fn orders_are_listed_a_page_at_a_time() {
    on_each(|connection| {
        let first = ordered(connection, "a", Purpose::Checkout);
        let mut mine = vec![first.id.clone()];
        mine.extend((0..4).map(|_| order_of(connection, first.account, Purpose::Checkout, "usd", 1000).id));
        let other = ordered(connection, "b", Purpose::Auto);
        // All of one instant: the ids alone tell them apart.
        mine.sort_by(|one, other| other.as_str().cmp(one.as_str()));
        let of = Which { account: Some(first.account), state: None };
        let (mut found, mut after) = (Vec::new(), None);
        while let [.., last] = list(connection, of, after.as_ref(), 2).unwrap().as_slice() {
            found.extend(list(connection, of, after.as_ref(), 2).unwrap().into_iter().map(|order| order.id));
            after = Some(last.id.clone());
        }
        assert_eq!(found, mine);
        let mut open: Vec<OrderId> = Vec::new();
        while let [one] = open_before(connection, NOW.plus_ms(1), open.last(), 1).unwrap().as_slice() {
            open.push(one.id.clone());
        }
        assert_eq!(open.len(), 6);
        assert_eq!(open_before(connection, NOW, None, 10).unwrap(), []);
        assert_eq!(open_checkouts(connection, first.account).unwrap(), 5);
        assert_eq!(unanswered_charges(connection, 10).unwrap()[0].id, other.id);
        told(connection, "evt_1", Deed::Order(deed(&first, OrderReport::Paid)));
        let ids = |which| list(connection, which, None, 10).unwrap().into_iter().map(|order| order.id);
        assert_eq!(ids(Which { state: Some(OrderState::Paid), account: None }).collect::<Vec<_>>(), [first.id]);
        assert_eq!(ids(Which::default()).count(), 6);
    });
}

#[test]
fn events_are_forgotten_and_their_effects_are_not_repeated() {
    on_each(|connection| {
        let order = ordered(connection, "a", Purpose::Checkout);
        told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid)));
        told(connection, "evt_2", refund(&order, "re_1", 400, RefundState::Succeeded));
        assert_eq!(forget_events(connection, NOW).unwrap(), 0);
        assert_eq!(forget_events(connection, NOW.plus_ms(1)).unwrap(), 2);
        told(connection, "evt_1", Deed::Order(deed(&order, OrderReport::Paid)));
        told(connection, "evt_2", refund(&order, "re_1", 400, RefundState::Succeeded));
        assert_eq!(sum(connection), 6_000_000_000);
    });
}

#[test]
fn events_that_mean_nothing_to_us_are_remembered_and_ignored() {
    on_each(|connection| {
        let unknown =
            Event { deed: None, kind: "x".repeat(1000), ..event("evt_1", Deed::CardGone { method: "x".into() }) };
        assert_eq!(apply(connection, &unknown, RULES, NOW).unwrap().outcome, Outcome::Ignored);
        assert_eq!(apply(connection, &unknown, RULES, NOW).unwrap().outcome, Outcome::Replayed);
        assert!(apply(connection, &Event { id: String::new(), ..unknown }, RULES, NOW).is_err());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A whole story, told in any order, with any repetition, ends as it does when told once and in order.
    #[test]
    fn m_39_events_in_any_order_and_number_have_one_effect(
        order in Just((0_usize..9).collect::<Vec<_>>()).prop_shuffle(),
        repeats in proptest::collection::vec(0_usize..9, 0..12), lost in any::<bool>(), fails in any::<bool>(),
    ) {
        let connection = memory();
        let of = ordered(&connection, "a", Purpose::Checkout);
        let closed = if lost { DisputeState::Lost } else { DisputeState::Won };
        let late = if fails { RefundState::Failed } else { RefundState::Succeeded };
        let story = [
            Deed::Order(deed(&of, OrderReport::Processing)),
            Deed::Order(deed(&of, OrderReport::Paid)),
            Deed::Order(deed(&of, OrderReport::Expired)),
            refund(&of, "re_1", 250, RefundState::Pending),
            refund(&of, "re_1", 250, late),
            refund(&of, "re_2", 250, RefundState::Succeeded),
            dispute(&of, "dp_1", 500, DisputeState::Inquiry),
            dispute(&of, "dp_1", 500, DisputeState::Opened),
            dispute(&of, "dp_1", 500, closed),
        ];
        let mut told_twice: Vec<usize> = order;
        told_twice.extend(repeats);
        for index in told_twice {
            told(&connection, &format!("evt_{index}"), story[index].clone());
            let held = reversed(&connection, &of.id).unwrap();
            prop_assert!(held.amount <= 1000 && held.taken.0 <= 10_000_000_000);
            let balance = sum(&connection);
            prop_assert!((0..=10_000_000_000).contains(&balance));
        }
        let refunded = if fails { 250 } else { 500 };
        let disputed = if lost { 500 } else { 0 };
        prop_assert_eq!(sum(&connection), (1000 - refunded - disputed) * 10_000_000);
        let suspended = status(&connection, &of) == AccountStatus::Suspended;
        prop_assert_eq!(suspended, lost);
    }
}
