//! The operator's settings: one TOML file, overlaid by `CONTINUUM_*` variables, overlaid by flags.
//!
//! A key is its path in the file: `peer.listen` is `listen` under `[peer]`, and the variable
//! `CONTINUUM_PEER__LISTEN` (two underscores between levels). An unknown key or variable is an error, so that a
//! misspelt bound is noticed, and all mistakes are told at once. Relative paths in the file are relative to the file.
//! The core's own knobs are under `[core]`. Nothing here reads the files that a setting names.

mod annotated;
mod keys;
mod layer;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use continuum_core::config::Config;
use continuum_core::limits::ADDRESS_BYTES_MAX;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;

use crate::visible::{Keep, visible};

pub use annotated::annotated;
pub use keys::{KEYS, Key};
pub use layer::{Layered, Origin, VARIABLES_OF_COMMANDS};

/// All settings of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The data directory. Created when absent; one node owns it for ever.
    pub data: PathBuf,
    /// The node's name for people. Empty: the first 8 digits of its id.
    pub name: String,
    /// Links to other nodes.
    pub peer: PeerSettings,
    /// The HTTP API.
    pub api: ApiSettings,
    /// Log lines on stderr.
    pub log: LogSettings,
    /// The store on disk.
    pub disk: DiskSettings,
    /// The core's knobs.
    pub core: Config,
}

/// Links to other nodes: always TLS 1.3 with certificates at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerSettings {
    /// Where peers are accepted, `ip:port`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where other nodes reach this one, `host:port`. Required when `listen` is an unspecified address; default
    /// `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where to look for other nodes, `host:port` each. Every address of a host name is tried.
    pub bootstrap: Vec<String>,
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM. No other user may read it.
    pub key: PathBuf,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            advertise: None,
            bootstrap: Vec::new(),
            ca: PathBuf::new(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
        }
    }
}

/// The HTTP API: plain on loopback, TLS with client certificates on any other address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// Where clients are accepted, `ip:port`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The API's certificates. Without them it is plain HTTP, and only on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Names for which a plain listener answers, beside loopback addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Open connections, over all addresses.
    pub connections_max: usize,
    /// Open connections of one address; of one network of 64 bits with IPv6.
    pub connections_of_address_max: usize,
}

impl Default for ApiSettings {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7401));
        let (connections_max, connections_of_address_max) = (2048, 512);
        let hosts = Vec::new();
        Self { listen, tls: None, hosts, connections_max, connections_of_address_max }
    }
}

/// PEM files of one TLS listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// The authority that must have issued a client's certificate.
    pub ca: PathBuf,
    /// The listener's certificate.
    pub cert: PathBuf,
    /// Its key. No other user may read it.
    pub key: PathBuf,
}

/// Log lines on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// A filter in the syntax of `tracing-subscriber`: `info`, `continuum_runtime=debug,warn`.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, filter: "info".to_owned() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// The store on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskSettings {
    /// Bytes of the reserve file. It is given up on a full disk, so that accepted writes can still become durable. At
    /// least one segment of the log.
    pub reserve_bytes: u64,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self { reserve_bytes: 2 * continuum_core::wal::SEGMENT_BYTES }
    }
}

/// A wrong setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}; hint: {hint}")]
pub struct SettingsError {
    /// The key, as its path in the file.
    pub key: String,
    /// The defect of its value.
    pub why: String,
    /// A value to set instead.
    pub hint: String,
    /// Whether nothing of a whole settings file is known.
    is_of_a_whole_file: bool,
}

impl SettingsError {
    fn new(key: &str, why: impl Into<String>, hint: impl Into<String>) -> Self {
        let (key, why, hint) = (key.to_owned(), why.into(), hint.into());
        Self { key, why, hint, is_of_a_whole_file: false }
    }
}

/// All wrong settings of one node; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct SettingsErrors(Vec<SettingsError>);

impl SettingsErrors {
    fn unless_empty(all: Vec<SettingsError>) -> Result<(), Self> {
        if all.is_empty() { Ok(()) } else { Err(Self(all)) }
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, SettingsError> {
        self.0.iter()
    }
}

impl From<SettingsError> for SettingsErrors {
    fn from(error: SettingsError) -> Self {
        Self(vec![error])
    }
}

fn lines(all: &[SettingsError]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Settings in which every key has a value, also those that have no default.
fn complete() -> Settings {
    let mut settings = Settings::default();
    settings.peer.advertise = Some(String::new());
    settings.api.tls = Some(TlsFiles::default());
    settings
}

impl Settings {
    /// Reads `file` (when given), the variables and the flags, merges and validates them.
    ///
    /// # Errors
    ///
    /// All mistakes, as [`SettingsErrors`].
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(String, String)],
    ) -> Result<Self, SettingsErrors> {
        Layered::gather(file, variables, flags).checked()
    }

    /// Checks every key against its bound and against the keys that it depends on.
    ///
    /// # Errors
    ///
    /// All mistakes, as [`SettingsErrors`], in the order of the file.
    pub fn validate(&self) -> Result<(), SettingsErrors> {
        SettingsErrors::unless_empty(self.mistakes())
    }

