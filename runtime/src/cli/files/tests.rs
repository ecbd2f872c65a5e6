//! Tests of `import` and `export` against a real API on loopback. Behind it is a driver that answers from a function,
//! or a whole node in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use continuum_core::api::{
    Change, Content, Field, Level, Mutation, Outcome, Policy, Query, Reason, Receipt, Request, Row,
    Session, Value,
};
use continuum_core::id::SessionId;
use tokio::sync::watch;

use super::args::{Export, Import, Source};
use super::whole::Notes;
use super::{export, import};
use crate::cli::args::Format;
use crate::cli::client::Client;
use crate::cli::exit::{self, Failure};
use crate::cli::tests::{Output, node};

mod formats;
mod model;
mod properties;

/// An import of a file with the defaults of the command line, but small batches.
pub(super) fn arguments(ns: &str, path: PathBuf) -> Import {
    Import {
        ns: ns.to_owned(),
        format: Source::Jsonl,
        path,
        dry_run: false,
        concurrency: 3,
        batch: 10,
        patience: 60,
    }
}

/// Imports a file, and returns what it reports.
pub(super) async fn run_import(
    import: &Import,
    client: Client,
) -> Result<serde_json::Value, Failure> {
    let output = Output::default();
    let mut screen = output.screen(Format::Json);
    import::run(import, client, &mut screen).await?;
    screen.finish()?;
    Ok(serde_json::from_str(&output.text()).expect("JSON"))
}

/// The whole export of a namespace.
pub(super) async fn run_export(ns: &str, client: Client) -> Result<String, Failure> {
    let output = Output::default();
    let export = Export { ns: ns.to_owned(), format: Source::Jsonl };
    export::run(&export, client, &mut output.screen(Format::Table)).await?;
    Ok(output.text())
}

/// Writes lines to a file in a folder.
pub(super) fn file(folder: &Path, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, text).expect("written");
    path
}

fn row(key: String) -> Row {
    let content = Content::Register(vec![Bytes::from_static(b"1")]);
    Row { key: key.into(), fields: vec![Field { field: Bytes::new(), content }] }
}

#[tokio::test]
async fn an_export_reads_every_page() {
    let (client, _stop) = node(|request| {
        if request == Request::Namespaces {
            return notes(Policy::Eventual {
                strategy: continuum_core::api::Strategy::default(),
                slots: 1,
                discard: false,
            });
        }
        let Request::Read { query: Query::Rows { after, .. }, .. } = request else {
            return Outcome::Rejected(Reason::NotFormed);
        };
        let first = after.map_or(0, |key| u32::from(key[1] - b'0') + 1);
        let rows = (first..5.min(first + 2)).map(|at| row(format!("k{at}"))).collect();
        Outcome::Value(Value::Rows { rows, more: first + 2 < 5 })
    })
    .await;
    let text = run_export("notes", client).await.expect("rows");
    let keys: Vec<String> = text.lines().map(|line| line[8..10].to_owned()).collect();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
}

fn source(folder: &tempfile::TempDir, rows: u32) -> Import {
    let lines: Vec<u8> = (0..rows)
        .flat_map(|at| [crate::api::json::line(&row(format!("k{at:04}"))), b"\n".to_vec()].concat())
        .collect();
    arguments("notes", file(folder.path(), lines))
}

fn committed() -> Outcome {
    Outcome::Committed { level: Level::Durable, receipt: Receipt::default() }
}

/// An empty namespace's answer to a read.
fn nothing(query: &Query) -> Outcome {
    Outcome::Value(match query {
        Query::Rows { .. } => Value::Rows { rows: Vec::new(), more: false },
        _ => Value::Record { fields: Vec::new(), context: continuum_core::api::Context::default() },
    })
}

fn notes(policy: Policy) -> Outcome {
    let id = continuum_core::id::NamespaceId(1);
    let notes = continuum_core::api::Namespace { id, name: "notes".into(), policy, group: None };
    Outcome::Value(Value::Namespaces(vec![notes]))
}

/// The keys and the session of each write that the driver received.
type Seen = Arc<Mutex<Vec<(Vec<Bytes>, Option<Session>)>>>;

/// A node with an empty strong namespace, which answers writes like this.
async fn strong_node(
    mut write: impl FnMut(Vec<Mutation>, Option<Session>) -> Outcome + Send + 'static,
) -> (Client, watch::Sender<bool>) {
    node(move |request| match request {
        Request::Namespaces => notes(Policy::Strong),
        Request::Read { query, .. } => nothing(&query),
        Request::Write { mutations, session, .. } => write(mutations, session),
        _ => Outcome::Rejected(Reason::NotFormed),
    })
    .await
}

fn keys(mutations: Vec<Mutation>) -> Vec<Bytes> {
    mutations.into_iter().map(|mutation| mutation.key).collect()
}

