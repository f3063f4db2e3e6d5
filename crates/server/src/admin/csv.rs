//! Tables for spreadsheets.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};

/// What a table is called where it is asked for.
pub const TEXT_CSV: &str = "text/csv";

/// A table that is being written: comma-separated, as RFC 4180 has it.
pub struct Csv {
    text: String,
    is_first_of_row: bool,
}

impl Csv {
    /// A table under a header of plain names.
    pub fn new(columns: &[&str]) -> Self {
        let mut csv = Self { text: String::new(), is_first_of_row: true };
        columns.iter().for_each(|column| csv.plain(column));
        csv.end();
        csv
    }

    /// Adds a value of our own making: a number, an amount, a time, a name of ours.
    pub fn plain(&mut self, value: impl std::fmt::Display) {
        self.cell(&value.to_string());
    }

    /// Adds a text that somebody has written. A spreadsheet takes what begins like a formula for one, so such a text
    /// gets an apostrophe in front (S-36).
    pub fn text(&mut self, text: &str) {
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            self.cell(&format!("'{text}"));
        } else {
            self.cell(text);
        }
    }

    /// Adds a value of our own making that may be missing.
    pub fn optional(&mut self, value: Option<impl std::fmt::Display>) {
        self.cell(&value.map(|value| value.to_string()).unwrap_or_default());
    }

    /// Ends the row.
    pub fn end(&mut self) {
        self.text.push_str("\r\n");
        self.is_first_of_row = true;
    }

    fn cell(&mut self, value: &str) {
        if !std::mem::take(&mut self.is_first_of_row) {
            self.text.push(',');
        }
        if value.contains(['"', ',', '\r', '\n']) {
            self.text.push('"');
            self.text.push_str(&value.replace('"', "\"\""));
            self.text.push('"');
        } else {
            self.text.push_str(value);
        }
    }
}

impl IntoResponse for Csv {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("text/csv; charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], self.text).into_response()
    }
}

/// Whether a client asks for a table: it says that it accepts one.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(TEXT_CSV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_36_no_text_is_a_formula() {
        let mut csv = Csv::new(&["amount", "note"]);
        for note in ["plain", "=1+1", "@x", "+1", "-1", "\t=1", "a,b", "say \"hi\"", "two\nlines", "=\"a,b\""] {
            csv.plain("-0.50");
            csv.text(note);
            csv.end();
        }
        let rows: Vec<&str> = csv.text.split("\r\n").collect();
        assert_eq!(rows[..6], ["amount,note", "-0.50,plain", "-0.50,'=1+1", "-0.50,'@x", "-0.50,'+1", "-0.50,'-1"]);
        assert_eq!(
            rows[6..],
            [
                "-0.50,'\t=1",
                "-0.50,\"a,b\"",
                "-0.50,\"say \"\"hi\"\"\"",
                "-0.50,\"two\nlines\"",
                "-0.50,\"'=\"\"a,b\"\"\"",
                ""
            ]
        );
    }

    #[test]
    fn who_accepts_csv_gets_it() {
        let check = |accept: &str, expected: bool| {
            let headers = [(header::ACCEPT, HeaderValue::from_str(accept).unwrap())].into_iter().collect();
            assert_eq!(is_asked_for(&headers), expected, "{accept}");
        };
        check("text/csv", true);
        check("Text/CSV; charset=utf-8", true);
        check("text/html, text/csv;q=0.9", true);
        check("*/*", false);
        check("application/json", false);
        assert!(!is_asked_for(&HeaderMap::new()));
    }
}
