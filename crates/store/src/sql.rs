//! One way to speak SQL to two databases: SQLite through `rusqlite`, PostgreSQL through `tokio-postgres`.
//!
//! The names are those of `rusqlite`, so that a module reads as if there were only SQLite. What differs:
//!
//! * One text serves both: parameters are `?1`, `?2` …, new ids come from `returning id`, booleans and times are
//!   integers. Where the databases cannot share a text, both stand side by side in one function ([`Connection::kind`]).
//! * A [`Row`] is passed by value. It is two words.
//! * An answer of PostgreSQL is taken whole: bound it by `limit`, or use [`Statement::scan`], which takes it in pieces.
//! * `sum` of integers is no integer in PostgreSQL: write `cast(sum(x) as bigint)`. In `on conflict … do update` the
//!   old value is named with its table: `set a = t.a + excluded.a`.
//! * A text for PostgreSQL cannot contain the character 0; it is replaced by U+FFFD rather than refused, so that no
//!   entry of the journal can ever be one that the database does not take.
//!
//! No statement is prepared by name in PostgreSQL: each is one message with its parameters and their types, which
//! works behind a pooling proxy and outlives changes of the schema (D-13, D-21).

mod error;
mod params;
mod pool;
mod postgres;

pub use error::{Error, OptionalExtension, PostgresError};
pub use params::{Param, Params, Value};
pub(crate) use pool::Pool;
pub use postgres::PostgresUrl;
pub(crate) use postgres::{DATABASE_NOW, Fence, Session};

use error::Column;
use rusqlite::types::{FromSql, ValueRef};
use std::borrow::Cow;
use std::ops::Deref;

/// Rows that [`Statement::scan`] takes at a time.
const SCAN_ROWS: usize = 2_000;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// A connection to either database.
pub struct Connection {
    inner: Inner,
}

enum Inner {
    Sqlite { connection: rusqlite::Connection, begin: &'static str },
    Postgres(Session),
}

impl Connection {
    /// A SQLite connection whose transactions write: they take the write lock at once, so that none is ever upgraded.
    pub(crate) fn sqlite_writer(connection: rusqlite::Connection) -> Self {
        Self { inner: Inner::Sqlite { connection, begin: "begin immediate" } }
    }

    /// A SQLite connection whose transactions only read.
    pub(crate) fn sqlite_reader(connection: rusqlite::Connection) -> Self {
        Self { inner: Inner::Sqlite { connection, begin: "begin deferred" } }
    }

    /// A PostgreSQL connection. Its transactions read one snapshot; or they write, once it has a [`Fence`].
    pub(crate) fn postgres(session: Session) -> Self {
        Self { inner: Inner::Postgres(session) }
    }

    /// Which database it is.
    pub fn kind(&self) -> Kind {
        match self.inner {
            Inner::Sqlite { .. } => Kind::Sqlite,
            Inner::Postgres(_) => Kind::Postgres,
        }
    }

    /// The SQLite connection itself, for the few places where every nanosecond of it counts.
    pub(crate) fn as_sqlite_mut(&mut self) -> Option<&mut rusqlite::Connection> {
        match &mut self.inner {
            Inner::Sqlite { connection, .. } => Some(connection),
            Inner::Postgres(_) => None,
        }
    }

    /// The PostgreSQL session.
    pub(crate) fn as_postgres(&self) -> Option<&Session> {
        match &self.inner {
            Inner::Sqlite { .. } => None,
            Inner::Postgres(session) => Some(session),
        }
    }

    /// [`Connection::as_postgres`], to set its fence.
    pub(crate) fn as_postgres_mut(&mut self) -> Option<&mut Session> {
        match &mut self.inner {
            Inner::Sqlite { .. } => None,
            Inner::Postgres(session) => Some(session),
        }
    }

    /// Whether a statement could succeed. A PostgreSQL session that lost its server never becomes usable again.
    pub(crate) fn is_usable(&self) -> bool {
        self.as_postgres().is_none_or(Session::is_usable)
    }

    /// A statement for one use.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>, Error> {
        let mut statement = self.prepare_cached(sql)?;
        if let How::Sqlite { once, .. } = &mut statement.how {
            *once = true;
        }
        Ok(statement)
    }

