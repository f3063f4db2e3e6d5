//! Sessions: users who are signed in. Only the digest of a session's secret is stored.

use crate::database::StoreError;
use crate::secrets::Digest;
use crate::sql::Connection;
use crate::users::{self, User};
use domain::{Timestamp, UserId};

/// A session that is not used for so long is over: 30 days.
const IDLE_MS: i64 = 30 * 24 * 3600 * 1000;
/// However much it is used, it ends then: after 180 days.
const LIFE_MS: i64 = 180 * 24 * 3600 * 1000;
/// Uses of a session are noted when the last note is older than this: an hour. A note is a write, a use is not.
const NOTE_MS: i64 = 3600 * 1000;
/// Sessions of one user; a further one ends the oldest.
const SESSIONS_MAX: u32 = 50;

/// A session, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: i64,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when, unless it is used before.
    pub expires_at: Timestamp,
    /// When it was last noted to be used.
    pub last_used_at: Timestamp,
}

impl Session {
    /// Its use is to be noted.
    pub fn is_note_due(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.last_used_at.0) >= NOTE_MS
    }
}

/// Opens a session for a user.
pub fn open(connection: &Connection, user: UserId, digest: &Digest, now: Timestamp) -> Result<Session, StoreError> {
    connection
        .prepare_cached("delete from sessions where user_id = ?1 and expires_at <= ?2")?
        .execute((user.0, now.0))?;
    connection
        .prepare_cached(
            "delete from sessions where user_id = ?1 and id not in
               (select id from sessions where user_id = ?1 order by id desc limit ?2)",
        )?
        .execute((user.0, SESSIONS_MAX - 1))?;
    let expires_at = now.plus_ms(IDLE_MS);
    let id = connection
        .prepare_cached(
            "insert into sessions (digest, user_id, created_at, expires_at, last_used_at)
             values (?1, ?2, ?3, ?4, ?5) returning id",
        )?
        .query_row((digest.as_slice(), user.0, now.0, expires_at.0, now.0), |row| row.get(0))?;
    Ok(Session { id, created_at: now, expires_at, last_used_at: now })
}

/// The session with that secret, and whose it is, unless either is over.
pub fn find(connection: &Connection, digest: &Digest, now: Timestamp) -> Result<Option<(Session, User)>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select sessions.id, sessions.created_at, sessions.expires_at, sessions.last_used_at, {}
         from sessions join users on users.id = sessions.user_id
         where sessions.digest = ?1 and sessions.expires_at > ?2 and users.status = 'active'",
        users::COLUMNS
    ))?;
    let mut rows = statement.query((digest.as_slice(), now.0))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((read(row)?, users::read(row, 4)?)))
}

fn read(row: crate::sql::Row<'_>) -> Result<Session, StoreError> {
    Ok(Session {
        id: row.get(0)?,
        created_at: Timestamp(row.get(1)?),
        expires_at: Timestamp(row.get(2)?),
        last_used_at: Timestamp(row.get(3)?),
    })
}

/// Notes that a session is in use: it lasts longer, but not for ever.
pub fn note_use(connection: &Connection, session: &Session, now: Timestamp) -> Result<(), StoreError> {
    let expires_at = now.plus_ms(IDLE_MS).min(session.created_at.plus_ms(LIFE_MS));
    connection.prepare_cached("update sessions set last_used_at = ?2, expires_at = ?3 where id = ?1")?.execute((
        session.id,
        now.0,
        expires_at.0,
    ))?;
    Ok(())
}

/// The sessions of a user that are not over, by id.
pub fn list(connection: &Connection, user: UserId, now: Timestamp) -> Result<Vec<Session>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select id, created_at, expires_at, last_used_at from sessions
         where user_id = ?1 and expires_at > ?2 order by id limit ?3",
    )?;
    let mut rows = statement.query((user.0, now.0, SESSIONS_MAX))?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(read(row)?);
    }
    Ok(sessions)
}

/// Ends one session of a user; false if there is none.
pub fn close(connection: &Connection, user: UserId, id: i64) -> Result<bool, StoreError> {
    let closed =
        connection.prepare_cached("delete from sessions where user_id = ?1 and id = ?2")?.execute((user.0, id))?;
    Ok(closed > 0)
}

/// Ends every session of a user.
pub fn close_all(connection: &Connection, user: UserId) -> Result<(), StoreError> {
    connection.prepare_cached("delete from sessions where user_id = ?1")?.execute([user.0])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::databases;
    use crate::users::{UserChange, UserStatus};

    const START: Timestamp = Timestamp(1_800_000_000_000);
    const DAY_MS: i64 = domain::time::DAY_MS;

    /// On each database: what a new user's sessions do.
    async fn with_user(test: fn(&Connection, UserId) -> Result<(), StoreError>) {
        for scratch in databases() {
            let done = scratch.database.write(move |transaction| {
                let user = users::create(transaction, "ann@example.com", "Ann", START)?;
                test(transaction, user.id)
            });
            done.await.unwrap();
        }
    }

    #[tokio::test]
    async fn s_15_a_session_slides_and_ends() {
        with_user(|connection, user| {
            let session = open(connection, user, &[1; 32], START)?;
            let find = |now: Timestamp| find(connection, &[1; 32], now).map(|found| found.map(|(session, _)| session));
            assert!(!session.is_note_due(START.plus_ms(NOTE_MS - 1)) && session.is_note_due(START.plus_ms(NOTE_MS)));
            assert_eq!(find(START.plus_ms(30 * DAY_MS - 1))?, Some(session.clone()));
            assert_eq!(find(START.plus_ms(30 * DAY_MS))?, None);
            let mut now = START;
            while let Some(used) = find(now)? {
                note_use(connection, &used, now)?;
                now = now.plus_ms(DAY_MS);
            }
            assert_eq!(now, START.plus_ms(LIFE_MS), "however much it is used");
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_user_has_so_many_sessions_and_a_blocked_one_none() {
        with_user(|connection, user| {
            for number in 0..SESSIONS_MAX as u8 + 5 {
                open(connection, user, &[number; 32], START)?;
            }
            assert_eq!(list(connection, user, START)?.len(), SESSIONS_MAX as usize);
            assert!(find(connection, &[4; 32], START)?.is_none() && find(connection, &[5; 32], START)?.is_some());
            let blocked = UserChange { status: Some(UserStatus::Blocked), ..UserChange::default() };
            users::change(connection, user, &blocked)?;
            assert_eq!(list(connection, user, START)?, []);
            Ok(())
        })
        .await;
    }
}
