//! What PostgreSQL can do to a ledger: go away, come back as another, be taken over, leave an answer open.

use super::*;
use crate::testing::on;
use fixtures::postgres::{Postgres, Stop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sessions that write: the one of the journal.
const WRITERS: &str = "from pg_stat_activity where datname = current_database() and application_name = 'tollgate'";

/// Many requests at once until they are told to stop. What each knows to be durable has to be there in the end.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<Vec<(Seq, Seq)>>>,
}

impl Load {
    async fn start(world: &World, accounts: i64) -> Self {
        for account in 1..=accounts {
            world.top_up(account, 1_000_000_000_000, START).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..16).map(|worker| {
            let (ledger, stop) = (world.ledger().clone(), stop.clone());
            let account = 1 + worker % accounts;
            let terms = world.terms(account, (10, 10), START);
            tokio::spawn(async move {
                let mut durable = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let Ok(hold) = ledger.hold(AccountId(account), &terms, &Limits::default(), START).await else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let opened = hold.seq;
                    // As a request does: without a durable hold there is no answer, and nothing is charged.
                    let is_durable = ledger.durable(opened).await.is_ok();
                    let resolution =
                        if is_durable { used(10, 5) } else { Resolution::Void { ending: Ending::ClientLeft } };
                    let Resolved::Posted(seq) = ledger.resolve(hold, resolution, START) else { continue };
                    if is_durable && ledger.durable(seq).await.is_ok() {
                        durable.push((opened, seq));
                    }
                }
                durable
            })
        });
        let workers = workers.collect();
        Self { stop, workers }
    }

    /// Ends it; returns how many were confirmed, all of which are in the journal.
    async fn finish(self, world: &World) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut confirmed = Vec::new();
        for worker in self.workers {
            confirmed.extend(worker.await.unwrap());
        }
        let last = world.ledger().queue().decided();
        while world.ledger().durable(last).await.is_err() {}
        let count = confirmed.len();
        let charges = world.database().read(|connection| {
            let mut statement = connection.prepare("select hold, seq from journal where kind = 3")?;
            let mut rows = statement.scan([])?;
            let mut charges = std::collections::HashSet::new();
            while let Some(row) = rows.next()? {
                assert!(charges.insert((Seq(row.get(0)?), Seq(row.get(1)?))));
            }
            Ok(charges)
        });
        let charges = charges.await.unwrap();
        assert!(confirmed.iter().all(|pair| charges.contains(pair)), "what was confirmed is not there");
        count
    }
}

/// Waits until a question to the server is answered so.
fn wait_for(scratch: &ScratchDatabase, sql: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match scratch.run(sql) {
            Ok(answer) if answer == wanted => return,
            answer => assert!(Instant::now() < deadline, "{sql}: {answer:?}"),
        }
    }
}

