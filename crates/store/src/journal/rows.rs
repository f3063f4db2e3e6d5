//! Entries as rows of the `journal` table.

use crate::database::StoreError;
use crate::sql;
use domain::ledger::{Charge, Counted, Ending, Entry, Extension, Hold, Kind, Legs, Part, Parts, Release, Source};
use domain::{AccountId, BudgetId, KeyId, Multiplier, Nanos, Period, PriceId, Seq, Timestamp, Usage};
use rusqlite::Statement;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The beginning of an insert, with the columns as [`Row::write`] counts them.
pub(super) const INSERT: &str = "
    insert into journal (seq, at, kind, account, previous, available, granted, held, spent, fees, debt, funding, plan,
                         promotion, key, hold, price, multiplier, lease_until, ending, estimated, usage, model,
                         upstream, request, service_tier, parts, counted, reference, detail)";
/// How many columns these are, and which have texts, counted from 0.
pub(super) const COLUMNS: usize = 30;
pub(super) const TEXTS: [usize; 9] = [21, 22, 23, 24, 25, 26, 27, 28, 29];

/// Selects the columns that [`Row::read`] expects, in its order. To be completed by a condition.
pub(crate) const SELECT: &str = "
    select seq, at, kind, account, previous, available, granted, held, spent, fees, debt, funding, plan, promotion, key,
           hold, price, multiplier, lease_until, ending, estimated, usage, model, upstream, request, service_tier, parts,
           counted, reference, detail
    from journal";

/// What takes the values of a row, column by column.
pub(super) trait Bind {
    /// Why a value is not taken.
    type Error;
    /// An integer for a column, counted from 1.
    fn integer(&mut self, column: usize, value: i64) -> Result<(), Self::Error>;
    /// A text for a column, counted from 1.
    fn text(&mut self, column: usize, value: &str) -> Result<(), Self::Error>;
}

impl Bind for Statement<'_> {
    type Error = rusqlite::Error;

    fn integer(&mut self, column: usize, value: i64) -> Result<(), rusqlite::Error> {
        self.raw_bind_parameter(column, value)
    }

    fn text(&mut self, column: usize, value: &str) -> Result<(), rusqlite::Error> {
        self.raw_bind_parameter(column, value)
    }
}

const FUND: i64 = 1;
pub(crate) const HOLD: i64 = 2;
const SETTLE: i64 = 3;
const VOID: i64 = 4;
const EXPIRE: i64 = 5;
const LATE_CHARGE: i64 = 6;
pub(super) const EXTEND: i64 = 7;
const GRANT: i64 = 8;
const GRANT_END: i64 = 9;
const SUBSCRIPTION: i64 = 10;
const RESET: i64 = 11;

/// Reads and writes rows.
pub(crate) struct Row;

impl Row {
    /// Inserts an entry.
    pub(super) fn insert(
        statement: &mut Statement<'_>,
        entry: &Entry,
        texts: &mut Texts,
    ) -> Result<(), rusqlite::Error> {
        statement.clear_bindings();
        Self::write(statement, entry, texts)?;
        statement.raw_execute().map(|_| ())
    }

