//! Planted bugs: which there are, and how many seeds the swarm's unchanged plans need to see each.
//!
//! The registry itself is in `core::mark`; a mutant is active in a whole process, so each is hunted by workers.

use std::ops::Range;

use continuum_core::mark::instrument::MUTANTS;

use crate::campaign::Campaign;
use crate::campaign::ranges::stretches;

/// Seeds within which a planted bug has to be seen.
pub const SEEDS_MAX: u64 = 2_000;

/// Seeds that one worker takes.
const STRETCH: u64 = 4;

/// Seeds from the first one that sees a planted bug on, of which the soonest is taken to be shrunk.
const SEEDS_COMPARED: u64 = 128;

/// How a planted bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The first seed that saw it.
    pub seed: u64,
    /// The oracle that saw it.
    pub oracle: String,
    /// What it said.
    pub what: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
}

/// All planted bugs of a machine, or of all: name and meaning.
pub fn of_machine(machine: Option<&str>) -> impl Iterator<Item = (&'static str, &'static str)> {
    let prefix = machine.map(|machine| format!("{machine}."));
    MUTANTS
        .iter()
        .copied()
        .filter(move |(name, _)| prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix)))
}

/// Whether there is such a planted bug.
#[must_use]
pub fn is_known(name: &str) -> bool {
    MUTANTS.iter().any(|(known, _)| *known == name)
}

/// Hunts one planted bug; `None` when no seed saw it.
///
/// # Errors
///
/// A worker that could not do its work.
pub fn hunt(
    campaign: &Campaign,
    name: &str,
    progress: impl FnMut(u64) + Send,
) -> Result<Option<Kill>, String> {
    let campaign = Campaign { stop_early: true, ..with(campaign, name) };
    best(&campaign, 0..SEEDS_MAX, |kill| kill.seed, progress)
}

/// Of the first seed that sees a planted bug and so many after it, the one that sees it soonest: as a campaign takes
/// the shortest run of each broken law, to shrink it.
///
/// # Errors
///
/// As [`hunt`].
pub fn soonest(campaign: &Campaign, name: &str, first: Kill) -> Result<Kill, String> {
    let seeds = first.seed..first.seed + SEEDS_COMPARED;
    let soonest = best(&with(campaign, name), seeds, |kill| (kill.at_ns, kill.seed), |_| {})?;
    Ok(soonest.unwrap_or(first))
}

fn with(campaign: &Campaign, mutant: &str) -> Campaign {
    Campaign { mutant: Some(mutant.to_owned()), once: true, ..campaign.clone() }
}

fn best<T: Ord>(
    campaign: &Campaign,
    seeds: Range<u64>,
    rank: fn(&Kill) -> T,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Option<Kill>, String> {
    let mut best: Option<Kill> = None;
    campaign.run(stretches(std::iter::once(seeds), STRETCH), |record| {
        progress(1);
        let Some(violation) = record.violation else { return };
        let (oracle, what, at_ns) = (violation.oracle, violation.what, violation.at_ns);
        let kill = Kill { seed: record.seed, oracle, what, at_ns };
        if best.as_ref().is_none_or(|known| rank(&kill) < rank(known)) {
            best = Some(kill);
        }
    })?;
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_divide_the_mutants() {
        assert!(is_known("node.canary") && !is_known("nobody"));
        assert!(of_machine(Some("node")).any(|(name, _)| name == "node.canary"));
        assert!(of_machine(Some("wal")).all(|(name, _)| name.starts_with("wal.")));
        assert_eq!(of_machine(None).count(), MUTANTS.len());
    }
}
