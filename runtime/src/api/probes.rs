//! Answers of a node about itself: probes, status, and the namespaces as it knows them.
//!
//! None of these waits for another node, except the consistent form of the namespaces.

use axum::http::StatusCode;
use continuum_core::api::{Namespace, Reason, Request, Status, Unready, Value};
use serde_json::{Value as Json, json};

use super::call::Call;
use super::problem::{NOT_READY, Problem, STOPPING};
use super::routes::{Answer, named};
use super::{Api, output};

/// Alive means: the driver answers, and the node is not fenced. Only what a restart can repair makes this fail.
pub(super) async fn live(api: &Api, call: Call) -> Answer {
    call.params.finish()?;
    let status = api.handle.status().await?;
    if status.unready.contains(&Unready::Fenced) {
        return Err(Problem::new(
            &STOPPING,
            "the node is fenced",
            "read its log, then start it again",
        ));
    }
    Ok(output::json_response(StatusCode::OK, &json!({ "live": true })))
}

/// Ready means: eventual memory is served, which waits for no other node, and no group halted here, which an operator
/// must mend. With `?strong` it means that every group of this node has a leader as well.
pub(super) async fn ready(api: &Api, mut call: Call) -> Answer {
    let needs_strong = call.params.flag("strong")?;
    call.params.finish()?;
    let status = api.handle.status().await?;
    let serves = output::serves(&status);
    let is_halted = |reason: &Unready| matches!(reason, Unready::GroupHalted { .. });
    let is_ready = serves.contains(if needs_strong { &"strong" } else { &"eventual" })
        && !status.unready.iter().any(is_halted);
    let mut reasons: Vec<&str> = status.unready.iter().copied().map(output::unready).collect();
    reasons.dedup();
    let mut body = json!({
        "ready": is_ready,
        "serves": serves,
        "reasons": reasons,
        "warnings": output::warnings(&status.warnings),
    });
    let mut detail = reasons.join(", ");
    let mut halted = Vec::new();
    for reason in &status.unready {
        if let Unready::GroupHalted { group, index } = reason {
            detail += &format!("; group {group} stopped at entry {index}");
            halted.push(json!({ "group": group.0, "index": index.0 }));
        }
    }
    if !halted.is_empty() {
        body["halted"] = halted.into();
    }
    if status.unready.contains(&Unready::NoLeader) {
        let names = names(api).await;
        let leaderless = status.groups.iter().filter(|group| group.leader.is_none());
        let leaderless = leaderless.take(NAMED_MAX).map(|group| group_name(&names, group.group.0));
        body["leaderless"] = leaderless.collect();
    }
    if is_ready {
        if !status.unready.is_empty() {
            body["hint"] = hint(&status).into();
        }
        return Ok(output::json_response(StatusCode::OK, &body));
    }
    let problem = Problem::new(&NOT_READY, detail, hint(&status));
    let members = ["ready", "serves", "reasons", "warnings", "halted", "leaderless"].into_iter();
    let members = members.filter_map(|name| Some((name, body.get(name)?.clone())));
    Err(members.fold(problem, |problem, (name, value)| problem.with(name, value)))
}

/// Groups that one answer names.
const NAMED_MAX: usize = 16;

/// The namespaces as this node knows them; none if it does not answer.
async fn names(api: &Api) -> Vec<Namespace> {
    api.handle.namespaces().await.ok().flatten().map(|(all, _)| all).unwrap_or_default()
}

/// A namespace as this node knows it.
pub(super) async fn known(api: &Api, name: &str) -> Option<Namespace> {
    names(api).await.into_iter().find(|found| found.name == name)
}

/// The namespace of a group; null when this node knows none.
fn group_name(names: &[Namespace], group: u32) -> Json {
    if group == 0 {
        return "registry".into();
    }
    let found = names.iter().find(|found| found.group.is_some_and(|found| found.0 == group));
    found.map_or(Json::Null, |found| found.name.clone().into())
}

/// The hint for the first reason; the others mostly follow from it.
fn hint(status: &Status) -> String {
    let hint = match status.unready.first() {
        Some(Unready::NotFormed) => return not_formed(status),
        Some(Unready::FoundingUndecided) => return undecided(status),
        Some(Unready::StoreReplaced) => {
            "wait: the federation lets this data directory in as a learner, unless another process of this node still \
             runs with the earlier one; then stop one of the two"
        }
        Some(Unready::NoLeader) => "more than half of the voters must run and reach each other",
        Some(Unready::DiskFull) => "free space on the node's disk; the node resumes by itself",
        Some(Unready::DiskStalled) => {
            "look at the node's disk: it takes no write; the node resumes by itself when it does"
        }
        Some(Unready::Fenced) => {
            "read its log: its storage failed, or another process has its identity"
        }
        Some(Unready::GroupHalted { .. }) => {
            "start this node with the newest version that any node runs; nothing is lost until then"
        }
        Some(Unready::Suspended) => {
            "let only one process use this data directory, and let the other voters reach it: they decide"
        }
        Some(Unready::Unconfirmed) => {
            "wait: it stands once the other voters confirm it, or after 3 s in which it reaches none of them"
        }
        Some(Unready::CatchingUp | Unready::Stopping) | None => "wait a moment and ask again",
    };
    hint.into()
}

