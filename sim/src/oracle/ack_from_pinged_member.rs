//! Law: a probe counts as answered only by an ack from its target or from a helper that the prober asked (SWIM, 3.1).
//!
//! Compares the ack that ended a probe with the ping requests that the node was seen to send, not with what the prober
//! remembers. It does not judge when a probe should end or how many helpers are asked.

use std::collections::BTreeSet;

use continuum_core::gossip::{Body, Gossip, Message, ProbeInfo};
use continuum_core::id::NodeId;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "ack-from-pinged-member";

/// The latest observed probe of one node.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    number: u64,
    acked: bool,
    helpers: BTreeSet<NodeId>,
}

impl Probes {
    /// Records a leaving message if it asks a helper to ping the target.
    pub(crate) fn record_request(&mut self, to: NodeId, message: &Message) {
        if let Body::PingRequest { number, .. } = message.body {
            if number != self.number {
                *self = Self { number, ..Self::default() };
            }
            self.helpers.insert(to);
        }
    }

    /// Judges the end of a step; `ack` is the sender and the ping number of the ack that the step received.
    pub(crate) fn check(&mut self, gossip: &Gossip, ack: Option<(NodeId, u64)>) -> Verdict {
        let Some(probing) = gossip.probe() else { return Ok(()) };
        self.check_probe(&probing, ack)
    }

    pub(crate) fn check_probe(
        &mut self,
        probing: &ProbeInfo<'_>,
        ack: Option<(NodeId, u64)>,
    ) -> Verdict {
        if probing.number != self.number {
            *self = Self { number: probing.number, ..Self::default() };
        }
        let is_new = probing.acked && !self.acked;
        self.acked = probing.acked;
        if !is_new {
            return Ok(());
        }
        let was_asked = |from: NodeId| from == probing.target || self.helpers.contains(&from);
        if ack.is_some_and(|(from, number)| number == probing.number && was_asked(from)) {
            return Ok(());
        }
        let what = format!(
            "the probe of {:?} counts as answered by {ack:?}, which was not asked",
            probing.target
        );
        Err(Broken::new(NAME, what))
    }
}
