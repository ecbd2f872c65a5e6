//! Every kind of message from every standing, into real nodes; and how little strangers and members can make a node do.

use super::*;
use crate::api::{Bootstrap, Reason};
use crate::digest::{Digest, Hasher};
use crate::gossip::{self, Body, Incarnation, State, Update};
use crate::id::{
    Address, AskId, Boot, Contact, GenesisId, GroupId, Index, Lineage, NodeId, Replica, Role,
    ShardId, StoreId, Term,
};
use crate::machine::Machine;
use crate::node::standing::{Kind, Standing};
use crate::node::{Event, Founding, Notice, Refusal};
use crate::raft::{self, Configuration, Position, SnapshotHeader};
use crate::replication::{self, Dots, PullError, View};

const LOCKS: GroupId = GroupId(1);
const STRANGER: Replica = Replica { node: NodeId([77; 16]), store: StoreId([77; 16]) };

/// A message of a kind, in the name of `from`. Its numbers are as large as the machines allow.
fn sample(kind: Kind, from: Replica, group: GroupId, genesis: GenesisId) -> Message {
    if let Some(message) = of_raft(kind) {
        return Message::Raft { genesis, group, message };
    }
    if let Some(message) = of_replication(kind) {
        return Message::Replication { genesis, message };
    }
    if let Some(body) = of_gossip(kind) {
        let boot = Boot { count: 9, nonce: 9 };
        let sender = Update {
            replica: from,
            incarnation: Incarnation { boot, refutations: 1 },
            state: State::Alive,
            address: address(0),
            confirmations: vec![],
        };
        let (updates, loads) = (vec![], vec![]);
        let message = gossip::Message { body, sender: sender.into(), updates, loads };
        return Message::Gossip { genesis, message };
    }
    let id = AskId { nonce: 3, number: 1 << 40 };
    let contact = Contact { node: None, address: Address("victim:1".to_string()) };
    let list = Bootstrap { genesis, members: vec![], voters: 0 };
    match kind {
        Kind::Offer => Message::Founding(Founding::Offer(list.clone())),
        Kind::Accepted => Message::Founding(Founding::Accepted(genesis)),
        Kind::Declined => {
            Message::Founding(Founding::Declined { genesis, reason: Reason::AlreadyFormed })
        }
        Kind::Asked => Message::Founding(Founding::Asked { genesis, founder: from }),
        Kind::Aborted => Message::Founding(Founding::Aborted(genesis)),
        Kind::Formed => Message::Founding(Founding::Formed(list.clone())),
        Kind::Acknowledged => Message::Founding(Founding::Acknowledged(genesis)),
        Kind::Genesis => Message::Genesis { genesis: Some(genesis), replaced: None },
        Kind::Contacts => Message::Contacts(vec![contact]),
        Kind::Answer => Message::Answer { id, outcome: Outcome::Value(Value::Initialized) },
        Kind::Refused => refusal(),
        Kind::Confirm => Message::Confirm(id),
        Kind::Confirmed => Message::Confirmed(id),
        kind => Message::Forward { id, open: 1, request: request(kind, from) },
    }
}

fn refusal() -> Message {
    Message::Refused { refusal: Refusal::Cloned, known: Boot { count: 1, nonce: 2 } }
}

fn of_raft(kind: Kind) -> Option<raft::Message> {
    use raft::Message as M;
    let (term, index) = (Term(1 << 61), Index(1 << 61));
    let position = Position { term, index };
    let header = SnapshotHeader {
        position,
        time_ms: 0,
        configuration: Configuration { voters: vec![STRANGER], learners: vec![] },
        digest: Digest::of(b"x"),
        length: 1,
    };
    let data = Bytes::from_static(b"x");
    Some(match kind {
        Kind::PreVote => M::PreVote { term, last: position },
        Kind::PreVoteReply => M::PreVoteReply { term, granted: true },
        Kind::Vote => M::Vote { term, last: position, leadership_transfer: true },
        Kind::VoteReply => M::VoteReply { term, granted: true },
        Kind::Append => M::Append { term, prev: position, commit: index, entries: vec![] },
        Kind::AppendAck => M::AppendAck { term, matched: position },
        Kind::AppendRejected => M::AppendRejected { term, refused: index, hint: position },
        Kind::Heartbeat => M::Heartbeat { term, commit: index, round: 1 },
        Kind::HeartbeatAck => M::HeartbeatAck { term, round: 1 },
        Kind::StaleTerm => M::StaleTerm { term },
        Kind::SnapshotOffer => M::SnapshotOffer { term, header },
        Kind::SnapshotChunk => M::SnapshotChunk { term, position, offset: 0, data },
        Kind::SnapshotAck => M::SnapshotAck { term, position, bytes: Some(1) },
        Kind::TimeoutNow => M::TimeoutNow { term, transfer_excluded: vec![] },
        Kind::ReadIndex => M::ReadIndex { id: 1 },
        Kind::ReadIndexReply => M::ReadIndexReply { id: 1, index: Some(index) },
        Kind::SnapshotRefused => M::SnapshotRefused { term, position, corrupt: false },
        _ => return None,
    })
}

