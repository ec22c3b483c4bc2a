//! What was measured, as a table for people or as JSON.
//!
//! Owns: ratio and verdict of each row, and how they look.
//! Must not know: how anything was measured.
//! Invariant: every row that was asked for is in the report: with figures, or with why it has none.
//! Trust: none needed. Threads: plain values.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::ensure;
use clap::ValueEnum;
use serde::Serialize;

use crate::machine::Machine;

/// What a row must reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// At least so many times the reference.
    Ratio(f64),
    AtLeast(f64),
    AtMost(f64),
    /// Nothing was promised; the figure is for information.
    None,
}

/// What a tool can measure; the order of rows is that of the report.
pub trait Row: ValueEnum + Copy + Ord + Serialize + 'static {
    fn what(self) -> &'static str;
    fn unit(self) -> &'static str;
    fn goal(self) -> Goal;

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub fn all<R: Row>() -> impl Iterator<Item = R> {
    R::value_variants().iter().copied()
}

/// Rows of one tool, measured on one machine with one set of settings.
#[derive(Debug, Serialize)]
pub struct Report<R, S> {
    machine: Machine,
    #[serde(flatten)]
    settings: S,
    rows: Vec<Line<R>>,
}

#[derive(Debug, Serialize)]
struct Line<R> {
    row: R,
    what: &'static str,
    unit: &'static str,
    bcai: Option<f64>,
    reference: Option<Reference>,
    ratio: Option<f64>,
    target: Goal,
    met: Option<bool>,
    notes: Vec<String>,
    /// Why there are no figures, when it is not the user's choice.
    failed: bool,
}

#[derive(Debug, Serialize)]
struct Reference {
    name: String,
    value: f64,
}

impl<R: Row, S: Serialize + fmt::Display> Report<R, S> {
    pub fn new(machine: Machine, settings: S) -> Self {
        Self { machine, settings, rows: Vec::new() }
    }

    /// The file system that is the reference, such as `ext4`.
    pub fn file_system(&self) -> &str {
        &self.machine.file_system
    }

    /// A row without anything to compare it with.
    pub fn value(&mut self, row: R, bcai: f64) {
        self.add(row, Some(bcai), None);
    }

    /// A row beside its reference, both in the row's unit.
    pub fn pair(&mut self, row: R, bcai: f64, name: &str, reference: f64) {
        self.add(row, Some(bcai), Some(Reference { name: name.to_owned(), value: reference }));
    }

    /// A row that cannot be measured here.
    pub fn skip(&mut self, row: R, why: &str) {
        self.add(row, None, None);
        self.note(row, why);
    }

    /// Something to be said about a row that has been added.
    pub fn note(&mut self, row: R, note: impl Into<String>) {
        if let Some(line) = self.rows.iter_mut().find(|line| line.row == row) {
            line.notes.push(note.into());
        }
    }

    /// Of `rows`, those that were not added could not be measured.
    pub fn fail(&mut self, rows: &BTreeSet<R>, error: &anyhow::Error) {
        let missing = |row: &&R| !self.rows.iter().any(|line| line.row == **row);
        for row in rows.iter().filter(missing).copied().collect::<Vec<_>>() {
            self.skip(row, &format!("failed: {error:#}"));
        }
        for line in self.rows.iter_mut().filter(|line| rows.contains(&line.row)) {
            line.failed |= line.bcai.is_none();
        }
    }

    /// Prints it, for programs or for people; an error if a row could not be measured.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
        } else {
            println!("{self}");
        }
        ensure!(!self.failed(), "not all rows could be measured");
        Ok(())
    }

    fn failed(&self) -> bool {
        self.rows.iter().any(|line| line.failed)
    }

    fn add(&mut self, row: R, bcai: Option<f64>, reference: Option<Reference>) {
        let ratio = bcai.zip(reference.as_ref()).map(|(bcai, reference)| bcai / reference.value);
        let target = row.goal();
        let met = match target {
            Goal::Ratio(least) => ratio.map(|ratio| ratio >= least),
            Goal::AtLeast(least) => bcai.map(|bcai| bcai >= least),
            Goal::AtMost(most) => bcai.map(|bcai| bcai <= most),
            Goal::None => None,
        };
        let (what, unit) = (row.what(), row.unit());
        let line =
            Line { row, what, unit, bcai, reference, ratio, target, met, notes: Vec::new(), failed: false };
        let at = self.rows.partition_point(|other| other.row < row);
        self.rows.insert(at, line);
    }
}

