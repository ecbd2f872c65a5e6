//! The faults: one flat list of kinds, and one struct for all of them.
//!
//! A fault is a kind, a window of time, the nodes that it strikes, and a strength. All kinds share this shape, so a
//! plan is a list from which any part can be removed. The module that owns the broken thing (network, disk, process,
//! clock, client) implements the effect; this module does not.

use serde::{Deserialize, Serialize};

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `rate_ppm` of the messages are lost.
    Drop,
    /// `rate_ppm` of the messages arrive twice.
    Duplicate,
    /// `rate_ppm` of the messages are overtaken by later ones, by up to `amount` ms.
    Reorder,
    /// `rate_ppm` of the messages are late, by up to `amount` ms.
    Delay,
    /// One bit of an eventual write, or of a chunk of a snapshot, changes in `rate_ppm` of the messages that carry one,
    /// as bad memory behind TLS does it.
    Corrupt,
    /// Messages to and from `nodes` are held back while the window lasts, and arrive when it ends.
    Clog,
    /// `nodes` and the other nodes do not hear each other. With an `amount` above 0, the nodes are a leader and
    /// `amount` - 1 others.
    Partition,
    /// The other nodes do not hear `nodes`, but `nodes` hear them. `amount` works as in a partition.
    OneWay,
    /// `amount` sides do not hear each other; the first of `nodes` hears all of them. A node's index in `nodes`
    /// determines its side.
    Bridge,
    /// Each of `nodes` is cut off from every other node. With an `amount` above 0, the node is a leader.
    Isolate,
    /// The links of `nodes` are clogged one after the other in one order, and opened again in another order (the
    /// swizzle-clog of FoundationDB).
    Swizzle,
    /// Each connection of a link of `nodes` carries `amount` bytes per second. Messages wait in a queue; what does not
    /// fit into the queue is lost.
    Capacity,
    /// The links of `nodes` are cut once, and may be established again.
    Reset,
    /// A connection breaks in the middle of a message, in `rate_ppm` of the messages. Earlier messages arrive; this one
    /// and later ones do not. The link ends at once, or a moment later when only one plane broke.
    ResetMidFrame,
    /// A copy of `rate_ppm` of the messages arrives again on a later link of the same two nodes, up to `amount` ms
    /// late. The receiver is still the same process, because a connection and its keys die with either end. The sender
    /// may have restarted since, because the core does not ask a driver to tell boots apart.
    Replay,
    /// The process ends, and starts again when the window ends. With an odd `amount` it ends in the middle of its next
    /// sync; with an `amount` of 2 or more it is a leader's process.
    Crash,
    /// The process crashes again and again, soon after each start, often before its boot is durable. It runs for up to
    /// `amount` ms each time. With an odd `amount` it is a leader's process.
    CrashLoop,
    /// All processes end in one instant, as when a site loses power. When the window ends, each starts again within
    /// `amount` ms.
    Blackout,
    /// The process is stopped, as by SIGSTOP or a paused virtual machine: it takes no step, while its disk and its
    /// peers go on. When the window ends, it continues with all events that came meanwhile. With an `amount` above 0 it
    /// is a leader's process.
    Pause,
    /// Each step of the process takes up to `amount` ms; events that come meanwhile wait. With an odd `amount` it is a
    /// leader's process.
    Slow,
    /// At a crash, the batch in flight is lost as a whole, or not at all.
    UnsyncedLoss,
    /// At a crash, each 512-byte sector of the batch in flight is lost or not, independently.
    TornWrite,
    /// At a crash, a later part of the unsynced bytes is on the disk, and an earlier part is not.
    UnsyncedReorder,
    /// The disk reports syncs while the bytes are only in the drive's cache: a crash takes back everything since the
    /// last honest sync. The first sync after the window is honest.
    FsyncLies,
    /// The first sync in the window fails. The process goes silent, ends, and starts again on a healthy disk.
    FsyncError,
    /// The next batch is written to a wrong offset of the log.
    Misdirect,
    /// A sector before the last batch reads as zeros, or, when `amount` is odd, as an error.
    Latent,
    /// A byte before the last batch changes. While the window lasts, each restart of any node also reads a damaged
    /// copy.
    Rot,
    /// Syncs take up to `amount` ms longer.
    Stall,
    /// The disk has reached its reserve while the window lasts.
    Full,
    /// The process ends and its data directory is deleted. It starts as a new store when the window ends.
    Wipe,
    /// The process is stopped, its disk is backed up, and it continues. When the window ends, the backup replaces its
    /// disk.
    Rollback,
    /// The node starts for the first time, as a learner.
    Add,
    /// The process is asked to stop: it transfers its leaderships, ends, and starts again when the window ends. With an
    /// `amount` above 0 it is a leader's process.
    Handover,
    /// In `rate_ppm` of its answers, discovery also names an address where nobody listens, one that never answers, a
    /// node under another node's name, a node of another federation, and the asking node itself; sometimes more
    /// addresses than a node remembers.
    FalseContacts,
    /// `nodes` run an older version: `rate_ppm` of the messages to them are accompanied by one of a kind that they do
    /// not know.
    MixedVersion,
    /// A churn client creates a namespace, fills it and deletes it, again and again. Sometimes it creates it twice, or
    /// replaces the key that seals contexts.
    Churn,
    /// The wall clock is off by `amount` ms while the window lasts.
    Skew,
    /// The monotonic clock runs `amount` ppm too fast, or, when negative, too slow.
    Drift,
    /// The wall clock jumps ahead by `amount` ms, permanently.
    JumpAhead,
    /// The wall clock jumps back by `amount` ms, permanently.
    JumpBack,
    /// The wall clock stands still while the window lasts.
    Freeze,
    /// Clients send `rate_ppm` of their requests twice.
    ClientDuplicate,
    /// Clients stop waiting at once for `rate_ppm` of their requests.
    ClientAbandon,
    /// Clients wait only `amount` ms before they ask another node, if the request may be repeated: many attempts are
    /// open.
    ClientRetry,
    /// No client asks for `amount` ms. Then all ask at once, almost without pauses, until the window ends.
    ClientBurst,
    /// While the federation is set up, another operator asks the first of `nodes` to found one, with the other `nodes`
    /// as first voters. With an `amount` above 0 that founder's process ends this many ms later. When the window ends,
    /// the process starts again. After the last window the nodes of other federations than the plan's are given empty
    /// data directories.
    RivalFounding,
    /// While the federation is set up, the process of its founder ends, with an odd `amount` in the middle of its next
    /// sync. It starts again when the window ends.
    FounderCrash,
    /// While the federation is set up, the first voters `nodes` do not run. They start when the window ends.
    VoterAway,
    /// A copy of `rate_ppm` of the messages of the protocols arrives with another genesis, as from a federation beside.
    OtherGenesis,
    /// The disk hangs: no sync completes while the window lasts. With an odd `amount` it is a leader's disk.
    Hang,
    /// A leader and the other voters do not hear each other, and the leader's monotonic clock runs `amount` ppm too
    /// slow, so that it gives up later than the others elect. Learners hear both sides. The first of `nodes` is the
    /// leader, the rest are the other voters.
    Deposed,
    /// Beside `rate_ppm` of the writes, a hostile client sends one to the same key. Its context is none that a node
    /// gave out for the key: made up, altered, cut, or of another namespace. A strong write is of a session that
    /// nobody opened.
    HostileClient,
    /// Somebody sends what they like in the name of `nodes`, a learner whose own process stays honest: forged messages
    /// of every kind, and messages of others, altered or not.
    HostileLearner,
    /// A node with a certificate of the federation that never joined links with all nodes, and sends them the same.
    HostileStranger,
    /// The disk of the running process is copied, and a second process runs on the copy beside it until the window ends
    /// or the clone fences itself.
    LiveClone,
    /// A client gives the number of its last write in a session to another write. Rate: of the writes with a session.
    ReusedKey,
    /// A churn client whose writes are large: each puts `amount` keys, and in an eventual namespace adds as many
    /// members to one set, at most 1,024. It reads pages, and deletes the set before it deletes the namespace.
    Bulk,
}

