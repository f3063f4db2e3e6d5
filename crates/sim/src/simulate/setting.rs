//! What a world consists of before anything happens in it, drawn from the seed.

use super::auditor::Auditor;
use crate::load::trace::Dice;
use domain::budget::{Asking, Budget, Dimension, Scope};
use domain::ledger::{Limits, Metric, Quota};
use domain::plan::{Allowance, PlanTerms, WindowTerms};
use domain::price::{Price, PriceSheet};
use domain::{AccountId, BudgetId, Calendar, KeyId, Multiplier, Nanos, PlanId, Timestamp, Usage, Zone};
use std::sync::Arc;
use store::accounts::{Account, AccountStatus, AccountTier};
use store::keys::{Caller, Key, KeyStatus, OnShortFunds};

/// The model that everybody asks for.
pub const MODEL: &str = "m";
/// Who callers ask for.
pub const END_USERS: [&str; 3] = ["ann", "bob", "cyd"];
const PRICE: &str = r#"{"input_per_million":"1.00","output_per_million":"2.00"}"#;

/// When a run begins, and the zone whose clocks change a day or two later.
const BEGINNINGS: [(i64, &str); 6] = [
    (1_750_000_000_000, "UTC"),
    (1_750_000_000_000, "Asia/Kolkata"),
    (1_743_188_400_000, "Europe/Berlin"),
    (1_761_332_400_000, "Europe/Berlin"),
    (1_741_381_200_000, "America/New_York"),
    (1_761_944_400_000, "America/New_York"),
];

/// How often things go wrong. Each kind is left out of a third of all runs, so that kinds mask each other less.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// One group in so many is refused by the disk at first; 0 is never.
    pub disk: u64,
    /// The clock is set forward.
    pub forward: bool,
    /// The clock is set back.
    pub back: bool,
    /// Requests are forgotten, or come back too late.
    pub leaks: bool,
    /// Requests consume more than was held.
    pub overruns: bool,
    /// The power goes with the process.
    pub power: bool,
}

/// See the module's description.
pub struct Setting {
    pub odds: Odds,
    pub beginning: Timestamp,
    pub zone: Zone,
    pub accounts: Vec<AccountId>,
    pub callers: Vec<Arc<Caller>>,
    pub plans: Vec<Arc<PlanTerms>>,
    pub price: Arc<Price>,
}

impl Setting {
    /// A setting by a seed; the auditor is told of it.
    pub fn new(dice: &mut Dice, auditor: &Auditor) -> Self {
        let (beginning, zone) = BEGINNINGS[dice.roll(BEGINNINGS.len() as u64) as usize];
        let (beginning, zone) = (Timestamp(beginning), zone.parse().expect("the zones are known"));
        let accounts: Vec<_> = (1..=1 + dice.roll(2) as i64).map(AccountId).collect();
        let mut callers: Vec<_> = (1..=2 + dice.roll(4) as i64)
            .map(|number| {
                let account = accounts[dice.roll(accounts.len() as u64) as usize];
                let money = (dice.roll(3) == 0).then(|| Nanos(100_000 + dice.roll(2_000_000) as i64));
                let tokens = (dice.roll(4) == 0).then(|| 200 + dice.roll(2_000));
                let quota = Quota { money, tokens };
                auditor.key(KeyId(number), quota);
                caller(account, KeyId(number), quota, beginning)
            })
            .collect();
        let budgets = budgets(dice, &accounts, &callers);
        for (account, budget) in &budgets {
            auditor.budget(*account, budget, &zone);
        }
        for caller in &mut callers {
            let mine = budgets.iter().filter(|(account, _)| *account == caller.account.id);
            caller.budgets = Arc::new(mine.map(|(_, budget)| budget.clone()).collect());
            caller.zone = zone.clone();
        }
        let callers = callers.into_iter().map(Arc::new).collect();
        let mut is_left_out = || dice.roll(3) == 0;
        let odds = Odds {
            disk: if is_left_out() { 0 } else { 40 },
            forward: !is_left_out(),
            back: !is_left_out(),
            leaks: !is_left_out(),
            overruns: !is_left_out(),
            power: !is_left_out(),
        };
        let price = Arc::new(sheet().compile().expect("the price is well-formed"));
        let plans = plans(dice);
        Self { odds, beginning, zone, accounts, callers, plans, price }
    }

    /// What limits a caller's request for an end user.
    pub fn limits(caller: &Caller, end_user: &str, now: Timestamp) -> Limits {
        let asking = Asking { project: None, key: caller.key.id, end_user: Some(end_user), model: MODEL, tags: &[] };
        let budgets = caller.budgets.limits_for(&asking, &caller.zone, now);
        Limits { quota: caller.key.quota, budgets, ..Limits::default() }
    }

    /// What usage costs.
    pub fn cost(&self, usage: &Usage, multiplier: Multiplier) -> Nanos {
        self.price.charge_at(usage, None, multiplier).expect("nothing here is beyond 64 bits")
    }
}