    /// A statement that is likely to be used again on this connection.
    pub fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>, Error> {
        let how = match &self.inner {
            Inner::Sqlite { connection, .. } => {
                How::Sqlite { statement: Some(connection.prepare_cached(sql)?), once: false }
            }
            Inner::Postgres(session) => How::Postgres { session, sql: with_dollars(sql) },
        };
        Ok(Statement { how })
    }

    /// Runs one statement; returns how many rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        self.prepare(sql)?.execute(params)
    }

    /// The first row of an answer; [`Error::NoRows`] if there is none.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.prepare(sql)?.query_row(params, read)
    }

    /// Runs statements without parameters, separated by semicolons.
    pub fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        match &self.inner {
            Inner::Sqlite { connection, .. } => Ok(connection.execute_batch(sql)?),
            Inner::Postgres(session) => session.batch(sql).map(|_| ()),
        }
    }

    /// The strings of a parameter that is a JSON list, to stand behind `in`.
    pub fn strings_of(&self, parameter: &str) -> String {
        match self.kind() {
            Kind::Sqlite => format!("(select value from json_each({parameter}))"),
            Kind::Postgres => format!("(select jsonb_array_elements_text(cast({parameter} as jsonb)))"),
        }
    }

    /// Begins a transaction, which is rolled back unless it is committed.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, Error> {
        match &self.inner {
            Inner::Sqlite { connection, begin } => connection.execute_batch(begin)?,
            Inner::Postgres(session) => session.begin()?,
        }
        Ok(Transaction { connection: self, over: false })
    }
}

/// A transaction. Dropped, it is rolled back.
pub struct Transaction<'c> {
    connection: &'c Connection,
    over: bool,
}

impl Transaction<'_> {
    /// Makes it durable. An error leaves open whether it was committed, unless the database says so.
    pub fn commit(self) -> Result<(), Error> {
        self.end("commit")
    }

    /// Takes it back.
    pub fn rollback(self) -> Result<(), Error> {
        self.end("rollback")
    }

    fn end(mut self, how: &'static str) -> Result<(), Error> {
        match &self.connection.inner {
            Inner::Sqlite { connection, .. } => connection.execute_batch(how)?,
            Inner::Postgres(session) => session.end(how)?,
        }
        self.over = true;
        Ok(())
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let ended = match &self.connection.inner {
            // After some errors SQLite has rolled back by itself.
            Inner::Sqlite { connection, .. } if connection.is_autocommit() => return,
            Inner::Sqlite { connection, .. } => connection.execute_batch("rollback").map_err(Error::from),
            Inner::Postgres(session) => session.end("rollback"),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "cannot roll back; the database does it when the connection ends");
        }
    }
}

/// A statement, ready to run.
pub struct Statement<'c> {
    how: How<'c>,
}

enum How<'c> {
    Sqlite { statement: Option<rusqlite::CachedStatement<'c>>, once: bool },
    Postgres { session: &'c Session, sql: String },
}

impl Statement<'_> {
    /// Runs it; returns how many rows it changed.
    pub fn execute(&mut self, params: impl Params) -> Result<usize, Error> {
        match &mut self.how {
            How::Sqlite { statement, .. } => {
                let statement = statement.as_mut().expect("it is taken out only when dropped");
                params::bind(statement, &params)?;
                Ok(statement.raw_execute()?)
            }
            How::Postgres { session, sql } => session.execute(sql, &params::collect(&params)?),
        }
    }

    /// Runs it and gives its rows.
    pub fn query(&mut self, params: impl Params) -> Result<Rows<'_>, Error> {
        Ok(Rows {
            from: match &mut self.how {
                How::Sqlite { statement, .. } => {
                    let statement = statement.as_mut().expect("it is taken out only when dropped");
                    params::bind(statement, &params)?;
                    From::Sqlite(statement.raw_query())
                }
                How::Postgres { session, sql } => {
                    From::Answer { rows: session.query(sql, &params::collect(&params)?)?, next: 0 }
                }
            },
        })
    }

    /// [`Statement::query`] for more rows than fit into memory. Only in a transaction.
    pub fn scan(&mut self, params: impl Params) -> Result<Rows<'_>, Error> {
        let (session, sql) = match &mut self.how {
            How::Sqlite { .. } => return self.query(params),
            How::Postgres { session, sql } => (*session, sql),
        };
        let cursor = session.new_name();
        session.execute(&format!("declare {cursor} no scroll cursor for {sql}"), &params::collect(&params)?)?;
        Ok(Rows { from: From::Cursor { session, cursor, rows: Vec::new(), next: 0, at_end: false } })
    }

    /// The first row; [`Error::NoRows`] if there is none.
    pub fn query_row<T>(
        &mut self,
        params: impl Params,
        read: impl FnOnce(Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut rows = self.query(params)?;
        read(rows.next()?.ok_or(Error::NoRows)?)
    }

    /// Each row through a function.
    pub fn query_map<T, F>(&mut self, params: impl Params, read: F) -> Result<MappedRows<'_, F>, Error>
    where
        F: FnMut(Row<'_>) -> Result<T, Error>,
    {
        Ok(MappedRows { rows: self.query(params)?, read })
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        if let How::Sqlite { statement, once: true } = &mut self.how
            && let Some(statement) = statement.take()
        {
            statement.discard();
        }
    }
}

/// Rows of an answer.
pub struct Rows<'s> {
    from: From<'s>,
}

