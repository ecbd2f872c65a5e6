//! Copied and rolled-back data directories: two processes with one identity, at once or one after the other.

use std::fs;
use std::time::Duration;

use crate::book::{Book, EVENTUAL};
use crate::federation::{Nodes, copy};
use crate::http::Ask;
use crate::row::{Bench, Check, Row, holds, pause};
use crate::writers::{Writers, make_namespaces, settle, write_some};

/// The exit code of a fenced process.
const FENCED: i32 = 6;
/// A copy that one voter refuses is watched for this long.
const WATCHED: Duration = Duration::from_secs(12);
/// A copy is fenced within this.
const FENCES: Duration = Duration::from_secs(60);
/// Starts of a copy, one after the other.
const STARTS: usize = 5;
const ALL: [usize; 3] = [0, 1, 2];

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "copies.live",
        expected: "a copied directory started while the original lives: exit 6 at each of 5 starts, it acknowledges \
                   nothing, and the original runs on",
        run: |bench| live(bench, 2),
    },
    Row {
        name: "copies.live-of-the-founder",
        expected: "the same with the directory of the node that founded the federation",
        run: |bench| live(bench, 0),
    },
    Row {
        name: "copies.rolled-back",
        expected: "an older copy put back: exit 6 at each of 5 starts, also after all peers were restarted",
        run: rolled_back,
    },
    Row {
        name: "copies.one-voter-away",
        expected: "a copy started beside the original while one voter of three is down: it acknowledges nothing, and \
                   ends with exit 6 once that voter is back",
        run: one_voter_away,
    },
    Row {
        name: "copies.of-the-dead",
        expected: "a copy of the newest state of a node that does not run serves as that node; the original directory \
                   then ends with exit 6 and acknowledges nothing",
        run: of_the_dead,
    },
];

/// Starts a node of `who`'s identity on other ports and in the directory `data`. Returns its number.
fn copied_node(nodes: &mut Nodes, who: usize) -> usize {
    nodes.add();
    let at = nodes.all.len() - 1;
    let (identity, bootstrap) = (nodes.all[who].issued.clone(), nodes.all[who].bootstrap.clone());
    let node = &mut nodes.all[at];
    node.take_identity(&identity);
    node.bootstrap = bootstrap;
    at
}

/// Writes to a node until it ends. Returns its exit code and the number of acknowledged writes.
fn write_until_it_ends(nodes: &mut Nodes, at: usize) -> Check<(i32, u32)> {
    let (code, acknowledged) = write_for(nodes, at, FENCES);
    let ready = nodes.all[at].ready().unwrap_or_default();
    let _ = nodes.all[at].kill();
    let code = code
        .ok_or_else(|| format!("the copy still runs after {} s: {}", FENCES.as_secs(), ready.body));
    Ok((code?, acknowledged))
}

/// Writes to a node for this long, or until it ends. Returns its exit code and the number of acknowledged writes.
fn write_for(nodes: &mut Nodes, at: usize, time: Duration) -> (Option<i32>, u32) {
    let mut acknowledged = 0;
    let api = nodes.all[at].api;
    let limit = continuum_runtime::clock::Stopwatch::start();
    while limit.elapsed() < time {
        if let Some(code) = nodes.all[at].ended() {
            return (Some(code), acknowledged);
        }
        // The copy has the original's namespaces, and could write into them.
        let path = format!("/v1/namespaces/{EVENTUAL}/kv/of-a-copy");
        let ask = Ask::new("PUT", path).raw("x").within(Duration::from_secs(2));
        acknowledged += u32::from(ask.send(api).is_some_and(|answer| answer.is_ok()));
        pause(Duration::from_millis(20));
    }
    (None, acknowledged)
}

