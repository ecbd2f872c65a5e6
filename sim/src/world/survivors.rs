//! Who still counts: voters that are lost for good, stores that nobody may trust, and the core that healing heals.
//!
//! A disk that forgot what it had reported is outside of what the protocols assume. A voter with such a disk never
//! takes part again: see `atlas` for why a federation can bear that. What is promised after healing is promised to the
//! core, and judged by what the core holds.

use crate::plan::Rest;
use crate::rng::stream;
use crate::world::World;

/// What became of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survival {
    /// It was a voter, and what it promised may be forgotten.
    pub(crate) is_lost: bool,
    /// Its process never starts again.
    pub(crate) is_dead: bool,
    /// Its store is older than what it promised, and goes on all the same until somebody notices.
    pub(crate) is_untrusted: bool,
    /// It is not in the core.
    is_outside: bool,
    /// How often its disk lost what it had reported.
    pub(crate) losses: u64,
}

impl World {
    /// The nodes that count at the end: all that healing heals, but for lost voters.
    pub(crate) fn core(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        let counts = |(_, survival): &(usize, &Survival)| !survival.is_lost && !survival.is_outside;
        self.survival.iter().enumerate().filter(counts).map(|(node, _)| node)
    }

    /// Whether an acknowledged write may be gone for good: some disk lost something, or some node is outside.
    pub(crate) fn has_losses(&self) -> bool {
        self.survival.iter().any(|survival| survival.is_outside || survival.losses > 0)
    }

    /// A disk lost what it had reported. A voter whose disk did never takes part again; what it promised until now it
    /// promised in good faith.
    pub(crate) fn lose(&mut self, node: usize) {
        let survival = &mut self.survival[node];
        survival.losses += 1;
        if node < self.plan.cluster.voters && !survival.is_lost {
            survival.is_lost = true;
            self.processes[node].keep_promises();
        }
    }

    /// Whether a voter runs on a store that forgot what it promised.
    pub(crate) fn runs_untrusted(&self, node: usize) -> bool {
        let survival = &self.survival[node];
        survival.is_lost && survival.is_untrusted && self.processes[node].is_up()
    }

    /// The core is well from now on, and the rest never again.
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

    /// What `from` says does not reach `to` any more, nor the other way when `both`.
    fn sever(&mut self, from: usize, to: usize, both: bool) {
        self.network.sever(from, to);
        if both {
            self.network.sever(to, from);
        }
    }

    /// A draw about a node, for its so many-th loss.
    pub(crate) fn draw_of(&self, label: &str, node: usize, below: u64) -> u64 {
        self.draws.below(stream(label, node as u64), self.survival[node].losses, below)
    }
}