enum From<'s> {
    Sqlite(rusqlite::Rows<'s>),
    /// All rows.
    Answer {
        rows: Vec<tokio_postgres::Row>,
        next: usize,
    },
    /// Some rows; the rest stays with the database.
    Cursor {
        session: &'s Session,
        cursor: String,
        rows: Vec<tokio_postgres::Row>,
        next: usize,
        at_end: bool,
    },
}

impl Rows<'_> {
    /// The next row, if there is one.
    #[expect(clippy::should_implement_trait, reason = "a row borrows from the rows, so this is no iterator")]
    pub fn next(&mut self) -> Result<Option<Row<'_>>, Error> {
        match &mut self.from {
            From::Sqlite(rows) => Ok(rows.next()?.map(|row| Row { of: Of::Sqlite(row) })),
            From::Answer { rows, next } => {
                *next += 1;
                Ok(rows.get(*next - 1).map(|row| Row { of: Of::Postgres(row) }))
            }
            From::Cursor { session, cursor, rows, next, at_end } => {
                if *next == rows.len() && !*at_end {
                    *rows = session.query(&format!("fetch {SCAN_ROWS} from {cursor}"), &[])?;
                    *next = 0;
                    *at_end = rows.len() < SCAN_ROWS;
                    if *at_end {
                        session.batch(&format!("close {cursor}"))?;
                    }
                }
                *next += 1;
                Ok(rows.get(*next - 1).map(|row| Row { of: Of::Postgres(row) }))
            }
        }
    }
}

/// What [`Statement::query_map`] gives.
pub struct MappedRows<'s, F> {
    rows: Rows<'s>,
    read: F,
}

impl<T, F> Iterator for MappedRows<'_, F>
where
    F: FnMut(Row<'_>) -> Result<T, Error>,
{
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next().and_then(|row| row.map(&mut self.read).transpose()).transpose()
    }
}

/// One row of an answer.
#[derive(Clone, Copy)]
pub struct Row<'r> {
    of: Of<'r>,
}

#[derive(Clone, Copy)]
enum Of<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl<'r> Row<'r> {
    /// The value of a column, counted from 0.
    pub fn get<I: RowIndex, T: FromSql>(&self, column: I) -> Result<T, Error> {
        let column = column.index();
        match self.of {
            Of::Sqlite(row) => Ok(row.get(column)?),
            Of::Postgres(row) => T::column_result(postgres::value(row, column)?)
                .map_err(|why| Error::Column(Column { index: column, why: why.to_string() })),
        }
    }

    /// [`Row::get`] without a copy.
    pub fn get_ref<I: RowIndex>(&self, column: I) -> Result<ValueRef<'r>, Error> {
        let column = column.index();
        match self.of {
            Of::Sqlite(row) => Ok(row.get_ref(column)?),
            Of::Postgres(row) => postgres::value(row, column),
        }
    }
}

/// The place of a column.
pub trait RowIndex {
    /// Counted from 0.
    fn index(self) -> usize;
}

impl RowIndex for usize {
    fn index(self) -> usize {
        self
    }
}

/// `?1` is written `$1` in PostgreSQL. What stands in quotes stays.
fn with_dollars(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut quoted = false;
    for c in sql.chars() {
        quoted ^= c == '\'';
        text.push(if c == '?' && !quoted { '$' } else { c });
    }
    text
}

/// A text that PostgreSQL takes.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests;
