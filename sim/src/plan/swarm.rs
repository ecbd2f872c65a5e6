//! Swarm testing: how a seed becomes a plan (Groce and others 2012).
//!
//! Each seed enables each kind of fault with probability 1/2, because a fault that is always present hides what it
//! masks. Each kind draws from a stream of its own, so a new kind changes no draw of another. The module that owns the
//! broken thing implements a fault; this module only plans it.

use crate::plan::fault::{Fault, Kind};
use crate::plan::fault_budget::FaultBudget;
use crate::plan::{Cluster, Plan, Workload, capture_bytes, chunk_bytes, segment_bytes};
use crate::rng::{Dice, Draws, stream};

/// The furthest that a fault sets a wall clock wrong: ten years in milliseconds.
const FURTHEST_MS: i64 = 3653 * 86_400_000;

impl Plan {
    /// The swarm's plan for a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let calm_ms = 4_000;
        let mut time = draws.dice(stream("plan.time", 0));
        let fault_ms = time.between(60_000, 75_000);
        let mut cluster = Cluster::draw(&mut draws.dice(stream("plan.cluster", 0)));
        let late = late_nodes(&mut draws.dice(stream("plan.late", 0)));
        cluster.nodes = cluster.nodes.max(cluster.voters + late);
        cluster.lower_bounds(&mut draws.dice(stream("plan.bounds", 0)));
        let mut workload = Workload::draw(&mut draws.dice(stream("plan.workload", 0)));
        // Sometimes more than a majority promises: such a write is answered as unknown.
        let more = draws.dice(stream("plan.levels", 0)).chance(300_000);
        workload.quorum_others = (cluster.voters / 2) as u8 + u8::from(more);
        workload.replica_others = (cluster.nodes - 1) as u8;
        let budget = FaultBudget::draw(&cluster, &mut draws.dice(stream("plan.atlas", 0)));
        let heal = budget.heal(&cluster, &mut draws.dice(stream("plan.heal", 0)));
        let faults = Vec::new();
        let mut plan = Self { seed, calm_ms, fault_ms, cluster, workload, heal, faults };
        for kind in Kind::ALL {
            let dice = &mut draws.dice(stream(kind.name(), 0));
            if kind == Kind::Add {
                plan.plant_late(late, dice);
            } else {
                plan.plant(kind, &budget, dice);
            }
        }
        // Thousands of elements in slices of one or two take longer than a run.
        if plan.faults.iter().any(|fault| fault.kind == Kind::Bulk) {
            plan.cluster.slice_elements = None;
        }
        plan
    }

    /// The last nodes start late, while faults are active.
    fn plant_late(&mut self, late: usize, dice: &mut Dice) {
        for node in self.cluster.nodes - late..self.cluster.nodes {
            let at_ms = self.calm_ms + dice.below(40_000);
            let (kind, nodes) = (Kind::Add, vec![node]);
            self.faults.push(Fault { kind, at_ms, for_ms: 0, nodes, rate_ppm: 0, amount: 0 });
        }
    }

    /// Plans the faults of one kind, if the seed enables it.
    fn plant(&mut self, kind: Kind, budget: &FaultBudget, dice: &mut Dice) {
        let has_learner = self.cluster.nodes > self.cluster.voters;
        if !dice.chance(500_000) || kind == Kind::HostileLearner && !has_learner {
            return;
        }
        let times = match kind {
            Kind::Crash => dice.between(2, 8),
            Kind::Pause | Kind::Isolate | Kind::Bridge => dice.between(1, 4),
            Kind::Partition | Kind::OneWay | Kind::Reset | Kind::JumpAhead | Kind::JumpBack => {
                dice.between(1, 4)
            }
            _ => dice.between(1, 3),
        };
        for _ in 0..times {
            let fault = self.draw_fault(kind, budget, dice);
            let chains = kind == Kind::Partition && dice.chance(400_000);
            self.faults.push(fault);
            if chains {
                self.plant_chain(dice);
            }
        }
    }

    /// Back-to-back partitions, each around the current leader: what a leader could not send while it was cut off meets
    /// a federation whose next leader is cut off in turn.
    fn plant_chain(&mut self, dice: &mut Dice) {
        for _ in 0..dice.between(3, 8) {
            let Some(last) = self.faults.last() else { return };
            let at_ms = last.at_ms + last.for_ms;
            let for_ms = dice.between(600, 2_500).min(self.heal_ms() - at_ms);
            let fault = Fault { at_ms, for_ms, nodes: last.nodes.clone(), amount: 1, ..*last };
            self.faults.push(fault);
        }
    }

    fn draw_fault(&self, kind: Kind, budget: &FaultBudget, dice: &mut Dice) -> Fault {
        let nodes = self.cluster.nodes;
        let at_ms = self.calm_ms + dice.below(self.fault_ms * 9 / 10);
        let most = self.heal_ms() - at_ms;
        let span = |dice: &mut Dice, low, high| dice.between(low, high).min(most);
        let mut fault = Fault { kind, at_ms, for_ms: 0, nodes: Vec::new(), rate_ppm: 0, amount: 0 };
        match kind {
            Kind::Swizzle
            | Kind::Bridge
            | Kind::Isolate
            | Kind::Capacity
            | Kind::ResetMidFrame
            | Kind::Replay => self.draw_link_fault(&mut fault, dice),
            Kind::CrashLoop | Kind::Blackout | Kind::Pause | Kind::Slow => {
                self.draw_process_fault(&mut fault, dice);
            }
            Kind::Drop | Kind::Duplicate | Kind::Corrupt => {
                fault.for_ms = span(dice, 5_000, 60_000);
                fault.rate_ppm = dice.between(5_000, 200_000);
            }
            Kind::Reorder | Kind::Delay => {
                fault.for_ms = span(dice, 5_000, 60_000);
                fault.rate_ppm = dice.between(5_000, 200_000);
                // Sometimes longer than an election: a reply to an old leader must not count for a new request.
                let most = if dice.chance(300_000) { 4_000 } else { 800 };
                fault.amount = dice.between(5, most) as i64;
            }
            Kind::Clog | Kind::OneWay | Kind::Partition => {
                fault.for_ms = span(dice, 300, 12_000);
                fault.nodes = some_of(nodes, dice);
                fault.amount = if kind == Kind::Clog { 0 } else { dice.below(3) as i64 };
            }
            Kind::Reset => fault.nodes = some_of(nodes, dice),
            Kind::Crash => {
                fault.for_ms = span(dice, 20, 8_000);
                fault.amount = dice.below(4) as i64;
                fault.nodes = if dice.chance(150_000) {
                    some_of(nodes, dice)
                } else {
                    vec![dice.below(nodes as u64) as usize]
                };
            }
            Kind::Stall => {
                fault.for_ms = span(dice, 1_000, 20_000);
                fault.nodes = some_of(nodes, dice);
                fault.amount = dice.between(5, 400) as i64;
            }
            Kind::Hang | Kind::Deposed => self.draw_leader_fault(&mut fault, dice),
            Kind::Skew | Kind::JumpAhead | Kind::JumpBack | Kind::Freeze | Kind::Drift => {
                self.draw_clock_fault(&mut fault, dice);
            }
            Kind::ClientDuplicate
            | Kind::ClientAbandon
            | Kind::ClientRetry
            | Kind::ClientBurst
            | Kind::HostileClient
            | Kind::ReusedKey => {
                self.draw_client_fault(&mut fault, dice);
            }
            Kind::RivalFounding | Kind::FounderCrash | Kind::VoterAway | Kind::OtherGenesis => {
                self.draw_founding_fault(&mut fault, dice);
            }
            _ => self.draw_store_fault(&mut fault, budget, dice),
        }
        fault
    }

    /// Draws what a clock shows wrongly.
    fn draw_clock_fault(&self, fault: &mut Fault, dice: &mut Dice) {
        let most = self.heal_ms() - fault.at_ms;
        let low = if fault.kind == Kind::Drift { 5_000 } else { 1_000 };
        let high = if fault.kind == Kind::Drift { 60_000 } else { 40_000 };
        fault.for_ms = dice.between(low, high).min(most);
        fault.nodes = some_of(self.cluster.nodes, dice);
        match fault.kind {
            Kind::Freeze => {}
            Kind::Drift => fault.amount = dice.between(0, 200_000) as i64 - 100_000,
            kind => {
                // Far offsets are seconds, hours or years: most exceed `ahead_ms_max`.
                let far = dice.chance(300_000);
                let drawn = if far { dice.between(0, 26) } else { dice.between(10, 5_000) };
                let amount = if far { FURTHEST_MS >> drawn } else { drawn as i64 };
                let back = kind == Kind::Skew && dice.chance(500_000);
                fault.amount = if back { -amount } else { amount };
            }
        }
    }

    /// Draws what clients do wrong.
    fn draw_client_fault(&self, fault: &mut Fault, dice: &mut Dice) {
        let most = self.heal_ms() - fault.at_ms;
        match fault.kind {
            Kind::ClientRetry => {
                fault.for_ms = dice.between(3_000, 20_000).min(most);
                fault.amount = dice.between(5, 150) as i64;
            }
            Kind::ClientBurst => {
                let quiet_ms = dice.between(1_500, 4_000);
                fault.for_ms = dice.between(quiet_ms + 100, quiet_ms + 1_000).min(most);
                fault.amount = quiet_ms as i64;
            }
            _ => {
                fault.for_ms = dice.between(10_000, 60_000).min(most);
                fault.rate_ppm = dice.between(10_000, 200_000);
            }
        }
    }

    /// Draws how links break.
    fn draw_link_fault(&self, fault: &mut Fault, dice: &mut Dice) {
        let nodes = self.cluster.nodes;
        let most = self.heal_ms() - fault.at_ms;
        let (low, high) = match fault.kind {
            Kind::Swizzle => (1_000, 15_000),
            Kind::Bridge | Kind::Isolate => (300, 12_000),
            Kind::Capacity => (2_000, 30_000),
            _ => (10_000, 60_000),
        };
        fault.for_ms = dice.between(low, high).min(most);
        match fault.kind {
            Kind::Bridge => {
                fault.nodes = shuffled(nodes, dice);
                fault.amount = dice.between(2, 3) as i64;
            }
            Kind::Isolate => {
                fault.nodes = some_of(nodes, dice);
                if dice.chance(750_000) {
                    fault.nodes.truncate(1);
                    fault.amount = i64::from(dice.chance(600_000));
                }
            }
            Kind::Capacity => {
                fault.nodes = some_of(nodes, dice);
                fault.amount = 1_000 << dice.below(7);
            }
            Kind::ResetMidFrame => fault.rate_ppm = dice.between(50, 2_000),
            Kind::Replay => {
                fault.rate_ppm = dice.between(10_000, 300_000);
                fault.amount = dice.between(5, 4_000) as i64;
            }
            _ => fault.nodes = some_of(nodes, dice),
        }
    }

    /// Draws what goes wrong while federations are founded.
    fn draw_founding_fault(&self, fault: &mut Fault, dice: &mut Dice) {
        let Cluster { nodes, voters, .. } = self.cluster;
        if fault.kind == Kind::OtherGenesis {
            fault.for_ms = dice.between(5_000, 60_000).min(self.heal_ms() - fault.at_ms);
            fault.rate_ppm = dice.between(1_000, 50_000);
            return;
        }
        // The operator founds the federation at 100 ms, and again until it succeeds.
        fault.at_ms = dice.between(50, 1_500);
        fault.for_ms = dice.between(100, 4_000);
        match fault.kind {
            Kind::RivalFounding => {
                fault.nodes = shuffled(nodes, dice);
                fault.nodes.truncate(dice.between(1, nodes as u64) as usize);
                fault.amount = if dice.chance(500_000) { dice.between(1, 400) as i64 } else { 0 };
            }
            Kind::FounderCrash => {
                fault.nodes = vec![0];
                fault.amount = dice.below(2) as i64;
            }
            _ => fault.nodes = vec![dice.below(voters as u64) as usize],
        }
    }

    /// Draws how processes break or slow down. Half of these faults strike a leader.
    fn draw_process_fault(&self, fault: &mut Fault, dice: &mut Dice) {
        let nodes = self.cluster.nodes;
        let most = self.heal_ms() - fault.at_ms;
        let (low, high) = match fault.kind {
            Kind::CrashLoop => (500, 6_000),
            Kind::Blackout => (20, 4_000),
            Kind::Pause => (100, 10_000),
            _ => (1_000, 20_000),
        };
        fault.for_ms = dice.between(low, high).min(most);
        fault.nodes = some_of(nodes, dice);
        if dice.chance(700_000) {
            fault.nodes.truncate(1);
        }
        if fault.kind == Kind::Blackout {
            fault.nodes.clear();
        }
        fault.amount = match fault.kind {
            Kind::Blackout => dice.between(1, 3_000),
            Kind::CrashLoop => dice.between(2, 800),
            Kind::Pause => dice.below(2),
            _ => dice.between(1, 40),
        } as i64;
    }

    /// Draws faults after which a leader, or a disk, does not do what others count on.
    fn draw_leader_fault(&self, fault: &mut Fault, dice: &mut Dice) {
        let most = self.heal_ms() - fault.at_ms;
        if fault.kind == Kind::Hang {
            fault.for_ms = dice.between(500, 12_000).min(most);
            fault.nodes = vec![dice.below(self.cluster.nodes as u64) as usize];
            fault.amount = dice.below(2) as i64;
        } else {
            fault.for_ms = dice.between(2_000, 8_000).min(most);
            fault.nodes = (0..self.cluster.voters).collect();
            fault.amount = dice.between(400_000, 800_000) as i64;
        }
    }

    /// Draws faults of a node's store, or of the node as a whole.
    fn draw_store_fault(&self, fault: &mut Fault, budget: &FaultBudget, dice: &mut Dice) {
        let nodes = self.cluster.nodes;
        let most = self.heal_ms() - fault.at_ms;
        let span = |dice: &mut Dice, low, high| dice.between(low, high).min(most);
        match fault.kind {
            Kind::UnsyncedLoss | Kind::TornWrite | Kind::UnsyncedReorder => {
                fault.for_ms = span(dice, 20_000, 75_000);
            }
            Kind::FsyncLies | Kind::Misdirect | Kind::Latent | Kind::Rot | Kind::Rollback => {
                fault.for_ms = span(dice, 2_000, 20_000);
                fault.nodes = budget.victim(dice);
                fault.amount = dice.below(2) as i64;
            }
            Kind::LiveClone => {
                fault.for_ms = span(dice, 2_000, 20_000);
                fault.nodes = budget.victim(dice);
            }
            Kind::Wipe => {
                fault.for_ms = span(dice, 20, 8_000);
                fault.nodes = budget.victim(dice);
            }
            Kind::FsyncError | Kind::Full => {
                fault.for_ms = span(dice, 500, 15_000);
                fault.nodes = some_of(nodes, dice);
            }
            Kind::Handover => {
                fault.for_ms = span(dice, 2_100, 8_000);
                fault.nodes = vec![dice.below(nodes as u64) as usize];
                fault.amount = dice.below(2) as i64;
            }
            Kind::FalseContacts => {
                fault.for_ms = span(dice, 30_000, 75_000);
                fault.rate_ppm = dice.between(200_000, 1_000_000);
            }
            Kind::MixedVersion => {
                fault.for_ms = span(dice, 10_000, 60_000);
                fault.nodes = some_of(nodes, dice);
                fault.rate_ppm = dice.between(5_000, 100_000);
            }
            Kind::Churn => fault.for_ms = span(dice, 10_000, 60_000),
            Kind::Bulk => {
                fault.for_ms = span(dice, 10_000, 60_000);
                // Mostly tens or hundreds of keys in a write, in a few seeds thousands.
                let most = if dice.chance(20_000) { 12 } else { 8 };
                fault.amount = dice.between(1 << (most - 6), 1 << most).min(4_000) as i64;
            }
            Kind::HostileStranger => fault.for_ms = span(dice, 5_000, 40_000),
            Kind::HostileLearner => {
                fault.for_ms = span(dice, 5_000, 40_000);
                fault.nodes =
                    vec![dice.between(self.cluster.voters as u64, nodes as u64 - 1) as usize];
            }
            // `plant_late` draws `Kind::Add`.
            _ => {}
        }
    }
}

