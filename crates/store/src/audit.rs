//! Reading the audit log: who did what, beside money. It is written by [`crate::accounts::audit`].

use crate::database::StoreError;
use crate::sql::Connection;
use domain::Timestamp;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::audit;
    use crate::testing::databases;

    #[tokio::test]
    async fn deeds_are_found_by_who_what_and_when() {
        for scratch in databases() {
            let write = scratch.database.write(|tx| {
                for (at, operator, subject) in [(1, "ann", "key 1"), (2, "bob", "key 1"), (3, "ann", "key 2")] {
                    audit(tx, Timestamp(at), operator, "look", subject, &serde_json::json!({ "at": at }))?;
                }
                Ok(())
            });
            write.await.unwrap();
            let check = |filter: Filter, limit: u32, expected: &[i64]| {
                let found = scratch.database.read_now(|connection| list(connection, &filter, limit)).unwrap();
                assert_eq!(found.iter().map(|deed| deed.at.0).collect::<Vec<_>>(), expected, "{filter:?}");
            };
            let text = |text: &str| Some(text.to_owned());
            check(Filter::default(), 10, &[3, 2, 1]);
            check(Filter::default(), 2, &[3, 2]);
            check(Filter { operator: text("ann"), ..Filter::default() }, 10, &[3, 1]);
            check(Filter { subject: text("key 1"), ..Filter::default() }, 10, &[2, 1]);
            check(Filter { operator: text("ann"), subject: text("key 1"), ..Filter::default() }, 10, &[1]);
            check(Filter { from: Some(Timestamp(2)), until: Some(Timestamp(3)), ..Filter::default() }, 10, &[2]);
            check(Filter { before: Some(1), ..Filter::default() }, 10, &[]);
        }
    }
}
