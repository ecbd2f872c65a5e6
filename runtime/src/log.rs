//! Log lines: one for each notable event at the edges of the node. No other module writes logs.
//!
//! Lines go to stderr. Keys, values and seeds are never logged, and words of others only as escapes. A peer or a client
//! can cause most lines, so each of those has a reason, and each reason a few lines in a row and then one from time to
//! time, with the number of lines that were left out. The counters in `metrics` miss none.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use continuum_core::node::Notice;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings, SettingsError};
use crate::visible::Visible;

/// Starts logging. A second call in the same process changes nothing.
///
/// # Errors
///
/// [`SettingsError`] when the filter cannot be parsed.
pub fn begin(settings: &LogSettings) -> Result<(), SettingsError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(settings.filter()?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    // Fails when an earlier call has started logging; that one stays, with its filter.
    match settings.format {
        LogFormat::Pretty => {
            let lines = lines.with_filter_reloading();
            let filter = lines.reload_handle();
            if lines.try_init().is_ok() {
                let _ = FILTER.set(Box::new(move |new| filter.reload(new).is_ok()));
            }
        }
        LogFormat::Json => {
            let lines = lines.json().with_filter_reloading();
            let filter = lines.reload_handle();
            if lines.try_init().is_ok() {
                let _ = FILTER.set(Box::new(move |new| filter.reload(new).is_ok()));
            }
        }
    }
    Ok(())
}

/// Replaces the filter of the lines. The type of its owner depends on the format.
type Reload = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static FILTER: OnceLock<Reload> = OnceLock::new();

/// Takes another filter for the lines that follow.
///
/// # Errors
///
/// [`SettingsError`] when the filter cannot be parsed.
pub fn refilter(settings: &LogSettings) -> Result<(), SettingsError> {
    let filter = settings.filter()?;
    if FILTER.get().is_some_and(|reload| reload(filter)) {
        info("read the log filter again", &settings.filter);
    }
    Ok(())
}

/// A notable event that went well.
pub fn info(what: &str, detail: &dyn Display) {
    info!("{what}: {}", Visible(detail));
}

/// An event that needs an operator's attention.
pub fn warn(what: &str, detail: &dyn Display) {
    warn!("{what}: {}", Visible(detail));
}

/// An event that ends the process.
pub fn fatal(what: &str, detail: &dyn Display) {
    error!("{what}: {}", Visible(detail));
}

/// A connection or message was refused; `reason` is the label of its counter.
pub fn refused(peer: &dyn Display, reason: &'static str, detail: &dyn Display) {
    if let Some(more) = admit(reason) {
        warn!(reason, "refused {}: {}{more}", Visible(peer), Visible(detail));
    }
}

/// A client's request was refused; `reason` is the label of its counter. No warning: the client has been told.
pub fn refused_request(route: &str, reason: &'static str, detail: &str) {
    if let Some(more) = admit(reason) {
        info!(reason, "refused a request for {}: {}{more}", Visible(&route), Visible(&detail));
    }
}

/// No answer from an address. Only for debugging, since the node tries again by itself.
pub fn unreachable(address: &str, detail: &dyn Display) {
    if let Some(more) = admit("unreachable") {
        debug!("{}: {}{more}", Visible(&address), Visible(detail));
    }
}

/// Says how many lines were left out for reasons that are quiet by now.
pub fn flush() {
    if !HELD_BACK.load(Ordering::Relaxed) {
        return;
    }
    let mut limiter = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
    let quiet = limiter.quiet(Instant::now());
    HELD_BACK.store(limiter.holds_back(), Ordering::Relaxed);
    drop(limiter);
    for (reason, more) in quiet {
        warn!(reason, "left out {} more lines", Grouped(more));
    }
}

/// Lines in a row for one reason, and the time after which it gets one more.
const LINES: u32 = 16;
const PAUSE: Duration = Duration::from_secs(10);

/// Reasons that have a count of their own. They are fixed texts of this build, so there are fewer; this bounds a
/// mistake.
const REASONS_MAX: usize = 256;

