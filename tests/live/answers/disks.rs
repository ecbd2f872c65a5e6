//! Bad disks: full ones, hanging ones and failing ones, under a leader and under load.

use std::time::Duration;

use continuum_runtime::clock::Stopwatch;
use serde_json::{Value, json};

use super::{ALL, begin_with, finish, is, leader, path, written};
use crate::book::{Book, EVENTUAL, STRONG};
use crate::faulty::{Disk, Fault, Small};
use crate::federation::{Node, Nodes, SOON};
use crate::honest::ms;
use crate::http::{Ask, brief};
use crate::row::{Bench, Check, Row, holds, pause, wait_for, wait_until};
use crate::writers::{Writers, put, settle};

/// A leader whose disk hangs is out of office within two election timeouts. The rest is for the looking.
const HANDS_OVER: Duration = Duration::from_millis(2 * 500 + 500);
/// A node that is asked to stop has ended within this, whatever its disk does.
const ENDS: Duration = Duration::from_secs(5);
/// A node whose disk has room again serves within this, under load as at rest.
const RECOVERS: Duration = Duration::from_secs(10);
/// A file system that holds a young log, its reserve and not much more.
const SMALL_MIB: u32 = 160;
/// The smallest reserve.
const SETTINGS: &str = "[disk]\nreserve_bytes = 16777216\n";
/// A value that fills a file system soon.
const LARGE: usize = 256 << 10;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "disks.full-at-rest",
        expected: "another program fills the leader's disk: it hands over, /readyz says disk_full, puts are 507 full, \
                   deletions work; with room again it serves within 10 s, nothing is lost",
        run: |bench| full(bench, false),
    },
    Row {
        name: "disks.full-under-load",
        expected: "the same while clients write to each node all the time",
        run: |bench| full(bench, true),
    },
    Row {
        name: "disks.full-of-data",
        expected: "a node alone is filled by its own clients until 507 full; they delete, and it takes puts again by \
                   itself",
        run: full_of_data,
    },
    Row {
        name: "disks.hang",
        expected: "the leader's syncs hang under load: it is out of office within 1 s, /readyz says disk_stalled; when \
                   they go on it serves again, nothing is lost",
        run: hang,
    },
    Row {
        name: "disks.hang-and-stop",
        expected: "SIGTERM of a leader and of a follower whose syncs, or writes, hang: each ends within 5 s, and \
                   starts again once the disk is sound",
        run: hang_and_stop,
    },
    Row {
        name: "disks.failed-sync",
        expected: "a sync of the leader fails once: it ends with an error that names the disk; the next start writes \
                   the last batch again and syncs it; nothing is lost",
        run: failed_sync,
    },
];

/// The reasons of `/readyz`.
fn reasons(node: &Node) -> Vec<Value> {
    let answer = Ask::get("/readyz?strong").send(node.api).map_or(Value::Null, |a| a.json());
    answer["reasons"].as_array().cloned().unwrap_or_default()
}

fn says(node: &Node, reason: &str, patience: Duration) -> Check<f64> {
    let mut last = Vec::new();
    let is_said = || {
        last = reasons(node);
        last.contains(&json!(reason))
    };
    wait_until(patience, is_said, String::new)
        .map_err(|_| format!("{}: /readyz does not say {reason}: {last:?}", node.name))
}

/// Makes a node the leader of the strong namespace: the others are stopped and started until it is.
fn give_office(nodes: &mut Nodes, at: usize) -> Check {
    for _ in 0..10 {
        let (now, _) = wait_for(SOON, || leader(nodes, STRONG)).ok_or("nobody leads")?;
        if now == at {
            return Ok(());
        }
        let ended = nodes.all[now].stop();
        holds(ended == Some(0), || format!("a leader ended with {ended:?}"))?;
        nodes.start(&[now])?;
        nodes.all_serve(&ALL)?;
    }
    Err(format!("n{} is not elected", at + 1))
}

/// Waits until another node leads. Returns the time that it took.
fn hands_over(nodes: &Nodes, from: usize, patience: Duration) -> Check<Duration> {
    let watch = Stopwatch::start();
    let old = nodes.all[from].id.to_string();
    let others: Vec<&Node> = nodes.all.iter().filter(|node| node.id.to_string() != old).collect();
    loop {
        let leads = |node: &&&Node| {
            let status = node.status();
            let mut groups = status["groups"].as_array().into_iter().flatten();
            groups.any(|group| group["name"] == STRONG && group["role"] == "leader")
        };
        if others.iter().any(|node| leads(&node)) {
            return Ok(watch.elapsed());
        }
        let waited = ms(watch.elapsed());
        holds(watch.elapsed() < patience, || format!("nobody else leads after {waited}"))?;
        pause(Duration::from_millis(10));
    }
}

