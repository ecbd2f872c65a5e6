//! Short labels for messages, writes, requests and faults: the text at an arrow, and the details on hovering.
//!
//! Nodes appear by number. This module does not escape text for HTML; `diagram::page` does.

use std::fmt::{Debug, Write as _};

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Expected, Mutation, Outcome, Query, Register, Request, Value,
};
use continuum_core::id::{Dot, GroupId, NodeId, Replica};
use continuum_core::node::{Founding, Message};
use continuum_core::raft::{self, Payload, Position};
use continuum_core::replication::{self, dot_of};
use continuum_core::wal::Write;
use continuum_core::{gossip, node};

use crate::env::requester::Attempt;
use crate::format::shard::dot_in;
use crate::plan::fault::{Fault, Kind};
pub(crate) use crate::transcript::cut;
use crate::workload::history::{Body, Ending, Operation};

/// Longest detail, in characters.
const DETAIL_MAX: usize = 500;

/// The protocol that something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Raft(GroupId),
    Replication,
    Gossip,
    Requests,
    Other,
}

/// A label and its detail.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) protocol: Protocol,
    /// Whether it happens all the time and says little.
    pub(crate) is_routine: bool,
    pub(crate) label: String,
    pub(crate) detail: String,
}

/// The names of nodes.
#[derive(Debug)]
pub(crate) struct Names {
    replicas: Vec<Replica>,
}

impl Names {
    pub(crate) fn new(replicas: &[Replica]) -> Self {
        Self { replicas: replicas.to_vec() }
    }

    /// The number of nodes.
    pub(crate) const fn count(&self) -> usize {
        self.replicas.len()
    }

    fn node(&self, node: NodeId) -> String {
        let number = self.replicas.iter().position(|replica| replica.node == node);
        number.map_or_else(|| "?".to_owned(), |number| format!("n{number}"))
    }

    fn dot(&self, dot: Dot) -> String {
        format!("{}#{}", self.node(dot.actor.replica.node), dot.seq)
    }

    fn dots(&self, dots: impl Iterator<Item = Option<Dot>>) -> String {
        let all: Vec<String> =
            dots.map(|dot| dot.map_or_else(|| "?".to_owned(), |dot| self.dot(dot))).collect();
        match all.len() {
            0..4 => all.join(" "),
            more => format!("{} .. {} ({more})", all[0], all[more - 1]),
        }
    }

    /// A text in which ids of nodes and stores are replaced by their numbers, and small structures by short forms.
    pub(crate) fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, Replica { node, store }) in self.replicas.iter().enumerate() {
            text = text.replace(&node.to_string(), &format!("n{number}"));
            text = text.replace(&store.to_string(), &format!("store{number}"));
            let both = format!("Replica {{ node: n{number}, store: store{number} }}");
            text = text.replace(&both, &format!("n{number}"));
        }
        for (parts, template) in SHORT_FORMS {
            text = rewrite(&text, *parts, template);
        }
        text
    }

    fn detail(&self, value: &impl Debug) -> String {
        let text = self.plain(&format!("{value:?}"));
        cut(&text, DETAIL_MAX)
    }
}

/// Short forms: the text before, between and after two values, and the template that replaces it.
const SHORT_FORMS: &[([&str; 3], &str)] = &[
    (["Term(", "", ")"], "$1$2"),
    (["Index(", "", ")"], "$1$2"),
    (["Position { term: ", ", index: ", " }"], "$2@t$1"),
    (["Boot { count: ", ", nonce: ", " }"], "boot $1"),
    (["Actor { replica: ", ", boot: ", " }"], "$1"),
    (["Dot { actor: ", ", seq: ", " }"], "$1#$2"),
];

