//! One run: a process that lives and dies on a disk that stays.

use super::auditor::Auditor;
use super::caller;
use super::upstream::Provider;
use crate::load::trace::Dice;
use domain::ledger::{Entry, Quota};
use domain::{AccountId, KeyId, Multiplier, Nanos, PriceId, Seq, Timestamp, Zone};
use gateway::catalog::RouteDeclared;
use gateway::counters::Counters;
use gateway::lifecycle::{OnClientLeft, Settings};
use gateway::tokens::Tokenizers;
use gateway::upstream::Upstream;
use gateway::{Catalog, Clock, Gateway};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use store::accounts::{Account, AccountStatus, AccountTier};
use store::keys::{Caller, Key, KeyStatus, OnShortFunds};
use store::ledger::Ledger;
use store::prices::{PriceBook, PriceSource, PriceVersion};
use store::progress::Mark;
use tokio::task::LocalSet;

/// Requests that may be open at once; small enough to be reached.
const OPEN_MAX: usize = 24;
/// The wall clock at the beginning of every run.
const BEGINNING: Timestamp = Timestamp(1_750_000_000_000);
/// How long after the last request everything must be settled.
const QUIET_WITHIN: Duration = Duration::from_secs(600);
const PRICE: &str = r#"{"input_per_million":"1.00","output_per_million":"2.00"}"#;

/// See the module's description.
pub struct World {
    dice: RefCell<Dice>,
    auditor: Rc<Auditor>,
    /// What is durable.
    disk: RefCell<Vec<Entry>>,
    /// Marks of processes that died, kept until what they tell is durable.
    left: RefCell<Vec<(Seq, Mark)>>,
    callers: Vec<Arc<Caller>>,
    now: Cell<Timestamp>,
}

/// A process: it ends by being dropped.
struct Process {
    gateway: Arc<Gateway>,
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
}

impl World {
    /// A world by a seed.
    pub fn new(seed: u64, auditor: Rc<Auditor>) -> Rc<Self> {
        let mut dice = Dice(seed);
        let callers = (1..=2 + dice.roll(4)).map(|number| {
            let quota = (dice.roll(2) == 0).then(|| Nanos(100_000 + dice.roll(2_000_000) as i64));
            auditor.key(KeyId(number as i64), quota.map(|quota| i128::from(quota.0)));
            let account = AccountId(1 + dice.roll(2) as i64);
            Arc::new(caller_of(account, KeyId(number as i64), Quota { money: quota, tokens: None }))
        });
        let callers = callers.collect();
        Rc::new(Self {
            dice: RefCell::new(dice),
            auditor,
            disk: RefCell::new(Vec::new()),
            left: RefCell::new(Vec::new()),
            callers,
            now: Cell::new(BEGINNING),
        })
    }

    fn roll(&self, sides: u64) -> u64 {
        self.dice.borrow_mut().roll(sides)
    }

    /// Lives through one to four processes, then checks that everything came to rest.
    pub async fn live(self: &Rc<Self>) {
        let lives = 1 + self.roll(4);
        for life in 1..=lives {
            self.one_life(life == 1, life == lives).await;
        }
    }

    /// One process: starts on what is durable, serves, and ends by a crash or at rest.
    async fn one_life(self: &Rc<Self>, first: bool, last: bool) {
        let process = self.start();
        let life = LocalSet::new();
        let world = self.clone();
        let (ledger, clock) = (process.ledger.clone(), process.clock.clone());
        life.spawn_local(world.clone().keep_disk(ledger.clone()));
        life.spawn_local(world.clone().sweep(ledger.clone(), clock.clone()));
        let crash_after = Duration::from_millis(self.roll(2_500));
        let ends = life.run_until(async {
            // A start serves nobody before what it resolved is durable.
            let resolved = ledger.queue().decided();
            let recovering = async {
                while ledger.queue().committed() < resolved {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.left.borrow_mut().clear();
            };
            if last {
                recovering.await;
            } else if tokio::time::timeout(crash_after, recovering).await.is_err() {
                return;
            }
            if first {
                for account in [1, 2] {
                    let amount = Nanos(200_000 + self.roll(4_000_000) as i64);
                    // A disk that fails just now refuses: the account then starts with nothing.
                    let _ = ledger.top_up(AccountId(account), amount, "start", clock.now()).await;
                }
            }
            let requests = 5 + self.roll(30);
            let asking = (0..requests).map(|_| {
                let caller = self.callers[self.roll(self.callers.len() as u64) as usize].clone();
                let (gateway, auditor, dice) =
                    (process.gateway.clone(), self.auditor.clone(), Dice(self.roll(u64::MAX)));
                let wait = Duration::from_millis(self.roll(1_500));
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(wait).await;
                    caller::ask(gateway, caller, auditor, dice).await;
                })
            });
            let asking: Vec<_> = asking.collect();
            if !last {
                tokio::time::sleep(crash_after).await;
                return;
            }
            self.jump_clock(&clock).await;
            for task in asking {
                task.await.expect("callers do not panic");
            }
            let quiet = async {
                while ledger.open_holds() > 0 || ledger.queue().committed() < ledger.queue().decided() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            // The auditor reports what is open after this.
            let _ = tokio::time::timeout(QUIET_WITHIN, quiet).await;
        });
        ends.await;
        self.now.set(process.clock.now());
        if last {
            return;
        }
        self.auditor.note(|reached| reached.crashes += 1);
        self.left.borrow_mut().extend(process.ledger.slots().marks());
        drop(life);
        if self.roll(3) == 0 {
            self.auditor.note(|reached| reached.power_cuts += 1);
            self.auditor.power_cut();
            self.left.borrow_mut().clear();
        }
    }

