//! The life of a key over a real database.

use super::*;
use crate::Ledger;
use crate::database::Options;
use crate::recovery;
use domain::ledger::{Ending as HoldEnding, Hold, Limits, Resolution};
use domain::{KeyId, PriceId, Usage};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const BODY: &[u8] = br#"{"model":"m"}"#;

struct Bench {
    records: Arc<Records>,
    database: Database,
    directory: TempDir,
}

impl Bench {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), u64::MAX).await
    }

    async fn start_in(directory: TempDir, kept_bytes_max: u64) -> Self {
        let database = Database::open(directory.path(), Options::default()).unwrap();
        let secrets = Secrets::open(directory.path()).unwrap();
        let settings = Settings { retention_ms: 0, answer_bytes_max: 100, kept_bytes_max };
        let records = Records::open(database.clone(), &secrets, settings).await.unwrap();
        Self { records, database, directory }
    }

    /// A process that died leaves its claims as they are; the next one opens the directory.
    async fn restart(self) -> Self {
        let Self { records, database, directory } = self;
        drop((records, database));
        Self::start_in(directory, u64::MAX).await
    }

    async fn begin(&self, tenant: &Tenant, key: &str, body: &[u8], id: &str, now: Timestamp) -> Begun {
        let content = [b"POST".as_slice(), b"/v1/x", body];
        let request =
            Request { tenant, key, content: &content, id: &id.into(), after: Some(Seq(0)), runs_again: false };
        self.records.begin(request, now).await.unwrap()
    }

    async fn first(&self, key: &str, id: &str) -> Claim {
        first(self.begin(&mine(), key, BODY, id, NOW).await)
    }

    async fn again(&self, key: &str) -> Begun {
        self.begin(&mine(), key, BODY, "req_again", NOW).await
    }

    async fn states(&self) -> Vec<String> {
        let read = |connection: &crate::sql::Connection| {
            let mut statement = connection.prepare("select state from idempotency order by id")?;
            let states = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(states)
        };
        self.database.read(read).await.unwrap()
    }

    /// Waits until what was dropped is written.
    async fn written(&self) {
        while self.records.open_claims() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn mine() -> Tenant {
    Tenant::account(AccountId(7))
}

#[track_caller]
fn first(begun: Begun) -> Claim {
    match begun {
        Begun::First(claim) => claim,
        _ => panic!("the key is taken"),
    }
}

#[track_caller]
fn ended(begun: Begun) -> Ended {
    match begun {
        Begun::Ended(ended) => ended,
        Begun::First(_) => panic!("the key is free"),
        Begun::Running => panic!("running"),
        Begun::Mismatch => panic!("mismatch"),
        Begun::Unknown => panic!("unknown"),
    }
}

fn headers() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), "application/json".to_owned())]
}

#[tokio::test]
async fn m_21_an_answer_is_kept_and_given_again() {
    let bench = Bench::start().await;
    let claim = bench.first("k", "req_1").await;
    assert!(matches!(bench.again("k").await, Begun::Running));
    claim.keep(201, &headers(), b"the answer", Some(Nanos(5)), NOW).await;
    for _ in 0..2 {
        let Ended { request_id, cost, outcome } = ended(bench.again("k").await);
        assert_eq!((request_id.as_str(), cost), ("req_1", Some(Nanos(5))));
        let Outcome::Answer(answer) = outcome else { panic!("{outcome:?}") };
        assert_eq!(answer, Answer { status: 201, headers: headers(), body: b"the answer".to_vec() });
    }
    assert_eq!(bench.records.open_claims(), 0);
    // It also outlives the process.
    let bench = bench.restart().await;
    assert!(matches!(ended(bench.again("k").await).outcome, Outcome::Answer(_)));
}

#[tokio::test]
async fn m_21_an_answer_that_is_too_large_is_noted_and_not_kept() {
    let bench = Bench::start().await;
    bench.first("k", "req_1").await.keep(200, &headers(), &[b'x'; 101], Some(Nanos(5)), NOW).await;
    let Ended { cost, outcome, .. } = ended(bench.again("k").await);
    assert!(matches!(outcome, Outcome::Lost(Lost::TooLarge)) && cost == Some(Nanos(5)), "{outcome:?}");
    bench.first("l", "req_2").await.keep(200, &headers(), &[b'x'; 100], None, NOW).await;
    assert!(matches!(ended(bench.again("l").await).outcome, Outcome::Answer(_)));
}

