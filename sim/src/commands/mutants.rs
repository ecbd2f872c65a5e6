//! `sim mutants`: every planted bug, and which oracle saw it first.

use continuum_sim::mutant;

use super::{bar, campaign, print, say};

/// Hunts the planted bugs of a machine, or all.
pub(crate) fn mutants(machine: Option<&str>, jobs: usize) -> Result<bool, String> {
    let campaign = campaign(None, true, jobs, 4)?;
    let all: Vec<_> = mutant::of_machine(machine).collect();
    let bar = bar(all.len() as u64, "mutants");
    let (mut killed, mut rows) = (0, Vec::new());
    say(&format!("{:<34} {:>6}  {:<24} breaks", "mutant", "seeds", "oracle"));
    for (name, meaning) in &all {
        let kill = mutant::hunt(&campaign, name, |_| {})?;
        bar.inc(1);
        killed += u64::from(kill.is_some());
        let (seeds, oracle) = match &kill {
            Some(kill) => ((kill.seed + 1).to_string(), kill.oracle.clone()),
            None => ("-".to_owned(), unseen(name)),
        };
        bar.suspend(|| say(&format!("{name:<34} {seeds:>6}  {oracle:<24} {meaning}")));
        rows.push(serde_json::json!({
            "mutant": name, "seeds": kill.as_ref().map(|kill| kill.seed + 1), "oracle": oracle,
        }));
    }
    bar.finish_and_clear();
    print(
        &serde_json::json!({
            "command": "mutants", "mutants": all.len(), "killed": killed, "table": rows,
        })
        .to_string(),
    );
    Ok(killed == all.len() as u64)
}

/// What is said of a planted bug that no seed saw.
fn unseen(name: &str) -> String {
    let law = mutant::SEEN_BY_LAWS.iter().find(|(known, _)| *known == name);
    law.map_or_else(|| "none".to_owned(), |(_, test)| format!("none; {test}"))
}
