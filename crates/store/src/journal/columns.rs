//! Many rows at once, column by column.
//!
//! PostgreSQL takes a list for each column and makes rows of them by `unnest`: one statement and one round trip, however
//! many rows. SQLite, which has neither lists nor round trips, takes them row by row.

use super::rows::Bind;
use crate::sql::{Error, Kind, Transaction, Value};
use std::convert::Infallible;
use std::fmt::Write;
use std::ops::Range;

/// Rows on their way into a table.
pub(super) struct Columns {
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    Integers(Vec<Option<i64>>),
    /// One text, and the pieces of it that are the values.
    Texts(String, Vec<Option<Range<usize>>>),
}

impl Columns {
    /// No rows of so many columns yet. They are of integers, but for `texts`, counted from 0.
    pub(super) fn new(count: usize, texts: &[usize]) -> Self {
        let columns = (0..count).map(|index| match texts.contains(&index) {
            false => Column::Integers(Vec::new()),
            true => Column::Texts(String::new(), Vec::new()),
        });
        Self { columns: columns.collect(), rows: 0 }
    }

    /// Begins a row, in which every column is null until it is given.
    pub(super) fn begin_row(&mut self) {
        self.rows += 1;
        for column in &mut self.columns {
            match column {
                Column::Integers(values) => values.push(None),
                Column::Texts(_, values) => values.push(None),
            }
        }
    }

    /// A whole row.
    pub(super) fn row<'v>(&mut self, values: impl IntoIterator<Item = Value<'v>>) {
        self.begin_row();
        for (index, value) in values.into_iter().enumerate() {
            match value {
                Value::Integer(Some(value)) => self.set_integer(index, value),
                Value::Text(Some(text)) => self.set_text(index, text),
                _ => {}
            }
        }
    }

    /// No rows, but the room that they had.
    pub(super) fn clear(&mut self) {
        self.rows = 0;
        for column in &mut self.columns {
            match column {
                Column::Integers(values) => values.clear(),
                Column::Texts(text, values) => {
                    text.clear();
                    values.clear();
                }
            }
        }
    }

    /// Inserts the rows: `head` names table and columns, `tail` says what happens to rows that are there.
    pub(super) fn insert(&self, transaction: &Transaction<'_>, head: &str, tail: &str) -> Result<usize, Error> {
        let parameters = parameters(self.columns.len());
        self.run(
            transaction,
            &format!("{head} values ({parameters}) {tail}"),
            &format!("{head} select * from unnest({parameters}) {tail}"),
        )
    }

    /// Runs `one` for each row in SQLite, and `all` once in PostgreSQL. Returns how many rows were changed.
    pub(super) fn run(&self, transaction: &Transaction<'_>, one: &str, all: &str) -> Result<usize, Error> {
        match transaction.kind() {
            _ if self.rows == 0 => Ok(0),
            Kind::Sqlite => {
                let mut statement = transaction.prepare_cached(one)?;
                let mut values = Vec::with_capacity(self.columns.len());
                (0..self.rows).try_fold(0, |changed, row| {
                    values.clear();
                    values.extend(self.columns.iter().map(|column| column.value(row)));
                    Ok(changed + statement.execute(values.as_slice())?)
                })
            }
            Kind::Postgres => {
                let texts: Vec<Vec<Option<&str>>> = self.columns.iter().map(Column::texts).collect();
                let lists = self.columns.iter().zip(&texts).map(|(column, texts)| match column {
                    Column::Integers(values) => Value::Integers(values),
                    Column::Texts(..) => Value::Texts(texts),
                });
                let lists: Vec<_> = lists.collect();
                transaction.prepare_cached(all)?.execute(lists.as_slice())
            }
        }
    }

    fn set_integer(&mut self, index: usize, value: i64) {
        let Column::Integers(values) = &mut self.columns[index] else { panic!("column {index} has texts") };
        *values.last_mut().expect("a row was begun") = Some(value);
    }

    fn set_text(&mut self, index: usize, value: &str) {
        let Column::Texts(text, values) = &mut self.columns[index] else { panic!("column {index} has integers") };
        let start = text.len();
        text.push_str(value);
        *values.last_mut().expect("a row was begun") = Some(start..text.len());
    }
}

/// `?1, ?2 …`
pub(super) fn parameters(count: usize) -> String {
    let mut text = String::new();
    for number in 1..=count {
        let comma = if number > 1 { ", " } else { "" };
        write!(text, "{comma}?{number}").expect("writing to a string cannot fail");
    }
    text
}

impl Column {
    fn value(&self, row: usize) -> Value<'_> {
        match self {
            Self::Integers(values) => Value::Integer(values[row]),
            Self::Texts(text, values) => Value::Text(values[row].clone().map(|piece| &text[piece])),
        }
    }

    fn texts(&self) -> Vec<Option<&str>> {
        match self {
            Self::Integers(_) => Vec::new(),
            Self::Texts(text, values) => values.iter().map(|piece| piece.clone().map(|piece| &text[piece])).collect(),
        }
    }
}

impl Bind for Columns {
    type Error = Infallible;

    fn integer(&mut self, column: usize, value: i64) -> Result<(), Infallible> {
        self.set_integer(column - 1, value);
        Ok(())
    }

    fn text(&mut self, column: usize, value: &str) -> Result<(), Infallible> {
        self.set_text(column - 1, value);
        Ok(())
    }
}
