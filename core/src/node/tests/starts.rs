//! The start of a process inside a federation: it is silent until the other voters confirm it. The test speaks for the
//! peers of a process that runs outside the world, on a copy of a host's disk.

use super::*;
use crate::api::{Reason, Unready};
use crate::id::{Boot, GroupId, Lineage, Replica, RequestId};
use crate::limits::{START_GRACE_MS, START_WAIT_MS_MAX};
use crate::machine::{Machine as _, Now, Outbox};
use crate::node::{Action, Event, Node, Refusal};
use crate::raft;
use crate::time::{Instant, WallTime};

const NONCE: u64 = 1234;

/// A process on a copy of a host's disk, its clock, and everything that it sent.
struct Copy {
    node: Node,
    ms: u64,
    sent: Vec<(Replica, Message)>,
    replies: Vec<Outcome>,
    voters: Vec<Replica>,
    /// The processes that run on the voters.
    boots: Vec<Boot>,
}

/// A federation of this many voters whose disks know its namespaces.
fn settled(voters: usize, seed: u64) -> World {
    let mut world = federation(voters, seed);
    world.run(3000);
    world
}

impl Copy {
    /// Starts it from the disk of this host.
    fn of(world: &World, at: usize, voters: usize) -> Self {
        let (writes, files) = world.hosts[at].disk.content();
        let count = world.node(at).boot().count + 1;
        let start = world.start_of(at, Boot { count, nonce: NONCE });
        let node = Node::restore(start, writes, files).expect("the copy restores");
        let voters: Vec<_> = world.hosts[..voters].iter().map(|host| host.replica).collect();
        let boots = (0..voters.len()).map(|at| world.node(at).boot()).collect();
        let mut copy = Self { node, ms: 1, sent: Vec::new(), replies: Vec::new(), voters, boots };
        copy.step(Event::Tick);
        copy
    }

    /// One step. Its writes are durable at once.
    fn step(&mut self, event: Event) {
        let (mut out, mut newest) = (Outbox::new(), None);
        let now = Now { mono: Instant::from_millis(self.ms), wall: WallTime(self.ms) };
        self.node.step(now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Send { to, message, .. } => {
                    let to = self.voters.iter().find(|voter| voter.node == to);
                    self.sent.push((*to.expect("a voter"), message));
                }
                Action::Persist { token, .. } => newest = Some(token),
                Action::Reply { outcome, .. } => self.replies.push(outcome),
                _ => {}
            }
        }
        if let Some(token) = newest {
            self.step(Event::Persisted { token });
        }
    }

    fn wait(&mut self, ms: u64) {
        let end = self.ms + ms;
        while let Some(due) = self.node.deadline().map(|due| due.0.div_ceil(1_000_000))
            && due <= end
        {
            self.ms = self.ms.max(due);
            self.step(Event::Tick);
        }
        self.ms = end;
        self.step(Event::Tick);
    }

    fn link(&mut self, voter: usize) {
        let Replica { node: peer, store } = self.voters[voter];
        let (boot, lineage) = (self.boots[voter], Lineage::default());
        self.step(Event::Connected { peer, store, boot, lineage, version: 1 });
    }

    fn unlink(&mut self, voter: usize) {
        self.step(Event::Unreachable { peer: self.voters[voter].node });
    }

    fn hear(&mut self, voter: usize, message: Message) {
        self.step(Event::Received { from: self.voters[voter].node, message });
    }

    /// The number of its newest question to a voter.
    fn asked(&self, voter: usize) -> Option<AskId> {
        let to = self.voters[voter];
        self.sent.iter().rev().find_map(|(sent_to, message)| match message {
            Message::Confirm(id) if *sent_to == to => Some(*id),
            _ => None,
        })
    }

    fn confirm(&mut self, voter: usize) {
        let id = self.asked(voter).expect("it asked");
        self.hear(voter, Message::Confirmed(id));
    }

    fn refuse(&mut self, voter: usize, refusal: Refusal) {
        let known = Boot { count: self.node.boot().count, nonce: 77 };
        self.hear(voter, Message::Refused { refusal, known });
        self.unlink(voter);
    }

    fn stands(&self) -> bool {
        !self.node.is_suspended()
    }

    /// Whether an eventual write and a vote are acknowledged now; asserts that both are, or neither.
    fn promises(&mut self) -> bool {
        self.replies.clear();
        self.sent.clear();
        self.step(Event::Requested { id: RequestId(1), request: put("notes", "k", "of a copy") });
        let wrote = self.replies.iter().any(is_committed);
        let from = self.voters.iter().rposition(|voter| self.node.peers.is_linked(*voter));
        if let Some(from) = from {
            let term = crate::id::Term(1000);
            let last = raft::Position { term, index: crate::id::Index(1 << 30) };
            let (genesis, group) = (self.node.genesis().expect("formed"), GroupId::REGISTRY);
            let message = raft::Message::PreVote { term, last };
            self.wait(2000);
            self.hear(from, Message::Raft { genesis, group, message });
            let quiet = |message: &Message| {
                matches!(
                    message,
                    Message::Gossip { .. } | Message::Confirm(_) | Message::Confirmed(_)
                )
            };
            let spoke = self.sent.iter().any(|(_, message)| !quiet(message));
            assert_eq!(spoke, wrote, "{:?}", self.sent);
        }
        wrote
    }
}

