//! The findings of the rows: one line each on standard output, progress on standard error, and the totals last.

use serde_json::{Value, json};

use crate::row::{Outcome, Row};

/// Why the program could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) what: String,
    pub(crate) hint: &'static str,
}

/// Counts the rows, and prints them.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    rows: u64,
    failed: u64,
    lost: u64,
    skipped: u64,
}

impl Report {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json, rows: 0, failed: 0, lost: 0, skipped: 0 }
    }

    /// Prints a row without running it.
    pub(crate) fn describe(&self, row: &Row) {
        if self.json {
            println!("{}", json!({ "row": row.name, "expected": row.expected }));
        } else {
            println!("{:32} {}", row.name, row.expected);
        }
    }

    /// Says on standard error that a row begins.
    pub(crate) fn begin(&self, number: usize, of: usize, row: &Row) {
        eprintln!("[{}/{of}] {}: {}", number + 1, row.name, row.expected);
    }

    /// Counts and prints a row's result.
    pub(crate) fn end(&mut self, row: &Row, outcome: &Outcome) {
        self.rows += 1;
        self.failed += u64::from(!outcome.ok && !outcome.is_skipped);
        self.skipped += u64::from(outcome.is_skipped);
        self.lost += outcome.lost;
        if self.json {
            println!("{}", line(row, outcome));
        } else {
            let word = match outcome {
                Outcome { ok: true, .. } => "ok",
                Outcome { is_skipped: true, .. } => "SKIPPED",
                _ => "FAILED",
            };
            println!("{:32} {word:7} {:7.1} s  {}", row.name, outcome.seconds, outcome.observed);
        }
    }

    /// Prints the totals, and returns whether all is well.
    pub(crate) fn finish(&self) -> bool {
        println!("{}", self.totals());
        self.failed == 0 && self.lost == 0 && self.skipped == 0
    }

    fn totals(&self) -> String {
        let Self { rows, failed, lost, skipped, .. } = self;
        let skipped = if *skipped == 0 { String::new() } else { format!(",\"skipped\":{skipped}") };
        format!("{{\"rows\":{rows},\"failed\":{failed},\"lost\":{lost}{skipped}}}")
    }
}

fn line(row: &Row, outcome: &Outcome) -> Value {
    json!({
        "row": row.name,
        "expected": row.expected,
        "observed": outcome.observed,
        "ok": outcome.ok,
        "seconds": (outcome.seconds * 10.0).round() / 10.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ok: bool, lost: u64) -> Outcome {
        Outcome { ok, observed: "seen \"so\"".into(), seconds: 1.26, lost, is_skipped: false }
    }

    #[test]
    fn a_row_is_one_line_of_json() {
        let row = Row { name: "a.b", expected: "all holds", run: |_| Ok(String::new()) };
        let line = line(&row, &outcome(true, 0)).to_string();
        assert!(!line.contains('\n'));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["row"], "a.b");
        assert_eq!((read["ok"].as_bool(), read["seconds"].as_f64()), (Some(true), Some(1.3)));
        assert_eq!(read["observed"], "seen \"so\"");
    }

    #[test]
    fn the_totals_count_rows_failures_and_losses() {
        let row = Row { name: "a.b", expected: "all holds", run: |_| Ok(String::new()) };
        let mut report = Report::new(true);
        report.end(&row, &outcome(true, 0));
        assert_eq!(report.totals(), "{\"rows\":1,\"failed\":0,\"lost\":0}");
        assert!(report.finish());
        report.end(&row, &outcome(false, 2));
        assert_eq!(report.totals(), "{\"rows\":2,\"failed\":1,\"lost\":2}");
        assert!(!report.finish());
    }

    #[test]
    fn a_skipped_row_has_neither_failed_nor_passed() {
        let row = Row { name: "a.b", expected: "all holds", run: |_| Ok(String::new()) };
        let mut report = Report::new(true);
        report.end(&row, &Outcome { is_skipped: true, ..outcome(false, 0) });
        assert_eq!(report.totals(), "{\"rows\":1,\"failed\":0,\"lost\":0,\"skipped\":1}");
        assert!(!report.finish());
    }
}