    /// Gives the values of an entry's row. Columns without a value are not given.
    pub(super) fn write<B: Bind>(to: &mut B, entry: &Entry, texts: &mut Texts) -> Result<(), B::Error> {
        let Texts { text, counted } = texts;
        let Entry { seq, at, account, previous, legs, kind } = entry;
        to.integer(1, seq.0)?;
        to.integer(2, at.0)?;
        to.integer(3, code(kind))?;
        to.integer(4, account.0)?;
        to.integer(5, previous.0)?;
        for (column, pot) in (6..).zip(legs.amounts()) {
            to.integer(column, pot.0)?;
        }
        match kind {
            Kind::Hold(hold) => {
                to.integer(15, hold.key.0)?;
                to.integer(17, hold.price.0)?;
                write_multiplier(to, hold.multiplier)?;
                to.integer(19, hold.lease_until.0)?;
                write_usage(text, &hold.bound);
                to.text(22, text)?;
                to.text(23, &hold.model)?;
                to.text(24, &hold.upstream)?;
                to.text(25, &hold.request)?;
                write_parts(to, text, &hold.parts)?;
                write_counted(to, counted, &hold.counted)?;
            }
            Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => {
                to.integer(15, charge.key.0)?;
                to.integer(16, charge.hold.0)?;
                to.integer(17, charge.price.0)?;
                write_multiplier(to, charge.multiplier)?;
                to.integer(20, charge.ending as i64)?;
                to.integer(21, i64::from(charge.estimated))?;
                write_usage(text, &charge.usage);
                to.text(22, text)?;
                to.text(23, &charge.model)?;
                if let Some(tier) = &charge.service_tier {
                    to.text(26, tier)?;
                }
                write_parts(to, text, &charge.parts)?;
                write_counted(to, counted, &charge.counted)?;
                if charge.again {
                    write_detail(to, text, &OfCharge { again: true }, None)?;
                }
            }
            Kind::Void(release) => {
                to.integer(15, release.key.0)?;
                to.integer(16, release.hold.0)?;
                to.integer(20, release.ending as i64)?;
            }
            Kind::Extend(extension) => {
                to.integer(15, extension.key.0)?;
                to.integer(16, extension.hold.0)?;
                write_usage(text, &Usage::tokens(0, extension.tokens));
                to.text(22, text)?;
                write_parts(to, text, &extension.parts)?;
            }
            Kind::Fund(fund) => write_detail(to, text, fund, fund.reference.as_deref())?,
            Kind::Grant(grant) => write_detail(to, text, grant, grant.reference.as_deref())?,
            Kind::GrantEnd(end) => write_detail(to, text, end, None)?,
            Kind::Subscription(change) => write_detail(to, text, change, None)?,
            Kind::Reset(reset) => write_detail(to, text, reset, None)?,
        }
        Ok(())
    }

    /// Reads an entry from the columns of [`SELECT`].
    pub(crate) fn read(row: sql::Row<'_>) -> Result<Entry, StoreError> {
        let seq = Seq(row.get(0)?);
        let damaged = |what: &str| StoreError::Damaged(format!("journal row {seq}: {what}"));
        let mut amounts = [Nanos::ZERO; 9];
        for (column, amount) in (5..).zip(&mut amounts) {
            *amount = Nanos(row.get(column)?);
        }
        let legs = Legs::from_amounts(amounts);
        let text = |column| row.get::<_, Arc<str>>(column);
        let key = || row.get(14).map(KeyId);
        let hold = || row.get(15).map(Seq);
        let usage = || read_json::<Usage>(&row, 21)?.ok_or_else(|| damaged("usage is missing"));
        let parts = || Ok::<_, StoreError>(read_json::<Parts>(&row, 26)?.unwrap_or_default());
        let counted = || read_counted(&row);
        let multiplier = || match row.get::<_, Option<u32>>(17)? {
            None => Ok(Multiplier::ONE),
            Some(millionths) => Multiplier::from_millionths(millionths).ok_or_else(|| damaged("unknown multiplier")),
        };
        let ending = || -> Result<Ending, StoreError> {
            let code: i64 = row.get(19)?;
            let ending = usize::try_from(code).ok().and_then(|code| Ending::ALL.get(code).copied());
            ending.ok_or_else(|| damaged("unknown ending"))
        };
        let kind = match row.get::<_, i64>(2)? {
            HOLD => Kind::Hold(Arc::new(Hold {
                key: key()?,
                request: text(24)?,
                model: text(22)?,
                upstream: text(23)?,
                price: PriceId(row.get(16)?),
                multiplier: multiplier()?,
                amount: whole(&legs, &parts()?),
                bound: usage()?,
                lease_until: Timestamp(row.get(18)?),
                parts: parts()?,
                counted: counted()?,
            })),
            code @ (SETTLE | EXPIRE | LATE_CHARGE) => {
                let charge = Charge {
                    hold: hold()?,
                    key: key()?,
                    model: text(22)?,
                    price: PriceId(row.get(16)?),
                    multiplier: multiplier()?,
                    usage: usage()?,
                    service_tier: row.get(25)?,
                    cost: legs.spent,
                    ending: ending()?,
                    estimated: row.get::<_, i64>(20)? != 0,
                    parts: parts()?,
                    counted: counted()?,
                    again: read_json::<OfCharge>(&row, 29)?.is_some_and(|detail| detail.again),
                };
                match code {
                    SETTLE => Kind::Settle(charge),
                    EXPIRE => Kind::Expire(charge),
                    _ => Kind::LateCharge(charge),
                }
            }
            VOID => Kind::Void(Release { hold: hold()?, key: key()?, ending: ending()? }),
            EXTEND => Kind::Extend(Extension {
                hold: hold()?,
                key: key()?,
                amount: whole(&legs, &parts()?),
                tokens: usage()?.output_tokens(),
                parts: parts()?,
            }),
            code => {
                let missing = || damaged("detail is missing");
                match code {
                    FUND => Kind::Fund(read_json(&row, 29)?.ok_or_else(missing)?),
                    GRANT => Kind::Grant(read_json(&row, 29)?.ok_or_else(missing)?),
                    GRANT_END => Kind::GrantEnd(read_json(&row, 29)?.ok_or_else(missing)?),
                    SUBSCRIPTION => Kind::Subscription(read_json(&row, 29)?.ok_or_else(missing)?),
                    RESET => Kind::Reset(read_json(&row, 29)?.ok_or_else(missing)?),
                    _ => return Err(damaged("unknown kind")),
                }
            }
        };
        let (account, previous) = (AccountId(row.get(3)?), Seq(row.get(4)?));
        Ok(Entry { seq, at: Timestamp(row.get(1)?), account, previous, legs, kind })
    }
}