/// The number of nodes that start late. This is the swarm bit of `Kind::Add`, because it also affects the number of
/// nodes.
fn late_nodes(dice: &mut Dice) -> usize {
    if dice.chance(500_000) { dice.between(1, 2) as usize } else { 0 }
}

/// Some of the nodes, never all.
fn some_of(nodes: usize, dice: &mut Dice) -> Vec<usize> {
    let mask = dice.bits();
    let mut chosen: Vec<usize> = (0..nodes).filter(|node| mask >> node & 1 == 1).collect();
    if chosen.is_empty() || chosen.len() == nodes {
        chosen = vec![(mask >> 32) as usize % nodes];
    }
    chosen
}

/// All nodes in a random order.
fn shuffled(nodes: usize, dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes).collect();
    for last in (1..nodes).rev() {
        order.swap(last, dice.below(last as u64 + 1) as usize);
    }
    order
}

impl Cluster {
    fn draw(dice: &mut Dice) -> Self {
        let nodes = dice.between(3, 5) as usize;
        let voters = if nodes == 5 && dice.chance(500_000) { 5 } else { 3 };
        // Half of the seeds have small thresholds, so that checkpoints, snapshots and catch-up by snapshot happen.
        let small = dice.chance(500_000);
        let latency_us_min = dice.between(50, 500);
        let sync_us_min = dice.between(50, 1_000);
        Self {
            nodes,
            voters,
            latency_us_min,
            latency_us_max: latency_us_min + dice.between(100, 4_000),
            sync_us_min,
            sync_us_max: sync_us_min + dice.between(100, 5_000),
            heartbeat_ms: dice.between(50, 150),
            election_timeout_ms: dice.between(450, 900),
            request_timeout_ms: dice.between(2_000, 5_000),
            anti_entropy_ms: dice.between(300, 1_500),
            checkpoint_bytes: if small { 64 << 10 } else { 1 << 20 },
            retained_bytes_max: if small { dice.between(1, 64) as usize * 1024 } else { 1 << 20 },
            append_bytes_max: if small { 1 << dice.between(6, 15) } else { 256 << 10 },
            delta_bytes_max: if small { 1 << dice.between(9, 15) } else { 256 << 10 },
            // Small: a capture takes many steps, and the shard is written to meanwhile.
            capture_bytes: if small { 1 << dice.between(8, 13) } else { capture_bytes() },
            segment_bytes: segment_bytes(),
            chunk_bytes: chunk_bytes(),
            sessions_max: None,
            requests_max: None,
            export_bytes_max: None,
            slice_elements: None,
        }
    }

