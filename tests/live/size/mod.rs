//! The suite `size`: nodes with much of something, as real processes: checkpoints, restarts, a new member, deletions,
//! memory.
//!
//! Each row loads its own data, as large as `--mb`, `--keys` and `--members` say. An expectation is a law that holds at
//! any size, so a row fails wherever it is broken. The figures stand in the observation either way.

mod checkpoints;
mod clients;
mod learner;
mod memory;
mod restart;
mod sets;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::federation::{Nodes, SOON};
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, Row, holds, wait_until};

/// The rows, theme by theme.
pub(crate) const THEMES: &[&[Row]] =
    &[checkpoints::ROWS, restart::ROWS, learner::ROWS, sets::ROWS, memory::ROWS];

const STRONG: &str = "strong";
const EVENTUAL: &str = "eventual";
/// Bytes of a megabyte, as `--mb` counts them.
const MB: u64 = 1 << 20;
/// Memory that is not in use any more is given back within this.
const GIVES_BACK: Duration = Duration::from_secs(10);

/// How large the data of a row is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Megabytes of strong state.
    pub(crate) mb: u64,
    /// Eventual keys.
    pub(crate) keys: u64,
    /// Members of a set.
    pub(crate) members: u64,
}

/// A federation of this many voters with both namespaces.
fn begin(bench: &Bench, voters: usize) -> Check<Nodes> {
    let mut nodes = Nodes::new(bench, voters);
    nodes.form(voters)?;
    for (name, consistency) in [(STRONG, "strong"), (EVENTUAL, "eventual")] {
        let body = json!({ "name": name, "consistency": consistency });
        let answer = Ask::new("POST", "/v1/namespaces").json(&body).send(nodes.all[0].api);
        holds(answer.as_ref().is_some_and(Answer::is_ok), || {
            format!("the creation of {name} is answered {}", brief(answer.as_ref()))
        })?;
    }
    let mut last = None;
    let serves = || {
        last = Ask::new("PUT", path(STRONG, "kv/first")).raw("v").send(nodes.all[0].api);
        last.as_ref().is_some_and(Answer::is_ok)
    };
    wait_until(SOON, serves, String::new)
        .map_err(|_| format!("the first put is answered {}", brief(last.as_ref())))?;
    Ok(nodes)
}

fn path(namespace: &str, part: &str) -> String {
    format!("/v1/namespaces/{namespace}/{part}")
}

/// The number of keys that a node has of a namespace.
fn count(api: SocketAddr, namespace: &str) -> Option<u64> {
    let ask = Ask::get(path(namespace, "keys?count=true")).within(SOON);
    let answer = ask.send(api).filter(Answer::is_ok)?;
    answer.json()["count"].as_u64()
}

fn mb(bytes: u64) -> u64 {
    bytes / MB
}
