//! A few sessions with PostgreSQL for those who read.
//!
//! Bounded, with a bounded wait. A session is given to one transaction at a time and taken back only when the transaction
//! is over and the session sound; any other is closed (D-12, D-17, D-19).

use super::{Connection, PostgresUrl, Session};
use crate::database::StoreError;
use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a reader waits for a session.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// While the database cannot be reached, attempts are this far apart; whoever comes between them is refused at once.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// See the module's description.
pub(crate) struct Pool {
    url: PostgresUrl,
    size: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    /// Sessions that exist or are being made.
    open: usize,
    /// The database could not be reached: no attempt before then.
    closed_until: Option<Instant>,
}

impl Pool {
    /// A pool that opens sessions when they are needed.
    pub(crate) fn new(url: PostgresUrl, size: usize) -> Self {
        Self { url, size: size.max(1), state: Mutex::default(), freed: Condvar::new() }
    }

    /// Runs `read` in a transaction that sees one snapshot.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let lent = self.lend()?;
        let answer = read(lent.connection());
        // What was read stays read, also if the session breaks now; `Lent` looks at that.
        let _ = lent.session().end("commit");
        answer
    }

    /// A session that has just begun a transaction.
    fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let (lent, was_idle) = self.acquire()?;
        match lent.session().begin() {
            Ok(()) => return Ok(lent),
            Err(_) if was_idle && !lent.session().is_usable() => {}
            Err(error) => return Err(error.into()),
        }
        // The server was restarted since the session was last used. The other sessions are no better.
        let stale = {
            let mut state = self.state.lock();
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        drop((lent, stale));
        let (lent, _) = self.acquire()?;
        lent.session().begin()?;
        Ok(lent)
    }

    /// A session, and whether it is an old one.
    fn acquire(&self) -> Result<(Lent<'_>, bool), StoreError> {
        let deadline = Instant::now() + ACQUIRE_TIMEOUT;
        let mut state = self.state.lock();
        loop {
            while let Some(connection) = state.idle.pop() {
                if connection.is_usable() {
                    return Ok((Lent { pool: self, connection: Some(connection) }, true));
                }
                state.open -= 1;
            }
            if state.open < self.size {
                if state.closed_until.is_some_and(|until| Instant::now() < until) {
                    return Err(StoreError::Unavailable);
                }
                state.open += 1;
                break;
            }
            if self.freed.wait_until(&mut state, deadline).timed_out() {
                tracing::warn!(sessions = self.size, "all database sessions are busy");
                return Err(StoreError::Unavailable);
            }
        }
        drop(state);
        let connected = Session::connect(&self.url);
        let mut state = self.state.lock();
        match connected {
            Ok(session) => {
                state.closed_until = None;
                Ok((Lent { pool: self, connection: Some(Connection::postgres(session)) }, false))
            }
            Err(error) => {
                state.open -= 1;
                state.closed_until = Some(Instant::now() + RECONNECT_PAUSE);
                self.freed.notify_one();
                Err(error.into())
            }
        }
    }
}

/// A session that is in use. Dropped, it goes back to the pool if it is sound, and is closed if not.
struct Lent<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
}

impl Lent<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("it is given back only when dropped")
    }

    fn session(&self) -> &Session {
        self.connection().as_postgres().expect("the pool has no other connections")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let clean = self.session().is_clean();
        let connection = self.connection.take();
        let mut state = self.pool.state.lock();
        match connection {
            Some(connection) if clean => state.idle.push(connection),
            _ => state.open -= 1,
        }
        self.pool.freed.notify_one();
    }
}
