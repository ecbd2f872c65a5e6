//! `dev`: a federation of real processes on loopback, with real TLS from a throw-away authority.
//!
//! The children run this same binary. A child that dies is not started again, so that a user can kill it on purpose;
//! `dev restart` asks the running `dev` to do that. All children end with their parent, even if it is killed, and a
//! `dev` that ends in order also ends whatever else uses its data. Stdout gets one line of JSON, stderr all messages.

mod layout;
mod users;

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, io};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::args::Dev;
use super::client::{Call, Client};
use super::exit::{self, Failure};
use super::local::{DevState, STATE_BYTES_MAX, running_dev, state_file};
use super::output::{Screen, say};
use super::stop;
use crate::api::input::InitBody;
use crate::regular;
use crate::tls::secret;
use continuum_core::limits::VOTERS_MAX;
use layout::{DevNode, Layout, READY_WITHIN, tail};

/// Pause between two checks during a start or a stop.
const POLL_STARTING: Duration = Duration::from_millis(20);
/// Pause between two checks of the children while all is well.
const POLL_RUNNING: Duration = Duration::from_millis(250);
/// How long the children may take to end by themselves. The whole stop takes less than 5 s.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// The file in a `dev`'s directory with which a command asks it to start this node again. It goes once that is done.
fn wish(root: &Path, number: usize) -> PathBuf {
    root.join(format!("restart-{number}"))
}

/// Asks the running `dev` to start a node again, and waits until the node serves.
pub(super) async fn restart(number: u16, screen: &mut Screen) -> Result<u8, Failure> {
    let state = running_dev()?;
    let number = usize::from(number);
    let url = state.api.get(number - 1).ok_or_else(|| {
        let why = format!("the running `dev` has {}", state.api.len());
        Failure::usage(format!("there is no node {number}"), why, "give a number from 1")
    })?;
    let path = wish(&state.root, number);
    File::create(&path).map_err(|error| {
        Failure::local(format!("{} cannot be written", path.display()), &error, "see `dev`")
    })?;
    let begun = Instant::now();
    let mut client = Client::of_url(url, Duration::from_secs(5))?;
    while path.exists() || client.send(&Call::get("/readyz")).await.is_err() {
        if begun.elapsed() > READY_WITHIN || running_dev().is_err() {
            drop(fs::remove_file(&path));
            let what = format!("node {number} does not serve");
            return Err(Failure::new(exit::UNREACHABLE, "not_ready", what, "", "read its log"));
        }
        tokio::time::sleep(POLL_STARTING).await;
    }
    if screen.is_json() {
        screen.json(&serde_json::json!({ "node": number, "api": url }))?;
    } else {
        screen.line(format!("node {number} serves on {url}"))?;
    }
    Ok(0)
}

/// Runs a federation until SIGINT, SIGTERM or SIGHUP.
pub(super) fn run(dev: &Dev, screen: &mut Screen) -> Result<u8, Failure> {
    let stop = stop::signals()?;
    let layout = Layout::prepare(dev)?;
    // The children end with the thread that starts them, so that must be the main thread.
    super::wait(async move {
        let mut children = Children::default();
        let ended = children.run(&layout, screen, stop).await;
        children.stop().await;
        users::end_all(&layout.nodes).await;
        ended.map(|()| 0)
    })
}

/// The line on stdout, printed once, when writes commit.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    api: Vec<String>,
    data: PathBuf,
    nodes: Vec<ReadyNode>,
}

#[derive(Debug, Serialize)]
struct ReadyNode {
    id: String,
    pid: u32,
    api: String,
    peer: String,
    data: PathBuf,
    /// The command that lets this `dev` start it again.
    restart: Vec<String>,
    /// The command that starts it without a `dev`.
    start: Vec<String>,
}

/// The processes of the nodes.
#[derive(Debug, Default)]
struct Children {
    all: Vec<Node>,
    state: Option<PathBuf>,
}

#[derive(Debug)]
struct Node {
    node: DevNode,
    process: Child,
    is_gone: bool,
}

