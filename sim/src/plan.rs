//! A plan: cluster, workload and faults as data.
//!
//! A plan is made from a seed, saved as TOML, and run; the same plan always gives the same run. The swarm (Groce and
//! others 2012) gives every kind of fault a bit of its own per seed: what is never left out hides what it masks. What a
//! fault does is not here.

use continuum_core::config::Config;
use serde::{Deserialize, Serialize};

use crate::draw::{Dice, Draws, stream};
use crate::fault::{Fault, Kind};

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The root of all chance in the run.
    pub seed: u64,
    /// When the setup is over and faults may begin, in virtual milliseconds.
    pub calm_ms: u64,
    /// How long faults may begin after that.
    pub fault_ms: u64,
    /// The nodes.
    pub cluster: Cluster,
    /// The clients.
    pub workload: Workload,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// The nodes and their surroundings while nothing goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// How many nodes.
    pub nodes: usize,
    /// How many of them, from the first, are first voters.
    pub voters: usize,
    /// When the last node starts, if later than the others.
    pub late_ms: Option<u64>,
    /// A message takes from so many microseconds ..
    pub latency_us_min: u64,
    /// .. to so many.
    pub latency_us_max: u64,
    /// A sync takes from so many microseconds ..
    pub sync_us_min: u64,
    /// .. to so many.
    pub sync_us_max: u64,
    /// The node's knobs that the swarm turns.
    pub heartbeat_ms: u64,
    /// As in the node's configuration.
    pub election_timeout_ms: u64,
    /// As in the node's configuration.
    pub request_timeout_ms: u64,
    /// As in the node's configuration.
    pub anti_entropy_ms: u64,
    /// As in the node's configuration.
    pub checkpoint_bytes: u64,
    /// As in the node's configuration.
    pub retained_bytes_max: usize,
    /// As in the node's configuration.
    pub append_bytes_max: usize,
    /// As in the node's configuration.
    pub delta_bytes_max: usize,
}

/// The clients and what they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// How many clients, each with one request at a time.
    pub clients: usize,
    /// A client pauses from so many milliseconds ..
    pub think_ms_min: u64,
    /// .. to so many.
    pub think_ms_max: u64,
    /// Milliseconds after which a client asks another node, or gives up.
    pub timeout_ms: u64,
    /// Keys of the strong namespace.
    pub strong_keys: u64,
    /// Keys of each kind in each eventual namespace.
    pub eventual_keys: u64,
    /// Slots of each eventual namespace.
    pub slots: u16,
    /// Requests that go to the strong namespace.
    pub strong_ppm: u64,
    /// Requests that go to the first four keys.
    pub hot_ppm: u64,
    /// Requests that read.
    pub read_ppm: u64,
    /// Strong writes with a session, which alone are tried again.
    pub session_ppm: u64,
    /// Most values are short; this share is up to `value_bytes_max` long.
    pub large_ppm: u64,
    /// Longest value.
    pub value_bytes_max: u64,
    /// The run goes on until so many requests were acknowledged.
    pub operations_min: u64,
}

