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
    /// Messages are held while the window lasts, and arrive when it ends.
    Clog,
    /// `nodes` and the rest do not hear each other; with an `amount` the nodes are a leader and so many others less
    /// one.
    Partition,
    /// `nodes` speak, and the rest do not hear them; `amount` as with a partition.
    OneWay,
    /// The links of `nodes` are cut once, and may be made again.
    Reset,
    /// The process ends; it starts again when the window ends. With an odd `amount` it ends in the middle of
    /// its next sync; from 2 on it is a leader's.
    Crash,
    /// At a crash the batch under way is lost as a whole, or not.
    UnsyncedLoss,
    /// At a crash each 512-byte sector of the batch under way is lost, or not.
    TornWrite,
    /// At a restart a byte in the middle of the log is found changed: recovery must not take the log for sound. Then
    /// the byte is put right, so that no plan breaks more disks than a federation can lose.
    Rot,
    /// Syncs take up to `amount` ms.
    Stall,
    /// The wall clock is off by `amount` ms while the window lasts.
    Skew,
    /// The monotonic clock runs by `amount` ppm too fast, or too slow.
    Drift,
    /// The wall clock jumps ahead by `amount` ms, for good.
    JumpAhead,
    /// The wall clock jumps back by `amount` ms, for good.
    JumpBack,
    /// Clients send a request twice, `rate_ppm` of them.
    ClientDuplicate,
    /// Clients stop waiting at once, `rate_ppm` of the time.
    ClientAbandon,
}

impl Kind {
    /// All kinds, in the order of the swarm's bits.
    pub const ALL: [Self; 19] = [
        Self::Drop,
        Self::Duplicate,
        Self::Reorder,
        Self::Delay,
        Self::Clog,
        Self::Partition,
        Self::OneWay,
        Self::Reset,
        Self::Crash,
        Self::UnsyncedLoss,
        Self::TornWrite,
        Self::Rot,
        Self::Stall,
        Self::Skew,
        Self::Drift,
        Self::JumpAhead,
        Self::JumpBack,
        Self::ClientDuplicate,
        Self::ClientAbandon,
    ];

    /// Its name, as in a plan file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Delay => "delay",
            Self::Clog => "clog",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Reset => "reset",
            Self::Crash => "crash",
            Self::UnsyncedLoss => "unsynced-loss",
            Self::TornWrite => "torn-write",
            Self::Rot => "rot",
            Self::Stall => "stall",
            Self::Skew => "skew",
            Self::Drift => "drift",
            Self::JumpAhead => "jump-ahead",
            Self::JumpBack => "jump-back",
            Self::ClientDuplicate => "client-duplicate",
            Self::ClientAbandon => "client-abandon",
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; Kind::ALL.len()],
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
        for (place, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
            let json = serde_json::to_string(kind).expect("a kind serializes");
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }
}
