//! A session with PostgreSQL, used from threads that may block.
//!
//! One thread of this process drives the sockets of all sessions; whoever runs a statement waits for its answer, never
//! longer than the session's patience. So a session can be used and dropped on any thread, a server that falls
//! silent costs one wait, and a statement is never abandoned halfway by a future that somebody dropped (D-19, D-28).
//!
//! No TLS yet: `sslmode` may be `disable` or `prefer`, which then means the same. Use a Unix socket or a network of
//! your own between gateway and database.

use super::error::PostgresError;
use super::{Error, Value, without_nul};
use crate::database::StoreError;
use rusqlite::types::ValueRef;
use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::Severity;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

/// How long a connection may take to come about, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What greeting and authentication may take beyond that.
const HANDSHAKE_MARGIN: Duration = Duration::from_millis(500);
/// The longest that a statement works; the server then cancels it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// What an answer may take beyond that on its way.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// The server ends a session that does nothing for so long inside a transaction: its process is gone or stuck.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long sent data may go unacknowledged, or a quiet connection unprobed, until the peer counts as dead.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a PostgreSQL database is, and as whom to use it. Printed without the password.
#[derive(Clone)]
pub struct PostgresUrl {
    config: Box<Config>,
}

impl PostgresUrl {
    /// Reads `postgres://user:password@host:port/database?…`, or `host=… user=…`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let refused = |why: String| StoreError::Refused(format!("the database's URL cannot be used: {why}"));
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        if !is_url && (text.contains("://") || !text.contains('=')) {
            return Err(refused(
                "it is of the form postgres://USER:PASSWORD@HOST/NAME, and no other kind of database".to_owned(),
            ));
        }
        let mut config = text.parse::<Config>().map_err(|error| {
            // Of the text only what the parser names; it holds a password.
            refused(StdError::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(refused("it names no host".to_owned()));
        }
        if !matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
            return Err(refused(
                "TLS to the database is not supported yet: use sslmode=disable over a Unix socket or a private network"
                    .to_owned(),
            ));
        }
        config.ssl_mode(SslMode::Disable);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("tollgate");
        }
        // Nothing that concerns money is ever read from a replica (D-16).
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.tcp_user_timeout(DEAD_PEER_TIMEOUT);
        config.keepalives_idle(DEAD_PEER_TIMEOUT).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
        Ok(Self { config: Box::new(config) })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use tokio_postgres::config::Host;
        f.write_str("postgres://")?;
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
            if let Some(port) = self.config.get_ports().get(index).or(self.config.get_ports().first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// What makes a session one that writes: in each transaction it proves that this process is the one that may, and
/// prolongs its lease. The row stays locked until the transaction ends, so a successor waits for it and then knows
/// what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// Counts the processes that have had the lease.
    pub(crate) epoch: i64,
    /// For how long each transaction prolongs it.
    pub(crate) lease: Duration,
}

/// See the module's description.
pub(crate) struct Session {
    client: Client,
    connection: AbortHandle,
    /// The server has sent a warning.
    warned: Arc<AtomicBool>,
    fence: Option<Fence>,
    /// A statement was not answered as it should be: nothing is known of the session's state.
    broken: Cell<bool>,
    in_transaction: Cell<bool>,
    taken_over: Cell<bool>,
    names: Cell<u64>,
}

/// Drives the sockets of all sessions. It lives as long as the process.
static DRIVER: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("postgres")
        .enable_all()
        .build()
        .expect("a thread and an event queue are there for the asking")
});

