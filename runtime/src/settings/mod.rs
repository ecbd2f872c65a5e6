//! The operator's settings: one TOML file, overlaid by `CONTINUUM_*` variables, overlaid by flags.
//!
//! A key is its path in the file: `peer.listen` is `listen` under `[peer]`, and the variable
//! `CONTINUUM_PEER__LISTEN` (two underscores between levels). An unknown key is an error, so that a misspelt bound is
//! noticed. Relative paths in the file are relative to the file. The core's own knobs are under `[core]`.

mod layer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use continuum_core::config::Config;
use continuum_core::limits::ADDRESS_BYTES_MAX;
use serde::{Deserialize, Serialize};

pub use layer::{Layered, Origin};

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
}

impl Default for ApiSettings {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7401));
        Self { listen, tls: None, hosts: Vec::new() }
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
}

impl SettingsError {
    fn new(key: &str, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key: key.to_owned(), why: why.into(), hint: hint.into() }
    }
}

impl Settings {
    /// Reads `file` (when given), the variables and the flags, merges and validates them.
    ///
    /// # Errors
    ///
    /// The first [`SettingsError`].
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        let settings = Layered::gather(file, variables, flags)?.settings()?;
        settings.validate()?;
        Ok(settings)
    }

    /// Checks every key against its bound and against the keys that it depends on.
    ///
    /// # Errors
    ///
    /// The first [`SettingsError`] in the order of the file.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.data.as_os_str().is_empty() {
            return Err(SettingsError::new(
                "data",
                "no data directory is set",
                "data = \"/var/lib/continuum\", or --data",
            ));
        }
        if self.name.len() > ADDRESS_BYTES_MAX {
            return Err(SettingsError::new("name", "longer than 300 bytes", "a shorter name"));
        }
        self.peer.validate()?;
        self.api.validate()?;
        if self.disk.reserve_bytes < continuum_core::wal::SEGMENT_BYTES {
            return Err(SettingsError::new(
                "disk.reserve_bytes",
                "below one segment of the log",
                format!("at least {}", continuum_core::wal::SEGMENT_BYTES),
            ));
        }
        self.core.validate().map_err(|error| {
            let key = format!("core.{}", error.knob);
            SettingsError::new(&key, "out of bounds", format!("it must be {}", error.bound))
        })
    }

    /// Makes relative paths relative to `base`, the directory of the file that holds them.
    fn rebase(&mut self, base: &Path) {
        let mut paths =
            vec![&mut self.data, &mut self.peer.ca, &mut self.peer.cert, &mut self.peer.key];
        if let Some(tls) = &mut self.api.tls {
            paths.extend([&mut tls.ca, &mut tls.cert, &mut tls.key]);
        }
        for path in paths.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            *path = base.join(&*path);
        }
    }
}

impl PeerSettings {
    fn validate(&self) -> Result<(), SettingsError> {
        match &self.advertise {
            Some(address) => check_address("peer.advertise", address)?,
            None if self.listen.ip().is_unspecified() => {
                return Err(SettingsError::new(
                    "peer.advertise",
                    format!("peers cannot reach {}", self.listen),
                    "the host and port under which other nodes reach this one",
                ));
            }
            None => {}
        }
        for address in &self.bootstrap {
            check_address("peer.bootstrap", address)?;
        }
        for (key, path) in
            [("peer.ca", &self.ca), ("peer.cert", &self.cert), ("peer.key", &self.key)]
        {
            need_file(key, path)?;
        }
        Ok(())
    }
}

impl ApiSettings {
    fn validate(&self) -> Result<(), SettingsError> {
        self.hosts.iter().try_for_each(|name| check_host(name))?;
        let Some(tls) = &self.tls else {
            if self.listen.ip().is_loopback() {
                return Ok(());
            }
            return Err(SettingsError::new(
                "api.listen",
                format!("{} is not loopback, and the API has no TLS", self.listen),
                "a loopback address such as 127.0.0.1:7401, or ca, cert and key under [api.tls]",
            ));
        };
        for (key, path) in
            [("api.tls.ca", &tls.ca), ("api.tls.cert", &tls.cert), ("api.tls.key", &tls.key)]
        {
            need_file(key, path)?;
        }
        Ok(())
    }
}

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

fn need_file(key: &str, path: &Path) -> Result<(), SettingsError> {
    if path.as_os_str().is_empty() {
        let hint =
            "the path of a PEM file; make them with `continuum pki init` and `continuum pki issue`";
        return Err(SettingsError::new(key, "no file is set", hint));
    }
    Ok(())
}

/// Checks for `host:port`, with a host and a port that can be dialled.
fn check_address(key: &str, address: &str) -> Result<(), SettingsError> {
    let parts = address.rsplit_once(':');
    let sound = address.len() <= ADDRESS_BYTES_MAX
        && parts.is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
    if sound {
        return Ok(());
    }
    let why = format!("{address:?} is not the address of a node");
    Err(SettingsError::new(key, why, "host:port, such as n1.example:7400"))
}
