//! What is held for a request where there is much, little and nothing.

use super::*;
use crate::catalog::{Catalog, RouteDeclared};
use crate::fixture;
use crate::growth::Grown;
use crate::simulator::{Behaviour, Simulator};
use crate::upstream::Upstream;
use domain::calendar::Cycle;
use domain::ledger::{Book, Decided, Ending, Fund, GrantGiven, Origin, Resolution, Subscription};
use domain::plan::{Allowance, PlanTerms, WindowTerms};
use domain::{AccountId, KeyId, PlanId, PriceId, Zone};
use proptest::prelude::*;
use protocol::openai::{Endpoint, Request};
use std::collections::VecDeque;
use store::ledger::Resolved;
use store::prices::{PriceBook, PriceSource, PriceVersion};

/// One nano-USD for a prompt token, ten for an answer token.
const PRICE: &str = r#"{"input_per_million":"0.001","output_per_million":"0.01","max_output_tokens":4000}"#;
const PROMPT: &str = r#""messages":[{"role":"user","content":"Tell me a story."}]"#;

struct Desk {
    caller: Caller,
    catalog: Catalog,
    learned: Learned,
    tokenizers: Tokenizers,
    limits: Limits,
}

impl Desk {
    fn new(model: &str) -> Self {
        Self::priced(model, PRICE)
    }

    fn priced(model: &str, price: &str) -> Self {
        let upstream = Simulator::new(Behaviour::default()).unwrap();
        let upstream = Arc::new(Upstream::local("simulator", "simulator", Arc::new(upstream)));
        let version = PriceVersion {
            id: PriceId(1),
            provider: None,
            model: model.to_owned(),
            source: PriceSource::Operator,
            mode: None,
            sheet: serde_json::from_str(price).unwrap(),
            retired: false,
            created_at: Timestamp(0),
        };
        let route = RouteDeclared {
            model: model.to_owned(),
            alias_of: None,
            upstream_model: None,
            upstreams: vec!["simulator".into()],
            wait_seconds: None,
        };
        let book = PriceBook::from_versions(vec![version]).unwrap();
        Self {
            caller: fixture::caller(),
            catalog: Catalog::build(&[upstream], &[route], &book).unwrap(),
            learned: Learned::default(),
            tokenizers: Tokenizers::assumed(),
            limits: Limits::default(),
        }
    }

    /// The terms of a chat request with those fields, where so many nano-USD and tokens are there.
    async fn terms(&self, model: &str, fields: &str, money: i64, tokens: Option<u64>) -> Terms {
        self.terms_within(model, fields, funds(money, tokens)).await
    }