#[test]
fn a_process_is_silent_until_a_majority_of_the_other_voters_confirms_it() {
    let world = settled(3, 81);
    let mut copy = Copy::of(&world, 1, 3);
    assert!(!copy.promises());
    assert!(copy.node.unready().contains(&Unready::Unconfirmed));
    assert_eq!(
        copy.node.unready().first(),
        Some(&Unready::Unconfirmed),
        "the other reasons follow from it"
    );
    copy.link(0);
    copy.confirm(0);
    assert!(!copy.stands(), "one of two");
    copy.link(2);
    assert!(!copy.stands());
    copy.confirm(2);
    assert!(copy.stands() && copy.ms < 100);
    assert!(copy.promises());
    assert!(!copy.node.unready().contains(&Unready::Unconfirmed));
}

#[test]
fn each_linked_voter_is_waited_for_although_a_majority_confirmed() {
    let world = settled(5, 82);
    let mut copy = Copy::of(&world, 1, 5);
    for voter in [0, 2, 3, 4] {
        copy.link(voter);
    }
    for voter in [0, 2, 3] {
        copy.confirm(voter);
    }
    assert!(!copy.stands(), "the fourth has not answered");
    let mut other = Copy::of(&world, 1, 5);
    for voter in [0, 2, 3] {
        other.link(voter);
        other.confirm(voter);
    }
    assert!(other.stands(), "the fourth is away, and three of four are a majority");
    copy.confirm(4);
    assert!(copy.stands());
}

#[test]
fn an_unconfirmed_process_confirms_others() {
    let world = settled(3, 83);
    let mut copy = Copy::of(&world, 1, 3);
    copy.link(0);
    let id = AskId { nonce: 5, number: 9 };
    copy.hear(0, Message::Confirm(id));
    assert!(!copy.stands());
    assert_eq!(copy.sent.last(), Some(&(copy.voters[0], Message::Confirmed(id))));
}

#[test]
fn a_process_that_reaches_no_voter_stands_after_the_grace() {
    let world = settled(3, 84);
    let mut copy = Copy::of(&world, 1, 3);
    copy.wait(START_GRACE_MS - 200);
    assert!(!copy.promises());
    copy.wait(300);
    assert!(copy.promises());
}