#[tokio::test]
async fn what_is_kept_in_all_is_bounded() {
    let bench = Bench::start_in(tempfile::tempdir().unwrap(), 300).await;
    bench.records.upkeep(NOW).await.unwrap();
    let is_kept = async |bench: &Bench, key: &str, now: Timestamp| {
        let claim = first(bench.begin(&mine(), key, BODY, "req", now).await);
        claim.keep(200, &[], &[b'x'; 90], None, now).await;
        let ended = ended(bench.begin(&mine(), key, BODY, "req", now).await);
        matches!(ended.outcome, Outcome::Answer(_))
    };
    assert!(is_kept(&bench, "a", NOW).await && is_kept(&bench, "b", NOW).await);
    assert!(!is_kept(&bench, "c", NOW).await);
    // What makes room: a key that is used anew, and upkeep. What an earlier process has kept counts.
    let later = NOW.plus_ms(DAY_MS);
    assert!(is_kept(&bench, "a", later).await && !is_kept(&bench, "d", later).await);
    let Bench { records, database, directory } = bench;
    drop((records, database));
    let bench = Bench::start_in(directory, 300).await;
    bench.records.upkeep(NOW).await.unwrap();
    assert!(!is_kept(&bench, "e", later).await);
    bench.records.upkeep(later).await.unwrap();
    assert!(is_kept(&bench, "f", later).await && !is_kept(&bench, "g", later).await);
}

#[tokio::test]
async fn m_22_i_35_a_key_is_one_request_of_one_tenant() {
    let bench = Bench::start().await;
    let _claim = bench.first("k", "req_1").await;
    assert!(matches!(bench.begin(&mine(), "k", b"other", "req_2", NOW).await, Begun::Mismatch));
    let others = [Tenant::account(AccountId(8)), Tenant::operator("7"), Tenant::operator("account:7")];
    for tenant in &others {
        first(bench.begin(tenant, "k", BODY, "req_3", NOW).await).release().await;
    }
    first(bench.begin(&mine(), "K", BODY, "req_4", NOW).await).release().await;
    // Parts cannot be shifted into one another.
    let content = [b"POST".as_slice(), b"/v1/x{", &BODY[1..]];
    let request =
        Request { tenant: &mine(), key: "k", content: &content, id: &"req_5".into(), after: None, runs_again: false };
    assert!(matches!(bench.records.begin(request, NOW).await, Ok(Begun::Mismatch)));
}

#[tokio::test]
async fn m_22_of_many_at_once_one_wins() {
    let bench = Arc::new(Bench::start().await);
    let mut contenders = tokio::task::JoinSet::new();
    for number in 0..64 {
        let bench = bench.clone();
        contenders.spawn(async move { bench.begin(&mine(), "k", BODY, &format!("req_{number}"), NOW).await });
    }
    let begun = contenders.join_all().await;
    let won = begun.iter().filter(|begun| matches!(begun, Begun::First(_))).count();
    let waiting = begun.iter().filter(|begun| matches!(begun, Begun::Running)).count();
    assert_eq!((won, waiting), (1, 63));
}

#[tokio::test]
async fn m_23_after_its_time_a_key_is_new() {
    let bench = Bench::start().await;
    bench.first("k", "req_1").await.keep(200, &[], b"one", None, NOW).await;
    bench.first("l", "req_2").await.lose(Lost::CallerLeft, None, NOW).await;
    let claim = bench.first("running", "req_3").await;
    // A day counts from the end, whatever was configured below it.
    let before = NOW.plus_ms(DAY_MS - 1);
    bench.records.upkeep(before).await.unwrap();
    ended(bench.begin(&mine(), "k", b"{\"model\":\"m\"}", "req_4", before).await);
    let after = NOW.plus_ms(DAY_MS);
    // Without waiting for the upkeep, and for another request.
    let second = first(bench.begin(&mine(), "k", b"other", "req_5", after).await);
    bench.records.upkeep(after).await.unwrap();
    assert_eq!(bench.states().await, ["running", "running"]);
    second.keep(200, &[], b"two", None, after).await;
    claim.release().await;
    assert_eq!(bench.states().await, ["done"]);
}

#[tokio::test]
async fn m_23_pruning_takes_everything_that_is_over_and_nothing_else() {
    let bench = Bench::start().await;
    for number in 0..200 {
        let claim = bench.first(&number.to_string(), "req").await;
        claim.keep(200, &[], b"", None, NOW.plus_ms(number % 2 * 1000)).await;
    }
    bench.records.upkeep(NOW.plus_ms(DAY_MS)).await.unwrap();
    assert_eq!(bench.states().await.len(), 100);
    bench.records.upkeep(NOW.plus_ms(DAY_MS + 1000)).await.unwrap();
    assert_eq!(bench.states().await.len(), 0);
}