impl Kind {
    /// All kinds, in the order of the swarm's bits.
    pub const ALL: [Self; 58] = [
        Self::Drop,
        Self::Duplicate,
        Self::Reorder,
        Self::Delay,
        Self::Corrupt,
        Self::Clog,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::Isolate,
        Self::Swizzle,
        Self::Capacity,
        Self::Reset,
        Self::ResetMidFrame,
        Self::Replay,
        Self::Crash,
        Self::CrashLoop,
        Self::Blackout,
        Self::Pause,
        Self::Slow,
        Self::UnsyncedLoss,
        Self::TornWrite,
        Self::UnsyncedReorder,
        Self::FsyncLies,
        Self::FsyncError,
        Self::Misdirect,
        Self::Latent,
        Self::Rot,
        Self::Stall,
        Self::Full,
        Self::Wipe,
        Self::Rollback,
        Self::Add,
        Self::Handover,
        Self::FalseContacts,
        Self::MixedVersion,
        Self::Churn,
        Self::Skew,
        Self::Drift,
        Self::JumpAhead,
        Self::JumpBack,
        Self::Freeze,
        Self::ClientDuplicate,
        Self::ClientAbandon,
        Self::ClientRetry,
        Self::ClientBurst,
        Self::RivalFounding,
        Self::FounderCrash,
        Self::VoterAway,
        Self::OtherGenesis,
        Self::Hang,
        Self::Deposed,
        Self::HostileClient,
        Self::HostileLearner,
        Self::HostileStranger,
        Self::LiveClone,
        Self::ReusedKey,
        Self::Bulk,
    ];