impl Plan {
    /// The swarm's plan for a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let calm_ms = 4_000;
        let mut time = draws.dice(stream("plan.time", 0));
        let fault_ms = time.between(60_000, 75_000);
        let cluster = Cluster::draw(&mut draws.dice(stream("plan.cluster", 0)), calm_ms);
        let workload = Workload::draw(&mut draws.dice(stream("plan.workload", 0)));
        let mut plan = Self { seed, calm_ms, fault_ms, cluster, workload, faults: Vec::new() };
        for kind in Kind::ALL {
            plan.plant(kind, &mut draws.dice(stream(kind.name(), 0)));
        }
        plan
    }

    /// Reads a plan from TOML.
    ///
    /// # Errors
    ///
    /// What is wrong with the text or with a number in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        plan.validate()?;
        Ok(plan)
    }

    /// Writes the plan as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The configuration of every node.
    #[must_use]
    pub fn config(&self) -> Config {
        let cluster = &self.cluster;
        let mut config = Config::default();
        config.raft.heartbeat_ms = cluster.heartbeat_ms;
        config.raft.election_timeout_ms = cluster.election_timeout_ms;
        config.raft.retained_bytes_max = cluster.retained_bytes_max;
        config.raft.append_bytes_max = cluster.append_bytes_max;
        config.replication.delta_bytes_max = cluster.delta_bytes_max;
        config.replication.anti_entropy_ms = cluster.anti_entropy_ms;
        config.node.request_timeout_ms = cluster.request_timeout_ms;
        config.node.checkpoint_bytes = cluster.checkpoint_bytes;
        config
    }

    /// When the last fault has ended.
    #[must_use]
    pub const fn heal_ms(&self) -> u64 {
        self.calm_ms + self.fault_ms
    }

    fn validate(&self) -> Result<(), String> {
        let Cluster { nodes, voters, .. } = self.cluster;
        if !(1..=16).contains(&nodes) || !(1..=nodes.min(7)).contains(&voters) {
            return Err(format!("{voters} voters of {nodes} nodes: 1 to 7 of 1 to 16"));
        }
        if self.faults.iter().any(|fault| fault.nodes.iter().any(|node| *node >= nodes)) {
            return Err(format!("a fault names a node that is not among the {nodes}"));
        }
        self.config().validate().map_err(|error| error.to_string())
    }

    /// Plants the faults of one kind, if its bit is set.
    fn plant(&mut self, kind: Kind, dice: &mut Dice) {
        if !dice.chance(500_000) {
            return;
        }
        let times = match kind {
            Kind::Crash => dice.between(2, 8),
            Kind::Partition | Kind::OneWay | Kind::Reset | Kind::JumpAhead | Kind::JumpBack => {
                dice.between(1, 4)
            }
            _ => dice.between(1, 3),
        };
        for _ in 0..times {
            let fault = self.draw_fault(kind, dice);
            let chains = kind == Kind::Partition && dice.chance(400_000);
            self.faults.push(fault);
            if chains {
                self.plant_chain(dice);
            }
        }
    }

    /// Partitions without a break, each of whoever leads when it begins: what a leader could not send while it was cut
    /// off meets a federation whose next leader is cut off in its turn.
    fn plant_chain(&mut self, dice: &mut Dice) {
        for _ in 0..dice.between(3, 8) {
            let Some(last) = self.faults.last() else { return };
            let at_ms = last.at_ms + last.for_ms;
            let for_ms = dice.between(600, 2_500).min(self.heal_ms() - at_ms);
            let fault = Fault { at_ms, for_ms, nodes: last.nodes.clone(), amount: 1, ..*last };
            self.faults.push(fault);
        }
    }

    fn draw_fault(&self, kind: Kind, dice: &mut Dice) -> Fault {
        let nodes = self.cluster.nodes;
        let at_ms = self.calm_ms + dice.below(self.fault_ms * 9 / 10);
        let most = self.heal_ms() - at_ms;
        let span = |dice: &mut Dice, low, high| dice.between(low, high).min(most);
        let mut fault = Fault { kind, at_ms, for_ms: 0, nodes: Vec::new(), rate_ppm: 0, amount: 0 };
        match kind {
            Kind::Drop | Kind::Duplicate | Kind::Corrupt => {
                fault.for_ms = span(dice, 5_000, 60_000);
                fault.rate_ppm = dice.between(5_000, 200_000);
            }
            Kind::Reorder | Kind::Delay => {
                fault.for_ms = span(dice, 5_000, 60_000);
                fault.rate_ppm = dice.between(5_000, 200_000);
                // Longer than an election now and then: what answers an old leader must not count for a new question.
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
            Kind::UnsyncedLoss | Kind::TornWrite | Kind::Rot => {
                fault.for_ms = span(dice, 20_000, 75_000);
            }
            Kind::Stall => {
                fault.for_ms = span(dice, 1_000, 20_000);
                fault.nodes = some_of(nodes, dice);
                fault.amount = dice.between(5, 400) as i64;
            }
            Kind::Skew | Kind::JumpAhead | Kind::JumpBack => {
                fault.for_ms = span(dice, 1_000, 40_000);
                fault.nodes = some_of(nodes, dice);
                // The far ones are beyond `ahead_ms_max`: stamps have to wait.
                let far = dice.chance(300_000);
                let (low, high) = if far { (5_000, 120_000) } else { (10, 5_000) };
                let amount = dice.between(low, high) as i64;
                let back = kind == Kind::Skew && dice.chance(500_000);
                fault.amount = if back { -amount } else { amount };
            }
            Kind::Drift => {
                fault.for_ms = span(dice, 5_000, 60_000);
                fault.nodes = some_of(nodes, dice);
                fault.amount = dice.between(0, 200_000) as i64 - 100_000;
            }
            Kind::ClientDuplicate | Kind::ClientAbandon => {
                fault.for_ms = span(dice, 10_000, 60_000);
                fault.rate_ppm = dice.between(10_000, 200_000);
            }
        }
        fault
    }
}