    fn start(&self) -> Process {
        let price = Arc::new(sheet().compile().expect("the price is well-formed"));
        let ledger = Ledger::in_memory_after(&self.disk.borrow(), OPEN_MAX).expect("what is durable can be read");
        let ledger = Arc::new(ledger);
        let marks: HashMap<_, _> = self.left.borrow().iter().cloned().collect();
        let lookup = |_: PriceId| Ok(price.clone());
        ledger.resolve_left_open(&marks, self.now.get(), &lookup).expect("nothing stands in the way of recovery");
        let clock = Arc::new(Clock::starting_at(self.now.get()));
        let settings = Settings {
            first_byte_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            on_client_left: if self.roll(2) == 0 { OnClientLeft::Stop } else { OnClientLeft::Drain },
            ..Settings::default()
        };
        let counters = Arc::new(Counters::new());
        let gateway = Gateway::new(ledger.clone(), clock.clone(), counters, Tokenizers::assumed(), settings);
        gateway.set_catalog(catalog(&self.auditor));
        Process { gateway, ledger, clock }
    }

    /// The disk: makes groups durable after a while, and sometimes refuses for a while.
    async fn keep_disk(self: Rc<Self>, ledger: Arc<Ledger>) {
        loop {
            tokio::time::sleep(Duration::from_millis(1 + self.roll(8))).await;
            let group = ledger.queue().take_entries();
            let Some(last) = group.last().map(|entry| entry.seq) else { continue };
            if self.roll(40) == 0 {
                self.auditor.note(|reached| reached.disk_failures += 1);
                ledger.queue().report_failure();
                tokio::time::sleep(Duration::from_millis(self.roll(3_000))).await;
            }
            // From here on the group is durable, whether or not anybody is told.
            self.auditor.durable(&group);
            self.disk.borrow_mut().extend(group);
            tokio::time::sleep(Duration::from_millis(self.roll(4))).await;
            ledger.queue().confirm(last);
        }
    }

    async fn sweep(self: Rc<Self>, ledger: Arc<Ledger>, clock: Arc<Clock>) {
        let price = Arc::new(sheet().compile().expect("the price is well-formed"));
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            ledger
                .sweep(clock.steady(), clock.now(), &|_| Ok(price.clone()))
                .expect("nothing stands in the way of sweeping");
        }
    }

    /// Jumps of up to two days, in both directions.
    async fn jump_clock(&self, clock: &Clock) {
        for _ in 0..self.roll(4) {
            tokio::time::sleep(Duration::from_millis(self.roll(500))).await;
            self.auditor.note(|reached| reached.clock_jumps += 1);
            clock.jump(self.roll(345_600_000) as i64 - 172_800_000);
        }
    }
}

fn sheet() -> domain::price::PriceSheet {
    serde_json::from_str(PRICE).expect("the price is well-formed")
}

fn catalog(auditor: &Auditor) -> Catalog {
    let provider = Provider { seen: auditor.seen() };
    let upstream = Arc::new(Upstream::local("simulated", "simulated", Arc::new(provider)));
    let route = RouteDeclared { model: "m".into(), upstream_model: None, upstreams: vec!["simulated".into()] };
    let version = PriceVersion {
        id: PriceId(1),
        provider: None,
        model: "m".into(),
        source: PriceSource::Operator,
        mode: None,
        sheet: sheet(),
        retired: false,
        created_at: BEGINNING,
    };
    let book = PriceBook::from_versions(vec![version]).expect("the price compiles");
    Catalog::build(&[upstream], &[route], &book).expect("the route names its upstream")
}

fn caller_of(account: AccountId, key: KeyId, quota: Quota) -> Caller {
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
            on_short_funds: OnShortFunds::Cap,
            project: None,
            role: None,
            made_by: None,
            created_at: BEGINNING,
        },
        account: Account {
            id: account,
            name: format!("account-{account}"),
            status: AccountStatus::Active,
            error_profile: None,
            shows_upstream: false,
            time_zone: "UTC".to_owned(),
            tier: AccountTier::default(),
            multiplier: None,
            created_at: BEGINNING,
        },
        secret_valid_until: None,
        multiplier: Multiplier::ONE,
        budgets: Arc::default(),
        zone: Zone::UTC,
    }
}
