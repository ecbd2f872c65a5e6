//! `sim swarm`: many seeds, or one planted bug that is hunted with them.

use std::ops::Range;

use continuum_sim::mutant;
use continuum_sim::report::{Summary, explain};

use super::{bar, campaign, conclude, print, say};
use crate::stopwatch::Stopwatch;

/// Runs seeds.
pub(crate) fn swarm(
    command: &str,
    seeds: Range<u64>,
    once: bool,
    jobs: usize,
    mutant: Option<String>,
    replay: Option<&str>,
) -> Result<bool, String> {
    if let Some(name) = mutant.clone().filter(|_| command == "swarm") {
        return swarm_mutant(&name, jobs);
    }
    let campaign = campaign(mutant, once, jobs, 8)?;
    let watch = Stopwatch::start();
    let bar = bar(seeds.end - seeds.start, command);
    let mut summary = Summary::default();
    let mut shown = 0;
    campaign.run(seeds, |record| {
        bar.inc(1);
        summary.add(&record);
        if record.violation.is_some() && shown < 5 {
            shown += 1;
            let seed = format!("sim run --seed {}", record.seed);
            bar.suspend(|| say(&explain(&record, replay.unwrap_or(&seed))));
        }
    })?;
    bar.finish_and_clear();
    say(&summary.to_table());
    Ok(conclude(command, &summary, &watch, command == "run"))
}

/// Hunts one planted bug: here a violation is what is wanted.
fn swarm_mutant(name: &str, jobs: usize) -> Result<bool, String> {
    let campaign = campaign(Some(name.to_owned()), true, jobs, 4)?;
    let bar = bar(mutant::SEEDS_MAX, name);
    let kill = mutant::hunt(&campaign, name, |seeds| bar.inc(seeds))?;
    bar.finish_and_clear();
    let killed = u32::from(kill.is_some());
    match &kill {
        Some(kill) => say(&format!("{name}: seed {} by {}: {}", kill.seed, kill.oracle, kill.what)),
        None => say(&format!("{name}: not seen in {} seeds", mutant::SEEDS_MAX)),
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
