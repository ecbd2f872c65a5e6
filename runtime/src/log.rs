//! Log lines: one for each notable event at the edges of the node. No other module writes logs.
//!
//! Lines go to stderr. Keys, values and seeds are never logged.

use std::fmt::Display;
use std::io::IsTerminal as _;

use continuum_core::node::Notice;
use tracing::{debug, error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings, SettingsError};

/// Starts logging. A second call in the same process changes nothing.
///
/// # Errors
///
/// [`SettingsError`] when the filter cannot be parsed.
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
    // Fails when an earlier call has started logging; that one stays.
    let _ = match settings.format {
        LogFormat::Pretty => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}

/// A notable event that went well.
pub fn info(what: &str, detail: &dyn Display) {
    info!("{what}: {detail}");
}

/// An event that needs an operator's attention.
pub fn warn(what: &str, detail: &dyn Display) {
    warn!("{what}: {detail}");
}

/// An event that ends the process.
pub fn fatal(what: &str, detail: &dyn Display) {
    error!("{what}: {detail}");
}

/// A connection or message was refused; `reason` is the label of its counter.
pub fn refused(peer: &dyn Display, reason: &str, detail: &dyn Display) {
    warn!(reason, "refused {peer}: {detail}");
}

/// A client's request was refused; `reason` is the label of its counter. No warning: the client has been told.
pub fn refused_request(route: &str, reason: &str, detail: &str) {
    info!(reason, "refused a request for {route}: {detail}");
}

/// No answer from an address. Only for debugging, since the node tries again by itself.
pub fn unreachable(address: &str, detail: &dyn Display) {
    debug!("{address}: {detail}");
}

/// A notice of the core.
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
        Notice::Refused { peer, reason } => warn!("refused node {peer}: {reason:?}"),
        Notice::WrongStore { peer, store } => {
            warn!("node {peer} came with store {store}, which is not the member's");
        }
        Notice::GroupHalted { group, index } => {
            error!(
                "group {group} halted: this build cannot apply entry {index}; hint: start this node with the newest \
                 version that any node runs"
            );
        }
        Notice::SnapshotRefused { group, index, leader } => {
            let leader =
                leader.map_or_else(|| "a leader".to_owned(), |node| format!("node {node}"));
            warn!("group {group}: the snapshot of {leader} up to entry {index} does not restore");
        }
        Notice::RivalFederation { peer, genesis } => {
            error!(
                "rival federation: node {peer} is in another one of this id, genesis {genesis}; hint: keep one of the \
                 two, and start the nodes of the other with empty data directories"
            );
        }
        Notice::OtherGenesis { from, genesis } => {
            debug!("dropped a message of node {from}, which belongs to genesis {genesis}");
        }
        Notice::Founding { founder, genesis, accepted: true } => {
            info!("accepted the founding of node {}, genesis {genesis}", founder.node);
        }
        Notice::Founding { founder, genesis, accepted: false } => {
            info!("the founding of node {} will never be, genesis {genesis}", founder.node);
        }
        Notice::Fenced { why } => error!("fenced: {why}"),
        Notice::RefusedBy { peer, reason, known } => {
            warn!("node {peer} refuses this process: {reason:?}; it knows start {}", known.count);
        }
        Notice::Suspended { suspended: true } => {
            warn!("suspended: a voter knows another process of this store, the others are asked");
        }
        Notice::Suspended { suspended: false } => info!("not suspended any more: the voters agree"),
    }
}
