//! What people are told: one line for each notable thing, at the boundary. The only module that writes logs.
//!
//! Lines go to stderr. Keys, values and seeds never do.

use std::fmt::Display;
use std::io::IsTerminal as _;

use continuum_core::node::Notice;
use tracing::{debug, error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings, SettingsError};

/// Begins to write logs. Once in a process; a second time changes nothing.
///
/// # Errors
///
/// [`SettingsError`] for a filter that is none.
pub fn begin(settings: &LogSettings) -> Result<(), SettingsError> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| SettingsError {
        key: "log.filter".to_owned(),
        why: error.to_string(),
        hint: "info, or continuum_runtime=debug,warn".to_owned(),
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    // An earlier call in the same process has its way.
    let _ = match settings.format {
        LogFormat::Pretty => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}

/// Something notable that went well.
pub fn tell(what: &str, detail: &dyn Display) {
    info!("{what}: {detail}");
}

/// Something that an operator should look at.
pub fn warn_of(what: &str, detail: &dyn Display) {
    warn!("{what}: {detail}");
}

/// What ends the process.
pub fn fatal(what: &str, detail: &dyn Display) {
    error!("{what}: {detail}");
}

/// Somebody was refused; the reason is the label of the counter.
pub fn refused(whom: &dyn Display, reason: &str, detail: &dyn Display) {
    warn!(reason, "refused {whom}: {detail}");
}

/// A client's request was refused; the reason is the label of the counter. No warning: the client has been told.
pub fn refused_request(route: &str, reason: &str, detail: &str) {
    info!(reason, "refused a request for {route}: {detail}");
}

/// Nobody answers: tried again, so no news.
pub fn unreachable(address: &str, detail: &dyn Display) {
    debug!("{address}: {detail}");
}

/// What the core wants to be known.
pub fn notice(notice: &Notice) {
    match notice {
        Notice::Rejected { from, why } => warn!("refused a message of node {from}: {why}"),
        Notice::Role { group, term, role, leader: Some(leader) } => {
            info!("group {group}: {role:?} in term {term}, led by node {leader}");
        }
        Notice::Role { group, term, role, leader: None } => {
            info!("group {group}: {role:?} in term {term}, without a leader");
        }
        Notice::Health { node, from, to } => info!("node {node}: {from:?}, now {to:?}"),
        Notice::Formed => info!("member of a federation"),
        Notice::Applied { .. } => {}
        Notice::Checkpointed { owner, bytes } => debug!("checkpoint of {owner:?}: {bytes} bytes"),
        Notice::Installed { owner } => info!("caught up by a snapshot of {owner:?}"),
        Notice::Equivocation { dot } => {
            error!("two writes with one dot: {dot:?}; its author was copied or forged");
        }
        Notice::Ahead { node, by_ms } => {
            warn!("node {node} stamps {by_ms} ms ahead of this clock; hint: set its clock");
        }
        Notice::Refused { peer, reason } => warn!("refused node {peer}: {reason:?}"),
        Notice::WrongStore { peer, store } => {
            warn!("node {peer} came with store {store}, which is not the member's");
        }
        Notice::Fenced { why } => error!("fenced: {why}"),
    }
}
