//! Planted bugs of a process that judges itself: at its start in a federation or outside any, and once a voter refuses
//! it. The test speaks for the voters. Each scenario passes without its mutant and fails with it.
//!
//! The active mutant is global to the process, so this file holds a single test.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::{Bootstrap, MemberInfo, Outcome, Reason, Request, Unready};
use continuum_core::config::Config;
use continuum_core::id::{
    Address, AskId, Boot, FederationId, GenesisId, GroupId, Index, Lineage, NodeId, Replica,
    RequestId, StoreId, Term, Token,
};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::node::{Action, Event, Founding, Message, Node, Refusal, Start};
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
    /// The nodes to which the driver keeps a link.
    routed: BTreeSet<NodeId>,
    /// The answers to clients.
    replies: Vec<Outcome>,
}

impl Voter {
    fn start() -> Self {
        let voters = vec![ME, OTHERS[0], OTHERS[1]];
        Self::start_in(Configuration { voters, learners: vec![LEARNER] })
    }

    fn start_in(configuration: Configuration) -> Self {
        Self::start_from(&[
            R::Genesis { configuration, id: GENESIS },
            R::Hard { term: Term(1), vote: None },
        ])
    }

    fn start_from(writes: &[R]) -> Self {
        let group = GroupId::REGISTRY;
        let token = |at: usize| Token { lane: 0, seq: at as u64 + 1 };
        let writes = writes.iter().cloned().enumerate();
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
        let mut voter =
            Self { node, ms: 1, sent: Vec::new(), routed: BTreeSet::new(), replies: Vec::new() };
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
                Action::Route { peer, address: Some(_) } => drop(self.routed.insert(peer)),
                Action::Route { peer, address: None } => drop(self.routed.remove(&peer)),
                Action::Reply { outcome, .. } => self.replies.push(outcome),
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

fn an_answer_to_another_process_is_none() {
    let mut voter = Voter::start();
    voter.stand();
    let message = raft::Message::Heartbeat { term: Term(2), commit: Index(0), round: 1 };
    voter.hear(OTHERS[0], Message::Raft { genesis: GENESIS, group: GroupId::REGISTRY, message });
    let request = Request::RotateKey { session: None };
    voter.step(Event::Requested { id: RequestId(1), request });
    let asked = voter.sent.iter().find_map(|(_, message)| match message {
        Message::Forward { id, .. } => Some(*id),
        _ => None,
    });
    let AskId { nonce, number } = asked.expect("it asks its leader");
    let outcome = Outcome::Rejected(Reason::Busy);
    let of_another = Message::Answer { id: AskId { nonce: nonce ^ 1, number }, outcome };
    voter.hear(OTHERS[0], of_another);
    assert_eq!(voter.replies, []);
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

fn a_process_in_doubt_says_that_it_is_in_a_federation() {
    let mut voter = Voter::start();
    voter.link(replica(9));
    let says = |(_, message): &(NodeId, Message)| {
        matches!(message, Message::Genesis { genesis: Some(GENESIS), .. })
    };
    assert!(voter.node.is_unconfirmed() && voter.sent.iter().any(says));
}

fn a_learner_that_hears_no_leader_is_not_ready() {
    let mut learner =
        Voter::start_in(Configuration { voters: OTHERS.to_vec(), learners: vec![ME] });
    learner.link(OTHERS[0]);
    let message = raft::Message::Heartbeat { term: Term(2), commit: Index(0), round: 1 };
    learner.hear(OTHERS[0], Message::Raft { genesis: GENESIS, group: GroupId::REGISTRY, message });
    let misses_a_leader = |learner: &Voter| learner.node.unready().contains(&Unready::NoLeader);
    assert!(!misses_a_leader(&learner));
    learner.wait(5000);
    assert!(misses_a_leader(&learner));
}

fn an_aborted_founding_leaves_nobody_to_dial() {
    let mut fresh = Voter::start_from(&[]);
    fresh.link(OTHERS[0]);
    let member =
        |replica| MemberInfo { replica, address: Address("x:1".into()), name: String::new() };
    let members = [ME, OTHERS[0], OTHERS[1]].map(member).into();
    let offer = Founding::Offer(Bootstrap { genesis: GENESIS, members, voters: 3 });
    fresh.hear(OTHERS[0], Message::Founding(offer));
    assert!(fresh.routed.contains(&OTHERS[1].node));
    fresh.hear(OTHERS[0], Message::Founding(Founding::Aborted(GENESIS)));
    assert!(!fresh.routed.contains(&OTHERS[1].node));
}

fn a_wiped_voter_founds_nothing_beside_its_federation() {
    let mut wiped = Voter::start_from(&[]);
    wiped.link(OTHERS[0]);
    let replaced = Some(StoreId([77; 16]));
    wiped.hear(OTHERS[0], Message::Genesis { genesis: Some(GENESIS), replaced });
    wiped.step(Event::Unreachable { peer: OTHERS[0].node });
    wiped.step(Event::Requested { id: RequestId(1), request: Request::Init { voters: vec![] } });
    wiped.wait(2000);
    assert_eq!(wiped.node.genesis(), None);
}

const SCENARIOS: &[(&str, fn())] = &[
    ("node.forward.of_other_boot", an_answer_to_another_process_is_none),
    ("node.founding.beside_earlier", a_wiped_voter_founds_nothing_beside_its_federation),
    ("node.founding.dials_on", an_aborted_founding_leaves_nobody_to_dial),
    ("node.learner.ready_alone", a_learner_that_hears_no_leader_is_not_ready),
    ("node.doubt.goes_on", a_voters_evidence_silences_a_process),
    ("node.doubt.hides_genesis", a_process_in_doubt_says_that_it_is_in_a_federation),
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
