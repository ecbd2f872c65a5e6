//! A large set that is deleted while others write.

use std::net::SocketAddr;
use std::time::Duration;

use super::clients::{Clients, load_set, refusals};
use super::{EVENTUAL, STRONG, begin, path};
use crate::honest::{ms, p99};
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, Row, holds, pause};
use continuum_runtime::clock::Stopwatch;

/// The name of the set.
const SET: &str = "large";
/// Clients over all nodes.
const CLIENTS: u64 = 8;
/// They write this long before and after.
const BESIDE: Duration = Duration::from_secs(2);
/// The worst put: half an election timeout.
const WORST: Duration = Duration::from_millis(250);
/// The wait for the deletion's answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const ROWS: &[Row] = &[Row {
    name: "size.delete-set",
    expected: "a set of --members is deleted while 8 clients put strong keys: it is gone on every node, no put is \
               refused, and the worst one takes at most 250 ms",
    run: delete,
}];

fn delete(bench: &Bench) -> Check<String> {
    let nodes = begin(bench, 3)?;
    let apis: Vec<SocketAddr> = nodes.all.iter().map(|node| node.api).collect();
    let members = bench.sizes.members;
    let _ = load_set(apis[0], EVENTUAL, SET, members)?;
    let set = path(EVENTUAL, &format!("sets/{SET}"));
    let there = |api: SocketAddr| {
        let answer = Ask::get(set.as_str()).within(PATIENCE).send(api).filter(Answer::is_ok)?;
        answer.json()["members"].as_array().map(Vec::len)
    };
    let spread = apis.iter().all(|api| {
        crate::row::wait_for(PATIENCE, || (there(*api)? as u64 == members).then_some(())).is_some()
    });
    holds(spread, || "the set does not reach every node".into())?;
    let begun = Stopwatch::start();
    let clients = Clients::start(&apis, STRONG, CLIENTS, (CLIENTS, 100));
    pause(BESIDE);
    let asked = begun.elapsed();
    let gone = path(EVENTUAL, &format!("kv/{SET}"));
    let answer = Ask::new("DELETE", gone).within(PATIENCE).send(apis[0]);
    let took = begun.elapsed().saturating_sub(asked);
    pause(BESIDE);
    let done = clients.stop();
    let left: Vec<usize> = apis.iter().map(|api| there(*api).unwrap_or(usize::MAX)).collect();
    let before = done.iter().filter(|one| one.at < asked).map(|one| one.took);
    let beside = done.iter().filter(|one| one.at >= asked).map(|one| one.took);
    let worst = beside.clone().max().unwrap_or_default();
    let refused = refusals(&done);
    let observed = format!(
        "{members} members: the deletion is answered {} after {}, {left:?} members are left; worst put {} (before it \
         p99 {}, {} at most); refused {refused:?}",
        brief(answer.as_ref()),
        ms(took),
        ms(worst),
        ms(p99(before.clone())),
        ms(before.max().unwrap_or_default())
    );
    let is_gone = answer.is_some_and(|answer| answer.is_ok()) && left.iter().all(|left| *left == 0);
    holds(is_gone && refused.is_empty() && worst <= WORST, || observed.clone())?;
    Ok(observed)
}
