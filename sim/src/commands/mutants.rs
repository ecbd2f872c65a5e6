//! `sim mutants` and `sim swarm --mutant`: hunts mutants (planted bugs), and prints which oracle saw each first.

use std::path::Path;

use continuum_sim::mutant;

use super::{aftermath, bar, campaign, print, say};

/// Hunts the mutants of one machine, or of all.
pub(crate) fn mutants(machine: Option<&str>, jobs: usize) -> Result<bool, String> {
    let campaign = campaign(None, true, jobs)?;
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
            None => ("-".to_owned(), "none".to_owned()),
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

/// Hunts one mutant; the command succeeds if a seed breaks a law.
pub(super) fn hunt(name: &str, jobs: usize, out: Option<&Path>) -> Result<bool, String> {
    let campaign = campaign(Some(name.to_owned()), true, jobs)?;
    let bar = bar(mutant::SEEDS_MAX, name);
    let kill = mutant::hunt(&campaign, name, |seeds| bar.inc(seeds))?;
    bar.finish_and_clear();
    let killed = u32::from(kill.is_some());
    match &kill {
        Some(kill) => say(&format!("{name}: seed {} by {}: {}", kill.seed, kill.oracle, kill.what)),
        None => say(&format!("{name}: not seen in {} seeds", mutant::SEEDS_MAX)),
    }
    if let (Some(kill), Some(out)) = (&kill, out) {
        aftermath::one(&campaign, kill.seed, out)?;
    }
    let seeds = kill.as_ref().map_or(mutant::SEEDS_MAX, |kill| kill.seed + 1);
    print(
        &serde_json::json!({
            "command": "swarm", "mutant": name, "mutants": 1, "killed": killed, "seeds": seeds,
            "violations": killed, "oracle": kill.map(|kill| kill.oracle),
        })
        .to_string(),
    );
    Ok(killed == 1)
}