#[test]
fn with_one_of_two_other_voters_away_a_process_stands_after_the_grace() {
    let world = settled(3, 85);
    let mut copy = Copy::of(&world, 1, 3);
    copy.wait(1000);
    copy.link(0);
    copy.refuse(0, Refusal::Linked);
    copy.wait(1000);
    copy.link(0);
    copy.confirm(0);
    copy.wait(START_GRACE_MS - 2100);
    assert!(!copy.stands(), "the other one may come");
    copy.wait(200);
    assert!(copy.stands(), "nobody is waited for that has confirmed");
    assert!(copy.promises());
}

#[test]
fn a_linked_voter_that_is_silent_or_comes_and_goes_delays_a_process_for_a_bounded_time() {
    let world = settled(3, 86);
    let mut copy = Copy::of(&world, 1, 3);
    copy.wait(START_GRACE_MS - 100);
    copy.link(0);
    copy.wait(START_GRACE_MS - 100);
    assert!(!copy.stands(), "the voter may still answer");
    let mut waited = copy.ms;
    while !copy.stands() {
        assert!(waited <= START_WAIT_MS_MAX + 1000, "for ever");
        copy.unlink(0);
        copy.link(0);
        copy.wait(500);
        waited += 500;
    }
    assert!(waited >= START_WAIT_MS_MAX - 1000);
}

#[test]
fn a_copy_is_told_to_wait_and_then_that_it_is_one() {
    let world = settled(3, 87);
    let window = world.config.node.clone_window_ms;
    for voter in [0, 2] {
        let mut copy = Copy::of(&world, 1, 3);
        copy.wait(START_GRACE_MS - 100);
        copy.link(voter);
        copy.refuse(voter, Refusal::Linked);
        copy.wait(window);
        assert!(!copy.stands(), "the voter asks the original");
        copy.link(voter);
        copy.refuse(voter, Refusal::Cloned);
        assert_eq!(copy.node.unready().first(), Some(&Unready::Suspended));
        copy.wait(10 * START_WAIT_MS_MAX);
        assert!(!copy.promises(), "no grace ends evidence");
        let other = 2 - voter;
        copy.link(other);
        copy.refuse(other, Refusal::Cloned);
        assert!(copy.node.is_fenced());
    }
}

#[test]
fn a_restart_that_meets_its_old_link_stands_once_that_is_gone() {
    let world = settled(3, 88);
    let mut restarted = Copy::of(&world, 1, 3);
    for voter in [0, 2] {
        restarted.link(voter);
        restarted.refuse(voter, Refusal::Linked);
    }
    restarted.wait(1000);
    for voter in [0, 2] {
        restarted.link(voter);
        restarted.confirm(voter);
    }
    assert!(restarted.stands());
    let mut alone = Copy::of(&world, 1, 3);
    alone.link(0);
    alone.refuse(0, Refusal::Linked);
    alone.wait(world.config.node.clone_window_ms + START_GRACE_MS + 100);
    assert!(alone.stands(), "the voter is gone, and refused nothing");
}

#[test]
fn two_processes_of_one_disk_that_start_at_once_share_no_majority() {
    let world = settled(3, 89);
    let mut copy = Copy::of(&world, 1, 3);
    copy.link(0);
    copy.confirm(0);
    copy.link(2);
    copy.refuse(2, Refusal::Cloned);
    copy.wait(4 * START_WAIT_MS_MAX);
    assert!(!copy.promises() && !copy.node.is_fenced());
}

#[test]
fn a_copy_of_a_learner_waits_as_well() {
    let mut world = World::new(4, 90);
    world.bootstrap = vec![0];
    bootstrap(&mut world, 3);
    world.run(8000);
    let mut copy = Copy::of(&world, 3, 3);
    assert!(!copy.promises());
    for voter in [0, 1] {
        copy.link(voter);
        copy.refuse(voter, Refusal::Cloned);
    }
    assert!(copy.node.is_fenced());
}

