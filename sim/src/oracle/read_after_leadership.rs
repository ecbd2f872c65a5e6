//! Law: a leader does not serve a read if, before the read arrived, a majority of voters had moved to a later term
//! (Raft, §8, and ReadIndex in Ongaro's thesis, §6.4: leadership is confirmed after the read arrives). The read may be
//! of a client of the leader's node, or one that a follower forwarded.
//!
//! Compares the leader's term with the terms on the voters' simulated disks when the read arrives. It does not judge
//! the value that a read returns (`read_sees_acknowledged`, `strong`).

use std::collections::BTreeMap;

use continuum_core::api::Outcome;
use continuum_core::id::{GroupId, NodeId, RequestId, Role, Term};
use continuum_core::raft::{self, Raft};

use super::{Roster, Step};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "read-after-leadership";

/// A read that a node forwarded, with its number there.
type Forwarded = (NodeId, u64);

/// Pending reads that arrived at a leader after a majority had moved to a later term, with the leader's term.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    stale: BTreeMap<(usize, RequestId), Term>,
    /// Pending reads of followers; with a term only if they are stale.
    forwarded: BTreeMap<(usize, GroupId, Forwarded), Option<Term>>,
}

impl Reads {
    /// Records a strong read that arrives.
    pub(crate) fn arrives(&mut self, step: &Step<'_>, roster: &Roster, id: RequestId) {
        if let Some(term) = led(step).and_then(|raft| overtaken(step, roster, raft)) {
            self.stale.insert((step.me, id), term);
        }
    }

    /// Records a read that a follower forwarded.
    pub(crate) fn forwarded(
        &mut self,
        step: &Step<'_>,
        roster: &Roster,
        group: GroupId,
        read: Forwarded,
    ) {
        let raft = step.node.raft(group).filter(|raft| raft.role() == Role::Leader);
        let Some(raft) = raft else { return };
        // A follower never uses a number twice: a message that repeats the number repeats the read, and the first
        // arrival counts.
        self.forwarded
            .entry((step.me, group, read))
            .or_insert_with(|| overtaken(step, roster, raft));
    }

    /// Judges a message: an index for a forwarded read lets the follower serve it.
    pub(crate) fn check_forwarded(
        &mut self,
        me: usize,
        group: GroupId,
        to: NodeId,
        message: &raft::Message,
    ) -> Verdict {
        let raft::Message::ReadIndexReply { id, index } = message else { return Ok(()) };
        let stale = self.forwarded.remove(&(me, group, (to, *id)));
        match (stale, index) {
            (Some(Some(term)), Some(index)) => Err(Broken::new(
                NAME,
                format!(
                    "read {id} of {to:?} arrived after a majority had moved beyond term {term}, and the leader of that \
                     term says that it may be served at {index}"
                ),
            )),
            _ => Ok(()),
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

    /// Forgets the reads of a node whose process ended.
    pub(crate) fn ended(&mut self, me: usize) {
        self.forwarded.retain(|(node, ..), _| *node != me);
    }
}

/// The leader's term, if a majority of the voters has moved to a later one.
fn overtaken(step: &Step<'_>, roster: &Roster, raft: &Raft) -> Option<Term> {
    let voters = &raft.configuration().voters;
    let moved_on = voters.iter().filter_map(|voter| roster.number(voter.node)).filter(|number| {
        let view = step.processes[*number].promised().group_ever(raft.group());
        view.is_some_and(|view| view.term > raft.term())
    });
    (moved_on.count() * 2 > voters.len()).then(|| raft.term())
}

/// The strong namespace's group, if the node leads it. It is the first group beside the registry: churn clients
/// create other namespaces later.
fn led<'a>(step: &Step<'a>) -> Option<&'a Raft> {
    let group = step.node.groups().find(|group| *group != GroupId::REGISTRY)?;
    step.node.raft(group).filter(|raft| raft.role() == Role::Leader)
}