    /// Lowers some bounds, each in a part of the seeds, so that the small states of a run reach them.
    fn lower_bounds(&mut self, dice: &mut Dice) {
        if dice.chance(500_000) {
            self.segment_bytes = 64 << 10;
        }
        if dice.chance(500_000) {
            self.chunk_bytes = 1 << dice.between(9, 12);
        }
        self.sessions_max = dice.chance(200_000).then(|| dice.between(40, 80) as usize);
        self.requests_max = dice.chance(150_000).then(|| dice.between(4, 12) as usize);
        self.export_bytes_max = dice.chance(250_000).then(|| dice.between(300, 3_000));
        self.slice_elements = dice.chance(600_000).then(|| dice.between(1, 3) as usize);
    }
}

impl Workload {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            clients: dice.between(4, 12) as usize,
            think_ms_min: dice.between(20, 200),
            think_ms_max: dice.between(300, 1_200),
            timeout_ms: dice.between(700, 6_000),
            strong_keys: dice.between(16, 32),
            eventual_keys: dice.between(4, 24),
            slots: dice.between(1, 3) as u16,
            strong_ppm: dice.between(300_000, 700_000),
            hot_ppm: dice.between(50_000, 400_000),
            read_ppm: dice.between(200_000, 500_000),
            session_ppm: dice.between(300_000, 1_000_000),
            large_ppm: dice.between(0, 300_000),
            // Sometimes a shard is larger than one slice of a checkpoint.
            value_bytes_max: dice.between(100, 8_000) << (2 * u64::from(dice.chance(250_000))),
            quorum_others: 0,
            replica_others: 0,
            operations_min: 200,
            only: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_enabled_in_about_half_of_the_seeds() {
        for kind in Kind::ALL {
            let with = (0..200)
                .filter(|seed| Plan::from_seed(*seed).faults.iter().any(|f| f.kind == kind))
                .count();
            assert!((60..140).contains(&with), "{}: {with}", kind.name());
        }
    }
}