/// What a charge has beside the columns.
#[derive(Serialize, Deserialize)]
struct OfCharge {
    again: bool,
}

/// What a hold reserves: money, and what the subscription is to pay.
fn whole(legs: &Legs, parts: &[Part]) -> Nanos {
    let plan = parts.iter().filter(|part| matches!(part.source, Source::Plan(_))).map(|part| part.amount);
    plan.fold(legs.held, |whole, part| Nanos(whole.0.saturating_add(part.0)))
}

fn code(kind: &Kind) -> i64 {
    match kind {
        Kind::Fund(_) => FUND,
        Kind::Hold(_) => HOLD,
        Kind::Settle(_) => SETTLE,
        Kind::Void(_) => VOID,
        Kind::Expire(_) => EXPIRE,
        Kind::LateCharge(_) => LATE_CHARGE,
        Kind::Extend(_) => EXTEND,
        Kind::Grant(_) => GRANT,
        Kind::GrantEnd(_) => GRANT_END,
        Kind::Subscription(_) => SUBSCRIPTION,
        Kind::Reset(_) => RESET,
    }
}

/// The list price is not written: it is the usual case.
fn write_multiplier<B: Bind>(to: &mut B, multiplier: Multiplier) -> Result<(), B::Error> {
    if multiplier == Multiplier::ONE { Ok(()) } else { to.integer(18, i64::from(multiplier.millionths())) }
}

/// The same text that a list of [`Part`] serialises to, into a reused buffer: every request of a subscription has some.
fn write_parts<B: Bind>(to: &mut B, text: &mut String, parts: &[Part]) -> Result<(), B::Error> {
    if parts.is_empty() {
        return Ok(());
    }
    text.clear();
    let mut digits = itoa::Buffer::new();
    for Part { source, amount, tokens } in parts {
        text.push_str(if text.is_empty() { "[{\"f\":" } else { ",{\"f\":" });
        match source {
            Source::Wallet => text.push_str("\"w\""),
            Source::Grant(id) => {
                text.push_str("{\"g\":");
                text.push_str(digits.format(id.0));
                text.push('}');
            }
            Source::Plan(periods) => {
                text.push_str("{\"p\":[");
                for (index, period) in periods.iter().enumerate() {
                    text.push_str(if index == 0 { "{\"start\":" } else { ",{\"start\":" });
                    text.push_str(digits.format(period.start.0));
                    text.push_str(",\"end\":");
                    text.push_str(digits.format(period.end.0));
                    text.push('}');
                }
                text.push_str("]}");
            }
        }
        text.push_str(",\"a\":");
        text.push_str(digits.format(amount.0));
        if *tokens > 0 {
            text.push_str(",\"t\":");
            text.push_str(digits.format(*tokens));
        }
        text.push('}');
    }
    text.push(']');
    to.text(27, text)
}

