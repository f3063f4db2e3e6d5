//! Users: the people who sign in. What they are in an account is in [`crate::members`].

use crate::accounts::checked_name;
use crate::database::StoreError;
use crate::secrets::Digest;
use crate::sql::{Connection, OptionalExtension, Row};
use domain::{Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// Longest e-mail address, in bytes: what fits into a mail's path.
pub const EMAIL_BYTES_MAX: usize = 254;
/// How long a token that sets a password is good for: 3 days.
pub const PASSWORD_TOKEN_LIFE_MS: i64 = 3 * 24 * 3600 * 1000;

/// A user, without the password's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// E-mail address in small letters, unique.
    pub email: String,
    /// What to call them.
    pub name: String,
    /// Whether they can sign in.
    pub status: UserStatus,
    /// They have a password.
    pub has_password: bool,
    /// When the user was created.
    pub created_at: Timestamp,
}

/// Whether a user can sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    /// They can.
    Active,
    /// They cannot, and their sessions are over.
    Blocked,
}

impl UserStatus {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Blocked => "blocked",
        }
    }

    fn from_name(name: &str) -> Result<Self, StoreError> {
        match name {
            "active" => Ok(Self::Active),
            "blocked" => Ok(Self::Blocked),
            _ => Err(StoreError::Damaged(format!("user status {name:?}"))),
        }
    }
}

/// What may be changed of a user.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// A new e-mail address.
    pub email: Option<String>,
    /// A new name.
    pub name: Option<String>,
    /// A new status.
    pub status: Option<UserStatus>,
}

/// The columns of a user, which is called `users` in the statement, as [`read`] takes them.
pub(crate) const COLUMNS: &str =
    "users.id, users.email, users.name, users.status, users.password is not null, users.created_at";

/// Reads a user from the columns that begin at `first`.
pub(crate) fn read(row: Row<'_>, first: usize) -> Result<User, StoreError> {
    Ok(User {
        id: UserId(row.get(first)?),
        email: row.get(first + 1)?,
        name: row.get(first + 2)?,
        status: UserStatus::from_name(&row.get::<_, String>(first + 3)?)?,
        has_password: row.get(first + 4)?,
        created_at: Timestamp(row.get(first + 5)?),
    })
}

/// An e-mail address in the one form in which it is stored and compared: ASCII, in small letters, one `@` with
/// something on both sides, nothing that a mail's header could be made of (S-53).
pub fn checked_email(email: &str) -> Result<String, StoreError> {
    let email = email.trim().to_ascii_lowercase();
    let parts = email.split_once('@').is_some_and(|(local, domain)| {
        let labels = domain
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        !local.is_empty() && labels
    });
    let plain = email.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>()[],;:\\\"".contains(&byte));
    if !parts || !plain || email.len() > EMAIL_BYTES_MAX {
        return Err(StoreError::Refused(format!(
            "an e-mail address looks like \"ann@example.com\" and has at most {EMAIL_BYTES_MAX} characters"
        )));
    }
    Ok(email)
}

/// Creates a user without a password.
pub fn create(connection: &Connection, email: &str, name: &str, now: Timestamp) -> Result<User, StoreError> {
    let email = checked_email(email)?;
    if by_email(connection, &email)?.is_some() {
        return Err(taken(&email));
    }
    let id = connection
        .prepare_cached("insert into users (email, name, created_at) values (?1, ?2, ?3) returning id")?
        .query_row((&email, checked_name(name)?, now.0), |row| row.get(0))?;
    by_id(connection, UserId(id))?.ok_or_else(|| StoreError::Damaged(format!("user {id} vanished")))
}

fn taken(email: &str) -> StoreError {
    StoreError::Conflict(format!("a user with the e-mail address {email:?} exists already"))
}

/// The user of that id.
pub fn by_id(connection: &Connection, id: UserId) -> Result<Option<User>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from users where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(|row| read(row, 0)).transpose()
}

/// The user of that e-mail address, in whatever case.
pub fn by_email(connection: &Connection, email: &str) -> Result<Option<User>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from users where email = ?1"))?;
    let mut rows = statement.query([email.trim().to_ascii_lowercase()])?;
    rows.next()?.map(|row| read(row, 0)).transpose()
}