    /// Whether the fault breaks what the protocols assume of a disk: that it keeps what it reported as durable, and
    /// that one process uses it. `fault_budget` limits which nodes such a fault may strike.
    #[must_use]
    pub const fn breaks_model(self) -> bool {
        matches!(
            self,
            Self::FsyncLies
                | Self::Misdirect
                | Self::Latent
                | Self::Rot
                | Self::Wipe
                | Self::Rollback
                | Self::LiveClone
        )
    }

    /// The kind's name in a plan file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Delay => "delay",
            Self::Corrupt => "corrupt",
            Self::Clog => "clog",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
            Self::Isolate => "isolate",
            Self::Swizzle => "swizzle",
            Self::Capacity => "capacity",
            Self::Reset => "reset",
            Self::ResetMidFrame => "reset-mid-frame",
            Self::Replay => "replay",
            Self::Crash => "crash",
            Self::CrashLoop => "crash-loop",
            Self::Blackout => "blackout",
            Self::Pause => "pause",
            Self::Slow => "slow",
            Self::UnsyncedLoss => "unsynced-loss",
            Self::TornWrite => "torn-write",
            Self::UnsyncedReorder => "unsynced-reorder",
            Self::FsyncLies => "fsync-lies",
            Self::FsyncError => "fsync-error",
            Self::Misdirect => "misdirect",
            Self::Latent => "latent",
            Self::Rot => "rot",
            Self::Stall => "stall",
            Self::Full => "full",
            Self::Wipe => "wipe",
            Self::Rollback => "rollback",
            Self::Add => "add",
            Self::Handover => "handover",
            Self::FalseContacts => "false-contacts",
            Self::MixedVersion => "mixed-version",
            Self::Churn => "churn",
            Self::Skew => "skew",
            Self::Drift => "drift",
            Self::JumpAhead => "jump-ahead",
            Self::JumpBack => "jump-back",
            Self::Freeze => "freeze",
            Self::ClientDuplicate => "client-duplicate",
            Self::ClientAbandon => "client-abandon",
            Self::ClientRetry => "client-retry",
            Self::ClientBurst => "client-burst",
            Self::RivalFounding => "rival-founding",
            Self::FounderCrash => "founder-crash",
            Self::VoterAway => "voter-away",
            Self::OtherGenesis => "other-genesis",
            Self::Hang => "hang",
            Self::Deposed => "deposed",
            Self::HostileClient => "hostile-client",
            Self::HostileLearner => "hostile-learner",
            Self::HostileStranger => "hostile-stranger",
            Self::LiveClone => "live-clone",
            Self::ReusedKey => "reused-key",
            Self::Bulk => "bulk",
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The kind of fault.
    pub kind: Kind,
    /// When it begins, in virtual milliseconds.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds.
    pub for_ms: u64,
    /// The nodes that it strikes; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<usize>,
    /// Its rate per million, for kinds that have a rate.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate_ppm: u64,
    /// Its strength; the unit depends on the kind.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub amount: i64,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

const fn is_nought(number: &i64) -> bool {
    *number == 0
}

impl Fault {
    /// Whether the fault strikes this node.
    #[must_use]
    pub fn strikes(&self, node: usize) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }
}

/// Counts faults per kind: how many were planned, or how often they took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; Kind::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [0; Kind::ALL.len()] }
    }
}

impl Tally {
    /// Counts one fault of this kind.
    pub const fn count(&mut self, kind: Kind) {
        self.counts[kind as usize] += 1;
    }

    /// The count of one kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// Adds the counts of another tally.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// All kinds with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        Kind::ALL.iter().map(|kind| (*kind, self.of(*kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_index_and_its_name() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            let json = serde_json::to_string(kind).expect("a kind serializes");
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }
}
