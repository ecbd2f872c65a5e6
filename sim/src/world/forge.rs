//! Forged messages: what a holder of a certificate could say that is not so, one form for each kind of message.
//!
//! A form takes what its victim knows and makes it wrong: terms up to the largest, entries that nobody proposed,
//! snapshots of garbage with the right digest, writes that nobody made, deaths of living members, addresses of nobody.
//! This module sends nothing, and judges nothing (`hostile_node` does both).
//!
//! A member may write into eventual memory, and its word about its own disk is believed. So what a learner forges there
//! is its own: keys that begin with [`OWN_KEY`], and authors that no process is. It names no numbers of other processes
//! as seen, because a member that does so deletes what they wrote, except the last one that there is.

use bytes::Bytes;
use continuum_core::api::{
    Bootstrap, Change, Edit, Level, MemberInfo, Mutation, Outcome, Policy, Query, Reason, Receipt,
    Request, Value,
};
use continuum_core::codec;
use continuum_core::digest::Digest;
use continuum_core::gossip;
use continuum_core::id::{
    Actor, Address, AskId, Boot, Contact, Dot, GenesisId, GroupId, Index, NodeId, Replica, ShardId,
    StoreId, Term,
};
use continuum_core::limits::{SEQ_MAX, STAMP_MAX};
use continuum_core::node::{Founding, Message, Refusal};
use continuum_core::raft::{self, Configuration, Entry, Payload, Position, SnapshotHeader};
use continuum_core::replication::{self, Dots, PullError, Ranges, View};
use continuum_core::state::{Command, Operation};
use serde::Serialize;

use crate::oracle::bounded_dials::STRANGERS_ADDRESS;
use crate::rng::{Dice, mix};

/// The first bytes of each key that a hostile node writes. No client writes such a key.
pub(crate) const OWN_KEY: &[u8] = b"hostile";

/// The first bytes of each address that a hostile member makes up.
const MEMBERS_ADDRESS: &str = "hostile:";

/// A node that nobody ever started. No word of another node makes it a member.
pub(crate) const NOBODY: Replica = Replica { node: NodeId([0xee; 16]), store: StoreId([0xee; 16]) };

/// The first number of a forged request: no honest process gets that far.
const FIRST_NUMBER: u64 = 1 << 45;

/// Authors that one hostile node makes up: the table of authors of a shard is bounded.
const AUTHORS: u64 = 3;

/// The number of forms: one for each kind of message.
pub(crate) const FORMS: u64 = RAFT + REPLICATION + GOSSIP + FOUNDING + REQUESTS + OTHER;
const RAFT: u64 = 17;
const REPLICATION: u64 = 10;
const GOSSIP: u64 = 7;
const FOUNDING: u64 = 7;
const REQUESTS: u64 = 10;
const OTHER: u64 = 6;

/// The facts that a forger knows of its victim.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The forger, and the process that its link proved.
    pub(crate) me: Replica,
    pub(crate) boot: Boot,
    /// Whether the forger is a member.
    pub(crate) is_member: bool,
    pub(crate) victim: Replica,
    pub(crate) genesis: GenesisId,
    /// A group of the victim.
    pub(crate) group: GroupId,
    pub(crate) term: Term,
    pub(crate) commit: Position,
    pub(crate) last: Position,
    pub(crate) configuration: Configuration,
    /// A shard of the victim, and the root of a replica that holds nothing there.
    pub(crate) shard: ShardId,
    /// All nodes and their present processes.
    pub(crate) nodes: Vec<(Replica, Boot)>,
    /// The number of the forgery.
    pub(crate) k: u64,
}

/// A number at `near`, around it, far above it, or the largest.
fn number(dice: &mut Dice, near: u64) -> u64 {
    match dice.below(6) {
        0 => near,
        1 => near.saturating_add(1),
        2 => near.saturating_sub(1),
        3 => near.saturating_add(1 << dice.below(62)),
        4 => 1 << dice.below(64),
        _ => u64::MAX,
    }
}

