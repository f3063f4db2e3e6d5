//! One run: a process that lives and dies on a disk that stays.

use super::auditor::Auditor;
use super::operator::{self, Outbox};
use super::setting::{MODEL, Setting, sheet};
use super::upstream::Provider;
use super::{caller, holder};
use crate::load::trace::Dice;
use domain::ledger::{Book, Entry, Origin};
use domain::{Nanos, PriceId, Seq, Timestamp};
use gateway::catalog::RouteDeclared;
use gateway::counters::Counters;
use gateway::lifecycle::{OnClientLeft, Settings};
use gateway::limiter::Limiter;
use gateway::tokens::Tokenizers;
use gateway::upstream::Upstream;
use gateway::{Catalog, Clock, Gateway};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use store::credits::CreditKind;
use store::ledger::Ledger;
use store::prices::{PriceBook, PriceSource, PriceVersion};
use store::progress::Mark;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Requests that may be open at once; small enough to be reached.
const OPEN_MAX: usize = 24;
/// How long after the last request everything must be settled.
const QUIET_WITHIN: Duration = Duration::from_secs(600);

/// See the module's description.
pub struct World {
    dice: RefCell<Dice>,
    auditor: Rc<Auditor>,
    setting: Rc<Setting>,
    /// What is durable.
    disk: RefCell<Vec<Entry>>,
    /// What the disk is doing.
    writing: Cell<Writing>,
    outbox: Rc<Outbox>,
    /// Marks of processes that died, kept until what they tell is durable.
    left: RefCell<Vec<(Seq, Mark)>>,
    now: Cell<Timestamp>,
}

/// Where a group of entries is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Nothing,
    /// Taken from the queue, not durable.
    Taken,
    /// Durable, and nobody was told.
    Untold,
}

/// A process with everything around it: it ends by being dropped.
#[derive(Clone)]
pub struct Process {
    pub gateway: Arc<Gateway>,
    pub ledger: Arc<Ledger>,
    pub clock: Arc<Clock>,
    pub auditor: Rc<Auditor>,
    pub setting: Rc<Setting>,
    pub outbox: Rc<Outbox>,
}

impl World {
    /// A world by a seed.
    pub fn new(seed: u64, auditor: Rc<Auditor>) -> Rc<Self> {
        let mut dice = Dice(seed);
        let setting = Rc::new(Setting::new(&mut dice, &auditor));
        let now = Cell::new(setting.beginning);
        Rc::new(Self {
            dice: RefCell::new(dice),
            auditor,
            setting,
            disk: RefCell::new(Vec::new()),
            writing: Cell::new(Writing::Nothing),
            outbox: Rc::default(),
            left: RefCell::new(Vec::new()),
            now,
        })
    }

    fn roll(&self, sides: u64) -> u64 {
        self.dice.borrow_mut().roll(sides)
    }

    fn dice(&self) -> Dice {
        Dice(self.roll(u64::MAX))
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
        self.writing.set(Writing::Nothing);
        life.spawn_local(self.clone().keep_disk(process.ledger.clone()));
        life.spawn_local(self.clone().keep_house(process.clone()));
        let crash_after = Duration::from_millis(self.roll(2_500));
        let lives = async {
            self.recover(&process).await;
            if first {
                self.endow(&process);
            }
            let under_way = self.begin(&process);
            self.set_clock(&process).await;
            if last {
                self.come_to_rest(&process, under_way).await;
            } else {
                // The others go on until the process dies.
                std::future::pending::<()>().await;
            }
        };
        if last {
            return life.run_until(lives).await;
        }
        let _ = life.run_until(tokio::time::timeout(crash_after, lives)).await;
        self.now.set(process.clock.now());
        self.crash(&process);
        drop(life);
    }

    /// What the process leaves behind, and how long nobody is there.
    fn crash(&self, process: &Process) {
        self.auditor.note(|reached| {
            reached.crashes += 1;
            reached.groups_lost += u64::from(self.writing.get() == Writing::Taken);
            reached.groups_untold += u64::from(self.writing.get() == Writing::Untold);
        });
        self.left.borrow_mut().extend(process.ledger.slots().marks());
        if self.setting.odds.power && self.roll(2) == 0 {
            self.auditor.note(|reached| reached.power_cuts += 1);
            self.auditor.power_cut();
            self.left.borrow_mut().clear();
        }
        if self.setting.odds.forward && self.roll(4) == 0 {
            self.now.set(self.now.get().plus_ms(self.roll(259_200_000) as i64));
        }
    }