    fn mistakes(&self) -> Vec<SettingsError> {
        let mut found = Vec::new();
        if self.data.as_os_str().is_empty() {
            let hint = "data = \"/var/lib/continuum\", or --data";
            found.push(SettingsError::new("data", "no data directory is set", hint));
        }
        if self.name.len() > ADDRESS_BYTES_MAX {
            found.push(SettingsError::new("name", "longer than 300 bytes", "a shorter name"));
        } else if visible(self.name.as_bytes(), Keep::Nothing) != self.name {
            let why = "it has control characters, or marks that turn the direction of writing";
            found.push(SettingsError::new("name", why, "a name of letters, digits, - and ."));
        }
        self.peer.check(&mut found);
        self.api.check(&mut found);
        if is_one_port(self.peer.listen, self.api.listen) {
            let why = format!("peers are accepted on {} already", self.peer.listen);
            found.push(SettingsError::new("api.listen", why, "another port"));
        }
        found.extend(self.log.filter().err());
        if self.disk.reserve_bytes < continuum_core::wal::SEGMENT_BYTES {
            found.push(SettingsError::new(
                "disk.reserve_bytes",
                "below one segment of the log",
                format!("at least {}", continuum_core::wal::SEGMENT_BYTES),
            ));
        }
        self.check_core(&mut found);
        found
    }

    /// Asks the core for its first mistake, again and again with the default in place of the last one.
    fn check_core(&self, found: &mut Vec<SettingsError>) {
        let defaults = Table::try_from(Config::default()).unwrap_or_default();
        let mut table = Table::try_from(&self.core).unwrap_or_default();
        let mut core = self.core.clone();
        for _ in KEYS {
            let Err(error) = core.validate() else { return };
            let key = format!("core.{}", error.knob);
            found.push(SettingsError::new(
                &key,
                "out of bounds",
                format!("it must be {}", error.bound),
            ));
            let sound = layer::find(&defaults, error.knob).cloned();
            layer::insert(&mut table, error.knob, sound.unwrap_or(Value::Boolean(false)));
            let Ok(mended) = Value::Table(table.clone()).try_into() else { return };
            core = mended;
        }
    }

    /// Every path, by its key.
    fn paths(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let peer = &mut self.peer;
        let mut paths = vec![
            ("data", &mut self.data),
            ("peer.ca", &mut peer.ca),
            ("peer.cert", &mut peer.cert),
            ("peer.key", &mut peer.key),
        ];
        if let Some(tls) = &mut self.api.tls {
            let TlsFiles { ca, cert, key } = tls;
            paths.extend([("api.tls.ca", ca), ("api.tls.cert", cert), ("api.tls.key", key)]);
        }
        paths
    }
}

/// Whether only one of two listeners can be opened.
fn is_one_port(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && one.port() != 0
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl LogSettings {
    /// The filter, parsed.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn filter(&self) -> Result<EnvFilter, SettingsError> {
        EnvFilter::try_new(&self.filter).map_err(|error| {
            SettingsError::new(
                "log.filter",
                error.to_string(),
                "info, or continuum_runtime=debug,warn",
            )
        })
    }
}

impl PeerSettings {
    fn check(&self, found: &mut Vec<SettingsError>) {
        if self.advertise.is_none() && self.listen.ip().is_unspecified() {
            found.push(SettingsError::new(
                "peer.advertise",
                format!("peers cannot reach {}", self.listen),
                "the host and port under which other nodes reach this one",
            ));
        }
        found
            .extend(self.advertise.iter().filter_map(|a| check_address("peer.advertise", a).err()));
        found
            .extend(self.bootstrap.iter().filter_map(|a| check_address("peer.bootstrap", a).err()));
        need_files(
            [("peer.ca", &self.ca), ("peer.cert", &self.cert), ("peer.key", &self.key)],
            found,
        );
    }
}

impl ApiSettings {
    fn check(&self, found: &mut Vec<SettingsError>) {
        found.extend(self.hosts.iter().filter_map(|name| check_host(name).err()));
        for (key, bound) in [
            ("api.connections_max", self.connections_max),
            ("api.connections_of_address_max", self.connections_of_address_max),
        ] {
            if !(1..=CONNECTIONS_MAX).contains(&bound) {
                let hint = format!("a number from 1 to {CONNECTIONS_MAX}");
                found.push(SettingsError::new(key, "out of bounds", hint));
            }
        }
        match &self.tls {
            Some(TlsFiles { ca, cert, key }) => {
                need_files(
                    [("api.tls.ca", ca), ("api.tls.cert", cert), ("api.tls.key", key)],
                    found,
                );
            }
            None if self.listen.ip().is_loopback() => {}
            None => found.push(SettingsError::new(
                "api.listen",
                format!("{} is not loopback, and the API has no TLS", self.listen),
                "a loopback address such as 127.0.0.1:7401, or ca, cert and key under [api.tls]",
            )),
        }
    }
}

/// No process has more file descriptors on common systems.
const CONNECTIONS_MAX: usize = 1 << 20;

/// The longest host name (RFC 1035, 2.3.4).
const HOST_BYTES_MAX: usize = 253;

fn check_host(name: &str) -> Result<(), SettingsError> {
    let is_sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if (1..=HOST_BYTES_MAX).contains(&name.len()) && name.chars().all(is_sound) {
        return Ok(());
    }
    let hint = "a name alone, such as node1.home: no port, no scheme and no wildcard";
    Err(SettingsError::new("api.hosts", format!("{name:?} is not a host name"), hint))
}

fn need_files(files: [(&str, &PathBuf); 3], found: &mut Vec<SettingsError>) {
    let hint =
        "the path of a PEM file; make them with `continuum pki init` and `continuum pki issue`";
    let missing = files.into_iter().filter(|(_, path)| path.as_os_str().is_empty());
    found.extend(missing.map(|(key, _)| SettingsError::new(key, "no file is set", hint)));
}

/// Checks for `host:port`, with a host and a port that can be dialled.
fn check_address(key: &str, address: &str) -> Result<(), SettingsError> {
    let parts = address.rsplit_once(':');
    let sound = address.len() <= ADDRESS_BYTES_MAX
        && parts.is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
    if sound {
        return Ok(());
    }
    let why = format!("{address:?} is not the address of a node");
    Err(SettingsError::new(key, why, "host:port, such as n1.example:7400"))
}
