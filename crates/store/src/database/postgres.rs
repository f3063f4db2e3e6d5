//! Opening a PostgreSQL database: its schema, and the lease that makes this process the only one that writes.
//!
//! A process that died left its lease behind. A restart in the same data directory takes it over at once: whoever holds the
//! directory's lock on the same machine, and finds its own mark on the lease, knows that the former owner is gone.
//! Anybody else waits until the lease has lapsed. Either way the epoch grows, and what the former owner might still
//! send is refused by the database (D-08, D-09).

use super::{MIGRATIONS, StoreError};
use crate::sql::{Connection, DATABASE_NOW, Fence, OptionalExtension, PostgresUrl, Session};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How long the database belongs to a process that has stopped writing without saying so.
const LEASE: Duration = Duration::from_secs(10);
/// Under this number one migration waits for another. Until the transaction ends, so that no session has to remember.
const MIGRATION_LOCK: i64 = 0x746f_6c6c_6761_7465;

/// Connects as the one that writes: brings the schema up to date and takes the lease.
pub(super) fn open_writer(url: &PostgresUrl, directory: &Path, lock: &File) -> Result<(Connection, Fence), StoreError> {
    let mut connection = Connection::postgres(Session::connect(url)?);
    assert_utf8(&connection)?;
    create_schema(&mut connection, url)?;
    let fence = take_lease(&mut connection, url, directory, lock)?;
    connection.as_postgres_mut().expect("it was just made of one").set_fence(fence);
    migrate(&mut connection)?;
    Ok((connection, fence))
}

/// Connects again as the one that writes. Whether it still may, its first transaction will tell.
pub(super) fn reopen_writer(url: &PostgresUrl, fence: Fence) -> Result<Connection, StoreError> {
    let mut session = Session::connect(url)?;
    session.set_fence(fence);
    Ok(Connection::postgres(session))
}

fn assert_utf8(connection: &Connection) -> Result<(), StoreError> {
    let encoding: String = connection.query_row("select current_setting('server_encoding')", [], |row| row.get(0))?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(StoreError::Refused(format!("the database's encoding is {encoding}: create it with `encoding 'UTF8'`")))
}

/// The first migration, which brings the lease's table, needs no lease: it is done once, under a lock.
fn create_schema(connection: &mut Connection, url: &PostgresUrl) -> Result<(), StoreError> {
    let session = connection.as_postgres().expect("it was just made of one");
    let outcome = session.begin_unfenced().map_err(StoreError::from).and_then(|()| {
        connection
            .query_row("select 1 from (select pg_advisory_xact_lock(?1)) as locked", [MIGRATION_LOCK], |_| Ok(()))?;
        assert_nobody_elses(connection, url)?;
        connection.execute_batch(
            "create table if not exists schema_version (
               one bigint primary key check (one = 1), version bigint not null)",
        )?;
        let found: usize = connection
            .query_row("select version from schema_version", [], |row| row.get(0))
            .optional()?
            .unwrap_or_default();
        if found > MIGRATIONS.len() {
            let (database, known) = (url.to_string(), MIGRATIONS.len());
            return Err(StoreError::SchemaTooNew { database, found, known });
        }
        if found == 0 {
            connection.execute_batch(MIGRATIONS[0].postgres)?;
            connection.execute_batch("insert into schema_version values (1, 1)")?;
        }
        Ok(())
    });
    let ended = session.end(if outcome.is_ok() { "commit" } else { "rollback" });
    outcome?;
    Ok(ended?)
}