#[tokio::test]
async fn m_25_a_released_key_is_free() {
    let bench = Bench::start().await;
    bench.first("k", "req_1").await.release().await;
    first(bench.begin(&mine(), "k", b"other", "req_2", NOW).await).release().await;
    assert!(bench.states().await.is_empty());
}

/// One that may run again does, once at a time, and its answer is kept like any other.
#[tokio::test]
async fn m_24_what_broke_off_runs_again_where_that_is_safe() {
    let bench = Bench::start().await;
    drop(bench.first("k", "req_1").await);
    bench.written().await;
    assert!(matches!(bench.again("k").await, Begun::Unknown));
    let begin = async |bench: &Bench, body: &[u8], id: &str, now: i64| {
        let (tenant, id) = (mine(), id.into());
        let content = [b"POST".as_slice(), b"/v1/x", body];
        let request = Request { tenant: &tenant, key: "k", content: &content, id: &id, after: None, runs_again: true };
        bench.records.begin(request, Timestamp(NOW.0 + now)).await.unwrap()
    };
    assert!(matches!(begin(&bench, b"other", "req_2", 1).await, Begun::Mismatch));
    let second = first(begin(&bench, BODY, "req_2", 1).await);
    assert_eq!(second.broke_off(), Some(NOW));
    assert!(matches!(begin(&bench, BODY, "req_3", 1).await, Begun::Running));
    // It breaks off as well, and upkeep has looked: the same once more, with the time of the very first.
    let reference = second.reference();
    drop(second);
    bench.written().await;
    bench.records.upkeep(NOW).await.unwrap();
    let third = first(begin(&bench, BODY, "req_3", 2).await);
    assert_eq!((third.broke_off(), third.reference()), (Some(NOW), reference));
    third.lose(Lost::Interrupted, None, NOW).await;
    let fourth = first(begin(&bench, BODY, "req_4", 3).await);
    fourth.keep(200, &headers(), b"done", None, NOW).await;
    let kept = ended(begin(&bench, BODY, "req_5", 4).await);
    assert_eq!(kept.request_id, "req_4");
    assert!(matches!(kept.outcome, Outcome::Answer(Answer { status: 200, .. })), "{kept:?}");
    // An answer that was lost otherwise is not run again.
    bench.first("l", "req_6").await.lose(Lost::TooLarge, None, NOW).await;
    let content = [b"POST".as_slice(), b"/v1/x", BODY];
    let large =
        Request { tenant: &mine(), key: "l", content: &content, id: &"r".into(), after: None, runs_again: true };
    assert!(matches!(bench.records.begin(large, NOW).await.unwrap(), Begun::Ended(_)));
}

#[tokio::test]
async fn what_a_request_writes_late_does_not_touch_another_s_row() {
    let bench = Bench::start().await;
    let late = bench.first("k", "req_1").await;
    bench.database.write(|tx| Ok(tx.execute("delete from idempotency", [])?)).await.unwrap();
    let present = bench.first("k", "req_2").await;
    late.release().await;
    assert!(matches!(bench.again("k").await, Begun::Running));
    present.release().await;
}

#[tokio::test]
async fn a_claim_that_is_dropped_is_unknown_until_upkeep_and_then_lost() {
    let bench = Bench::start().await;
    drop(bench.first("k", "req_1").await);
    bench.written().await;
    assert!(matches!(bench.again("k").await, Begun::Unknown));
    bench.records.upkeep(NOW).await.unwrap();
    let Ended { request_id, cost, outcome } = ended(bench.again("k").await);
    assert_eq!((request_id.as_str(), cost), ("req_1", Some(Nanos::ZERO)));
    assert!(matches!(outcome, Outcome::Lost(Lost::Interrupted)));
}

