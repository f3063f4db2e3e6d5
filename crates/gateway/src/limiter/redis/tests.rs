//! The script and the model say the same, and what only a server can show.

use super::*;
use domain::Calendar;
use domain::rate::{AMOUNT_MAX, State, Taken, Window};
use domain::time::DAY_MS;
use fixtures::Redis;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

/// 2026-11-22T08:00:00Z
const START: Timestamp = Timestamp(1_795_334_400_000);

/// What happens to some limits, so many milliseconds later than what happened before.
#[derive(Clone, Debug)]
enum Deed {
    /// A request that costs so many percent of each limit.
    Ask { after_ms: i64, percent: Vec<u64> },
    /// One that was admitted is made exact, to so many percent of what was reserved.
    Correct { after_ms: i64, which: usize, percent: u64 },
    /// One of the limits becomes another.
    Change { which: usize, rule: Rule },
}

fn rule() -> impl Strategy<Value = Rule> {
    let amount =
        prop_oneof![4 => 1..20_u64, 4 => 1..1_000_000_u64, 2 => 1..=AMOUNT_MAX, 1 => Just(AMOUNT_MAX), 1 => Just(0)];
    let length = prop_oneof![Just(1_i64), 2..50_i64, Just(1_000), Just(60_000), Just(DAY_MS), 1..=1_000 * DAY_MS];
    let calendars = [Calendar::Once, Calendar::Hour, Calendar::Day, Calendar::WEEK, Calendar::Month];
    (amount, length, 0..7, 1..3_000_u64, prop::sample::select(calendars.to_vec())).prop_map(
        |(amount, length_ms, kind, burst, calendar)| {
            let fills = u128::from(amount) * (1_000 * DAY_MS) as u128 / length_ms as u128;
            let window = match kind {
                0 | 1 => Window::Sliding { length_ms },
                2 => Window::Smooth { length_ms, burst: None },
                3 => Window::Smooth { length_ms, burst: Some(u128::from(burst).clamp(1, fills.max(1)) as u64) },
                4 => Window::Calendar(calendar),
                5 => Window::Session { length_ms },
                _ => Window::Request,
            };
            Rule { amount, window }
        },
    )
}

/// Rules, and what happens to them on the scale of the first.
fn sequence() -> impl Strategy<Value = (Vec<Rule>, Vec<Deed>)> {
    let rules =
        prop::collection::vec(prop_oneof![6 => rule(), 1 => Just(Rule { amount: 3, window: Window::Now })], 1..4);
    rules.prop_flat_map(|rules| {
        let length_ms = match rules[0].window {
            Window::Sliding { length_ms } | Window::Smooth { length_ms, .. } | Window::Session { length_ms } => {
                length_ms
            }
            Window::Calendar(calendar) => calendar.longest_ms().unwrap_or(DAY_MS),
            Window::Now | Window::Request => 1_000,
        };
        let after = move || {
            prop_oneof![
                2 => Just(0_i64), 6 => 0..=(length_ms / 30).max(1), 2 => 0..=length_ms + 1,
                1 => -length_ms..=0, 1 => Just(-400 * DAY_MS)
            ]
        };
        let percent = prop_oneof![Just(0_u64), Just(1), 0..40_u64, 0..=101_u64];
        let count = rules.len();
        let deed = prop_oneof![
            12 => (after(), prop::collection::vec(percent, count))
                .prop_map(|(after_ms, percent)| Deed::Ask { after_ms, percent }),
            6 => (after(), any::<usize>(), prop_oneof![0..=100_u64, 0..=300_u64, Just(100_000)])
                .prop_map(|(after_ms, which, percent)| Deed::Correct { after_ms, which, percent }),
            1 => (0..count, rule()).prop_map(|(which, rule)| Deed::Change { which, rule }),
        ];
        (Just(rules), prop::collection::vec(deed, 1..50))
    })
}

/// The model's side: states by key, decided over as one.
struct Model {
    rules: Vec<Rule>,
    states: Vec<State>,
    zone: Zone,
}