impl Facts {
    /// The forged message of a form.
    pub(crate) fn message(&self, form: u64, dice: &mut Dice) -> Message {
        let genesis = self.genesis;
        let mut form = form % FORMS;
        if form < RAFT {
            let message = self.raft(form, dice);
            // Sometimes of a group that the victim does not have.
            let group = if dice.below(16) == 0 { GroupId(u32::MAX - 1) } else { self.group };
            return Message::Raft { genesis, group, message };
        }
        form -= RAFT;
        if form < REPLICATION {
            return Message::Replication { genesis, message: self.replication(form, dice) };
        }
        form -= REPLICATION;
        if form < GOSSIP {
            return Message::Gossip { genesis, message: self.gossip(form, dice) };
        }
        form -= GOSSIP;
        if form < FOUNDING {
            return Message::Founding(self.founding(form, dice));
        }
        form -= FOUNDING;
        if form < REQUESTS {
            return self.forward(form, dice);
        }
        self.other(form - REQUESTS, dice)
    }

    /// An address at which nobody is.
    fn address(&self, number: u64) -> Address {
        let prefix = if self.is_member { MEMBERS_ADDRESS } else { STRANGERS_ADDRESS };
        Address(format!("{prefix}{}.{number}", self.k))
    }

    fn raft(&self, form: u64, dice: &mut Dice) -> raft::Message {
        use raft::Message as M;
        let term = Term(number(dice, self.term.0));
        let index = |dice: &mut Dice| Index(number(dice, self.last.index.0));
        let position = Position { term, index: index(dice) };
        let position = if dice.below(3) == 0 { self.last } else { position };
        let granted = dice.below(4) > 0;
        match form {
            0 => M::PreVote { term, last: position },
            1 => M::PreVoteReply { term, granted },
            2 => M::Vote { term, last: position, leadership_transfer: granted },
            3 => M::VoteReply { term, granted },
            4 => self.append(term, dice),
            5 => M::AppendAck { term, matched: position },
            6 => M::AppendRejected { term, refused: index(dice), hint: position },
            7 => M::Heartbeat { term, commit: index(dice), round: number(dice, 1) },
            8 => M::HeartbeatAck { term, round: number(dice, self.last.index.0) },
            9 => M::StaleTerm { term },
            10 => M::SnapshotOffer { term, header: self.snapshot(position, dice) },
            11 => M::SnapshotChunk { term, position, offset: 0, data: garbage() },
            12 => {
                let bytes = granted.then(|| number(dice, 1 << 10));
                M::SnapshotAck { term, position, bytes }
            }
            13 => M::TimeoutNow { term, transfer_excluded: Vec::new() },
            14 => M::ReadIndex { id: dice.bits() },
            15 => M::ReadIndexReply { id: dice.bits(), index: granted.then(|| index(dice)) },
            _ => {
                let position = Position { term, ..position };
                M::SnapshotRefused { term, position, corrupt: granted }
            }
        }
    }

    fn append(&self, term: Term, dice: &mut Dice) -> raft::Message {
        let payload = match dice.below(4) {
            0 => Payload::Command(garbage()),
            1 => Payload::Noop,
            2 => {
                let voters = vec![self.me];
                Payload::Configuration(Configuration { voters, learners: Vec::new() })
            }
            _ => Payload::Command(command()),
        };
        let far = Position { term, index: Index(number(dice, self.last.index.0)) };
        let prev = *dice.pick(&[self.last, self.commit, Position::default(), far]);
        let commit = Index(prev.index.0.saturating_add(dice.below(3)));
        let entries = vec![Entry { term, time_ms: number(dice, 0), payload }];
        raft::Message::Append { term, prev, commit, entries }
    }

    /// A snapshot of bytes that are no state, with their right digest.
    fn snapshot(&self, position: Position, dice: &mut Dice) -> SnapshotHeader {
        let data = garbage();
        SnapshotHeader {
            position,
            time_ms: number(dice, 0),
            configuration: self.configuration.clone(),
            digest: Digest::of(&data),
            length: number(dice, data.len() as u64),
        }
    }

