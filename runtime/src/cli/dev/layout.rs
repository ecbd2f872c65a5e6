//! The directory of a `dev` federation: its plan, authority, certificates and settings files.
//!
//! The plan is written first: it marks the directory as ours, so that the next start can finish an interrupted
//! creation. Node ids and peer addresses never change; the API's ports are those of the last start.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use continuum_core::id::NodeId;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::super::args::Dev;
use super::super::exit::{self, Failure};
use super::super::local::{STATE_BYTES_MAX, failure};
use crate::clock::{Clock as _, SystemClock};
use crate::tls::pki::{Authority, CA_CERTIFICATE, CA_KEY, ISSUED_VALID, PkiError, Validity};
use crate::tls::secret;
use crate::{entropy, regular};

/// The file that marks a directory as ours.
const PLAN: &str = "dev.json";
/// The first peer port; ports stay below the range that systems use for outgoing connections.
const PEER_PORT_FIRST: u16 = 10_000;
/// The number of peer ports to choose from.
const PEER_PORTS: u16 = 20_000;

/// The facts that stay the same over all starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The version of this file.
    version: u32,
    /// The nodes, in order.
    nodes: Vec<PlannedNode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PlannedNode {
    id: String,
    peer: String,
}

/// A node to start.
#[derive(Clone, Debug)]
pub(super) struct DevNode {
    /// The id in its certificate.
    pub(super) id: NodeId,
    /// `node-` and its number.
    pub(super) name: String,
    /// The address of its peer links.
    pub(super) peer: String,
    /// The URL of its API.
    pub(super) api: String,
    /// Its data directory.
    pub(super) data: PathBuf,
    /// Its settings file.
    pub(super) config: PathBuf,
    /// Receives its stdout and stderr.
    pub(super) log: PathBuf,
}

/// The directory of a federation.
#[derive(Debug)]
pub(super) struct Layout {
    /// The canonical path.
    pub(super) root: PathBuf,
    /// The nodes, in order.
    pub(super) nodes: Vec<DevNode>,
    is_temporary: bool,
}

impl Drop for Layout {
    /// Removes a temporary directory, however its start ended.
    fn drop(&mut self) {
        if self.is_temporary {
            drop(fs::remove_dir_all(&self.root));
        }
    }
}

impl Layout {
    /// Prepares the directory, or completes what an earlier start left.
    ///
    /// # Errors
    ///
    /// When the directory is not ours, or cannot be written.
    pub(super) fn prepare(dev: &Dev) -> Result<Self, Failure> {
        let is_temporary = dev.data.is_none();
        let root = match &dev.data {
            Some(root) => root.clone(),
            None => env::temp_dir().join(format!("continuum-dev-{}", NodeId(entropy::identity()))),
        };
        let made = fs::DirBuilder::new().recursive(!is_temporary).mode(0o700).create(&root);
        made.map_err(|error| cannot("made", &root, &error))?;
        let root = fs::canonicalize(&root).map_err(|error| cannot("used", &root, &error))?;
        let mut layout = Self { root, nodes: Vec::new(), is_temporary };
        let plan = plan(&layout.root, dev.nodes)?;
        layout.nodes = nodes(&layout.root, &plan, dev.api_port)?;
        layout.certify()?;
        layout.configure()?;
        Ok(layout)
    }

    fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Makes the missing authority and certificates.
    fn certify(&self) -> Result<(), Failure> {
        let failed = |error: PkiError| failure(exit::LOCAL, "pki", &error);
        let pki = self.pki();
        let validity = Validity::starting(SystemClock.now().wall, ISSUED_VALID);
        let authority = if pki.join(CA_CERTIFICATE).exists() {
            Authority::load(&pki).map_err(failed)?
        } else {
            // A key without its certificate is left of an interrupted creation, and has signed nothing.
            drop(fs::remove_file(pki.join(CA_KEY)));
            let authority = Authority::mint(validity).map_err(failed)?;
            authority.save(&pki).map_err(failed)?;
            authority
        };
        for node in &self.nodes {
            let home = self.home(node);
            if home.join("node.pem").exists() {
                continue;
            }
            drop(fs::remove_file(home.join("node.key")));
            let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let issued = authority.issue_node(node.id, &hosts, validity).map_err(failed)?;
            issued.save(&home, "node").map_err(failed)?;
        }
        Ok(())
    }

