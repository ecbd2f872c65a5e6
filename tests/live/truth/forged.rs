//! Forged, mutated and replayed messages of a stranger, a learner and a voter.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use continuum_core::codec;
use continuum_core::id::{Actor, Dot, Index, Replica, Term};
use continuum_core::node::{Message, Plane};
use continuum_core::raft::{self, Entry, Payload, Position};
use continuum_core::replication;
use continuum_runtime::clock::Stopwatch;

use crate::attack::Attacker;
use crate::attack::forge::{
    FORGED, Facts, Forged, Reach, forged_command, raft_message, refusals, replication_message,
    sealed_put,
};
use crate::attack::link::Link;
use crate::book::{Answered, Book, EVENTUAL, STRONG};
use crate::federation::{Nodes, SOON};
use crate::row::{Bench, Check, Row, holds, pause, wait_until};
use crate::writers::{Writers, make_namespaces, must_write, put, settle};

/// Words of refusal are repeated this long: longer than a node may wait before it believes them.
const FLOOD: Duration = Duration::from_secs(12);
/// A takeover is tried this often, each time in a later term.
const TAKEOVERS: u64 = 30;
/// A running leader commits and applies within this.
const CALM: Duration = Duration::from_secs(60);

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "forged.refusals-of-a-stranger",
        expected: "a flood of words of refusal by a certificate that never joined: no node exits",
        run: |bench| refused(bench, Sender::Stranger),
    },
    Row {
        name: "forged.refusals-of-a-learner",
        expected: "the same by a learner: no node exits",
        run: |bench| refused(bench, Sender::Learner),
    },
    Row {
        name: "forged.refusals-of-a-voter",
        expected: "the same by one voter of five: no node exits, and none stays suspended",
        run: |bench| refused(bench, Sender::Voter),
    },
    Row {
        name: "forged.usurp-append",
        expected: "a learner that claims to lead with a forged write: it is not taken, nothing forks",
        run: |bench| usurp(bench, |_, tail| append(tail, Payload::Command(forged_command()))),
    },
    Row {
        name: "forged.usurp-garbage",
        expected: "a learner that claims to lead with a command that does not decode: no group halts",
        run: |bench| {
            usurp(bench, |_, tail| append(tail, Payload::Command(Bytes::from_static(&[0xff; 19]))))
        },
    },
    Row {
        name: "forged.usurp-snapshot",
        expected: "a learner that offers a snapshot of garbage: no node exits, and each starts again",
        run: |bench| usurp(bench, |facts, tail| facts.snapshot(tail.term, tail).into()),
    },
    Row {
        name: "forged.kinds-of-a-stranger",
        expected: "every kind of message with forged content by a stranger: no exit, no fork, no halted group",
        run: |bench| kinds(bench, Sender::Stranger),
    },
    Row {
        name: "forged.kinds-of-a-learner",
        expected: "the same by a learner",
        run: |bench| kinds(bench, Sender::Learner),
    },
    Row {
        name: "forged.kinds-of-a-voter",
        expected: "the same by one voter of five, except that it leads a later term, or that terms end",
        run: |bench| kinds(bench, Sender::Voter),
    },
    Row {
        name: "forged.replayed",
        expected: "a learner and then a stranger send what a learner heard, in another order, to other nodes and \
                   with flipped bits: no exit, no fork, no halted group",
        run: replayed,
    },
    Row {
        name: "forged.another-author",
        expected: "a learner sends eventual writes with the dots that another node used or will use: all replicas are \
                   equal, and no write of the other nodes is lost",
        run: another_author,
    },
];

/// The identity that the attacker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Stranger,
    Learner,
    Voter,
}

/// A federation under attack.
struct Scene {
    nodes: Nodes,
    book: Book,
    attacker: Attacker,
    /// The nodes that run and are attacked.
    victims: Vec<usize>,
    /// Those of them whose writes may not be lost.
    writing: Vec<usize>,
    /// Links to them; `None` while one is down.
    links: Vec<Option<Link>>,
}

impl Scene {
    /// Three voters, or five if the attacker is one of them: the rest are a majority of the others of each node.
    fn begin(bench: &Bench, sender: Sender) -> Check<Self> {
        let voters = if sender == Sender::Voter { 5 } else { 3 };
        Self::begin_with(bench, sender, voters, &(0..voters).collect::<Vec<_>>())
    }