impl Session {
    /// Connects.
    pub(crate) fn connect(url: &PostgresUrl) -> Result<Self, Error> {
        let config = url.config.clone();
        // Several hosts are tried one after the other, each within the timeout.
        let hosts = config.get_hosts().len().max(1) as u32;
        let patience = *config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT) * hosts + HANDSHAKE_MARGIN;
        let warned = Arc::new(AtomicBool::new(false));
        let warns = warned.clone();
        let connecting = DRIVER.spawn(async move {
            let (client, mut connection) = config.connect(NoTls).await?;
            // Its end, good or bad, shows in the client.
            let connection = tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                    if let AsyncMessage::Notice(notice) = message
                        && notice.parsed_severity() == Some(Severity::Warning)
                    {
                        tracing::warn!(code = notice.code().code(), "PostgreSQL warns: {}", notice.message());
                        warns.store(true, Ordering::Release);
                    }
                }
            });
            Ok::<_, tokio_postgres::Error>((client, connection.abort_handle()))
        });
        let aborts = connecting.abort_handle();
        match wait(connecting, patience) {
            None => {
                aborts.abort();
                Err(Error::Postgres(PostgresError::late("connect")))
            }
            Some(Err(_)) => Err(Error::Postgres(PostgresError::ended("the attempt to connect failed"))),
            Some(Ok(Err(error))) => Err(error.into()),
            Some(Ok(Ok((client, connection)))) => Ok(Self {
                client,
                connection,
                warned,
                fence: None,
                broken: Cell::new(false),
                in_transaction: Cell::new(false),
                taken_over: Cell::new(false),
                names: Cell::new(0),
            }),
        }
    }

    /// From now on, transactions write.
    pub(crate) fn set_fence(&mut self, fence: Fence) {
        self.fence = Some(fence);
    }

    /// It is connected, and every statement was answered.
    pub(crate) fn is_usable(&self) -> bool {
        !self.broken.get() && !self.client.is_closed()
    }

    /// It is usable and no transaction is open: somebody else may have it.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_usable() && !self.in_transaction.get()
    }

    /// Another process has the lease: no transaction will ever write here again.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.taken_over.get()
    }

    /// The fence, if transactions write.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// Begins a transaction: one that reads a single snapshot, or one that writes behind the fence.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let Some(Fence { epoch, lease }) = self.fence else {
            return self.begin_as("repeatable read read only", "").map(|_| ());
        };
        // Whatever the server's default is: what was committed is on its disk, and on its synchronous standby's (D-15).
        let prolong = format!(
            "; set local synchronous_commit = on;
             update node set lease_until = {DATABASE_NOW} + {} where one = 1 and epoch = {epoch}",
            lease.as_millis()
        );
        if self.begin_as("read committed read write", &prolong)? != 1 {
            self.broken.set(true);
            self.taken_over.set(true);
            return Err(Error::TakenOver);
        }
        Ok(())
    }

    /// Begins a transaction that writes before there is a fence: only for what brings the fence about.
    pub(crate) fn begin_unfenced(&self) -> Result<(), Error> {
        self.begin_as("read committed read write", "").map(|_| ())
    }

    /// One message. All settings are of the transaction, none of the session (D-21).
    fn begin_as(&self, how: &str, then: &str) -> Result<u64, Error> {
        self.in_transaction.set(true);
        let begun = self.batch(&format!(
            "begin isolation level {how}; set local statement_timeout = {};
             set local idle_in_transaction_session_timeout = {}{then}",
            STATEMENT_TIMEOUT.as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
        ));
        if begun.is_err() {
            // Which of these it refused is not known: nobody is to go on with this session.
            self.broken.set(true);
        }
        begun
    }

    /// Ends a transaction.
    pub(crate) fn end(&self, how: &'static str) -> Result<(), Error> {
        if !self.is_usable() {
            return Err(Error::Postgres(PostgresError::ended("the connection broke inside the transaction")));
        }
        self.warned.store(false, Ordering::Release);
        self.batch(how)?;
        self.in_transaction.set(false);
        // "Canceling wait for synchronous replication": committed here, perhaps nowhere else (D-15).
        if self.fence.is_some() && self.warned.load(Ordering::Acquire) {
            self.broken.set(true);
            return Err(Error::Postgres(PostgresError::ended("the server warned while it committed: outcome unknown")));
        }
        Ok(())
    }

    /// Runs statements without parameters; returns how many rows the last one changed.
    pub(crate) fn batch(&self, sql: &str) -> Result<u64, Error> {
        let messages = self.answer(self.client.simple_query(sql))?;
        Ok(messages
            .iter()
            .rev()
            .find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                _ => None,
            })
            .unwrap_or_default())
    }

    /// Runs one statement; returns how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, Error> {
        let params = typed(values);
        let changed = self.answer(self.client.execute_typed(sql, &by_reference(&params)))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Runs one statement; returns its rows, all of them.
    pub(crate) fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<tokio_postgres::Row>, Error> {
        let params = typed(values);
        self.answer(self.client.query_typed(sql, &by_reference(&params)))
    }

    /// A name that no other object of this session has.
    pub(crate) fn new_name(&self) -> String {
        self.names.set(self.names.get() + 1);
        format!("scan_{}", self.names.get())
    }

    fn answer<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
        if !self.is_usable() {
            return Err(Error::Postgres(PostgresError::ended("the connection is closed")));
        }
        let error = match wait(answer, STATEMENT_TIMEOUT + ANSWER_MARGIN) {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => PostgresError::from(error),
            None => PostgresError::late("run a statement"),
        };
        if error.ends_session() {
            self.broken.set(true);
        }
        Err(Error::Postgres(error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A clean one says goodbye by itself. A broken one would wait for answers that may never come.
        if !self.is_clean() {
            self.connection.abort();
        }
    }
}

