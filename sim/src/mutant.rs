//! Planted bugs: which there are, and how many seeds the swarm's unchanged plans need to see each.
//!
//! The registry itself is in `core::mark`; a mutant is active in a whole process, so each is hunted by workers.

use continuum_core::mark::instrument::MUTANTS;

use crate::campaign::Campaign;
use crate::campaign::ranges::stretches;

/// Seeds within which a planted bug has to be seen.
pub const SEEDS_MAX: u64 = 2_000;

/// Seeds that one worker takes.
const STRETCH: u64 = 4;

/// How a planted bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The first seed that saw it.
    pub seed: u64,
    /// The oracle that saw it.
    pub oracle: String,
    /// What it said.
    pub what: String,
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
    mut progress: impl FnMut(u64) + Send,
) -> Result<Option<Kill>, String> {
    let campaign = Campaign {
        mutant: Some(name.to_owned()),
        once: true,
        stop_early: true,
        ..campaign.clone()
    };
    let mut first: Option<Kill> = None;
    campaign.run(stretches(std::iter::once(0..SEEDS_MAX), STRETCH), |record| {
        progress(1);
        let Some(violation) = record.violation else { return };
        if first.as_ref().is_none_or(|kill| record.seed < kill.seed) {
            let (oracle, what) = (violation.oracle, violation.what);
            first = Some(Kill { seed: record.seed, oracle, what });
        }
    })?;
    Ok(first)
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
