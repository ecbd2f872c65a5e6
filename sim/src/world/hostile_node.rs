//! Hostile nodes: holders of a certificate that send what they like.
//!
//! A hostile learner is a member. Beside its own process, which stays honest, somebody sends messages in its name, over
//! its link. A hostile stranger has a certificate of the federation and never joined; it links with each node. Both
//! send forged messages of every kind (`forge`), messages that they overheard on other links, and such messages with
//! bits flipped.
//!
//! All laws hold while they act; `oracle::standing` and `oracle::bounded_dials` are about them. The simulator's README
//! says what a learner may do all the same: it writes keys of its own, and its word about itself is believed.

use std::collections::BTreeMap;

use continuum_core::api::Request;
use continuum_core::codec;
use continuum_core::id::{Boot, GroupId, Lineage, NodeId, Replica, StoreId, Term};
use continuum_core::node::{Event, Founding, Message, Node};
use continuum_core::raft::{self, Position};
use continuum_core::replication;

use crate::env::clock::MS;
use crate::oracle::standing::Sight;
use crate::plan::fault::Kind;
use crate::rng::{Dice, stream};
use crate::verdict::{Broken, Verdict};
use crate::world::{World, WorldEvent};

use super::forge::{FORMS, Facts, NOBODY};
use super::identity::wide;

/// The pause between two hostile messages.
const PAUSE_NS: (u64, u64) = (2 * MS, 40 * MS);
/// One hostile message in this many is repeated at once, this often.
const BURST: (u64, u64) = (64, 24);
/// The whole state is compared around one hostile message in this many.
const COMPARED: u64 = 16;
/// Most messages that hostile nodes remember.
const OVERHEARD_MAX: usize = 128;
/// One message in this many is overheard, in parts per million.
const OVERHEARD_PPM: u64 = 20_000;

const MESSAGE: u64 = stream("hostile.message", 0);
const OVERHEAR: u64 = stream("hostile.overhear", 0);

/// A group that no node has.
const NO_GROUP: GroupId = GroupId(u32::MAX - 1);

/// The tag of a hostile message in the trace.
const TAG: u8 = 7;

/// The version of the protocol that a stranger's handshake proves.
const PROTOCOL: u16 = 1;

/// The memory of the hostile nodes of a world.
#[derive(Debug, Default)]
pub(crate) struct Hostile {
    /// Honest messages that they overheard.
    overheard: Vec<Message>,
    /// The processes that each stranger has a link with, by fault and node number: their generations.
    links: BTreeMap<(usize, usize), u64>,
    /// The learners in whose names hostile messages were sent. Their word about their disks proves nothing.
    pub(crate) learners: Vec<usize>,
}

/// A hostile message, and whether its receiver must not change at all.
struct Forged {
    message: Message,
    is_inert: bool,
}

impl World {
    /// Notes an honest message, if the plan has a hostile node.
    pub(super) fn overhear(&mut self, message: &Message) {
        let is_hostile = |kind| matches!(kind, Kind::HostileLearner | Kind::HostileStranger);
        if !self.draws.chance(OVERHEAR, self.messages, OVERHEARD_PPM)
            || !self.plan.faults.iter().any(|fault| is_hostile(fault.kind))
        {
            return;
        }
        let overheard = &mut self.hostile.overheard;
        if overheard.len() < OVERHEARD_MAX {
            overheard.push(message.clone());
        } else {
            let at = self.draws.below(OVERHEAR ^ 1, self.messages, OVERHEARD_MAX as u64);
            overheard[at as usize] = message.clone();
        }
    }

    /// A hostile node sends its next message.
    pub(super) fn on_hostile(&mut self, fault: usize, k: u64) -> Verdict {
        if !self.active[fault] {
            return Ok(());
        }
        let mut dice = self.draws.dice(MESSAGE ^ stream("hostile.of", (fault as u64) << 40 | k));
        let after = dice.between(PAUSE_NS.0, PAUSE_NS.1);
        self.schedule_in(after, WorldEvent::Hostile { fault, k: k + 1 });
        let to = dice.below(self.processes.len() as u64) as usize;
        let times = if dice.below(BURST.0) == 0 { BURST.1 } else { 1 };
        let form = dice.below(FORMS);
        for _ in 0..times {
            let Some(from) = self.hostile_sender(fault, to)? else { return Ok(()) };
            let Some(forged) = self.hostile_message((from, fault), to, (form, k), &mut dice) else {
                return Ok(());
            };
            self.fired.count(self.plan.faults[fault].kind);
            self.judge_hostile(from, to, forged, dice.below(COMPARED) == 0)?;
        }
        Ok(())
    }

    /// A hostile node ends: the links of a stranger go down.
    pub(super) fn end_hostile(&mut self, fault: usize) -> Verdict {
        let links = std::mem::take(&mut self.hostile.links);
        let (gone, others) = links.into_iter().partition(|((of, _), _)| *of == fault);
        self.hostile.links = others;
        for ((_, to), generation) in gone {
            if self.processes[to].generation == generation {
                let peer = self.stranger(fault).node;
                self.step(to, Event::Unreachable { peer }, TAG, 1)?;
            }
        }
        Ok(())
    }