    fn replication(&self, form: u64, dice: &mut Dice) -> replication::Message {
        use replication::Message as M;
        let unknown = ShardId { slot: u16::MAX, ..self.shard };
        let shard = if dice.below(16) == 0 { unknown } else { self.shard };
        let own = (self.actor(0), Ranges::span(1, 1 + dice.below(1 << 40)));
        let claims = |(replica, boot): &(Replica, Boot)| {
            (Actor { replica: *replica, boot: *boot }, Ranges::span(1, 1 << 40))
        };
        let root = Digest::of(&dice.bits().to_le_bytes());
        let round = dice.bits();
        match form {
            0 => M::Delta { shard, writes: self.writes(shard, dice) },
            1 => {
                let held = Dots::new(self.nodes.iter().map(claims).collect());
                M::Ack { shard, held, bytes: number(dice, 1 << 10) }
            }
            2 => M::Compare { shard, root },
            3 => M::Same { shard, root },
            4 => M::Differ { shard },
            5 => {
                let context = Dots::new(self.nodes.iter().map(claims).chain([own]).collect());
                let refused = Dots::default();
                M::Pull { shard, round, context, refused, spans: Vec::new() }
            }
            6 => M::Page { shard, round, writes: self.writes(shard, dice) },
            7 => {
                let context = Dots::new(vec![own]);
                let view = View { totals: vec![dice.bits()], context, ..View::default() };
                M::View { shard, round, view: Box::new(view) }
            }
            8 => M::Summary(self.summary(shard, root, dice)),
            _ => M::Refused { shard, round, why: PullError::ContextTooLarge },
        }
    }

    /// A lie about all shards at once.
    fn summary(&self, shard: ShardId, root: Digest, dice: &mut Dice) -> replication::Summary {
        use replication::Summary as S;
        match dice.below(4) {
            0 => S::Whole(root),
            1 => S::Equal(root),
            2 => S::Blocks((0..dice.below(300)).map(|_| dice.bits()).collect()),
            _ => S::Roots(vec![(shard, root); dice.below(600) as usize]),
        }
    }

    /// An author that no process is: one of the forger's, or of another node's.
    fn actor(&self, which: u64) -> Actor {
        let replica = if which == AUTHORS - 1 { self.victim } else { self.me };
        Actor { replica, boot: Boot { count: u64::MAX - which, nonce: which } }
    }

    /// The last number of a present process, which some forged writes name as overwritten under their own key. No
    /// process ever gets there, so it deletes nothing; the process must number its next writes below it.
    fn last_of(&self, content: u64) -> Option<Dot> {
        let (replica, boot) = self.nodes[(content >> 8) as usize % self.nodes.len()];
        let actor = Actor { replica, boot };
        (content.is_multiple_of(8) && replica != self.me).then_some(Dot { actor, seq: SEQ_MAX })
    }

    /// Writes that nobody made, and bytes that are no write.
    fn writes(&self, shard: ShardId, dice: &mut Dice) -> Vec<Bytes> {
        let mut actor = self.actor(dice.below(AUTHORS));
        let seq = match dice.below(4) {
            0 => 1 + dice.below(8),
            1 => SEQ_MAX - dice.below(3),
            _ => number(dice, 1 << 20),
        };
        // One dot has one content. Below the very top, which has no stamp above it: in a discarding shard nothing could
        // be written again.
        let content = mix(seq ^ actor.boot.nonce << 56);
        let stamp = 1 + ((content % (STAMP_MAX - (1 << 32))) >> (content % 24));
        let key = format!("hostile{}", content % 4);
        let put = (key.as_str(), &*format!("forged{content}"));
        let overwritten = self.last_of(content);
        // A write that names another process is another write, so it has another author.
        actor.boot.nonce ^= overwritten.map_or(0, |dot| dot.actor.boot.nonce);
        let sealed = sealed_put(shard, Dot { actor, seq }, put, stamp, overwritten);
        let mut altered = sealed.to_vec();
        let at = dice.below(altered.len() as u64) as usize;
        altered[at] ^= 1 << dice.below(8);
        match dice.below(6) {
            0 => vec![garbage()],
            1 => vec![altered.into()],
            2 => vec![sealed, garbage(), altered.into()],
            _ => vec![sealed],
        }
    }

