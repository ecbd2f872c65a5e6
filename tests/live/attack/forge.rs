//! Forged messages of every kind: what a peer could say of groups, shards, members and requests that is not so.
//!
//! The list of kinds is checked against the protocol: a kind that a forgery lacks fails a test.

use bytes::Bytes;
use continuum_core::api::{
    Bootstrap, Change, Edit, Level, MemberInfo, Mutation, Outcome, Policy, Query, Reason, Receipt,
    Request, Value,
};
use continuum_core::digest::Digest;
use continuum_core::id::{
    Actor, Address, AskId, Boot, Contact, Dot, GenesisId, GroupId, Index, NamespaceId, NodeId,
    Replica, ShardId, StoreId, Term,
};
use continuum_core::node::{Founding, Message, Plane, Refusal};
use continuum_core::raft::{self, Configuration, Entry, Payload, Position, SnapshotHeader};
use continuum_core::replication::{self, Dots, PullError, Ranges, Span, View};
use continuum_core::state::{Command, Operation};
use continuum_core::{codec, gossip};
use serde::Serialize;

use crate::federation::Node;

/// The facts that an attacker knows of its victim, mostly from the victim's own status.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) me: Replica,
    pub(crate) boot: Boot,
    /// The beginning of the victim's federation.
    pub(crate) genesis: GenesisId,
    /// The victim's groups: number, term, commit and last index.
    pub(crate) groups: Vec<(GroupId, Term, Index, Index)>,
    pub(crate) shards: Vec<ShardId>,
    /// All members, and the boots that are known of them.
    pub(crate) members: Vec<(Replica, Boot)>,
}

/// A message and the plane on which it is sent.
pub(crate) type Forged = (Plane, Message);

/// How far a forger goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every message.
    All,
    /// Without what only a voter may say and nobody can check: that it leads a later term, or that the last term of all
    /// has begun. Raft trusts its voters.
    Voter,
}

/// The value of every forged write. No honest client writes it.
pub(crate) const FORGED: &str = "forged";

impl Facts {
    /// Asks the victim, and all members that run, about themselves.
    pub(crate) fn of(victim: &Node, others: &[&Node], me: Replica, boot: Boot) -> Self {
        let status = victim.status();
        let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
        let small = |value: &serde_json::Value| u32::try_from(number(value)).unwrap_or_default();
        let groups = list("groups").into_iter().map(|group| {
            let (term, commit) = (Term(number(&group["term"])), Index(number(&group["commit"])));
            (GroupId(small(&group["group"])), term, commit, Index(number(&group["last"])))
        });
        let shards = list("shards").into_iter().map(|shard| ShardId {
            namespace: NamespaceId(small(&shard["namespace"])),
            slot: u16::try_from(number(&shard["slot"])).unwrap_or_default(),
        });
        let members = others.iter().filter_map(|node| {
            Some((Replica { node: node.id, store: node.store()? }, node.boot()?))
        });
        let (groups, shards, members) = (groups.collect(), shards.collect(), members.collect());
        let genesis = status["genesis"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok());
        let genesis = GenesisId(genesis.unwrap_or_default());
        Self { me, boot, genesis, groups, shards, members }
    }

    /// Forgeries of every kind.
    pub(crate) fn forgeries(&self, reach: Reach) -> Vec<Forged> {
        let mut all = Vec::new();
        for (group, term, commit, last) in &self.groups {
            for forged_term in terms(*term) {
                let is_later = forged_term > *term;
                let may_say = |message: &raft::Message| match reach {
                    Reach::All => true,
                    Reach::Voter => {
                        forged_term != LAST_TERM && !(is_later && claims_to_lead(message))
                    }
                };
                let messages = self.raft(forged_term, *term, *commit, *last);
                let messages = messages.into_iter().filter(may_say);
                all.extend(messages.map(|message| raft_message(self, *group, message)));
            }
        }
        all.extend(
            self.raft(Term(1), Term(1), Index(1), Index(1))
                .into_iter()
                .map(|message| raft_message(self, GroupId(999), message)),
        );
        let unknown = ShardId { namespace: NamespaceId(999), slot: 3 };
        for shard in self.shards.iter().copied().chain([unknown]) {
            all.extend(
                self.replication(shard)
                    .into_iter()
                    .map(|message| replication_message(self, message)),
            );
        }
        all.extend(self.gossip().into_iter().map(|message| gossip_message(self, message)));
        all.extend(self.node());
        all
    }

