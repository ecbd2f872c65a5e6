//! Law: while a leader and a majority are up and soundly linked, no election begins and the leader keeps its office
//! (Raft thesis, §9.6: pre-vote; §6.2: a leader steps down only without a majority).
//!
//! Looks at a leader that has led, soundly linked with enough voters for a majority, for `SOUND_TIMEOUTS` election
//! timeouts, wherever the other voters are and whatever happens to them. It judges each vote that a candidate gives
//! itself in a later term, and a leader that leaves its office within its term. The bound is none at all, with one
//! exception: a leader that transfers its office. An election that began before the leader's links were sound may still
//! end its office.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::id::{GroupId, Role, Term};

use super::Step;
use super::soundness::{Soundness, timeouts_before};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "needless-election";

/// Election timeouts for which a leader has led and its links are sound before an election counts as needless. They are
/// more than a message is late after a fault.
pub(crate) const SOUND_TIMEOUTS: u64 = 10;

/// A leader's office.
#[derive(Clone, Copy, Debug)]
struct Office {
    leader: usize,
    term: Term,
    since: u64,
}

/// The newest office of each group.
#[derive(Debug)]
pub(crate) struct Offices {
    timeout_ms: u64,
    offices: BTreeMap<GroupId, Office>,
    /// The terms whose leaders gave their office away.
    transferred: BTreeSet<(GroupId, Term)>,
}

impl Offices {
    pub(crate) const fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, offices: BTreeMap::new(), transferred: BTreeSet::new() }
    }

    /// A replica says which role it has; judges a leader that leaves its office within its term.
    pub(crate) fn role(
        &mut self,
        soundness: &Soundness,
        step: &Step<'_>,
        group: GroupId,
        term: Term,
        role: Role,
    ) -> Verdict {
        self.turns(soundness, (step.me, step.at), group, term, role)
    }

    pub(crate) fn turns(
        &mut self,
        soundness: &Soundness,
        (node, at): (usize, u64),
        group: GroupId,
        term: Term,
        role: Role,
    ) -> Verdict {
        let office = self.offices.get(&group).copied();
        if role == Role::Leader {
            if office.is_none_or(|office| office.term < term) {
                self.offices.insert(group, Office { leader: node, term, since: at });
            }
            return Ok(());
        }
        let Some(office) = office.filter(|office| office.leader == node) else { return Ok(()) };
        let needless = office.term == term && self.is_sound(soundness, group, office, at);
        self.offices.remove(&group);
        if !needless {
            return Ok(());
        }
        let what = format!(
            "node {node} leads group {group} in term {term} and leaves its office, although it has been soundly linked \
             with a majority for {SOUND_TIMEOUTS} election timeouts"
        );
        Err(Broken::new(NAME, what))
    }

    /// Judges a candidate's vote for itself.
    pub(crate) fn campaigns(
        &self,
        soundness: &Soundness,
        (node, at): (usize, u64),
        group: GroupId,
        term: Term,
    ) -> Verdict {
        let Some(office) = self.offices.get(&group).filter(|office| office.term < term) else {
            return Ok(());
        };
        if !self.is_sound(soundness, group, *office, at) {
            return Ok(());
        }
        let what = format!(
            "node {node} begins an election of group {group} in term {term}, although node {} leads term {} and has \
             been soundly linked with a majority for {SOUND_TIMEOUTS} election timeouts",
            office.leader, office.term
        );
        Err(Broken::new(NAME, what))
    }

    /// A leader tells another voter to take over.
    pub(crate) fn transfers(&mut self, group: GroupId, term: Term) {
        self.transferred.insert((group, term));
    }

    /// The process of a node ended, and its offices with it.
    pub(crate) fn ended(&mut self, node: usize) {
        self.offices.retain(|_, office| office.leader != node);
    }

    fn is_sound(&self, soundness: &Soundness, group: GroupId, office: Office, at: u64) -> bool {
        let since = timeouts_before(at, SOUND_TIMEOUTS, self.timeout_ms);
        since.is_some_and(|since| {
            let around = soundness.voters_around(office.leader, since);
            let transfers = self.transferred.contains(&(group, office.term));
            office.since <= since && !transfers && soundness.is_majority(&around)
        })
    }
}