impl Model {
    fn decide(&mut self, costs: &[u64], at: Timestamp) -> (bool, Vec<(Verdict, Standing)>, Vec<Taken>) {
        let each = || self.rules.clone().into_iter().zip(costs.iter().copied());
        for (state, (rule, _)) in self.states.iter_mut().zip(each()) {
            rule.adopt(state, &self.zone, at);
        }
        let look = |(state, (rule, cost)): (&State, (Rule, u64))| rule.look(state, cost, &self.zone, at);
        let verdicts: Vec<Verdict> = self.states.iter().zip(each()).map(look).collect();
        let admitted = verdicts.iter().all(|verdict| *verdict == Verdict::Admitted);
        let taken = if admitted {
            let take = |(state, (rule, cost)): (&mut State, (Rule, u64))| rule.take(state, cost, &self.zone, at);
            let rules: Vec<_> = each().collect();
            self.states.iter_mut().zip(rules).map(take).collect()
        } else {
            Vec::new()
        };
        let standing = |(state, rule): (&State, &Rule)| rule.standing(state, &self.zone, at);
        let standings = self.states.iter().zip(&self.rules).map(standing);
        (admitted, verdicts.into_iter().zip(standings).collect(), taken)
    }
}

struct Open {
    costs: Vec<u64>,
    taken: Vec<Taken>,
    remote: Vec<RemoteTaken>,
}

/// What is kept of a limit on the server.
async fn kept(remote: &Remote, key: u128) -> State {
    let mut get = ::redis::cmd("GET");
    let bytes: Option<Vec<u8>> = get.arg(remote.key(key)).query_async(&mut remote.connection.clone()).await.unwrap();
    State::decode(&bytes.unwrap_or_default()).expect("the script writes states")
}

async fn play(remote: &Remote, first_key: u128, rules: Vec<Rule>, deeds: Vec<Deed>) {
    let zone: Zone = "Europe/Berlin".parse().unwrap();
    let states = vec![State::default(); rules.len()];
    let mut model = Model { rules, states, zone: zone.clone() };
    let (mut now, mut open): (_, Vec<Open>) = (START, Vec::new());
    let asked = |index: usize, rule: Rule, cost| Asked { key: first_key + index as u128, rule, cost, zone: &zone };
    for (step, deed) in deeds.into_iter().enumerate() {
        match deed {
            Deed::Ask { after_ms, percent } => {
                now = now.plus_ms(after_ms);
                let cost =
                    |(rule, percent): (&Rule, u64)| (u128::from(rule.amount) * u128::from(percent)).div_ceil(100);
                let costs: Vec<u64> = model.rules.iter().zip(percent).map(|pair| cost(pair) as u64).collect();
                let asks: Vec<Asked<'_>> =
                    costs.iter().enumerate().map(|(index, cost)| asked(index, model.rules[index], *cost)).collect();
                let answer = remote.decide_at(&asks, now, now).await.unwrap();
                let (admitted, each, taken) = model.decide(&costs, now);
                let told: Vec<_> = answer.each.iter().map(|answer| (answer.verdict, answer.standing)).collect();
                assert_eq!((answer.admitted, told), (admitted, each), "step {step}, costs {costs:?}");
                assert_eq!(answer.at, now);
                if admitted {
                    let remote = answer.each.into_iter().map(|answer| answer.taken).collect();
                    open.push(Open { costs, taken, remote });
                }
            }
            Deed::Correct { after_ms, which, percent } => {
                now = now.plus_ms(after_ms);
                let Some(which) = which.checked_rem(open.len()) else { continue };
                let Open { costs, taken, remote: remote_taken } = open.swap_remove(which);
                let actual = |cost: u64| (u128::from(cost) * u128::from(percent) / 100) as u64;
                let corrections: Vec<Correction<'_>> = costs
                    .iter()
                    .zip(&remote_taken)
                    .enumerate()
                    .map(|(index, (cost, taken))| Correction {
                        asked: asked(index, model.rules[index], *cost),
                        taken,
                        actual: actual(*cost),
                    })
                    .collect();
                remote.correct_at(&corrections, now, now).await.unwrap();
                for (index, cost) in costs.into_iter().enumerate() {
                    let (rule, state) = (model.rules[index], &mut model.states[index]);
                    rule.correct(state, taken[index], cost, actual(cost), &zone, now);
                }
            }
            Deed::Change { which, rule } => {
                // Requests in flight are never counted in any other way.
                if model.rules[which].window != Window::Now {
                    model.rules[which] = rule;
                }
            }
        }
        for (index, state) in model.states.iter().enumerate() {
            if model.rules[index].window != Window::Now {
                assert_eq!(&kept(remote, first_key + index as u128).await, state, "limit {index} after step {step}");
            }
        }
    }
}

