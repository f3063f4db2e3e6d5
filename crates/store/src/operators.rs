//! Operators: who runs the gateway. Their keys are found by digest.

use crate::accounts::checked_name;
use crate::database::StoreError;
use crate::secrets::Digest;
use crate::sql::{Connection, OptionalExtension, Row};
use domain::Timestamp;
use serde::{Deserialize, Serialize};

/// How the audit log calls whoever has the data directory.
pub const LOCAL: &str = "local";

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its id.
    pub id: i64,
    /// Its name, unique for ever: the audit log and the ledger's notes have it.
    pub name: String,
    /// Whether its key works.
    pub status: OperatorStatus,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whether an operator's key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorStatus {
    /// It does.
    Active,
    /// Never again.
    Revoked,
}

impl OperatorStatus {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }

    fn from_name(name: &str) -> Result<Self, StoreError> {
        match name {
            "active" => Ok(Self::Active),
            "revoked" => Ok(Self::Revoked),
            _ => Err(StoreError::Damaged(format!("operator status {name:?}"))),
        }
    }
}

const COLUMNS: &str = "id, name, status, created_at";

fn read(row: Row<'_>) -> Result<Operator, StoreError> {
    Ok(Operator {
        id: row.get(0)?,
        name: row.get(1)?,
        status: OperatorStatus::from_name(&row.get::<_, String>(2)?)?,
        created_at: Timestamp(row.get(3)?),
    })
}

/// Creates an operator by the digest of its key.
pub fn create(connection: &Connection, name: &str, digest: &Digest, now: Timestamp) -> Result<Operator, StoreError> {
    let name = checked_name(name)?;
    // The audit log names members as "user:7" and "key:7": nobody may look like one of them.
    if name.eq_ignore_ascii_case(LOCAL) || name.contains(':') {
        return Err(StoreError::Refused(format!("an operator is not called {LOCAL:?} and its name has no colon")));
    }
    let taken = connection
        .prepare_cached("select exists (select 1 from operators where name = ?1)")?
        .query_row([name], |row| row.get(0))?;
    if taken {
        return Err(StoreError::Conflict(format!("there is or was an operator named {name:?}")));
    }
    let id = connection
        .prepare_cached("insert into operators (name, digest, created_at) values (?1, ?2, ?3) returning id")?
        .query_row((name, digest.as_slice(), now.0), |row| row.get(0))?;
    by_id(connection, id)?.ok_or_else(|| StoreError::Damaged(format!("operator {id} vanished")))
}

fn by_id(connection: &Connection, id: i64) -> Result<Option<Operator>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from operators where id = ?1"))?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(read).transpose()
}

/// The name of the active operator whose key has that digest.
pub fn name_of(connection: &Connection, digest: &Digest) -> Result<Option<String>, StoreError> {
    Ok(connection
        .prepare_cached("select name from operators where digest = ?1 and status = 'active'")?
        .query_row([digest.as_slice()], |row| row.get(0))
        .optional()?)
}

/// Operators after `after`, revoked ones too, at most `limit`, by id.
pub fn list(connection: &Connection, after: i64, limit: u32) -> Result<Vec<Operator>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from operators where id > ?1 order by id limit ?2"))?;
    let mut rows = statement.query((after, limit))?;
    let mut operators = Vec::new();
    while let Some(row) = rows.next()? {
        operators.push(read(row)?);
    }
    Ok(operators)
}

/// Makes an operator's key worthless; `None` if there is no such operator. The last active one stays.
pub fn revoke(connection: &Connection, id: i64) -> Result<Option<Operator>, StoreError> {
    let Some(operator) = by_id(connection, id)? else { return Ok(None) };
    let others: i64 = connection
        .prepare_cached("select count(*) from operators where status = 'active' and id <> ?1")?
        .query_row([id], |row| row.get(0))?;
    if operator.status == OperatorStatus::Active && others == 0 {
        return Err(StoreError::Conflict("this is the last active operator: create another one first".to_owned()));
    }
    connection.prepare_cached("update operators set status = 'revoked' where id = ?1")?.execute([id])?;
    by_id(connection, id)
}

/// Whether anybody can operate this gateway yet: false before the first start is complete.
pub fn exist(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection.query_row("select exists (select 1 from operators)", [], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::databases;

    #[tokio::test]
    async fn operators_are_known_by_their_digest_until_they_are_revoked() {
        for scratch in databases() {
            let database = &scratch.database;
            let (mine, other): (Digest, Digest) = ([7; 32], [8; 32]);
            assert!(!database.read_now(exist).unwrap());
            let first = database.write(move |tx| create(tx, "ops", &mine, Timestamp(1))).await.unwrap();
            assert!(database.write(move |tx| create(tx, "twin", &mine, Timestamp(1))).await.is_err());
            let found = database.read_now(|c| Ok((exist(c)?, name_of(c, &mine)?, name_of(c, &other)?)));
            assert_eq!(found.unwrap(), (true, Some("ops".to_owned()), None));
            let id = first.id;
            let last = database.write(move |tx| revoke(tx, id)).await;
            assert!(matches!(last, Err(StoreError::Conflict(_))), "{last:?}");
            database.write(move |tx| create(tx, "second", &other, Timestamp(2))).await.unwrap();
            let revoked = database.write(move |tx| revoke(tx, id)).await.unwrap().unwrap();
            assert_eq!(revoked.status, OperatorStatus::Revoked);
            assert_eq!(database.read_now(|c| name_of(c, &mine)).unwrap(), None);
            assert_eq!(database.read_now(|c| list(c, id, 10)).unwrap().len(), 1);
            assert_eq!(database.write(|tx| revoke(tx, 999)).await.unwrap(), None);
        }
    }
}
