//! From the first schema to the last, with rows of every kind that the first one had.

use super::*;
use crate::database::MIGRATIONS;
use crate::sql::Session;
use crate::statement::statement;
use domain::time::DAY_MS;
use rusqlite::Batch;
use rusqlite::fallible_iterator::FallibleIterator;
use std::path::Path;

/// Killed after each so manieth statement: each kill repeats all before it, and PostgreSQL forgets them all alike.
const KILL_STEP: usize = 4;

/// What a gateway of the first release left behind, killed with a hold open and sums that reach row 8.
fn legacy_rows() -> String {
    let at = |seq: i64| START.0 + seq;
    let usage = |input, output| serde_json::to_string(&Usage::tokens(input, output)).unwrap();
    let mut sql = format!(
        "insert into accounts (name, created_at) values ('acme', {start}), ('other', {start});
         insert into keys (account, name, hint, created_at) values (1, 'ci', 'sk-tg…1', {start});
         insert into prices (model, source, sheet, created_at)
           values ('m', 'config', '{{\"input_per_million\":\"1.00\",\"output_per_million\":\"2.00\"}}', {start});",
        start = START.0
    );
    let fund = |seq: i64, account: i64, amount: i64, note: &str| {
        format!(
            "insert into journal (seq, at, kind, account, available, held, spent, debt, funding, note)
             values ({seq}, {}, 1, {account}, {amount}, 0, 0, 0, {}, {note});",
            at(seq),
            -amount
        )
    };
    let hold = |seq: i64, input, output| {
        let amount = cost(input, output).0;
        format!(
            "insert into journal (seq, at, kind, account, available, held, spent, debt, funding, key, price, lease_until,
                                  usage, model, upstream, request)
             values ({seq}, {}, 2, 1, {}, {amount}, 0, 0, 0, 1, 1, {}, '{}', 'm', 'u', 'req_{seq}');",
            at(seq),
            -amount,
            at(seq) + 1_000,
            usage(input, output)
        )
    };
    // Settle, expire and late charge.
    let charge = |seq: i64, kind: i64, hold: i64, released: i64, (input, output): (u64, u64), ending: Ending| {
        let cost = cost(input, output).0;
        format!(
            "insert into journal (seq, at, kind, account, available, held, spent, debt, funding, key, hold, price, ending,
                                  estimated, usage, model, service_tier)
             values ({seq}, {}, {kind}, 1, {}, {}, {cost}, 0, 0, 1, {hold}, 1, {}, 0, '{}', 'm', null);",
            at(seq),
            released - cost,
            -released,
            ending as i64,
            usage(input, output)
        )
    };
    for row in [
        fund(1, 1, 1_000_000, "'it''s \"quoted\" \\ \u{e9}'"),
        fund(2, 2, 500, "null"),
        hold(3, 100, 100),
        charge(4, 3, 3, cost(100, 100).0, (90, 50), Ending::Complete),
        hold(5, 100, 0),
        format!(
            "insert into journal (seq, at, kind, account, available, held, spent, debt, funding, key, hold, ending)
             values (6, {}, 4, 1, 100000, -100000, 0, 0, 0, 1, 5, {});",
            at(6),
            Ending::UpstreamCut as i64
        ),
        hold(7, 50, 0),
        charge(8, 5, 7, cost(50, 0).0, (10, 0), Ending::LeaseLapsed),
        hold(9, 50, 0),
        charge(10, 5, 9, cost(50, 0).0, (0, 0), Ending::LeaseLapsed),
        charge(11, 6, 9, 0, (5, 0), Ending::Complete),
        fund(12, 1, -1_000, "'taken out'"),
        hold(13, 20, 20),
    ] {
        sql.push_str(&row);
    }
    sql.push_str(&format!(
        "insert into balances values (1, 800000, 0, 200000, 0, -1000000), (2, 500, 0, 0, 0, -500);
         insert into key_totals values (1, 200000, 0, 150, 0, 2, {});
         insert into usage_daily values (1, {}, 'm', 1, 2, 100, 0, 50, 200000);
         update progress set applied = 8, oldest_open = 9;",
        at(8),
        START.day()
    ));
    sql
}

