//! Tests of the verbs against a real API on loopback, with a driver that answers from a function.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::CommandFactory as _;
use continuum_core::api::{
    Change, Content, Field, Level, Outcome, Query, Reason, Receipt, Register, Request, Row, Value,
};
use continuum_core::id::Index;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::args::{Cli, Format, KeyPath, Kv, Verb};
use super::client::Client;
use super::exit::{self, Failure};
use super::output::Screen;
use super::{cluster, data};
use crate::api::connections::Bounds;
use crate::api::origin::Hosts;
use crate::api::problem::{KINDS, Kind};
use crate::api::serve::serve;
use crate::api::{Api, ROUTES};
use crate::handle::{Command, channel};
use crate::metrics::Metrics;
use crate::settings::{KEYS, Key, Settings, VARIABLES_OF_COMMANDS};

/// Collects the output.
#[derive(Clone, Debug, Default)]
pub(super) struct Output(Arc<Mutex<Vec<u8>>>);

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
    pub(super) fn screen(&self, format: Format) -> Screen {
        Screen::over(format, false, self.clone())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic holds it").clone()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
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
pub(super) async fn node(
    mut answer: impl FnMut(Request) -> Outcome + Send + 'static,
) -> (Client, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (handle, mut commands) = channel();
    let (stop, stopped) = watch::channel(false);
    let api = Arc::new(Api::new(handle, Arc::new(Metrics::new()), Hosts::Local(Vec::new())));
    tokio::spawn(serve(listener, None, api, Bounds::default(), stopped));
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Request { request, reply } => drop(reply.send(answer(request))),
                Command::Namespaces { reply } => drop(reply.send(None)),
                Command::Figures { .. } => {}
                Command::Status { reply } => {
                    if let Outcome::Value(Value::Status(status)) = answer(Request::Status) {
                        drop(reply.send(*status));
                    }
                }
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
    Kv::Get { key_path: key_path(key), raw: false }
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
async fn a_raw_value_is_printed_byte_for_byte() {
    for format in [Format::Table, Format::Json] {
        let (mut client, _stop) = node(|_| register(Some(b"\xff\n\x1b"))).await;
        let output = Output::default();
        let mut screen = output.screen(format);
        let get = Kv::Get { key_path: key_path("sky"), raw: true };
        data::kv(get, &mut client, &mut screen).await.expect("a value");
        screen.finish().expect("printed");
        assert_eq!(output.bytes(), b"\xff\n\x1b");
    }
}

#[tokio::test]
async fn all_keys_with_a_prefix_are_deleted_page_by_page() {
    let deleted = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&deleted);
    let (mut client, _stop) = node(move |request| match request {
        Request::Read { query: Query::Keys { prefix, after, .. }, .. } => {
            let keys = ["-a", "-b", "-c"].map(|key| Bytes::from_static(key.as_bytes()));
            let left = keys.into_iter().filter(|key| {
                key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > after)
            });
            let (keys, count) = (left.clone().take(2).collect(), left.count());
            Outcome::Value(Value::Keys { keys, more: count > 2 })
        }
        Request::Write { mutations, level: Level::Applied, session: Some(_), .. } => {
            let mut seen = seen.lock().expect("no panic holds it");
            for mutation in mutations {
                assert_eq!(mutation.edits[0].change, Change::Delete);
                seen.push(mutation.key);
            }
            Outcome::Committed { level: Level::Applied, receipt: Receipt::default() }
        }
        _ => Outcome::Rejected(Reason::NotFormed),
    })
    .await;
    let line = ["continuum", "kv", "del", "facts", "--prefix", "-", "--level", "applied"];
    let cli = <Cli as clap::Parser>::try_parse_from(line).expect("a command");
    let Verb::Kv(del) = cli.verb else { panic!("another verb") };
    let output = Output::default();
    let mut screen = output.screen(Format::Table);
    data::kv(del, &mut client, &mut screen).await.expect("deleted");
    screen.finish().expect("printed");
    assert_eq!(output.text(), "deleted 3 keys\n");
    assert_eq!(*deleted.lock().expect("no panic holds it"), ["-a", "-b", "-c"]);
}

/// Performs a verb of `kv`, and returns its end and its output.
async fn kv(line: &[&str], client: &mut Client, format: Format) -> (Result<(), Failure>, String) {
    let line = ["continuum", "kv"].iter().chain(line);
    let cli = <Cli as clap::Parser>::try_parse_from(line).expect("a command");
    let Verb::Kv(verb) = cli.verb else { panic!("another verb") };
    let output = Output::default();
    let mut screen = output.screen(format);
    let ended = data::kv(verb, client, &mut screen).await;
    screen.finish().expect("printed");
    (ended, output.text())
}

#[tokio::test]
async fn a_removal_of_nothing_is_a_negative_answer() {
    for existed in [true, false] {
        let (mut client, _stop) = node(move |request| match request {
            Request::Write { .. } => {
                let receipt = Receipt { revision: Some(Index(17)), context: None, existed };
                Outcome::Committed { level: Level::Durable, receipt }
            }
            _ => Outcome::Value(Value::Keys { keys: Vec::new(), more: false }),
        })
        .await;
        let lines: [&[&str]; 2] =
            [&["del", "facts", "sky"], &["del", "facts", "sky", "--field", "f"]];
        for line in lines {
            let (ended, text) = kv(line, &mut client, Format::Table).await;
            if existed {
                assert_eq!((ended, text.as_str()), (Ok(()), "deleted at revision 17\n"));
                continue;
            }
            let failure = ended.expect_err("nothing was there");
            assert_eq!((failure.exit, failure.code.as_str()), (exit::NEGATIVE, "absent"));
            assert_eq!((text.as_str(), &failure.json()["revision"]), ("", &17.into()));
        }
        let none = kv(&["del", "facts", "--prefix", "s"], &mut client, Format::Json).await;
        assert_eq!((none.0.expect_err("no key").exit, none.1.as_str()), (exit::NEGATIVE, ""));
    }
}