/// Replaces every match of the three parts around two values that contain no brackets.
fn rewrite(text: &str, [before, between, after]: [&str; 3], template: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        out.push_str(&rest[..at]);
        let inner = &rest[at + before.len()..];
        let is_plain = |value: &&str| !value.contains(['{', '}', '(', ')']);
        let value = inner.split_once(after).map(|(value, _)| value).filter(is_plain);
        match value.and_then(|value| value.split_once(between).map(|pair| (value, pair))) {
            Some((value, (one, other))) => {
                out.push_str(&template.replace("$1", one).replace("$2", other));
                rest = &inner[value.len() + after.len()..];
            }
            None => {
                out.push_str(before);
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The label of a message between nodes.
pub(crate) fn message(names: &Names, message: &Message) -> Words {
    let detail = names.detail(message);
    let (protocol, is_routine, label) = match message {
        Message::Raft { group, message, .. } => {
            let (is_routine, label) = of_raft(message);
            (Protocol::Raft(*group), is_routine, label)
        }
        Message::Replication { message, .. } => {
            let (is_routine, label) = of_replication(names, message);
            (Protocol::Replication, is_routine, label)
        }
        Message::Gossip { message, .. } => {
            let (is_routine, label) = of_gossip(names, message);
            (Protocol::Gossip, is_routine, label)
        }
        Message::Founding(message) => (Protocol::Other, false, of_founding(message)),
        Message::Genesis { genesis, .. } => {
            let label = genesis.map_or_else(|| "unformed".to_owned(), |id| format!("genesis {id}"));
            (Protocol::Other, true, label)
        }
        Message::Contacts(_) => (Protocol::Other, true, "contacts".to_owned()),
        Message::Forward { request: asked, .. } => {
            let is_routine = !matches!(asked, Request::Read { .. } | Request::Write { .. });
            (Protocol::Requests, is_routine, format!("forward {}", request(asked)))
        }
        Message::Answer { outcome: result, .. } => {
            let label = outcome(result);
            let is_routine = label == "value" || label.contains("NotFormed");
            (Protocol::Requests, is_routine, format!("answer {label}"))
        }
        Message::Refused { refusal, .. } => {
            let why = match refusal {
                node::Refusal::StaleBoot => "stale boot",
                node::Refusal::Cloned => "cloned",
                node::Refusal::Forked => "forked",
                node::Refusal::Linked => "linked still",
            };
            (Protocol::Other, false, format!("refused: {why}"))
        }
        Message::Confirm(_) => (Protocol::Other, false, "confirm".to_owned()),
        Message::Confirmed(_) => (Protocol::Other, false, "confirmed".to_owned()),
    };
    Words { protocol, is_routine, label, detail }
}

fn position_text(position: Position) -> String {
    format!("{}@t{}", position.index, position.term)
}

fn of_raft(message: &raft::Message) -> (bool, String) {
    use raft::Message as M;
    let label = match message {
        M::PreVote { term, last } => format!("pre-vote t{term}, log {}", position_text(*last)),
        M::PreVoteReply { term, granted } => format!("pre-vote t{term} {}", yes(*granted)),
        M::Vote { term, last, .. } => format!("vote? t{term}, log {}", position_text(*last)),
        M::VoteReply { term, granted } => format!("vote t{term} {}", yes(*granted)),
        M::Append { term, prev, entries, .. } => match entries.len() as u64 {
            0 => format!("has {}? t{term}", position_text(*prev)),
            1 => format!("append {} t{term}", prev.index.0 + 1),
            count => format!("append {}..{} t{term}", prev.index.0 + 1, prev.index.0 + count),
        },
        M::AppendAck { term, matched } => format!("ack {} t{term}", position_text(*matched)),
        M::AppendRejected { term, refused, hint } => {
            format!("rejects {refused} t{term}, try {}", position_text(*hint))
        }
        M::Heartbeat { term, commit, .. } => format!("heartbeat t{term} c{commit}"),
        M::HeartbeatAck { term, .. } => format!("heartbeat ack t{term}"),
        M::StaleTerm { term } => format!("stale: t{term}"),
        M::SnapshotOffer { term, header } => {
            format!("snapshot {}? t{term}", position_text(header.position))
        }
        M::SnapshotChunk { position, offset, data, .. } => {
            format!("chunk {} {offset}+{}", position_text(*position), data.len())
        }
        M::SnapshotAck { position, bytes: Some(bytes), .. } => {
            format!("has {bytes} bytes of {}", position_text(*position))
        }
        M::SnapshotAck { position, bytes: None, .. } => {
            format!("unknown: {}", position_text(*position))
        }
        M::TimeoutNow { term, .. } => format!("campaign t{term}"),
        M::SnapshotRefused { position, .. } => format!("refuses {}", position_text(*position)),
        M::ReadIndex { .. } => "read index?".to_owned(),
        M::ReadIndexReply { index: Some(index), .. } => format!("read at {index}"),
        M::ReadIndexReply { index: None, .. } => "no read".to_owned(),
    };
    (matches!(message, M::Heartbeat { .. } | M::HeartbeatAck { .. }), label)
}

const fn yes(granted: bool) -> &'static str {
    if granted { "granted" } else { "denied" }
}

fn of_replication(names: &Names, message: &replication::Message) -> (bool, String) {
    use replication::Message as M;
    let shard = message.shard().unwrap_or_default();
    let shard = format!("s{}.{}", shard.namespace.0, shard.slot);
    let written = |writes: &[Bytes]| names.dots(writes.iter().map(dot_of));
    match message {
        M::Delta { writes, .. } => (false, format!("delta {} {shard}", written(writes))),
        M::Ack { .. } => (false, format!("ack {shard}")),
        M::Compare { .. } => (true, format!("root? {shard}")),
        M::Same { .. } => (true, format!("same {shard}")),
        M::Differ { .. } => (false, format!("differ {shard}")),
        M::Pull { round, .. } => (false, format!("pull #{round} {shard}")),
        M::Page { writes, .. } => (false, format!("page {} {shard}", written(writes))),
        M::View { view, .. } => {
            let births = view.writes.iter().map(|(sealed, _)| dot_of(sealed));
            (false, format!("view {} {shard}", names.dots(births)))
        }
        M::Refused { .. } => (false, format!("refused {shard}")),
        M::Summary(said) => (true, of_summary(said).to_owned()),
    }
}

const fn of_summary(said: &replication::Summary) -> &'static str {
    use replication::Summary as S;
    match said {
        S::Whole(_) => "roots?",
        S::Equal(_) => "same roots",
        S::Blocks(_) => "other blocks",
        S::Roots(_) => "roots",
    }
}

/// The last digits of a probe's number: numbers start anywhere, and the last digits tell neighbouring ones apart.
const fn short(number: u64) -> u64 {
    number % 10_000
}

fn of_gossip(names: &Names, message: &gossip::Message) -> (bool, String) {
    use gossip::Body;
    let mut label = match message.body {
        Body::Ping { number } => format!("ping #{}", short(number)),
        Body::PingRequest { number, target } => {
            format!("ping {} for me #{}", names.node(target), short(number))
        }
        Body::Ack { number } => format!("ack #{}", short(number)),
        Body::Nack { number } => format!("nack #{}", short(number)),
        Body::Updates => "updates".to_owned(),
        Body::Push { .. } => "push".to_owned(),
        Body::Pull { .. } => "pull".to_owned(),
    };
    let updates: Vec<_> = message
        .updates
        .iter()
        .filter(|update| update.state != gossip::State::Alive)
        .map(|update| format!("{} {:?}", names.node(update.replica.node), update.state))
        .collect();
    if !updates.is_empty() {
        let _ = write!(label, ": {}", updates.join(", ").to_lowercase());
    }
    let is_sync = matches!(message.body, Body::Push { .. } | Body::Pull { .. });
    (updates.is_empty() || is_sync, label)
}

fn of_founding(message: &Founding) -> String {
    match message {
        Founding::Offer(list) => format!("offer {}", list.genesis),
        Founding::Accepted(genesis) => format!("accepted {genesis}"),
        Founding::Declined { genesis, reason } => format!("declined {genesis}: {reason:?}"),
        Founding::Asked { genesis, .. } => format!("what of {genesis}?"),
        Founding::Aborted(genesis) => format!("aborted {genesis}"),
        Founding::Formed(list) => format!("formed {}", list.genesis),
        Founding::Acknowledged(genesis) => format!("acknowledged {genesis}"),
    }
}

/// The label of a write to the log.
pub(crate) fn write(names: &Names, write: &Write) -> Words {
    let (protocol, is_routine, label) = match write {
        Write::Boot { boot, .. } => (Protocol::Other, false, format!("boot {}", boot.count)),
        Write::Contacts { .. } => (Protocol::Other, true, "contacts".to_owned()),
        Write::Welcomed { .. } => (Protocol::Other, true, "welcomed".to_owned()),
        Write::Accepted { bootstrap, .. } => {
            (Protocol::Other, false, format!("accepted {}", bootstrap.genesis))
        }
        Write::Released { genesis } => (Protocol::Other, false, format!("released {genesis}")),
        Write::Group { group, write } => (Protocol::Raft(*group), false, group_write(names, write)),
        Write::Shard { write, .. } => (Protocol::Replication, false, shard_write(names, write)),
    };
    Words { protocol, is_routine, label, detail: names.detail(write) }
}

fn group_write(names: &Names, write: &raft::Write) -> String {
    match write {
        raft::Write::Genesis { .. } => "genesis".to_owned(),
        raft::Write::Hard { term, vote: Some(vote) } => {
            format!("t{term}, vote {}", names.node(vote.node))
        }
        raft::Write::Hard { term, vote: None } => format!("t{term}, no vote"),
        raft::Write::Append { prev, entries } => appended(prev.0, entries),
        raft::Write::Snapshot { position, .. } => format!("snapshot {}", position_text(*position)),
        raft::Write::Forget => "forget".to_owned(),
        raft::Write::Commit { index } => format!("committed up to {index}"),
    }
}

fn shard_write(names: &Names, write: &replication::Write) -> String {
    match write {
        replication::Write::Dots { records } => {
            let dots = records.iter().map(|record| dot_in(record));
            names.dots(dots.filter(Option::is_some))
        }
        replication::Write::Snapshot { file, .. } => format!("snapshot of {} bytes", file.length),
        replication::Write::Forget => "forget".to_owned(),
    }
}

fn appended(prev: u64, entries: &[raft::Entry]) -> String {
    let Some(last) = entries.last() else { return format!("truncate after {prev}") };
    let what = match (&last.payload, entries.len()) {
        (Payload::Noop, 1) => " (no-op)",
        (Payload::Configuration(_), 1) => " (members)",
        _ => "",
    };
    match entries.len() as u64 {
        1 => format!("entry {} t{}{what}", prev + 1, last.term),
        count => format!("entries {}..{} t{}", prev + 1, prev + count, last.term),
    }
}

fn named(attempt: Attempt) -> String {
    format!("c{}.{}", attempt.client, attempt.op_index)
}

/// The label of a client's attempt.
pub(crate) fn attempt(attempt: Attempt) -> Words {
    let label = match attempt.number {
        1 => named(attempt),
        number => format!("{}, attempt {number}", named(attempt)),
    };
    Words { protocol: Protocol::Requests, is_routine: false, detail: label.clone(), label }
}

/// The label of a reply to a client.
pub(crate) fn answer(names: &Names, attempt: Attempt, result: &Outcome) -> Words {
    let label = format!("{}: {}", named(attempt), outcome(result));
    let detail = names.detail(result);
    Words { protocol: Protocol::Requests, is_routine: false, label, detail }
}

/// The text of a client's operation.
pub(crate) fn operation(operation: &Operation) -> String {
    let body = match &operation.body {
        Body::Read(asked) => query(asked),
        Body::Write { mutations, .. } => mutations.iter().map(change).collect::<Vec<_>>().join(" "),
    };
    let who = format!("c{}.{}", operation.client, operation.op_index);
    format!("{who} {}: {body}", operation.space.name())
}

/// The text of how an operation ended.
pub(crate) fn ended(operation: &Operation) -> String {
    let who = format!("c{}.{}", operation.client, operation.op_index);
    match &operation.ended {
        Ending::Open => format!("{who} waits"),
        Ending::Answered(result) => format!("{who} {}", outcome(result)),
        Ending::Nothing => format!("{who} did not happen"),
        Ending::Unknown => format!("{who} unknown"),
    }
}

fn text(bytes: &[u8]) -> String {
    let printable = bytes.iter().all(u8::is_ascii_graphic);
    let text = String::from_utf8_lossy(bytes);
    if printable { cut(text.trim_end_matches('.'), 12) } else { format!("{} bytes", bytes.len()) }
}

fn request(asked: &Request) -> String {
    match asked {
        Request::Read { query: asked, .. } => query(asked),
        Request::Write { mutations, .. } => {
            mutations.iter().map(change).collect::<Vec<_>>().join(" ")
        }
        Request::Join { name, .. } => format!("join {name}"),
        Request::CreateNamespace { name, .. } => format!("create {name}"),
        Request::DeleteNamespace { name, .. } => format!("delete {name}"),
        Request::RotateKey { .. } => "rotate key".to_owned(),
        Request::Init { .. } => "init".to_owned(),
        Request::Status => "status".to_owned(),
        Request::Members => "members".to_owned(),
        Request::Namespaces => "namespaces".to_owned(),
    }
}

fn query(asked: &Query) -> String {
    match asked {
        Query::Get { key, .. } => format!("get {}", text(key)),
        Query::Members { key, .. } => format!("members {}", text(key)),
        Query::Count { key, .. } => format!("count {}", text(key)),
        Query::Record { key } => format!("record {}", text(key)),
        Query::Keys { .. } => "keys".to_owned(),
        Query::Rows { .. } => "rows".to_owned(),
        Query::Export { from: None, .. } => "export".to_owned(),
        Query::Export { from: Some(from), .. } => format!("export after {}", text(&from.after)),
    }
}

fn change(mutation: &Mutation) -> String {
    let key = text(&mutation.key);
    let one = |Edit { field, change }: &Edit| {
        let key = if field.is_empty() { key.clone() } else { format!("{key}.{}", text(field)) };
        match change {
            Change::Put(value) => format!("{key} = {}", text(value)),
            Change::Delete => format!("delete {key}"),
            Change::Cas { expected, value } => {
                let value = value.as_ref().map_or_else(|| "nothing".to_owned(), |v| text(v));
                let expected = match expected {
                    Expected::Absent => "absent".to_owned(),
                    Expected::Revision(revision) => format!("rev {revision}"),
                    Expected::Value(value) => text(value),
                };
                format!("{key} = {value} if {expected}")
            }
            Change::Add(member) => format!("{key} + {}", text(member)),
            Change::Remove(member) => format!("{key} - {}", text(member)),
            Change::Count(by) => format!("{key} count {by:+}"),
        }
    };
    mutation.edits.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn outcome(result: &Outcome) -> String {
    match result {
        Outcome::Committed { receipt, .. } => match receipt.revision {
            Some(revision) => format!("ok, rev {revision}"),
            None => "ok".to_owned(),
        },
        Outcome::Value(Value::Register(register)) => register_text(register),
        Outcome::Value(Value::Set { members, .. }) => {
            let members: Vec<String> = members.iter().map(|member| text(member)).collect();
            cut(&format!("{{{}}}", members.join(" ")), 24)
        }
        Outcome::Value(Value::Counter(count)) => format!("counts {count}"),
        Outcome::Value(_) => "value".to_owned(),
        Outcome::Rejected(reason) => cut(&format!("no: {reason:?}"), 28),
        Outcome::Partial { happened, reason } => cut(&format!("{happened} and no: {reason:?}"), 28),
        Outcome::Unknown { .. } => "unknown".to_owned(),
    }
}

fn register_text(register: &Register) -> String {
    let value = register.value.as_ref().map_or_else(|| "nothing".to_owned(), |v| text(v));
    match (register.revision, register.siblings.len()) {
        (Some(revision), _) => format!("is {value}, rev {revision}"),
        (None, 0..2) => format!("is {value}"),
        (None, siblings) => format!("is {value} of {siblings}"),
    }
}

/// The text of a fault.
pub(crate) fn fault(fault: &Fault) -> String {
    let mut words = fault.kind.name().to_owned();
    if fault.rate_ppm > 0 {
        let _ = write!(words, " {:.1}%", fault.rate_ppm as f64 / 10_000.0);
    }
    let amount = fault.amount;
    match fault.kind {
        Kind::Reorder | Kind::Delay | Kind::Stall => {
            let _ = write!(words, " to {amount} ms");
        }
        Kind::Skew | Kind::JumpAhead | Kind::JumpBack => {
            let _ = write!(words, " {amount} ms");
        }
        Kind::Drift => {
            let _ = write!(words, " {amount} ppm");
        }
        _ => {}
    }
    if !fault.nodes.is_empty() {
        let nodes: Vec<String> = fault.nodes.iter().map(|node| format!("n{node}")).collect();
        let _ = write!(words, " {}", nodes.join(" "));
    }
    words
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{Actor, Boot, Index, StoreId, Term};

    use super::*;

    #[test]
    fn small_structures_have_short_forms() {
        let replica = Replica { node: NodeId([7; 16]), store: StoreId([8; 16]) };
        let names = Names::new(&[Replica::default(), replica]);
        let dot = Dot { actor: Actor { replica, boot: Boot { count: 2, nonce: 9 } }, seq: 3 };
        assert_eq!(names.plain(&format!("{dot:?} a second time")), "n1#3 a second time");
        let position = Position { term: Term(4), index: Index(5) };
        assert_eq!(names.plain(&format!("{:?}", Some(position))), "Some(5@t4)");
        assert_eq!(names.plain("Term(x Position { term: "), "Term(x Position { term: ");
    }

    #[test]
    fn faults_are_shown_with_their_units() {
        let at = Fault {
            kind: Kind::Delay,
            at_ms: 1,
            for_ms: 2,
            nodes: vec![1, 2],
            rate_ppm: 125_000,
            amount: 30,
        };
        assert_eq!(fault(&at), "delay 12.5% to 30 ms n1 n2");
    }
}
