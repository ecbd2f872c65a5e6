//! What follows a campaign: of each law that was broken the shortest run is shrunk, by a child of this program.

use std::path::Path;
use std::process::{Command, Stdio};

use continuum_sim::campaign::Campaign;
use continuum_sim::campaign::summary::Summary;

use super::say;

/// Shrinks one seed for each law that was broken.
pub(super) fn all(campaign: &Campaign, summary: &Summary, out: &Path) -> Result<(), String> {
    for (law, found) in summary.invariants.iter() {
        say(&format!("shrinking seed {}: {law}", found.shortest_seed));
        one(campaign, found.shortest_seed, out)?;
    }
    Ok(())
}

/// Shrinks one seed. A seed that cannot be shrunk is said to be one; the campaign's own outcome stands.
pub(super) fn one(campaign: &Campaign, seed: u64, out: &Path) -> Result<(), String> {
    let mut command = Command::new(&campaign.program);
    command.arg("shrink").arg("--seed").arg(seed.to_string()).arg("--out").arg(out);
    if let Some(mutant) = &campaign.mutant {
        command.arg("--mutant").arg(mutant);
    }
    // The last line of our standard output is ours.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot start the shrinker: {error}"))?;
    if !status.success() {
        say(&format!("seed {seed} was not shrunk: {status}"));
    }
    Ok(())
}
