//! Planted bugs (mutants): the list, and the search for a seed of the unchanged swarm that detects each.
//!
//! `core::mark` holds the registry. A mutant is active in a whole process, so worker processes search for it.

use std::ops::Range;

use continuum_core::mark::instrument::MUTANTS;

use crate::campaign::Campaign;
use crate::campaign::ranges::stretches;

/// The seeds that must detect every planted bug, unless others are asked for.
pub const SEEDS: Range<u64> = 0..2_000;

/// Seeds that one worker takes at a time.
const STRETCH: u64 = 4;

/// Starting with the first seed that detects a planted bug, this many are compared; the earliest detection is shrunk.
const SEEDS_COMPARED: u64 = 128;

/// Planted bugs that no run of these seeds shows, and what it would take. A scenario in `tests/tests/*_mutants.rs`,
/// or a plan in `sim/tests/plan_mutants.rs`, detects each of them.
pub const OUT_OF_REACH: &[(&str, &str)] = &[
    ("raft.conflict.unsaid", "a member that lies about its own disk, and an idle group afterwards"),
    ("raft.transfer.excludes_restarted", "a law of which voter may lead next"),
    (
        "raft.snapshot.rests_after_corruption",
        "two snapshots that changed on their way to one voter of a bare majority: a plan has them",
    ),
    (
        "raft.snapshot.recorded_unchecked",
        "a snapshot that does not restore although its digest is right",
    ),
    ("raft.term.unbounded", "a voter that lies"),
    ("api.context.old_keys", "a context whose key was replaced twice since, and a law of it"),
    ("replication.author.mints_named", "a member that names the next write of another process"),
    ("replication.cover.shown", "a read between a delete and the end of its sweep"),
    ("replication.cover.told_early", "a question between a delete and the end of its sweep"),
    ("replication.checkpoint.unswept", "a checkpoint between a delete and the end of its sweep"),
    ("replication.cover.unsliced", "a law of how much one step does"),
    ("replication.shard.freed_at_once", "as replication.cover.unsliced"),
    ("state.capture.unsliced", "as replication.cover.unsliced"),
    ("state.capture.pins_the_rest", "a law of what a chunk keeps in memory"),
    ("replication.deferred.unbounded", "65,536 deferred removals"),
    ("replication.deferred.uncounted", "a bound on memory that deferred removals reach"),
    ("replication.equivocation.first_stays", "an author that makes two writes with one dot"),
    ("replication.session.covers_refused", "a write of a replica that others refuse for good"),
    ("replication.session.refused_again", "as replication.session.covers_refused"),
    ("replication.session.refused_blocks", "as replication.session.covers_refused"),
    (
        "replication.replicated.outlives_store",
        "a store that is lost between an acknowledgement and a level",
    ),
    (
        "gossip.suspicion.not_asked",
        "an accuser that stops while another member probes slowly: a plan has it",
    ),
    (
        "node.forward.of_other_boot",
        "an answer to an earlier process with the number of an open request",
    ),
    (
        "node.founding.beside_earlier",
        "an operator that founds on a wiped voter that lost its links",
    ),
    (
        "node.founding.dials_on",
        "a stranger that offers foundings to a node in none, and a law of its links",
    ),
    ("node.join.unbounded", "a law of how often a member changes its entry"),
    (
        "node.session.duplicate_early",
        "a crash between a duplicate's answer and the sync: a plan has it",
    ),
    (
        "node.start.one_is_enough",
        "a copy that one voter confirms and another refuses in the same moment",
    ),
    (
        "node.doubt.hides_genesis",
        "an operator that founds on a wiped voter beside a voter in doubt",
    ),
    ("node.learner.ready_alone", "a law of what a learner without voters says"),
    ("node.doubt.learner_counts", "a copy that learners alone reach"),
    ("node.peers.forgets_boots", "a voter that restarts between two processes of another one"),
    (
        "node.peers.lineage_ignored",
        "a rolled-back disk that starts more often than the one that peers saw",
    ),
    ("node.halted.ready", "a group that halts"),
    (
        "files.dropped_pieces_count",
        "a snapshot that is offered again while the last piece of its dropped file is synced",
    ),
    ("node.apply.commit_unrecorded", "a law of what a node that restarts alone serves"),
    ("node.capture.ignores_the_window", "states of many chunks"),
    ("node.checkpoint.keeps_large_files", "files of many megabytes"),
    ("node.checkpoint.never_when_full", "a disk whose room is counted"),
    ("node.storage.refuses_deletes", "a law of what a full disk takes"),
    (
        "wal.recover.skips_earlier_tails",
        "a last batch that goes behind the end of an earlier segment: a test has it",
    ),
    ("state.export.never_idle", "a law of how long an export stays that nobody reads"),
    ("state.export.uncounted", "exports that keep more than sessions and shards take"),
    ("node.stop.answers_at_once", "a law of what a node that stops must answer"),
    ("node.standing.anyone_refuses", "strangers that refuse with evidence that a majority shares"),
    ("node.standing.learner_leads", "a learner's word that the laws do not refuse by themselves"),
    ("node.wire.gossip_of_any_boot", "a member that gossips as another process of its own node"),
];

/// How a planted bug was detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The first seed that detected it.
    pub seed: u64,
    /// The law that was broken.
    pub oracle: String,
    /// How it was broken.
    pub what: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
}

/// The planted bugs of one machine, of one part of it, or of all: name and meaning. `raft.vote` is a part of `raft`.
pub fn of_machine(part: Option<&str>) -> impl Iterator<Item = (&'static str, &'static str)> {
    let part = part.map(str::to_owned);
    let ends_here = |rest: &str| rest.is_empty() || rest.starts_with('.');
    let is_within = move |name: &str| {
        part.as_deref().is_none_or(|part| name.strip_prefix(part).is_some_and(ends_here))
    };
    MUTANTS.iter().copied().filter(move |(name, _)| is_within(name))
}

/// Whether there is a planted bug of this name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    MUTANTS.iter().any(|(known, _)| *known == name)
}

/// Searches these seeds for one that detects a planted bug; `None` when none does.
///
/// # Errors
///
/// A worker failed.
pub fn hunt(
    campaign: &Campaign,
    name: &str,
    seeds: Range<u64>,
    progress: impl FnMut(u64) + Send,
) -> Result<Option<Kill>, String> {
    let campaign = Campaign { stop_early: true, ..with(campaign, name) };
    best(&campaign, seeds, |kill| kill.seed, progress)
}

/// Among the first seed that detects a planted bug and the seeds after it, the one that detects it earliest in virtual
/// time. A campaign also shrinks the shortest run of each broken law.
///
/// # Errors
///
/// As [`hunt`].
pub fn soonest(campaign: &Campaign, name: &str, first: Kill) -> Result<Kill, String> {
    let seeds = first.seed..first.seed.saturating_add(SEEDS_COMPARED);
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
    fn each_mutant_out_of_reach_is_one() {
        for (name, _) in OUT_OF_REACH {
            assert!(is_known(name), "{name}");
        }
    }

    #[test]
    fn every_mutant_belongs_to_one_machine() {
        assert!(is_known("node.canary") && !is_known("nobody"));
        assert!(of_machine(Some("node")).any(|(name, _)| name == "node.canary"));
        assert!(of_machine(Some("wal")).all(|(name, _)| name.starts_with("wal.")));
        assert_eq!(of_machine(None).count(), MUTANTS.len());
        assert_eq!(of_machine(Some("node.canary")).count(), 1, "one bug is the smallest part");
        assert_eq!(of_machine(Some("node.can")).count(), 0);
    }
}