async fn check(world: World) {
    let mut world = world;
    world.open_again().await;
    assert_eq!(world.ledger().open_holds(), 0);
    world.settle_down().await;
    let verified = world.verified().await;
    // Thirteen rows, and the void of the hold that was left open.
    assert_eq!((verified.entries, verified.charges, verified.accounts), (14, 3, 2));
    let totals = world.totals(1).await;
    assert_eq!((totals.available, totals.spent), (Nanos(794_000), Nanos(205_000)));
    assert_eq!(world.totals(2).await.available, Nanos(500));
    let key = world.ledger().key_totals(AccountId(1), KeyId(1)).await.unwrap();
    assert_eq!((key.used, key.used_tokens, key.requests), (Nanos(205_000), 155, 3));
    let read = world.database().read(|connection| {
        Ok([1, 2].map(|account| statement(connection, AccountId(account), START, START.plus_ms(DAY_MS)).unwrap()))
    });
    let [acme, other] = read.await.unwrap();
    let lines = acme.lines.iter().map(|line| (line.seq.0, line.kind, line.wallet.0)).collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            (1, "top_up", 1_000_000),
            (4, "charge", -190_000),
            (8, "charge", -10_000),
            (10, "charge", 0),
            (11, "charge", -5_000),
            (12, "top_up", -1_000)
        ]
    );
    assert_eq!(acme.lines[0].text.as_deref(), Some("it's \"quoted\" \\ \u{e9}"));
    assert_eq!((acme.opening.funds, acme.closing.funds), (Nanos::ZERO, Nanos(794_000)));
    assert_eq!((other.lines.len(), other.lines[0].text.as_deref()), (1, Some("")));
    // And on it goes.
    world.top_up(1, 7, START.plus_ms(DAY_MS)).await;
    world.finish(&[1, 2]).await;
}

fn legacy_sqlite(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("pragma journal_mode = wal").unwrap();
    connection.execute_batch(MIGRATIONS[0].sqlite).unwrap();
    connection.execute_batch(&legacy_rows()).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
}

fn legacy_postgres() -> ScratchDatabase {
    let scratch = fixtures::postgres::database();
    scratch.run(MIGRATIONS[0].postgres).unwrap();
    scratch
        .run(
            "create table schema_version (one bigint primary key check (one = 1), version bigint not null);
             insert into schema_version values (1, 1)",
        )
        .unwrap();
    scratch.run(&legacy_rows()).unwrap();
    scratch
}

fn world_in(directory: TempDir, postgres: Option<ScratchDatabase>) -> World {
    World { place: Place::Stored(directory, postgres), open: None, price: PriceId(1) }
}

#[tokio::test]
async fn rows_of_every_old_kind_survive_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    drop(legacy_sqlite(&directory.path().join("tollgate.db")));
    check(world_in(directory, None)).await;
}

#[tokio::test]
async fn rows_of_every_old_kind_survive_on_postgres() {
    check(world_in(tempfile::tempdir().unwrap(), Some(legacy_postgres()))).await;
}

#[tokio::test]
async fn k_12_killed_after_any_statement_of_any_migration_sqlite_is_as_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollgate.db");
    let connection = legacy_sqlite(&path);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(1) {
        let schema = "select group_concat(sql) from sqlite_schema";
        let before: String = connection.query_row(schema, [], |row| row.get(0)).unwrap();
        connection.execute_batch("begin immediate").unwrap();
        let mut statements = Batch::new(&connection, migration.sqlite);
        while let Some(mut statement) = statements.next().unwrap() {
            statement.raw_execute().unwrap();
            drop(statement);
            // The files as they are at this moment are what a kill leaves.
            let left = tempfile::tempdir().unwrap();
            for name in ["tollgate.db", "tollgate.db-wal"] {
                std::fs::copy(directory.path().join(name), left.path().join(name)).unwrap();
            }
            let found = rusqlite::Connection::open(left.path().join("tollgate.db")).unwrap();
            let version: usize = found.query_row("pragma user_version", [], |row| row.get(0)).unwrap();
            let after: String = found.query_row(schema, [], |row| row.get(0)).unwrap();
            assert_eq!((version, &after), (index, &before));
        }
        connection.execute_batch(&format!("pragma user_version = {}; commit", index + 1)).unwrap();
    }
    drop(connection);
    check(world_in(directory, None)).await;
}

#[tokio::test]
async fn k_12_killed_in_the_middle_of_any_migration_postgres_is_as_before_it() {
    let scratch = legacy_postgres();
    let url = PostgresUrl::parse(&scratch.url).unwrap();
    let schema = "select count(*), (select version from schema_version) from information_schema.columns
                  where table_schema = 'public'";
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(1) {
        let statements = statements(migration.postgres);
        let before = scratch.run(schema).unwrap();
        for killed_after in (1..=statements.len()).rev().step_by(KILL_STEP) {
            let session = Session::connect(&url).unwrap();
            session.begin_unfenced().unwrap();
            for statement in &statements[..killed_after] {
                session.batch(statement).unwrap();
            }
            // In the middle of a transaction: it is aborted, as when the process is gone.
            drop(session);
        }
        assert_eq!(scratch.run(schema).unwrap(), before);
        scratch.run(migration.postgres).unwrap();
        scratch.run(&format!("update schema_version set version = {}", index + 1)).unwrap();
    }
    check(world_in(tempfile::tempdir().unwrap(), Some(scratch))).await;
}

/// The statements of a migration; none of the later ones has a semicolon inside of one.
fn statements(sql: &str) -> Vec<&str> {
    sql.split_inclusive(";\n").filter(|statement| !statement.trim().is_empty()).collect()
}