impl Children {
    async fn run(
        &mut self,
        layout: &Layout,
        screen: &mut Screen,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        for node in &layout.nodes {
            self.all.push(Node { process: start(node)?, node: node.clone(), is_gone: false });
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            ready = self.ready() => ready?,
        }
        self.publish(&layout.root)?;
        screen.line(serde_json::to_vec(&self.line(layout)?).unwrap_or_default())?;
        screen.finish()?;
        let first = &layout.nodes[0].api;
        say(format!(
            "{} nodes are ready; in another shell: continuum --node {first} cluster members",
            self.all.len()
        ));
        loop {
            let look = tokio::time::timeout(POLL_RUNNING, stop.wait_for(|stop| *stop)).await;
            if look.is_ok() {
                return Ok(());
            }
            self.report_ends();
            self.grant_restarts(&layout.root).await?;
        }
    }

    /// Starts the nodes again for which somebody asks.
    async fn grant_restarts(&mut self, root: &Path) -> Result<(), Failure> {
        for (number, child) in (1..).zip(&mut self.all) {
            let wish = wish(root, number);
            if !wish.exists() {
                continue;
            }
            child.end().await;
            child.process = start(&child.node)?;
            child.is_gone = false;
            say(format!("{} is started again", child.node.name));
            drop(fs::remove_file(wish));
        }
        Ok(())
    }

    /// Waits until every node serves and commits. Creates the federation when there is none yet.
    async fn ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < READY_WITHIN {
            if let Some(node) = self.all.iter_mut().find_map(Node::ended) {
                return Err(failed_start(node));
            }
            match self.serves().await {
                Ok(()) => return Ok(()),
                Err(failure) => last = Some(failure),
            }
            tokio::time::sleep(POLL_STARTING).await;
        }
        let why = last.map(|failure| failure.to_string()).unwrap_or_default();
        let hint = format!("read the logs, such as {}", self.all[0].node.log.display());
        Err(Failure::new(
            exit::UNREACHABLE,
            "not_ready",
            "the federation did not become ready",
            why,
            hint,
        ))
    }

    /// Checks that writes commit: every node knows the leader, and reads the registry through a quorum.
    async fn serves(&self) -> Result<(), Failure> {
        let mut clients = Vec::new();
        let mut is_formed = false;
        for node in &self.all {
            let mut client = Client::of_url(&node.node.api, Duration::from_secs(5))?;
            let status = client.send(&Call::get("/v1/status")).await?.json()?;
            if clients.is_empty() {
                is_formed = status["formed"] == true;
            }
            // Another program may have the port; then the child is about to end.
            if status["node"].as_str() != Some(&node.node.id.to_string()) {
                let what = format!("{} is not {}", node.node.api, node.node.name);
                let hint = "give another --api-port";
                return Err(Failure::new(exit::UNREACHABLE, "port_taken", what, "", hint));
            }
            clients.push(client);
        }
        if !is_formed {
            let others = self.all.iter().skip(1).take(VOTERS_MAX - 1);
            let voters = others.map(|node| node.node.peer.clone()).collect();
            clients[0].send(&Call::post("/v1/init", &InitBody { voters })).await?;
        }
        for client in &mut clients {
            client.send(&Call::get("/readyz?strong")).await?;
            client.send(&Call::get("/v1/namespaces?consistent")).await?;
        }
        Ok(())
    }

    /// The line on stdout.
    fn line(&self, layout: &Layout) -> Result<Ready, Failure> {
        let nodes = self.all.iter().map(|Node { node, process, .. }| {
            Ok(ReadyNode {
                id: node.id.to_string(),
                pid: process.id(),
                api: node.api.clone(),
                peer: node.peer.clone(),
                data: node.data.clone(),
                restart: restart_command(&node.name)?,
                start: start_command(node)?,
            })
        });
        let api = self.all.iter().map(|node| node.node.api.clone()).collect();
        let nodes = nodes.collect::<Result<_, Failure>>()?;
        Ok(Ready { ready: true, api, data: layout.root.clone(), nodes })
    }

    /// Writes the URLs for other commands of this user.
    fn publish(&mut self, root: &Path) -> Result<(), Failure> {
        let path = state_file();
        let failed = |error: io::Error| {
            let what = format!("{} cannot be written", path.display());
            Failure::local(what, &error, "set XDG_RUNTIME_DIR to a directory of your own")
        };
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        // The file may be left of an earlier `dev`; this one replaces it.
        drop(fs::remove_file(&path));
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let api = self.all.iter().map(|node| node.node.api.clone()).collect();
        let bytes =
            serde_json::to_vec(&DevState { pid, api, root: root.to_owned() }).unwrap_or_default();
        secret::create(&path, &bytes, true).map_err(failed)?;
        self.state = Some(path);
        Ok(())
    }

    /// Reports each child that ended, once.
    fn report_ends(&mut self) {
        for child in &mut self.all {
            if !child.is_gone && child.ended().is_some() {
                child.is_gone = true;
                say(format!(
                    "{} ended and is not started again; `continuum dev restart` does that",
                    child.node.name
                ));
            }
        }
    }

    /// Ends all children: by SIGTERM first, then by force.
    async fn stop(&mut self) {
        if let Some(path) = self.state.take() {
            withdraw(&path);
        }
        self.all.iter_mut().for_each(Node::terminate);
        let begun = Instant::now();
        while self.all.iter_mut().any(|child| child.ended().is_none()) {
            if begun.elapsed() > STOP_WITHIN {
                say("some nodes did not end by themselves; killing them");
                self.all.iter_mut().for_each(|child| drop(child.process.kill()));
                self.all.iter_mut().for_each(|child| drop(child.process.wait()));
                return;
            }
            tokio::time::sleep(POLL_STARTING).await;
        }
    }
}

