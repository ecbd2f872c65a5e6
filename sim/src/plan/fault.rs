//! The faults: one flat list of kinds, and one shape for all of them.
//!
//! A fault is a kind, a window of time, whom it strikes and how hard. The shape is the same for all kinds, so that a
//! plan is a list that can be cut anywhere. What a kind does is in the module that owns the thing it breaks: network,
//! disk, process, clock, client.

use serde::{Deserialize, Serialize};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Messages are lost, `rate_ppm` of them.
    Drop,
    /// Messages arrive twice, `rate_ppm` of them.
    Duplicate,
    /// Messages are overtaken, `rate_ppm` of them, by up to `amount` ms.
    Reorder,
    /// Messages are late, `rate_ppm` of them, by up to `amount` ms.
    Delay,
    /// A bit of an eventual write changes on its way, `rate_ppm` of them: what bad memory does behind TLS.
    Corrupt,
    /// Messages are held while the window lasts, and arrive when it ends.
    Clog,
    /// `nodes` and the rest do not hear each other; with an `amount` the nodes are a leader and so many others less
    /// one.
    Partition,
    /// `nodes` speak, and the rest do not hear them; `amount` as with a partition.
    OneWay,
    /// `amount` sides do not hear each other, and the first of `nodes` hears all of them: the places of the
    /// others in the list say on which side they are.
    Bridge,
    /// Each of `nodes` hears nobody, and nobody hears it; with an `amount` it is a leader.
    Isolate,
    /// The links of `nodes` are clogged one after the other, in one order, and opened again in another (the
    /// swizzle-clog of FoundationDB).
    Swizzle,
    /// Each connection of a link of `nodes` carries `amount` bytes a second: what is sent waits in a queue, and past
    /// the queue's end it is lost.
    Capacity,
    /// The links of `nodes` are cut once, and may be made again.
    Reset,
    /// A connection breaks within a message, `rate_ppm` of them: what was sent before arrives, the message and what
    /// is sent after it does not. The link ends with it, or, when only one plane broke, a moment later.
    ResetMidFrame,
    /// Of `rate_ppm` of the messages a copy arrives again on a later link of the same two nodes, up to `amount` ms
    /// late. The process that hears it is the one to which it was sent, since a connection dies with its ends and so
    /// do its keys; who sent it may have started again since, for the core does not ask a driver to tell boots apart.
    Replay,
    /// The process ends; it starts again when the window ends. With an odd `amount` it ends in the middle of
    /// its next sync; from 2 on it is a leader's.
    Crash,
    /// The process crashes again and again, soon after each start, often before its boot is durable. It lives for up
    /// to `amount` ms each time; with an odd `amount` it is a leader's.
    CrashLoop,
    /// All processes end in one instant, as when a site loses its power. When the window ends they start again, each
    /// within `amount` ms.
    Blackout,
    /// The process is stopped, as by SIGSTOP or with its machine: it takes no step, its disk and its peers go on, and
    /// when the window ends it goes on with all that came meanwhile. With an `amount` it is a leader's.
    Pause,
    /// Each step of the process takes up to `amount` ms: what comes meanwhile waits its turn. With an odd `amount` it
    /// is a leader's.
    Slow,
    /// At a crash the batch under way is lost as a whole, or not.
    UnsyncedLoss,
    /// At a crash each 512-byte sector of the batch under way is lost, or not.
    TornWrite,
    /// At a crash a later part of what was not synced is on the disk, and an earlier one is not.
    UnsyncedReorder,
    /// Syncs are reported, and the bytes are in the drive's cache: a crash takes back all since the last honest sync.
    /// One comes at the latest when the window ends.
    FsyncLies,
    /// The first sync in the window fails. The process goes silent, ends, and starts again on a disk that is well.
    FsyncError,
    /// The next batch is written to another index of the log.
    Misdirect,
    /// A sector before the last batch answers with zeros, or with an error when `amount` is odd.
    Latent,
    /// A byte before the last batch changes. While it lasts, each restart of any node reads a damaged copy as well.
    Rot,
    /// Syncs take up to `amount` ms.
    Stall,
    /// The disk's reserve is reached while the window lasts.
    Full,
    /// The process ends and its data directory is deleted; it starts as a new store when the window ends.
    Wipe,
    /// A backup is taken of a process that is stopped and goes on; when the window ends its disk becomes that backup.
    Rollback,
    /// The node starts for the first time, as a learner.
    Add,
    /// The process is asked to stop, hands over what it leads, ends, and starts again when the window ends; with an
    /// odd `amount` it is a leader's.
    Handover,
    /// Discovery names nobody's address, another's under a wrong name, or the asker's own, in `rate_ppm` of its
    /// answers.
    FalseContacts,
    /// `nodes` are of an older version: others send them messages that they do not know, `rate_ppm` of all.
    MixedVersion,
    /// A tenant makes a namespace, fills it and deletes it, again and again.
    Churn,
    /// The wall clock is off by `amount` ms while the window lasts.
    Skew,
    /// The monotonic clock runs by `amount` ppm too fast, or too slow.
    Drift,
    /// The wall clock jumps ahead by `amount` ms, for good.
    JumpAhead,
    /// The wall clock jumps back by `amount` ms, for good.
    JumpBack,
    /// The wall clock stands still while the window lasts.
    Freeze,
    /// Clients send a request twice, `rate_ppm` of them.
    ClientDuplicate,
    /// Clients stop waiting at once, `rate_ppm` of the time.
    ClientAbandon,
    /// Clients wait `amount` ms only before they ask another node what can be asked twice: many attempts are open.
    ClientRetry,
    /// No client asks for `amount` ms; then all do at once, and without a pause until the window ends.
    ClientBurst,
}

impl Kind {
    /// All kinds, in the order of the swarm's bits.
    pub const ALL: [Self; 46] = [
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
    ];

    /// Whether it breaks what the protocols assume of a disk: that it keeps what it says it has. Whom it may strike is
    /// the atlas's business.
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
        )
    }

    /// Its name, as in a plan file.
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
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When it begins, in virtual milliseconds.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// Whom it strikes; nobody named means everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<usize>,
    /// How often, where that means something.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate_ppm: u64,
    /// How hard; the unit is the kind's.
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
    /// Whether it strikes this node.
    #[must_use]
    pub fn strikes(&self, node: usize) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }
}

/// How often each kind was planned and how often it happened.
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
    /// Counts one.
    pub const fn count(&mut self, kind: Kind) {
        self.counts[kind as usize] += 1;
    }

    /// How many of a kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Each kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        Kind::ALL.iter().map(|kind| (*kind, self.of(*kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_its_name() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            let json = serde_json::to_string(kind).expect("a kind serializes");
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }
}