    async fn terms_within(&self, model: &str, fields: &str, funds: Funds) -> Terms {
        let body = Bytes::from(format!(r#"{{"model":"{model}",{PROMPT}{fields}}}"#));
        let request = Request::read(Endpoint::Chat, &body).unwrap();
        let asking = self.asking(&request, &body);
        let terms = asking.terms(funds, &mut asking.prompt()).await.unwrap();
        let price = &asking.priced.price;
        assert_eq!(terms.amount, price.bound(&terms.bound).unwrap());
        terms
    }

    /// A chat request with those fields, admitted.
    async fn admit(&self, ledger: &Ledger, model: &str, fields: &str) -> Result<Admitted, Failure> {
        self.admit_at(ledger, model, fields, Timestamp(0)).await
    }

    async fn admit_at(&self, ledger: &Ledger, model: &str, fields: &str, now: Timestamp) -> Result<Admitted, Failure> {
        let body = Bytes::from(format!(r#"{{"model":"{model}",{PROMPT}{fields}}}"#));
        let request = Request::read(Endpoint::Chat, &body).unwrap();
        admit(ledger, &self.asking(&request, &body), &"r".into(), now, now.plus_ms(1)).await
    }

    fn asking<'a>(&'a self, request: &'a Request<'a>, body: &'a Bytes) -> Asking<'a> {
        let route = self.catalog.route(&request.model).unwrap();
        Asking {
            caller: &self.caller,
            request,
            body,
            route,
            priced: route.priced.as_ref().unwrap(),
            learned: &self.learned,
            tokenizers: &self.tokenizers,
            limits: &self.limits,
            output_limit: None,
        }
    }
}

/// Another request is open.
fn funds(money: i64, tokens: Option<u64>) -> Funds {
    let by = (Binding::Funds, Binding::KeyQuota);
    Funds {
        money: Nanos(money),
        tokens,
        by,
        held: (Nanos(1), 1),
        is_quiet: false,
        multiplier: Multiplier::ONE,
        plan_alone: false,
    }
}

fn output(terms: &Terms) -> u64 {
    terms.bound.output_tokens
}

#[tokio::test]
async fn where_funds_are_ample_the_greatest_is_held_and_nothing_changes() {
    let desk = Desk::new("gpt-4o");
    for stream in ["", r#","stream":true"#] {
        let terms = desk.terms("gpt-4o", stream, 1_000_000, None).await;
        assert_eq!((output(&terms), terms.cap_to_set, terms.extends_to), (4000, None, None));
        let fields = format!(r#"{stream},"max_tokens":900,"n":2"#);
        let terms = desk.terms("gpt-4o", &fields, 320_000, None).await;
        assert_eq!((output(&terms), terms.cap_to_set, terms.extends_to), (1800, None, None));
    }
    let terms = desk.terms("gpt-4o", r#","max_tokens":5000"#, 1_000_000, None).await;
    assert_eq!(
        (output(&terms), terms.cap_to_set),
        (4000, Some(4000)),
        "M-10: what is held is the most that is asked for"
    );
    let terms = desk.terms("gpt-4o", r#","max_tokens":4000"#, 1_000_000, None).await;
    assert_eq!((output(&terms), terms.cap_to_set), (4000, None));
}

#[tokio::test]
async fn where_funds_are_short_a_whole_answer_is_capped_to_what_is_held() {
    let desk = Desk::new("gpt-4o");
    // A sixteenth of the funds is worth 500 tokens of output.
    let terms = desk.terms("gpt-4o", "", 80_000, None).await;
    assert_eq!((output(&terms), terms.cap_to_set, terms.extends_to), (500, Some(500), None));
    let terms = desk.terms("gpt-4o", r#","max_tokens":3000,"n":2"#, 80_000, None).await;
    assert_eq!((output(&terms), terms.cap_to_set), (500, Some(250)), "over all choices");
    let terms = desk.terms("gpt-4o", r#","max_tokens":100"#, 16_000, None).await;
    assert_eq!((output(&terms), terms.cap_to_set), (100, None), "what is reasonable can be the whole");
    // No cap is so small that it helps nobody; where no more can be paid for, a refusal says so.
    let terms = desk.terms("gpt-4o", "", 1_200, None).await;
    assert_eq!((output(&terms), terms.cap_to_set), (16, Some(16)));
    let terms = desk.terms("gpt-4o", "", 200, None).await;
    assert!(output(&terms) == 16 && !terms.fits(funds(200, None)));
    let terms = desk.terms("gpt-4o", r#","max_tokens":5"#, 20, None).await;
    assert_eq!(output(&terms), 5);
}

#[tokio::test]
async fn where_funds_are_short_a_stream_s_hold_grows() {
    let desk = Desk::new("gpt-4o");
    let stream = r#","stream":true"#;
    let terms = desk.terms("gpt-4o", stream, 80_000, None).await;
    assert_eq!((output(&terms), terms.cap_to_set, terms.extends_to), (500, Some(4000), Some(4000)));
    let terms = desk.terms("gpt-4o", r#","stream":true,"max_tokens":3000"#, 80_000, None).await;
    assert_eq!((output(&terms), terms.cap_to_set, terms.extends_to), (500, None, Some(3000)));
    let terms = desk.terms("gpt-4o", r#","stream":true,"n":3"#, 80_000, None).await;
    assert_eq!((output(&terms), terms.extends_to), (498, Some(7983)));
    assert_eq!(terms.cap_to_set, Some(2661), "what all funds pay for is the most that the upstream is asked for");
    let all = desk.terms("gpt-4o", r#","stream":true,"max_tokens":16"#, 400, None).await;
    assert_eq!((all.extends_to, all.cap_to_set, output(&all)), (None, None, 16), "{all:?}");
    // What its stream does not show cannot be counted on the way.
    for (model, fields) in [("o3-mini", ""), ("gpt-4o", r#","reasoning_effort":"high""#), ("gpt-4o", r#","audio":{}"#)]
    {
        let terms = Desk::new(model).terms(model, &format!("{stream}{fields}"), 80_000, None).await;
        assert_eq!((terms.extends_to, terms.cap_to_set), (None, Some(500)), "{model} {fields}");
    }
    desk.learned.hides(&Arc::from("gpt-4o"));
    assert_eq!(desk.terms("gpt-4o", stream, 80_000, None).await.extends_to, None);
}

#[tokio::test]
async fn a_whole_answer_that_is_alone_takes_two_fifths() {
    let mut desk = Desk::new("gpt-4o");
    let alone = |money| Funds { held: (Nanos::ZERO, 0), is_quiet: true, ..funds(money, None) };
    let terms = desk.terms_within("gpt-4o", "", alone(100_000)).await;
    assert_eq!((output(&terms), terms.cap_to_set), (4000, None), "that part of the funds pays for all of it");
    let terms = desk.terms_within("gpt-4o", "", alone(20_000)).await;
    assert_eq!((output(&terms), terms.cap_to_set), (800, Some(800)));
    let terms = desk.terms_within("gpt-4o", r#","stream":true"#, alone(80_000)).await;
    assert_eq!((output(&terms), terms.extends_to), (500, Some(4000)), "what grows needs no more");
    desk.caller.key.on_short_funds = OnShortFunds::Refuse;
    assert_eq!(output(&desk.terms_within("gpt-4o", "", alone(20_000)).await), 4000);
}

/// A dollar, a thousand dollars per million answer tokens, and ten requests at once that are a third of the
/// dollar together.
#[tokio::test(start_paused = true)]
async fn m_11_ten_at_once_that_need_a_third_of_the_funds_are_all_served() {
    let price = r#"{"input_per_million":"100","output_per_million":"1000","max_output_tokens":16000}"#;
    for (fields, learned) in [("", 0), (r#","stream":true"#, 0), ("", 33), (r#","stream":true"#, 33), ("", 40)] {
        let desk = Desk::priced("gpt-4o", price);
        let model: Arc<str> = Arc::from("gpt-4o");
        (0..learned).for_each(|tokens| desk.learned.answered(KeyId(1), &model, tokens));
        let ledger = Ledger::in_memory(20);
        top_up(&ledger, 1_000_000_000).await;
        let mut held = Vec::new();
        for request in 0..10 {
            let admitted = desk.admit(&ledger, "gpt-4o", fields).await;
            let admitted = admitted.unwrap_or_else(|failure| panic!("{request} of {fields}: {}", failure.message));
            assert!(output(&admitted.terms) >= 33, "{request} of {fields}: {:?}", admitted.terms);
            held.push(admitted);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn m_11_of_those_that_found_nobody_else_only_one_takes_the_part_of_one_alone() {
    let (desk, ledger) = (Desk::new("gpt-4o"), Ledger::in_memory(20));
    top_up(&ledger, 20_000).await;
    let first = desk.admit(&ledger, "gpt-4o", "").await.unwrap();
    assert_eq!((output(&first.terms), first.terms.only_open), (800, true));
    let hold = Hold { parts: Parts::new(), ..Hold::clone(&first.hold.terms) };
    let limits = first.terms.limits(&desk.limits);
    let again = ledger.hold(AccountId(1), &hold, &limits, Timestamp(0)).await;
    assert!(matches!(again, Err(HoldError::Refused(Refusal::Forbidden(_)))));
    let second = desk.admit(&ledger, "gpt-4o", "").await.unwrap();
    assert_eq!((output(&second.terms), second.terms.only_open), (80, false));
}

#[tokio::test]
async fn quotas_in_tokens_bind_as_money_does() {
    let desk = Desk::new("gpt-4o");
    let terms = desk.terms("gpt-4o", "", 1_000_000_000, Some(16_000)).await;
    assert_eq!((output(&terms), terms.cap_to_set), (1000, Some(1000)));
    let terms = desk.terms("gpt-4o", "", 1_000_000_000, Some(400)).await;
    assert_eq!((output(&terms), terms.cap_to_set), (25, Some(25)));
    let terms = desk.terms("gpt-4o", "", 1_000_000_000, Some(100)).await;
    assert!(!terms.fits(funds(i64::MAX, Some(100))));
}

#[tokio::test]
async fn what_a_key_usually_gets_is_held_and_prompts_are_counted_where_bytes_are_too_much() {
    let desk = Desk::new("gpt-4o");
    let model: Arc<str> = Arc::from("gpt-4o");
    desk.learned.answered(KeyId(1), &model, 400);
    let terms = desk.terms("gpt-4o", "", 80_000, None).await;
    assert_eq!(output(&terms), 500, "so much each is enough for most of ten");
    let desk = Desk::new("gpt-4o");
    desk.learned.answered(KeyId(1), &model, 700);
    let terms = desk.terms("gpt-4o", "", 80_000, None).await;
    assert_eq!(output(&terms), 2100, "the mean and four deviations");
    let by_bytes = desk.terms("gpt-4o", "", 100_000_000, None).await.bound.input_tokens;
    assert!(terms.bound.input_tokens < by_bytes - 40, "{} {by_bytes}", terms.bound.input_tokens);
    desk.learned.prompted(&model, 100, 1000);
    assert_eq!(desk.terms("gpt-4o", "", 80_000, None).await.bound.input_tokens, by_bytes);
    // Of another vocabulary, only what was seen tells anything.
    let desk = Desk::new("other");
    let unseen = desk.terms("other", "", 80_000, None).await.bound.input_tokens;
    desk.learned.prompted(&Arc::from("other"), 100, 90);
    let seen = desk.terms("other", "", 80_000, None).await.bound.input_tokens;
    assert!(unseen == by_bytes - 1 && seen < unseen - 30, "{by_bytes} {unseen} {seen}");
}

/// Posts what is decided. Nobody writes this journal, so nothing becomes durable.
async fn post(
    ledger: &Ledger,
    now: Timestamp,
    decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
) -> bool {
    let posted = ledger.post_durable(AccountId(1), now, decide);
    !matches!(tokio::time::timeout(Duration::from_millis(1), posted).await, Ok(Err(_)))
}

async fn top_up(ledger: &Ledger, amount: i64) {
    let by = || "ann".into();
    let fund = || Fund { origin: Origin::TopUp, by: by(), note: by(), reference: None };
    assert!(post(ledger, Timestamp(0), |book, _| book.fund_in(fund(), Nanos(amount))).await);
}

async fn grant(ledger: &Ledger, amount: i64, now: Timestamp) {
    let given = || GrantGiven { by: "ann".into(), note: "".into(), expires_at: None, reference: None };
    post(ledger, now, |book, at| book.grant(given(), Nanos(amount), at)).await;
}

/// A plan that costs what it gives, at half of list prices, with half of it in each hour.
fn half_price(amount: i64, fallback: bool) -> Arc<PlanTerms> {
    let length = "1 hours".parse().unwrap();
    let window = WindowTerms { name: "hour".into(), limit: Allowance::Money(Nanos(amount / 2)), length };
    Arc::new(PlanTerms {
        plan: PlanId(1),
        name: "half".into(),
        cycle: Cycle::Month,
        price: Nanos(amount),
        allowance: Allowance::Money(Nanos(amount)),
        windows: vec![window],
        multiplier: Multiplier::from_millionths(500_000).unwrap(),
        fallback,
    })
}

async fn subscribe(ledger: &Ledger, plan: Arc<PlanTerms>, now: Timestamp) -> bool {
    post(ledger, now, |book, at| {
        let (plan, by) = (plan.clone(), "ann".into());
        let change = match book.subscription() {
            None => Subscription::start(plan, Zone::UTC, None, by, book.free_until(), at),
            Some(subscription) => subscription.change(plan, book.cycle_counter().taken(), by, at),
        };
        book.subscribe(change.map_err(|_| Refusal::NotOpen)?, at)
    })
    .await
}

async fn unsubscribe(ledger: &Ledger, now: Timestamp) {
    post(ledger, now, |book, at| {
        let subscription = book.subscription().ok_or(Refusal::NotOpen)?;
        let end = subscription.end(book.cycle_counter().taken(), "ann".into(), at);
        book.subscribe(end.map_err(|_| Refusal::NotOpen)?, at)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn t_09_a_plan_s_multiplier_is_for_what_the_plan_pays_alone() {
    let half = Multiplier::from_millionths(500_000).unwrap();
    let (mut desk, model) = (Desk::new("gpt-4o"), "gpt-4o");
    desk.caller.key.on_short_funds = OnShortFunds::Refuse;
    let ledger = Ledger::in_memory(20);
    let multiplier = async |fields: &str| desk.admit(&ledger, model, fields).await.unwrap().terms.multiplier;
    top_up(&ledger, 3_000_000).await;
    assert!(subscribe(&ledger, half_price(1_000_000, true), Timestamp(0)).await);
    assert_eq!(multiplier("").await, half);
    // A grant pays first, in part or all.
    grant(&ledger, 10, Timestamp(0)).await;
    assert_eq!(multiplier("").await, Multiplier::ONE);
    assert_eq!(multiplier("").await, half);
    // Of 500,000 in an hour, twenty choices are 400,000 at the plan's price: a second time the plan has less.
    assert_eq!(multiplier(r#","n":20"#).await, half);
    assert_eq!(multiplier(r#","n":20"#).await, Multiplier::ONE);
    desk.caller.key.on_short_funds = OnShortFunds::Cap;
    // Nobody else could pay.
    let ledger = Ledger::in_memory(20);
    top_up(&ledger, 20_000).await;
    assert!(subscribe(&ledger, half_price(20_000, false), Timestamp(0)).await);
    let terms = desk.admit(&ledger, model, r#","stream":true"#).await.unwrap().terms;
    assert_eq!(terms.multiplier, half);
    // With hardly anything beside it, the plan alone gives more of an answer than all at the account's own price.
    let ledger = Ledger::in_memory(20);
    top_up(&ledger, 20_001).await;
    assert!(subscribe(&ledger, half_price(20_000, true), Timestamp(0)).await);
    let admitted = desk.admit(&ledger, model, r#","stream":true"#).await.unwrap();
    assert_eq!((admitted.terms.multiplier, admitted.terms.extends_to.is_some()), (half, true));
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe {
        amount: i64,
        fallback: bool,
    },
    Unsubscribe,
    Grant(i64),
    Ask {
        max_tokens: u64,
        stream: bool,
    },
    /// Of the oldest open request, so many thousandths of what may come are produced.
    Settle(u64),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || prop_oneof![1_000..20_000_i64, 20_000..2_000_000_i64];
    prop_oneof![
        2 => (amount(), prop::bool::weighted(0.8)).prop_map(|(amount, fallback)| Step::Subscribe { amount, fallback }),
        1 => Just(Step::Unsubscribe),
        1 => (1..40_000_i64).prop_map(Step::Grant),
        6 => (1..4_000_u64, any::<bool>()).prop_map(|(max_tokens, stream)| Step::Ask { max_tokens, stream }),
        5 => (0..=1_000_u64).prop_map(Step::Settle),
        2 => prop_oneof![0..1_000_i64, 0..7_200_000_i64, 0..1_000_000_000_i64].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// T-09: whatever is subscribed to, changed and given back while requests are under way, the account pays the list
    /// price at its own multiplier, but for what a plan paid alone; and for that it paid the plan.
    #[test]
    fn t_09_no_plan_is_had_for_its_multiplier(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let desk = Desk::new("gpt-4o");
            let price = desk.catalog.route("gpt-4o").unwrap().priced.as_ref().unwrap().price.clone();
            let ledger = Ledger::in_memory(100);
            top_up(&ledger, 10_000_000).await;
            let (mut now, mut open, mut worth) = (Timestamp(0), VecDeque::new(), 0);
            for step in steps.into_iter().chain((0..60).map(|_| Step::Settle(1_000))).chain([Step::Unsubscribe]) {
                match step {
                    Step::Subscribe { amount, fallback } => {
                        subscribe(&ledger, half_price(amount, fallback), now).await;
                    }
                    Step::Unsubscribe => unsubscribe(&ledger, now).await,
                    Step::Grant(amount) => grant(&ledger, amount, now).await,
                    Step::Wait(ms) => now = now.plus_ms(ms),
                    Step::Ask { max_tokens, stream } => {
                        let fields = format!(r#","max_tokens":{max_tokens},"stream":{stream}"#);
                        open.extend(desk.admit_at(&ledger, "gpt-4o", &fields, now).await.ok());
                    }
                    Step::Settle(thousandths) => {
                        let Some(Admitted { mut hold, terms }) = open.pop_front() else { continue };
                        let produced = terms.output_max() * thousandths / 1_000;
                        let growth = terms.growth(&desk.limits);
                        let paid = |hold: &OpenedHold| growth.as_ref()?.output_paid(hold);
                        while paid(&hold).is_some_and(|paid| paid < produced)
                            && growth.as_ref().unwrap().grow(&ledger, &mut hold, &price, now) == Grown::Larger
                        {}
                        let produced = produced.min(hold.terms.bound.output_tokens());
                        let usage = Usage::tokens(terms.bound.input_tokens, produced);
                        let cost = price.charge_at(&usage, None, terms.multiplier).unwrap();
                        let before = ledger.totals(AccountId(1)).await.unwrap();
                        let ending = Ending::Complete;
                        let settle = Resolution::Settle { usage, service_tier: None, cost, ending, estimated: false };
                        assert!(matches!(ledger.resolve(hold, settle, now), Resolved::Posted(_)));
                        let by_plan = before.plan.0 - ledger.totals(AccountId(1)).await.unwrap().plan.0;
                        assert!(terms.multiplier == Multiplier::ONE || by_plan == cost.0, "{by_plan} of {cost} {terms:?}");
                        worth += cost.0;
                    }
                }
            }
            let totals = ledger.totals(AccountId(1)).await.unwrap();
            assert_eq!((totals.held, totals.debt, totals.spent), (Nanos::ZERO, Nanos::ZERO, Nanos(worth)));
            let by_plan = -totals.plan.0;
            assert!(totals.fees.0 >= by_plan, "{} paid for {by_plan} of plans", totals.fees);
        });
    }
}