#[tokio::test]
async fn a_claim_that_nobody_waited_for_is_taken_back() {
    let bench = Bench::start().await;
    {
        let content = [BODY];
        let (tenant, id) = (mine(), Arc::from("req_1"));
        let request = Request { tenant: &tenant, key: "k", content: &content, id: &id, after: None, runs_again: false };
        let mut begin = Box::pin(bench.records.begin(request, NOW));
        // Polled once, so that the change is on its way, and then dropped.
        std::future::poll_fn(|context| {
            assert!(begin.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    bench.written().await;
    assert!(bench.states().await.is_empty());
}

/// A hold for a request, as the gateway opens it.
fn hold(request: &str) -> Hold {
    Hold {
        key: KeyId(1),
        request: request.into(),
        model: "m".into(),
        upstream: "u".into(),
        price: PriceId(1),
        amount: Nanos(100),
        bound: Usage::tokens(10, 10),
        multiplier: domain::Multiplier::ONE,
        parts: Default::default(),
        counted: Arc::default(),
        lease_until: Timestamp(i64::MAX),
    }
}

#[tokio::test]
async fn m_24_after_a_crash_the_journal_tells_what_was_charged() {
    let bench = Bench::start().await;
    let (ledger, _) = Ledger::open(bench.database.clone(), JOURNAL_ROWS as usize).unwrap();
    let account = AccountId(7);
    ledger.top_up(account, Nanos(1_000_000), "", NOW).await.unwrap();
    let open = async |request: &str| ledger.hold(account, &hold(request), &Limits::default(), NOW).await.unwrap();
    let settle = |cost: i64| Resolution::Settle {
        usage: Usage::tokens(1, 1),
        service_tier: None,
        cost: Nanos(cost),
        ending: HoldEnding::Complete,
        estimated: false,
    };
    // More rows than are read at once.
    for _ in 0..JOURNAL_ROWS / 2 {
        let held = open("req_noise").await;
        ledger.resolve(held, settle(1), NOW);
    }
    let claims = [
        bench.first("settled", "req_settled").await,
        bench.first("voided", "req_voided").await,
        bench.first("twice", "req_twice").await,
        bench.first("open", "req_open").await,
        bench.first("none", "req_none").await,
        first(bench.begin(&Tenant::operator("o"), "k", BODY, "req_operator", NOW).await),
    ];
    let held = open("req_settled").await;
    ledger.resolve(held, settle(42), NOW);
    let held = open("req_voided").await;
    ledger.resolve(held, Resolution::Void { ending: HoldEnding::UpstreamCut }, NOW);
    for cost in [3, 4] {
        let held = open("req_twice").await;
        ledger.resolve(held, settle(cost), NOW);
    }
    let _left_open = open("req_open").await;
    ledger.flush().await.unwrap();
    drop((claims, ledger));
    bench.written().await;
    // As a process leaves them that dies.
    bench.database.write(|tx| Ok(tx.execute("update idempotency set state = 'running'", [])?)).await.unwrap();

    let bench = bench.restart().await;
    for key in ["settled", "voided", "twice", "open", "none"] {
        assert!(matches!(bench.again(key).await, Begun::Unknown), "{key}");
    }
    bench.records.upkeep(NOW).await.unwrap();
    // What holds money may still be charged.
    assert!(matches!(bench.again("open").await, Begun::Unknown));
    let (ledger, marks) = Ledger::open(bench.database.clone(), 100).unwrap();
    recovery::resolve_left_open(&ledger, &bench.database, marks, NOW).await.unwrap();
    bench.records.upkeep(NOW).await.unwrap();
    for (key, cost) in [("settled", 42), ("voided", 0), ("twice", 7), ("open", 0), ("none", 0)] {
        let Ended { request_id, cost: found, outcome } = ended(bench.again(key).await);
        assert_eq!((request_id, found), (format!("req_{key}"), Some(Nanos(cost))), "{key}");
        assert!(matches!(outcome, Outcome::Lost(Lost::Interrupted)), "{key}");
    }
}

#[tokio::test]
async fn s_11_neither_key_nor_request_nor_answer_is_readable_in_the_database() {
    let bench = Bench::start().await;
    let (key, body, answer) = (&"canary-key-".repeat(3), b"canary-prompt", b"canary-answer-sk-secret");
    let claim = first(bench.begin(&mine(), key, body, "req_1", NOW).await);
    assert!(!claim.reference().contains("canary"));
    claim.keep(200, &headers(), answer, None, NOW).await;
    let files = std::fs::read_dir(bench.directory.path()).unwrap();
    for file in files.map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{}", file.display());
    }
    // With another pepper a key is unknown, and a row that is found all the same does not open.
    let bench = bench.restart().await;
    let Outcome::Answer(stored) = ended(bench.begin(&mine(), key, body, "req_2", NOW).await).outcome else {
        panic!("the answer is kept");
    };
    assert_eq!(stored.body, answer);
    bench.database.write(|tx| Ok(tx.execute("update idempotency set body = x'00010203'", [])?)).await.unwrap();
    let damaged = ended(bench.begin(&mine(), key, body, "req_3", NOW).await).outcome;
    assert!(matches!(damaged, Outcome::Lost(Lost::Interrupted)));
}
