//! Entries as rows of the `journal` table.

use crate::database::StoreError;
use crate::sql;
use domain::ledger::{Charge, Ending, Entry, Hold, Kind, Legs, Release};
use domain::{AccountId, KeyId, Nanos, PriceId, Seq, Timestamp, Usage};
use rusqlite::Statement;
use std::fmt::Write;
use std::sync::Arc;

/// Inserts one row; parameters in the order of [`Row::insert`].
pub(super) const INSERT: &str = "
    insert into journal (seq, at, kind, account, available, held, spent, debt, funding, key, hold, price,
                         lease_until, ending, estimated, usage, model, upstream, request, service_tier, note)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";

/// Selects the columns that [`Row::read`] expects, in its order. To be completed by a condition.
pub(crate) const SELECT: &str = "
    select seq, at, kind, account, available, held, spent, debt, funding, key, hold, price,
           lease_until, ending, estimated, usage, model, upstream, request, service_tier, note
    from journal";

const TOP_UP: i64 = 1;
const HOLD: i64 = 2;
const SETTLE: i64 = 3;
const VOID: i64 = 4;
const EXPIRE: i64 = 5;
const LATE_CHARGE: i64 = 6;

/// Reads and writes rows.
pub(crate) struct Row;

impl Row {
    /// Inserts an entry. `text` is scratch space that is reused from row to row.
    pub(super) fn insert(
        statement: &mut Statement<'_>,
        entry: &Entry,
        text: &mut String,
    ) -> Result<(), rusqlite::Error> {
        let Entry { seq, at, account, legs, kind } = entry;
        let code = match kind {
            Kind::TopUp { .. } => TOP_UP,
            Kind::Hold(_) => HOLD,
            Kind::Settle(_) => SETTLE,
            Kind::Void(_) => VOID,
            Kind::Expire(_) => EXPIRE,
            Kind::LateCharge(_) => LATE_CHARGE,
        };
        statement.clear_bindings();
        let mut bind = |column: usize, value: i64| statement.raw_bind_parameter(column, value);
        bind(1, seq.0)?;
        bind(2, at.0)?;
        bind(3, code)?;
        bind(4, account.0)?;
        let pots = [legs.available, legs.held, legs.spent, legs.debt, legs.funding];
        for (column, pot) in (5..).zip(pots) {
            bind(column, pot.0)?;
        }
        match kind {
            Kind::TopUp { note } => statement.raw_bind_parameter(21, &**note)?,
            Kind::Hold(hold) => {
                bind(10, hold.key.0)?;
                bind(12, hold.price.0)?;
                bind(13, hold.lease_until.0)?;
                write_usage(text, &hold.bound);
                statement.raw_bind_parameter(16, text.as_str())?;
                statement.raw_bind_parameter(17, &*hold.model)?;
                statement.raw_bind_parameter(18, &*hold.upstream)?;
                statement.raw_bind_parameter(19, &*hold.request)?;
            }
            Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => {
                bind(10, charge.key.0)?;
                bind(11, charge.hold.0)?;
                bind(12, charge.price.0)?;
                bind(14, charge.ending as i64)?;
                bind(15, i64::from(charge.estimated))?;
                write_usage(text, &charge.usage);
                statement.raw_bind_parameter(16, text.as_str())?;
                statement.raw_bind_parameter(17, &*charge.model)?;
                if let Some(tier) = &charge.service_tier {
                    statement.raw_bind_parameter(20, &**tier)?;
                }
            }
            Kind::Void(release) => {
                bind(10, release.key.0)?;
                bind(11, release.hold.0)?;
                bind(14, release.ending as i64)?;
            }
        }
        statement.raw_execute().map(|_| ())
    }

    /// Reads an entry from the columns of [`SELECT`].
    pub(crate) fn read(row: sql::Row<'_>) -> Result<Entry, StoreError> {
        let seq = Seq(row.get(0)?);
        let damaged = |what: &str| StoreError::Damaged(format!("journal row {seq}: {what}"));
        let nanos = |column| row.get(column).map(Nanos);
        let legs =
            Legs { available: nanos(4)?, held: nanos(5)?, spent: nanos(6)?, debt: nanos(7)?, funding: nanos(8)? };
        let text = |column| row.get::<_, Arc<str>>(column);
        let key = || row.get(9).map(KeyId);
        let usage = || -> Result<Usage, StoreError> {
            let json = row.get_ref(15)?.as_str().map_err(|_| damaged("usage is missing"))?;
            serde_json::from_str(json).map_err(|error| damaged(&format!("usage: {error}")))
        };
        let ending = || -> Result<Ending, StoreError> {
            let code: usize = row.get(13)?;
            Ending::ALL.get(code).copied().ok_or_else(|| damaged("unknown ending"))
        };
        let kind = match row.get::<_, i64>(2)? {
            TOP_UP => Kind::TopUp { note: row.get::<_, Option<Arc<str>>>(20)?.unwrap_or_default() },
            HOLD => Kind::Hold(Hold {
                key: key()?,
                request: text(18)?,
                model: text(16)?,
                upstream: text(17)?,
                price: PriceId(row.get(11)?),
                amount: legs.held,
                bound: usage()?,
                lease_until: Timestamp(row.get(12)?),
            }),
            code @ (SETTLE | EXPIRE | LATE_CHARGE) => {
                let charge = Charge {
                    hold: Seq(row.get(10)?),
                    key: key()?,
                    model: text(16)?,
                    price: PriceId(row.get(11)?),
                    usage: usage()?,
                    service_tier: row.get(19)?,
                    cost: legs.spent,
                    ending: ending()?,
                    estimated: row.get::<_, i64>(14)? != 0,
                };
                match code {
                    SETTLE => Kind::Settle(charge),
                    EXPIRE => Kind::Expire(charge),
                    _ => Kind::LateCharge(charge),
                }
            }
            VOID => Kind::Void(Release { hold: Seq(row.get(10)?), key: key()?, ending: ending()? }),
            _ => return Err(damaged("unknown kind")),
        };
        Ok(Entry { seq, at: Timestamp(row.get(1)?), account: AccountId(row.get(3)?), legs, kind })
    }
}

/// The same text that [`Usage`] serialises to, into a reused buffer.
fn write_usage(text: &mut String, usage: &Usage) {
    text.clear();
    text.push('{');
    for (meter, count) in usage.counts() {
        let comma = if text.len() > 1 { "," } else { "" };
        write!(text, "{comma}\"{}\":{count}", meter.name()).expect("writing to a string cannot fail");
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Meter;

    #[test]
    fn usage_is_written_as_it_is_read() {
        let mut usage = Usage::tokens(12, 5);
        usage[Meter::WebSearch] = 1;
        for usage in [usage, Usage::default()] {
            let mut text = String::from("left over");
            write_usage(&mut text, &usage);
            assert_eq!(text, serde_json::to_string(&usage).unwrap());
        }
    }

    #[test]
    fn endings_are_stored_by_their_place_in_the_list() {
        for (index, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, index);
        }
    }
}
