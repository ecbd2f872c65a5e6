//! Floods: addresses to dial, members that do not exist, and messages that fill a log.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use continuum_core::api::{Outcome, Value};
use continuum_core::id::{NodeId, Replica, StoreId};
use continuum_core::node::{Message, Plane};
use continuum_runtime::clock::Stopwatch;
use continuum_runtime::entropy;

use crate::attack::Attacker;
use crate::attack::forge::{Facts, Reach, contacts, join_request};
use crate::book::Book;
use crate::federation::{Nodes, SOON};
use crate::row::{Bench, Check, Row, holds, pause, wait_until};
use crate::writers::{Writers, make_namespaces, must_write, settle};

use super::founding::one_federation;

const ALL: [usize; 3] = [0, 1, 2];
/// Listeners whose addresses an attacker spreads.
const TRAPS: usize = 16;
/// Joins of nodes that do not exist: more than a federation may have members.
const FAKES: u64 = 1100;
/// Members that a federation of three and one attacker may list after all that.
const MEMBERS_MAX: usize = 16;
/// A flood of a log lasts this long.
const FLOOD: Duration = Duration::from_secs(6);
/// A log grows by this at most in a flood, on each node.
const LOG_BYTES_MAX: u64 = 64 << 10;

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "flood.contacts",
        "a stranger spreads addresses: no node dials one, formed or not",
        dials,
    ),
    Row::new(
        "flood.joins",
        "a member lets 1,100 nodes in that do not exist: the members stay at most 16, and a real node joins",
        joins,
    ),
    Row::new(
        "flood.join-as-another",
        "joins in another's name change no member and add none",
        joins_as_another,
    ),
    Row::new(
        "flood.log-of-rejections",
        "6 s of rejected messages of a member: each log grows by at most 64 KiB",
        |bench| log_of_messages(bench, true),
    ),
    Row::new(
        "flood.log-of-a-stranger",
        "6 s of rejected messages of a stranger: each log grows by at most 64 KiB",
        |bench| log_of_messages(bench, false),
    ),
    Row::new(
        "flood.log-of-connections",
        "6 s of connections without a certificate: the log grows by at most 64 KiB",
        log_of_connections,
    ),
];

/// Three nodes with data.
fn begin(bench: &Bench, nodes: usize) -> Check<(Nodes, Book)> {
    let mut all = Nodes::new(bench, nodes);
    all.start(&ALL)?;
    let answer = all.init(0, &[1, 2]);
    holds(answer.is_some_and(|answer| answer.is_ok()), || "the federation was not made".into())?;
    all.all_serve(&ALL)?;
    make_namespaces(all.all[0].api)?;
    let mut book = Book::default();
    must_write(&mut book, &all, &ALL, "-before")?;
    Ok((all, book))
}

/// Writes after the attack, and looks for everything.
fn finish(bench: &Bench, nodes: &mut Nodes, who: &[usize], book: &mut Book) -> Check<String> {
    nodes.all_serve(who)?;
    must_write(book, nodes, who, "-after")?;
    settle(bench, nodes, who, book)
}

fn peers(nodes: &Nodes, who: &[usize]) -> Vec<SocketAddr> {
    who.iter().map(|at| nodes.all[*at].peer).collect()
}

