//! Verbs that need no node: the authority, settings and completions. Also finds the nodes of the running `dev`.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use clap::CommandFactory as _;
use continuum_core::id::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::{Cli, Config, Issue, Layers, Pki};
use super::exit::{self, Failure};
use super::output::Screen;
use super::start;
use crate::clock::{Clock as _, SystemClock};
use crate::settings::{Layered, SettingsError, SettingsErrors, annotated};
use crate::tls::CredentialsError;
use crate::tls::pki::{Authority, PkiError, Validity};
use crate::{entropy, regular};

/// A failure from an error whose text ends in `; hint: ...`.
pub(super) fn failure(exit: u8, code: &str, error: &impl std::fmt::Display) -> Failure {
    let text = error.to_string();
    let (what, hint) = text.split_once("; hint: ").unwrap_or((&text, ""));
    Failure::new(exit, code, what, "", hint)
}

/// The failure for a certificate or key, with this text: a file that cannot be read is no refusal.
pub(super) fn credentials_failure(
    error: &CredentialsError,
    text: &impl std::fmt::Display,
) -> Failure {
    let exit = match error {
        CredentialsError::File { .. } | CredentialsError::Secret(_) => exit::LOCAL,
        _ => exit::REFUSED,
    };
    failure(exit, "credentials", text)
}

fn pki_failure(error: &PkiError) -> Failure {
    let exit = match error {
        PkiError::Name { .. } => exit::USAGE,
        PkiError::File { error, .. } if error.kind() == io::ErrorKind::AlreadyExists => {
            exit::CONFLICT
        }
        _ => exit::LOCAL,
    };
    failure(exit, "pki", error)
}

/// The failures for wrong settings, one each.
pub(super) fn settings_failures(errors: &SettingsErrors) -> Vec<Failure> {
    let failure = |SettingsError { key, why, hint, .. }: &SettingsError| {
        Failure::new(exit::USAGE, "settings", key, why, hint)
    };
    errors.iter().map(failure).collect()
}

/// The failure for wrong settings.
pub(super) fn settings_failure(errors: &SettingsErrors) -> Failure {
    Failure::of_all(settings_failures(errors))
}

fn days(days: u64) -> Validity {
    Validity::starting(SystemClock.now().wall, Duration::from_secs(days * 24 * 3600))
}

/// `pki ...`.
pub(super) fn pki(verb: Pki, screen: &mut Screen) -> Result<(), Failure> {
    match verb {
        Pki::Init { out, days: span } => {
            let authority = Authority::mint(days(span)).map_err(|error| pki_failure(&error))?;
            authority.save(&out).map_err(|error| pki_failure(&error))?;
            let federation = authority.federation().to_string();
            if screen.is_json() {
                return screen.json(&json!({ "federation": federation, "directory": out }));
            }
            screen.line(format!("federation {federation}: its authority is in {}", out.display()))
        }
        Pki::Issue(issue) => issue_certificate(&issue, screen),
    }
}

fn issue_certificate(issue: &Issue, screen: &mut Screen) -> Result<(), Failure> {
    let authority = Authority::load(&issue.authority).map_err(|error| pki_failure(&error))?;
    let (issued, stem) = match &issue.client {
        Some(name) => (authority.issue_client(name, days(issue.days)), "client"),
        None => {
            let hosts: Vec<String> =
                issue.dns.iter().cloned().chain(issue.ip.iter().map(ToString::to_string)).collect();
            (authority.issue_node(node_id(issue.id.as_deref())?, &hosts, days(issue.days)), "node")
        }
    };
    let issued = issued.map_err(|error| pki_failure(&error))?;
    let (cert, key) = issued.save(&issue.out, stem).map_err(|error| pki_failure(&error))?;
    let principal = issued.principal.to_string();
    if screen.is_json() {
        return screen.json(&json!({ "principal": principal, "cert": cert, "key": key }));
    }
    screen.line(format!("{principal}: {} and {}", cert.display(), key.display()))
}

fn node_id(text: Option<&str>) -> Result<NodeId, Failure> {
    let Some(text) = text else { return Ok(NodeId(entropy::identity())) };
    NodeId::parse(text).ok_or_else(|| {
        Failure::usage(
            format!("{text:?} is not the id of a node"),
            "",
            "give 32 hexadecimal digits, or none",
        )
    })
}

