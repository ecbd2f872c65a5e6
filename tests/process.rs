//! Real processes: the shipped binary, a `dev` federation on loopback, and commands that run against it.
//!
//! This module runs the binary that `cargo build` makes at the root, not one of the test build, so that no feature that
//! only tests enable is in it. The guard that started a child also ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

/// The shipped binary, built once for all tests of this process.
///
/// # Panics
///
/// If it does not build.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("the test's own path");
        let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--bin", "continuum"]).current_dir(crate::root());
        build.env("CARGO_TARGET_DIR", profile.parent().expect("the target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the binary builds");
        profile.join("continuum")
    })
}

/// Ports below those that a system gives to outgoing connections: one of these may take the port of a node that is
/// about to start again.
const PORTS: Range<u16> = 10_000..32_768;

/// The first of `count` consecutive loopback ports that were free a moment ago. A process is given each port once.
///
/// # Panics
///
/// If there is no such run of ports.
#[must_use]
pub fn free_ports(count: u16) -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Processes that run at the same time begin at different places.
    let next = NEXT.get_or_init(|| {
        let [high, low, ..] = continuum_runtime::entropy::identity();
        AtomicU16::new(PORTS.start + u16::from_be_bytes([high, low]) % (PORTS.end - PORTS.start))
    });
    let taken = |at: u16| {
        let first = if PORTS.contains(&(at + count)) { at } else { PORTS.start };
        Some(first + count)
    };
    for _ in 0..10_000 {
        let before = next.fetch_update(Relaxed, Relaxed, taken).expect("always a next port");
        let first = taken(before).expect("always a next port") - count;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}

/// A child process. Dropping the guard kills it.
#[derive(Debug)]
pub struct Guard(pub Child);

impl Guard {
    /// Starts a command with its standard output piped.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts"))
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    ///
    /// If the wait fails.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("a child to wait for")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // An error means that the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to the process `pid` with the system's `kill`.
///
/// # Panics
///
/// If there is no such process.
pub fn signal(pid: u64, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "process {pid} takes {name}");
}

/// A federation that `continuum dev` runs.
#[derive(Debug)]
pub struct Dev {
    /// The parent process.
    pub process: Guard,
    /// The JSON line that it printed when it was ready.
    pub ready: Value,
    restarted: Vec<Guard>,
}

impl Dev {
    /// Starts `nodes` nodes with their data below `data`, and waits until they commit writes.
    ///
    /// # Panics
    ///
    /// If the federation does not become ready.
    #[must_use]
    pub fn start(nodes: u16, data: &Path) -> Self {
        let port = free_ports(nodes).to_string();
        let mut command = Command::new(binary());
        command.args(["dev", "--nodes", &nodes.to_string(), "--api-port", &port, "--data"]);
        let log = std::fs::File::create(data.with_extension("log")).expect("a log file");
        let mut process = Guard::start(command.arg(data).stderr(log));
        let mut line = String::new();
        let output = process.0.stdout.take().expect("a piped output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
            panic!("dev printed {line:?} ({error}); its log:\n{log}")
        });
        assert_eq!(ready["ready"], true);
        Self { process, ready, restarted: Vec::new() }
    }

    /// The API of node `number`, counted from 1.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    #[must_use]
    pub fn api(&self, number: usize) -> &str {
        self.ready["api"][number - 1].as_str().expect("an API address")
    }

    /// The process id of the first process of node `number`.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    #[must_use]
    pub fn pid(&self, number: usize) -> u64 {
        self.ready["nodes"][number - 1]["pid"].as_u64().expect("a process id")
    }

    /// The data directory of node `number`.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    #[must_use]
    pub fn data(&self, number: usize) -> PathBuf {
        self.ready["nodes"][number - 1]["data"].as_str().expect("a directory").into()
    }

    /// The command that starts node `number` again.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    #[must_use]
    pub fn restart_command(&self, number: usize) -> Command {
        let argv = self.ready["nodes"][number - 1]["start"].as_array().expect("arguments");
        let mut words = argv.iter().map(|word| word.as_str().expect("a word"));
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command
    }

    /// Kills node `number` with `SIGKILL`, as a crash would.
    pub fn kill(&self, number: usize) {
        signal(self.pid(number), "KILL");
        // The process is gone only once its port is closed; before that no new process can take the data directory.
        while TcpStream::connect(authority(self.api(number))).is_ok() {}
    }

    /// Starts the killed node `number` again and waits until it is ready.
    pub fn restart(&mut self, number: usize) {
        self.start_again(number);
        self.wait_ready(number);
    }

    /// Starts the killed node `number` again.
    pub fn start_again(&mut self, number: usize) {
        let log = self.data(number).with_extension("restarted.log");
        let log = std::fs::File::create(log).expect("a log file");
        let started = Guard::start(self.restart_command(number).stderr(log));
        self.restarted.push(started);
    }

    /// Waits until node `number` is ready to serve.
    pub fn wait_ready(&self, number: usize) {
        wait_until(&format!("node {number} is ready"), || {
            get(self.api(number), "/readyz?strong").is_some_and(|response| response.status == 200)
        });
    }

    /// Runs a command against node `number`.
    ///
    /// # Panics
    ///
    /// If the binary does not run.
    #[must_use]
    pub fn run(&self, number: usize, arguments: &[&str]) -> Output {
        run(&[&["--node", self.api(number)], arguments].concat())
    }

    /// Runs a command against node `number` and returns its standard output.
    ///
    /// # Panics
    ///
    /// If the command fails.
    pub fn ok(&self, number: usize, arguments: &[&str]) -> String {
        let output = self.run(number, arguments);
        assert!(
            output.status.success(),
            "{arguments:?} on node {number}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }
}

/// Runs the binary until it ends.
///
/// # Panics
///
/// If it does not run.
#[must_use]
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

/// Polls until `holds` returns true, for at most about a minute.
///
/// # Panics
///
/// If it never does.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        // Another process cannot wake this thread; the pause only keeps the asking from starving it.
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("never: {what}");
}

/// A server's response.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The header lines.
    pub headers: String,
    /// The body, as text.
    pub body: String,
}

/// The `host:port` of an API address.
///
/// # Panics
///
/// If it is not `http://127.0.0.1:PORT`.
#[must_use]
pub fn authority(api: &str) -> SocketAddr {
    api.trim_start_matches("http://").trim_end_matches('/').parse().expect("a socket address")
}

/// Sends a `GET` over a new connection; `None` if there is no answer.
#[must_use]
pub fn get(api: &str, path: &str) -> Option<Response> {
    exchange(api, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// Sends `request` unchanged and reads the whole answer; `None` if there is no answer.
#[must_use]
pub fn exchange(api: &str, request: &str) -> Option<Response> {
    let mut stream = TcpStream::connect(authority(api)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (headers, body) = answer.split_once("\r\n\r\n")?;
    let status = headers.split_whitespace().nth(1)?.parse().ok()?;
    Some(Response { status, headers: headers.into(), body: body.into() })
}

/// The sum of all metric lines that begin with `series`; 0 if there is none.
#[must_use]
pub fn metric(api: &str, series: &str) -> f64 {
    let Some(response) = get(api, "/metrics") else { return 0.0 };
    let values = response.body.lines().filter(|line| line.starts_with(series));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