/// A list of `[budget, start, end]` or `[budget, start, end, subject]`.
fn write_counted<B: Bind>(
    to: &mut B,
    (of, text): &mut (Arc<[Counted]>, String),
    counted: &Arc<[Counted]>,
) -> Result<(), B::Error> {
    if counted.is_empty() {
        return Ok(());
    }
    if Arc::ptr_eq(of, counted) {
        return to.text(28, text);
    }
    *of = counted.clone();
    text.clear();
    let mut digits = itoa::Buffer::new();
    for Counted { budget, subject, period: Period { start, end } } in counted.iter() {
        text.push(if text.is_empty() { '[' } else { ',' });
        for (before, number) in [('[', budget.0), (',', start.0), (',', end.0)] {
            text.push(before);
            text.push_str(digits.format(number));
        }
        if !subject.is_empty() {
            text.push(',');
            text.push_str(&serde_json::to_string(&**subject).expect("a text is always JSON"));
        }
        text.push(']');
    }
    text.push(']');
    to.text(28, text)
}

/// Space for the texts of rows, used again from row to row.
#[derive(Default)]
pub(super) struct Texts {
    text: String,
    /// Requests that fall under the same budgets name the same counters: the last ones, and their text.
    counted: (Arc<[Counted]>, String),
}

fn read_counted(row: &sql::Row<'_>) -> Result<Arc<[Counted]>, StoreError> {
    #[derive(Deserialize)]
    struct Written(BudgetId, Timestamp, Timestamp, #[serde(default)] Arc<str>);

    let written = read_json::<Vec<Written>>(row, 27)?.unwrap_or_default();
    let counted = written.into_iter().map(|Written(budget, start, end, subject)| Counted {
        budget,
        subject,
        period: Period { start, end },
    });
    Ok(counted.collect())
}

fn write_detail<B: Bind>(
    to: &mut B,
    text: &mut String,
    detail: &impl Serialize,
    reference: Option<&str>,
) -> Result<(), B::Error> {
    if let Some(reference) = reference {
        to.text(29, reference)?;
    }
    write_json(text, detail);
    to.text(30, text)
}

fn write_json(text: &mut String, value: &(impl Serialize + ?Sized)) {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.clear();
    serde_json::to_writer(&mut bytes, value).expect("the ledger's own types are always JSON");
    *text = String::from_utf8(bytes).expect("JSON is always UTF-8");
}

fn read_json<T: DeserializeOwned>(row: &sql::Row<'_>, column: usize) -> Result<Option<T>, StoreError> {
    let text: Option<Arc<str>> = row.get(column)?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|error| StoreError::Damaged(format!("journal row {}: {error}", row.get::<_, i64>(0).unwrap_or(0))))
}

/// The same text that [`Usage`] serialises to, into a reused buffer.
fn write_usage(text: &mut String, usage: &Usage) {
    text.clear();
    text.push('{');
    let mut digits = itoa::Buffer::new();
    for (meter, count) in usage.counts() {
        text.push_str(if text.len() > 1 { ",\"" } else { "\"" });
        text.push_str(meter.name());
        text.push_str("\":");
        text.push_str(digits.format(count));
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
    fn parts_are_written_as_they_are_read() {
        #[derive(Default)]
        struct Texts(Vec<(usize, String)>);
        impl Bind for Texts {
            type Error = std::convert::Infallible;
            fn integer(&mut self, _: usize, _: i64) -> Result<(), Self::Error> {
                Ok(())
            }
            fn text(&mut self, column: usize, value: &str) -> Result<(), Self::Error> {
                self.0.push((column, value.to_owned()));
                Ok(())
            }
        }

        let period = |start| Period { start: Timestamp(start), end: Timestamp(start + 3_600_000) };
        let part = |source, amount, tokens| Part { source, amount: Nanos(amount), tokens };
        let parts = [
            part(Source::Grant(Seq(7)), 12, 0),
            part(Source::Plan([period(1_767_225_600_000), period(-5)].into()), i64::MAX, 9),
            part(Source::Plan(Default::default()), 0, u64::MAX),
            part(Source::Wallet, -1, 0),
        ];
        for count in 1..=parts.len() {
            let (mut to, mut text) = (Texts::default(), String::from("left over"));
            let Ok(()) = write_parts(&mut to, &mut text, &parts[..count]);
            assert_eq!(to.0, [(27, serde_json::to_string(&parts[..count]).unwrap())]);
        }
        let mut to = Texts::default();
        let Ok(()) = write_parts(&mut to, &mut String::new(), &[]);
        assert_eq!(to.0, []);
    }

    #[test]
    fn endings_are_stored_by_their_place_in_the_list() {
        for (index, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, index);
        }
    }
}
