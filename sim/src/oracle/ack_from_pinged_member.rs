//! Vouching: a probe is answered by its target, or by a helper that was asked; nobody else can vouch for a member
//! (SWIM, 3.1).
//!
//! Who was asked is taken from the pings that left, not from what the prober remembers.

use std::collections::BTreeSet;

use continuum_core::gossip::{Body, Gossip, Message, ProbeInfo};
use continuum_core::id::NodeId;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "ack-from-pinged-member";

/// The probe of one node that was last seen under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    number: u64,
    acked: bool,
    helpers: BTreeSet<NodeId>,
}

impl Probes {
    /// Gossip leaves: it may ask a helper.
    pub(crate) fn asks(&mut self, to: NodeId, message: &Message) {
        if let Body::PingRequest { number, .. } = message.body {
            if number != self.number {
                *self = Self { number, ..Self::default() };
            }
            self.helpers.insert(to);
        }
    }

    /// A step ends; `ack` is who acknowledged which ping by it.
    pub(crate) fn check(&mut self, gossip: &Gossip, ack: Option<(NodeId, u64)>) -> Verdict {
        let Some(probing) = gossip.probe() else { return Ok(()) };
        self.look(&probing, ack)
    }

    pub(crate) fn look(&mut self, probing: &ProbeInfo<'_>, ack: Option<(NodeId, u64)>) -> Verdict {
        if probing.number != self.number {
            *self = Self { number: probing.number, ..Self::default() };
        }
        let news = probing.acked && !self.acked;
        self.acked = probing.acked;
        if !news {
            return Ok(());
        }
        let vouches = |from: NodeId| from == probing.target || self.helpers.contains(&from);
        if ack.is_some_and(|(from, number)| number == probing.number && vouches(from)) {
            return Ok(());
        }
        let what = format!("the probe of {:?} counts as answered, by {ack:?}", probing.target);
        Err(Broken::new(NAME, what))
    }
}