    /// As [`Scene::begin`]; only these nodes write.
    fn begin_with(bench: &Bench, sender: Sender, voters: usize, writing: &[usize]) -> Check<Self> {
        let mut nodes = Nodes::new(bench, voters);
        nodes.form(voters)?;
        make_namespaces(nodes.all[0].api)?;
        let mut book = Book::default();
        put(&mut book, nodes.all[0].api, STRONG, "acct", "100");
        must_write(&mut book, &nodes, writing, "-before")?;
        let all: Vec<usize> = (0..voters).collect();
        let (attacker, victims) = match sender {
            Sender::Stranger | Sender::Learner => (Attacker::stranger(&nodes), all),
            Sender::Voter => {
                settle(bench, &nodes, &all, &book)?;
                let lost = voters - 1;
                let last = &nodes.all[lost];
                let (store, boot) =
                    (last.store().ok_or("no store")?, last.boot().ok_or("no boot")?);
                let _ = nodes.all[lost].kill();
                // The others notice the loss before the attacker appears in its place.
                pause(Duration::from_secs(2));
                (Attacker::voter(&nodes, &nodes.all[lost], store, boot), (0..lost).collect())
            }
        };
        let addresses = Self::addresses(&nodes, &victims);
        let links = if sender == Sender::Learner {
            attacker.join(&addresses)?.into_iter().map(Some).collect()
        } else {
            addresses.iter().map(|to| attacker.link(*to).map(Some)).collect::<Check<_>>()?
        };
        let writing = writing.iter().copied().filter(|at| victims.contains(at)).collect();
        Ok(Self { nodes, book, attacker, victims, writing, links })
    }

    fn addresses(nodes: &Nodes, victims: &[usize]) -> Vec<SocketAddr> {
        victims.iter().map(|at| nodes.all[*at].peer).collect()
    }

    /// Sends to one victim, over a new link if the last one was closed.
    fn send(&mut self, at: usize, plane: Plane, message: &Message) -> bool {
        let peer = self.nodes.all[self.victims[at]].peer;
        if self.links[at].is_none() {
            self.links[at] = self.attacker.link(peer).ok();
        }
        let Some(link) = &mut self.links[at] else { return false };
        let is_sent = link.send(plane, message).is_ok();
        if !is_sent {
            self.links[at] = None;
        }
        is_sent
    }

    /// Keeps the links, and reads what the victims say.
    fn breathe(&mut self) {
        for link in &mut self.links {
            if let Some(open) = link {
                open.keep_alive();
                if !open.listen() {
                    *link = None;
                }
            }
        }
    }

    fn facts(&self, at: usize) -> Facts {
        let victim = &self.nodes.all[self.victims[at]];
        let others: Vec<_> = self.victims.iter().map(|at| &self.nodes.all[*at]).collect();
        Facts::of(victim, &others, self.attacker.me, self.attacker.boot)
    }

    /// Sends all messages to one victim, with a breath now and then.
    fn assault(&mut self, at: usize, messages: &[Forged]) -> u64 {
        let mut sent = 0;
        for (number, (plane, message)) in messages.iter().enumerate() {
            sent += u64::from(self.send(at, *plane, message));
            if number % 64 == 63 {
                self.breathe();
            }
        }
        self.breathe();
        sent
    }

    /// Nobody exited, no group halted, and nothing is lost: now, and after a restart of all victims.
    fn survives(mut self, bench: &Bench) -> Check<String> {
        self.links.clear();
        self.nodes.all_serve(&self.victims)?;
        groups_work(&self.nodes, &self.victims)?;
        must_write(&mut self.book, &self.nodes, &self.writing, "-after")?;
        settle(bench, &self.nodes, &self.victims, &self.book)?;
        self.nodes.restart(&self.victims)?;
        self.nodes.all_serve(&self.victims)?;
        groups_work(&self.nodes, &self.victims)?;
        must_write(&mut self.book, &self.nodes, &self.writing, "-restarted")?;
        settle(bench, &self.nodes, &self.victims, &self.book)
    }
}

/// Each group has a leader, and each of these nodes has applied what it committed.
fn groups_work(nodes: &Nodes, who: &[usize]) -> Check {
    let mut last = String::new();
    let work = || {
        who.iter().all(|at| {
            let status = nodes.all[*at].status();
            let groups = status["groups"].as_array().cloned().unwrap_or_default();
            let broken =
                groups.iter().find(|g| g["leader"].is_null() || g["applied"] != g["commit"]);
            last = broken.map_or_else(String::new, |group| format!("n{}: {group}", at + 1));
            broken.is_none() && !groups.is_empty()
        })
    };
    wait_until(CALM, work, String::new)
        .map(drop)
        .map_err(|_| format!("a group does not work: {last}"))
}