#[tokio::test]
async fn the_script_and_the_model_are_one() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    let config = Config::default();
    let mut runner = TestRunner::new(config.clone());
    for number in 0..config.cases {
        let (rules, deeds) = sequence().new_tree(&mut runner).unwrap().current();
        // The last one that is told of is the one that failed.
        println!("{rules:?}\n{deeds:?}");
        play(&remote, u128::from(number) << 8, rules, deeds).await;
    }
}

#[tokio::test]
async fn long_logs_are_merged_as_the_model_does() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    let rules = vec![Rule { amount: 2_000, window: Window::Sliding { length_ms: 60_000 } }];
    let ask = |step: i64| Deed::Ask { after_ms: 1 + step % 97, percent: vec![u64::from(step % 3 == 0)] };
    let correct = |step: i64| Deed::Correct { after_ms: 0, which: step as usize, percent: 50 };
    let deeds = (0..2_600).map(|step| if step % 4 == 3 { correct(step) } else { ask(step) }).collect();
    play(&remote, 1, rules, deeds).await;
}

fn per_minute(amount: u64) -> Rule {
    Rule { amount, window: Window::Sliding { length_ms: 60_000 } }
}

static UTC: Zone = Zone::UTC;
const IN_FLIGHT: Rule = Rule { amount: 2, window: Window::Now };

fn one(key: u128, rule: Rule) -> Asked<'static> {
    Asked { key, rule, cost: 1, zone: &UTC }
}

#[tokio::test]
async fn l_06_places_of_a_node_that_died_are_free_when_its_lease_ends() {
    let server = Redis::start().unwrap();
    let (dies, lives) = (Remote::connect(&server.url()).unwrap(), Remote::connect(&server.url()).unwrap());
    let asked = [one(1, IN_FLIGHT)];
    let at = |seconds: i64| START.plus_ms(1_000 * seconds);
    let decide = async |remote: &Remote, seconds| remote.decide_at(&asked, at(seconds), at(seconds)).await.unwrap();
    for _ in 0..2 {
        assert!(decide(&dies, 0).await.admitted);
    }
    assert_eq!(lives.beat_at(at(0)).await.unwrap().0, 2);
    assert!(!decide(&lives, 1).await.admitted);
    // A beat prolongs the lease.
    dies.beat_at(at(50)).await.unwrap();
    assert!(!decide(&lives, 109).await.admitted);
    let first = decide(&lives, 110).await;
    assert!(first.admitted);
    assert_eq!(lives.beat_at(at(111)).await.unwrap().0, 1);
    // It was only asleep: what it has under way counts again, and goes back where it was counted.
    dies.beat_at(at(120)).await.unwrap();
    assert!(!decide(&lives, 121).await.admitted);
    let taken = &first.each[0].taken;
    let back = Correction { asked: asked[0], taken, actual: 0 };
    for _ in 0..2 {
        dies.correct_at(std::slice::from_ref(&back), at(122), at(122)).await.unwrap();
    }
    assert_eq!(decide(&lives, 123).await.each[0].standing.remaining, 0);
    // More is never given back than there is.
    for _ in 0..5 {
        lives.correct_at(std::slice::from_ref(&back), at(124), at(124)).await.unwrap();
    }
    assert_eq!(decide(&lives, 125).await.each[0].standing.remaining, 1);
}

#[tokio::test]
async fn l_08_the_last_limit_refuses_and_the_others_are_untouched() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    let asked = [one(1, per_minute(10)), one(2, IN_FLIGHT), one(3, per_minute(1))];
    assert!(remote.decide(&asked, START).await.unwrap().admitted);
    let refused = remote.decide(&asked, START).await.unwrap();
    assert!(!refused.admitted);
    assert!(matches!(refused.each[2].verdict, Verdict::Wait(59_000..=60_000)), "{refused:?}");
    let remaining: Vec<u64> = refused.each.iter().map(|each| each.standing.remaining).collect();
    assert_eq!(remaining, [9, 1, 0]);
}

