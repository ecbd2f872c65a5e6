//! Random schedules over 3 and 5 replicas: delivery, loss, duplication, reordering, diverging clocks, crashes that lose
//! writes, checkpoints, leadership transfers, learners. The oracles check every step. At the end the network heals and
//! the group must commit again.

use std::collections::BTreeMap;

use continuum_core::config::RaftConfig;
use continuum_core::raft::{Event, Reconfiguration};
use continuum_tests::raft::{Net, configuration, replica};
use proptest::prelude::*;

/// One event of a schedule. Each number is taken modulo the number of candidates.
#[derive(Clone, Debug)]
enum Op {
    Deliver(usize),
    Lose(usize),
    Duplicate(usize),
    Sync(u8, usize),
    Pass(u8, u64),
    PassAll(u64),
    Timeout(u8),
    Crash(u8, usize),
    Restart(u8),
    Propose(u8),
    Read(u8),
    Compact(u8),
    Capture(u8),
    HandOver(u8),
    AddLearner(u8),
    RemoveLearner(u8),
    Isolate(u8),
    Heal,
    Settle,
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0_u8..8;
    prop_oneof![
        20 => any::<usize>().prop_map(Op::Deliver),
        60 => Just(Op::Deliver(0)),
        2 => any::<usize>().prop_map(Op::Lose),
        4 => any::<usize>().prop_map(Op::Duplicate),
        35 => (n.clone(), 1_usize..4).prop_map(|(n, k)| Op::Sync(n, k)),
        2 => (n.clone(), 1_u64..400).prop_map(|(n, ms)| Op::Pass(n, ms)),
        8 => (1_u64..120).prop_map(Op::PassAll),
        1 => n.clone().prop_map(Op::Timeout),
        2 => (n.clone(), 0_usize..3).prop_map(|(n, k)| Op::Crash(n, k)),
        4 => n.clone().prop_map(Op::Restart),
        15 => n.clone().prop_map(Op::Propose),
        5 => n.clone().prop_map(Op::Read),
        3 => n.clone().prop_map(Op::Compact),
        4 => n.clone().prop_map(Op::Capture),
        1 => n.clone().prop_map(Op::HandOver),
        1 => n.clone().prop_map(Op::AddLearner),
        1 => n.clone().prop_map(Op::RemoveLearner),
        2 => n.prop_map(Op::Isolate),
        2 => Just(Op::Heal),
        2 => Just(Op::Settle),
    ]
}

/// A run: the network and the clients' memory.
struct Run {
    net: Net,
    tickets: u64,
    /// For each read, the highest index that any replica had applied when the read began.
    floors: BTreeMap<u64, u64>,
    /// The isolated replica: it neither sends nor receives.
    isolated: u8,
}

impl Run {
    fn new(seed: u64, voters: u8) -> Self {
        let voters: Vec<u8> = (1..=voters).collect();
        let config = RaftConfig {
            // Small bounds make windows fill, batches split and snapshots necessary.
            append_bytes_max: 100,
            inflight_max: 2,
            retained_bytes_max: 100,
            uncommitted_bytes_max: 600,
            ..RaftConfig::default()
        };
        let net = Net::new(seed, &configuration(&voters, &[]), config);
        Self { net, tickets: 0, floors: BTreeMap::new(), isolated: 0 }
    }

    fn node(&self, n: u8) -> u8 {
        let numbers: Vec<u8> = self.net.nodes.keys().copied().collect();
        numbers[usize::from(n) % numbers.len()]
    }

    fn on_wire(&self, at: usize) -> Option<usize> {
        at.checked_rem(self.net.wire.len())
    }

    fn apply(&mut self, op: &Op) {
        self.net.lines.clear();
        match *op {
            Op::Deliver(at) => self.on_wire(at).into_iter().for_each(|at| {
                let envelope = &self.net.wire[at];
                // A stopped message stays on the wire and may arrive very late.
                if ![envelope.from, envelope.to].contains(&self.isolated) {
                    self.net.deliver(at);
                }
            }),
            Op::Lose(at) => self.on_wire(at).into_iter().for_each(|at| {
                self.net.wire.remove(at);
            }),
            Op::Duplicate(at) => {
                let copy = self.on_wire(at).map(|at| self.net.wire[at].clone());
                self.net.wire.extend(copy);
            }
            Op::Isolate(n) => self.isolated = self.node(n),
            Op::PassAll(ms) => self.net.advance(ms),
            Op::Heal => self.isolated = 0,
            Op::Settle => self.net.settle_if(|e| e.from != self.isolated && e.to != self.isolated),
            _ => self.apply_to_node(op),
        }
        self.check_reads();
    }