/// Some of the nodes, but not all of them.
fn some_of(nodes: usize, dice: &mut Dice) -> Vec<usize> {
    let mask = dice.bits();
    let mut chosen: Vec<usize> = (0..nodes).filter(|node| mask >> node & 1 == 1).collect();
    if chosen.is_empty() || chosen.len() == nodes {
        chosen = vec![(mask >> 32) as usize % nodes];
    }
    chosen
}

impl Cluster {
    fn draw(dice: &mut Dice, calm_ms: u64) -> Self {
        let nodes = dice.between(3, 5) as usize;
        let voters = if nodes == 5 && dice.chance(500_000) { 5 } else { 3 };
        let late = nodes > voters && dice.chance(500_000);
        let late_ms = late.then(|| calm_ms + dice.below(40_000));
        // Small thresholds in half of the seeds: checkpoints, snapshots and catch-up by snapshot have to happen.
        let small = dice.chance(500_000);
        let latency_us_min = dice.between(50, 500);
        let sync_us_min = dice.between(50, 1_000);
        Self {
            nodes,
            voters,
            late_ms,
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
        }
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
            eventual_keys: dice.between(4, 12),
            slots: dice.between(1, 3) as u16,
            strong_ppm: dice.between(300_000, 700_000),
            hot_ppm: dice.between(50_000, 400_000),
            read_ppm: dice.between(200_000, 500_000),
            session_ppm: dice.between(300_000, 1_000_000),
            large_ppm: dice.between(0, 300_000),
            // Shards of more than one slice of a checkpoint, now and then.
            value_bytes_max: dice.between(100, 8_000) << (2 * u64::from(dice.chance(250_000))),
            operations_min: 200,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_file() {
        for seed in 0..50 {
            let plan = Plan::from_seed(seed);
            assert_eq!(Plan::parse(&plan.to_toml()), Ok(plan.clone()), "seed {seed}");
            assert_eq!(plan, Plan::from_seed(seed));
            assert!(plan.fault_ms >= 60_000);
            assert!(plan.faults.iter().all(|f| f.at_ms + f.for_ms <= plan.heal_ms()));
        }
    }

    #[test]
    fn bits_are_apart_and_each_is_set_in_some_seed() {
        for kind in Kind::ALL {
            let with = (0..200)
                .filter(|seed| Plan::from_seed(*seed).faults.iter().any(|f| f.kind == kind))
                .count();
            assert!((60..140).contains(&with), "{}: {with}", kind.name());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut plan = Plan::from_seed(1);
        plan.cluster.voters = 9;
        assert!(Plan::parse(&plan.to_toml()).is_err());
        let mut plan = Plan::from_seed(1);
        plan.faults.push(Fault {
            kind: Kind::Crash,
            at_ms: 1,
            for_ms: 1,
            nodes: vec![17],
            rate_ppm: 0,
            amount: 0,
        });
        assert!(Plan::parse(&plan.to_toml()).is_err());
        assert!(Plan::parse("seed = 'x'").is_err());
    }
}
