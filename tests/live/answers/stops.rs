//! Clean ends of leaders under load: the office is handed over, what was logged is answered, and nothing is lost.

use std::net::SocketAddr;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;

use super::{ALL, begin, finish, leader};
use crate::book::{Book, STRONG};
use crate::federation::{Nodes, SOON};
use crate::honest::{Honest, Manner, Told, gap, ms, p99};
use crate::row::{Bench, Check, Row, holds, pause, wait_for};

/// A node that is asked to stop has ended within this.
const ENDS: Duration = Duration::from_secs(5);
/// The gap beyond the time in which the leader answers what it has begun.
const GAP_MAX: Duration = Duration::from_millis(100);
/// Clients write for this long before a stop and after it.
const BESIDE: Duration = Duration::from_millis(800);
/// Clients of the leader itself when it is asked to stop.
const CLIENTS: usize = 16;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "stops.leaders",
        expected: "SIGTERM of the leader under load, --rounds times: exit 0 within 5 s; the gap of strong writes at \
                   the others is at most 100 ms beyond the drain (p99 printed); nothing is lost",
        run: leaders,
    },
    Row {
        name: "stops.answers",
        expected: "16 clients write to the leader when it is asked to stop: each request is committed or refused with \
                   503, or its connection is refused; no write without an answer has happened",
        run: answers,
    },
];

/// Writes of clients at these nodes, while the one in office is asked to stop.
struct Stopped {
    told: Vec<Vec<Told>>,
    /// When it was asked, and how long it took to end, since the clients began.
    asked: Duration,
    drain: Duration,
}

fn stop_leader(nodes: &mut Nodes, book: &mut Book, round: u32) -> Check<Stopped> {
    let (at, _) = wait_for(SOON, || leader(nodes, STRONG)).ok_or("no node leads the group")?;
    let others: Vec<SocketAddr> =
        ALL.iter().filter(|other| **other != at).map(|other| nodes.all[*other].api).collect();
    let manner = |api: &SocketAddr| Manner { anew: false, ..Manner::at(*api) };
    let begun = Stopwatch::start();
    let clients: Vec<Honest> = others
        .iter()
        .enumerate()
        .map(|(number, api)| Honest::start(manner(api), format!("stop{round}-{number}")))
        .collect();
    pause(BESIDE);
    let asked = begun.elapsed();
    nodes.all[at].signal("TERM");
    let ended = nodes.all[at].ends(SOON);
    let drain = begun.elapsed() - asked;
    pause(BESIDE);
    let told = clients.into_iter().map(|client| client.stop(book)).collect();
    let last = nodes.all[at].last_line();
    let _ = nodes.all[at].kill();
    let code = ended.map(|(code, _)| code);
    holds(code == Some(0) && drain <= ENDS, || {
        format!("round {round}: the leader ended with {code:?} after {}: {last}", ms(drain))
    })?;
    nodes.start(&[at])?;
    nodes.all_serve(&ALL)?;
    Ok(Stopped { told, asked, drain })
}

fn leaders(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let (mut gaps, mut beyond, mut drains, mut refused) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..bench.rounds {
        let stopped = stop_leader(&mut nodes, &mut book, round)?;
        let Stopped { told, asked, drain } = &stopped;
        let found = gap(told, asked.saturating_sub(BESIDE / 2), *asked + *drain + BESIDE / 2);
        refused += told.iter().flatten().filter(|one| !one.refusal.is_empty()).count();
        gaps.push(found);
        beyond.push(found.saturating_sub(*drain));
        drains.push(*drain);
        if round % 10 == 9 {
            bench.progress(&format!("{} stops, gap p99 {}", round + 1, ms(p99(gaps.clone()))));
        }
    }
    let observed = format!(
        "{} stops: gap p99 {} (longest {}), beyond the drain p99 {}; drain p99 {}; {refused} requests refused",
        bench.rounds,
        ms(p99(gaps.clone())),
        ms(gaps.iter().copied().max().unwrap_or_default()),
        ms(p99(beyond.clone())),
        ms(p99(drains))
    );
    let settled = finish(bench, &mut nodes, &mut book)?;
    holds(p99(beyond) <= GAP_MAX, || observed.clone())?;
    Ok(format!("{observed}; {settled}"))
}

fn answers(bench: &Bench) -> Check<String> {
    let (mut nodes, mut book) = begin(bench, 3)?;
    let (mut committed, mut refused) = (0, 0);
    let (mut doubtful, mut silent) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds.min(10) {
        let (at, _) = wait_for(SOON, || leader(&nodes, STRONG)).ok_or("no node leads the group")?;
        let api = nodes.all[at].api;
        let clients: Vec<Honest> = (0..CLIENTS)
            .map(|number| Honest::start(Manner::at(api), format!("last{round}-{number}")))
            .collect();
        pause(BESIDE);
        nodes.all[at].signal("TERM");
        let ended = nodes.all[at].ends(SOON);
        for told in clients.into_iter().flat_map(|client| client.stop(&mut book)) {
            match told.refusal.as_str() {
                "" => committed += 1,
                text if text.starts_with("503") => refused += 1,
                // The connection was refused, or closed before the request was read, or the answer is missing.
                "no answer" => silent.push(told),
                _ => doubtful.push(told),
            }
        }
        let _ = nodes.all[at].kill();
        let code = ended.map(|(code, _)| code);
        holds(code == Some(0), || format!("round {round}: the leader ended with {code:?}"))?;
        nodes.start(&[at])?;
        nodes.all_serve(&ALL)?;
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    let rows = crate::writers::rows(nodes.all[0].api, STRONG).ok_or("no rows")?;
    let has_happened = |told: &&Told| {
        let row = format!("{:?}", rows.get(&told.key));
        row.contains(&format!("{:?}", told.value))
    };
    let unanswered: Vec<&Told> = silent.iter().filter(has_happened).collect();
    let first = |told: &Told| format!("{} after {}", told.refusal, ms(told.took));
    holds(doubtful.is_empty(), || {
        format!("{} of {committed} had no sure answer: {}", doubtful.len(), first(&doubtful[0]))
    })?;
    holds(unanswered.is_empty(), || {
        format!("{} writes happened without an answer: {}", unanswered.len(), first(unanswered[0]))
    })?;
    Ok(format!(
        "{committed} committed, {refused} refused with 503, {} connections refused; {settled}",
        silent.len()
    ))
}