fn of_replication(kind: Kind) -> Option<replication::Message> {
    use replication::Message as M;
    let (shard, round) = (ShardId::default(), 1);
    let root = Digest::of(b"another");
    Some(match kind {
        Kind::Delta => M::Delta { shard, writes: vec![Bytes::from_static(b"x")] },
        Kind::Ack => M::Ack { shard, held: Dots::default(), bytes: 1 },
        Kind::Compare => M::Compare { shard, root },
        Kind::Same => M::Same { shard, root },
        Kind::Differ => M::Differ { shard },
        Kind::Pull => M::Pull {
            shard,
            round,
            context: Dots::default(),
            spans: vec![],
            refused: Dots::default(),
        },
        Kind::Page => M::Page { shard, round, writes: vec![] },
        Kind::View => M::View { shard, round, view: View::default().into() },
        Kind::PullRefused => M::Refused { shard, round, why: PullError::Malformed },
        Kind::Summary => M::Summary(replication::Summary::Whole(root)),
        _ => return None,
    })
}

fn of_gossip(kind: Kind) -> Option<Body> {
    Some(match kind {
        Kind::Ping => Body::Ping { number: 1 },
        Kind::PingRequest => Body::PingRequest { number: 1, target: STRANGER.node },
        Kind::PingAck => Body::Ack { number: 1 },
        Kind::PingNack => Body::Nack { number: 1 },
        Kind::Updates => Body::Updates,
        Kind::PushMembers => Body::Push { after: None, upto: None },
        Kind::PullMembers => Body::Pull { after: None, upto: None },
        _ => return None,
    })
}

fn request(kind: Kind, from: Replica) -> Request {
    let (name, session) = ("forged".to_string(), None);
    match kind {
        Kind::ForwardInit => Request::Init { voters: vec![] },
        Kind::ForwardJoin => {
            Request::Join { replica: from, address: address(8), name, genesis: None }
        }
        Kind::ForwardStatus => Request::Status,
        Kind::ForwardMembers => Request::Members,
        Kind::ForwardNamespaces => Request::Namespaces,
        Kind::ForwardCreate => Request::CreateNamespace { name, policy: Policy::Strong, session },
        Kind::ForwardDelete => Request::DeleteNamespace { name, session },
        Kind::ForwardRotate => Request::RotateKey { session },
        Kind::ForwardRead => get("locks", "k"),
        Kind::ForwardWrite => put("locks", "k", "forged"),
        other => panic!("{other:?} has no sample"),
    }
}

fn digest(world: &World, at: usize) -> Digest {
    let mut hash = Hasher::new();
    world.node(at).digest(&mut hash);
    hash.finish()
}

fn connect(world: &mut World, at: usize, peer: Replica) {
    let boot = Boot { count: 1, nonce: 77 };
    let Replica { node, store } = peer;
    let lineage = Lineage::default();
    world.step(at, Event::Connected { peer: node, store, boot, lineage, version: 1 });
}

/// The reasons for which the table refused messages at a host, and forgets them.
fn refusals(world: &mut World, at: usize) -> usize {
    let notices = core::mem::take(&mut world.hosts[at].notices);
    let by_table = |notice: &Notice| match notice {
        Notice::Rejected { why, .. } => Kind::REASONS.contains(why),
        _ => false,
    };
    notices.iter().filter(|notice| by_table(notice)).count()
}

/// A group that no node has.
const CLOSED: GroupId = GroupId(99);

/// Three voters and a learner.
fn peopled() -> World {
    let mut world = World::new(4, 71);
    world.bootstrap = vec![0];
    bootstrap(&mut world, 3);
    world.run(8000);
    world
}

#[test]
fn a_refused_message_of_any_kind_and_standing_changes_nothing() {
    let mut world = peopled();
    connect(&mut world, 0, STRANGER);
    let voter = (1..3).find(|at| world.node(*at).raft(LOCKS).is_some()).expect("a voter");
    let senders = [
        (STRANGER, LOCKS, Standing::Stranger),
        (world.hosts[3].replica, CLOSED, Standing::Member),
        (world.hosts[3].replica, LOCKS, Standing::Learner),
        (world.hosts[voter].replica, LOCKS, Standing::Voter),
    ];
    let genesis = world.node(0).genesis().expect("formed");
    let mut taken = Vec::new();
    let mut refused = 0;
    for (from, group, standing) in senders {
        // The node has heard of the sender at this very moment, and of its genesis.
        let message = raft::Message::PreVoteReply { term: Term(0), granted: false };
        let message = Message::Raft { genesis, group: GroupId(98), message };
        world.step(0, Event::Received { from: from.node, message });
        for kind in Kind::ALL {
            let message = sample(*kind, from, group, genesis);
            assert_eq!(Kind::of(&message), *kind);
            let standing = match message {
                Message::Raft { .. } => standing,
                _ => standing.max(world.node(0).standing(from)),
            };
            if kind.judge(standing, true, false).is_ok() {
                taken.push((from, message));
                continue;
            }
            refusals(&mut world, 0);
            let before = digest(&world, 0);
            world.step(0, Event::Received { from: from.node, message });
            assert_eq!(digest(&world, 0), before, "{kind:?} of {standing:?}");
            // A member may have opened a group before this node, so its messages are no offence.
            let is_early = group == CLOSED && kind.name().starts_with("raft");
            let told = usize::from(!is_early);
            assert_eq!(refusals(&mut world, 0), told, "{kind:?} of {standing:?}");
            refused += 1;
        }
    }
    assert!(refused > 50 && taken.len() > 60, "{refused} refused, {} taken", taken.len());
    for (from, message) in taken {
        let kind = Kind::of(&message);
        world.step(0, Event::Received { from: from.node, message });
        assert_eq!(refusals(&mut world, 0), 0, "{kind:?} of {from:?}");
    }
}