/// Users after `after`, at most `limit`, by id.
pub fn list(connection: &Connection, after: UserId, limit: u32) -> Result<Vec<User>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from users where id > ?1 order by id limit ?2"))?;
    let mut rows = statement.query((after.0, limit))?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        users.push(read(row, 0)?);
    }
    Ok(users)
}

/// Changes what is given and returns the user as it is then; `None` if there is none. Whoever is blocked or gets another
/// address loses what they had opened or were handed under the old terms: sessions and the token for a password.
pub fn change(connection: &Connection, id: UserId, change: &UserChange) -> Result<Option<User>, StoreError> {
    let Some(user) = by_id(connection, id)? else { return Ok(None) };
    let email = match &change.email {
        Some(email) => checked_email(email)?,
        None => user.email.clone(),
    };
    if by_email(connection, &email)?.is_some_and(|other| other.id != id) {
        return Err(taken(&email));
    }
    let name = match &change.name {
        Some(name) => checked_name(name)?.to_owned(),
        None => user.name,
    };
    let status = change.status.unwrap_or(user.status);
    connection.prepare_cached("update users set email = ?2, name = ?3, status = ?4 where id = ?1")?.execute((
        id.0,
        &email,
        name,
        status.name(),
    ))?;
    if status == UserStatus::Blocked || email != user.email {
        crate::sessions::close_all(connection, id)?;
        connection.prepare_cached("delete from password_tokens where user_id = ?1")?.execute([id.0])?;
    }
    by_id(connection, id)
}

/// The digest of the user's password, if there is one. Made and checked by [`crate::passwords`].
pub fn password(connection: &Connection, id: UserId) -> Result<Option<String>, StoreError> {
    let found: Option<Option<String>> = connection
        .prepare_cached("select password from users where id = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

/// Sets the digest of the user's password. Every session ends, and the token that may have led here (S-15, S-42).
pub fn set_password(connection: &Connection, id: UserId, digest: &str) -> Result<(), StoreError> {
    connection.prepare_cached("update users set password = ?2 where id = ?1")?.execute((id.0, digest))?;
    connection.prepare_cached("delete from password_tokens where user_id = ?1")?.execute([id.0])?;
    crate::sessions::close_all(connection, id)
}

/// Keeps the digest of a token that may set the user's password, in place of an earlier one.
pub fn allow_password(connection: &Connection, id: UserId, digest: &Digest, now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into password_tokens (user_id, digest, expires_at) values (?1, ?2, ?3)
             on conflict (user_id) do update set digest = excluded.digest, expires_at = excluded.expires_at",
        )?
        .execute((id.0, digest.as_slice(), now.plus_ms(PASSWORD_TOKEN_LIFE_MS).0))?;
    Ok(())
}

/// Whose password a token may set now. Blocked users' tokens do nothing.
pub fn by_password_token(connection: &Connection, digest: &Digest, now: Timestamp) -> Result<Option<User>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from password_tokens join users on users.id = password_tokens.user_id
         where password_tokens.digest = ?1 and password_tokens.expires_at > ?2 and users.status = 'active'"
    ))?;
    let mut rows = statement.query((digest.as_slice(), now.0))?;
    rows.next()?.map(|row| read(row, 0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_53_addresses_are_plain_and_in_one_form() {
        for (email, stored) in [
            (" Ann@Example.COM ", "ann@example.com"),
            ("a+b@x", "a+b@x"),
            ("o'neil@mail.example", "o'neil@mail.example"),
        ] {
            assert_eq!(checked_email(email).unwrap(), stored);
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for email in [
            "",
            "@",
            "ann",
            "ann@",
            "@x.y",
            "a@b@c",
            "a@x..y",
            "a b@x",
            "a@x\r\nbcc: b@x",
            "ann <a@x>",
            "ä@x.y",
            "a,b@x",
            &long,
        ] {
            assert!(checked_email(email).is_err(), "{email:?}");
        }
    }
}