/// The price of the only model.
pub fn sheet() -> PriceSheet {
    serde_json::from_str(PRICE).expect("the price is well-formed")
}

fn budgets(dice: &mut Dice, accounts: &[AccountId], callers: &[Caller]) -> Vec<(AccountId, Budget)> {
    let mut budgets: Vec<(AccountId, Budget)> = Vec::new();
    for &account in accounts {
        let key = callers.iter().find(|caller| caller.account.id == account).map(|caller| caller.key.id);
        let of_key = Scope { key, ..Scope::default() };
        let of_user = Scope { end_user: Some(END_USERS[0].into()), ..Scope::default() };
        for (scope, each) in
            [(Scope::default(), None), (of_key, None), (Scope::default(), Some(Dimension::EndUser)), (of_user, None)]
        {
            if dice.roll(2) == 0 {
                continue;
            }
            let (metric, limit) = match dice.roll(3) {
                0 => (Metric::Money, 100_000 + dice.roll(800_000)),
                1 => (Metric::Tokens, 100 + dice.roll(900)),
                _ => (Metric::Requests, 2 + dice.roll(10)),
            };
            let period =
                [Calendar::Hour, Calendar::Day, Calendar::Day, Calendar::WEEK, Calendar::Once][dice.roll(5) as usize];
            let id = BudgetId(budgets.len() as i64 + 1);
            let name = format!("budget {id}").into();
            let each = each.into_iter().collect();
            budgets.push((account, Budget { id, name, scope, each, metric, limit: limit as i64, period }));
        }
    }
    budgets
}

fn plans(dice: &mut Dice) -> Vec<Arc<PlanTerms>> {
    let money = |amount: i64| Allowance::Money(Nanos(amount));
    let terms = [
        ("day", 150_000, money(400_000), vec![("1 minutes", money(150_000))]),
        (
            "day",
            200_000,
            Allowance::Tokens(600),
            vec![("5 minutes", Allowance::Tokens(200)), ("week", Allowance::Tokens(2_000))],
        ),
        ("day", 0, money(200_000), vec![]),
        ("2 days", 300_000, Allowance::Tokens(900), vec![("1 minutes", money(200_000))]),
        ("3 days", 0, Allowance::Tokens(300), vec![]),
        ("week", 900_000, money(1_500_000), vec![("1 hours", Allowance::Tokens(700)), ("2 hours", money(900_000))]),
        // The windows of others, in another order.
        ("2 days", 400_000, money(900_000), vec![("week", money(1_200_000)), ("1 minutes", money(180_000))]),
    ];
    type Windows<'a> = Vec<(&'a str, Allowance)>;
    let plan = |(number, (cycle, price, allowance, windows)): (i64, (&str, i64, Allowance, Windows<'_>))| {
        let window = |(length, limit): (&str, Allowance)| WindowTerms {
            name: length.into(),
            limit,
            length: length.parse().expect("the lengths are well-formed"),
        };
        Arc::new(PlanTerms {
            plan: PlanId(number),
            name: format!("plan {number}").into(),
            cycle: cycle.parse().expect("the cycles are well-formed"),
            price: Nanos(price),
            allowance,
            windows: windows.into_iter().map(window).collect(),
            multiplier: [Multiplier::ONE, Multiplier::ONE, Multiplier::from_millionths(733_331).expect("it is small")]
                [dice.roll(3) as usize],
            fallback: dice.roll(2) == 0,
        })
    };
    (1..).zip(terms).map(plan).collect()
}

fn caller(account: AccountId, key: KeyId, quota: Quota, beginning: Timestamp) -> Caller {
    Caller {
        key: Key {
            id: key,
            account,
            name: format!("key-{key}"),
            hint: String::new(),
            status: KeyStatus::Active,
            expires_at: None,
            quota,
            models: None,
            addresses: None,
            error_profile: None,
            wait_seconds: None,
            priority: domain::rate::Priority::Normal,
            on_short_funds: [OnShortFunds::Cap, OnShortFunds::Refuse][key.0 as usize % 2],
            project: None,
            role: None,
            made_by: None,
            created_at: beginning,
        },
        account: Account {
            id: account,
            name: format!("account-{account}"),
            status: AccountStatus::Active,
            error_profile: None,
            shows_upstream: false,
            time_zone: "UTC".to_owned(),
            tier: AccountTier::default(),
            linked_to: None,
            weight: None,
            multiplier: Multiplier::from_millionths(if account.0 == 2 { 1_250_001 } else { 1_000_000 }),
            created_at: beginning,
        },
        secret_valid_until: None,
        budgets: Arc::default(),
        zone: Zone::UTC,
        payer: account,
        payer_weight: domain::rate::Weight::ONE,
        payer_tier: domain::TierId(0),
        payer_zone: Zone::UTC,
    }
}