    /// A start serves nobody before what it resolved is durable.
    async fn recover(&self, process: &Process) {
        let resolved = process.ledger.queue().decided();
        while process.ledger.queue().committed() < resolved {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.left.borrow_mut().clear();
        for reference in self.outbox.waiting() {
            spawn_local(operator::deliver(process.clone(), reference));
        }
    }

    /// The first money of every account.
    fn endow(&self, process: &Process) {
        for &account in &self.setting.accounts {
            let (process, mut dice) = (process.clone(), self.dice());
            let amount = Nanos(200_000 + dice.roll(3_000_000) as i64);
            spawn_local(async move {
                operator::credit(process, account, CreditKind::Money(Origin::TopUp), amount, &mut dice).await;
            });
        }
    }

    /// Lets callers ask and operators act.
    fn begin(&self, process: &Process) -> Vec<JoinHandle<()>> {
        let callers = &self.setting.callers;
        let asking = (0..3 + self.roll(20)).map(|_| {
            let caller = callers[self.roll(callers.len() as u64) as usize].clone();
            let (process, dice, wait) = (process.clone(), self.dice(), Duration::from_millis(self.roll(1_500)));
            let is_direct = self.roll(3) > 0;
            spawn_local(async move {
                tokio::time::sleep(wait).await;
                if is_direct {
                    holder::ask(process, caller, dice).await
                } else {
                    caller::ask(process, caller, dice).await
                }
            })
        });
        let mut under_way: Vec<_> = asking.collect();
        under_way.extend((0..2 + self.roll(16)).map(|_| spawn_local(operator::act(process.clone(), self.dice()))));
        under_way
    }

    /// Nothing new comes; everything must come to an end.
    async fn come_to_rest(&self, process: &Process, under_way: Vec<JoinHandle<()>>) {
        for task in under_way {
            task.await.expect("neither callers nor operators panic");
        }
        let Process { ledger, outbox, .. } = process;
        let quiet = async {
            loop {
                for reference in outbox.waiting() {
                    operator::deliver(process.clone(), reference).await;
                }
                let all_durable = ledger.queue().committed() >= ledger.queue().decided();
                if all_durable && ledger.open_holds() == 0 && outbox.waiting().is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // The auditor reports what is open after this.
        let _ = tokio::time::timeout(QUIET_WITHIN, quiet).await;
        self.auditor.delivered(&outbox.refused());
        for &account in &self.setting.accounts {
            let book = ledger.read(account, Book::clone).await.expect("memory is always there");
            self.auditor.compare(account, &book);
            let mut again = Book::default();
            for entry in self.disk.borrow().iter().filter(|entry| entry.account == account) {
                if let Err(broken) = again.apply(entry) {
                    return self.auditor.contradiction(&format!("read again: {broken}"));
                }
            }
            self.auditor.compare(account, &again);
        }
    }

    fn start(&self) -> Process {
        let ledger = Ledger::in_memory_after(&self.disk.borrow(), OPEN_MAX).expect("what is durable can be read");
        let ledger = Arc::new(ledger);
        let marks: HashMap<_, _> = self.left.borrow().iter().cloned().collect();
        let lookup = |_: PriceId| Ok(self.setting.price.clone());
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
        let gateway = Gateway::new(
            ledger.clone(),
            clock.clone(),
            counters,
            Tokenizers::assumed(),
            Limiter::new(&[7; 32]),
            settings,
        );
        gateway.set_catalog(self.catalog(&ledger));
        let (auditor, setting, outbox) = (self.auditor.clone(), self.setting.clone(), self.outbox.clone());
        Process { gateway, ledger, clock, auditor, setting, outbox }
    }

    fn catalog(&self, ledger: &Arc<Ledger>) -> Catalog {
        let provider = Provider { seen: self.auditor.seen(), ledger: ledger.clone() };
        let upstream = Arc::new(Upstream::local("simulated", "simulated", Arc::new(provider)));
        let route = RouteDeclared {
            model: MODEL.into(),
            alias_of: None,
            upstream_model: None,
            upstreams: vec!["simulated".into()],
            wait_seconds: None,
        };
        let version = PriceVersion {
            id: PriceId(1),
            provider: None,
            model: MODEL.into(),
            source: PriceSource::Operator,
            mode: None,
            sheet: sheet(),
            retired: false,
            created_at: self.setting.beginning,
        };
        let book = PriceBook::from_versions(vec![version]).expect("the price compiles");
        Catalog::build(&[upstream], &[route], &book).expect("the route names its upstream")
    }

    /// The disk: makes groups durable after a while, and sometimes refuses for a while.
    async fn keep_disk(self: Rc<Self>, ledger: Arc<Ledger>) {
        let refuses = self.setting.odds.disk;
        loop {
            tokio::time::sleep(Duration::from_millis(1 + self.roll(8))).await;
            let group = ledger.queue().take_entries();
            let Some(last) = group.last().map(|entry| entry.seq) else { continue };
            self.writing.set(Writing::Taken);
            if refuses > 0 && self.roll(refuses) == 0 {
                self.auditor.note(|reached| reached.disk_failures += 1);
                ledger.queue().report_failure();
                tokio::time::sleep(Duration::from_millis(self.roll(3_000))).await;
            }
            // From here on the group is durable, whether or not anybody is told.
            self.auditor.durable(&group);
            self.disk.borrow_mut().extend(group);
            self.writing.set(Writing::Untold);
            let slow = if self.roll(16) == 0 { 200 } else { 4 };
            tokio::time::sleep(Duration::from_millis(self.roll(slow))).await;
            ledger.queue().confirm(last);
            self.writing.set(Writing::Nothing);
        }
    }

    /// What a serving process does beside serving: sweep, and post what the calendar asks for.
    async fn keep_house(self: Rc<Self>, process: Process) {
        let Process { ledger, clock, setting, .. } = &process;
        loop {
            tokio::time::sleep(Duration::from_millis(500 + self.roll(5_000))).await;
            ledger
                .sweep(clock.steady(), clock.now(), &|_| Ok(setting.price.clone()))
                .expect("nothing stands in the way of sweeping");
            for &account in &setting.accounts {
                // While the disk refuses, the next round does it.
                let _ = ledger.touch(account, clock.now()).await;
            }
        }
    }

    /// Sets the clock: by up to two days, by minutes, or to where something ends.
    async fn set_clock(&self, process: &Process) {
        let Process { clock, setting, ledger, .. } = process;
        for _ in 0..self.roll(7) {
            tokio::time::sleep(Duration::from_millis(self.roll(400))).await;
            let now = clock.now();
            let account = setting.accounts[self.roll(setting.accounts.len() as u64) as usize];
            let ms = match self.roll(8) {
                0 => self.roll(172_800_000) as i64,
                1 => -(self.roll(172_800_000) as i64),
                2 => self.roll(600_000) as i64,
                3 => -(self.roll(600_000) as i64),
                4 => 60_000 + self.roll(10_000) as i64,
                _ => {
                    let ends = ledger.read(account, |book| ends(book, now)).await.expect("memory is always there");
                    let Some(end) = ends.get(self.roll(ends.len() as u64) as usize) else { continue };
                    self.auditor.note(|reached| reached.clock_at_boundary += 1);
                    // The last instant before, the very instant, or the one after.
                    end.0 - now.0 + self.roll(3) as i64 - 1
                }
            };
            if (ms > 0 && !setting.odds.forward) || (ms < 0 && !setting.odds.back) {
                continue;
            }
            self.auditor.note(|reached| {
                reached.clock_forward += u64::from(ms > 0);
                reached.clock_back += u64::from(ms < 0);
            });
            clock.jump(ms);
        }
    }
}

/// When something of an account ends, after `now`.
fn ends(book: &Book, now: Timestamp) -> Vec<Timestamp> {
    let cycle = book.subscription().map(|subscription| subscription.cycle.end);
    let counters = book.plan_counters().map(|(.., counter)| counter.until);
    let budgets = book.budgets().map(|(_, counter)| counter.until);
    let grants = book.grants().iter().filter_map(|grant| grant.expires_at);
    let week = now.plus_ms(7 * domain::time::DAY_MS);
    let mut ends: Vec<_> = cycle.into_iter().chain(counters).chain(budgets).chain(grants).collect();
    ends.retain(|end| now < *end && *end < week);
    ends.sort_unstable();
    ends
}