    fn apply_to_node(&mut self, op: &Op) {
        let (Op::Sync(n, _)
        | Op::Pass(n, _)
        | Op::Timeout(n)
        | Op::Crash(n, _)
        | Op::Restart(n)
        | Op::Propose(n)
        | Op::Read(n)
        | Op::Compact(n)
        | Op::Capture(n)
        | Op::HandOver(n)
        | Op::AddLearner(n)
        | Op::RemoveLearner(n)) = *op
        else {
            return;
        };
        let node = self.node(n);
        if let Op::Restart(_) = op {
            return self.net.restart(node);
        }
        if self.net.nodes[&node].machine.is_none() {
            return;
        }
        self.tickets += 1;
        // Most clients ask the leader.
        let node = match (op, &self.net.leaders()[..]) {
            (Op::Propose(_) | Op::Read(_) | Op::Compact(_), [.., leader]) if n % 4 != 0 => *leader,
            _ => node,
        };
        match *op {
            Op::Sync(_, k) => self.net.sync(node, k),
            Op::Pass(_, ms) => self.net.advance_one(node, ms),
            Op::Timeout(_) => self.net.timeout(node),
            Op::Crash(_, kept) => self.net.crash(node, kept),
            Op::Propose(_) => {
                let command = format!("command {}", self.tickets);
                self.net.propose(node, self.tickets % 1000, &command);
            }
            Op::Read(_) => {
                let ticket = 1000 + self.tickets;
                self.floors.insert(ticket, self.net.oracle.committed() as u64);
                self.net.step(node, Event::Read { ticket });
            }
            Op::Compact(_) => self.net.compact(node),
            Op::Capture(_) => self.net.answer_capture(node, 16),
            Op::HandOver(_) => self.net.step(node, Event::TransferLeadership),
            Op::AddLearner(_) => {
                let learner = 8 + n % 2;
                if !self.net.nodes.contains_key(&learner) {
                    self.net.add(learner);
                }
                self.change(node, Reconfiguration::AddLearner(replica(learner)));
            }
            _ => self.change(node, Reconfiguration::RemoveLearner(replica(8 + n % 2))),
        }
    }

    fn change(&mut self, node: u8, change: Reconfiguration) {
        self.net.step(node, Event::Reconfigure { ticket: self.tickets % 1000, change });
    }

    /// A read ends once, at an index that covers everything committed when it began.
    fn check_reads(&mut self) {
        for process in self.net.nodes.values_mut() {
            for (ticket, end) in process.reads.drain(..) {
                let floor = self.floors.remove(&ticket).expect("a read ends once");
                if let Ok(index) = end {
                    assert!(index.0 >= floor, "read {ticket} at {index} misses entry {floor}");
                }
            }
        }
    }

    /// All replicas run, all messages arrive and clocks advance together, until the group elects a leader and commits.
    fn heal(&mut self) {
        let numbers: Vec<u8> = self.net.nodes.keys().copied().collect();
        numbers.iter().for_each(|n| self.net.restart(*n));
        for _ in 0..400 {
            self.net.settle();
            self.net.advance(50);
            self.check_reads();
            let [leader] = self.net.leaders()[..] else { continue };
            let before = self.net.oracle.committed();
            self.net.propose(leader, 1, "after all");
            self.net.settle();
            let raft = self.net.raft(leader);
            let alike = raft.configuration().voters.iter().all(|voter| {
                let voter = self.net.raft(continuum_tests::raft::number(*voter));
                voter.last() == raft.last()
            });
            if self.net.oracle.committed() > before && alike {
                return;
            }
        }
        panic!("no leader commits after all faults ended");
    }
}

fn run(seed: u64, voters: u8, ops: &[Op]) {
    let mut run = Run::new(seed, voters);
    // A run without a leader tests little, so most runs begin with one.
    if !seed.is_multiple_of(4) {
        run.net.elect(1);
    }
    ops.iter().for_each(|op| run.apply(op));
    run.heal();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn three_replicas_are_safe_and_recover(seed in 0_u64..1000, ops in proptest::collection::vec(op(), 50..600)) {
        run(seed, 3, &ops);
    }

    #[test]
    fn five_replicas_are_safe_and_recover(seed in 0_u64..1000, ops in proptest::collection::vec(op(), 50..600)) {
        run(seed, 5, &ops);
    }
}