    fn stranger(&self, fault: usize) -> Replica {
        let node = NodeId(wide(self.draws, "hostile", fault, 0xfe));
        Replica { node, store: StoreId(node.0) }
    }

    /// The identity behind a hostile message to this node, if there is a link. A stranger links with the receiver.
    fn hostile_sender(&mut self, fault: usize, to: usize) -> Result<Option<Replica>, Broken> {
        let is_formed = |node: &Node| !node.is_fenced() && node.raft(GroupId::REGISTRY).is_some();
        let process = &self.processes[to];
        let takes = self.accepts_handshake(to)
            && process.step_queue.is_open()
            && process.node.as_ref().is_some_and(is_formed);
        if !takes || !self.operator.is_open() {
            return Ok(None);
        }
        if self.plan.faults[fault].kind == Kind::HostileStranger {
            let stranger = self.stranger(fault);
            let generation = process.generation;
            if self.hostile.links.insert((fault, to), generation) != Some(generation) {
                let (boot, lineage) = (self.stranger_boot(fault), Lineage::default());
                let Replica { node: peer, store } = stranger;
                let linked = Event::Connected { peer, store, boot, lineage, version: PROTOCOL };
                self.step(to, linked, TAG, 0)?;
            }
            return Ok(Some(stranger));
        }
        let Some(&learner) = self.plan.faults[fault].nodes.first() else { return Ok(None) };
        let replica = self.processes[learner].replica;
        let is_linked = learner != to
            && self.processes[learner].is_up()
            && self.network.epoch(learner, to).is_some()
            && self.network.is_open(learner, to);
        let Some(node) = self.processes[to].node.as_ref().filter(|_| is_linked) else {
            return Ok(None);
        };
        let voters = node.raft(GroupId::REGISTRY).map(raft::Raft::configuration);
        let votes = voters.is_some_and(|configuration| configuration.is_voter(replica));
        if votes {
            return Ok(None);
        }
        if !self.hostile.learners.contains(&learner) {
            self.hostile.learners.push(learner);
        }
        Ok(Some(replica))
    }

    /// The boot that a stranger's handshake proves: a first one, or the last that there is.
    const fn stranger_boot(&self, fault: usize) -> Boot {
        let count = if fault.is_multiple_of(2) { 1 } else { u64::MAX };
        Boot { count, nonce: self.draws.bits(MESSAGE, fault as u64) }
    }

    /// The next message to this node: forged, overheard, or overheard and altered. `None` when it makes no sense here.
    fn hostile_message(
        &self,
        (from, fault): (Replica, usize),
        to: usize,
        (form, k): (u64, u64),
        dice: &mut Dice,
    ) -> Option<Forged> {
        let node = self.processes[to].node.as_ref()?;
        let is_member = self.oracles.roster.number(from.node).is_some();
        let message = if dice.chance(700_000) || self.hostile.overheard.is_empty() {
            self.facts((from, fault), to, k, dice)?.message(form, dice)
        } else {
            let message = dice.pick(&self.hostile.overheard).clone();
            if dice.below(3) == 0 { message } else { altered(&message, dice)? }
        };
        if is_member && !may_lie(&message, node.boot()) {
            return None;
        }
        // A node notes the genesis that a linked process names.
        let is_of_this = message.genesis().is_none_or(|genesis| Some(genesis) == node.genesis());
        let is_inert = is_of_this && is_refused(&message, is_member);
        Some(Forged { message, is_inert })
    }

    /// The facts that a forger knows of a node.
    fn facts(
        &self,
        (me, fault): (Replica, usize),
        to: usize,
        k: u64,
        dice: &mut Dice,
    ) -> Option<Facts> {
        let node = self.processes[to].node.as_ref()?;
        let groups: Vec<GroupId> = node.groups().collect();
        let group = *dice.pick(&groups);
        let raft = node.raft(group)?;
        let commit = raft.commit();
        let shards: Vec<_> = node.replicator().shards().collect();
        let number = self.oracles.roster.number(me.node);
        let stranger = self.stranger_boot(fault);
        Some(Facts {
            me,
            boot: number.map_or(stranger, |number| self.processes[number].boot),
            is_member: number.is_some(),
            victim: self.processes[to].replica,
            genesis: node.genesis()?,
            group,
            term: raft.term(),
            commit: Position { term: raft.term_at(commit).unwrap_or_default(), index: commit },
            last: raft.last(),
            configuration: raft.configuration().clone(),
            shard: if shards.is_empty() { Default::default() } else { *dice.pick(&shards) },
            nodes: self.processes.iter().map(|process| (process.replica, process.boot)).collect(),
            k,
        })
    }