fn refused(bench: &Bench, sender: Sender) -> Check<String> {
    let mut scene = Scene::begin(bench, sender)?;
    let writers = Writers::start(&scene.nodes, &scene.victims, "");
    let (watch, mut sent) = (Stopwatch::start(), 0_u64);
    while watch.elapsed() < FLOOD {
        for at in 0..scene.victims.len() {
            for (plane, message) in refusals(&scene.facts(at)) {
                sent += u64::from(scene.send(at, plane, &message));
            }
        }
        scene.breathe();
    }
    writers.stop(&mut scene.book);
    holds(sent > 50, || format!("only {sent} words were sent: the flood did not take place"))?;
    let settled = scene.survives(bench)?;
    Ok(format!("{sent} words of refusal in {} s; {settled}", FLOOD.as_secs()))
}

/// An append right behind the victim's log, and the order to commit it.
fn append(tail: Position, payload: Payload) -> Vec<raft::Message> {
    let (term, prev) = (tail.term, Position { term: Term(tail.term.0 - 1), index: tail.index });
    let commit = tail.index.next();
    let entries = vec![Entry { term, time_ms: 1, payload }];
    vec![
        raft::Message::Append { term, prev, commit, entries },
        raft::Message::Heartbeat { term, commit, round: 1 },
    ]
}

/// A learner claims to lead each group of each voter. `messages` gets the next term and the victim's last index.
fn usurp(bench: &Bench, messages: fn(&Facts, Position) -> Vec<raft::Message>) -> Check<String> {
    let mut scene = Scene::begin(bench, Sender::Learner)?;
    let writers = Writers::start(&scene.nodes, &scene.victims, "");
    let mut sent = 0;
    for round in 0..TAKEOVERS {
        for at in 0..scene.victims.len() {
            let facts = scene.facts(at);
            for (group, term, _, last) in facts.groups.clone() {
                let tail = Position { term: Term(term.0 + 1), index: last };
                let claims = messages(&facts, tail).into_iter();
                let forged: Vec<Forged> = claims.map(|m| raft_message(&facts, group, m)).collect();
                sent += scene.assault(at, &forged);
            }
        }
        // The last ones hit a federation that does nothing else.
        if round == TAKEOVERS / 2 {
            pause(Duration::from_millis(200));
        }
    }
    writers.stop(&mut scene.book);
    let quiet: Vec<(usize, Vec<Forged>)> = (0..scene.victims.len())
        .map(|at| {
            let facts = scene.facts(at);
            let claim = |(group, term, _, last): &(_, Term, _, Index)| {
                let tail = Position { term: Term(term.0 + 1), index: *last };
                messages(&facts, tail)
                    .into_iter()
                    .map(|m| raft_message(&facts, *group, m))
                    .collect::<Vec<_>>()
            };
            (at, facts.groups.iter().flat_map(claim).collect())
        })
        .collect();
    sent += quiet.iter().map(|(at, forged)| scene.assault(*at, forged)).sum::<u64>();
    holds(sent > TAKEOVERS, || format!("only {sent} messages were sent"))?;
    let settled = scene.survives(bench)?;
    Ok(format!("{sent} claims to lead; {settled}"))
}

fn kinds(bench: &Bench, sender: Sender) -> Check<String> {
    let reach = if sender == Sender::Voter { Reach::Voter } else { Reach::All };
    let mut scene = Scene::begin(bench, sender)?;
    let writers = Writers::start(&scene.nodes, &scene.victims, "");
    let (mut sent, mut made) = (0, 0);
    for pass in 0..3 {
        bench.progress(&format!("pass {} of 3", pass + 1));
        for at in 0..scene.victims.len() {
            let mut forgeries = scene.facts(at).forgeries(reach);
            if pass == 1 {
                forgeries.reverse();
            }
            made += forgeries.len() as u64;
            sent += scene.assault(at, &forgeries);
        }
    }
    writers.stop(&mut scene.book);
    holds(sent * 2 > made, || format!("only {sent} of {made} forgeries were sent"))?;
    let settled = scene.survives(bench)?;
    Ok(format!("{sent} forgeries; {settled}"))
}

/// A copy of a message with one bit flipped, if it still is one.
fn flipped(message: &Message, bit: usize) -> Option<Message> {
    let mut bytes = codec::encode(message).to_vec();
    let at = bit % (bytes.len() * 8);
    bytes[at / 8] ^= 1 << (at % 8);
    Message::decode(&bytes, bytes.len()).ok()
}

const fn plane_of(message: &Message) -> Plane {
    match message {
        Message::Replication { .. } => Plane::Bulk,
        _ => Plane::Control,
    }
}

