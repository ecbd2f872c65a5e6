//! The suite `answers`: what a node tells clients, files and operators is true, whatever they do and however its disk
//! behaves.
//!
//! Each row asks real processes one question. Rows that break something write strong and eventual data beside it, and
//! look at the end on every node for all that was acknowledged.

mod attacks;
mod batches;
mod disks;
mod files;
mod guards;
mod handshakes;
mod keys;
mod majority;
mod papers;
mod stops;
mod words;

use std::net::SocketAddr;

use serde_json::json;

use crate::book::Book;
use crate::federation::Nodes;
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, Row, holds};
use crate::writers::{make_namespaces, must_write, settle};

/// The rows, theme by theme.
pub(crate) const THEMES: &[&[Row]] = &[
    keys::ROWS,
    batches::ROWS,
    files::ROWS,
    words::ROWS,
    guards::ROWS,
    papers::ROWS,
    majority::ROWS,
    stops::ROWS,
    disks::ROWS,
    attacks::ROWS,
    handshakes::ROWS,
];

/// The nodes of a federation of three.
const ALL: [usize; 3] = [0, 1, 2];

/// A federation of this many voters with data in it.
fn begin(bench: &Bench, voters: usize) -> Check<(Nodes, Book)> {
    let mut nodes = Nodes::new(bench, voters);
    let book = begin_with(&mut nodes)?;
    Ok((nodes, book))
}

/// Makes a federation of these nodes, with data in it.
fn begin_with(nodes: &mut Nodes) -> Check<Book> {
    let voters = nodes.all.len();
    nodes.form(voters)?;
    make_namespaces(nodes.all[0].api)?;
    let mut book = Book::default();
    must_write(&mut book, nodes, &(0..voters).collect::<Vec<_>>(), "-before")?;
    Ok(book)
}

/// Writes after all else, and looks for everything that was acknowledged.
fn finish(bench: &Bench, nodes: &mut Nodes, book: &mut Book) -> Check<String> {
    let who: Vec<usize> = (0..nodes.all.len()).collect();
    nodes.all_serve(&who)?;
    must_write(book, nodes, &who, "-after")?;
    settle(bench, nodes, &who, book)
}

/// Makes a namespace that this node can use.
fn make(api: SocketAddr, name: &str, consistency: &str) -> Check {
    let body = json!({ "name": name, "consistency": consistency });
    let answer = Ask::new("POST", "/v1/namespaces").json(&body).send(api);
    is(answer.as_ref(), 201, "", || format!("the creation of {name}"))
}

/// The path of a part of a namespace.
fn path(namespace: &str, part: &str) -> String {
    format!("/v1/namespaces/{namespace}/{part}")
}

/// An error unless the write happened: 201 made the value, 200 replaced one.
fn written(answer: Option<&Answer>, question: impl FnOnce() -> String) -> Check {
    let made = answer.is_some_and(|answer| answer.status == 201);
    is(answer, if made { 201 } else { 200 }, "", question)
}

/// An error unless the answer has this status and this code. No problem has an empty code.
fn is(
    answer: Option<&Answer>,
    status: u16,
    code: &str,
    question: impl FnOnce() -> String,
) -> Check {
    let is_so = answer.is_some_and(|answer| answer.status == status && answer.code() == code);
    holds(is_so, || {
        let body: String = answer.map_or("", |answer| &answer.body).chars().take(200).collect();
        let expected = if code.is_empty() { String::new() } else { format!(" {code}") };
        let question = question();
        format!("{question} is answered {}, not {status}{expected}: {body}", brief(answer))
    })
}

/// The node that leads the group of a strong namespace, as it says itself.
fn leader(nodes: &Nodes, namespace: &str) -> Option<usize> {
    (0..nodes.all.len()).find(|at| {
        let status = nodes.all[*at].status();
        let mut groups = status["groups"].as_array().into_iter().flatten();
        groups.any(|group| group["name"] == namespace && group["role"] == "leader")
    })
}