    /// Delivers a hostile message, and judges what it does.
    fn judge_hostile(
        &mut self,
        from: Replica,
        to: usize,
        forged: Forged,
        compares: bool,
    ) -> Verdict {
        let Forged { message, is_inert } = forged;
        let received = |message| Event::Received { from: from.node, message };
        let compares = compares && is_inert;
        let genesis = self.processes[to].node.as_ref().and_then(Node::genesis);
        if let Some(genesis) = genesis.filter(|_| compares) {
            // A refused message first: the receiver has now done what is due, and has heard of the sender just now.
            let transfer_excluded = Vec::new();
            let nothing = raft::Message::TimeoutNow { term: Term(0), transfer_excluded };
            let refused = Message::Raft { genesis, group: NO_GROUP, message: nothing };
            self.step(to, received(refused), TAG, 2)?;
        }
        let Some(before) = self.sight(to, compares) else { return Ok(()) };
        let what = format!("node {to} gets of {from:?}: {message:?}");
        self.step(to, received(message), TAG, 3)?;
        let Some(after) = self.sight(to, compares) else { return Ok(()) };
        before.check(after, || what)
    }

    fn sight(&self, node: usize, is_whole: bool) -> Option<Sight> {
        let process = &self.processes[node];
        let now = process.clock.now(self.now).mono;
        let node = process.node.as_ref()?;
        let sight = Sight::of(node, &NOBODY);
        Some(if is_whole { sight.whole(node, now) } else { sight })
    }
}

/// A message with one to three bits of its encoding flipped, if that decodes.
fn altered(message: &Message, dice: &mut Dice) -> Option<Message> {
    let mut bytes = codec::encode(message).to_vec();
    for _ in 0..=dice.below(3) {
        let bit = dice.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    Message::decode(&bytes, bytes.len()).ok()
}

/// Whether a learner may be made to say this: it changes no client's data, and its own place in the federation neither.
fn may_lie(message: &Message, victim: Boot) -> bool {
    match message {
        // A view says what its sender has seen: with it a member deletes what others wrote. A forged one names its own.
        Message::Replication { message: replication::Message::View { view, .. }, .. } => {
            view.context.iter().all(|(actor, _)| actor.boot.count > u64::MAX / 2)
        }
        Message::Forward { request, .. } => match request {
            Request::Write { mutations, .. } => {
                mutations.iter().all(|mutation| mutation.key.starts_with(super::forge::OWN_KEY))
            }
            Request::Join { replica, .. } => *replica == NOBODY,
            Request::CreateNamespace { name, .. } | Request::DeleteNamespace { name, .. } => {
                name == "No Name" || name == "nowhere"
            }
            Request::RotateKey { .. } => false,
            _ => true,
        },
        // The answers to questions about the learner's own process.
        Message::Confirmed(id) => id.nonce != victim.nonce || id.number > 1 << 40,
        _ => true,
    }
}

/// Whether the table of standings refuses a message of such a sender to a node that is in a federation.
fn is_refused(message: &Message, is_member: bool) -> bool {
    use raft::Message as M;
    match message {
        Message::Raft { message, .. } => {
            !is_member
                || matches!(
                    message,
                    M::PreVote { .. }
                        | M::PreVoteReply { .. }
                        | M::Vote { .. }
                        | M::VoteReply { .. }
                        | M::Append { .. }
                        | M::Heartbeat { .. }
                        | M::SnapshotOffer { .. }
                        | M::SnapshotChunk { .. }
                        | M::TimeoutNow { .. }
                        | M::ReadIndexReply { .. }
                )
        }
        Message::Refused { .. } | Message::Founding(Founding::Acknowledged(_)) => true,
        Message::Forward { request: Request::Init { .. }, .. } => true,
        Message::Forward { request: Request::Join { .. } | Request::Status, .. } => false,
        Message::Replication { .. }
        | Message::Gossip { .. }
        | Message::Contacts(_)
        | Message::Forward { .. }
        | Message::Answer { .. } => !is_member,
        Message::Founding(_)
        | Message::Genesis { .. }
        | Message::Confirm(_)
        | Message::Confirmed(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::plan::fault::Fault;
    use crate::run::run;

    /// A quiet run with one hostile node.
    fn with(kind: Kind) -> Plan {
        let mut plan = Plan::from_seed(3);
        plan.faults.clear();
        plan.heal = Default::default();
        (plan.cluster.nodes, plan.cluster.voters) = (4, 3);
        let nodes = if kind == Kind::HostileLearner { vec![3] } else { Vec::new() };
        let (at_ms, for_ms) = (plan.calm_ms, 40_000);
        plan.faults.push(Fault { kind, at_ms, for_ms, nodes, rate_ppm: 0, amount: 0 });
        plan
    }

    #[test]
    fn hostile_nodes_send_and_the_federation_goes_on() {
        for kind in [Kind::HostileLearner, Kind::HostileStranger] {
            let outcome = run(&with(kind));
            assert_eq!(outcome.violation, None);
            assert!(outcome.fired.of(kind) > 1_000, "{kind:?}: {}", outcome.fired.of(kind));
        }
    }

    #[test]
    fn altered_messages_are_others() {
        let message = Message::Genesis { genesis: None, replaced: Some(StoreId([7; 16])) };
        let mut dice = crate::rng::Draws::new(1).dice(stream("hostile.test", 0));
        let altered: Vec<Message> = (0..100).filter_map(|_| altered(&message, &mut dice)).collect();
        assert!(
            altered.len() > 50 && altered.iter().filter(|other| **other != message).count() > 50
        );
    }
}