fn replayed(bench: &Bench) -> Check<String> {
    let mut scene = Scene::begin(bench, Sender::Learner)?;
    let writers = Writers::start(&scene.nodes, &scene.victims, "");
    let heard = |scene: &Scene| -> usize {
        scene.links.iter().flatten().map(|link| link.received.len()).sum()
    };
    wait_until(
        SOON,
        || {
            scene.breathe();
            heard(&scene) > 200
        },
        || "a learner hears next to nothing".into(),
    )?;
    let recorded =
        scene.links.iter().flatten().flat_map(|link| link.received.iter().rev().take(600));
    let mut recorded: Vec<Message> = recorded.cloned().collect();
    let mutated: Vec<Message> = recorded
        .iter()
        .enumerate()
        .flat_map(|(number, message)| {
            (0..3).filter_map(move |k| flipped(message, number * 37 + k * 101))
        })
        .collect();
    let count = recorded.len();
    recorded.extend(mutated);
    let forged: Vec<Forged> =
        recorded.into_iter().map(|message| (plane_of(&message), message)).collect();
    let mut sent = 0;
    for at in 0..scene.victims.len() {
        sent += scene.assault(at, &forged);
    }
    // A stranger that recorded them elsewhere says the same.
    scene.attacker = Attacker::stranger(&scene.nodes);
    for at in 0..scene.victims.len() {
        scene.links[at] = None;
        sent += scene.assault(at, &forged);
    }
    writers.stop(&mut scene.book);
    holds(sent as usize > count, || format!("only {sent} messages were sent"))?;
    let settled = scene.survives(bench)?;
    Ok(format!(
        "{count} recorded messages and {} mutated ones, {sent} sent; {settled}",
        forged.len() - count
    ))
}

/// The dots of one node's process that are forged: some are in use, the others will be.
const FORGED_DOTS: u64 = 120;

fn another_author(bench: &Bench) -> Check<String> {
    let mut scene = Scene::begin_with(bench, Sender::Learner, 3, &[0, 2])?;
    let author = &scene.nodes.all[1];
    let replica = Replica { node: author.id, store: author.store().ok_or("no store")? };
    let actor = Actor { replica, boot: author.boot().ok_or("no boot")? };
    let shard = *scene.facts(0).shards.first().ok_or("no shard")?;
    let writers = Writers::start(&scene.nodes, &scene.writing, "");
    // Writes are not signed: a member can take the place of what this node wrote.
    let doubtful = Writers::start(&scene.nodes, &[1], "");
    let mut sent = 0;
    for at in 0..scene.victims.len() {
        let facts = scene.facts(at);
        let mut forged = Vec::new();
        for seq in 1..=FORGED_DOTS {
            // Each victim gets another write of the same dot.
            let key = format!("by-nobody-{seq}-{at}");
            scene.book.put(EVENTUAL, &key, FORGED, Answered::Unknown);
            let writes = vec![sealed_put(shard, Dot { actor, seq }, &key, 1 << 40)];
            forged.push(replication_message(&facts, replication::Message::Delta { shard, writes }));
        }
        sent += scene.assault(at, &forged);
    }
    pause(Duration::from_secs(2));
    writers.stop(&mut scene.book);
    let mut doubted = Book::default();
    doubtful.stop(&mut doubted);
    scene.book.merge(doubted.doubted());
    holds(sent > FORGED_DOTS, || format!("only {sent} writes were sent"))?;
    let settled = scene.survives(bench)?;
    Ok(format!("{sent} writes in another's name; {settled}"))
}

#[cfg(test)]
mod tests {
    use continuum_core::node::Refusal;

    use super::*;

    #[test]
    fn a_takeover_fits_behind_the_log_and_commits_itself() {
        let tail = Position { term: Term(4), index: Index(9) };
        let claims = append(tail, Payload::Noop);
        let raft::Message::Append { term, prev, commit, entries } = &claims[0] else {
            panic!("an append")
        };
        assert_eq!(
            (*term, *prev, *commit),
            (Term(4), Position { term: Term(3), index: Index(9) }, Index(10))
        );
        assert_eq!(entries[0].term, Term(4));
    }

    #[test]
    fn a_flipped_bit_gives_another_message_or_none() {
        let known = continuum_core::id::Boot::default();
        let message = Message::Refused { refusal: Refusal::Cloned, known };
        let bits = codec::encode(&message).len() * 8;
        let flipped: Vec<_> = (0..bits).filter_map(|bit| flipped(&message, bit)).collect();
        assert!(!flipped.is_empty() && flipped.iter().all(|one| *one != message));
    }
}
