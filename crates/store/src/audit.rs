//! Reading the audit log: who did what, beside money. It is written by [`crate::accounts::audit`].

use crate::database::StoreError;
use domain::Timestamp;
use rusqlite::Connection;

/// One deed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Its place in the log.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// An operator's name, `local`, or a member as `user:7` or `key:7`.
    pub operator: String,
    /// What, such as `key.create`.
    pub action: String,
    /// To what, such as `key 7`.
    pub subject: String,
    /// How it was asked for, as JSON.
    pub detail: String,
}

/// Which deeds are looked for. What is `None` is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By whom.
    pub operator: Option<String>,
    /// To what.
    pub subject: Option<String>,
    /// From then on.
    pub from: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
    /// Only those before this place in the log.
    pub before: Option<i64>,
}

/// Deeds, newest first, at most `limit`.
pub fn list(connection: &Connection, filter: &Filter, limit: u32) -> Result<Vec<Deed>, StoreError> {
    // By subject there is an index; the rest is a walk backwards that ends at the limit.
    let of_subject = if filter.subject.is_some() { "subject = ?5" } else { "coalesce(?5, subject) = subject" };
    let mut statement = connection.prepare_cached(&format!(
        "select id, at, operator, action, subject, detail from audit
         where id < ?1 and at >= ?2 and at < ?3 and coalesce(?4, operator) = operator and {of_subject}
         order by id desc limit ?6"
    ))?;
    let rows = statement.query_map(
        (
            filter.before.unwrap_or(i64::MAX),
            filter.from.map_or(i64::MIN, |at| at.0),
            filter.until.map_or(i64::MAX, |at| at.0),
            filter.operator.as_deref(),
            filter.subject.as_deref(),
            limit,
        ),
        |row| {
            Ok(Deed {
                id: row.get(0)?,
                at: Timestamp(row.get(1)?),
                operator: row.get(2)?,
                action: row.get(3)?,
                subject: row.get(4)?,
                detail: row.get(5)?,
            })
        },
    )?;
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}