/// Advice to a node in no federation. It is never to begin one where a linked node is in one.
fn not_formed(status: &Status) -> String {
    match status.formed_peers.first() {
        Some(peer) => format!(
            "wait: node {} at {} is in the federation, and this node asks to join it; do not create another one",
            peer.node, peer.address.0
        ),
        None => "run `continuum cluster init` on one node, or give this one a member's address in peer.bootstrap"
            .into(),
    }
}

/// Advice to a voter that waits for its founder.
fn undecided(status: &Status) -> String {
    let Some(founder) = &status.undecided else { return "wait a moment and ask again".into() };
    format!(
        "start node {} ({}, {}), which began the founding; if its disk is lost for good, stop this node and start it \
         with an empty data directory",
        founder.replica.node, founder.name, founder.address.0
    )
}

/// The node's status, with the names of namespaces.
pub(super) async fn status(api: &Api, call: Call) -> Answer {
    call.params.finish()?;
    let status = api.handle.status().await?;
    let names = names(api).await;
    let mut body = output::status(&status);
    for (row, group) in rows(&mut body, "groups").zip(&status.groups) {
        row["name"] = group_name(&names, group.group.0);
    }
    for (row, shard) in rows(&mut body, "shards").zip(&status.shards) {
        let found = names.iter().find(|found| found.id == shard.namespace);
        row["name"] = found.map_or(Json::Null, |found| found.name.clone().into());
    }
    Ok(output::json_response(StatusCode::OK, &body))
}

fn rows<'a>(body: &'a mut Json, list: &str) -> impl Iterator<Item = &'a mut Json> {
    body[list].as_array_mut().into_iter().flatten()
}

/// A list of namespaces, and how it was read.
struct Listed {
    all: Vec<Namespace>,
    view: Json,
}

/// The local view says how far the registry is applied here. It needs no other node.
async fn local(api: &Api) -> Option<Listed> {
    let (all, revision) = api.handle.namespaces().await.ok()??;
    Some(Listed { all, view: json!({ "view": "local", "revision": revision.0 }) })
}

/// The consistent view waits for a majority of the voters.
async fn consistent(api: &Api) -> Result<Listed, Problem> {
    match output::value(api.handle.request(Request::Namespaces).await?)? {
        Value::Namespaces(all) => Ok(Listed { all, view: json!({ "view": "consistent" }) }),
        other => Err(output::unexpected(&other)),
    }
}

/// All namespaces: as this node knows them, or with `?consistent` as the federation does.
pub(super) async fn namespaces(api: &Api, mut call: Call) -> Answer {
    let is_consistent = call.params.flag("consistent")?;
    call.params.finish()?;
    let local = if is_consistent { None } else { local(api).await };
    let Listed { all, mut view } = match local {
        Some(listed) => listed,
        None => consistent(api).await?,
    };
    view["namespaces"] = all.iter().map(output::namespace).collect();
    Ok(output::json_response(StatusCode::OK, &view))
}

/// One namespace, in the same way. A node that does not know it asks the others before it says so: it may lag.
pub(super) async fn namespace(api: &Api, mut call: Call) -> Answer {
    let name = call.namespace();
    let is_consistent = call.params.flag("consistent")?;
    call.params.finish()?;
    let is_it = |found: &&Namespace| found.name == name;
    let local = if is_consistent { None } else { local(api).await };
    let Listed { all, view } =
        match local.filter(|listed| listed.all.iter().any(|found| is_it(&found))) {
            Some(listed) => listed,
            None => consistent(api).await?,
        };
    let unknown = || named(Reason::UnknownNamespace.into(), &name);
    let mut body = output::namespace(all.iter().find(is_it).ok_or_else(unknown)?);
    for (key, value) in view.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    Ok(output::json_response(StatusCode::OK, &body))
}

/// Waits until this node has applied what it just acknowledged to a client, so that its local view shows it. A failure
/// is no failure of the write.
pub(super) async fn catch_up(api: &Api) {
    drop(api.handle.request(Request::Namespaces).await);
}
