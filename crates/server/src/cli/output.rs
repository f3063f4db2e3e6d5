//! What commands print.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::ErrorKind;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Format {
    /// Prints an answer, as JSON or in words.
    pub fn print<T: Serialize>(self, answer: &T, words: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = match self {
            Self::Json => serde_json::to_string_pretty(answer)?,
            Self::Table => words(answer),
        };
        self.text(&text)
    }

    /// Prints a text as it is.
    pub fn text(self, text: &str) -> anyhow::Result<()> {
        match write_line(text.trim_end()) {
            // Whoever reads has seen enough (`| head`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

#[cfg(not(test))]
fn write_line(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{text}")
}

#[cfg(test)]
fn write_line(text: &str) -> std::io::Result<()> {
    tests::PRINTED.with_borrow_mut(|printed| printed.push_str(&format!("{text}\n")));
    Ok(())
}

/// Rows under a header.
pub fn table<const N: usize>(columns: [Column; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.title().to_uppercase()));
    table.add_rows(rows);
    for (index, column) in columns.iter().enumerate() {
        if let (Column::Number(_), Some(column)) = (column, table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A column of a table.
#[derive(Clone, Copy)]
pub enum Column {
    /// Text, to the left.
    Text(&'static str),
    /// Numbers, to the right.
    Number(&'static str),
}

impl Column {
    fn title(&self) -> &'static str {
        match self {
            Self::Text(title) | Self::Number(title) => title,
        }
    }
}

/// One thing, a line for each of its properties.
pub fn properties<const N: usize>(rows: [(&str, String); N]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(rows.map(|(name, value)| [name.to_owned(), value]));
    table.trim_fmt()
}

/// A value that may be missing.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// A list that may be missing; then it restricts nothing.
pub fn or_all(list: Option<&Vec<String>>) -> String {
    list.map_or("all".to_owned(), |list| list.join(", "))
}

/// Money with its currency.
pub fn usd(amount: impl std::fmt::Display) -> String {
    let amount = amount.to_string();
    match amount.strip_prefix('-') {
        Some(less) => format!("-${less}"),
        None => format!("${amount}"),
    }
}

/// Says on standard error that a list goes on.
pub fn tell_more(next: Option<i64>) {
    if let Some(after) = next {
        eprintln!("there are more: --after {after} continues, --limit shows more at once");
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        /// What commands of this thread have printed, for tests that run them.
        pub static PRINTED: RefCell<String> = const { RefCell::new(String::new()) };
    }

    #[test]
    fn money_has_its_sign_before_its_currency() {
        assert_eq!((usd("-40.00"), usd("0.00")), ("-$40.00".to_owned(), "$0.00".to_owned()));
    }

    #[test]
    fn tables_are_aligned_and_plain() {
        let rows = [["acme".to_owned(), "5.00".to_owned()], ["b".to_owned(), "12.00".to_owned()]];
        let text = table([Column::Text("name"), Column::Number("balance")], rows);
        assert_eq!(text, " NAME  BALANCE\n acme     5.00\n b       12.00");
    }

    #[test]
    fn what_is_missing_is_shown_as_such() {
        assert_eq!(or_dash::<u64>(None), "-");
        assert_eq!(or_all(None), "all");
        assert_eq!(or_all(Some(&vec!["a".to_owned(), "b".to_owned()])), "a, b");
    }
}
