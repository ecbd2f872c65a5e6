//! Law: a leader does not serve a read if, before the read arrived, a majority of voters had moved to a later term
//! (Raft, §8, and ReadIndex in Ongaro's thesis, §6.4: leadership is confirmed after the read arrives).
//!
//! Compares the leader's term with the terms on the voters' simulated disks when the read arrives. It does not judge
//! the value that a read returns (`read_sees_acknowledged`, `strong`).

use std::collections::BTreeMap;

use continuum_core::api::Outcome;
use continuum_core::id::{GroupId, RequestId, Role, Term};
use continuum_core::raft::Raft;

use super::{Roster, Step};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "read-after-leadership";

/// Pending reads that arrived at a leader after a majority had moved to a later term, with the leader's term.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    stale: BTreeMap<(usize, RequestId), Term>,
}

impl Reads {
    /// Records a strong read that arrives.
    pub(crate) fn arrives(&mut self, step: &Step<'_>, roster: &Roster, id: RequestId) {
        let Some(raft) = led(step) else { return };
        let voters = &raft.configuration().voters;
        let moved_on =
            voters.iter().filter_map(|voter| roster.number(voter.node)).filter(|number| {
                let view = step.processes[*number].promised().group_ever(raft.group());
                view.is_some_and(|view| view.term > raft.term())
            });
        if moved_on.count() * 2 > voters.len() {
            self.stale.insert((step.me, id), raft.term());
        }
    }

    /// Judges the answer to a request.
    pub(crate) fn check(&mut self, step: &Step<'_>, id: RequestId, outcome: &Outcome) -> Verdict {
        let Some(term) = self.stale.remove(&(step.me, id)) else { return Ok(()) };
        let leads = led(step).is_some_and(|raft| raft.term() == term);
        if !leads || !matches!(outcome, Outcome::Value(_)) {
            return Ok(());
        }
        let what = format!(
            "request {id} arrived after a majority had moved beyond term {term}, and its leader serves it"
        );
        Err(Broken::new(NAME, what))
    }
}

/// The strong namespace's group, if the node leads it. It is the first group beside the registry: churn clients
/// create other namespaces later.
fn led<'a>(step: &Step<'a>) -> Option<&'a Raft> {
    let group = step.node.groups().find(|group| *group != GroupId::REGISTRY)?;
    step.node.raft(group).filter(|raft| raft.role() == Role::Leader)
}
