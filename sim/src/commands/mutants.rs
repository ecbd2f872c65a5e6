//! `sim mutants` and `sim swarm --mutant`: hunts mutants (planted bugs), and prints which oracle saw each first.
//! Mutants that only tests detect are named, and not hunted.

use std::ops::Range;
use std::path::Path;

use continuum_sim::mutant;

use super::{aftermath, bar, campaign, print, say};

/// The seeds that a search looks at.
pub(super) fn searched(asked: Option<Range<u64>>) -> Result<Range<u64>, String> {
    let seeds = asked.unwrap_or(mutant::SEEDS);
    if seeds.end == u64::MAX {
        return Err("a search for a planted bug needs an end: write --seeds A..B".to_owned());
    }
    Ok(seeds)
}

/// Hunts the mutants of one machine, or of all.
pub(crate) fn mutants(
    machine: Option<&str>,
    jobs: usize,
    seeds: Option<Range<u64>>,
) -> Result<bool, String> {
    let seeds = searched(seeds)?;
    let campaign = campaign(None, true, jobs)?;
    let all: Vec<_> = mutant::of_machine(machine).collect();
    let bar = bar(all.len() as u64, "mutants");
    let (mut killed, mut by_tests, mut rows) = (0, 0, Vec::new());
    say(&format!("{:<34} {:>6}  {:<24} breaks", "mutant", "seeds", "oracle"));
    for (name, meaning) in &all {
        bar.inc(1);
        if let Some((_, needs)) = mutant::OUT_OF_REACH.iter().find(|(known, _)| known == name) {
            by_tests += 1;
            bar.suspend(|| say(&format!("{name:<34} {:>6}  {:<24} {meaning}", "-", "tests")));
            rows.push(serde_json::json!({ "mutant": name, "oracle": "tests", "needs": needs }));
            continue;
        }
        let kill = mutant::hunt(&campaign, name, seeds.clone(), |_| {})?;
        killed += u64::from(kill.is_some());
        let looked_at = kill.as_ref().map(|kill| count(&seeds, kill.seed));
        let (shown, oracle) = match (&kill, looked_at) {
            (Some(kill), Some(count)) => (count.to_string(), kill.oracle.clone()),
            _ => ("-".to_owned(), "none".to_owned()),
        };
        bar.suspend(|| say(&format!("{name:<34} {shown:>6}  {oracle:<24} {meaning}")));
        rows.push(serde_json::json!({
            "mutant": name, "seeds": looked_at, "seed": kill.map(|kill| kill.seed), "oracle": oracle,
        }));
    }
    bar.finish_and_clear();
    print(
        &serde_json::json!({
            "command": "mutants", "mutants": all.len(), "killed": killed,
            "killed_by_tests": by_tests, "table": rows,
        })
        .to_string(),
    );
    Ok(killed + by_tests == all.len() as u64)
}

/// How many of the seeds a search had looked at when it detected the bug in this one.
const fn count(seeds: &Range<u64>, seed: u64) -> u64 {
    seed + 1 - seeds.start
}

/// Hunts one mutant; the command succeeds if a seed breaks a law.
pub(super) fn hunt(
    name: &str,
    jobs: usize,
    seeds: Range<u64>,
    out: Option<&Path>,
) -> Result<bool, String> {
    let campaign = campaign(Some(name.to_owned()), true, jobs)?;
    let all = seeds.end - seeds.start;
    let bar = bar(all, name);
    let kill = mutant::hunt(&campaign, name, seeds.clone(), |seeds| bar.inc(seeds))?;
    bar.finish_and_clear();
    let killed = u32::from(kill.is_some());
    match &kill {
        Some(kill) => say(&format!("{name}: seed {} by {}: {}", kill.seed, kill.oracle, kill.what)),
        None => say(&format!("{name}: not seen in {all} seeds")),
    }
    if let (Some(kill), Some(out)) = (&kill, out) {
        aftermath::one(&campaign, kill.seed, out)?;
    }
    let looked_at = kill.as_ref().map_or(all, |kill| count(&seeds, kill.seed));
    print(
        &serde_json::json!({
            "command": "swarm", "mutant": name, "mutants": 1, "killed": killed, "seeds": looked_at,
            "seed": kill.as_ref().map(|kill| kill.seed), "violations": killed, "oracle": kill.map(|kill| kill.oracle),
        })
        .to_string(),
    );
    Ok(killed == 1)
}
