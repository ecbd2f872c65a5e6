//! The end of a campaign: a child process shrinks the shortest run of each broken law.

use std::path::Path;
use std::process::{Command, Stdio};

use continuum_sim::campaign::Campaign;
use continuum_sim::campaign::summary::Summary;

use super::say;

/// Shrinks one seed for each broken law.
pub(super) fn all(campaign: &Campaign, summary: &Summary, out: &Path) -> Result<(), String> {
    for (law, found) in summary.invariants.iter() {
        say(&format!("shrinking seed {}: {law}", found.shortest_seed));
        one(campaign, found.shortest_seed, out)?;
    }
    Ok(())
}

/// Shrinks one seed. A seed that cannot be shrunk is reported, and does not change the campaign's outcome.
pub(super) fn one(campaign: &Campaign, seed: u64, out: &Path) -> Result<(), String> {
    let mut command = Command::new(&campaign.program);
    command.arg("shrink").arg("--seed").arg(seed.to_string()).arg("--out").arg(out);
    if let Some(mutant) = &campaign.mutant {
        command.arg("--mutant").arg(mutant);
    }
    // The child's standard output is discarded: the last line of ours must be the campaign's JSON.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot start the shrinker: {error}"))?;
    if !status.success() {
        say(&format!("seed {seed} was not shrunk: {status}"));
    }
    Ok(())
}