async fn world_with_its_own_server() -> (World, Arc<Postgres>) {
    let server = Postgres::start().unwrap();
    let scratch = server.database().unwrap();
    (World::stored(Some(scratch)).await, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d_12_d_13_restarts_of_the_server_under_load_lose_nothing_that_was_confirmed() {
    let (world, server) = world_with_its_own_server().await;
    let load = Load::start(&world, 4).await;
    for how in [Stop::Fast, Stop::Immediate, Stop::Fast] {
        let before = world.ledger().queue().committed();
        while world.ledger().queue().committed().0 < before.0 + 50 {
            tokio::task::yield_now().await;
        }
        tokio::task::block_in_place(|| server.stop(how).unwrap());
        // Down: said within a second, not a hang.
        let down = Instant::now();
        while !world.ledger().queue().is_failing() {
            tokio::task::yield_now().await;
        }
        assert!(down.elapsed() < Duration::from_secs(1), "{:?}", down.elapsed());
        let asked = Instant::now();
        let refused = world.hold(1, (1, 1), &Limits::default(), START).await;
        assert!(matches!(refused, Err(HoldError::Unavailable)), "{refused:?}");
        assert!(world.database().write(|tx| Ok(tx.execute("update settings set value = value", [])?)).await.is_err());
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        tokio::task::block_in_place(|| server.resume().unwrap());
        let back = Instant::now();
        while world.ledger().queue().is_failing() {
            tokio::task::yield_now().await;
        }
        assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    }
    assert!(load.finish(&world).await > 0);
    world.finish(&[1, 2, 3, 4]).await;
}

#[tokio::test]
async fn d_12_the_end_of_the_process_does_not_wait_for_a_database_that_is_away() {
    let (world, server) = world_with_its_own_server().await;
    world.top_up(1, 1_000_000, START).await;
    let hold = world.hold(1, (1, 1), &Limits::default(), START).await.unwrap();
    server.stop(Stop::Fast).unwrap();
    world.settle(hold, (1, 1), START);
    let ended = Instant::now();
    drop(world);
    assert!(ended.elapsed() < Duration::from_secs(10), "{:?}", ended.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k_07_m_17_sessions_killed_in_the_middle_of_commits_leave_each_charge_once() {
    let world = World::postgres().await;
    let load = Load::start(&world, 4).await;
    for _ in 0..20 {
        let before = world.ledger().queue().committed();
        while world.ledger().queue().committed() == before {
            tokio::task::yield_now().await;
        }
        let kill = format!("select count(pg_terminate_backend(pid)) {WRITERS}");
        tokio::task::block_in_place(|| world.server_side().unwrap().run(&kill).unwrap());
    }
    assert!(load.finish(&world).await > 0);
    world.finish(&[1, 2, 3, 4]).await;
}

#[tokio::test]
async fn d_08_who_was_taken_over_posts_nothing_and_says_so() {
    let world = World::postgres().await;
    world.top_up(1, 1_000_000, START).await;
    let hold = world.hold(1, (10, 10), &Limits::default(), START).await.unwrap();
    world.settle_down().await;
    let scratch = world.server_side().unwrap();
    // This process is stopped for so long that its lease lapses, and another one starts.
    scratch.run("update node set lease_until = 0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let successor = Database::open(directory.path(), on(scratch)).unwrap();
    let rows = scratch.run("select count(*) from journal").unwrap();
    let Resolved::Posted(seq) = world.settle(hold, (10, 10), START) else { panic!("it was open") };
    let why = world.ledger().queue().ended().await;
    assert!(why.contains("taken over"), "{why}");
    assert!(world.ledger().queue().is_failing());
    // At once, for everybody: who waits, who comes, who changes something else, who wants exact sums.
    assert!(world.ledger().durable(seq).await.is_err());
    let refused = world.hold(1, (1, 1), &Limits::default(), START).await;
    assert!(matches!(refused, Err(HoldError::Unavailable)), "{refused:?}");
    assert!(world.ledger().top_up(AccountId(1), Nanos(5), "late", START).await.is_err());
    assert!(world.database().write(|tx| Ok(tx.execute("delete from settings", [])?)).await.is_err());
    assert!(world.ledger().flush().await.is_err());
    assert_eq!(scratch.run("select count(*) from journal").unwrap(), rows);
    // The successor finds the hold open, and works.
    let (ledger, marks) = Ledger::open(successor.clone(), OPEN_MAX).unwrap();
    assert_eq!(crate::recovery::resolve_left_open(&ledger, &successor, marks, START).await.unwrap(), 1);
    assert_eq!(ledger.totals(AccountId(1)).await.unwrap().available, Nanos(1_000_000));
    assert!(successor.read_now(|connection| Ok(verify(connection).is_ok())).unwrap());
}

#[tokio::test]
async fn d_08_an_idle_process_notices_that_it_was_taken_over() {
    let world = World::postgres().await;
    let scratch = world.server_side().unwrap();
    scratch.run("update node set epoch = epoch + 1").unwrap();
    let why = tokio::time::timeout(Duration::from_secs(10), world.ledger().queue().ended()).await.unwrap();
    assert!(why.contains("taken over"), "{why}");
}

#[tokio::test]
async fn d_14_what_a_failover_lost_is_posted_again_from_memory() {
    let mut world = World::postgres().await;
    let limits = Limits::default();
    world.top_up(1, 10_000_000, START).await;
    world.settle_down().await;
    let kept = world.ledger().queue().decided();
    let open = world.hold(1, (10, 10), &limits, START).await.unwrap();
    let hold = world.hold(1, (20, 20), &limits, START).await.unwrap();
    world.settle(hold, (20, 10), START);
    world.settle_down().await;
    let lost = world.ledger().queue().decided();
    // A standby that lacks the last rows takes over, with the sums as they were then.
    let scratch = world.server_side().unwrap();
    let fail_over = format!(
        "begin;
         select pg_terminate_backend(pid) {WRITERS} and pid <> pg_backend_pid();
         alter table journal disable trigger journal_is_append_only;
         delete from journal where seq > {kept};
         alter table journal enable trigger journal_is_append_only;
         update progress set applied = {kept}, oldest_open = {kept} + 1;
         update balances set available = 10000000, held = 0, spent = 0, last_seq = {kept};
         update account_daily set available = 10000000, held = 0, spent = 0, last_seq = {kept};
         delete from key_totals; delete from usage_daily;
         commit"
    );
    scratch.run(&fail_over).unwrap();
    world.settle(open, (10, 10), START);
    world.settle_down().await;
    let there = scratch.run(&format!("select count(*) from journal where seq > {kept} and seq <= {lost}")).unwrap();
    assert_eq!(there, (lost.0 - kept.0).to_string());
    world.verified().await;
    let totals = world.totals(1).await;
    assert_eq!(totals.spent, Nanos(cost(20, 10).0 + cost(10, 10).0));
    world.restart().await;
    assert_eq!(world.totals(1).await, totals);
    // What this process never posted, it cannot post again: then it stops rather than leave a gap.
    let scratch = world.server_side().unwrap();
    let fail_over = format!(
        "select pg_terminate_backend(pid) {WRITERS} and pid <> pg_backend_pid();
         alter table journal disable trigger journal_is_append_only;
         delete from journal where seq = {lost} + 1"
    );
    scratch.run(&fail_over).unwrap();
    assert!(world.ledger().top_up(AccountId(1), Nanos(5), "late", START).await.is_err());
    let why = world.ledger().queue().ended().await;
    assert!(why.contains("has lost"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d_15_a_wait_for_the_standby_that_is_cancelled_confirms_nothing() {
    let (world, server) = world_with_its_own_server().await;
    world.top_up(1, 1_000_000, START).await;
    let scratch = world.server_side().unwrap();
    let standby = |name: &str| {
        scratch.run(&format!("alter system set synchronous_standby_names = '{name}'")).unwrap();
        scratch.run("select pg_reload_conf()").unwrap();
        wait_for(scratch, "show synchronous_standby_names", name);
    };
    let waits = format!("select count(*) {WRITERS} and wait_event = 'SyncRep'");
    tokio::task::block_in_place(|| standby("nobody"));
    let hold = world.hold(1, (10, 10), &Limits::default(), START).await.unwrap();
    tokio::task::block_in_place(|| {
        wait_for(scratch, &waits, "1");
        let cancel = format!("select count(pg_cancel_backend(pid)) {WRITERS} and wait_event = 'SyncRep'");
        assert_eq!(scratch.run(&cancel).unwrap(), "1");
        // "Committed locally": it is looked after, in a commit that waits in its turn.
        wait_for(scratch, &format!("{waits} and query = 'commit'"), "1");
    });
    assert!(world.ledger().durable(hold.seq).await.is_err());
    assert!(world.ledger().queue().committed() < hold.seq);
    tokio::task::block_in_place(|| standby(""));
    while world.ledger().queue().is_failing() {
        tokio::task::yield_now().await;
    }
    world.ledger().durable(hold.seq).await.unwrap();
    world.settle(hold, (10, 10), START);
    world.finish(&[1]).await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d_22_a_slow_database_is_waited_for_within_bounds() {
    let world = World::postgres().await;
    world.top_up(1, 1_000_000, START).await;
    let scratch = world.server_side().unwrap().clone();
    let slow = std::thread::spawn(move || scratch.run("begin; update node set one = 1; select pg_sleep(2); commit"));
    let waits = format!("select count(*) {WRITERS} and wait_event_type = 'Lock'");
    let hold = loop {
        let hold = world.hold(1, (1, 1), &Limits::default(), START).await.unwrap();
        let blocked = tokio::task::block_in_place(|| world.server_side().unwrap().run(&waits).unwrap() == "1");
        if blocked {
            break hold;
        }
        world.settle(hold, (1, 1), START);
    };
    // Decisions go on; what has to be durable waits, and is.
    let more = world.hold(1, (1, 1), &Limits::default(), START).await.unwrap();
    world.ledger().durable(more.seq).await.unwrap();
    world.settle(hold, (1, 1), START);
    world.settle(more, (1, 1), START);
    tokio::task::block_in_place(|| slow.join().unwrap().unwrap());
    world.finish(&[1]).await;
}