    fn raft(&self, term: Term, now: Term, commit: Index, last: Index) -> Vec<raft::Message> {
        use raft::Message as M;
        let tail = Position { term: now, index: last };
        let far = Position { term, index: Index(u64::MAX) };
        let transfers = [false, true].map(|leadership_transfer| M::Vote {
            term,
            last: far,
            leadership_transfer,
        });
        let mut all = vec![
            M::PreVote { term, last: far },
            M::PreVoteReply { term, granted: true },
            M::VoteReply { term, granted: true },
            M::AppendAck { term, matched: far },
            M::AppendAck { term, matched: Position { term: now, index: last.next() } },
            M::AppendRejected { term, refused: last, hint: Position::default() },
            M::AppendRejected { term, refused: Index(u64::MAX), hint: far },
            M::Heartbeat { term, commit: Index(u64::MAX), round: u64::MAX },
            M::Heartbeat { term, commit: last, round: 1 },
            M::HeartbeatAck { term, round: u64::MAX },
            M::StaleTerm { term },
            M::SnapshotAck { term, position: far, bytes: Some(u64::MAX) },
            M::SnapshotAck { term, position: tail, bytes: None },
            M::SnapshotRefused { term, position: tail, corrupt: false },
            M::TimeoutNow { term, transfer_excluded: Vec::new() },
            M::ReadIndex { id: term.0 },
            M::ReadIndexReply { id: term.0, index: Some(Index(u64::MAX)) },
        ];
        all.extend(transfers);
        let entry = |payload| Entry { term, time_ms: u64::MAX, payload };
        for payload in self.payloads() {
            let at = |prev: Position| M::Append {
                term,
                prev,
                commit: Index(prev.index.0.saturating_add(1)),
                entries: vec![entry(payload.clone())],
            };
            all.extend(
                [Position::default(), Position { term: now, index: commit }, tail, far].map(at),
            );
        }
        all.extend(self.snapshot(term, Position { term, index: Index(last.0 + 10) }));
        all
    }

    /// Payloads of forged entries: a write, garbage, a configuration of the forger alone, and nothing.
    fn payloads(&self) -> Vec<Payload> {
        let sole = Configuration { voters: vec![self.me], learners: Vec::new() };
        vec![
            Payload::Command(forged_command()),
            Payload::Command(Bytes::from_static(&[0xff; 19])),
            Payload::Configuration(sole),
            Payload::Noop,
        ]
    }

    /// A snapshot of 19 bytes that are no state, with their right digest: the offer and its one chunk.
    pub(crate) fn snapshot(&self, term: Term, position: Position) -> [raft::Message; 2] {
        let data = Bytes::from_static(&[0xff; 19]);
        let mut voters: Vec<Replica> = self.members.iter().map(|(replica, _)| *replica).collect();
        voters.push(self.me);
        voters.sort_unstable();
        let header = SnapshotHeader {
            position,
            time_ms: 1,
            configuration: Configuration { voters, learners: Vec::new() },
            digest: Digest::of(&data),
            length: data.len() as u64,
        };
        [
            raft::Message::SnapshotOffer { term, header },
            raft::Message::SnapshotChunk { term, position, offset: 0, data },
        ]
    }

    fn replication(&self, shard: ShardId) -> Vec<replication::Message> {
        use replication::Message as M;
        let garbage = Bytes::from_static(&[0xff; 64]);
        let claims = |actor: Actor| (actor, Ranges::span(1, 1 << 40));
        let actors =
            self.members.iter().map(|(replica, boot)| Actor { replica: *replica, boot: *boot });
        let all_held = Dots::new(actors.map(claims).collect());
        let view = View { context: all_held.clone(), ..View::default() };
        let root = Digest::of(b"another root");
        let author = self.members.first().copied().unwrap_or((self.me, self.boot));
        let author = Actor { replica: author.0, boot: author.1 };
        let mut all = vec![
            M::Delta { shard, writes: vec![mutated_put(shard, author)] },
            M::Delta { shard, writes: vec![garbage.clone()] },
            M::Delta { shard, writes: vec![Bytes::new(), Bytes::from_static(&[1; 33])] },
            M::Ack { shard, held: all_held.clone(), bytes: u64::MAX },
            M::Compare { shard, root },
            M::Same { shard, root },
            M::Differ { shard },
            M::Summary(replication::Summary::Whole(root)),
            M::Summary(replication::Summary::Blocks(vec![u64::MAX; 256])),
            M::Summary(replication::Summary::Roots(vec![(shard, root); 513])),
            M::Pull {
                shard,
                round: u64::MAX,
                context: all_held,
                refused: Dots::default(),
                spans: Vec::<Span>::new(),
            },
            M::Page { shard, round: 1, writes: vec![garbage] },
            M::View { shard, round: 1, view: Box::new(view) },
        ];
        let refusals = [PullError::ContextTooLarge, PullError::Malformed];
        all.extend(refusals.map(|why| M::Refused { shard, round: 1, why }));
        all
    }

