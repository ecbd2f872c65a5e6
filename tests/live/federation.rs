//! Nodes as real processes with certificates of one authority, and what they say about themselves.
//!
//! A node is a child of this program. It is ended by that handle alone, at the latest when it is dropped.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use continuum_core::id::{Boot, FederationId, NodeId, StoreId};
use continuum_core::time::WallTime;
use continuum_runtime::clock::{Clock as _, SystemClock};
use continuum_runtime::entropy;
use continuum_runtime::tls::pki::{Authority, CA_CERTIFICATE, Issued, Validity};
use continuum_tests::process::{free_ports, signal};
use serde_json::{Value, json};

use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, holds, wait_for, wait_until};

/// The usual bound on the wait for a state of a node. Machines are loaded, and debug builds are slow.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// The answer to an init. The node's own bound is below it.
const INIT: Duration = Duration::from_secs(20);
/// A day before now, and ten years after: certificates stay valid while a row moves a clock.
const BEFORE_MS: u64 = 24 * 3600 * 1000;
const AFTER_MS: u64 = 10 * 365 * BEFORE_MS;

/// One node, running or not.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) peer: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    /// Peers that it looks for.
    pub(crate) bootstrap: Vec<SocketAddr>,
    /// Its certificate, for an attacker that stole it.
    pub(crate) issued: Issued,
    /// Further settings, lines of TOML below `[api]`.
    pub(crate) settings: String,
    /// Variables of its process.
    pub(crate) variables: Vec<(String, String)>,
    /// The file that sets its clock; without one it runs the shipped binary.
    clock: Option<PathBuf>,
    folder: PathBuf,
    /// Holds its certificate and key.
    certificate: PathBuf,
    binary: PathBuf,
    child: Option<Child>,
}

/// Nodes with certificates of one authority. They need not have formed a federation.
pub(crate) struct Nodes {
    pub(crate) authority: Authority,
    pub(crate) all: Vec<Node>,
    folder: PathBuf,
    binary: PathBuf,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

/// The answer of a node's `/readyz?strong`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) is_ready: bool,
    pub(crate) reasons: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// The whole body, for observations.
    pub(crate) body: String,
}

/// The validity of certificates here.
pub(crate) fn validity() -> Validity {
    let now = SystemClock.now().wall.0;
    Validity { from: WallTime(now - BEFORE_MS), until: WallTime(now + AFTER_MS) }
}

impl Nodes {
    /// Makes an authority and `count` nodes that know each other's addresses. Starts none.
    pub(crate) fn new(bench: &Bench, count: usize) -> Self {
        let folder = bench.folder();
        let authority = Authority::mint(validity()).expect("an authority");
        authority.save(&folder).expect("a folder for the authority");
        let binary = bench.binary.clone();
        let mut nodes = Self { authority, all: Vec::new(), folder, binary };
        (0..count).for_each(|_| nodes.add());
        nodes.introduce(&(0..count).collect::<Vec<_>>());
        nodes
    }

    /// Adds a node that knows nobody.
    pub(crate) fn add(&mut self) {
        let number = self.all.len() + 1;
        let ports = free_ports(2);
        let id = NodeId(entropy::identity());
        let folder = self.folder.join(format!("n{number}"));
        let issued = self.authority.issue_node(id, &[], validity()).expect("a certificate");
        issued.save(&folder, "node").expect("a folder for the certificate");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        self.all.push(Node {
            name: format!("n{number}"),
            id,
            peer: at(ports),
            api: at(ports + 1),
            data: folder.join("data"),
            log: folder.join("log"),
            bootstrap: Vec::new(),
            issued,
            settings: String::new(),
            variables: Vec::new(),
            clock: None,
            certificate: folder.clone(),
            folder,
            binary: self.binary.clone(),
            child: None,
        });
    }

    /// Puts the addresses of these nodes into each other's bootstrap lists.
    pub(crate) fn introduce(&mut self, who: &[usize]) {
        let addresses: Vec<SocketAddr> = who.iter().map(|at| self.all[*at].peer).collect();
        for at in who {
            self.all[*at].bootstrap.clone_from(&addresses);
        }
    }

    pub(crate) const fn federation(&self) -> FederationId {
        self.authority.federation()
    }

    /// Starts these nodes, and waits until each answers.
    pub(crate) fn start(&mut self, who: &[usize]) -> Check {
        who.iter().for_each(|at| self.all[*at].start());
        who.iter().try_for_each(|at| self.all[*at].answers())
    }

