//! Clients that write beside an attack, and the search for all that they were promised.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::book::{Answered, Book, COUNTER, EVENTUAL, Export, Rows, SET, STRONG, read_rows};
use crate::federation::{Nodes, SOON};
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, holds, pause, wait_until};

/// A client's pause between two writes.
const PACE: Duration = Duration::from_millis(30);
/// Nodes that exchange nothing new become equal within this, also on a loaded machine.
const SETTLES: Duration = Duration::from_secs(60);
/// Values are this long, so that a row's data fills more than one message.
const PAD: &str = "................................";

/// One client for each node, each a thread.
#[derive(Debug)]
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Book>>,
}

/// Creates the two namespaces of a row.
pub(crate) fn make_namespaces(api: SocketAddr) -> Check {
    for (name, consistency) in [(STRONG, "strong"), (EVENTUAL, "eventual")] {
        let body = json!({ "name": name, "consistency": consistency });
        let mut last = None;
        let made = || {
            last = Ask::new("POST", "/v1/namespaces").json(&body).send(api);
            last.as_ref().is_some_and(|made| made.is_ok() || made.code() == "namespace_exists")
        };
        wait_until(SOON, made, String::new)
            .map_err(|_| format!("namespace {name} cannot be made: {}", brief(last.as_ref())))?;
    }
    Ok(())
}

/// How an answer is to be noted. Without one, the write may have happened.
pub(crate) fn answered(answer: Option<&Answer>) -> Answered {
    match answer {
        Some(answer) if answer.is_ok() => Answered::Committed,
        Some(answer) if answer.code() == "unknown_outcome" || answer.status == 504 => {
            Answered::Unknown
        }
        Some(_) => Answered::Rejected,
        None => Answered::Unknown,
    }
}

/// Puts a register, and notes the answer.
pub(crate) fn put(
    book: &mut Book,
    api: SocketAddr,
    namespace: &'static str,
    key: &str,
    value: &str,
) -> Option<Answer> {
    let path = format!("/v1/namespaces/{namespace}/kv/{key}");
    let answer = Ask::new("PUT", path).raw(value).send(api);
    book.put(namespace, key, value, answered(answer.as_ref()));
    answer
}

/// One write of each kind.
fn write_all(book: &mut Book, api: SocketAddr, name: &str, number: u64) {
    let value = format!("{name}-{number}{PAD}");
    for namespace in [STRONG, EVENTUAL] {
        put(book, api, namespace, &format!("{name}-{number:06}"), &value);
        put(book, api, namespace, &format!("hot-{name}"), &value);
    }
    let member = format!("{name}-{number:06}");
    let path = format!("/v1/namespaces/{EVENTUAL}/sets/{SET}");
    let answer = Ask::new("POST", path).json(&json!({ "add": [member] })).send(api);
    book.add(&member, answered(answer.as_ref()));
    let path = format!("/v1/namespaces/{EVENTUAL}/counters/{COUNTER}");
    let answer = Ask::new("POST", path).json(&json!({ "add": 1 })).send(api);
    book.count(answered(answer.as_ref()));
}

impl Writers {
    /// Starts a client for each of these nodes. Names of clients must differ over a row.
    pub(crate) fn start(nodes: &Nodes, who: &[usize], round: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |at: &usize| {
            let (api, name) = (nodes.all[*at].api, format!("{}{round}", nodes.all[*at].name));
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut book = Book::default();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    write_all(&mut book, api, &name, number);
                    number += 1;
                    pause(PACE);
                }
                book
            })
        };
        let clients = who.iter().map(client).collect();
        Self { stop, clients }
    }

    /// Ends the clients, and adds what they were promised to the book.
    pub(crate) fn stop(mut self, book: &mut Book) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            book.merge(client.join().expect("a client does not panic"));
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A few writes of each kind at each of these nodes.
pub(crate) fn write_some(book: &mut Book, nodes: &Nodes, who: &[usize], round: &str) {
    for at in who {
        let node = &nodes.all[*at];
        (0..3)
            .for_each(|number| write_all(book, node.api, &format!("{}{round}", node.name), number));
    }
}

/// As [`write_some`], once each of these nodes commits a strong and an eventual write.
pub(crate) fn must_write(book: &mut Book, nodes: &Nodes, who: &[usize], round: &str) -> Check {
    for at in who {
        let (api, name) = (nodes.all[*at].api, &nodes.all[*at].name);
        for namespace in [STRONG, EVENTUAL] {
            let (key, mut last) = (format!("must-{name}{round}"), None);
            let written = || {
                last = put(book, api, namespace, &key, &key);
                last.as_ref().is_some_and(Answer::is_ok)
            };
            wait_until(SOON, written, String::new).map_err(|_| {
                format!("{name} takes no write of {namespace}: {}", brief(last.as_ref()))
            })?;
        }
    }
    write_some(book, nodes, who, round);
    Ok(())
}