    fn gossip(&self) -> Vec<gossip::Message> {
        use gossip::{Body, State};
        let update =
            |replica: Replica, boot: Boot, refutations: u64, state: State| gossip::Update {
                replica,
                incarnation: gossip::Incarnation { boot, refutations },
                state,
                address: Address("127.0.0.1:9".into()),
                confirmations: Vec::new(),
            };
        let sender = update(self.me, self.boot, 0, State::Alive);
        let target = self.members.first().map_or(self.me.node, |(replica, _)| replica.node);
        let bodies = [
            Body::Ping { number: 1 },
            Body::PingRequest { number: 2, target },
            Body::Ack { number: u64::MAX },
            Body::Nack { number: 3 },
            Body::Updates,
            Body::Push { after: None, upto: None },
            Body::Pull { after: Some(NodeId([0xff; 16])), upto: Some(NodeId::default()) },
        ];
        // All others are dead, have left, or run a process that nobody started.
        let lies = [State::Dead, State::Left, State::Suspect, State::Alive].map(|state| {
            let of = |(replica, boot): &(Replica, Boot)| update(*replica, *boot, 1000, state);
            self.members.iter().map(of).collect::<Vec<_>>()
        });
        let load =
            gossip::Load { node: target, boot: self.boot, version: u64::MAX, requests: u32::MAX };
        let mut all = Vec::new();
        for body in bodies {
            for lie in &lies {
                let (sender, updates) = (sender.clone().into(), lie.clone());
                all.push(gossip::Message { body, sender, updates, loads: vec![load] });
            }
        }
        all
    }

    fn node(&self) -> Vec<Forged> {
        let mut all = vec![(Plane::Control, Message::Contacts(contacts(["127.0.0.1:9".into()])))];
        // Of the victim's genesis, and of one that nobody founded.
        for genesis in [self.genesis, GenesisId(self.genesis.0 ^ 1)] {
            all.extend(self.founding(genesis));
        }
        for (number, request) in self.requests().into_iter().enumerate() {
            let id = AskId { nonce: self.boot.nonce, number: 5000 + number as u64 };
            all.push((Plane::Control, Message::Forward { id, open: 0, request }));
        }
        for number in 0..64 {
            let outcome = outcomes()[number % outcomes().len()].clone();
            // Every second one names the nonce of a process that may have asked.
            let asked = self.members.iter().cycle().nth(number);
            let nonce = asked.filter(|_| number % 2 == 0).map_or(0, |(_, boot)| boot.nonce);
            let id = AskId { nonce, number: number as u64 };
            all.push((Plane::Control, Message::Answer { id, outcome }));
            all.push((Plane::Control, Message::Confirm(id)));
            all.push((Plane::Control, Message::Confirmed(id)));
        }
        all.extend(refusals(self));
        all
    }

    /// The messages of a founder, of a first voter and of a node of another federation.
    fn founding(&self, genesis: GenesisId) -> Vec<Forged> {
        let list = bootstrap_list(genesis, self.me, &self.members);
        let founder = self.members.first().map_or(self.me, |(replica, _)| *replica);
        let foundings = [
            Founding::Offer(list.clone()),
            Founding::Accepted(genesis),
            Founding::Declined { genesis, reason: Reason::Busy },
            Founding::Asked { genesis, founder },
            Founding::Aborted(genesis),
            Founding::Formed(list),
            Founding::Acknowledged(genesis),
        ];
        let foundings = foundings.map(Message::Founding).into_iter();
        let replaced = Some(self.me.store);
        let said = [None, Some(genesis)].map(|genesis| Message::Genesis { genesis, replaced });
        foundings.chain(said).map(|message| (Plane::Control, message)).collect()
    }