    /// Starts all nodes, and forms a federation of the first `voters`.
    pub(crate) fn form(&mut self, voters: usize) -> Check {
        let all: Vec<usize> = (0..self.all.len()).collect();
        self.start(&all)?;
        let others: Vec<usize> = (1..voters).collect();
        let answer = self.init(0, &others);
        holds(answer.as_ref().is_some_and(Answer::is_ok), || {
            format!("the first init was answered {}", brief(answer.as_ref()))
        })?;
        all.iter().try_for_each(|at| self.all[*at].becomes_ready())
    }

    /// Asks a node to found a federation with these other voters.
    pub(crate) fn init(&self, founder: usize, others: &[usize]) -> Option<Answer> {
        self.ask_init(others).send(self.all[founder].api)
    }

    /// The request of [`Nodes::init`].
    pub(crate) fn ask_init(&self, others: &[usize]) -> Ask<'static> {
        let voters: Vec<String> = others.iter().map(|at| self.all[*at].peer.to_string()).collect();
        Ask::new("POST", "/v1/init").json(&json!({ "voters": voters })).within(INIT)
    }

    /// An error if one of these nodes has ended or is not ready in time.
    pub(crate) fn all_serve(&mut self, who: &[usize]) -> Check {
        for at in who {
            let node = &mut self.all[*at];
            if let Some(code) = node.ended() {
                return Err(format!("{} ended with {code:?}: {}", node.name, node.last_line()));
            }
            node.becomes_ready()?;
        }
        Ok(())
    }

    /// Ends these nodes and starts them again.
    pub(crate) fn restart(&mut self, who: &[usize]) -> Check {
        for at in who {
            let _ = self.all[*at].kill();
        }
        self.start(who)
    }
}

impl Node {
    /// Gives it another node's certificate and key.
    pub(crate) fn take_identity(&mut self, issued: &Issued) {
        let folder = self.folder.join("stolen");
        issued.save(&folder, "node").expect("a folder for the certificate");
        self.issued = issued.clone();
        self.certificate = folder;
    }

    /// Makes it run with a clock that [`Node::set_clock`] sets.
    pub(crate) fn give_clock(&mut self) {
        self.clock = Some(self.folder.join("clock"));
        self.set_clock(0, 1000);
    }

    /// Sets the wall clock: this many milliseconds ahead from now on, and this fast in thousandths.
    pub(crate) fn set_clock(&self, ahead_ms: i64, speed_permille: u32) {
        let path = self.clock.as_deref().expect("a node with a clock");
        let next = path.with_extension("next");
        fs::write(&next, format!("{ahead_ms} {speed_permille}\n")).expect("a writable clock");
        fs::rename(&next, path).expect("a writable folder");
    }

    /// Writes its settings.
    fn configure(&self) -> PathBuf {
        let path = self.folder.join("node.toml");
        let list = |addresses: &[SocketAddr]| {
            let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
            quoted.join(", ")
        };
        let ca = self.folder.with_file_name(CA_CERTIFICATE);
        let key = |name: &str, value: &str| format!("{name} = \"{value}\"\n");
        let file = |name: &str, path: &Path| key(name, &path.display().to_string());
        let text = [
            key("name", &self.name),
            file("data", &self.data),
            "[peer]\n".into(),
            key("listen", &self.peer.to_string()),
            format!("bootstrap = [{}]\n", list(&self.bootstrap)),
            file("ca", &ca),
            file("cert", &self.certificate.join("node.pem")),
            file("key", &self.certificate.join("node.key")),
            "[api]\n".into(),
            key("listen", &self.api.to_string()),
            self.settings.clone(),
        ];
        let text = text.concat();
        fs::write(&path, text).expect("writable settings");
        path
    }

    /// Starts its process. Its log is appended to.
    pub(crate) fn start(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let config = self.configure();
        let mut command = match &self.clock {
            None => {
                let mut command = Command::new(&self.binary);
                command.args(["node", "start", "--config"]).arg(config);
                command
            }
            Some(clock) => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.args(["node", "--config"]).arg(config).arg("--clock").arg(clock);
                command
            }
        };
        let mut log = fs::OpenOptions::new();
        let log = log.create(true).append(true).open(&self.log).expect("a writable log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().expect("the node's process starts"));
    }

    /// Gives it an empty data directory. The old one stays beside it.
    pub(crate) fn move_data_away(&self) {
        let away = self.data.with_extension("away");
        fs::rename(&self.data, away).expect("a data directory");
    }

    /// The exit code of its process, if it has ended by itself. A signal counts as -1.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let status = self.child.as_mut()?.try_wait().expect("a child to ask")?;
        Some(status.code().unwrap_or(-1))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// Waits until its process ends by itself, and returns the exit code and the seconds.
    pub(crate) fn ends(&mut self, patience: Duration) -> Option<(i32, f64)> {
        wait_for(patience, || self.ended())
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        // An error means that the process has ended by itself.
        let _ = child.kill();
        child.wait().expect("a child to wait for").code()
    }