fn live(bench: &Bench, original: usize) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    let writers = Writers::start(&nodes, &ALL, "");
    pause(Duration::from_secs(1));
    let at = copied_node(&mut nodes, original);
    let (from, to) = (nodes.all[original].data.clone(), nodes.all[at].data.clone());
    copy(&from, &to);
    let mut codes = Vec::new();
    for start in 1..=STARTS {
        bench.progress(&format!("start {start} of the copy"));
        nodes.all[at].start();
        let (code, acknowledged) = write_until_it_ends(&mut nodes, at)?;
        codes.push(code);
        holds(acknowledged == 0, || {
            format!("start {start}: the copy acknowledged {acknowledged} writes")
        })?;
    }
    writers.stop(&mut book);
    holds(codes.iter().all(|code| *code == FENCED), || format!("the copy ended with {codes:?}"))?;
    nodes.all_serve(&ALL)?;
    write_some(&mut book, &nodes, &ALL, "-after");
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("the copy ended with {codes:?}; {settled}"))
}

fn rolled_back(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "-early");
    nodes.all[2].stop();
    let data = nodes.all[2].data.clone();
    let (older, newest) = (data.with_extension("older"), data.with_extension("newest"));
    copy(&data, &older);
    nodes.start(&[2])?;
    nodes.all[2].becomes_ready()?;
    write_some(&mut book, &nodes, &ALL, "-later");
    settle(bench, &nodes, &ALL, &book)?;
    let _ = nodes.all[2].kill();
    fs::rename(&data, &newest).map_err(|error| error.to_string())?;
    copy(&older, &data);
    let mut codes = Vec::new();
    for start in 1..=STARTS + 1 {
        if start == STARTS + 1 {
            bench.progress("all peers are restarted");
            nodes.restart(&[0, 1])?;
            nodes.all_serve(&[0, 1])?;
        }
        nodes.all[2].start();
        let (code, acknowledged) = write_until_it_ends(&mut nodes, 2)?;
        codes.push(code);
        holds(acknowledged == 0, || {
            format!("start {start}: the older copy acknowledged {acknowledged} writes")
        })?;
    }
    holds(codes.iter().all(|code| *code == FENCED), || {
        format!("the older copy ended with {codes:?}")
    })?;
    fs::rename(&data, data.with_extension("refused")).map_err(|error| error.to_string())?;
    fs::rename(&newest, &data).map_err(|error| error.to_string())?;
    nodes.start(&[2])?;
    nodes.all_serve(&ALL)?;
    write_some(&mut book, &nodes, &ALL, "-after");
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("the older copy ended with {codes:?}, the newest directory serves; {settled}"))
}

fn one_voter_away(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "-early");
    nodes.all[1].stop();
    let at = copied_node(&mut nodes, 2);
    let (from, to) = (nodes.all[2].data.clone(), nodes.all[at].data.clone());
    copy(&from, &to);
    nodes.all[at].start();
    let (code, acknowledged) = write_for(&mut nodes, at, WATCHED);
    holds(acknowledged == 0 && code.is_none(), || {
        format!(
            "beside one voter the copy acknowledged {acknowledged} writes and ended with {code:?}"
        )
    })?;
    write_some(&mut book, &nodes, &[0, 2], "-meanwhile");
    nodes.start(&[1])?;
    let (code, acknowledged) = write_until_it_ends(&mut nodes, at)?;
    holds(acknowledged == 0 && code == FENCED, || {
        format!(
            "beside both voters the copy acknowledged {acknowledged} writes and ended with {code}"
        )
    })?;
    nodes.all_serve(&ALL)?;
    let settled = settle(bench, &nodes, &ALL, &book)?;
    Ok(format!("the copy was silent, and ended once both voters refused it; {settled}"))
}

fn of_the_dead(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    nodes.form(3)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    write_some(&mut book, &nodes, &ALL, "-early");
    let _ = nodes.all[2].kill();
    let at = copied_node(&mut nodes, 2);
    let (from, to) = (nodes.all[2].data.clone(), nodes.all[at].data.clone());
    copy(&from, &to);
    nodes.start(&[at])?;
    nodes.all[at].becomes_ready()?;
    write_some(&mut book, &nodes, &[0, 1, at], "-of-the-copy");
    nodes.all[2].start();
    let (code, acknowledged) = write_until_it_ends(&mut nodes, 2)?;
    holds(acknowledged == 0 && code == FENCED, || {
        format!("the original directory acknowledged {acknowledged} writes and ended with {code}")
    })?;
    let settled = settle(bench, &nodes, &[0, 1, at], &book)?;
    Ok(format!("the copy is the node; {settled}"))
}
