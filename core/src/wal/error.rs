//! The reasons why a log cannot be used, each with advice to an operator. `recover` decides which one holds.

use core::fmt;

use super::Header;
use super::frame;

/// The reason why a log cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoverError {
    /// No batch of a log was ever durable. The driver creates a new log.
    Empty,
    /// A batch that was durable is damaged. The store is void: it can no longer keep its promises.
    Rot {
        /// The segment where the chain breaks.
        segment: u64,
        /// The position in bytes where it breaks.
        offset: u64,
    },
    /// A disk wrote a block to a wrong address. The store is void.
    Misdirected {
        /// The segment where the block is.
        segment: u64,
        /// The position of the block, in bytes.
        offset: u64,
        /// The segment to which it belongs.
        belongs_segment: u64,
        /// The position to which it belongs, in bytes.
        belongs_offset: u64,
    },
    /// A sound batch at its address names another predecessor: the files mix two states of one store. The store is
    /// void.
    Forked {
        /// The segment of the batch.
        segment: u64,
        /// The position of the batch, in bytes.
        offset: u64,
    },
    /// A segment between two others is missing.
    Hole {
        /// The first missing segment.
        segment: u64,
    },
    /// Two of the given segments have the same number.
    Repeated {
        /// Their number.
        segment: u64,
    },
    /// A segment of another log.
    Foreign {
        /// The number of the segment.
        segment: u64,
        /// The header of this log.
        expected: Header,
        /// The header of the segment.
        found: Header,
    },
    /// A segment of a version that this build cannot read.
    Version {
        /// The number of the segment.
        segment: u64,
        /// The version of the segment.
        found: u16,
    },
    /// A sound batch with records that this build cannot decode: a later build wrote them.
    Undecodable {
        /// The segment of the batch.
        segment: u64,
        /// The position of the batch, in bytes.
        offset: u64,
    },
    /// A sound batch with tokens that do not follow the last one.
    TokenGap {
        /// The segment of the batch.
        segment: u64,
        /// The position of the batch, in bytes.
        offset: u64,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const VOID: &str = "the store is void; hint: move it away, and join as a new store";
        match self {
            Self::Empty => f.write_str("the log has no durable batch; hint: create a new log"),
            Self::Rot { segment, offset } => {
                write!(
                    f,
                    "log segment {segment} is damaged at byte {offset}, before its end; {VOID}"
                )
            }
            Self::Misdirected { segment, offset, belongs_segment, belongs_offset } => write!(
                f,
                "log segment {segment} has at byte {offset} a block of segment {belongs_segment}, byte \
                 {belongs_offset}; {VOID}"
            ),
            Self::Forked { segment, offset } => write!(
                f,
                "log segment {segment} has at byte {offset} a batch of another history; {VOID}"
            ),
            Self::Hole { segment } => {
                write!(
                    f,
                    "log segment {segment} is missing; hint: put it back, or join as a new store"
                )
            }
            Self::Repeated { segment } => write!(
                f,
                "log segment {segment} was given twice; hint: remove one of the two files"
            ),
            Self::Foreign { segment, expected, found } => write!(
                f,
                "log segment {segment} belongs to federation {}, node {}, store {}, lane {}, and not to federation \
                 {}, node {}, store {}, lane {}; hint: use that node's own directory",
                found.federation,
                found.node,
                found.store,
                found.lane,
                expected.federation,
                expected.node,
                expected.store,
                expected.lane
            ),
            Self::Version { segment, found } => write!(
                f,
                "log segment {segment} has version {found}, and this build reads version {}; hint: use the build \
                 that wrote it",
                frame::VERSION
            ),
            Self::Undecodable { segment, offset } => write!(
                f,
                "log segment {segment} has at byte {offset} records that this build cannot decode; hint: use a later \
                 build"
            ),
            Self::TokenGap { segment, offset } => write!(
                f,
                "log segment {segment} does not continue the count of writes at byte {offset}; {VOID}"
            ),
        }
    }
}

impl core::error::Error for RecoverError {}
