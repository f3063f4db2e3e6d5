//! The databases that the tests of this crate run on: one of each kind.

use crate::database::{Database, Options};
use crate::sql::PostgresUrl;
use fixtures::ScratchDatabase;
use tempfile::TempDir;

/// An empty database in a directory that goes away.
pub(crate) struct Scratch {
    pub(crate) database: Database,
    /// The server's side of it, for a look from outside.
    pub(crate) postgres: Option<ScratchDatabase>,
    _directory: TempDir,
}

/// One of each kind: what holds on one must hold on the other.
pub(crate) fn databases() -> [Scratch; 2] {
    [sqlite(), postgres()]
}

/// An SQLite database.
pub(crate) fn sqlite() -> Scratch {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    Scratch { database, postgres: None, _directory: directory }
}

/// A PostgreSQL database.
pub(crate) fn postgres() -> Scratch {
    let (directory, scratch) = (tempfile::tempdir().unwrap(), fixtures::postgres::database());
    let database = Database::open(directory.path(), on(&scratch)).unwrap();
    Scratch { database, postgres: Some(scratch), _directory: directory }
}

/// The options to open that database.
pub(crate) fn on(scratch: &ScratchDatabase) -> Options {
    Options { postgres: Some(PostgresUrl::parse(&scratch.url).unwrap()), ..Options::default() }
}
