//! Planted bugs of a process that judges itself: at its start in a federation, and once a voter refuses it. The test
//! speaks for the voters. Each scenario passes without its mutant and fails with it.
//!
//! The active mutant is global to the process, so this file holds a single test.

use std::collections::BTreeMap;

use continuum_core::config::Config;
use continuum_core::id::{
    Address, AskId, Boot, FederationId, GenesisId, GroupId, Index, Lineage, NodeId, Replica,
    StoreId, Term, Token,
};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Message, Node, Refusal, Start};
use continuum_core::raft::{self, Configuration, Position, Write as R};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use continuum_core::wal::Write;

const ME: Replica = replica(1);
const OTHERS: [Replica; 2] = [replica(2), replica(3)];
const LEARNER: Replica = replica(4);
const GENESIS: GenesisId = GenesisId(7);
const BOOT: Boot = Boot { count: 2, nonce: 22 };
/// Another process of this store.
const RIVAL: Boot = Boot { count: 2, nonce: 99 };

const fn replica(number: u8) -> Replica {
    Replica { node: NodeId([number; 16]), store: StoreId([number; 16]) }
}

/// A voter of three that starts again, and the messages of its last step.
struct Voter {
    node: Node,
    ms: u64,
    sent: Vec<(NodeId, Message)>,
}

impl Voter {
    fn start() -> Self {
        let configuration =
            Configuration { voters: vec![ME, OTHERS[0], OTHERS[1]], learners: vec![LEARNER] };
        let group = GroupId::REGISTRY;
        let writes =
            [R::Genesis { configuration, id: GENESIS }, R::Hard { term: Term(1), vote: Some(ME) }];
        let token = |at: usize| Token { lane: 0, seq: at as u64 + 1 };
        let writes = writes.into_iter().enumerate();
        let writes = writes.map(|(at, write)| (token(at), Write::Group { group, write })).collect();
        let start = Start {
            config: Config::default(),
            federation: FederationId([7; 16]),
            replica: ME,
            boot: BOOT,
            seed: Seed::from_number(2),
            name: String::from("one"),
            address: Address("one:1".into()),
        };
        let node = Node::restore(start, writes, BTreeMap::new()).expect("our own records");
        let mut voter = Self { node, ms: 1, sent: Vec::new() };
        voter.step(Event::Tick);
        voter
    }

    /// One step; its writes are durable at once.
    fn step(&mut self, event: Event) {
        let now = Now { mono: Instant::from_millis(self.ms), wall: WallTime(self.ms) };
        let (mut out, mut newest) = (Outbox::new(), None);
        self.node.step(now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Persist { token, .. } => newest = Some(token),
                Action::Send { to, message, .. } => self.sent.push((to, message)),
                _ => {}
            }
        }
        if let Some(token) = newest {
            self.step(Event::Persisted { token });
        }
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.ms += 10;
            self.step(Event::Tick);
        }
    }

    fn link(&mut self, Replica { node: peer, store }: Replica) {
        let (boot, lineage) = (Boot { count: 1, nonce: 9 }, Lineage::default());
        self.step(Event::Connected { peer, store, boot, lineage, version: 1 });
    }

    fn hear(&mut self, from: Replica, message: Message) {
        self.step(Event::Received { from: from.node, message });
    }

    /// A peer answers the newest question.
    fn confirm(&mut self, from: Replica) {
        let asked = self.sent.iter().rev().find_map(|(_, message)| match message {
            Message::Confirm(id) => Some(*id),
            _ => None,
        });
        let id = asked.unwrap_or(AskId { nonce: BOOT.nonce, number: 1 });
        self.hear(from, Message::Confirmed(id));
    }

    fn refuse(&mut self, from: Replica, refusal: Refusal) {
        self.hear(from, Message::Refused { refusal, known: RIVAL });
    }

    /// Both other voters count it as linked.
    fn stand(&mut self) {
        for other in OTHERS {
            self.link(other);
            self.confirm(other);
        }
        assert!(self.answers_a_candidate(), "it was confirmed");
    }

    /// Whether it answers a candidate, which is a promise.
    fn answers_a_candidate(&mut self) -> bool {
        self.sent.clear();
        self.link(OTHERS[0]);
        let last = Position { term: Term(1000), index: Index(1000) };
        let message = raft::Message::PreVote { term: Term(1001), last };
        self.hear(OTHERS[0], Message::Raft { genesis: GENESIS, group: GroupId::REGISTRY, message });
        self.sent.iter().any(|(_, message)| matches!(message, Message::Raft { .. }))
    }
}

fn a_process_that_starts_promises_nothing_unconfirmed() {
    let mut voter = Voter::start();
    assert!(!voter.answers_a_candidate());
}

fn each_linked_voter_is_asked() {
    let mut voter = Voter::start();
    voter.link(OTHERS[0]);
    voter.link(OTHERS[1]);
    voter.confirm(OTHERS[0]);
    assert!(!voter.answers_a_candidate());
}

fn a_voter_that_asks_another_process_is_waited_for() {
    let mut voter = Voter::start();
    voter.link(OTHERS[0]);
    voter.refuse(OTHERS[0], Refusal::Linked);
    voter.step(Event::Unreachable { peer: OTHERS[0].node });
    voter.wait(4000);
    assert!(!voter.answers_a_candidate());
}

fn a_voters_evidence_silences_a_process() {
    let mut voter = Voter::start();
    voter.stand();
    voter.refuse(OTHERS[1], Refusal::Cloned);
    assert!(!voter.answers_a_candidate());
}

fn one_voter_alone_fences_no_process() {
    let mut voter = Voter::start();
    voter.stand();
    voter.refuse(OTHERS[1], Refusal::Cloned);
    assert!(!voter.node.is_fenced());
}

fn a_learners_word_confirms_no_process() {
    let mut voter = Voter::start();
    voter.link(LEARNER);
    voter.link(OTHERS[0]);
    voter.confirm(OTHERS[0]);
    voter.confirm(LEARNER);
    assert!(!voter.answers_a_candidate());
}

const SCENARIOS: &[(&str, fn())] = &[
    ("node.doubt.goes_on", a_voters_evidence_silences_a_process),
    ("node.doubt.learner_counts", a_learners_word_confirms_no_process),
    ("node.doubt.one_is_enough", one_voter_alone_fences_no_process),
    ("node.start.linked_is_no", a_voter_that_asks_another_process_is_waited_for),
    ("node.start.one_is_enough", each_linked_voter_is_asked),
    ("node.start.unconfirmed_serves", a_process_that_starts_promises_nothing_unconfirmed),
];

#[test]
fn each_scenario_fails_with_its_mutant_and_passes_without() {
    continuum_tests::mutants::expose(SCENARIOS);
}
