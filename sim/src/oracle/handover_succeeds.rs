//! Law: a leader that gives its office away is succeeded within an election timeout (Raft thesis, §3.10).
//!
//! Looks at leaders whose process is asked to stop, whose disk becomes full, or whose disk has taken nothing for longer
//! than a node may need to notice, while a majority of other voters is up
//! and soundly linked with it and with each other, and while the disk of one of them has the leader's whole log. Then
//! another voter leads before the bound. A leader cannot know that another's disk hangs, so a transfer to a voter
//! outside of that majority is not judged; nor is one that a fault disturbs.

use std::collections::BTreeMap;

use continuum_core::id::{GroupId, Role, Term, Token};

use super::soundness::{Soundness, timeouts_before};
use crate::env::clock::MS;
use crate::env::process::Process;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "handover-succeeds";

/// Election timeouts for which the majority is sound before a transfer, so that the leader has heard of each of them.
pub(crate) const SOUND_TIMEOUTS: u64 = 2;
/// Per cent of an election timeout within which another voter leads. A clock may run a tenth too slow.
const BOUND_PERCENT: u64 = 112;

/// Per cent of an election timeout after which a node has noticed that its disk takes nothing: it waits for one and a
/// half, and its clock may run a tenth too slow.
const HANG_PERCENT: u64 = 168;

/// How long each node's disk has taken nothing of what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Hangs {
    /// By node: its process, the newest durable token, and since when that is the newest.
    waits: Vec<Option<(u64, Token, u64)>>,
}

impl Hangs {
    /// Looks at the disks. Returns the nodes whose disks have just taken nothing for too long.
    pub(crate) fn look(&mut self, processes: &[Process], timeout_ms: u64, now: u64) -> Vec<usize> {
        self.waits.resize(processes.len(), None);
        let bound = timeout_ms * MS * HANG_PERCENT / 100;
        let mut hung = Vec::new();
        for (number, (process, waits)) in processes.iter().zip(&mut self.waits).enumerate() {
            let state = (process.generation, process.disk.persisted());
            if !process.is_up() || process.disk.pending() == 0 {
                *waits = None;
                continue;
            }
            match waits {
                Some((generation, newest, since)) if (*generation, *newest) == state => {
                    if now.saturating_sub(*since) >= bound {
                        hung.push(number);
                        // It is told once.
                        *since = u64::MAX;
                    }
                }
                _ => *waits = Some((state.0, state.1, now)),
            }
        }
        hung
    }
}

/// A transfer that is not done.
#[derive(Clone, Debug)]
struct Handover {
    group: GroupId,
    term: Term,
    leader: usize,
    begun: u64,
    /// The voters that may succeed.
    heirs: Vec<usize>,
}

/// The transfers that are not done.
#[derive(Debug)]
pub(crate) struct Handovers {
    timeout_ms: u64,
    open: Vec<Handover>,
    /// The newest term of each group that has a leader.
    newest: BTreeMap<GroupId, Term>,
}

impl Handovers {
    pub(crate) const fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, open: Vec::new(), newest: BTreeMap::new() }
    }

    /// The election timeout of all nodes, in milliseconds.
    pub(crate) const fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    /// A leader is asked to give its office away. `has_log` says whether a voter's disk has the leader's whole log.
    pub(crate) fn begins(
        &mut self,
        soundness: &Soundness,
        (leader, at): (usize, u64),
        (group, term): (GroupId, Term),
        has_log: impl Fn(usize) -> bool,
    ) {
        // A leader that hears nothing of its successor has one all the same.
        let has_successor = self.newest.get(&group).is_some_and(|newest| *newest > term);
        let since = timeouts_before(at, SOUND_TIMEOUTS, self.timeout_ms);
        let Some(since) = since.filter(|_| !has_successor) else { return };
        let heirs = soundness.heirs_of(leader, since);
        if soundness.is_majority(&heirs) && heirs.iter().any(|heir| has_log(*heir)) {
            self.open.push(Handover { group, term, leader, begun: at, heirs });
        }
    }

    /// The leader tells a voter to take over.
    pub(crate) fn tells(&mut self, leader: usize, group: GroupId, target: usize) {
        self.open.retain(|open| {
            (open.leader, open.group) != (leader, group) || open.heirs.contains(&target)
        });
    }

    /// A replica says which role it has.
    pub(crate) fn role(&mut self, node: usize, group: GroupId, term: Term, role: Role) {
        if role == Role::Leader {
            let newest = self.newest.entry(group).or_default();
            *newest = term.max(*newest);
            self.open
                .retain(|open| open.group != group || open.leader == node || open.term >= term);
        }
    }

    /// Judges the transfers that have lasted for too long.
    pub(crate) fn look(&mut self, soundness: &Soundness, now: u64) -> Verdict {
        let bound = self.timeout_ms * MS * BOUND_PERCENT / 100;
        self.open.retain(|open| soundness.lasts(&open.heirs, open.begun));
        match self.open.iter().find(|open| now - open.begun > bound) {
            None => Ok(()),
            Some(Handover { group, term, leader, heirs, .. }) => {
                let what = format!(
                    "node {leader} gives away group {group}, which it led in term {term}, and no other voter leads \
                     within an election timeout, although {heirs:?} are up and soundly linked"
                );
                Err(Broken::new(NAME, what))
            }
        }
    }

    /// A group was deleted on a node.
    pub(crate) fn forgets(&mut self, group: GroupId) {
        self.open.retain(|open| open.group != group);
        self.newest.remove(&group);
    }
}
