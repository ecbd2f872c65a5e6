//! Which nodes still count: voters lost for good, stores that must not be trusted, and the core that healing heals.
//!
//! A disk that forgot what it had reported is outside of what the protocols assume. A voter with such a disk never
//! takes part again; `plan::fault_budget` says why a federation can bear that. Promises after healing are made to the
//! core, and are judged by what the core holds.

use crate::plan::Rest;
use crate::rng::stream;
use crate::world::World;

/// The state of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survival {
    /// The node is a voter and may have forgotten promises.
    pub(crate) is_lost: bool,
    /// When its process started last, and when it was last asked to stop.
    pub(crate) started_at: u64,
    pub(crate) asked_to_stop: Option<u64>,
    /// Its process never starts again.
    pub(crate) is_dead: bool,
    /// Its store is older than what it promised, and stays in use until somebody notices.
    pub(crate) is_untrusted: bool,
    /// The count of the boot before its disk was rolled back.
    pub(crate) lost_boot: u64,
    /// The node is not in the core.
    is_outside: bool,
    /// How often it got an empty store before the federation was set up.
    pub(crate) renewals: u64,
    /// How often its disk lost data that it had reported durable.
    pub(crate) losses: u64,
    /// When it last lost data.
    pub(crate) lost_at: Option<u64>,
    /// When it last got an empty store.
    pub(crate) emptied_at: Option<u64>,
}

impl World {
    /// The nodes that count at the end: all that are healed, except lost voters.
    pub(crate) fn core(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        let counts = |(_, survival): &(usize, &Survival)| !survival.is_lost && !survival.is_outside;
        self.survival.iter().enumerate().filter(counts).map(|(node, _)| node)
    }

    /// Whether an acknowledged write may be gone for good: a disk lost data, or a node is outside of the core.
    pub(crate) fn has_losses(&self) -> bool {
        self.survival.iter().any(|survival| survival.is_outside || survival.losses > 0)
    }

    /// A disk lost data that it had reported durable. A voter with such a disk never takes part again; its promises
    /// until now were made in good faith.
    pub(crate) fn lose(&mut self, node: usize) {
        let survival = &mut self.survival[node];
        survival.losses += 1;
        survival.lost_at = Some(self.now);
        if node < self.plan.cluster.voters && !survival.is_lost {
            survival.is_lost = true;
            self.processes[node].keep_promises();
        }
    }

    /// Whether a voter runs on a store that forgot promises.
    pub(crate) fn runs_untrusted(&self, node: usize) -> bool {
        let survival = &self.survival[node];
        survival.is_lost && survival.is_untrusted && self.processes[node].is_up()
    }

    /// The core is healthy from now on, and the rest never again.
    pub(crate) fn part_core_from_rest(&mut self) {
        let nodes = self.processes.len();
        let core = self.plan.heal.members(nodes);
        let bridge = core.iter().copied().find(|node| !self.survival[*node].is_lost);
        for node in (0..nodes).filter(|node| !core.contains(node)) {
            self.survival[node].is_outside = true;
            for member in core.iter().copied() {
                match self.plan.heal.rest {
                    Rest::Dead => {}
                    Rest::Isolated => self.sever(node, member, true),
                    Rest::OneWay => self.sever(node, member, false),
                    Rest::Bridged if Some(member) == bridge => {}
                    Rest::Bridged => self.sever(node, member, true),
                }
            }
            if self.plan.heal.rest == Rest::Dead {
                self.end_silently(node);
                self.survival[node].is_dead = true;
            }
        }
        self.watch_cuts();
    }

    /// Blocks messages from one node to another, and the other direction too when `both`.
    fn sever(&mut self, from: usize, to: usize, both: bool) {
        self.network.sever(from, to);
        if both {
            self.network.sever(to, from);
        }
    }

    /// A random number for a node, one per loss.
    pub(crate) fn draw_of(&self, label: &str, node: usize, below: u64) -> u64 {
        self.draws.below(stream(label, node as u64), self.survival[node].losses, below)
    }
}
