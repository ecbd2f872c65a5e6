//! The commit rule: an entry is committed when a majority of voters has it durably, and a leader counts only for
//! entries of its own term (Raft, §5.3, §5.4.2 and Figure 8). A follower commits no further than the leader's append
//! spoke for its log (Figure 2, AppendEntries 5).
//!
//! "Durably" is taken from the simulated disks, not from what replicas say: the oracle asks what a majority would
//! recover to now.

use continuum_core::id::{GroupId, Index};
use continuum_core::raft::{Configuration, Position, Raft};

use super::ledger::GroupLedger;
use super::{Roster, Step, Watched};
use crate::env::process::Process;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "commit-rule";

/// A replica's commit index advances.
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
            "commit {to} is beyond {tail}, up to where the leader's append spoke for the log"
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
                let what = format!("term {term} is committed at {index}, where term {known} is");
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

/// The last of the entries that are committed here first: its leader's term, and a majority's disks.
fn check_first(
    step: &Step<'_>,
    roster: &Roster,
    watched: &Watched,
    raft: &Raft,
    position: Position,
) -> Verdict {
    if watched.leads.is_some_and(|term| term != position.term) {
        let what = format!("a leader of term {:?} commits {position:?} by counting", watched.leads);
        return Err(Broken::new(NAME, what));
    }
    let configuration = raft.configuration_at(position.index);
    let holders = count_holders(step.processes, roster, raft.group(), configuration, position);
    let voters = configuration.voters.len();
    if holders * 2 <= voters {
        let what = format!("{position:?} is committed and durable on {holders} of {voters} voters");
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
        let view = processes[number].promised().group(group);
        view.is_some_and(|view| view.holds(position))
    };
    let numbers = configuration.voters.iter().filter_map(|voter| roster.number(voter.node));
    numbers.filter(|number| holds(*number)).count()
}