fn full(bench: &Bench, load: bool) -> Check<String> {
    let mut nodes = Nodes::new(bench, 3);
    let small = Small::mount(bench, SMALL_MIB)?;
    nodes.all[0].data = small.path.join("data");
    nodes.all[0].settings = SETTINGS.into();
    let mut book = begin_with(&mut nodes)?;
    give_office(&mut nodes, 0)?;
    super::make(nodes.all[0].api, "own", "eventual")?;
    let before = Ask::new("PUT", path("own", "kv/before")).raw("v").send(nodes.all[0].api);
    written(before.as_ref(), || "a put before".into())?;
    let writers = load.then(|| Writers::start(&nodes, &ALL, "-load"));
    small.fill()?;
    let node = &nodes.all[0];
    says(node, "disk_full", SOON)?;
    let gap = hands_over(&nodes, 0, SOON)?;
    let refused = large(node, "own", "large");
    is(refused.as_ref(), 507, "full", || "a put to a full node".into())?;
    let deleted = Ask::new("DELETE", path("own", "kv/before")).send(node.api);
    is(deleted.as_ref(), 200, "", || "a deletion on a full node".into())?;
    let elsewhere = put(&mut book, nodes.all[1].api, STRONG, "elsewhere", "v");
    written(elsewhere.as_ref(), || "a strong put at another node".into())?;
    small.free()?;
    let watch = Stopwatch::start();
    let mut last = None;
    let serves = || {
        last = put(&mut book, node.api, EVENTUAL, "again", "v");
        last.as_ref().is_some_and(crate::http::Answer::is_ok) && reasons(node).is_empty()
    };
    wait_until(RECOVERS, serves, String::new).map_err(|_| {
        format!("with room again after 10 s: {}, {:?}", brief(last.as_ref()), reasons(node))
    })?;
    let recovered = watch.elapsed();
    if let Some(writers) = writers {
        pause(Duration::from_secs(1));
        writers.stop(&mut book);
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("handed over after {}, served again after {}; {settled}", ms(gap), ms(recovered)))
}

/// A put of a large value.
fn large(node: &Node, namespace: &str, key: &str) -> Option<crate::http::Answer> {
    Ask::new("PUT", path(namespace, &format!("kv/{key}"))).raw(vec![b'v'; LARGE]).send(node.api)
}

fn full_of_data(bench: &Bench) -> Check<String> {
    let mut nodes = Nodes::new(bench, 1);
    let small = Small::mount(bench, SMALL_MIB)?;
    nodes.all[0].data = small.path.join("data");
    nodes.all[0].settings = format!("{SETTINGS}[core.node]\ncheckpoint_bytes = 8388608\n");
    let mut book = begin_with(&mut nodes)?;
    super::make(nodes.all[0].api, "big", "eventual")?;
    let node = &nodes.all[0];
    let mut count = 0;
    let refused = loop {
        let answer = large(node, "big", &format!("k{count}"));
        match answer {
            Some(answer) if answer.is_ok() && count < 2000 => count += 1,
            other => break other,
        }
    };
    is(refused.as_ref(), 507, "full", || format!("put {count} of a disk of {SMALL_MIB} MiB"))?;
    let watch = Stopwatch::start();
    for number in 0..count {
        let path = path("big", &format!("kv/k{number}"));
        let answer = Ask::new("DELETE", path).send(node.api);
        is(answer.as_ref(), 200, "", || format!("deletion {number} of {count} on a full disk"))?;
    }
    let mut last = None;
    let serves = || {
        last = large(node, "big", "again");
        last.as_ref().is_some_and(crate::http::Answer::is_ok) && reasons(node).is_empty()
    };
    wait_until(SOON, serves, String::new).map_err(|_| {
        format!("after {count} deletions: {}, {:?}", brief(last.as_ref()), reasons(node))
    })?;
    let recovered = watch.elapsed();
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("full after {count} puts, serves {} after; {settled}", ms(recovered)))
}

/// A federation whose first node has a disk on command and leads.
fn on_command(bench: &Bench) -> Check<(Nodes, Disk, Book)> {
    let mut nodes = Nodes::new(bench, 3);
    let disk = Disk::of(bench, &mut nodes.all[0])?;
    let book = begin_with(&mut nodes)?;
    give_office(&mut nodes, 0)?;
    Ok((nodes, disk, book))
}

