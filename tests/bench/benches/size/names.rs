//! The names of events and actions, by which a table tells what a step did.

use std::collections::BTreeMap;

use continuum_core::api::Request;
use continuum_core::node::{Action, Event, Message};
use continuum_core::{gossip, raft, replication};

/// The name of an event, without its content.
pub fn of_event(event: &Event) -> &'static str {
    match event {
        Event::Tick => "Tick",
        Event::Connected { .. } => "Connected",
        Event::Received { message, .. } => of_message(message),
        Event::Unreachable { .. } => "Unreachable",
        Event::Persisted { .. } => "Persisted",
        Event::Requested { request, .. } => of_request(request),
        Event::Stopping => "Stopping",
        _ => "another event",
    }
}

fn of_request(request: &Request) -> &'static str {
    match request {
        Request::Write { .. } => "Requested Write",
        Request::Read { .. } => "Requested Read",
        Request::Status => "Requested Status",
        Request::CreateNamespace { .. } => "Requested CreateNamespace",
        Request::DeleteNamespace { .. } => "Requested DeleteNamespace",
        _ => "Requested (another)",
    }
}

/// The name of a message as it is received.
fn of_message(message: &Message) -> &'static str {
    match message {
        Message::Raft { message, .. } => match message {
            raft::Message::Append { .. } => "Received Raft Append",
            raft::Message::AppendAck { .. } => "Received Raft AppendAck",
            raft::Message::Heartbeat { .. } => "Received Raft Heartbeat",
            raft::Message::HeartbeatAck { .. } => "Received Raft HeartbeatAck",
            raft::Message::SnapshotOffer { .. } => "Received Raft SnapshotOffer",
            raft::Message::SnapshotChunk { .. } => "Received Raft SnapshotChunk",
            raft::Message::SnapshotAck { .. } => "Received Raft SnapshotAck",
            _ => "Received Raft (another)",
        },
        Message::Replication { message, .. } => of_replication(message),
        Message::Gossip { message, .. } => match message.body {
            gossip::Body::Push { .. } => "Received Gossip Push",
            gossip::Body::Pull { .. } => "Received Gossip Pull",
            _ => "Received Gossip (another)",
        },
        Message::Forward { .. } => "Received Forward",
        Message::Answer { .. } => "Received Answer",
        _ => "Received (another)",
    }
}

/// The name of a message between two replicators as it is received.
pub const fn of_replication(message: &replication::Message) -> &'static str {
    match message {
        replication::Message::Delta { .. } => "Received Delta",
        replication::Message::Ack { .. } => "Received Ack",
        replication::Message::Compare { .. } => "Received Compare",
        replication::Message::Same { .. } => "Received Same",
        replication::Message::Differ { .. } => "Received Differ",
        replication::Message::Pull { .. } => "Received Pull",
        replication::Message::Page { .. } => "Received Page",
        replication::Message::View { .. } => "Received View",
        replication::Message::Refused { .. } => "Received Refused",
        replication::Message::Summary(_) => "Received Summary",
    }
}

/// The kinds of a step's actions with their numbers.
pub fn of_actions(actions: &[Action]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for action in actions {
        *counts.entry(of_action(action)).or_default() += 1;
    }
    let all: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}

fn of_action(action: &Action) -> String {
    match action {
        Action::Send { message, .. } => of_message(message).replace("Received", "Send"),
        Action::Persist { write, .. } if write.chunk().is_some() => "Persist chunk".into(),
        Action::Persist { write, .. } if write.snapshot().is_some() => "Persist snapshot".into(),
        // A notice holds only small values, and its first word is its kind.
        Action::Notify(notice) => format!("Notify {}", first_word(&format!("{notice:?}"))),
        Action::Persist { .. } => "Persist".into(),
        Action::Discard { .. } => "Discard".into(),
        Action::Release { .. } => "Release".into(),
        Action::Reply { .. } => "Reply".into(),
        Action::Route { .. } => "Route".into(),
        _ => "another action".into(),
    }
}

/// The first word of a value's debug form: the name of its variant.
pub fn first_word(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric()).collect()
}