#[tokio::test]
async fn l_10_a_script_that_the_server_forgot_is_loaded_again() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    assert!(remote.decide(&[one(1, per_minute(2))], START).await.unwrap().admitted);
    let mut forget = ::redis::cmd("SCRIPT");
    forget.arg("FLUSH").exec_async(&mut remote.connection.clone()).await.unwrap();
    assert!(remote.decide(&[one(1, per_minute(2))], START).await.unwrap().admitted);
    assert!(!remote.decide(&[one(1, per_minute(2))], START).await.unwrap().admitted);
    // And every key is in one slot.
    let mut keys = ::redis::cmd("KEYS");
    let keys: Vec<String> = keys.arg("*").query_async(&mut remote.connection.clone()).await.unwrap();
    assert!(keys.iter().all(|key| key.starts_with("{tollgate}:")), "{keys:?}");
}

#[tokio::test]
async fn every_state_has_a_time_to_live() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    let windows = ["minute", "smooth hour", "calendar once", "calendar month", "session 5 hours", "now"];
    let rules = windows.map(|text| Rule { amount: 5, window: text.parse().unwrap() });
    let asked: Vec<_> = rules.iter().enumerate().map(|(index, rule)| one(index as u128, *rule)).collect();
    assert!(remote.decide(&asked, START).await.unwrap().admitted);
    let mut connection = remote.connection.clone();
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert_eq!(keys.len(), windows.len() + 1);
    for key in keys {
        let ms: i64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!((1_000..=1_000 * DAY_MS).contains(&ms), "{key}: {ms}");
    }
}

#[tokio::test]
async fn l_11_what_was_not_heard_of_is_counted_rather_than_not() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    let asked = [one(1, per_minute(3))];
    let first = remote.decide(&asked, START).await.unwrap();
    server.pause().unwrap();
    assert!(remote.decide(&asked, START).await.unwrap_err().is_timeout());
    let back = Correction { asked: asked[0], taken: &first.each[0].taken, actual: 0 };
    assert!(remote.correct(std::slice::from_ref(&back), START).await.is_err());
    server.go_on().unwrap();
    // Two were taken, one of them unheard of, and what goes back goes back once at the most.
    let mut admitted = 0;
    while remote.decide(&asked, START).await.unwrap().admitted {
        admitted += 1;
    }
    assert!((1..=2).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn l_12_a_server_that_is_away_or_silent_is_an_error_soon_and_is_found_again() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    let asked = [one(1, per_minute(2))];
    assert!(remote.decide(&asked, START).await.unwrap().admitted);
    server.pause().unwrap();
    assert!(remote.decide(&asked, START).await.unwrap_err().is_timeout());
    server.go_on().unwrap();
    server.stop().unwrap();
    assert!(remote.decide(&asked, START).await.is_err());
    server.resume().unwrap();
    // The first call may still meet what is left of the old connection.
    let mut answer = remote.decide(&asked, START).await;
    for _ in 0..10 {
        if answer.is_ok() {
            break;
        }
        answer = remote.decide(&asked, START).await;
    }
    assert!(answer.unwrap().admitted);
    // One that was away from the beginning is no error until it is asked.
    assert!(Remote::connect("redis+unix:///nowhere").unwrap().decide(&asked, START).await.is_err());
    assert!(Remote::connect("nonsense").is_err());
}

#[tokio::test]
async fn d_24_a_server_that_evicts_is_told_apart() {
    let server = Redis::start().unwrap();
    let remote = Remote::connect(&server.url()).unwrap();
    assert_eq!(remote.evicts().await.unwrap(), None);
    let mut set = ::redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory-policy").arg("allkeys-lru");
    set.exec_async(&mut remote.connection.clone()).await.unwrap();
    assert_eq!(remote.evicts().await.unwrap().as_deref(), Some("allkeys-lru"));
}
