//! Law: a leader that gives its office away is succeeded within an election timeout (Raft thesis, §3.10).
//!
//! Looks at leaders whose process is asked to stop, or whose disk becomes full, while a majority of other voters is up
//! and soundly linked with it and with each other, and while the disk of one of them has the leader's whole log. Then
//! another voter leads before the bound. A leader cannot know that a disk hangs, so a transfer to a voter outside of
//! that majority is not judged; nor is one that a fault disturbs.

use continuum_core::id::{GroupId, Role, Term};

use super::soundness::{Soundness, timeouts_before};
use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "handover-succeeds";

/// Election timeouts for which the majority is sound before a transfer, so that the leader has heard of each of them.
pub(crate) const SOUND_TIMEOUTS: u64 = 2;
/// Per cent of an election timeout within which another voter leads. A clock may run a tenth too slow.
const BOUND_PERCENT: u64 = 112;

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
}

impl Handovers {
    pub(crate) const fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, open: Vec::new() }
    }

    /// A leader is asked to give its office away. `has_log` says whether a voter's disk has the leader's whole log.
    pub(crate) fn begins(
        &mut self,
        soundness: &Soundness,
        (leader, at): (usize, u64),
        (group, term): (GroupId, Term),
        has_log: impl Fn(usize) -> bool,
    ) {
        let since = timeouts_before(at, SOUND_TIMEOUTS, self.timeout_ms);
        let Some(since) = since else { return };
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
    }
}