    /// Asks it to stop, and waits for the end.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        let ended = self.ends(SOON);
        let _ = self.kill();
        ended.map(|(code, _)| code)
    }

    /// Freezes it, or lets it go on.
    pub(crate) fn signal(&mut self, name: &str) {
        if self.is_running()
            && let Some(child) = &self.child
        {
            signal(child.id().into(), name);
        }
    }

    /// Waits until it answers at all.
    pub(crate) fn answers(&mut self) -> Check {
        let api = self.api;
        let answered = wait_for(SOON, || {
            if let Some(code) = self.ended() {
                return Some(Err(code));
            }
            Ask::get("/livez").send(api).map(|_| Ok(()))
        });
        match answered {
            Some((Ok(()), _)) => Ok(()),
            Some((Err(code), _)) => {
                Err(format!("{} ended with {code} at its start: {}", self.name, self.last_line()))
            }
            None => Err(format!("{} does not answer", self.name)),
        }
    }

    pub(crate) fn becomes_ready(&self) -> Check {
        let mut last = Ready::default();
        let reach = || {
            self.ready().is_some_and(|ready| {
                last = ready;
                last.is_ready
            })
        };
        wait_until(SOON, reach, String::new)
            .map(drop)
            .map_err(|_| format!("{} is not ready: {}", self.name, last.body))
    }

    pub(crate) fn ready(&self) -> Option<Ready> {
        let answer = Ask::get("/readyz?strong").send(self.api)?;
        let body = answer.json();
        let words = |list: &Value, of: fn(&Value) -> &Value| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|one| of(one).as_str().map(Into::into)).collect()
        };
        Some(Ready {
            is_ready: answer.status == 200,
            reasons: words(&body["reasons"], |one| one),
            warnings: words(&body["warnings"], |one| &one["code"]),
            body: answer.body,
        })
    }

    /// `/v1/status`; null when it does not answer.
    pub(crate) fn status(&self) -> Value {
        Ask::get("/v1/status").send(self.api).map_or(Value::Null, |answer| answer.json())
    }

    pub(crate) fn is_formed(&self) -> bool {
        self.status()["formed"] == true
    }

    pub(crate) fn store(&self) -> Option<StoreId> {
        StoreId::parse(self.status()["store"].as_str()?)
    }

    pub(crate) fn boot(&self) -> Option<Boot> {
        let status = self.status();
        let nonce = u64::from_str_radix(status["boot"]["nonce"].as_str()?, 16).ok()?;
        Some(Boot { count: status["boot"]["count"].as_u64()?, nonce })
    }

    /// Its view of a group: role, term, leader and positions.
    pub(crate) fn group(&self, group: u64) -> Value {
        let status = self.status();
        let groups = status["groups"].as_array().into_iter().flatten();
        groups.into_iter().find(|found| found["group"] == group).cloned().unwrap_or(Value::Null)
    }

    /// The ids of all members, as this node knows them, sorted.
    pub(crate) fn members(&self) -> Vec<Value> {
        let members = Ask::get("/v1/members").send(self.api);
        let members = members.map_or(Value::Null, |answer| answer.json());
        members["members"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |found| found.len())
    }

    /// The lines of the log that contain all of these parts.
    pub(crate) fn log_lines(&self, parts: &[&str]) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// The last error in the log, or its last line.
    pub(crate) fn last_line(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let error =
            log.lines().rev().find(|line| line.contains("error[") || line.contains("ERROR"));
        error.or_else(|| log.lines().last()).unwrap_or_default().into()
    }

    /// Runs the command line against this node. Returns the exit code and what it printed on both outputs.
    pub(crate) fn cli(&self, words: &[&str]) -> (Option<i32>, String) {
        let Ran { code, out, err } = self.run(words, b"");
        (code, String::from_utf8_lossy(&out).into_owned() + &err)
    }

    /// Runs the command line against this node with this standard input.
    pub(crate) fn run(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(&self.binary);
        command.args(["--node", &format!("http://{}", self.api)]).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("a piped input");
        let input = input.to_vec();
        // A verb may end before it has read everything.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("a child to wait for");
        feeder.join().expect("the input is given or refused");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Ran { code: output.status.code(), out: output.stdout, err }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Copies a directory with its content. A file that its owner removes meanwhile is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).expect("a new directory");
    for entry in
        fs::read_dir(from).expect("a readable directory").map(|entry| entry.expect("an entry"))
    {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if let Ok(bytes) = fs::read(&from) {
            let mut copied = fs::File::create(&to).expect("a writable directory");
            copied.write_all(&bytes).expect("room for the copy");
        }
    }
}
