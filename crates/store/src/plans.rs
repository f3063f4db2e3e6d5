//! Plans that accounts can subscribe to. A subscription keeps its own copy of the terms.

use crate::accounts::checked_name;
use crate::database::StoreError;
use crate::sql::{Connection, Row};
use domain::plan::PlanTerms;
use domain::{PlanId, Timestamp};
use std::sync::Arc;

/// A plan as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its terms, for those who subscribe from now on.
    pub terms: Arc<PlanTerms>,
    /// Nobody can subscribe to it any more.
    pub retired: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

fn read(row: Row<'_>) -> Result<Plan, StoreError> {
    let id = PlanId(row.get(0)?);
    let terms: PlanTerms = serde_json::from_str(&row.get::<_, String>(1)?)
        .map_err(|error| StoreError::Damaged(format!("plan {id}: {error}")))?;
    let terms = Arc::new(PlanTerms { plan: id, ..terms });
    Ok(Plan { terms, retired: row.get::<_, String>(2)? == "retired", created_at: Timestamp(row.get(3)?) })
}

const COLUMNS: &str = "id, terms, status, created_at";

/// Makes a plan; the terms' own id does not matter.
pub fn create(connection: &Connection, terms: &PlanTerms, now: Timestamp) -> Result<Plan, StoreError> {
    let terms = checked(terms)?;
    if by_name(connection, &terms.name)?.is_some() {
        return Err(StoreError::Refused(format!("a plan named {:?} exists already", terms.name)));
    }
    let id = connection.query_row(
        "insert into plans (name, terms, created_at) values (?1, ?2, ?3) returning id",
        (&*terms.name, json(&terms), now.0),
        |row| row.get(0).map(PlanId),
    )?;
    by_id(connection, id)?.ok_or_else(|| StoreError::Damaged(format!("plan {id} vanished")))
}

/// Gives a plan other terms. Who has subscribed keeps theirs until they change.
pub fn change(connection: &Connection, id: PlanId, terms: &PlanTerms) -> Result<Option<Plan>, StoreError> {
    let terms = checked(terms)?;
    if by_name(connection, &terms.name)?.is_some_and(|other| other.terms.plan != id) {
        return Err(StoreError::Refused(format!("a plan named {:?} exists already", terms.name)));
    }
    connection.prepare_cached("update plans set name = ?2, terms = ?3 where id = ?1")?.execute((
        id.0,
        &*terms.name,
        json(&terms),
    ))?;
    by_id(connection, id)
}

fn checked(terms: &PlanTerms) -> Result<PlanTerms, StoreError> {
    terms.check().map_err(|bad| StoreError::Refused(bad.to_string()))?;
    for window in &terms.windows {
        checked_name(&window.name)?;
    }
    Ok(PlanTerms { name: checked_name(&terms.name)?.into(), ..terms.clone() })
}

fn json(terms: &PlanTerms) -> String {
    serde_json::to_string(terms).expect("terms are always JSON")
}

/// Lets nobody else subscribe, or lets them again. Who has subscribed is not touched.
pub fn set_retired(connection: &Connection, id: PlanId, retired: bool) -> Result<Option<Plan>, StoreError> {
    let status = if retired { "retired" } else { "active" };
    connection.prepare_cached("update plans set status = ?2 where id = ?1")?.execute((id.0, status))?;
    by_id(connection, id)
}

/// The plan of that id.
pub fn by_id(connection: &Connection, id: PlanId) -> Result<Option<Plan>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from plans where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// The plan of that name.
pub fn by_name(connection: &Connection, name: &str) -> Result<Option<Plan>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from plans where name = ?1"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(read).transpose()
}

/// Plans after `after`, at most `limit` of them, by id.
pub fn list(connection: &Connection, after: PlanId, limit: u32) -> Result<Vec<Plan>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from plans where id > ?1 order by id limit ?2"))?;
    let mut rows = statement.query((after.0, limit))?;
    let mut plans = Vec::new();
    while let Some(row) = rows.next()? {
        plans.push(read(row)?);
    }
    Ok(plans)
}
