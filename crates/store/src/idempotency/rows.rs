//! The table `idempotency`, and what the journal says of a request.

use super::{Answer, Lost, Outcome};
use crate::database::StoreError;
use crate::sql::{Connection, OptionalExtension};
use domain::{Nanos, Seq, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// Where a row is, and whose request it is of. A row of another request is never touched.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) tenant: Arc<str>,
    pub(super) key: [u8; 32],
    pub(super) request: Arc<str>,
}

impl Place {
    /// What the body is sealed to.
    pub(super) fn context(&self) -> [&[u8]; 3] {
        [self.tenant.as_bytes(), &self.key, self.request.as_bytes()]
    }
}

/// Whether a key could be claimed.
pub(super) enum Claimed {
    /// Where an earlier request had it that broke off, with the time at which that one began.
    Mine(Option<Timestamp>),
    Taken(Found),
}

/// What stands in the way.
pub(super) enum Found {
    OtherContent,
    Running,
    Unknown,
    /// The answer's body is sealed.
    Done {
        place: Place,
        cost: Option<Nanos>,
        outcome: Outcome,
    },
}

/// How a claim ends.
pub(super) enum Ending {
    /// `body` is sealed.
    Kept {
        status: u16,
        headers: String,
        body: Vec<u8>,
        cost: Option<Nanos>,
        expires_at: Timestamp,
    },
    Lost {
        why: Lost,
        cost: Option<Nanos>,
        expires_at: Timestamp,
    },
    Released,
    Unknown,
}

/// A row of which it is not known how its request ended.
pub(super) struct Unknown {
    id: i64,
    request: String,
    /// No hold of it is at or before this row. `None` if it holds no money.
    pub(super) after: Option<Seq>,
    /// Its holds, and whether each has ended.
    holds: HashMap<i64, bool>,
    charged: i64,
}

impl Unknown {
    /// Nothing more will be charged.
    pub(super) fn is_settled(&self) -> bool {
        self.holds.values().all(|ended| *ended)
    }
}

impl Lost {
    fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::CallerLeft => "caller_left",
            Self::Interrupted => "interrupted",
        }
    }

    fn from_name(name: &str) -> Result<Self, StoreError> {
        match name {
            "too_large" => Ok(Self::TooLarge),
            "caller_left" => Ok(Self::CallerLeft),
            "interrupted" => Ok(Self::Interrupted),
            _ => Err(StoreError::Damaged(format!("an idempotent answer that was lost for {name:?}"))),
        }
    }
}