fn hang(bench: &Bench) -> Check<String> {
    let (mut nodes, disk, mut book) = on_command(bench)?;
    let writers = Writers::start(&nodes, &[1, 2], "-load");
    pause(Duration::from_secs(1));
    disk.syncs(Fault::Hangs);
    let gap = hands_over(&nodes, 0, SOON);
    let said = says(&nodes.all[0], "disk_stalled", Duration::from_secs(5));
    let elsewhere = put(&mut book, nodes.all[1].api, STRONG, "elsewhere", "v");
    let alive = Ask::get("/livez").send(nodes.all[0].api);
    pause(Duration::from_secs(2));
    disk.syncs(Fault::None);
    let again = wait_until(
        RECOVERS,
        || reasons(&nodes.all[0]).is_empty(),
        || format!("with a sound disk again /readyz says {:?}", reasons(&nodes.all[0])),
    );
    writers.stop(&mut book);
    let settled = finish(bench, &mut nodes, &mut book)?;
    let (gap, said, again) = (gap?, said?, again?);
    holds(disk.hits() > 0, || "no call met the fault".into())?;
    written(elsewhere.as_ref(), || "a strong put at another node".into())?;
    is(alive.as_ref(), 200, "", || "/livez of the hanging node".into())?;
    let told = format!(
        "another leads after {}, disk_stalled after {said:.1} s, serves again after {again:.1} s",
        ms(gap)
    );
    holds(gap <= HANDS_OVER, || told.clone())?;
    Ok(format!("{told}; {settled}"))
}

fn hang_and_stop(bench: &Bench) -> Check<String> {
    let (mut nodes, disk, mut book) = on_command(bench)?;
    let mut took = Vec::new();
    for (number, (kind, leads)) in
        [("syncs", true), ("writes", true), ("syncs", false)].into_iter().enumerate()
    {
        if leads {
            give_office(&mut nodes, 0)?;
        }
        let writers = Writers::start(&nodes, &[1, 2], &format!("-stop{number}"));
        pause(Duration::from_millis(500));
        let before = disk.hits();
        let set = |fault| if kind == "syncs" { disk.syncs(fault) } else { disk.writes(fault) };
        set(Fault::Hangs);
        wait_until(SOON, || disk.hits() > before, || "no call met the fault".into())?;
        let watch = Stopwatch::start();
        nodes.all[0].signal("TERM");
        let ended = nodes.all[0].ends(ENDS * 3);
        let ended_after = watch.elapsed();
        let last = nodes.all[0].last_line();
        let _ = nodes.all[0].kill();
        set(Fault::None);
        writers.stop(&mut book);
        holds(ended.is_some() && ended_after <= ENDS, || {
            format!("with hanging {kind} it ended {ended:?} after {}: {last}", ms(ended_after))
        })?;
        took.push(format!("{kind} {}", ms(ended_after)));
        nodes.start(&[0])?;
        nodes.all_serve(&ALL)?;
    }
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("ended after: {}; {settled}", took.join(", ")))
}

fn failed_sync(bench: &Bench) -> Check<String> {
    let (mut nodes, disk, mut book) = on_command(bench)?;
    let writers = Writers::start(&nodes, &ALL, "-load");
    pause(Duration::from_secs(1));
    disk.syncs(Fault::Fails);
    let ended = nodes.all[0].ends(SOON);
    let last = nodes.all[0].last_line();
    let _ = nodes.all[0].kill();
    disk.syncs(Fault::None);
    let (code, _) = ended.ok_or("it runs on after a failed sync")?;
    holds(code > 0, || format!("after a failed sync it ended with {code}: {last}"))?;
    holds(!last.is_empty(), || "its log says nothing".into())?;
    let called = disk.called();
    let failed = called.iter().position(|call| call.has_failed).ok_or("no sync failed")?;
    let mut before = called[..failed].iter().rev();
    let written = before.find(|call| !call.is_sync).ok_or("nothing was written")?.clone();
    nodes.start(&[0])?;
    nodes.all_serve(&ALL)?;
    writers.stop(&mut book);
    let after = &disk.called()[called.len()..];
    let again = after.iter().position(|call| {
        !call.is_sync && call.path == written.path && call.at == written.at && !call.has_failed
    });
    let again = again.ok_or_else(|| {
        format!("the next start does not write {} at {} again", written.path, written.at)
    })?;
    let is_synced = after[again..]
        .iter()
        .any(|call| call.is_sync && call.path == written.path && !call.has_failed);
    holds(is_synced, || "what it wrote again is not synced".into())?;
    settle(bench, &nodes, &ALL, &book)?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("exit {code}: {last}; the batch at {} written again; {settled}", written.at))
}