#[tokio::test]
async fn a_refused_batch_names_the_key_that_was_not_as_expected() {
    let (mut client, _stop) = node(|request| match request {
        Request::Write { mutations, session: Some(_), .. } if mutations.len() == 2 => {
            Outcome::Rejected(Reason::Conflict { revision: Some(Index(9)), at: 1 })
        }
        other => panic!("{other:?}"),
    })
    .await;
    let line = ["batch", "facts", "--put", "a=1", "--put", "b=2", "--expect-absent", "b"];
    let (ended, text) = kv(&line, &mut client, Format::Table).await;
    let failure = ended.expect_err("a conflict");
    assert_eq!(
        (failure.exit, failure.code.as_str(), text.as_str()),
        (exit::CONFLICT, "conflict", "")
    );
    assert!(failure.why.contains("\"b\"") && failure.why.contains("revision 9"), "{failure}");
    let json = failure.json();
    assert_eq!((&json["at"], &json["key"], &json["revision"]), (&1.into(), &"b".into(), &9.into()));
}

#[tokio::test]
async fn keys_are_listed_with_values_or_counted() {
    let rows = || {
        let register = |values: &[&'static str]| {
            let values = values.iter().map(|value| Bytes::from_static(value.as_bytes()));
            Content::Register(values.collect())
        };
        let row = |key: &'static str, field: &'static str, content| {
            let field = Field { field: Bytes::from_static(field.as_bytes()), content };
            Row { key: Bytes::from_static(key.as_bytes()), fields: vec![field] }
        };
        vec![
            row("a", "", register(&["0"])),
            row("sea", "", register(&["x", "y"])),
            row("sky", "", register(&["blue"])),
            row("sun", "f", Content::Counter(3)),
            row("t", "", register(&["1"])),
        ]
    };
    let (mut client, _stop) = node(move |request| {
        let Request::Read { query, .. } = request else { panic!("{request:?}") };
        match query {
            Query::Rows { after, limit } => {
                let left = rows()
                    .into_iter()
                    .filter(|row| after.as_ref().is_none_or(|after| row.key > after));
                let more = left.clone().count() > limit as usize;
                Outcome::Value(Value::Rows { rows: left.take(limit as usize).collect(), more })
            }
            Query::Keys { prefix, after: None, .. } => {
                let keys =
                    rows().into_iter().map(|row| row.key).filter(|key| key.starts_with(&prefix));
                Outcome::Value(Value::Keys { keys: keys.collect(), more: false })
            }
            Query::Export { .. } => Outcome::Rejected(Reason::WrongConsistency),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let values = ["list", "facts", "--prefix", "s", "--values"];
    let all = "sea\t[{\"field\":\"\",\"register\":[\"x\",\"y\"]}]\nsky\tblue\n\
               sun\t[{\"field\":\"f\",\"counter\":3}]\n";
    assert_eq!(kv(&values, &mut client, Format::Table).await, (Ok(()), all.to_owned()));
    let (ended, text) =
        kv(&[&values[..], &["--limit", "2"]].concat(), &mut client, Format::Json).await;
    let expected = "{\"rows\":[{\"fields\":[{\"field\":\"\",\"register\":[\"x\",\"y\"]}],\"key\":\"sea\"},\
                    {\"fields\":[{\"field\":\"\",\"register\":[\"blue\"]}],\"key\":\"sky\"}]}\n";
    assert_eq!((ended, text.as_str()), (Ok(()), expected));
    let keys = kv(&["list", "facts", "--prefix", "s"], &mut client, Format::Table).await;
    assert_eq!(keys, (Ok(()), "sea\nsky\nsun\n".to_owned()));
    let count = ["list", "facts", "--prefix", "s", "--count"];
    assert_eq!(kv(&count, &mut client, Format::Table).await, (Ok(()), "3\n".to_owned()));
    assert_eq!(kv(&count, &mut client, Format::Json).await, (Ok(()), "{\"count\":3}\n".to_owned()));
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
    let mut screen = Screen::over(Format::Table, false, ClosedPipe);
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
    for Key { key, kind, meaning } in KEYS {
        let is_of = |line: &str| {
            line.starts_with(&format!("| `{key}` | {kind} | "))
                && line.ends_with(&format!(" | {meaning} |"))
        };
        assert!(README.lines().any(is_of), "README.md says {key} in other words");
    }
}

#[test]
fn the_variables_of_commands_are_those_that_the_arguments_read() {
    let command = Cli::command();
    let read = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    let read: BTreeSet<&str> = read.collect();
    assert_eq!(read, BTreeSet::from(VARIABLES_OF_COMMANDS));
}

#[test]
fn the_unit_for_systemd_runs_a_node() {
    let unit = include_str!("../../continuum.service");
    let program = "/usr/local/bin/continuum";
    let commands = unit.lines().filter_map(|line| line.split_once('=')?.1.strip_prefix(program));
    let lines: Vec<&str> = commands.collect();
    let [command] = lines[..] else { panic!("{lines:?}") };
    let line = ["continuum"].into_iter().chain(command.split_whitespace());
    let cli = <Cli as clap::Parser>::try_parse_from(line).expect("a command");
    assert!(matches!(cli.verb, Verb::Node(_)), "{command}");
    // A restart mends none of these.
    let kept_down = format!("{} {} {}", exit::USAGE, exit::REFUSED, exit::CONFLICT);
    assert!(unit.contains(&format!("RestartPreventExitStatus={kept_down}\n")), "{unit}");
}
