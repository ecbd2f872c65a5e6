//! `sim report`: adds up the reports of several machines.

use std::path::{Path, PathBuf};

use continuum_sim::campaign::file::{Report, merge_all};

use super::{print, say};

/// Adds up reports, and prints the sums.
pub(crate) fn report(files: &[PathBuf], out: Option<&Path>) -> Result<bool, String> {
    let load = |file: &PathBuf| Ok((file.display().to_string(), Report::load(file)?));
    let reports = files.iter().map(load).collect::<Result<Vec<_>, String>>()?;
    let sum = merge_all(&reports)?;
    if let Some(out) = out {
        sum.save(out)?;
    }
    let summary = &sum.summary;
    say(&summary.to_table());
    say(&summary.pairs.to_table());
    say(&summary.marks_table());
    let silent = summary.silent_faults();
    if !silent.is_empty() {
        say(&format!("planned and never struck: {}", silent.join(", ")));
    }
    let mut json = summary.to_json("report", sum.seconds);
    json["build"] = serde_json::json!(sum.build);
    json["reports"] = serde_json::json!(reports.len());
    json["done"] = serde_json::json!(sum.done);
    json["names"] = summary.names_json();
    print(&json.to_string());
    Ok(summary.violations == 0 && silent.is_empty())
}
