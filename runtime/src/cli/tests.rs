//! Tests of the verbs against a real API on loopback, with a driver that answers from a function.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use continuum_core::api::{
    Change, Content, Field, Level, Outcome, Query, Reason, Receipt, Register, Request, Row,
    Session, Value,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::args::{Cli, Format, Import, KeyPath, Kv, Source, Verb};
use super::client::Client;
use super::exit::{self, Failure};
use super::output::Screen;
use super::{cluster, data, import};
use crate::api::origin::Hosts;
use crate::api::problem::{KINDS, Kind};
use crate::api::serve::serve;
use crate::api::{Api, ROUTES};
use crate::handle::{Command, channel};
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Collects the output.
#[derive(Clone, Debug, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic holds it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn screen(&self, format: Format) -> Screen {
        Screen::over(format, self.clone())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic holds it")).into_owned()
    }
}

/// A pipe whose reader went away.
struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// An API on loopback whose driver answers with `answer`, and a client of it.
async fn node(
    mut answer: impl FnMut(Request) -> Outcome + Send + 'static,
) -> (Client, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (handle, mut commands) = channel();
    let (stop, stopped) = watch::channel(false);
    let api = Arc::new(Api::new(handle, Arc::new(Metrics::new()), Hosts::Local(Vec::new())));
    tokio::spawn(serve(listener, None, api, stopped));
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            if let Command::Request { request, reply } = command {
                drop(reply.send(answer(request)));
            }
        }
    });
    (Client::of_url(&url, Duration::from_secs(30)).expect("a URL"), stop)
}

fn key_path(key: &str) -> KeyPath {
    KeyPath { ns: "facts".into(), key: key.into(), field: String::new() }
}

fn register(value: Option<&'static [u8]>) -> Outcome {
    let value = value.map(Bytes::from_static);
    Outcome::Value(Value::Register(Register { value, ..Register::default() }))
}

fn get(key: &str) -> Kv {
    Kv::Get { key_path: key_path(key) }
}

#[tokio::test]
async fn a_value_is_printed_as_it_is_with_a_newline() {
    let (mut client, _stop) = node(|_| register(Some(b"\xff blue"))).await;
    let output = Output::default();
    let mut screen = output.screen(Format::Table);
    data::kv(get("sky"), &mut client, &mut screen).await.expect("a value");
    screen.finish().expect("printed");
    assert_eq!(*output.0.lock().expect("no panic holds it"), b"\xff blue\n");
}

#[tokio::test]
async fn an_absent_value_is_a_negative_answer_and_prints_nothing() {
    for format in [Format::Table, Format::Json] {
        let (mut client, _stop) = node(|_| register(None)).await;
        let output = Output::default();
        let mut screen = output.screen(format);
        let failure = data::kv(get("sky"), &mut client, &mut screen).await.expect_err("absent");
        screen.finish().expect("nothing to print");
        assert_eq!((failure.exit, failure.code.as_str()), (exit::NEGATIVE, "absent"));
        assert_eq!(output.text(), "");
    }
}

#[tokio::test]
async fn a_closed_pipe_is_silent_and_exits_with_0() {
    let (mut client, _stop) = node(|_| register(Some(b"blue"))).await;
    let mut screen = Screen::over(Format::Table, ClosedPipe);
    let ended = data::kv(get("sky"), &mut client, &mut screen).await.and_then(|()| screen.finish());
    assert_eq!(ended, Err(Failure::pipe_closed()));
    assert_eq!(Failure::pipe_closed().exit, 0);
}

#[tokio::test]
async fn an_unknown_outcome_has_its_own_exit_code() {
    let (mut client, _stop) = node(|_| Outcome::Unknown { reached: None }).await;
    let cli =
        <Cli as clap::Parser>::try_parse_from(["continuum", "kv", "put", "facts", "sky", "blue"]);
    let Ok(Cli { verb: Verb::Kv(put), .. }) = cli else { panic!("{cli:?}") };
    let mut screen = Output::default().screen(Format::Table);
    let failure = data::kv(put, &mut client, &mut screen).await.expect_err("unknown");
    assert_eq!(failure.exit, exit::UNKNOWN);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let mut client = Client::of_url(&url, Duration::from_secs(30)).expect("a URL");
    let mut screen = Output::default().screen(Format::Table);
    let verb = super::args::Cluster::Status;
    let failure = cluster::cluster(verb, &mut client, &mut screen).await.expect_err("no node");
    assert_eq!(failure.exit, exit::UNREACHABLE);
}

fn row(key: String) -> Row {
    let content = Content::Register(vec![Bytes::from_static(b"1")]);
    Row { key: key.into(), fields: vec![Field { field: Bytes::new(), content }] }
}

#[tokio::test]
async fn an_export_reads_every_page() {
    let (mut client, _stop) = node(|request| {
        let Request::Read { query: Query::Rows { after, .. }, .. } = request else {
            return Outcome::Rejected(Reason::NotFormed);
        };
        let first = after.map_or(0, |key| u32::from(key[1] - b'0') + 1);
        let rows = (first..5.min(first + 2)).map(|at| row(format!("k{at}"))).collect();
        Outcome::Value(Value::Rows { rows, more: first + 2 < 5 })
    })
    .await;
    let output = Output::default();
    data::export("notes", &mut client, &mut output.screen(Format::Table)).await.expect("rows");
    let keys: Vec<String> = output.text().lines().map(|line| line[8..10].to_owned()).collect();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
}