#[test]
fn an_answer_to_another_question_confirms_nothing() {
    let world = settled(3, 91);
    let mut copy = Copy::of(&world, 1, 3);
    for voter in [0, 2] {
        copy.link(voter);
        let id = copy.asked(voter).expect("it asked");
        copy.hear(voter, Message::Confirmed(AskId { nonce: NONCE + 1, ..id }));
        copy.hear(voter, Message::Confirmed(AskId { number: 0, ..id }));
    }
    assert!(!copy.stands());
    // An answer to a question from before a refusal does not take the refusal back.
    let before = copy.asked(0).expect("it asked");
    let known = Boot { count: copy.node.boot().count, nonce: 77 };
    copy.hear(0, Message::Refused { refusal: Refusal::Cloned, known });
    copy.hear(0, Message::Confirmed(before));
    copy.confirm(2);
    assert!(!copy.stands());
    copy.wait(1000);
    copy.confirm(0);
    copy.confirm(2);
    assert!(copy.stands(), "both counted it as linked since");
}

#[test]
fn a_restart_among_live_peers_and_of_all_nodes_is_confirmed_at_once() {
    let mut world = federation(3, 92);
    world.run(2000);
    world.crash(1);
    world.run(50);
    world.start(1);
    world.run(300);
    assert!(!world.node(1).is_suspended());
    assert!(is_committed(&world.ask(1, put("notes", "k", "v"))));
    (0..3).for_each(|at| world.crash(at));
    world.run(10);
    (0..3).for_each(|at| world.start(at));
    world.run(300);
    assert!((0..3).all(|at| !world.node(at).is_suspended()), "each confirms the others");
    world.run(1500);
    assert!(is_committed(&world.ask(1, put("locks", "k", "v"))));
}

#[test]
fn a_node_without_other_voters_never_waits() {
    let mut world = federation(1, 93);
    assert!(!world.node(0).is_suspended());
    world.crash(0);
    world.start(0);
    assert!(!world.node(0).is_unconfirmed());
    let mut world = World::new(3, 94);
    world.run(500);
    (0..3).for_each(|at| world.crash(at));
    (0..3).for_each(|at| world.start(at));
    assert!((0..3).all(|at| !world.node(at).is_suspended()), "none of them is in a federation");
    bootstrap(&mut world, 3);
    assert!((0..3).all(|at| !world.node(at).is_suspended()), "a founding is no start");
}

/// Of three voters one is away, host 2 lost its disk, and host 0 cannot be confirmed.
fn with_a_wiped_voter(seed: u64) -> World {
    let mut world = settled(3, seed);
    for at in 0..3 {
        world.crash(at);
    }
    world.wipe(2);
    world.start(0);
    world.start(2);
    world.run(2500);
    assert!(world.node(0).is_unconfirmed());
    world
}

#[test]
fn no_federation_begins_beside_a_voter_that_waits_for_its_confirmation() {
    let mut world = with_a_wiped_voter(95);
    assert_eq!(world.node(2).unready(), [Unready::StoreReplaced]);
    let found = Request::Init { voters: Vec::new() };
    let Outcome::Rejected(Reason::FederationExists { node, .. }) = world.ask(2, found) else {
        panic!("a second federation");
    };
    assert_eq!(node, world.hosts[0].replica.node);
}

#[test]
fn a_wiped_voter_founds_nothing_once_its_federation_is_out_of_reach() {
    let mut world = with_a_wiped_voter(96);
    world.crash(0);
    world.run(8000);
    assert_eq!(world.node(2).unready(), [Unready::StoreReplaced]);
    let found = || Request::Init { voters: Vec::new() };
    let refused = world.ask(2, found());
    assert!(matches!(refused, Outcome::Rejected(Reason::FederationExists { .. })), "{refused:?}");
    // The operator knows that nothing is left of the federation: a process that nobody told of it may found one.
    world.crash(2);
    world.start(2);
    world.run(100);
    assert!(matches!(world.ask(2, found()), Outcome::Committed { .. } | Outcome::Value(_)));
}