fn dials(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 4)?;
    // The fourth node knows nobody and is in no federation.
    nodes.all[3].bootstrap.clear();
    nodes.start(&[3])?;
    let traps: Vec<TcpListener> =
        (0..TRAPS).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let addresses: Vec<String> =
        traps.iter().map(|trap| trap.local_addr().expect("bound").to_string()).collect();
    for trap in &traps {
        trap.set_nonblocking(true).map_err(|error| error.to_string())?;
    }
    let stranger = Attacker::stranger(&nodes);
    let mut dialled = [0_u32; 4];
    let mut sent = 0;
    for (at, count) in dialled.iter_mut().enumerate() {
        let mut link = stranger.link(nodes.all[at].peer)?;
        let watch = Stopwatch::start();
        while watch.elapsed() < Duration::from_secs(6) {
            let message = Message::Contacts(contacts(addresses.iter().cloned()));
            sent += u64::from(link.send(Plane::Control, &message).is_ok());
            link.keep_alive();
            *count += traps.iter().map(|trap| u32::from(trap.accept().is_ok())).sum::<u32>();
            pause(Duration::from_millis(100));
        }
    }
    holds(sent > 40, || format!("only {sent} messages were sent"))?;
    holds(dialled == [0; 4], || {
        format!(
            "the nodes made {dialled:?} dials to addresses of a stranger; the last one is unformed"
        )
    })?;
    let settled = finish(bench, &mut nodes, &ALL, &mut book)?;
    Ok(format!("{sent} messages of {TRAPS} addresses, no dial; {settled}"))
}

/// A replica that does not exist.
fn nobody() -> Replica {
    Replica { node: NodeId(entropy::identity()), store: StoreId(entropy::identity()) }
}

fn joins(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 4)?;
    let writers = Writers::start(&nodes, &ALL, "");
    let attacker = Attacker::stranger(&nodes);
    let mut links = attacker.join(&peers(&nodes, &ALL))?;
    let mut let_in = 0_u64;
    for number in 0..FAKES {
        let count = links.len();
        let link = &mut links[number as usize % count];
        let request = join_request(nobody(), "127.0.0.1:9");
        let message = attacker.forward(number, request);
        if link.send(Plane::Control, &message).is_err() {
            *link = attacker.link(nodes.all[number as usize % 3].peer)?;
        }
        if number % 20 == 0 {
            links.iter_mut().for_each(crate::attack::link::Link::keep_alive);
        }
    }
    pause(Duration::from_secs(3));
    for link in &mut links {
        link.keep_alive();
        let joined = |message: &&Message| {
            matches!(message, Message::Answer { outcome: Outcome::Value(Value::Joined(_)), .. })
        };
        let_in += link.received.iter().filter(joined).count() as u64;
    }
    let members = nodes.all[0].members().len();
    writers.stop(&mut book);
    holds(members <= MEMBERS_MAX, || {
        format!("{members} members after {FAKES} joins, {let_in} let in")
    })?;
    drop(links);
    nodes.start(&[3])?;
    nodes.all[3].becomes_ready().map_err(|error| format!("a real node does not join: {error}"))?;
    let settled = finish(bench, &mut nodes, &[0, 1, 2, 3], &mut book)?;
    Ok(format!("{members} members after {FAKES} joins, a real node joined; {settled}"))
}

fn joins_as_another(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let before = member_entries(&nodes);
    let victim = &nodes.all[2];
    let store = victim.store().ok_or("no store")?;
    let other_store = StoreId(entropy::identity());
    let targets = [
        Replica { node: victim.id, store },
        Replica { node: victim.id, store: other_store },
        nobody(),
    ];
    let mut sent = 0;
    for is_member in [false, true] {
        let attacker = Attacker::stranger(&nodes);
        let mut links = if is_member {
            attacker.join(&peers(&nodes, &ALL))?
        } else {
            peers(&nodes, &ALL)
                .into_iter()
                .map(|to| attacker.link(to))
                .collect::<Check<Vec<_>>>()?
        };
        for (number, target) in targets.iter().cycle().take(30).enumerate() {
            for link in &mut links {
                let request = join_request(*target, "127.0.0.1:9");
                let message = attacker.forward(7000 + number as u64, request);
                sent += u64::from(link.send(Plane::Control, &message).is_ok());
                link.listen();
            }
        }
        pause(Duration::from_secs(2));
        // The attacker itself is a member now.
        let mut after = member_entries(&nodes);
        after.retain(|entry| !entry.contains(&attacker.me.node.to_string()));
        holds(before == after, || format!("members were {before:?} and are {after:?}"))?;
    }
    holds(sent > 100, || format!("only {sent} joins were sent"))?;
    let settled = finish(bench, &mut nodes, &ALL, &mut book)?;
    Ok(format!("{sent} joins in another's name; {settled}"))
}