fn source(folder: &tempfile::TempDir, rows: u32) -> Import {
    let path: PathBuf = folder.path().join("rows.jsonl");
    let lines: Vec<u8> = (0..rows)
        .flat_map(|at| [crate::api::json::line(&row(format!("k{at:04}"))), b"\n".to_vec()].concat())
        .collect();
    std::fs::write(&path, lines).expect("written");
    let ns = "notes".to_owned();
    Import { ns, format: Source::Jsonl, path, concurrency: 3, batch: 10, patience: 60 }
}

fn committed() -> Outcome {
    Outcome::Committed { level: Level::Durable, receipt: Receipt::default() }
}

fn notes() -> Outcome {
    let policy = continuum_core::api::Policy::Strong;
    let id = continuum_core::id::NamespaceId(1);
    let notes = continuum_core::api::Namespace { id, name: "notes".into(), policy, group: None };
    Outcome::Value(Value::Namespaces(vec![notes]))
}

/// The keys and the session of each write that the driver received.
type Seen = Arc<Mutex<Vec<(Vec<Bytes>, Option<Session>)>>>;

#[tokio::test]
async fn an_import_retries_a_batch_with_one_key_until_it_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let seen = Seen::default();
    let writes = Arc::clone(&seen);
    let (client, _stop) = node(move |request| match request {
        Request::Namespaces => notes(),
        Request::Write { mutations, session, .. } => {
            assert!(mutations.iter().all(|m| matches!(m.edits[0].change, Change::Put(_))));
            let keys = mutations.into_iter().map(|mutation| mutation.key).collect();
            let mut seen = writes.lock().expect("no panic holds it");
            seen.push((keys, session));
            // Every batch is refused once for a passing reason, and the second one with an unknown outcome.
            match seen.iter().filter(|(_, earlier)| *earlier == session).count() {
                1 if seen.len() == 2 => Outcome::Unknown { reached: None },
                1 => Outcome::Rejected(Reason::Busy),
                _ => committed(),
            }
        }
        _ => Outcome::Rejected(Reason::NotFormed),
    })
    .await;
    let output = Output::default();
    let mut screen = output.screen(Format::Json);
    import::run(&source(&folder, 95), client, &mut screen).await.expect("imported");
    screen.finish().expect("printed");
    let report: serde_json::Value = serde_json::from_str(&output.text()).expect("JSON");
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
async fn an_import_that_is_refused_for_good_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let (client, _stop) = node(|request| match request {
        Request::Namespaces => notes(),
        _ => Outcome::Rejected(Reason::WrongConsistency),
    })
    .await;
    let mut screen = Output::default().screen(Format::Table);
    let failure =
        import::run(&source(&folder, 20), client, &mut screen).await.expect_err("refused");
    assert_eq!(failure.code, "wrong_consistency");
}

#[tokio::test]
async fn an_import_into_an_unknown_namespace_sends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let import = Import { ns: "unheard".into(), ..source(&folder, 1) };
    let (client, _stop) = node(|request| match request {
        Request::Namespaces => notes(),
        other => panic!("{other:?}"),
    })
    .await;
    let mut screen = Output::default().screen(Format::Table);
    let failure = import::run(&import, client, &mut screen).await.expect_err("unknown");
    assert_eq!((failure.code.as_str(), failure.exit), ("unknown_namespace", exit::NEGATIVE));
}

const README: &str = include_str!("../../README.md");

#[test]
fn the_readme_lists_every_route() {
    for route in ROUTES {
        let line = format!("| {} | `{}` | {} |", route.method, route.path, route.summary);
        assert!(README.contains(&line), "README.md lacks the line\n{line}");
    }
    let is_route = |line: &&str| {
        ["| GET |", "| PUT |", "| POST |", "| DELETE |"].iter().any(|m| line.starts_with(m))
    };
    let listed = README.lines().filter(is_route).count();
    assert_eq!(listed, ROUTES.len(), "README.md lists routes that do not exist");
}

#[test]
fn the_readme_lists_every_problem() {
    for Kind { code, status, exit, title } in KINDS {
        let line = format!("| `{code}` | {status} | {exit} | {title} |");
        assert!(README.contains(&line), "README.md lacks the line\n{line}");
    }
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    fn leaves(table: &toml::Table, prefix: &str, found: &mut Vec<(String, toml::Value)>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => leaves(inner, &format!("{prefix}{key}."), found),
                value => found.push((format!("{prefix}{key}"), value.clone())),
            }
        }
    }
    let defaults = toml::Table::try_from(Settings::default()).expect("TOML");
    let mut found = Vec::new();
    leaves(&defaults, "", &mut found);
    for (key, default) in found {
        let start = format!("| `{key}` |");
        let line = README.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("README.md lacks {key}"));
        let default = match default {
            toml::Value::String(text) => text,
            toml::Value::Array(_) => "empty".to_owned(),
            other => other.to_string(),
        };
        assert!(line.contains(&default), "{default} is not in\n{line}");
    }
}