static LIMITER: Mutex<Limiter> = Mutex::new(Limiter { reasons: BTreeMap::new() });
static HELD_BACK: AtomicBool = AtomicBool::new(false);

/// Whether a line for this reason is written now, and how many were left out before it.
fn admit(reason: &'static str) -> Option<More> {
    let mut limiter = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
    let admitted = limiter.admit(reason, Instant::now());
    if admitted.is_none() {
        HELD_BACK.store(true, Ordering::Relaxed);
    }
    admitted
}

/// How many lines each reason may still have.
#[derive(Debug, Default)]
struct Limiter {
    reasons: BTreeMap<&'static str, Lines>,
}

#[derive(Clone, Copy, Debug)]
struct Lines {
    /// Lines that may follow at once, as of `since`.
    left: u32,
    since: Instant,
    held_back: u64,
}

impl Limiter {
    fn admit(&mut self, reason: &'static str, now: Instant) -> Option<More> {
        let is_full = self.reasons.len() >= REASONS_MAX && !self.reasons.contains_key(reason);
        let reason = if is_full { "other" } else { reason };
        let lines =
            self.reasons.entry(reason).or_insert(Lines { left: LINES, since: now, held_back: 0 });
        lines.refill(now);
        let Some(left) = lines.left.checked_sub(1) else {
            lines.held_back += 1;
            return None;
        };
        lines.left = left;
        Some(More(std::mem::take(&mut lines.held_back)))
    }

    /// Takes out the counts of reasons that may have a line again and did not need one.
    fn quiet(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut quiet = Vec::new();
        for (reason, lines) in &mut self.reasons {
            lines.refill(now);
            if lines.held_back > 0 && lines.left > 0 {
                lines.left -= 1;
                quiet.push((*reason, std::mem::take(&mut lines.held_back)));
            }
        }
        quiet
    }

    fn holds_back(&self) -> bool {
        self.reasons.values().any(|lines| lines.held_back > 0)
    }
}

impl Lines {
    fn refill(&mut self, now: Instant) {
        let pauses = now.duration_since(self.since).as_secs() / PAUSE.as_secs();
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(pauses).min(LINES);
        // At most a pause is lost when the bucket is full, and then it does not matter.
        self.since += PAUSE.saturating_mul(pauses);
    }
}

/// The lines that were left out, as the end of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct More(u64);

impl Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " (and {} more)", Grouped(self.0)) }
    }
}