/// The members with their addresses and names.
fn member_entries(nodes: &Nodes) -> Vec<String> {
    let entry = |member: &serde_json::Value| {
        format!("{} {} {} {}", member["node"], member["store"], member["address"], member["name"])
    };
    let mut entries: Vec<String> = nodes.all[0].members().iter().map(entry).collect();
    entries.sort();
    entries
}

/// The log of each node, before and after: no one may grow by more than the bound.
fn grown(nodes: &Nodes, before: &[u64]) -> Check<u64> {
    let grown: Vec<u64> = ALL.iter().map(|at| nodes.all[*at].log_bytes() - before[*at]).collect();
    let most = grown.iter().copied().max().unwrap_or(0);
    holds(most <= LOG_BYTES_MAX, || format!("the logs grew by {grown:?} bytes"))?;
    Ok(most)
}

fn log_of_messages(bench: &Bench, is_member: bool) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let writers = Writers::start(&nodes, &ALL, "");
    let attacker = Attacker::stranger(&nodes);
    let targets = peers(&nodes, &ALL);
    let mut links = if is_member {
        attacker.join(&targets)?
    } else {
        targets.iter().map(|to| attacker.link(*to)).collect::<Check<Vec<_>>>()?
    };
    let before: Vec<u64> = nodes.all.iter().map(crate::federation::Node::log_bytes).collect();
    let all: Vec<_> = nodes.all.iter().collect();
    let facts = Facts::of(&nodes.all[0], &all, attacker.me, attacker.boot);
    let forgeries = facts.forgeries(Reach::All);
    let rejected: Vec<_> =
        forgeries.iter().filter(|(_, message)| matches!(message, Message::Raft { .. })).collect();
    let (watch, mut sent) = (Stopwatch::start(), 0_u64);
    while watch.elapsed() < FLOOD {
        for (number, (plane, message)) in rejected.iter().enumerate() {
            let link = &mut links[number % targets.len()];
            match link.send(*plane, message) {
                Ok(()) => sent += 1,
                Err(_) => *link = attacker.link(targets[number % targets.len()])?,
            }
        }
        links.iter_mut().for_each(crate::attack::link::Link::keep_alive);
    }
    writers.stop(&mut book);
    // A log may lag behind what it is to say.
    pause(Duration::from_secs(1));
    holds(sent > 2000, || format!("only {sent} messages were sent"))?;
    let most = grown(&nodes, &before)?;
    let settled = finish(bench, &mut nodes, &ALL, &mut book)?;
    Ok(format!("{sent} messages, the longest log grew by {most} bytes; {settled}"))
}

fn log_of_connections(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let writers = Writers::start(&nodes, &ALL, "");
    let before: Vec<u64> = nodes.all.iter().map(crate::federation::Node::log_bytes).collect();
    let (watch, mut made) = (Stopwatch::start(), 0_u64);
    while watch.elapsed() < FLOOD {
        for at in ALL {
            if let Ok(mut stream) = TcpStream::connect(nodes.all[at].peer) {
                // No TLS: the node refuses it and closes.
                made += u64::from(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok());
            }
        }
    }
    writers.stop(&mut book);
    pause(Duration::from_secs(6));
    holds(made > 1000, || format!("only {made} connections were made"))?;
    let most = grown(&nodes, &before)?;
    wait_until(
        SOON,
        || one_federation(&mut nodes, &ALL).is_ok(),
        || "the nodes lost each other".into(),
    )?;
    let settled = finish(bench, &mut nodes, &ALL, &mut book)?;
    Ok(format!("{made} connections, the longest log grew by {most} bytes; {settled}"))
}
