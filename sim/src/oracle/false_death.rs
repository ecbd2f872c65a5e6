//! Law: gossip declares no member dead that is up and soundly linked, and a wrong death is refuted soon (SWIM, 4.2;
//! Lifeguard, IV-B).
//!
//! Looks at a node and a member that belong to a majority of all nodes which are up and soundly linked with each other.
//! If that was so since the node's suspicion began, the member had the time to refute it, and the node must not declare
//! it dead by itself. If the node holds the member dead, for whatever reason, it learns better within a bound. It does
//! not judge what a node says that is cut off, nor deaths that others report while they last no longer than the bound.

use std::collections::BTreeMap;

use continuum_core::gossip::State;
use continuum_core::id::NodeId;

use super::soundness::Soundness;
use crate::env::clock::MS;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "false-death";

/// Periods between two pings of some dead member, and the longest probe, in periods of the default configuration.
const PERIODS_PER_DEAD: u64 = 5;
const LONGEST_PROBE: u64 = 9;
const PERIOD_MS: u64 = 1_000;

/// Milliseconds after which a node knows that a member lives which it held dead: it pings one dead member after
/// another, a slow clock takes a tenth longer, and the member's answer takes a moment.
pub(crate) const fn refuted_within_ms(nodes: u64) -> u64 {
    (PERIODS_PER_DEAD * nodes + LONGEST_PROBE) * PERIOD_MS * 112 / 100
}

/// One node's view of the others: since when it suspects a member, or holds it dead.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    suspected: BTreeMap<NodeId, u64>,
    dead: BTreeMap<NodeId, u64>,
    /// Members that this node declared dead in the last step, with the beginning of its suspicion.
    declared: Vec<(NodeId, u64)>,
}

impl Deaths {
    /// The node's view of a member changed. `by_itself` says that a suspicion of its own ran out in this step.
    pub(crate) fn turns(&mut self, at: u64, member: NodeId, to: State, by_itself: bool) {
        if to == State::Suspect {
            self.suspected.entry(member).or_insert(at);
        } else if let Some(since) = self.suspected.remove(&member)
            && to == State::Dead
            && by_itself
        {
            self.declared.push((member, since));
        }
        if to == State::Dead {
            self.dead.entry(member).or_insert(at);
        } else {
            self.dead.remove(&member);
        }
    }

    /// Judges the deaths that this node declared in the last step.
    pub(crate) fn check_declared(
        &mut self,
        soundness: &Soundness,
        me: usize,
        number: impl Fn(NodeId) -> Option<usize>,
    ) -> Verdict {
        for (member, since) in std::mem::take(&mut self.declared) {
            let Some(other) = number(member) else { continue };
            if soundness.is_in_majority_of_nodes(me, other, since) {
                let what = format!(
                    "node {me} declares node {other} dead, although both were up and soundly linked with a majority of \
                     all nodes since it was suspected at {} ms",
                    since / MS
                );
                return Err(Broken::new(NAME, what));
            }
        }
        Ok(())
    }

    /// Judges the members that this node holds dead for too long.
    pub(crate) fn check_held(
        &self,
        soundness: &Soundness,
        (me, now): (usize, u64),
        nodes: usize,
        number: impl Fn(NodeId) -> Option<usize>,
    ) -> Verdict {
        let bound = refuted_within_ms(nodes as u64) * MS;
        for (member, since) in self.dead.iter().filter(|(_, since)| now - **since > bound) {
            let Some(other) = number(*member) else { continue };
            if soundness.is_in_majority_of_nodes(me, other, now - bound) {
                let what = format!(
                    "node {me} has held node {other} dead since {} ms, although both have been up and soundly linked \
                     with a majority of all nodes for {} ms",
                    since / MS,
                    bound / MS
                );
                return Err(Broken::new(NAME, what));
            }
        }
        Ok(())
    }
}