/// The database's clock in milliseconds: the only one that leases are measured by.
pub(crate) const DATABASE_NOW: &str = "cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";

/// Waits for a future on this thread, which may be one that also runs tasks; `None` if it takes too long.
fn wait<T>(future: impl Future<Output = T>, patience: Duration) -> Option<T> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // This thread may be in the middle of a task. What that may still do before it yields is not ours to count.
    let mut future = pin!(tokio::task::unconstrained(future));
    let deadline = Instant::now() + patience;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        std::thread::park_timeout(deadline.checked_duration_since(Instant::now())?);
    }
}

type Param<'a> = (Box<dyn ToSql + Sync + 'a>, Type);

fn typed<'a>(values: &[Value<'a>]) -> Vec<Param<'a>> {
    values
        .iter()
        .map(|value| match *value {
            Value::Integer(value) => (Box::new(value) as Box<dyn ToSql + Sync>, Type::INT8),
            Value::Real(value) => (Box::new(value) as _, Type::FLOAT8),
            Value::Text(text) => (Box::new(text.map(without_nul)) as _, Type::TEXT),
            Value::Blob(bytes) => (Box::new(bytes) as _, Type::BYTEA),
            Value::Integers(list) => (Box::new(list) as _, Type::INT8_ARRAY),
            Value::Texts(list) => {
                let list = list.iter().map(|text| text.map(without_nul)).collect::<Vec<_>>();
                (Box::new(list) as _, Type::TEXT_ARRAY)
            }
        })
        .collect()
}

fn by_reference<'p>(params: &'p [Param<'_>]) -> Vec<(&'p (dyn ToSql + Sync), Type)> {
    params.iter().map(|(value, of)| (&**value, of.clone())).collect()
}

/// A column's value as SQLite would give it.
pub(super) fn value(row: &tokio_postgres::Row, column: usize) -> Result<ValueRef<'_>, Error> {
    struct Raw<'a>(ValueRef<'a>);

    impl<'a> FromSql<'a> for Raw<'a> {
        fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
            Ok(Self(match *of {
                Type::INT8 => ValueRef::Integer(i64::from_sql(of, raw)?),
                Type::INT4 => ValueRef::Integer(i32::from_sql(of, raw)?.into()),
                Type::INT2 => ValueRef::Integer(i16::from_sql(of, raw)?.into()),
                Type::BOOL => ValueRef::Integer(bool::from_sql(of, raw)?.into()),
                Type::FLOAT8 => ValueRef::Real(f64::from_sql(of, raw)?),
                Type::BYTEA => ValueRef::Blob(raw),
                _ => ValueRef::Text(raw),
            }))
        }

        fn from_sql_null(_of: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
            Ok(Self(ValueRef::Null))
        }

        fn accepts(of: &Type) -> bool {
            const TYPES: [Type; 10] = [
                Type::INT8,
                Type::INT4,
                Type::INT2,
                Type::BOOL,
                Type::FLOAT8,
                Type::BYTEA,
                Type::TEXT,
                Type::VARCHAR,
                Type::NAME,
                Type::UNKNOWN,
            ];
            TYPES.contains(of)
        }
    }

    Ok(row.try_get::<_, Raw<'_>>(column)?.0)
}