    fn gossip(&self, form: u64, dice: &mut Dice) -> gossip::Message {
        use gossip::{Body, State};
        let (target, _) = *dice.pick(&self.nodes);
        let number_of_probe = number(dice, 1);
        let body = match form {
            0 => Body::Ping { number: number_of_probe },
            1 => Body::PingRequest { number: number_of_probe, target: target.node },
            2 => Body::Ack { number: number_of_probe },
            3 => Body::Nack { number: number_of_probe },
            4 => Body::Updates,
            5 => Body::Push { after: None, upto: None },
            _ => Body::Pull { after: Some(NodeId([0xff; 16])), upto: Some(NodeId::default()) },
        };
        let state = *dice.pick(&[State::Dead, State::Left, State::Suspect, State::Alive]);
        let address = self.address(0);
        let others = self.nodes.iter().filter(|(replica, _)| *replica != self.me);
        let update = |replica, boot, refutations, state, address| gossip::Update {
            replica,
            incarnation: gossip::Incarnation { boot, refutations },
            state,
            address,
            confirmations: vec![self.me.node, NOBODY.node],
        };
        let mut updates = Vec::new();
        for (replica, boot) in others {
            let near = dice.below(4);
            let refutations = number(dice, near);
            let count = number(dice, boot.count);
            // Mostly of the process that runs.
            let boot = if dice.below(3) == 0 { Boot { count, nonce: dice.bits() } } else { *boot };
            updates.push(update(*replica, boot, refutations, state, address.clone()));
        }
        updates.push(update(NOBODY, self.boot, 0, state, address.clone()));
        let own = self.nodes.iter().position(|(replica, _)| *replica == self.me);
        let honest = own.map_or(address, crate::env::process::address_of);
        // A process that its link did not prove says nothing.
        let other = Boot { count: u64::MAX, nonce: self.k };
        let boot = if dice.below(4) == 0 { other } else { self.boot };
        let sender = update(self.me, boot, 0, State::Alive, honest);
        let load = gossip::Load {
            node: target.node,
            boot: self.boot,
            version: number(dice, 1),
            requests: u32::MAX,
        };
        gossip::Message { body, sender: sender.into(), updates, loads: vec![load] }
    }

    fn founding(&self, form: u64, dice: &mut Dice) -> Founding {
        let other = GenesisId(self.genesis.0 ^ dice.bits());
        let genesis = if dice.below(2) == 0 { self.genesis } else { other };
        let info = |replica: Replica| MemberInfo {
            replica,
            address: self.address(0),
            name: "forged".to_owned(),
        };
        let members = [self.me, self.victim, NOBODY].map(info).to_vec();
        let list = Bootstrap { genesis, members, voters: 3 };
        match form {
            0 => Founding::Offer(list),
            1 => Founding::Accepted(genesis),
            2 => Founding::Declined { genesis, reason: Reason::Busy },
            3 => Founding::Asked { genesis, founder: *dice.pick(&[self.me, self.victim, NOBODY]) },
            4 => Founding::Aborted(genesis),
            5 => Founding::Formed(list),
            _ => Founding::Acknowledged(genesis),
        }
    }

    /// A request that no client sent. A member may forward requests, so its own change nothing of others.
    fn forward(&self, form: u64, dice: &mut Dice) -> Message {
        let name = |name: &str, of_member: &str| {
            if self.is_member { of_member.to_owned() } else { name.to_owned() }
        };
        let key = Bytes::from_static(OWN_KEY);
        let address = self.address(0);
        let (other, _) = *dice.pick(&self.nodes);
        let replica = if other == self.me || dice.below(2) == 0 { NOBODY } else { other };
        let namespace = (*dice.pick(&["strong", "siblings", "discard", "nowhere"])).to_owned();
        let request = match form {
            0 => Request::Init { voters: vec![address] },
            1 => {
                let (name, genesis) = ("hostile".to_owned(), None);
                Request::Join { replica, address, name, genesis }
            }
            2 => Request::Status,
            3 => Request::Members,
            4 => Request::Namespaces,
            5 => {
                let (name, policy) = (name("taken", "No Name"), Policy::Strong);
                Request::CreateNamespace { name, policy, session: None }
            }
            6 => Request::DeleteNamespace { name: name("siblings", "nowhere"), session: None },
            7 => Request::Read { namespace, query: Query::Record { key } },
            8 => {
                let value = format!("forged{}.{}", self.k, dice.bits());
                let mutations = vec![own_mutation(key, value.into())];
                let level = Level::Replicated(u8::MAX);
                Request::Write { namespace, mutations, level, session: None }
            }
            // A member may replace the key that seals contexts.
            _ if self.is_member => Request::Status,
            _ => Request::RotateKey { session: None },
        };
        let number = FIRST_NUMBER.saturating_add(number(dice, self.k));
        let id = AskId { nonce: self.boot.nonce, number };
        let open = if self.is_member { 1 } else { number };
        Message::Forward { id, open, request }
    }