    fn home(&self, node: &DevNode) -> PathBuf {
        self.root.join(&node.name)
    }

    /// Writes each node's settings file.
    fn configure(&self) -> Result<(), Failure> {
        let bootstrap: Vec<Value> =
            self.nodes.iter().map(|node| Value::String(node.peer.clone())).collect();
        for node in &self.nodes {
            let home = self.home(node);
            let mut peer = Table::new();
            peer.insert("listen".into(), node.peer.clone().into());
            peer.insert("bootstrap".into(), bootstrap.clone().into());
            peer.insert("ca".into(), text(&self.pki().join(CA_CERTIFICATE))?);
            peer.insert("cert".into(), text(&home.join("node.pem"))?);
            peer.insert("key".into(), text(&home.join("node.key"))?);
            let mut api = Table::new();
            api.insert("listen".into(), node.api.trim_start_matches("http://").into());
            let mut all = Table::new();
            all.insert("name".into(), node.name.clone().into());
            all.insert("data".into(), text(&node.data)?);
            all.insert("peer".into(), peer.into());
            all.insert("api".into(), api.into());
            fs::write(&node.config, all.to_string())
                .map_err(|error| cannot("written", &node.config, &error))?;
        }
        Ok(())
    }
}

/// A path as text for a settings file.
fn text(path: &Path) -> Result<Value, Failure> {
    let text = path.to_str().ok_or_else(|| {
        let what = format!("{} is not UTF-8", path.display());
        Failure::usage(what, "settings files are UTF-8", "choose another directory")
    })?;
    Ok(text.into())
}

fn cannot(done: &str, path: &Path, error: &io::Error) -> Failure {
    let what = format!("{} cannot be {done}", path.display());
    Failure::local(what, error, "choose another directory with --data")
}

/// The plan in the directory, or a new one if the directory is empty.
fn plan(root: &Path, nodes: Option<u16>) -> Result<Plan, Failure> {
    let path = root.join(PLAN);
    if path.exists() {
        return resume(root, &path, nodes);
    }
    let mut entries = fs::read_dir(root).map_err(|error| cannot("read", root, &error))?;
    if entries.next().is_some() {
        let what = format!("{} is not empty, and was not made by `continuum dev`", root.display());
        let hint = "give an empty directory, or one that does not exist";
        return Err(Failure::new(
            exit::LOCAL,
            "foreign_directory",
            what,
            "it has no dev.json",
            hint,
        ));
    }
    let nodes = nodes.unwrap_or(NODES);
    let first = free_ports(nodes)?;
    let planned = (0..nodes).map(|at| PlannedNode {
        id: NodeId(entropy::identity()).to_string(),
        peer: format!("127.0.0.1:{}", first + at),
    });
    let plan = Plan { version: 1, nodes: planned.collect() };
    let bytes = serde_json::to_vec_pretty(&plan).unwrap_or_default();
    secret::create(&path, &bytes, true).map_err(|error| cannot("written", &path, &error))?;
    Ok(plan)
}

/// The default number of nodes of a new federation.
const NODES: u16 = 3;

fn resume(root: &Path, path: &Path, nodes: Option<u16>) -> Result<Plan, Failure> {
    let foreign = |why: String| {
        let what = format!("{} is not a plan of `continuum dev`", path.display());
        Failure::new(exit::LOCAL, "foreign_directory", what, why, "give an empty directory")
    };
    let owner = fs::metadata(root).map_err(|error| cannot("read", root, &error))?.uid();
    if owner != rustix::process::getuid().as_raw() {
        return Err(foreign("its directory belongs to another user".into()));
    }
    let bytes =
        regular::read(path, STATE_BYTES_MAX).map_err(|error| cannot("read", path, &error))?;
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| foreign(error.to_string()))?;
    if plan.version != 1 || plan.nodes.is_empty() {
        return Err(foreign(format!("its version is {}", plan.version)));
    }
    if nodes.is_some_and(|nodes| usize::from(nodes) != plan.nodes.len()) {
        let what = format!("{} has {} nodes", root.display(), plan.nodes.len());
        let hint = "leave --nodes out, or give another directory";
        return Err(Failure::usage(what, "a federation resumes with all of its nodes", hint));
    }
    Ok(plan)
}

