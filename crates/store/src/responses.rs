//! Answers that a provider keeps, for requests that go on from them.
//!
//! A provider keeps an answer for its own account, which all callers here share. So it is noted here whose an answer is, and
//! at which upstream: nobody else can go on from it (U-38), and nothing is sent where it is not known. How long the
//! conversation is, is noted too, because the provider bills all of it again.

use crate::database::StoreError;
use crate::sql::{Connection, OptionalExtension};
use domain::time::DAY_MS;
use domain::{AccountId, ProjectId, Timestamp};
use std::sync::Arc;

/// How long OpenAI keeps a response.
const KEPT_MS: i64 = 30 * DAY_MS;
/// Longest id that is noted; OpenAI's have some 55 characters.
const ID_BYTES_MAX: usize = 256;

/// An answer that a provider keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptResponse {
    /// The upstream that has it.
    pub upstream: Arc<str>,
    /// Tokens of the conversation up to its end.
    pub tokens: u64,
}

/// Whose it is: what belongs to a project is for its keys alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// The project of the key that asked.
    pub project: Option<ProjectId>,
}

/// Notes an answer. One that is noted already stays as it is; an id that no provider gives is not noted.
pub fn remember(
    connection: &Connection,
    owner: Owner,
    id: &str,
    kept: &KeptResponse,
    now: Timestamp,
) -> Result<(), StoreError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.contains('\0') {
        return Ok(());
    }
    let tokens = i64::try_from(kept.tokens).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "insert into responses (account, id, project, upstream, tokens, expires_at)
             values (?1, ?2, ?3, ?4, ?5, ?6) on conflict (account, id) do nothing",
        )?
        .execute((
            owner.account.0,
            id,
            owner.project.map(|project| project.0),
            &*kept.upstream,
            tokens,
            now.plus_ms(KEPT_MS).0,
        ))?;
    Ok(())
}

/// The answer of that id, if this owner may go on from it.
pub fn find(
    connection: &Connection,
    owner: Owner,
    id: &str,
    now: Timestamp,
) -> Result<Option<KeptResponse>, StoreError> {
    if id.contains('\0') {
        return Ok(None);
    }
    let found = connection
        .prepare_cached(
            "select upstream, tokens, project from responses where account = ?1 and id = ?2 and expires_at > ?3",
        )?
        .query_row((owner.account.0, id, now.0), |row| {
            let kept = KeptResponse {
                upstream: row.get::<_, String>(0)?.into(),
                tokens: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
            };
            Ok((kept, row.get::<_, Option<i64>>(2)?.map(ProjectId)))
        })
        .optional()?;
    Ok(found.filter(|(_, project)| *project == owner.project).map(|(kept, _)| kept))
}

/// Forgets at most so many answers that no provider keeps any more; says how many.
pub fn forget_expired(connection: &Connection, most: u32, now: Timestamp) -> Result<usize, StoreError> {
    Ok(connection
        .prepare_cached(
            "delete from responses where (account, id) in
             (select account, id from responses where expires_at <= ?1 order by expires_at limit ?2)",
        )?
        .execute((now.0, most))?)
}