impl<R: Row> Line<R> {
    fn cells(&self) -> [String; 7] {
        let nothing = || "–".to_owned();
        let value = |value: f64| format!("{} {}", figure(value), self.unit);
        [
            self.row.name(),
            self.what.to_owned(),
            self.bcai.map_or_else(nothing, value),
            self.reference
                .as_ref()
                .map_or_else(nothing, |reference| format!("{} {}", reference.name, figure(reference.value))),
            self.ratio.map_or_else(nothing, |ratio| format!("{ratio:.2}")),
            match self.target {
                Goal::Ratio(least) => format!("≥ {least} × reference"),
                Goal::AtLeast(least) => format!("≥ {}", value(least)),
                Goal::AtMost(most) => format!("≤ {}", value(most)),
                Goal::None => nothing(),
            },
            match self.met {
                Some(true) => "met".to_owned(),
                Some(false) => "missed".to_owned(),
                None if self.failed => "failed".to_owned(),
                None => nothing(),
            },
        ]
    }
}

/// Three digits that count, with commas between thousands.
fn figure(value: f64) -> String {
    if value < 100.0 {
        let digits = if value < 10.0 { 2 } else { 1 };
        return format!("{value:.digits$}");
    }
    // Figures here are far below 2^53.
    let whole = format!("{}", value.round() as u64);
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const HEADS: [&str; 7] = ["row", "what", "bcai", "reference", "ratio", "target", ""];

impl<R: Row, S: fmt::Display> fmt::Display for Report<R, S> {
    /// A table that is Markdown too, and the notes below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{}\n", self.settings)?;
        let mut table: Vec<[String; 7]> = vec![HEADS.map(str::to_owned)];
        table.extend(self.rows.iter().map(Line::cells));
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        for (number, row) in table.iter().enumerate() {
            for (cell, width) in row.iter().zip(widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for width in widths {
                    write!(f, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        for line in &self.rows {
            for note in &line.notes {
                write!(f, "\n{}: {note}", line.row.name())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Row;
    use crate::corpus::Size;

    fn report() -> Report<Row, Size> {
        Report::new(Machine::default(), Size { seed: 1, scale: 1.0 })
    }

    #[test]
    fn figures_are_short_and_readable() {
        let shown: Vec<String> = [0.031, 9.994, 54.32, 1234.5, 1_000_000.0].map(figure).to_vec();
        assert_eq!(shown, ["0.03", "9.99", "54.3", "1,235", "1,000,000"]);
    }

    #[test]
    fn verdicts_follow_the_targets() {
        let mut report = report();
        report.pair(Row::EpochSecond, 95.0, "ext4", 100.0);
        report.pair(Row::SeqWarm, 89.0, "ext4", 100.0);
        report.value(Row::Memory, 100.1);
        report.value(Row::Republish, 100_000.0);
        report.pair(Row::FindWarm, 1.0, "ext4", 2.0);
        let met: Vec<_> = report.rows.iter().map(|line| (line.row, line.met)).collect();
        let expected = [
            (Row::SeqWarm, Some(false)),
            (Row::EpochSecond, Some(true)),
            (Row::FindWarm, None),
            (Row::Memory, Some(false)),
            (Row::Republish, Some(true)),
        ];
        assert_eq!(met, expected);
        assert!(!report.failed());
    }

    #[test]
    fn rows_that_failed_are_named() {
        let mut report = report();
        report.value(Row::Memory, 1.0);
        report.fail(&[Row::Memory, Row::Republish].into(), &anyhow::anyhow!("no disk"));
        assert!(report.failed());
        let text = report.to_string();
        assert!(text.contains("republish: failed: no disk") && !text.contains("memory: failed"), "{text}");
    }
}