/// Makes the row if there is none, or none that still counts, or takes over that of the same request where it broke off
/// and may run again. Also gives the bytes of the body that stood there.
pub(super) fn claim(
    connection: &Connection,
    place: &Place,
    fingerprint: &[u8; 32],
    after: Option<Seq>,
    runs_again: bool,
    now: Timestamp,
) -> Result<(Claimed, i64), StoreError> {
    let key = place.key.as_slice();
    let freed = connection
        .prepare_cached(
            "delete from idempotency where tenant = ?1 and key_digest = ?2 and expires_at <= ?3
             returning coalesce(length(body), 0)",
        )?
        .query_row((&*place.tenant, key, now.0), |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let inserted = connection
        .prepare_cached(
            "insert into idempotency (tenant, key_digest, fingerprint, state, request, after_seq, created_at)
             values (?1, ?2, ?3, 'running', ?4, ?5, ?6) on conflict (tenant, key_digest) do nothing",
        )?
        .execute((&*place.tenant, key, fingerprint.as_slice(), &*place.request, after.map(|seq| seq.0), now.0))?;
    if inserted == 1 {
        return Ok((Claimed::Mine(None), freed));
    }
    if runs_again && let Some(began) = take_over(connection, place, fingerprint)? {
        return Ok((Claimed::Mine(Some(began)), freed));
    }
    Ok((Claimed::Taken(find(connection, place, fingerprint)?), freed))
}

/// Of any number of contenders one finds the row as it was. The time at which its first request began.
fn take_over(connection: &Connection, place: &Place, fingerprint: &[u8; 32]) -> Result<Option<Timestamp>, StoreError> {
    let taken = connection
        .prepare_cached(
            "update idempotency set state = 'running', request = ?4, lost = null, cost = null, expires_at = null
             where tenant = ?1 and key_digest = ?2 and fingerprint = ?3
               and (state = 'unknown' or (state = 'done' and lost = 'interrupted'))
             returning created_at",
        )?
        .query_row((&*place.tenant, place.key.as_slice(), fingerprint.as_slice(), &*place.request), |row| row.get(0))
        .optional()?;
    Ok(taken.map(Timestamp))
}

fn find(connection: &Connection, place: &Place, fingerprint: &[u8; 32]) -> Result<Found, StoreError> {
    let found = connection
        .prepare_cached(
            "select fingerprint, state, request, cost, lost from idempotency where tenant = ?1 and key_digest = ?2",
        )?
        .query_row((&*place.tenant, place.key.as_slice()), |row| {
            Ok((
                row.get::<_, Vec<u8>>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Option<i64>>(3)?.map(Nanos),
                row.get::<_, Option<String>>(4)?,
            ))
        })
        .optional()?;
    let vanished = || StoreError::Damaged("an idempotency row vanished within a transaction".to_owned());
    let (stored, state, request, cost, lost) = found.ok_or_else(vanished)?;
    if stored != fingerprint {
        return Ok(Found::OtherContent);
    }
    match state.as_str() {
        "running" => return Ok(Found::Running),
        "unknown" => return Ok(Found::Unknown),
        _ => {}
    }
    let outcome = match lost {
        Some(lost) => Outcome::Lost(Lost::from_name(&lost)?),
        None => Outcome::Answer(sealed_answer(connection, place)?),
    };
    Ok(Found::Done { place: Place { request: request.into(), ..place.clone() }, cost, outcome })
}

fn sealed_answer(connection: &Connection, place: &Place) -> Result<Answer, StoreError> {
    let (status, headers, body) = connection
        .prepare_cached("select status, headers, body from idempotency where tenant = ?1 and key_digest = ?2")?
        .query_row((&*place.tenant, place.key.as_slice()), |row| {
            Ok((row.get::<_, u16>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
    let headers = serde_json::from_str(&headers)
        .map_err(|error| StoreError::Damaged(format!("headers of an idempotent answer: {error}")))?;
    Ok(Answer { status, headers, body })
}

/// Writes how a claim ended. Written twice it is as once.
pub(super) fn end(connection: &Connection, place: &Place, ending: &Ending) -> Result<(), StoreError> {
    let Place { tenant, key, request } = place;
    let (tenant, key, request) = (&**tenant, key.as_slice(), &**request);
    match ending {
        Ending::Kept { status, headers, body, cost, expires_at } => connection
            .prepare_cached(
                "update idempotency set state = 'done', status = ?4, headers = ?5, body = ?6, cost = ?7, expires_at = ?8
                 where tenant = ?1 and key_digest = ?2 and request = ?3 and state = 'running'",
            )?
            .execute((tenant, key, request, status, headers, body, cost.map(|cost| cost.0), expires_at.0))?,
        Ending::Lost { why, cost, expires_at } => connection
            .prepare_cached(
                "update idempotency set state = 'done', lost = ?4, cost = ?5, expires_at = ?6
                 where tenant = ?1 and key_digest = ?2 and request = ?3 and state = 'running'",
            )?
            .execute((tenant, key, request, why.name(), cost.map(|cost| cost.0), expires_at.0))?,
        Ending::Released => connection
            .prepare_cached(
                "delete from idempotency
                 where tenant = ?1 and key_digest = ?2 and request = ?3 and state = 'running'",
            )?
            .execute((tenant, key, request))?,
        Ending::Unknown => connection
            .prepare_cached(
                "update idempotency set state = 'unknown'
                 where tenant = ?1 and key_digest = ?2 and request = ?3 and state = 'running'",
            )?
            .execute((tenant, key, request))?,
    };
    Ok(())
}

/// What an earlier process left running is unknown. Returns how many.
pub(super) fn mark_left_running(connection: &Connection) -> Result<usize, StoreError> {
    Ok(connection.execute("update idempotency set state = 'unknown' where state = 'running'", [])?)
}

/// Deletes rows that were kept long enough, at most `limit`. Returns how many, and the bytes of their bodies.
pub(super) fn prune(connection: &Connection, now: Timestamp, limit: u32) -> Result<(usize, i64), StoreError> {
    let mut statement = connection.prepare_cached(
        "delete from idempotency
         where id in (select id from idempotency where expires_at <= ?1 order by expires_at limit ?2)
         returning coalesce(length(body), 0)",
    )?;
    let mut rows = statement.query((now.0, limit))?;
    let (mut deleted, mut freed) = (0, 0);
    while let Some(row) = rows.next()? {
        deleted += 1;
        freed += row.get::<_, i64>(0)?;
    }
    Ok((deleted, freed))
}

/// Bytes of all bodies. Only their lengths are read.
pub(super) fn kept_bytes(connection: &Connection) -> Result<i64, StoreError> {
    let sum = "select cast(coalesce(sum(length(body)), 0) as bigint) from idempotency";
    Ok(connection.query_row(sum, [], |row| row.get(0))?)
}

/// Unknown rows, at most `limit`.
pub(super) fn unknown(connection: &Connection, limit: u32) -> Result<Vec<Unknown>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select id, request, after_seq from idempotency where state = 'unknown' order by id limit ?1",
    )?;
    let mut rows = statement.query([limit])?;
    let mut unknown = Vec::new();
    while let Some(row) = rows.next()? {
        let after = row.get::<_, Option<i64>>(2)?.map(Seq);
        unknown.push(Unknown { id: row.get(0)?, request: row.get(1)?, after, holds: HashMap::new(), charged: 0 });
    }
    Ok(unknown)
}

/// Adds what the next `limit` rows of the journal behind `after` say of the unknown requests. Returns the last row that
/// was read, or `None` at the journal's end.
pub(super) fn read_journal(
    connection: &Connection,
    unknown: &mut [Unknown],
    after: Seq,
    limit: u32,
) -> Result<Option<Seq>, StoreError> {
    let by_request: HashMap<String, usize> =
        unknown.iter().enumerate().map(|(place, unknown)| (unknown.request.clone(), place)).collect();
    let mut by_hold: HashMap<i64, usize> = unknown
        .iter()
        .enumerate()
        .flat_map(|(place, unknown)| unknown.holds.keys().map(move |hold| (*hold, place)))
        .collect();
    let mut statement = connection
        .prepare_cached("select seq, kind, hold, request, spent from journal where seq > ?1 order by seq limit ?2")?;
    let mut rows = statement.query((after.0, limit))?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        last = Some(Seq(seq));
        if row.get::<_, i64>(1)? == crate::journal::HOLD {
            let request: Option<String> = row.get(3)?;
            if let Some(&place) = request.and_then(|request| by_request.get(&request)) {
                unknown[place].holds.insert(seq, false);
                by_hold.insert(seq, place);
            }
        } else if let Some(hold) = row.get::<_, Option<i64>>(2)?
            && let Some(&place) = by_hold.get(&hold)
        {
            unknown[place].holds.insert(hold, true);
            unknown[place].charged += row.get::<_, i64>(4)?;
        }
    }
    Ok(last)
}

/// Writes what unknown requests came to.
pub(super) fn settle_unknown(
    connection: &Connection,
    settled: &[Unknown],
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "update idempotency set state = 'done', lost = ?2, cost = ?3, expires_at = ?4
         where id = ?1 and state = 'unknown'",
    )?;
    for row in settled {
        let cost = row.after.map(|_| row.charged);
        statement.execute((row.id, Lost::Interrupted.name(), cost, expires_at.0))?;
    }
    Ok(())
}
