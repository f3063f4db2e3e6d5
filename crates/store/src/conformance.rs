//! One body of tests for every place that a ledger can live in: memory, SQLite, PostgreSQL.
//!
//! Each test gets a [`World`] and cannot tell which it is, but for [`World::is_stored`]. It ends with [`World::finish`]:
//! everything that was posted is verified from nothing, and nothing is left behind.

mod budgets_and_plans;
mod definitions;
mod failures;
mod holds;
mod limits;
mod migrations;

use crate::database::{Database, Options, StoreError};
use crate::ledger::{HoldError, Ledger, OpenedHold, Resolved};
use crate::prices::{self, PriceSource};
use crate::sql::PostgresUrl;
use crate::verify::{Verified, verify};
use domain::ledger::{Ending, Entry, Hold, Legs, Limits, Parts, Resolution};
use domain::{AccountId, KeyId, Multiplier, Nanos, PriceId, Seq, Timestamp, Usage};
use fixtures::ScratchDatabase;
use std::future::Future;
use std::sync::Arc;
use tempfile::TempDir;

/// The beginning of time in these tests: 1 January 2026.
const START: Timestamp = Timestamp(1_767_225_600_000);
/// Requests that may be open at once.
const OPEN_MAX: usize = 256;
/// What the tests' model costs, in nano-USD a token.
const INPUT: i64 = 1_000;
const OUTPUT: i64 = 2_000;

/// Tests over every kind of place.
macro_rules! everywhere {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(crate::conformance::World::memory().await).await; })*
        }
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(crate::conformance::World::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name(crate::conformance::World::postgres().await).await; })*
        }
    };
}
use everywhere;

/// The same over the databases only.
macro_rules! on_databases {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(crate::conformance::World::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name(crate::conformance::World::postgres().await).await; })*
        }
    };
}
use on_databases;

/// A ledger and where it lives.
struct World {
    place: Place,
    /// `None` for a moment while it is opened again.
    open: Option<Open>,
    price: PriceId,
}

struct Open {
    ledger: Arc<Ledger>,
    /// `None` in memory.
    database: Option<Database>,
}

enum Place {
    /// The entries that were made durable.
    Memory(parking_lot::Mutex<Vec<Entry>>),
    Stored(TempDir, Option<ScratchDatabase>),
}

impl World {
    async fn memory() -> Self {
        let open = Open { ledger: Arc::new(Ledger::in_memory(OPEN_MAX)), database: None };
        Self { place: Place::Memory(parking_lot::Mutex::default()), open: Some(open), price: PriceId(1) }
    }

    async fn sqlite() -> Self {
        Self::stored(None).await
    }

    async fn postgres() -> Self {
        Self::stored(Some(fixtures::postgres::database())).await
    }

    async fn stored(postgres: Option<ScratchDatabase>) -> Self {
        let place = Place::Stored(tempfile::tempdir().unwrap(), postgres);
        let mut world = Self { place, open: None, price: PriceId(0) };
        world.open_again().await;
        let set =
            world.database().write(move |tx| prices::set(tx, None, "m", PriceSource::Config, None, &sheet(), START));
        world.price = set.await.unwrap().id;
        world
    }

    /// What the tests' model costs, compiled.
    fn compiled() -> Arc<domain::price::Price> {
        Arc::new(sheet().compile().unwrap())
    }

    /// There is SQL behind it.
    fn is_stored(&self) -> bool {
        matches!(self.place, Place::Stored(..))
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.open.as_ref().expect("it is open").ledger
    }

    fn database(&self) -> &Database {
        self.open.as_ref().and_then(|open| open.database.as_ref()).expect("only where there is SQL")
    }

    /// The server's side of a PostgreSQL database.
    fn server_side(&self) -> Option<&ScratchDatabase> {
        match &self.place {
            Place::Stored(_, postgres) => postgres.as_ref(),
            Place::Memory(_) => None,
        }
    }