/// All rows of a namespace.
pub(crate) fn rows(api: SocketAddr, namespace: &str) -> Option<Rows> {
    let mut rows = Rows::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/namespaces/{namespace}/rows?limit=500{after}");
        let page = Ask::get(path).within(SOON).send(api).filter(Answer::is_ok)?;
        rows.extend(read_rows(&page.body)?);
        if page.header("continuum-more") != Some("true") {
            return Some(rows);
        }
        after = format!("&after={}", page.header("continuum-next")?);
    }
}

/// A node's rows of both namespaces.
pub(crate) fn export(api: SocketAddr) -> Option<Export> {
    Some(Export { strong: rows(api, STRONG)?, eventual: rows(api, EVENTUAL)? })
}

/// Waits until all that was promised is on each of these nodes, and their exports are equal. Counts what is lost.
pub(crate) fn settle(bench: &Bench, nodes: &Nodes, who: &[usize], book: &Book) -> Check<String> {
    let all =
        || -> Vec<Option<Export>> { who.iter().map(|at| export(nodes.all[*at].api)).collect() };
    let mut last = Vec::new();
    let is_settled = || {
        last = all();
        let equal = last.windows(2).all(|pair| pair[0] == pair[1]);
        equal && last.iter().all(|one| one.as_ref().is_some_and(|e| book.judge(e).lost.is_empty()))
    };
    // Everything that does not settle is counted below.
    let took = wait_until(SETTLES, is_settled, String::new);
    let mut complaints = Vec::new();
    let mut most_lost = 0;
    for (at, found) in who.iter().zip(&last) {
        let name = &nodes.all[*at].name;
        let Some(found) = found else {
            complaints.push(format!("{name} cannot be exported"));
            continue;
        };
        let findings = book.judge(found);
        most_lost = most_lost.max(findings.lost.len());
        let complain = |what: &str, list: &[String]| {
            let first = list.first()?;
            Some(format!("{name} {what} {}: {first}", list.len()))
        };
        complaints.extend(complain("lost", &findings.lost));
        complaints.extend(complain("has wrong", &findings.wrong));
    }
    bench.lose(most_lost as u64);
    if took.is_err() && complaints.is_empty() {
        complaints.push(format!("the exports differ: {}", difference(&last)));
    }
    let committed = book.committed();
    holds(complaints.is_empty(), || complaints.join("; "))?;
    holds(committed > 0, || "no write was committed".to_owned())?;
    Ok(format!("{committed} acknowledged writes on {} nodes", who.len()))
}

/// A key at which two exports differ.
fn difference(exports: &[Option<Export>]) -> String {
    let exports: Vec<&Export> = exports.iter().flatten().collect();
    for pair in exports.windows(2) {
        for (left, right) in
            [(&pair[0].strong, &pair[1].strong), (&pair[0].eventual, &pair[1].eventual)]
        {
            let keys = left.keys().chain(right.keys());
            if let Some(key) = keys.into_iter().find(|key| left.get(*key) != right.get(*key)) {
                return format!("{key}: {:?} and {:?}", left.get(key), right.get(key));
            }
        }
    }
    "in the set of nodes that answer".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definite_answer_is_a_rejection() {
        let answer = |status, code: &str| Answer {
            status,
            head: String::new(),
            body: json!({ "code": code }).to_string(),
        };
        let noted = |status, code| answered(Some(&answer(status, code)));
        assert_eq!(noted(200, ""), Answered::Committed);
        assert_eq!(noted(503, "no_leader"), Answered::Rejected);
        assert_eq!(noted(504, "unknown_outcome"), Answered::Unknown);
        assert_eq!(answered(None), Answered::Unknown);
    }

    #[test]
    fn the_first_difference_is_named() {
        let rows = |value: &str| {
            let line = format!(
                "{{\"key\":\"k\",\"fields\":[{{\"field\":\"\",\"register\":[\"{value}\"]}}]}}"
            );
            read_rows(&line).unwrap()
        };
        let one = |value| Some(Export { strong: Rows::new(), eventual: rows(value) });
        assert!(difference(&[one("a"), one("b")]).starts_with("k: "));
        assert!(difference(&[one("a"), None]).starts_with("in the set"));
    }
}