/// The first of `count` consecutive ports that are free now.
fn free_ports(count: u16) -> Result<u16, Failure> {
    let [low, high, ..] = entropy::identity();
    let start = u16::from_le_bytes([low, high]) % PEER_PORTS;
    for step in 0..PEER_PORTS / count {
        let first = PEER_PORT_FIRST + (start + step * count) % PEER_PORTS;
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    Err(Failure::new(
        exit::LOCAL,
        "no_ports",
        "no free ports were found",
        "",
        "stop what listens on ports 10000 to 30000",
    ))
}

/// The nodes of a plan.
fn nodes(root: &Path, plan: &Plan, api_port: u16) -> Result<Vec<DevNode>, Failure> {
    let numbered = (1_u16..).zip(&plan.nodes);
    numbered
        .map(|(number, node)| {
            let name = format!("node-{number}");
            let home = root.join(&name);
            fs::create_dir_all(&home).map_err(|error| cannot("made", &home, &error))?;
            let id = NodeId::parse(&node.id).ok_or_else(|| {
                Failure::new(
                    exit::LOCAL,
                    "foreign_directory",
                    "dev.json holds an invalid node id",
                    "",
                    "give an empty directory",
                )
            })?;
            Ok(DevNode {
                id,
                peer: node.peer.clone(),
                api: format!("http://127.0.0.1:{}", api_port + number - 1),
                data: home.join("data"),
                config: home.join("node.toml"),
                log: home.join("node.log"),
                name,
            })
        })
        .collect()
}

/// The last lines of a log, for an error.
pub(super) fn tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// How long a start may take.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn dev(data: &Path, nodes: Option<u16>) -> Dev {
        Dev { nodes, data: Some(data.to_owned()), api_port: 7171, verb: None }
    }

    #[test]
    fn an_empty_directory_is_used_and_resumes_with_its_node_ids() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Layout::prepare(&dev(folder.path(), Some(2))).expect("a layout");
        let settings = Settings::load(Some(&first.nodes[1].config), [], &[]).expect("settings");
        assert_eq!(settings.api.listen.port(), 7172);
        assert_eq!(settings.peer.listen.to_string(), first.nodes[1].peer);
        let ca = fs::read(folder.path().join("pki/ca.pem")).expect("an authority");
        // An interrupted creation: what is missing is made, what exists stays.
        fs::remove_file(folder.path().join("node-2/node.pem")).expect("removed");
        let again = Layout::prepare(&dev(folder.path(), None)).expect("a layout");
        assert_eq!(again.nodes.len(), 2);
        assert!(
            first.nodes.iter().zip(&again.nodes).all(|(a, b)| (a.id, &a.peer) == (b.id, &b.peer))
        );
        assert_eq!(fs::read(folder.path().join("pki/ca.pem")).expect("an authority"), ca);
        assert!(folder.path().join("node-2/node.pem").exists());
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("thesis.txt"), "mine").expect("written");
        let failure = Layout::prepare(&dev(folder.path(), None)).expect_err("foreign");
        assert_eq!((failure.code.as_str(), failure.exit), ("foreign_directory", exit::LOCAL));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn another_number_of_nodes_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        Layout::prepare(&dev(folder.path(), Some(1))).expect("a layout");
        let failure = Layout::prepare(&dev(folder.path(), Some(2))).expect_err("another number");
        assert_eq!(failure.exit, exit::USAGE);
    }

    #[test]
    fn a_temporary_directory_is_removed_with_its_layout() {
        let layout =
            Layout::prepare(&Dev { nodes: Some(1), data: None, api_port: 7171, verb: None })
                .expect("a layout");
        let root = layout.root.clone();
        assert!(root.exists());
        drop(layout);
        assert!(!root.exists());
    }
}