    /// Runs something that waits for durability. In memory somebody has to bring it about.
    async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let Place::Memory(durable) = &self.place else { return work.await };
        let commit = async {
            loop {
                let entries = self.ledger().queue().take_entries();
                if let Some(last) = entries.last().map(|entry| entry.seq) {
                    durable.lock().extend(entries);
                    self.ledger().queue().confirm(last);
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = commit => unreachable!("it has no end"),
        }
    }

    /// Everything that was decided is durable.
    async fn settle_down(&self) {
        let last = self.ledger().queue().decided();
        self.run(self.ledger().durable(last)).await.unwrap();
        self.ledger().flush().await.unwrap();
    }

    /// Ends and starts again, with what is durable. Holds that were open then are resolved as after a crash, by `marked`.
    async fn restart(&mut self) {
        self.settle_down().await;
        self.open_again().await;
    }

    async fn open_again(&mut self) {
        self.open = None;
        let (directory, postgres) = match &self.place {
            Place::Memory(durable) => {
                let ledger = Arc::new(Ledger::in_memory_after(&durable.lock(), OPEN_MAX).unwrap());
                let holds =
                    ledger.resolve_left_open(&Default::default(), START, &|_| unreachable!("nothing is marked"));
                holds.unwrap();
                self.open = Some(Open { ledger, database: None });
                return self.settle_down().await;
            }
            Place::Stored(directory, postgres) => (directory, postgres),
        };
        let postgres = postgres.as_ref().map(|scratch| PostgresUrl::parse(&scratch.url).unwrap());
        let database = Database::open(directory.path(), Options { postgres, ..Options::default() }).unwrap();
        let (ledger, marks) = Ledger::open(database.clone(), OPEN_MAX).unwrap();
        crate::recovery::resolve_left_open(&ledger, &database, marks, START).await.unwrap();
        self.open = Some(Open { ledger: Arc::new(ledger), database: Some(database) });
    }

    /// Puts money in.
    async fn top_up(&self, account: i64, amount: i64, now: Timestamp) -> Seq {
        self.run(self.ledger().top_up(AccountId(account), Nanos(amount), "test", now)).await.unwrap()
    }

    /// A hold of so many tokens, prompt and answer.
    async fn hold(
        &self,
        account: i64,
        tokens: (u64, u64),
        limits: &Limits,
        now: Timestamp,
    ) -> Result<OpenedHold, HoldError> {
        self.ledger().hold(AccountId(account), &self.terms(account, tokens, now), limits, now).await
    }

    fn terms(&self, account: i64, (input, output): (u64, u64), now: Timestamp) -> Hold {
        Hold {
            key: KeyId(account * 10),
            request: "req_1".into(),
            model: "m".into(),
            upstream: "u".into(),
            price: self.price,
            amount: cost(input, output),
            bound: Usage::tokens(input, output),
            lease_until: now.plus_ms(1_000),
            multiplier: Multiplier::ONE,
            parts: Parts::new(),
            counted: Arc::default(),
        }
    }

    fn settle(&self, hold: OpenedHold, (input, output): (u64, u64), now: Timestamp) -> Resolved {
        self.ledger().resolve(hold, used(input, output), now)
    }

    async fn totals(&self, account: i64) -> Legs {
        self.ledger().totals(AccountId(account)).await.unwrap()
    }

    /// What is stored, verified.
    async fn verified(&self) -> Verified {
        self.database().read(|connection| Ok(verify(connection).unwrap())).await.unwrap()
    }

    /// The end of every test: what is durable gives the same books as those in memory, and verifies.
    async fn finish(self, accounts: &[i64]) {
        self.settle_down().await;
        let mut totals = Vec::new();
        for account in accounts {
            totals.push(self.totals(*account).await);
        }
        if self.is_stored() {
            let verified = self.verified().await;
            assert_eq!(verified.open_holds as usize, self.ledger().open_holds());
            assert_eq!(Seq(verified.entries as i64), self.ledger().queue().decided());
        }
        if let Some(scratch) = self.server_side() {
            assert_nobody_idles_in_a_transaction(scratch);
        }
        let mut world = self;
        if world.ledger().open_holds() == 0 {
            world.open_again().await;
            for (account, totals) in accounts.iter().zip(totals) {
                assert_eq!(world.totals(*account).await, totals, "account {account} after a restart");
            }
        }
    }
}

/// D-19.
fn assert_nobody_idles_in_a_transaction(scratch: &ScratchDatabase) {
    let idle = "select count(*) from pg_stat_activity
                where datname = current_database() and state like 'idle in transaction%'";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    // The writer may be between two statements at this moment.
    while scratch.run(idle).unwrap() != "0" {
        assert!(std::time::Instant::now() < deadline, "a session stays inside a transaction");
    }
}

fn sheet() -> domain::price::PriceSheet {
    serde_json::from_str(r#"{"input_per_million":"1.00","output_per_million":"2.00"}"#).unwrap()
}

fn cost(input: u64, output: u64) -> Nanos {
    Nanos(input as i64 * INPUT + output as i64 * OUTPUT)
}

fn used(input: u64, output: u64) -> Resolution {
    Resolution::Settle {
        usage: Usage::tokens(input, output),
        service_tier: None,
        cost: cost(input, output),
        ending: Ending::Complete,
        estimated: false,
    }
}