    fn other(&self, form: u64, dice: &mut Dice) -> Message {
        let (replica, boot) = *dice.pick(&self.nodes);
        // Every second one names the nonce of a process that may have asked.
        let nonce = if dice.below(2) == 0 { boot.nonce } else { dice.bits() };
        let id = AskId { nonce, number: FIRST_NUMBER.saturating_add(number(dice, self.k)) };
        match form {
            0 => {
                let genesis = *dice.pick(&[None, Some(self.genesis), Some(GenesisId(1))]);
                Message::Genesis { genesis, replaced: Some(replica.store) }
            }
            1 => {
                let number = dice.below(100);
                let contact = |n| Contact { node: None, address: self.address(n) };
                Message::Contacts((0..number).map(contact).collect())
            }
            2 => Message::Answer { id, outcome: outcome(dice) },
            3 => {
                let refusal = *dice.pick(&[
                    Refusal::StaleBoot,
                    Refusal::Cloned,
                    Refusal::Forked,
                    Refusal::Linked,
                ]);
                let later = Boot { count: number(dice, boot.count), nonce: boot.nonce ^ 1 };
                Message::Refused { refusal, known: later }
            }
            4 => Message::Confirm(id),
            _ => Message::Confirmed(id),
        }
    }
}

fn garbage() -> Bytes {
    Bytes::from_static(&[0xff; 19])
}

fn own_mutation(key: Bytes, value: Bytes) -> Mutation {
    let change = Change::Put(value);
    Mutation { key, edits: vec![Edit { field: Bytes::new(), change }], context: None }
}

/// A command that a state machine would apply.
fn command() -> Bytes {
    let mutations = vec![own_mutation(Bytes::from_static(OWN_KEY), garbage())];
    let command = Command { session: None, operation: Operation::Write { mutations } };
    command.encode().unwrap_or_else(|_| garbage())
}

fn outcome(dice: &mut Dice) -> Outcome {
    match dice.below(4) {
        0 => Outcome::Committed { level: Level::Durable, receipt: Receipt::default() },
        1 => Outcome::Value(Value::Initialized),
        2 => Outcome::Rejected(Reason::UnknownNamespace),
        _ => Outcome::Unknown { reached: None },
    }
}