impl Node {
    /// Asks the process to end.
    fn terminate(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        // The number of a child that was waited for may belong to another process by now.
        if let Some(pid) = pid.filter(|_| self.ended().is_none()) {
            kill_process(pid, Signal::TERM).unwrap_or_default();
        }
    }

    /// Ends the process, by force if it does not end by itself.
    async fn end(&mut self) {
        self.terminate();
        let begun = Instant::now();
        while self.ended().is_none() {
            if begun.elapsed() > STOP_WITHIN {
                drop(self.process.kill());
                drop(self.process.wait());
                return;
            }
            tokio::time::sleep(POLL_STARTING).await;
        }
    }

    /// The node, if its process has ended.
    fn ended(&mut self) -> Option<&DevNode> {
        let is_ended = !matches!(self.process.try_wait(), Ok(None));
        is_ended.then_some(&self.node)
    }
}

fn failed_start(node: &DevNode) -> Failure {
    let what = format!("{} ended while it started", node.name);
    let why = format!("the end of its log:\n{}", tail(&node.log));
    let hint = "if another `dev` runs, give another --api-port and --data";
    Failure::new(exit::LOCAL, "node_failed", what, why, hint)
}

/// Removes the file of [`Children::publish`], unless another `dev` has replaced it.
fn withdraw(path: &Path) {
    let read = regular::read(path, STATE_BYTES_MAX).ok();
    let state = read.and_then(|bytes| serde_json::from_slice::<DevState>(&bytes).ok());
    if state.is_some_and(|state| u32::try_from(state.pid) == Ok(std::process::id())) {
        drop(fs::remove_file(path));
    }
}

fn program() -> Result<String, Failure> {
    let program = env::current_exe().map_err(|error| {
        Failure::local("the path of this program is not known", &error, "report this")
    })?;
    Ok(program.display().to_string())
}

/// The command that starts a node.
fn start_command(node: &DevNode) -> Result<Vec<String>, Failure> {
    let config = node.config.display().to_string();
    Ok(vec![program()?, "node".into(), "start".into(), "--config".into(), config])
}

/// The command that lets this `dev` start a node again. Names end in the node's number.
fn restart_command(name: &str) -> Result<Vec<String>, Failure> {
    let number = name.rsplit('-').next().unwrap_or_default();
    Ok(vec![program()?, "dev".into(), "restart".into(), number.into()])
}

/// Starts the process of a node.
fn start(node: &DevNode) -> Result<Child, Failure> {
    let failed =
        |error: io::Error| Failure::local(format!("{} cannot be started", node.name), &error, "");
    let log = File::options().create(true).append(true).open(&node.log).map_err(failed)?;
    let words = start_command(node)?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("--parent").arg(std::process::id().to_string());
    // Settings in the shell's environment are for nodes that are started by hand.
    for (name, _) in
        env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CONTINUUM_"))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    command.spawn().map_err(failed)
}
