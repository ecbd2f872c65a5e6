//! Tests of the verbs against a real API on loopback, with a driver that answers from a function.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::CommandFactory as _;
use continuum_core::api::{
    Change, Level, Outcome, Query, Reason, Receipt, Register, Request, Value,
};
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
