//! Law: a write that is acknowledged at level `replicated(n)` is on the disks of n other nodes by then (README,
//! Guarantees: what an answer means).
//!
//! Compares the dot that the answer names, or the write's entry in the log, with the simulated disks of all other nodes
//! at the moment of the reply. A disk that lost data since the write was asked for may have held it, and counts: its
//! promise was true. It counts no longer once the registry told the node that answers of the store that replaced it. An
//! answer to several mutations names no dot, so of each key any write of the answering process counts. It does not
//! judge writes of other levels.

use std::collections::BTreeMap;

use continuum_core::api::{Level, Outcome};
use continuum_core::id::{Actor, Dot, GroupId, ShardId};
use continuum_core::raft::Position;

use crate::env::process::Process;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "replicated-level";

/// The number of other nodes that an answer promises; `None` if it promises none.
pub(crate) const fn promised_by(outcome: &Outcome) -> Option<usize> {
    match outcome {
        Outcome::Committed { level: Level::Replicated(others), .. } => Some(*others as usize),
        _ => None,
    }
}

/// Judges an eventual write that `me` made as these dots, each with its key. `named` says whether the answer is to a
/// write with this dot; a repeat of the request may have made others.
pub(crate) fn check_eventual<'a>(
    processes: &[Process],
    forgot: impl Fn(usize) -> bool,
    me: usize,
    promised: usize,
    dots: impl Iterator<Item = (&'a [u8], ShardId, Dot)>,
    named: impl Fn(&Dot) -> bool,
) -> Verdict {
    let actor = Actor { replica: processes[me].replica, boot: processes[me].boot };
    let mut holders: BTreeMap<&[u8], (usize, Dot)> = BTreeMap::new();
    for (key, shard, dot) in dots.filter(|(_, _, dot)| dot.actor == actor && named(dot)) {
        let holds = |number: &usize| {
            let on_disk = processes[*number].disk.durable.shard(shard);
            on_disk.is_some_and(|on_disk| on_disk.contains(&dot)) || forgot(*number)
        };
        let others = (0..processes.len()).filter(|number| *number != me).filter(holds).count();
        let most = holders.entry(key).or_insert((others, dot));
        *most = (others, dot).max(*most);
    }
    holders.values().try_for_each(|(others, dot)| check(promised, *others, || format!("{dot:?}")))
}

/// Judges a strong write whose entry is at this position.
pub(crate) fn check_strong(
    processes: &[Process],
    forgot: impl Fn(usize) -> bool,
    group: GroupId,
    (me, promised): (usize, usize),
    position: Position,
) -> Verdict {
    let holds = |number: &usize| {
        let view = processes[*number].promised().group_ever(group);
        view.is_some_and(|view| view.holds(position)) || forgot(*number)
    };
    let others = (0..processes.len()).filter(|number| *number != me).filter(holds).count();
    check(promised, others, || format!("the entry at {position:?}"))
}

/// Judges a number of holders.
pub(crate) fn check(promised: usize, others: usize, what: impl FnOnce() -> String) -> Verdict {
    if others >= promised {
        return Ok(());
    }
    let what =
        format!("{} is called durable on {promised} other disks, and is on {others}", what());
    Err(Broken::new(NAME, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_holders_are_seen() {
        let judge = |promised, others| check(promised, others, String::new);
        assert!(judge(2, 2).is_ok() && judge(0, 0).is_ok() && judge(1, 3).is_ok());
        assert!(judge(1, 0).is_err() && judge(3, 2).is_err());
    }
}
