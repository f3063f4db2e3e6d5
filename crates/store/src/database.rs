//! The database of a data directory: one writer thread, a few connections that read.
//!
//! It is SQLite in that directory, or PostgreSQL elsewhere ([`Options::postgres`]); then the directory keeps the rest:
//! secrets, and the marks of requests under way. All writes go through the writer thread, so two writers never meet,
//! no transaction is ever upgraded from reading to writing, and none is abandoned because its caller left. The
//! directory is locked for the life of the process, and a PostgreSQL database is leased: a second gateway on the
//! same data is refused, not tolerated.

pub(crate) mod postgres;

use crate::journal::{self, Writer};
use crate::sql::{self, Connection, Pool, PostgresUrl, Transaction};
use parking_lot::Mutex;
use rusqlite::OpenFlags;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Oldest SQLite that has no known way of losing commits: before it, a checkpoint could race a commit.
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// How long a reader waits for the brief locks that the writer takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Read-only connections kept open.
const READERS_KEPT: usize = 4;

/// Sessions with PostgreSQL for those who read.
const POSTGRES_READERS_MAX: usize = 8;

/// The SQLite database in a data directory.
const SQLITE_FILE: &str = "tollgate.db";
/// In its place, where the data directory's PostgreSQL database is. Without credentials.
const POSTGRES_NOTE: &str = "postgres";

/// A schema change, for each database.
pub(crate) struct Migration {
    pub(crate) sqlite: &'static str,
    pub(crate) postgres: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            sqlite: include_str!(concat!("../migrations/sqlite/", $name)),
            postgres: include_str!(concat!("../migrations/postgres/", $name)),
        }
    };
}

/// Schema changes, in order. Never edited once released: expand first, contract in a later release.
pub(crate) const MIGRATIONS: [Migration; 11] = [
    migration!("0001_spine.sql"),
    migration!("0002_money.sql"),
    migration!("0003_members.sql"),
    migration!("0004_idempotency.sql"),
    migration!("0005_payments.sql"),
    migration!("0006_tiers.sql"),
    migration!("0007_holds.sql"),
    migration!("0008_limits.sql"),
    migration!("0009_windows.sql"),
    migration!("0010_weights.sql"),
    migration!("0011_responses.sql"),
];

/// What can go wrong below the rules.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory is in use.
    #[error("{0} is in use by another process: stop it first, or talk to it instead")]
    InUse(PathBuf),
    /// The PostgreSQL database is in use.
    #[error(
        "{database} is in use by {owner}: stop that first; or, if it is gone, try again in {seconds} s, when its \
         lease has lapsed"
    )]
    Leased {
        /// Which database.
        database: String,
        /// By whom.
        owner: String,
        /// How long its lease still lasts.
        seconds: u64,
    },
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The linked SQLite is too old.
    #[error("SQLite {found} is linked; {needed} is needed, because older ones can lose commits")]
    SqliteTooOld {
        /// What is linked.
        found: String,
        /// What is needed.
        needed: String,
    },
    /// The schema is from a newer release.
    #[error("{database} has schema {found}, this executable knows up to {known}: use the newer executable")]
    SchemaTooNew {
        /// The database.
        database: String,
        /// Its schema.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// What is stored makes no sense.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// SQLite refused.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL refused, or could not be asked.
    #[error("PostgreSQL: {0}")]
    Postgres(sql::PostgresError),
    /// Another process has the lease on the PostgreSQL database.
    #[error("another process has taken over the database: this one must stop")]
    TakenOver,
    /// The writer stopped, or cannot write for now.
    #[error("the store cannot write now")]
    Unavailable,
    /// A rule of the data refuses the change.
    #[error("{0}")]
    Refused(String),
    /// What else is stored stands against the change.
    #[error("{0}")]
    Conflict(String),
}

impl From<sql::Error> for StoreError {
    fn from(error: sql::Error) -> Self {
        match error {
            sql::Error::Sqlite(error) => Self::Sqlite(error),
            sql::Error::Postgres(error) => Self::Postgres(error),
            sql::Error::TakenOver => Self::TakenOver,
            sql::Error::NoRows => Self::Damaged("a row that is always there is missing".to_owned()),
            sql::Error::Column(column) => Self::Damaged(column.to_string()),
            sql::Error::Parameter(why) => Self::Refused(why),
        }
    }
}