/// The layers in the arguments: flags override the environment, which overrides the file.
pub(super) fn gather(layers: &Layers) -> Layered {
    let mut flags = layers.set.clone();
    let path = layers.data.as_ref().map(|path| path.display().to_string());
    let named = [("data", path), ("name", layers.name.clone()), ("log.filter", layers.log.clone())];
    flags.extend(named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Layered::gather(layers.config.as_deref(), env::vars_os(), &flags)
}

/// The layers in the arguments, with a name, a data directory and certificates where none are given.
fn proposed(layers: &Layers) -> Layered {
    let given = gather(layers);
    let name = if given.origins().contains_key("name") {
        given.settings().map_or_else(|_| String::new(), |settings| settings.name)
    } else {
        "n1".to_owned()
    };
    let proposals = [
        ("name", name.clone()),
        ("data", format!("data/{name}")),
        ("peer.ca", "pki/ca.pem".to_owned()),
        ("peer.cert", format!("pki/{name}/node.pem")),
        ("peer.key", format!("pki/{name}/node.key")),
    ];
    let missing = proposals.into_iter().filter(|(key, _)| !given.origins().contains_key(*key));
    let mut layers = layers.clone();
    layers.set.extend(missing.map(|(key, value)| (key.to_owned(), value)));
    gather(&layers)
}

/// `config ...`.
pub(super) fn config(verb: Config, screen: &mut Screen) -> Result<(), Failure> {
    match verb {
        Config::Check(layers) => {
            let ready = start::prepare(&layers)?;
            let open = ready.judge_store()?;
            let data = ready.settings.data.display();
            if screen.is_json() {
                return screen.json(&json!({ "valid": true, "in_use": open }));
            }
            screen.line(format!("valid: the node's data directory is {data}"))?;
            open.iter().try_for_each(|what| screen.line(format!("in use: {what}")))
        }
        Config::Init(layers) => {
            let layers = proposed(&layers);
            let settings = layers.settings().map_err(|errors| settings_failure(&errors))?;
            screen.bytes(annotated(&settings, layers.origins()).as_bytes())
        }
        Config::Show(layers) => {
            let layers = gather(&layers);
            let settings = layers.settings().map_err(|errors| settings_failure(&errors))?;
            let origins = layers.origins().iter();
            if screen.is_json() {
                let origins: serde_json::Map<_, _> =
                    origins.map(|(key, origin)| (key.clone(), origin.to_string().into())).collect();
                return screen.json(&json!({ "settings": settings, "origins": origins }));
            }
            for (key, origin) in origins {
                screen.line(format!("# {key} is from the {origin}"))?;
            }
            screen.bytes(toml::to_string(&settings).unwrap_or_default().as_bytes())
        }
    }
}

/// `completions SHELL`.
pub(super) fn completions(shell: clap_complete::Shell, screen: &mut Screen) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "continuum", &mut script);
    screen.bytes(&script)
}

/// The file in which a running `dev` names its nodes to the commands of its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DevState {
    /// The process of `dev`.
    pub(super) pid: i32,
    /// URLs of its nodes.
    pub(super) api: Vec<String>,
    /// Its directory.
    pub(super) root: PathBuf,
}

/// The file of a `dev` is never longer.
pub(super) const STATE_BYTES_MAX: u64 = 1 << 20;

/// Lies in the user's runtime directory, or else in a directory of the user below the temporary one.
pub(super) fn state_file() -> PathBuf {
    let own = || env::temp_dir().join(format!("continuum-{}", rustix::process::getuid().as_raw()));
    let base = env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    base.map_or_else(own, |base| PathBuf::from(base).join("continuum")).join("dev.json")
}

/// URLs of the running `dev`.
pub(super) fn dev_nodes() -> Result<Vec<String>, Failure> {
    running_dev().map(|state| state.api)
}

/// The running `dev`.
pub(super) fn running_dev() -> Result<DevState, Failure> {
    read_state(&state_file()).ok_or_else(no_node)
}

/// The failure when no node was named.
pub(super) fn no_node() -> Failure {
    Failure::new(
        exit::UNREACHABLE,
        "no_node",
        "no node was named, and you run no `continuum dev`",
        "a command asks a node's API",
        "give --node URL or CONTINUUM_NODE, or start `continuum dev`",
    )
}

/// Reads the file of a `dev` that still runs. A file of another user is ignored.
fn read_state(path: &Path) -> Option<DevState> {
    use std::os::unix::fs::MetadataExt as _;
    let is_ours = fs::metadata(path).ok()?.uid() == rustix::process::getuid().as_raw();
    let state: DevState =
        serde_json::from_slice(&regular::read(path, STATE_BYTES_MAX).ok()?).ok()?;
    let pid = rustix::process::Pid::from_raw(state.pid)?;
    let is_alive = rustix::process::test_kill_process(pid).is_ok();
    (is_ours && is_alive && !state.api.is_empty()).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_split_at_its_hint() {
        let failure = failure(exit::LOCAL, "x", &"cannot use it; hint: use another");
        assert_eq!(
            (failure.what.as_str(), failure.hint.as_str()),
            ("cannot use it", "use another")
        );
    }

    #[test]
    fn only_a_running_dev_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dev.json");
        assert_eq!(read_state(&path), None);
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let running =
            DevState { pid, api: vec!["http://127.0.0.1:7171".into()], root: "/d".into() };
        let write = |state: &DevState| fs::write(&path, serde_json::to_vec(state).expect("JSON"));
        write(&running).expect("written");
        assert_eq!(read_state(&path), Some(running.clone()));
        write(&DevState { pid: i32::MAX, ..running }).expect("written");
        assert_eq!(read_state(&path), None);
    }

    #[test]
    fn flags_override_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("n.toml");
        fs::write(&file, "name = \"of the file\"\n[log]\nfilter = \"warn\"\n").expect("written");
        let set = vec![("peer.listen".to_owned(), "127.0.0.1:7999".to_owned())];
        let layers =
            Layers { config: Some(file), data: None, name: Some("flag".into()), log: None, set };
        let settings = gather(&layers).settings().expect("settings");
        assert_eq!((settings.name.as_str(), settings.log.filter.as_str()), ("flag", "warn"));
        assert_eq!(settings.peer.listen.port(), 7999);
    }
}
