//! Golden transcripts: all messages of a small scene, as text in `tests/data/swim/`.
//!
//! Each line of a transcript gives time, sender, receiver and content of a message, so that any change of a message
//! shows as a readable difference. `UPDATE=1` rewrites the files.

use std::fmt::Write as _;

use continuum_core::gossip::{Body, Event, State, Update};
use continuum_tests::golden;

use super::driven::{Driven, ME, Sent, node, update};

fn name(node: continuum_core::id::NodeId) -> String {
    format!("n{}", node.0[0])
}

fn body(body: Body, first: u64) -> String {
    // The machine's ping numbers begin anywhere, so the transcript counts them from 1. The others' numbers are small.
    let shown = |number: u64| if number < first { number } else { number - first + 1 };
    match body {
        Body::Ping { number } => format!("ping {}", shown(number)),
        Body::PingRequest { number, target } => {
            format!("ping-req {} of {}", shown(number), name(target))
        }
        Body::Ack { number } => format!("ack {}", shown(number)),
        Body::Nack { number } => format!("nack {}", shown(number)),
        Body::Updates => "updates".into(),
        Body::Push { after, upto } => format!("push {:?}..{:?}", after.map(name), upto.map(name)),
        Body::Pull { after, upto } => format!("pull {:?}..{:?}", after.map(name), upto.map(name)),
    }
}

fn update_text(update: &Update) -> String {
    let confirmations: Vec<String> = update.confirmations.iter().map(|n| name(*n)).collect();
    let by = if confirmations.is_empty() {
        String::new()
    } else {
        format!(" by {}", confirmations.join("+"))
    };
    let Update { replica, incarnation, state, .. } = update;
    format!("{} {state:?}/{}{by}", name(replica.node), incarnation.refutations)
}

struct Scene {
    driven: Driven,
    /// The machine's first ping number.
    first: u64,
    text: String,
}

impl Scene {
    fn new(others: u8) -> Self {
        Self { driven: Driven::met(others), first: u64::MAX, text: String::new() }
    }

    fn note(&mut self, sent: &[Sent]) {
        for (at, to, message) in sent {
            let updates: Vec<String> = message.updates.iter().map(update_text).collect();
            if let Body::Ping { number } = message.body {
                self.first = self.first.min(number);
            }
            let what = body(message.body, self.first);
            let line = format!("{at:>6} ms  me -> {}  {what}", name(*to));
            let me =
                format!("me {:?}/{}", message.sender.state, message.sender.incarnation.refutations);
            writeln!(self.text, "{line}  [{me}]  {}", updates.join(", ")).expect("to a string");
        }
        for member in self.driven.changed.drain(..) {
            let (who, state) = (name(member.replica.node), member.state);
            writeln!(self.text, "           now {who} is {state:?}").expect("to a string");
        }
    }

    fn receive(&mut self, from: u8, what: Body, updates: Vec<Update>) {
        let at = self.driven.now.as_millis();
        let received: Vec<String> = updates.iter().map(update_text).collect();
        let line = format!(
            "{at:>6} ms  n{from} -> me  {}  {}",
            body(what, self.first),
            received.join(", ")
        );
        writeln!(self.text, "{line}").expect("to a string");
        let sent = self.driven.receive(from, what, updates);
        self.note(&sent);
    }

    fn step(&mut self, event: Event) {
        let sent = self.driven.step(event);
        self.note(&sent);
    }

    fn run(&mut self, ms: u64) {
        let sent = self.driven.run(ms);
        self.note(&sent);
    }

    /// Compares the scene with the golden file.
    fn is(self, file: &str) {
        let text: String = self.text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        golden(&format!("swim/{file}"), &text);
    }
}

#[test]
fn a_probe_that_fails_and_ends_in_a_death() {
    let mut scene = Scene::new(4);
    // No member answers. The first target is suspected after its period and, without confirmations, dies late.
    scene.driven.changed.clear();
    scene.run(3_000);
    scene.is("silence.txt");
}

#[test]
fn a_suspicion_that_is_refuted() {
    let mut scene = Scene::new(4);
    scene.driven.changed.clear();
    scene.receive(1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    scene.receive(2, Body::Ping { number: 7 }, vec![]);
    scene.receive(3, Body::Ping { number: 8 }, vec![update(2, 1, State::Alive)]);
    scene.receive(4, Body::Ping { number: 9 }, vec![update(2, 0, State::Dead)]);
    scene.is("refuted.txt");
}

#[test]
fn this_node_is_suspected_helps_and_leaves() {
    let mut scene = Scene::new(4);
    scene.driven.changed.clear();
    scene.receive(1, Body::Ping { number: 3 }, vec![update(ME, 0, State::Suspect)]);
    scene.receive(3, Body::PingRequest { number: 4, target: node(2) }, vec![]);
    scene.run(400);
    scene.step(Event::Leave);
    scene.is("helped_and_left.txt");
}