/// An open data directory.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    readers: Readers,
    writer: Writer,
    /// Held until the writer, before it in this list, has ended.
    _lock: File,
}

/// Connections that read.
enum Readers {
    /// Kept ones of the SQLite database at that path.
    Sqlite(PathBuf, Mutex<Vec<Connection>>),
    Postgres(Pool),
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest that an entry waits for company before it is committed.
    pub group_commit: Duration,
    /// The PostgreSQL database to use instead of SQLite in the data directory.
    pub postgres: Option<PostgresUrl>,
}

impl Default for Options {
    fn default() -> Self {
        Self { group_commit: Duration::from_millis(5), postgres: None }
    }
}

impl Database {
    /// Opens the database of a data directory, creating both where they are missing.
    pub fn open(directory: &Path, options: Options) -> Result<Self, StoreError> {
        create_private_directory(directory)?;
        let lock = lock(directory)?;
        assert_place(directory, options.postgres.as_ref())?;
        let place = options.postgres.as_ref().map(ToString::to_string);
        let (writer, readers) = match options.postgres {
            None => open_sqlite(directory, options.group_commit)?,
            Some(url) => {
                let (connection, fence) = postgres::open_writer(&url, directory, &lock)?;
                let reopen = {
                    let url = url.clone();
                    move || postgres::reopen_writer(&url, fence)
                };
                let writer = journal::Writer::start(connection, reopen, options.group_commit)?;
                (writer, Readers::Postgres(Pool::new(url, POSTGRES_READERS_MAX)))
            }
        };
        if let Some(place) = place {
            let path = directory.join(POSTGRES_NOTE);
            let failed = |source| StoreError::File { action: "write", path: path.clone(), source };
            std::fs::write(&path, place).map_err(failed)?;
        }
        Ok(Self { inner: Arc::new(Inner { directory: directory.to_owned(), readers, writer, _lock: lock }) })
    }

    /// Whether a directory is a data directory already.
    pub fn is_in(directory: &Path) -> bool {
        [SQLITE_FILE, POSTGRES_NOTE].iter().any(|name| directory.join(name).exists())
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    /// Reads on a connection of its own, in one snapshot.
    pub fn read_now<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (path, readers) = match &self.inner.readers {
            Readers::Sqlite(path, readers) => (path, readers),
            Readers::Postgres(pool) => return pool.read(read),
        };
        let kept = readers.lock().pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => open_reader(path)?,
        };
        let transaction = connection.transaction()?;
        let answer = read(&transaction);
        transaction.rollback()?;
        let mut readers = readers.lock();
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        answer
    }

    /// [`Database::read_now`] off the event loop.
    pub async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let database = self.clone();
        tokio::task::spawn_blocking(move || database.read_now(read)).await.map_err(|_| StoreError::Unavailable)?
    }

    /// Runs `change` in a transaction of its own on the writer thread; answers once it is durable. It runs to its
    /// end even when the caller stops waiting.
    pub async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.inner.writer.submit(Box::new(move |connection| {
            let result = in_transaction(connection, change);
            // The caller may have stopped waiting; the change stands all the same.
            let _ = answer.send(result);
        }))?;
        answered.await.map_err(|_| StoreError::Unavailable)?
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction()?;
    let value = change(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

fn open_sqlite(directory: &Path, group_commit: Duration) -> Result<(Writer, Readers), StoreError> {
    assert_sqlite_version()?;
    let path = directory.join(SQLITE_FILE);
    let mut connection = open_writer(&path)?;
    migrate(&mut connection, &path)?;
    let reopen = {
        let path = path.clone();
        move || open_writer(&path)
    };
    let writer = journal::Writer::start(connection, reopen, group_commit)?;
    Ok((writer, Readers::Sqlite(path, Mutex::default())))
}

/// D-07: an older library is refused at start.
fn assert_sqlite_version() -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        let version = |number: i32| format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000);
        return Err(StoreError::SqliteTooOld {
            found: rusqlite::version().to_owned(),
            needed: version(SQLITE_VERSION_MIN),
        });
    }
    Ok(())
}