/// Tollgate's tables have common names, so it makes them only where nobody else has any: in a schema that is empty, but for
/// what extensions keep there, or has its own.
fn assert_nobody_elses(connection: &Connection, url: &PostgresUrl) -> Result<(), StoreError> {
    const HERE: &str = "from pg_class c join pg_namespace n on n.oid = c.relnamespace
                        where n.nspname = current_schema() and c.relkind in ('r', 'p')";
    let own = format!("select count(*) {HERE} and c.relname in ('schema_version', 'node')");
    if connection.query_row(&own, [], |row| row.get::<_, i64>(0))? == 2 {
        return Ok(());
    }
    let other = format!(
        "select c.relname, n.nspname {HERE} and not exists (
           select 1 from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
         order by c.relname limit 1"
    );
    let other = connection.query_row(&other, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let Some((table, schema)) = other.optional()? else { return Ok(()) };
    Err(StoreError::Refused(format!(
        "{url} has tables of something else in the schema {schema:?}, such as {table:?}: give the gateway a database of its \
         own, or an empty schema by ?options=-csearch_path%3DNAME"
    )))
}

/// Each further migration is one transaction with the version that it reaches: killed anywhere, the schema is old or new.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found: usize = connection.query_row("select version from schema_version", [], |row| row.get(0))?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration.postgres)?;
        transaction.execute("update schema_version set version = ?1", [index + 1])?;
        transaction.commit()?;
    }
    Ok(())
}

