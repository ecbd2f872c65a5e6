//! Transcripts: a script of commands with the actions of the replicas after each.
//!
//! A script is a text file of blocks: a command, `----`, and the lines that the command caused, up to an empty line.
//! Lines that begin with `#` are comments. The runner fills in the caused lines; a test compares the result with the
//! file.

use std::fmt::Write as _;

use continuum_core::config::RaftConfig;
use continuum_core::files::Piece;
use continuum_core::id::{Index, Replica, Role};
use continuum_core::raft::{
    Action, Configuration, Entry, Event, Message, Payload, Position, Reconfiguration, Write,
};

use super::{Envelope, Net, configuration, number, replica};

/// A position as `term.index`.
struct At(Position);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.term, self.0.index)
    }
}

fn who(replica: Option<Replica>) -> String {
    replica.map_or_else(|| "none".into(), |replica| number(replica).to_string())
}

fn members(configuration: &Configuration) -> String {
    let list = |list: &[Replica]| {
        let numbers: Vec<String> = list.iter().map(|r| number(*r).to_string()).collect();
        numbers.join(",")
    };
    format!("voters {} learners {}", list(&configuration.voters), list(&configuration.learners))
}

fn entries_text(after: Index, entries: &[Entry]) -> String {
    let mut text = String::new();
    for (index, entry) in (after.0 + 1..).zip(entries) {
        let at = At(Position { term: entry.term, index: Index(index) });
        let payload = match &entry.payload {
            Payload::Noop => "noop".into(),
            Payload::Configuration(configuration) => members(configuration),
            Payload::Command(command) => String::from_utf8_lossy(command).into_owned(),
        };
        let _ = write!(text, " {at}:{payload}");
    }
    if text.is_empty() { " nothing".into() } else { text }
}

fn message_text(message: &Message) -> String {
    let yes = |granted: &bool| if *granted { "yes" } else { "no" };
    let (name, text) = match message {
        Message::PreVote { term, last } => {
            let text =
                format!("would you vote for me in term {term}? my log ends at {}", At(*last));
            ("PreVote", text)
        }
        Message::PreVoteReply { term, granted } => {
            ("PreVoteReply", format!("{} (term {term})", yes(granted)))
        }
        Message::Vote { term, last, leadership_transfer } => {
            let why = if *leadership_transfer { ", the leader asked me to" } else { "" };
            ("Vote", format!("for me in term {term}, my log ends at {}{why}", At(*last)))
        }
        Message::VoteReply { term, granted } => {
            ("VoteReply", format!("{} in term {term}", yes(granted)))
        }
        Message::Append { term, prev, commit, entries } => {
            let entries = entries_text(prev.index, entries);
            ("Append", format!("term {term}, after {}:{entries}; commit {commit}", At(*prev)))
        }
        Message::AppendAck { matched, .. } => ("AppendAck", format!("up to {}", At(*matched))),
        Message::AppendRejected { refused, hint, .. } => {
            ("AppendRejected", format!("at {refused}; we may share {}", At(*hint)))
        }
        Message::Heartbeat { term, commit, round } => {
            ("Heartbeat", format!("term {term}, commit {commit}, round {round}"))
        }
        Message::HeartbeatAck { round, .. } => ("HeartbeatAck", format!("round {round}")),
        Message::StaleTerm { term } => ("StaleTerm", format!("it is term {term}")),
        Message::SnapshotOffer { header, .. } => {
            let (at, length) = (At(header.position), header.length);
            let members = members(&header.configuration);
            ("SnapshotOffer", format!("a snapshot of {length} bytes at {at}, {members}"))
        }
        Message::SnapshotChunk { position, offset, data, .. } => {
            let (at, length) = (At(*position), data.len());
            ("SnapshotChunk", format!("of {at}: {length} bytes from {offset} on"))
        }
        Message::SnapshotAck { position, bytes, .. } => match bytes {
            Some(bytes) => ("SnapshotAck", format!("{bytes} bytes of {}", At(*position))),
            None => ("SnapshotAck", format!("nothing known of {}", At(*position))),
        },
        Message::TimeoutNow { .. } => ("TimeoutNow", "lead in my place".into()),
        Message::ReadIndex { .. } => ("ReadIndex", "what must I have applied?".into()),
        Message::SnapshotRefused { position, corrupt, .. } => {
            let why = if *corrupt { "has other bytes" } else { "does not restore" };
            ("SnapshotRefused", format!("the one at {} {why}", At(*position)))
        }
        Message::ReadIndexReply { index, .. } => match index {
            Some(index) => ("ReadIndexReply", index.to_string()),
            None => ("ReadIndexReply", "I do not lead".into()),
        },
    };
    format!("{name:<14} {text}")
}

/// The line of a message that leaves.
#[must_use]
pub fn sending(envelope: &Envelope) -> String {
    format!("{} -> {}  {}", envelope.from, envelope.to, message_text(&envelope.message))
}

fn write_text(write: &Write) -> String {
    match write {
        Write::Hard { term, vote, .. } => format!("term {term}, vote for {}", who(*vote)),
        Write::Append { prev, entries, .. } => {
            format!("after {prev}:{}", entries_text(*prev, entries))
        }
        Write::Snapshot { position, .. } => {
            format!("the snapshot at {} is complete", At(*position))
        }
        other => format!("{other:?}"),
    }
}