/// A put that its author never made, sealed as the author would seal it. It names `unseen` as overwritten.
fn sealed_put(
    shard: ShardId,
    dot: Dot,
    (key, value): (&str, &str),
    stamp: u64,
    unseen: Option<Dot>,
) -> Bytes {
    #[derive(Serialize)]
    enum Operation<'a> {
        Put(&'a str),
    }
    let nothing: &[u8] = &[];
    // The table of other authors counts from 1.
    let named: Vec<(u32, u64)> = unseen.iter().map(|unseen| (1, unseen.seq)).collect();
    let edits: &[_] = &[("", Operation::Put(value), nothing, named, nothing)];
    let actors: Vec<Actor> = unseen.iter().map(|unseen| unseen.actor).collect();
    let body = codec::encode(&(shard.namespace, shard.slot, dot, key, stamp, actors, edits));
    [&[1][..], &Digest::of(&body).0, &body].concat().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use continuum_core::id::NamespaceId;

    use super::*;
    use crate::format::shard;
    use crate::rng::{Draws, stream};

    fn facts(is_member: bool) -> Facts {
        let replica = |byte| Replica { node: NodeId([byte; 16]), store: StoreId([byte; 16]) };
        let boot = Boot { count: 2, nonce: 7 };
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        let voters = vec![replica(1), replica(2)];
        Facts {
            me: replica(9),
            boot,
            is_member,
            victim: replica(1),
            genesis: GenesisId(5),
            group: GroupId(0),
            term: Term(3),
            commit: at(3, 8),
            last: at(3, 9),
            configuration: Configuration { voters, learners: Vec::new() },
            shard: ShardId { namespace: NamespaceId(2), slot: 0 },
            nodes: vec![(replica(1), boot), (replica(2), boot)],
            k: 11,
        }
    }

    /// Many forgeries of each form.
    fn all(is_member: bool) -> Vec<Message> {
        let facts = facts(is_member);
        let mut dice = Draws::new(1).dice(stream("forge.test", 0));
        (0..FORMS * 40).map(|form| facts.message(form, &mut dice)).collect()
    }

    fn names<'a, T: std::fmt::Debug>(of: impl Iterator<Item = T> + 'a) -> BTreeSet<String> {
        let name = |item: T| {
            let text = format!("{item:?}");
            text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
        };
        of.map(name).collect()
    }

    #[test]
    fn every_kind_is_forged() {
        for is_member in [false, true] {
            let all = all(is_member);
            let each = || all.iter();
            assert_eq!(names(each()).len(), Message::KINDS as usize);
            let raft = each().filter_map(|m| match m {
                Message::Raft { message, .. } => Some(message),
                _ => None,
            });
            assert_eq!(names(raft).len(), 17);
            let replication = each().filter_map(|m| match m {
                Message::Replication { message, .. } => Some(message),
                _ => None,
            });
            assert_eq!(names(replication).len(), 10);
            let gossip = each().filter_map(|m| match m {
                Message::Gossip { message, .. } => Some(message.body),
                _ => None,
            });
            assert_eq!(names(gossip).len(), 7);
            let founding = each().filter_map(|m| match m {
                Message::Founding(message) => Some(message),
                _ => None,
            });
            assert_eq!(names(founding).len(), 7);
            let asked = each().filter_map(|m| match m {
                Message::Forward { request, .. } => Some(request),
                _ => None,
            });
            // A member may rotate the key, so that a member forges nothing with it.
            assert_eq!(names(asked).len(), if is_member { 9 } else { 10 });
            let answered = each().filter_map(|m| match m {
                Message::Answer { outcome, .. } => Some(outcome),
                _ => None,
            });
            assert_eq!(names(answered).len(), 4);
        }
    }

    #[test]
    fn forgeries_decode_and_reach_the_largest_numbers() {
        let all = all(true);
        for message in &all {
            let bytes = codec::encode(message);
            assert_eq!(Message::decode(&bytes, bytes.len()).as_ref(), Ok(message));
        }
        let term = |message: &Message| match message {
            Message::Raft { message, .. } => message.term(),
            _ => None,
        };
        assert!(all.iter().filter_map(term).any(|term| term == Term(u64::MAX)));
        let boots = all.iter().filter_map(|message| match message {
            Message::Gossip { message, .. } => {
                message.updates.iter().map(|update| update.incarnation.boot.count).max()
            }
            _ => None,
        });
        assert_eq!(boots.max(), Some(u64::MAX));
    }

    #[test]
    fn a_member_writes_its_own_keys_only() {
        let all = all(true);
        let mut sound = 0;
        for message in &all {
            let Message::Replication { message, .. } = message else { continue };
            let (replication::Message::Delta { writes, .. }
            | replication::Message::Page { writes, .. }) = message
            else {
                continue;
            };
            for record in writes {
                let write = replication::inspect(record);
                let read = match shard::read(record) {
                    Some(shard::Record::Write(read, None)) => Some(read),
                    _ => None,
                };
                let said = |dot, key: &[u8], stamp| (dot, key.to_vec(), stamp);
                let by_core = write.as_ref().map(|write| said(write.dot, &write.key, write.stamp));
                let by_format = read.map(|read| said(read.dot, &read.key, read.stamp));
                assert_eq!(by_core, by_format, "both readers say the same");
                let Some(write) = write else { continue };
                sound += 1;
                assert!(write.key.starts_with(OWN_KEY));
                assert!(write.dot.actor.boot.count >= u64::MAX - AUTHORS);
            }
        }
        assert!(sound > 10, "{sound} writes are sound");
    }
}
