//! Verbs for the federation and its namespaces.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::{Cluster, Ns};
use super::client::{Call, Client};
use super::exit::{self, Failure};
use super::output::{Screen, say};
use crate::api::input::{InitBody, NamespaceBody};
use crate::api::uri;

/// `ns ...`.
pub(super) async fn namespaces(
    verb: Ns,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    match verb {
        Ns::Create { name, consistency, strategy, slots, discard } => {
            let body = NamespaceBody { name, consistency, strategy, slots, discard };
            let answer = client.send(&Call::post("/v1/namespaces", &body).once()).await?;
            print_done(&answer.json()?, &format!("created {}", body.name), screen)
        }
        Ns::Delete { name } => {
            let path = format!("/v1/namespaces/{}", uri::encode(name.as_bytes()));
            let answer = client.send(&Call::delete(path).once()).await?;
            print_done(&answer.json()?, &format!("deleted {name}"), screen)
        }
        Ns::List { consistent } => {
            let path = if consistent { "/v1/namespaces?consistent" } else { "/v1/namespaces" };
            let body = client.send(&Call::get(path)).await?.json()?;
            if screen.is_json() {
                return screen.json(&body);
            }
            if let (Some("local"), Some(revision)) =
                (body["view"].as_str(), body["revision"].as_u64())
            {
                say(format!("as the node knows them at revision {revision} of the registry"));
            }
            let rows =
                rows(&body["namespaces"], &["name", "consistency", "strategy", "slots", "discard"]);
            screen.table(&["name", "consistency", "strategy", "slots", "discard"], rows)
        }
    }
}

/// `cluster ...`.
pub(super) async fn cluster(
    verb: Cluster,
    client: &mut Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    match verb {
        Cluster::Init { voter } => {
            let call = Call::post("/v1/init", &InitBody { voters: voter });
            let body = client.send(&call).await?.json()?;
            print_done(&body, "the federation is created", screen)
        }
        Cluster::RotateKey => {
            let call = Call::post("/v1/rotate-key", &serde_json::json!({})).once();
            let body = client.send(&call).await?.json()?;
            print_done(&body, "contexts are sealed with a new key", screen)
        }
        Cluster::Status => {
            let body = client.send(&Call::get("/v1/status")).await?.json()?;
            if screen.is_json() { screen.json(&body) } else { status(&body, screen) }
        }
        Cluster::Health { wait } => {
            let begun = Instant::now();
            let body = loop {
                match health(client).await {
                    Err(failure) if begun.elapsed() >= Duration::from_secs(wait) => {
                        return Err(failure);
                    }
                    Err(_) => tokio::time::sleep(HEALTH_PAUSE).await,
                    Ok(body) => break body,
                }
            };
            if screen.is_json() {
                return screen.json(&json!({ "healthy": true, "members": body["members"] }));
            }
            let members = body["members"].as_array().map_or(0, Vec::len);
            screen
                .line(format!("the node serves everything, and all {members} members are healthy"))
        }
        Cluster::Members => {
            let body = client.send(&Call::get("/v1/members")).await?.json()?;
            if screen.is_json() {
                return screen.json(&body);
            }
            let names = ["name", "node", "address", "voter", "health", "boot", "load"];
            screen.table(&names, rows(&body["members"], &names))
        }
    }
}

/// Pause between two looks at the health.
const HEALTH_PAUSE: Duration = Duration::from_millis(200);

/// The members, if the node serves everything and all of them are healthy. One that left is no member any more.
async fn health(client: &mut Client) -> Result<Value, Failure> {
    client.send(&Call::get("/readyz?strong")).await?;
    let body = client.send(&Call::get("/v1/members")).await?.json()?;
    let members = body["members"].as_array().into_iter().flatten();
    let is_well =
        |member: &&Value| ["healthy", "left"].iter().any(|well| member["health"] == *well);
    let ill: Vec<String> = members
        .filter(|member| !is_well(member))
        .map(|member| format!("{} is {}", cell(&member["name"]), cell(&member["health"])))
        .collect();
    if ill.is_empty() {
        return Ok(body);
    }
    let hint = "see `continuum cluster members`; a new member is unknown for a few seconds";
    Err(Failure::new(
        exit::NEGATIVE,
        "unhealthy",
        "not all members are healthy",
        ill.join(", "),
        hint,
    ))
}

/// Prints a node's status for people: itself, its groups, its shards.
fn status(body: &Value, screen: &mut Screen) -> Result<(), Failure> {
    let (reasons, serves) = (cell(&body["unready"]), cell(&body["serves"]));
    let ready = match (body["ready"] == true, reasons.is_empty()) {
        (true, true) => "ready".to_owned(),
        (true, false) => format!("ready for {serves} memory alone: {reasons}"),
        (false, _) => format!("not ready: {reasons}"),
    };
    let (name, address) = (cell(&body["name"]), cell(&body["address"]));
    screen.line(format!("node {} ({name}, {address})  {ready}", cell(&body["node"])))?;
    let memory = indicatif::HumanBytes(body["memory_bytes"].as_u64().unwrap_or(0));
    let (boot, requests) = (cell(&body["boot"]["count"]), cell(&body["requests"]));
    screen.line(format!("boot {boot}  {memory} in memory  {requests} requests under way"))?;
    let groups = ["group", "name", "role", "term", "leader", "commit", "applied", "last"];
    screen.line("")?;
    screen.table(&groups, rows(&body["groups"], &groups))?;
    if body["shards"].as_array().is_some_and(|shards| !shards.is_empty()) {
        let shards = ["name", "slot", "root", "writes", "in_sync", "peers"];
        screen.line("")?;
        screen.table(&shards, rows(&body["shards"], &shards))?;
    }
    Ok(())
}

/// Members of JSON objects as cells, in the order of `names`.
fn rows(list: &Value, names: &[&str]) -> Vec<Vec<String>> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|row| names.iter().map(|name| cell(&row[*name])).collect()).collect()
}

/// JSON as a cell: text without quotes, null as a dash, lists with commas.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Prints the success of a write: in words, or the node's whole answer as JSON.
pub(super) fn print_done(body: &Value, words: &str, screen: &mut Screen) -> Result<(), Failure> {
    if screen.is_json() {
        return screen.json(body);
    }
    match body.get("revision") {
        Some(revision) => screen.line(format!("{words} at revision {revision}")),
        None => screen.line(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_plain() {
        assert_eq!(cell(&Value::Null), "-");
        assert_eq!(cell(&json!(["a", 1])), "a, 1");
        assert_eq!(rows(&json!([{ "a": true }]), &["a", "b"]), [["true", "-"]]);
    }
}