    /// Requests that no client sent. A member may forward writes, so none here changes a row's data.
    fn requests(&self) -> Vec<Request> {
        let namespace = "attack".to_owned();
        let key = Bytes::from_static(b"k");
        vec![
            Request::Init { voters: vec![Address("127.0.0.1:9".into())] },
            join_request(Replica { node: NodeId([5; 16]), store: StoreId([5; 16]) }, "127.0.0.1:9"),
            Request::Status,
            Request::Members,
            Request::Namespaces,
            Request::CreateNamespace { name: "X Y".into(), policy: Policy::Strong, session: None },
            Request::DeleteNamespace { name: namespace.clone(), session: None },
            Request::Read {
                namespace: namespace.clone(),
                query: Query::Record { key: key.clone() },
            },
            Request::Write {
                namespace,
                mutations: vec![mutation(key)],
                level: Level::Replicated(u8::MAX),
                session: None,
            },
        ]
    }
}

/// The last term that a group reaches.
const LAST_TERM: Term = Term(1 << 62);

/// Terms around the victim's own, and at the ends.
fn terms(now: Term) -> [Term; 6] {
    [Term(0), now, Term(now.0 + 1), Term(now.0 + 1000), LAST_TERM, Term(u64::MAX)]
}

const fn claims_to_lead(message: &raft::Message) -> bool {
    use raft::Message as M;
    matches!(
        message,
        M::Append { .. }
            | M::Heartbeat { .. }
            | M::SnapshotOffer { .. }
            | M::SnapshotChunk { .. }
            | M::TimeoutNow { .. }
    )
}

fn mutation(key: Bytes) -> Mutation {
    let change = Change::Put(Bytes::from_static(FORGED.as_bytes()));
    Mutation { key, edits: vec![Edit { field: Bytes::new(), change }], context: None }
}

/// A command that a state machine would apply.
pub(crate) fn forged_command() -> Bytes {
    let operation = Operation::Write { mutations: vec![mutation(Bytes::from_static(b"acct"))] };
    Command { session: None, operation }.encode().expect("a short command")
}

/// Every kind of outcome.
fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Committed { level: Level::Durable, receipt: Receipt::default() },
        Outcome::Value(Value::Initialized),
        Outcome::Rejected(Reason::UnknownNamespace),
        Outcome::Unknown { reached: None },
    ]
}

/// Contacts at these addresses.
pub(crate) fn contacts(addresses: impl IntoIterator<Item = String>) -> Vec<Contact> {
    let contact = |address| Contact { node: None, address: Address(address) };
    addresses.into_iter().map(contact).collect()
}

pub(crate) fn raft_message(facts: &Facts, group: GroupId, message: raft::Message) -> Forged {
    (Plane::Control, Message::Raft { genesis: facts.genesis, group, message })
}

pub(crate) fn replication_message(facts: &Facts, message: replication::Message) -> Forged {
    (Plane::Bulk, Message::Replication { genesis: facts.genesis, message })
}

fn gossip_message(facts: &Facts, message: gossip::Message) -> Forged {
    (Plane::Control, Message::Gossip { genesis: facts.genesis, message })
}

/// A bootstrap list that names the sender and the receivers as first voters.
fn bootstrap_list(genesis: GenesisId, me: Replica, members: &[(Replica, Boot)]) -> Bootstrap {
    let info = |replica: Replica| MemberInfo {
        replica,
        address: Address("127.0.0.1:9".into()),
        name: "forged".into(),
    };
    let mut members: Vec<MemberInfo> = members.iter().map(|(replica, _)| info(*replica)).collect();
    members.truncate(6);
    members.push(info(me));
    let voters = members.len() as u8;
    Bootstrap { genesis, members, voters }
}

/// Words that would end a process if it believed them. Their evidence is a boot that nobody saw, or one close to the
/// boot of a member: the victim is among them.
pub(crate) fn refusals(facts: &Facts) -> Vec<Forged> {
    let mut evidence = vec![Boot { count: u64::MAX, nonce: 1 }];
    for (_, boot) in &facts.members {
        let other = boot.nonce ^ 1;
        evidence.push(*boot);
        evidence.push(Boot { nonce: other, ..*boot });
        evidence.push(Boot { count: boot.count + 1, nonce: other });
    }
    let words = [Refusal::StaleBoot, Refusal::Cloned, Refusal::Forked, Refusal::Linked];
    let say = |refusal| {
        let word = move |known| (Plane::Control, Message::Refused { refusal, known });
        evidence.iter().copied().map(word).collect::<Vec<_>>()
    };
    words.into_iter().flat_map(say).collect()
}

/// A request to join as this replica.
pub(crate) fn join_request(replica: Replica, address: &str) -> Request {
    let (address, name) = (Address(address.into()), "forged".into());
    Request::Join { replica, address, name, genesis: None }
}

