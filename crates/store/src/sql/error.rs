//! What a database answers when it does not answer the question.

use tokio_postgres::error::SqlState;

/// What went wrong with a statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refused.
    #[error("SQLite: {0}")]
    Sqlite(rusqlite::Error),
    /// PostgreSQL refused, or could not be asked.
    #[error("PostgreSQL: {0}")]
    Postgres(PostgresError),
    /// Another process has the lease: this one must not write any more.
    #[error("another process has taken over this database: this one must not write any more")]
    TakenOver,
    /// A row was expected, and there is none.
    #[error("the query returned no rows")]
    NoRows,
    /// A column holds something else than was asked for.
    #[error("{0}")]
    Column(Column),
    /// A parameter does not fit the database's types.
    #[error("a parameter does not fit: {0}")]
    Parameter(String),
}

/// A column that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("column {index}: {why}")]
pub struct Column {
    pub(super) index: usize,
    pub(super) why: String,
}

impl Error {
    /// A value that must be there once is there already.
    pub fn is_unique_violation(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(failure, _)) => matches!(
                failure.extended_code,
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            ),
            Self::Postgres(error) => error.code.as_ref() == Some(&SqlState::UNIQUE_VIOLATION),
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Self::NoRows,
            other => Self::Sqlite(other),
        }
    }
}

/// Why PostgreSQL did not do it. Names the fault, never a credential or a value of a row.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PostgresError {
    message: String,
    /// What the server calls it; `None` if it was not the server that failed.
    code: Option<SqlState>,
    /// The session cannot be used any more.
    ends_session: bool,
}

impl PostgresError {
    /// The session, not the statement, is at fault: another may succeed.
    pub fn ends_session(&self) -> bool {
        self.ends_session
    }

    /// The same again may succeed: what failed is not what was asked for.
    pub fn is_transient(&self) -> bool {
        // Transaction rolled back, resources, operator intervention.
        self.ends_session
            || self
                .code
                .as_ref()
                .is_some_and(|code| ["40", "53", "55", "57"].iter().any(|c| code.code().starts_with(c)))
    }

    /// No answer in time.
    pub(super) fn late(what: &str) -> Self {
        Self { message: format!("no answer in time while it was to {what}"), code: None, ends_session: true }
    }

    /// The session is over, for the given reason.
    pub(super) fn ended(message: &str) -> Self {
        Self { message: message.to_owned(), code: None, ends_session: true }
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let code = db.code();
                let constraint = db.constraint().map(|name| format!(", constraint {name}")).unwrap_or_default();
                // A connection that is being ended, or a server that no longer takes writes: it was failed over.
                let ends_session = ["08", "57P"].iter().any(|class| code.code().starts_with(class))
                    || [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT]
                        .contains(code);
                Self {
                    message: format!("{} ({}{constraint})", db.message(), code.code()),
                    code: Some(code.clone()),
                    ends_session,
                }
            }
            None => {
                let mut message = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    message = format!("{message}: {cause}");
                    source = cause.source();
                }
                Self { message, code: None, ends_session: true }
            }
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

/// `optional()`: no row is an answer, too.
pub trait OptionalExtension<T> {
    /// `None` for [`Error::NoRows`].
    fn optional(self) -> Result<Option<T>, Error>;
}

impl<T> OptionalExtension<T> for Result<T, Error> {
    fn optional(self) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRows) => Ok(None),
            Err(other) => Err(other),
        }
    }
}