fn take_lease(
    connection: &mut Connection,
    url: &PostgresUrl,
    directory: &Path,
    lock: &File,
) -> Result<Fence, StoreError> {
    let place = place(directory, lock)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let owner = format!("process {} on {} with {}", std::process::id(), host.trim(), directory.display());
    // One statement is one transaction, and waits for whatever the former owner has under way.
    let epoch: Option<i64> = connection
        .query_row(
            &format!(
                "update node set epoch = epoch + 1, owner = ?1, place = ?2, lease_until = {DATABASE_NOW} + ?3
                 where one = 1 and (place = ?2 or lease_until < {DATABASE_NOW}) returning epoch"
            ),
            (owner, place, LEASE.as_millis() as u64),
            |row| row.get(0),
        )
        .optional()?;
    if let Some(epoch) = epoch {
        return Ok(Fence { epoch, lease: LEASE });
    }
    let (owner, left_ms): (String, i64) =
        connection.query_row(&format!("select owner, lease_until - {DATABASE_NOW} from node"), [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Err(StoreError::Leased { database: url.to_string(), owner, seconds: (left_ms.max(0) as u64).div_ceil(1_000) })
}

/// Which lock of which machine this process holds. The machine is known by its boot: after another, no process of the
/// earlier one is left, but neither is it known to be the same machine.
fn place(directory: &Path, lock: &File) -> Result<String, StoreError> {
    let failed = |source| StoreError::File { action: "read", path: directory.to_owned(), source };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(failed)?;
    let metadata = lock.metadata().map_err(failed)?;
    Ok(format!("{}:{}:{}", boot.trim(), metadata.dev(), metadata.ino()))
}

/// Gives the lease back, so that a successor anywhere need not wait.
pub(crate) fn give_back_lease(connection: &Connection, fence: Fence) {
    let given = connection.execute("update node set lease_until = 0 where one = 1 and epoch = ?1", [fence.epoch]);
    if let Err(error) = given {
        tracing::warn!(%error, "cannot give the database's lease back; it lapses by itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::sql::{Kind, Transaction};
    use crate::testing::{databases, on};
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    /// A data directory's lock, as a process would hold it.
    struct Process {
        directory: TempDir,
        lock: File,
    }

    impl Process {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let lock = File::create(directory.path().join("lock")).unwrap();
            Self { directory, lock }
        }

        fn open(&self, url: &PostgresUrl) -> Result<(Connection, Fence), StoreError> {
            open_writer(url, self.directory.path(), &self.lock)
        }
    }

    fn scratch() -> (fixtures::ScratchDatabase, PostgresUrl) {
        let scratch = fixtures::postgres::database();
        let url = PostgresUrl::parse(&scratch.url).unwrap();
        (scratch, url)
    }

    const WRITE: &str = "insert into settings values ('a', 'b') on conflict (name) do nothing";

    #[test]
    fn a_database_of_something_else_is_refused_and_a_schema_of_its_own_taken() {
        let (scratch, url) = scratch();
        scratch.run("create table orders (id bigint)").unwrap();
        let refused = Process::new().open(&url).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("\"orders\"") && refused.contains("\"public\""), "{refused}");
        assert_eq!(scratch.run("select count(*) from pg_tables where schemaname = 'public'").unwrap(), "1");
        scratch.run("create schema tollgate").unwrap();
        let joint = if scratch.url.contains('?') { '&' } else { '?' };
        let own = PostgresUrl::parse(&format!("{}{joint}options=-csearch_path%3Dtollgate", scratch.url)).unwrap();
        for _ in 0..2 {
            let process = Process::new();
            let (connection, fence) = process.open(&own).unwrap();
            give_back_lease(&connection, fence);
        }
    }

    #[test]
    fn d_08_another_process_is_refused_until_the_lease_lapses_and_then_the_first_one_is() {
        let (scratch, url) = scratch();
        let (first, second) = (Process::new(), Process::new());
        let (mut of_first, fence) = first.open(&url).unwrap();
        let refused = second.open(&url).map(|_| ()).unwrap_err();
        assert!(matches!(refused, StoreError::Leased { seconds: 1..=10, .. }), "{refused}");
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        // The first one falls silent for so long that its lease lapses.
        scratch.run("update node set lease_until = 0").unwrap();
        let (mut of_second, successor) = second.open(&url).unwrap();
        assert_eq!(successor.epoch, fence.epoch + 1);
        let late = of_first.transaction().map(|_| ()).unwrap_err();
        assert!(late.to_string().contains("taken over"), "{late}");
        // Neither the old connection nor a new one of the old epoch writes again; the successor does.
        assert!(of_first.execute(WRITE, []).is_err());
        assert!(reopen_writer(&url, fence).unwrap().transaction().is_err());
        let transaction = of_second.transaction().unwrap();
        transaction.execute(WRITE, []).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn d_08_a_successor_waits_for_what_the_former_owner_has_under_way() {
        let (scratch, url) = scratch();
        let (first, second) = (Process::new(), Process::new());
        let (mut of_first, _) = first.open(&url).unwrap();
        scratch.run("update node set lease_until = 0").unwrap();
        let under_way = of_first.transaction().unwrap();
        under_way.execute(WRITE, []).unwrap();
        std::thread::scope(|scope| {
            let successor = scope.spawn(|| second.open(&url).map(|_| ()));
            let waits = || scratch.run("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").unwrap();
            while waits() == "0" {
                assert!(!successor.is_finished(), "it did not wait");
            }
            under_way.commit().unwrap();
            // The commit prolonged the lease.
            assert!(matches!(successor.join().unwrap(), Err(StoreError::Leased { .. })));
        });
    }

    #[test]
    fn a_restart_in_the_same_directory_takes_over_at_once() {
        let (_scratch, url) = scratch();
        let process = Process::new();
        let (_killed, fence) = process.open(&url).unwrap();
        let (mut restarted, next) = process.open(&url).unwrap();
        assert_eq!(next.epoch, fence.epoch + 1);
        restarted.transaction().unwrap().commit().unwrap();
    }

    #[test]
    fn after_a_clean_stop_any_directory_may_take_over() {
        let (scratch, _) = scratch();
        for _ in 0..3 {
            let directory = tempfile::tempdir().unwrap();
            Database::open(directory.path(), on(&scratch)).unwrap();
        }
        assert_eq!(scratch.run("select epoch from node").unwrap(), "3");
    }

    #[test]
    fn of_two_that_start_at_once_on_an_empty_database_one_gets_it() {
        let (_scratch, url) = scratch();
        let processes = [Process::new(), Process::new(), Process::new()];
        let outcomes = std::thread::scope(|scope| {
            let starts = processes.each_ref().map(|process| scope.spawn(|| process.open(&url).map(|(_, fence)| fence)));
            starts.map(|start| start.join().unwrap())
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|e| matches!(e, StoreError::Leased { .. })));
    }

    #[test]
    fn d_10_a_newer_schema_is_refused() {
        let (scratch, url) = scratch();
        drop(Process::new().open(&url).unwrap());
        scratch.run("update schema_version set version = 999").unwrap();
        let refused = Process::new().open(&url).map(|_| ());
        assert!(matches!(refused, Err(StoreError::SchemaTooNew { found: 999, .. })), "{refused:?}");
    }

    #[test]
    fn k_12_a_migration_that_breaks_off_leaves_nothing() {
        let (scratch, url) = scratch();
        // The last table of the first migration is in the way.
        scratch.run("create table settings (in_the_way bigint)").unwrap();
        assert!(Process::new().open(&url).is_err());
        let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
        assert_eq!(scratch.run(tables).unwrap(), "1");
        scratch.run("drop table settings").unwrap();
        Process::new().open(&url).unwrap();
        assert_eq!(scratch.run("select version from schema_version").unwrap(), MIGRATIONS.len().to_string());
    }

    #[test]
    fn both_schemas_have_the_same_tables_and_columns() {
        let [sqlite, postgres] = databases().map(|scratch| {
            let columns = scratch.database.read_now(|connection| {
                let mut statement = connection.prepare(match connection.kind() {
                    Kind::Sqlite => {
                        "select t.name, c.name, c.\"notnull\" or c.pk > 0, c.type from sqlite_schema t
                         join pragma_table_info(t.name) c where t.type = 'table' and t.name not like 'sqlite_%'"
                    }
                    Kind::Postgres => {
                        "select cast(table_name as text), cast(column_name as text), is_nullable = 'NO',
                                case data_type when 'bigint' then 'INTEGER' when 'bytea' then 'BLOB'
                                               else upper(data_type) end
                         from information_schema.columns
                         where table_schema = 'public' and table_name not in ('node', 'schema_version')"
                    }
                })?;
                let rows = statement.query_map([], |row| {
                    let name: (String, String) = (row.get(0)?, row.get(1)?);
                    Ok((name, (row.get::<_, bool>(2)?, row.get::<_, String>(3)?.to_uppercase())))
                })?;
                Ok(rows.collect::<Result<BTreeMap<_, _>, _>>()?)
            });
            columns.unwrap()
        });
        assert_eq!(sqlite, postgres);
    }

    #[tokio::test]
    async fn the_journal_is_append_only() {
        for scratch in databases() {
            let change = |sql: &'static str| {
                let row = "insert into journal (seq, at, kind, account, available, held, spent, debt, funding)
                           values (1, 0, 1, 1, 5, 0, 0, 0, -5)";
                let in_one = move |tx: &Transaction<'_>| {
                    tx.execute_batch(row)?;
                    let outcome = tx.execute_batch(sql);
                    Err::<(), _>(StoreError::Refused(
                        outcome.map_or_else(|error| error.to_string(), |()| "done".into()),
                    ))
                };
                scratch.database.write(in_one)
            };
            for sql in ["update journal set request = 'x'", "delete from journal"] {
                let refused = change(sql).await.unwrap_err().to_string();
                assert!(refused.contains("journal rows are never"), "{refused}");
            }
            let unbalanced = "insert into journal (seq, at, kind, account, available, held, spent, debt, funding)
                              values (2, 0, 1, 1, 5, 0, 0, 0, -4)";
            assert_ne!(change(unbalanced).await.unwrap_err().to_string(), "done");
        }
    }

    #[test]
    fn a_database_of_another_encoding_is_refused() {
        let (scratch, _) = scratch();
        scratch.run("create database latin encoding 'SQL_ASCII' template template0").unwrap();
        let url = PostgresUrl::parse(&scratch.url.replace("/scratch_0", "/latin")).unwrap();
        let refused = Process::new().open(&url).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("UTF8"), "{refused}");
    }
}