/// A put that its author never made, sealed as the author would seal it.
pub(crate) fn sealed_put(shard: ShardId, dot: Dot, key: &str, stamp: u64) -> Bytes {
    #[derive(Serialize)]
    enum Operation<'a> {
        Put(&'a str),
    }
    let nothing: &[u8] = &[];
    let edits: &[_] = &[("", Operation::Put(FORGED), nothing, nothing, nothing)];
    let actors: &[Actor] = &[];
    let body = codec::encode(&(shard.namespace, shard.slot, dot, key, stamp, actors, edits));
    [&[1][..], &Digest::of(&body).0, &body].concat().into()
}

/// A write of a member with one bit of its value flipped.
fn mutated_put(shard: ShardId, actor: Actor) -> Bytes {
    let sealed = sealed_put(shard, Dot { actor, seq: 1 << 20 }, "mutated", 1);
    let mut bytes = sealed.to_vec();
    if let Some(byte) = bytes.iter_mut().rev().nth(5) {
        *byte ^= 1;
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn facts() -> Facts {
        let replica = |byte| Replica { node: NodeId([byte; 16]), store: StoreId([byte; 16]) };
        let boot = Boot { count: 2, nonce: 7 };
        Facts {
            me: replica(9),
            boot,
            genesis: GenesisId(5),
            groups: vec![(GroupId(0), Term(3), Index(8), Index(9))],
            shards: vec![ShardId { namespace: NamespaceId(2), slot: 0 }],
            members: vec![(replica(1), boot), (replica(2), boot)],
        }
    }

    /// The names of variants, as far as `of` gives them.
    fn names(of: impl Fn(&Message) -> Option<String>) -> BTreeSet<String> {
        let all = facts().forgeries(Reach::All);
        let names = all.iter().filter_map(|(_, message)| of(message));
        names.map(|text| text.split([' ', '(', '{']).next().unwrap_or_default().into()).collect()
    }

    #[test]
    fn forgeries_have_every_kind() {
        assert_eq!(names(|m| Some(format!("{m:?}"))).len(), Message::KINDS as usize);
        let raft = names(|m| {
            if let Message::Raft { message, .. } = m { Some(format!("{message:?}")) } else { None }
        });
        assert_eq!(raft.len(), 17, "{raft:?}");
        let replication = names(|m| {
            if let Message::Replication { message, .. } = m {
                Some(format!("{message:?}"))
            } else {
                None
            }
        });
        assert_eq!(replication.len(), 10, "{replication:?}");
        let gossip = names(|m| {
            if let Message::Gossip { message, .. } = m {
                Some(format!("{:?}", message.body))
            } else {
                None
            }
        });
        assert_eq!(gossip.len(), 7, "{gossip:?}");
        let asked = names(|m| {
            if let Message::Forward { request, .. } = m {
                Some(format!("{request:?}"))
            } else {
                None
            }
        });
        assert_eq!(asked.len(), 9, "{asked:?}");
        let answered = names(|m| {
            if let Message::Answer { outcome, .. } = m {
                Some(format!("{outcome:?}"))
            } else {
                None
            }
        });
        assert_eq!(answered.len(), 4, "{answered:?}");
    }

    #[test]
    fn every_forgery_decodes_as_it_was_meant() {
        for (_, message) in facts().forgeries(Reach::All) {
            let bytes = codec::encode(&message);
            assert_eq!(Message::decode(&bytes, bytes.len()), Ok(message));
        }
    }

    #[test]
    fn a_voter_claims_no_later_term() {
        let claims = |reach| {
            let all = facts().forgeries(reach);
            let later = all.iter().filter(|(_, message)| {
                let Message::Raft { group: GroupId(0), message, .. } = message else {
                    return false;
                };
                claims_to_lead(message) && message.term() > Some(Term(3))
            });
            later.count()
        };
        assert!(claims(Reach::All) > 0);
        assert_eq!(claims(Reach::Voter), 0);
    }

    #[test]
    fn a_forged_write_is_one_and_a_mutated_one_is_none() {
        let shard = ShardId { namespace: NamespaceId(2), slot: 0 };
        let dot = Dot { actor: Actor::default(), seq: 4 };
        let read = replication::inspect(&sealed_put(shard, dot, "k", 5)).expect("a write");
        assert_eq!((read.shard, read.dot, &read.key[..], read.stamp), (shard, dot, &b"k"[..], 5));
        assert_eq!(replication::inspect(&mutated_put(shard, dot.actor)), None);
        assert!(Command::decode(&forged_command()).is_ok());
    }
}