#[test]
fn a_node_outside_any_federation_takes_no_word_of_a_stranger() {
    let mut world = World::new(1, 72);
    connect(&mut world, 0, STRANGER);
    let mut taken = Vec::new();
    for kind in Kind::ALL {
        let message = sample(*kind, STRANGER, LOCKS, GenesisId(7));
        if kind.judge(Standing::Stranger, false, false).is_ok() {
            taken.push(message);
            continue;
        }
        refusals(&mut world, 0);
        world.step(0, Event::Received { from: STRANGER.node, message: message.clone() });
        let before = digest(&world, 0);
        world.step(0, Event::Received { from: STRANGER.node, message });
        assert_eq!(digest(&world, 0), before, "{kind:?}");
        assert_eq!(refusals(&mut world, 0), 2, "{kind:?}");
    }
    for message in taken {
        world.step(0, Event::Received { from: STRANGER.node, message });
    }
    // It was not asked to be let in, because nobody looked for it.
    world.run(5000);
    assert!(!world.node(0).is_formed());
}

/// The index of the last entry of group 0.
fn last(world: &World) -> u64 {
    world.node(0).raft(GroupId::REGISTRY).expect("formed").last().index.0
}

fn join(world: &mut World, from: Replica, to: usize, replica: Replica, number: u64) {
    let request = Request::Join {
        replica,
        address: Address(number.to_string()),
        name: "x".to_string(),
        genesis: None,
    };
    let message = Message::Forward { id: AskId { nonce: 77, number }, open: number, request };
    world.step(to, Event::Received { from: from.node, message });
}

#[test]
fn nobody_lets_others_in() {
    let mut world = peopled();
    let before = last(&world);
    for from in [1, 3] {
        let from = world.hosts[from].replica;
        for to in 0..3 {
            join(&mut world, from, to, STRANGER, 1 << 40);
        }
    }
    world.run(2000);
    assert_eq!(last(&world), before);
    assert_eq!(world.node(0).members().len(), 4);
}

#[test]
fn a_flood_of_joins_stores_little_and_dials_little() {
    let mut world = peopled();
    let leads = |at: &usize| {
        let raft = world.node(*at).raft(GroupId::REGISTRY).expect("formed");
        raft.role() == Role::Leader
    };
    let leader = (0..3).find(leads).expect("a leader");
    let before = last(&world);
    for number in 0..200_u16 {
        let mut node = [number as u8; 16];
        node[1] = 200;
        let peer = Replica { node: NodeId(node), store: StoreId(node) };
        connect(&mut world, leader, peer);
        for change in 0..10 {
            join(&mut world, peer, leader, peer, 1 + u64::from(number) * 100 + change);
        }
    }
    world.run(1000);
    let logged = last(&world) - before;
    // Each member takes two entries: its own, and the configuration that has it as a learner.
    assert!((1..=150).contains(&logged), "{logged} entries");
    assert!(world.node(0).members().len() <= 4 + 64);
    assert!(is_committed(&world.ask(0, put("locks", "k", "v"))));
}

#[test]
fn a_node_that_knows_only_a_follower_is_sent_to_the_leader() {
    for follower in 0..3 {
        let mut world = World::new(3, 74 + follower as u64);
        bootstrap(&mut world, 3);
        world.run(1000);
        world.bootstrap = vec![follower];
        world.add_host(4);
        world.run(8000);
        assert!(world.node(3).is_formed(), "by {follower}");
        assert!(is_committed(&world.ask(3, put("locks", "k", "v"))));
        let reason = Outcome::Rejected(Reason::AlreadyFormed);
        let replica = world.hosts[3].replica;
        let (address, name) = (address(3), "n".to_string());
        assert_eq!(world.ask(3, Request::Join { replica, address, name, genesis: None }), reason);
    }
}

#[test]
fn a_strangers_contacts_are_not_dialled() {
    let mut world = peopled();
    connect(&mut world, 0, STRANGER);
    let contact = |n: u16| Contact { node: None, address: Address(n.to_string()) };
    let known = world.node(0).discovery().known();
    for round in 0..20 {
        let contacts = (0..64).map(|n| contact(round * 64 + n)).collect();
        let message = Message::Contacts(contacts);
        world.step(0, Event::Received { from: STRANGER.node, message });
        world.run(1100);
    }
    assert_eq!(world.node(0).discovery().known(), known);
}