/// A number in groups of three digits.
struct Grouped(u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                write!(f, ",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// The reason of a notice that peers can cause. The others are rare and come from this node itself.
const fn reason(notice: &Notice) -> Option<&'static str> {
    Some(match notice {
        Notice::Rejected { why, .. } => why,
        Notice::Role { .. } => "role",
        Notice::Health { .. } => "health",
        Notice::Installed { .. } => "installed",
        Notice::Checkpointed { .. } => "checkpointed",
        Notice::Equivocation { .. } => "equivocation",
        Notice::Refused { .. } => "process_refused",
        Notice::RefusedBy { .. } => "refused_by_peer",
        Notice::Suspended { .. } => "suspended",
        Notice::DiskStalled { .. } => "disk_stalled",
        Notice::RivalFederation { .. } => "rival_federation",
        Notice::OtherGenesis { .. } => "other_genesis",
        Notice::Founding { .. } => "founding",
        Notice::WrongStore { .. } => "wrong_store",
        Notice::GroupHalted { .. } => "group_halted",
        Notice::SnapshotRefused { .. } => "snapshot_refused",
        Notice::Formed | Notice::Applied { .. } | Notice::Fenced { .. } => return None,
    })
}

/// A notice of the core.
pub fn notice(notice: &Notice) {
    match reason(notice) {
        None => line(notice, More(0)),
        Some(reason) => {
            if let Some(more) = admit(reason) {
                line(notice, more);
            }
        }
    }
}

fn disk_stalled(stalled: bool, more: More) {
    if stalled {
        warn!(
            "the disk has taken no write for longer than an election timeout: leadership is handed over, and writes \
             that must be durable here are refused{more}"
        );
    } else {
        info!("the disk takes writes again{more}");
    }
}

fn line(notice: &Notice, more: More) {
    match notice {
        Notice::Rejected { from, why } => warn!("refused a message of node {from}: {why}{more}"),
        Notice::Role { group, term, role, leader: Some(leader) } => {
            info!("group {group}: {role:?} in term {term}, led by node {leader}{more}");
        }
        Notice::Role { group, term, role, leader: None } => {
            info!("group {group}: {role:?} in term {term}, without a leader{more}");
        }
        Notice::Health { node, from, to } => info!("node {node}: {from:?}, now {to:?}{more}"),
        Notice::Formed => info!("member of a federation"),
        Notice::Applied { .. } => {}
        Notice::Checkpointed { owner, bytes } => {
            debug!("checkpoint of {owner:?}: {bytes} bytes{more}");
        }
        Notice::Installed { owner } => info!("caught up by a snapshot of {owner:?}{more}"),
        Notice::Equivocation { dot } => {
            error!("two writes with one dot: {dot:?}; its author was copied or forged{more}");
        }
        Notice::Refused { peer, reason } => warn!("refused node {peer}: {reason:?}{more}"),
        Notice::WrongStore { peer, store } => {
            warn!("node {peer} came with store {store}, which is not the member's{more}");
        }
        Notice::GroupHalted { group, index } => {
            error!(
                "group {group} halted: this build cannot apply entry {index}; hint: start this node with the newest \
                 version that any node runs{more}"
            );
        }
        Notice::SnapshotRefused { group, index, leader } => {
            let leader =
                leader.map_or_else(|| "a leader".to_owned(), |node| format!("node {node}"));
            warn!(
                "group {group}: the snapshot of {leader} up to entry {index} does not restore{more}"
            );
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
            warn!(
                "node {peer} refuses this process: {reason:?}; it knows start {}{more}",
                known.count
            );
        }
        Notice::Suspended { suspended: true } => {
            warn!(
                "suspended: a voter knows another process of this store, the others are asked{more}"
            );
        }
        Notice::Suspended { suspended: false } => {
            info!("not suspended any more: the voters agree{more}");
        }
        Notice::DiskStalled { stalled } => disk_stalled(*stalled, more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_refusals_are_a_few_lines_and_no_new_reason_waits() {
        let mut limiter = Limiter::default();
        let begin = Instant::now();
        let mut lines = 0;
        let mut counted = 0;
        // A flood of 100 seconds.
        for message in 0..1_000_000_u64 {
            let now = begin + Duration::from_micros(100 * message);
            if let Some(More(more)) = limiter.admit("a voter's message of no voter", now) {
                lines += 1;
                counted += more + 1;
            }
            if message == 500_000 {
                assert_eq!(limiter.admit("another reason", now), Some(More(0)));
            }
        }
        assert!((17..=26).contains(&lines), "{lines}");
        let quiet = limiter.quiet(begin + Duration::from_secs(200));
        assert_eq!(quiet.len(), 1);
        assert_eq!(counted + quiet[0].1, 1_000_000, "no line is forgotten");
        assert!(!limiter.holds_back());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        for number in 0..1000 {
            let reason: &'static str = Box::leak(format!("reason {number}").into_boxed_str());
            limiter.admit(reason, now);
        }
        assert!(limiter.reasons.len() <= REASONS_MAX + 1);
        assert!(limiter.reasons["other"].held_back > 0);
    }

    #[test]
    fn a_count_is_easy_to_read() {
        let texts = [0, 1, 999, 12_331, 1_131_902].map(|more| More(more).to_string());
        let expected =
            ["", " (and 1 more)", " (and 999 more)", " (and 12,331 more)", " (and 1,131,902 more)"];
        assert_eq!(texts, expected);
    }
}
