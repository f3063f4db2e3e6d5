//! What a benchmark found: rows of medians, as a Markdown table and as JSON.

use serde::Serialize;
use std::fmt;

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Measurements taken of both programs.
    pub rows: Vec<Row>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured, with its unit.
    pub name: String,
    /// Median over the rounds for the pass-through.
    pub baseline: Option<f64>,
    /// Median over the rounds for the gateway.
    pub gateway: Option<f64>,
    /// How the gateway compares with the pass-through.
    pub comparison: Option<f64>,
    /// What the comparison is.
    pub compared_by: Comparison,
}

/// How two programs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Median over the rounds of gateway / pass-through.
    Ratio,
    /// Median over the rounds of gateway − pass-through.
    Difference,
}

impl Report {
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a measurement taken in rounds; `rounds` holds pass-through and gateway of each.
    pub(super) fn add(&mut self, name: impl Into<String>, compared_by: Comparison, rounds: &[(f64, Option<f64>)]) {
        let compare = |&(baseline, gateway): &(f64, Option<f64>)| match compared_by {
            Comparison::Ratio if baseline <= 0.0 => None,
            Comparison::Ratio => Some(gateway? / baseline),
            Comparison::Difference => Some(gateway? - baseline),
        };
        self.rows.push(Row {
            name: name.into(),
            baseline: median(rounds.iter().map(|round| round.0)),
            gateway: median(rounds.iter().filter_map(|round| round.1)),
            comparison: median(rounds.iter().filter_map(compare)),
            compared_by,
        });
    }

    /// Adds a measurement that only the gateway has.
    pub(super) fn add_gateway_only(&mut self, name: impl Into<String>, value: f64) {
        let compared_by = Comparison::Ratio;
        self.rows.push(Row { name: name.into(), baseline: None, gateway: Some(value), comparison: None, compared_by });
    }
}

/// The table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| measurement | pass-through | gateway | gateway against pass-through |")?;
        writeln!(f, "|---|---:|---:|---:|")?;
        for row in &self.rows {
            let comparison = match (row.comparison, row.compared_by) {
                (Some(ratio), Comparison::Ratio) => format!("{ratio:.2} ×"),
                (Some(difference), Comparison::Difference) => format!("{difference:+.3}"),
                (None, _) => "–".to_owned(),
            };
            writeln!(f, "| {} | {} | {} | {comparison} |", row.name, figure(row.baseline), figure(row.gateway))?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

/// A number with about three digits.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_medians_and_the_median_of_the_ratios() {
        let mut report = Report::default();
        let rounds = [(10.0, Some(15.0)), (20.0, Some(22.0)), (30.0, Some(60.0))];
        report.add("CPU (µs)", Comparison::Ratio, &rounds);
        report.add("p50 (ms)", Comparison::Difference, &[(1.0, Some(1.25)), (2.0, None)]);
        report.add("alone", Comparison::Ratio, &[(1.0, None)]);
        let table = report.to_string();
        assert!(table.contains("| CPU (µs) | 20.0 | 22.0 | 1.50 × |"), "{table}");
        assert!(table.contains("| p50 (ms) | 1.50 | 1.25 | +0.250 |"), "{table}");
        assert!(table.contains("| alone | 1.00 | – | – |"), "{table}");
    }
}