#[tokio::test]
async fn an_import_retries_a_batch_with_one_key_until_it_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let writes = Arc::clone(&seen);
    let (client, _stop) = strong_node(move |mutations, session| {
        assert!(mutations.iter().all(|m| matches!(m.edits[0].change, Change::Put(_))));
        let mut seen = writes.lock().expect("no panic holds it");
        seen.push((keys(mutations), session));
        // Every batch is refused once for a passing reason, and the second one with an unknown outcome.
        match seen.iter().filter(|(_, earlier)| *earlier == session).count() {
            1 if seen.len() == 2 => Outcome::Unknown { reached: None },
            1 => Outcome::Rejected(Reason::Busy),
            _ => committed(),
        }
    })
    .await;
    let report = run_import(&source(&folder, 95), client).await.expect("imported");
    assert_eq!((report["rows"].as_u64(), report["batches"].as_u64()), (Some(95), Some(10)));
    assert_eq!(report["retries"], 10);
    let mut seen = std::mem::take(&mut *seen.lock().expect("no panic holds it"));
    assert!(seen.iter().all(|(_, session)| session.is_some()));
    seen.sort();
    // Each batch came twice, with one session and the same keys.
    assert!(seen.chunks(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    seen.dedup();
    let keys: Vec<Bytes> = seen.into_iter().flat_map(|(keys, _)| keys).collect();
    let expected: Vec<String> = (0..95).map(|at| format!("k{at:04}")).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn an_import_has_one_session_for_each_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let writes = Arc::clone(&seen);
    let (client, _stop) = strong_node(move |mutations, session| {
        writes.lock().expect("no panic holds it").push((keys(mutations), session));
        committed()
    })
    .await;
    run_import(&source(&folder, 300), client).await.expect("imported");
    let seen = std::mem::take(&mut *seen.lock().expect("no panic holds it"));
    assert_eq!(seen.len(), 30);
    let mut sessions: BTreeMap<SessionId, Vec<u64>> = BTreeMap::new();
    for session in seen.into_iter().filter_map(|(_, session)| session) {
        sessions.entry(session.id).or_default().push(session.seq);
    }
    assert!(sessions.len() <= 3, "{sessions:?}");
    assert!(sessions.values().all(|numbers| numbers.iter().copied().eq(0..numbers.len() as u64)));
    assert_eq!(sessions.values().map(Vec::len).sum::<usize>(), 30);
}

#[tokio::test]
async fn an_import_goes_on_in_another_session_when_the_group_forgot_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    // The numbers that each session may have: the group forgets a session after its third write, and once at its first.
    let seen = Arc::new(Mutex::new(BTreeMap::<SessionId, Vec<u64>>::new()));
    let writes = Arc::clone(&seen);
    let (client, _stop) = strong_node(move |_, session| {
        let Some(session) = session else { return Outcome::Rejected(Reason::NotFormed) };
        let mut seen = writes.lock().expect("no panic holds it");
        let is_first = seen.is_empty();
        let numbers = seen.entry(session.id).or_default();
        numbers.push(session.seq);
        match session.seq {
            // The first write of all gets no sure answer, and the second try of it is refused.
            0 if is_first => Outcome::Unknown { reached: None },
            0 if numbers.len() == 2 => Outcome::Rejected(Reason::SessionExpired),
            0..3 => committed(),
            _ => Outcome::Rejected(Reason::SessionExpired),
        }
    })
    .await;
    let import = Import { concurrency: 1, ..source(&folder, 100) };
    let report = run_import(&import, client).await.expect("imported");
    assert_eq!(report["batches"], 10);
    let seen = seen.lock().expect("no panic holds it");
    let mut numbers: Vec<_> = seen.values().cloned().collect();
    numbers.sort();
    assert_eq!(
        numbers,
        [vec![0], vec![0, 0], vec![0, 1, 2, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3]]
    );
}

#[tokio::test]
async fn an_import_that_is_refused_for_good_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let (client, _stop) = node(|request| match request {
        Request::Namespaces => notes(Policy::Strong),
        Request::Read { query, .. } => nothing(&query),
        _ => Outcome::Rejected(Reason::WrongConsistency),
    })
    .await;
    let failure = run_import(&source(&folder, 20), client).await.expect_err("refused");
    assert_eq!(failure.code, "wrong_consistency");
    assert!(failure.what.contains("rows.jsonl:1: "), "{failure}");
}

#[tokio::test]
async fn an_import_into_an_unknown_namespace_sends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let import = Import { ns: "unheard".into(), ..source(&folder, 1) };
    let (client, _stop) = node(|request| match request {
        Request::Namespaces => notes(Policy::Strong),
        other => panic!("{other:?}"),
    })
    .await;
    let failure = run_import(&import, client).await.expect_err("unknown");
    assert_eq!((failure.code.as_str(), failure.exit), ("unknown_namespace", exit::NEGATIVE));
}
