//! Law: an entry is committed only when a majority of voters holds it durably, and a leader counts replicas only for
//! entries of its own term (Raft, §5.3, §5.4.2 and Figure 8). A follower commits no entry beyond the last one that the
//! leader's append vouches for (Figure 2, AppendEntries 5).
//!
//! Compares an advanced commit index with what a majority of the simulated disks would recover to now, not with what
//! replicas say. A voter whose disk has deleted the group meanwhile counts for what it held until then, because its
//! acknowledgement was true and may still arrive. It does not judge that an entry is ever committed (`liveness`).

use continuum_core::id::{GroupId, Index};
use continuum_core::raft::{Configuration, Position, Raft};

use super::ledger::GroupLedger;
use super::{Roster, Step, Watched};
use crate::env::process::Process;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "commit-rule";

/// Judges a replica whose commit index advances to `to`.
pub(crate) fn check(
    step: &Step<'_>,
    roster: &Roster,
    watched: &Watched,
    ledger: &mut GroupLedger,
    raft: &Raft,
    to: Index,
) -> Verdict {
    if to > watched.view.last().index {
        let what = format!("commit {to} is beyond the log's end {}", watched.view.last().index);
        return Err(Broken::new(NAME, what));
    }
    if let Some((_, tail)) =
        step.cause.append.filter(|(group, tail)| *group == raft.group() && *tail < to)
    {
        let what = format!(
            "commit {to} is beyond {tail}, the last entry that the leader's append vouches for"
        );
        return Err(Broken::new(NAME, what));
    }
    let mut index = watched.commit;
    while index < to {
        index = index.next();
        let Some(term) = watched.view.term_at(index) else { continue };
        match ledger.committed_at(index) {
            Some(known) if known == term => {}
            Some(known) => {
                let what = format!(
                    "an entry of term {term} is committed at {index}, where one of term {known} was committed before"
                );
                return Err(Broken::new(NAME, what));
            }
            None => {
                ledger.commit_next(term);
                if index == to {
                    check_first(step, roster, watched, raft, Position { term, index })?;
                }
            }
        }
    }
    Ok(())
}

/// Judges the last of the entries that no replica committed before: its term, and how many voters hold it durably.
fn check_first(
    step: &Step<'_>,
    roster: &Roster,
    watched: &Watched,
    raft: &Raft,
    position: Position,
) -> Verdict {
    if watched.leads.is_some_and(|term| term != position.term) {
        let what = format!(
            "a leader of term {:?} commits {position:?}, of another term, by counting replicas",
            watched.leads
        );
        return Err(Broken::new(NAME, what));
    }
    let configuration = raft.configuration_at(position.index);
    let holders = count_holders(step.processes, roster, raft.group(), configuration, position);
    let voters = configuration.voters.len();
    if holders * 2 <= voters {
        let what =
            format!("{position:?} is committed, and is durable on {holders} of {voters} voters");
        return Err(Broken::new(NAME, what));
    }
    Ok(())
}

fn count_holders(
    processes: &[Process],
    roster: &Roster,
    group: GroupId,
    configuration: &Configuration,
    position: Position,
) -> usize {
    let holds = |number: usize| {
        let view = processes[number].promised().group_ever(group);
        view.is_some_and(|view| view.holds(position))
    };
    let numbers = configuration.voters.iter().filter_map(|voter| roster.number(voter.node));
    numbers.filter(|number| holds(*number)).count()
}