/// The line of an action; `None` if transcripts do not show it.
#[must_use]
pub fn line(n: u8, action: &Action) -> Option<String> {
    Some(match action {
        Action::Send { to, message, promise } => {
            let envelope = Envelope { from: n, to: number(*to), message: message.clone() };
            let held = if *promise { "   (once the disk has it)" } else { "" };
            format!("{}{held}", sending(&envelope))
        }
        Action::Persist { write } => format!("{n} writes {}", write_text(write)),
        Action::WriteFile { piece: Piece { offset, data, .. } } => {
            format!("{n} writes {} bytes of the snapshot from {offset} on", data.len())
        }
        Action::DropFile { .. } => format!("{n} drops the file of a snapshot"),
        Action::Committed { index } => format!("{n} has committed up to {index}"),
        Action::Proposed { position, .. } => format!("{n} proposes at {}", At(*position)),
        Action::Refused { ticket, why } => format!("{n} refuses request {ticket}: {why:?}"),
        Action::Readable { ticket, index } => {
            format!("{n} may serve read {ticket} once it has applied {index}")
        }
        Action::Capture => format!("{n} wants a snapshot of its state"),
        Action::Check { .. } => return None,
        Action::Install { snapshot } => {
            format!("{n} becomes the snapshot at {}", At(snapshot.position))
        }
        Action::Role { role, term, leader } => {
            format!("{n} is {} in term {term}, leader {}", role_text(*role), who(*leader))
        }
        Action::Rejected { from, why } => {
            format!("{n} rejects a message of {}: {why}", number(*from))
        }
    })
}

const fn role_text(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

/// Runs a script and returns it with the caused lines filled in.
///
/// # Panics
///
/// If the script has an unknown command, or an oracle fails.
#[must_use]
pub fn run(script: &str) -> String {
    let mut net = Net::new(1, &configuration(&[1, 2, 3], &[]), RaftConfig::default());
    let mut cut: Vec<(u8, u8)> = Vec::new();
    let mut text = String::new();
    let mut in_output = false;
    for line in script.lines() {
        if line == "----" {
            in_output = true;
        } else if line.is_empty() {
            in_output = false;
        } else if !in_output {
            text.push_str(line);
            text.push('\n');
            if !line.starts_with('#') {
                net.lines.clear();
                command(&mut net, &mut cut, line);
                let _ = writeln!(text, "----\n{}\n", outcome(&net.lines));
            }
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn outcome(lines: &[String]) -> String {
    if lines.is_empty() { "ok".into() } else { lines.join("\n") }
}

fn command(net: &mut Net, cut: &mut Vec<(u8, u8)>, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let n = |at: usize| words[at].parse::<u64>().expect("a number");
    let node = |at: usize| u8::try_from(n(at)).expect("the number of a replica");
    match words[0] {
        // new V L: V voters, then L learners.
        "new" => {
            let (voters, learners): (Vec<u8>, Vec<u8>) =
                (1..=node(1) + node(2)).partition(|i| *i <= node(1));
            *net = Net::new(1, &configuration(&voters, &learners), RaftConfig::default());
        }
        "add" => net.add(node(1)),
        "timeout" => net.timeout(node(1)),
        // elect N: its timeout passes and all replicas answer; the transcript shows only the roles.
        "elect" => {
            net.timeout(node(1));
            net.settle_if(|envelope| passes(cut, envelope));
            net.lines.retain(|line| line.contains(" is "));
        }
        "pass" => net.advance_one(node(1), n(2)),
        "settle" => net.settle_if(|envelope| passes(cut, envelope)),
        "sync" => net.sync(node(1), usize::MAX),
        // deliver FROM TO: delivers all messages in flight from one to the other.
        "deliver" => {
            let is = |e: &Envelope| (e.from, e.to) == (node(1), node(2));
            let due = net.wire.iter().filter(|e| is(e)).count();
            for _ in 0..due {
                let at = net.wire.iter().position(is).expect("counted");
                net.deliver(at);
            }
        }
        "lose" => net.wire.clear(),
        // cut A B: loses all messages between the two, in both directions.
        "cut" => cut.extend([(node(1), node(2)), (node(2), node(1))]),
        "heal" => cut.clear(),
        "propose" => net.propose(node(1), 1, words[2]),
        "read" => net.step(node(1), Event::Read { ticket: 1000 }),
        "learner" => {
            let change = Reconfiguration::AddLearner(replica(node(2)));
            net.step(node(1), Event::Reconfigure { ticket: 2, change });
        }
        "transfer" => net.step(node(1), Event::TransferLeadership),
        // crash N K: the first K of its outstanding writes reach the disk, the rest are lost.
        "crash" => net.crash(node(1), node(2).into()),
        "restart" => net.restart(node(1)),
        "compact" => net.compact(node(1)),
        "logs" => logs(net),
        other => panic!("unknown command: {other}"),
    }
}

fn passes(cut: &[(u8, u8)], envelope: &Envelope) -> bool {
    !cut.contains(&(envelope.from, envelope.to))
}

fn logs(net: &mut Net) {
    let describe = |(n, process): (&u8, &super::Process)| match &process.machine {
        None => format!("{n} is down; its disk ends at {}", process.disk.last()),
        Some(raft) => {
            let before = raft.first().prev();
            let entries: Vec<Entry> = (raft.first().0..=raft.last().index.0)
                .filter_map(|index| raft.entry(Index(index)).cloned())
                .collect();
            let text = entries_text(before, &entries);
            format!("{n} after {before}:{text}; commit {}, term {}", raft.commit(), raft.term())
        }
    };
    let lines: Vec<String> = net.nodes.iter().map(describe).collect();
    net.lines.extend(lines);
}