/// Creates the directory for its owner only. An existing one is left as it is, but others are shut out.
fn create_private_directory(directory: &Path) -> Result<(), StoreError> {
    let failed = |action| move |source| StoreError::File { action, path: directory.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create"))?;
    let metadata = std::fs::metadata(directory).map_err(failed("read"))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).map_err(failed("protect"))?;
    }
    Ok(())
}

/// A directory belongs to one database for good: what is in the other one would not be seen.
fn assert_place(directory: &Path, postgres: Option<&PostgresUrl>) -> Result<(), StoreError> {
    match postgres {
        Some(url) if directory.join(SQLITE_FILE).exists() => Err(StoreError::Refused(format!(
            "{} has a ledger of its own in {SQLITE_FILE}: use another directory for {url}",
            directory.display()
        ))),
        None => match std::fs::read_to_string(directory.join(POSTGRES_NOTE)) {
            Ok(url) => Err(StoreError::Refused(format!(
                "{} belongs to the database {url}: name it with its credentials by --database or TOLLGATE_DATABASE",
                directory.display()
            ))),
            Err(_) => Ok(()),
        },
        Some(_) => Ok(()),
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let failed = |source| StoreError::File { action: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // FULL: a commit that was acknowledged survives a power cut, not only a killed process.
    connection.execute_batch(
        "pragma journal_mode = wal;
         pragma synchronous = full;
         pragma foreign_keys = on;
         pragma cache_size = -4000;
         pragma wal_autocheckpoint = 4000;
         pragma journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(Connection::sqlite_writer(connection))
}

/// Opens a read-only connection, as reports and verification use it.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = rusqlite::Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(Connection::sqlite_reader(connection))
}

/// Each migration is one transaction with the version that it reaches: killed anywhere, the schema is old or new.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: usize = connection.query_row("pragma user_version", [], |row| row.get(0))?;
    if found > MIGRATIONS.len() {
        let (database, known) = (path.display().to_string(), MIGRATIONS.len());
        return Err(StoreError::SchemaTooNew { database, found, known });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration.sqlite)?;
        transaction.execute_batch(&format!("pragma user_version = {}", index + 1))?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_07_the_linked_sqlite_is_new_enough() {
        assert_sqlite_version().unwrap();
    }

    #[test]
    fn d_08_a_second_opener_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = Database::open(directory.path(), Options::default()).unwrap();
        assert!(matches!(Database::open(directory.path(), Options::default()), Err(StoreError::InUse(_))));
        drop(first);
        Database::open(directory.path(), Options::default()).unwrap();
    }

    #[test]
    fn a_directory_belongs_to_one_database() {
        let (of_sqlite, of_postgres) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scratch = fixtures::postgres::database();
        assert!(!Database::is_in(of_sqlite.path()));
        drop(Database::open(of_sqlite.path(), Options::default()).unwrap());
        drop(Database::open(of_postgres.path(), crate::testing::on(&scratch)).unwrap());
        assert!(Database::is_in(of_sqlite.path()) && Database::is_in(of_postgres.path()));
        let refused = Database::open(of_sqlite.path(), crate::testing::on(&scratch)).map(drop).unwrap_err();
        assert!(refused.to_string().contains("another directory"), "{refused}");
        let refused = Database::open(of_postgres.path(), Options::default()).map(drop).unwrap_err();
        assert!(refused.to_string().contains("TOLLGATE_DATABASE"), "{refused}");
    }

    #[test]
    fn d_10_a_newer_schema_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Database::open(directory.path(), Options::default()).unwrap());
        let connection = rusqlite::Connection::open(directory.path().join("tollgate.db")).unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        drop(connection);
        let refused = Database::open(directory.path(), Options::default());
        assert!(matches!(refused, Err(StoreError::SchemaTooNew { found: 999, .. })));
    }

    #[test]
    fn the_data_directory_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let _database = Database::open(&directory, Options::default()).unwrap();
        assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
