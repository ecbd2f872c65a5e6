//! Every bound of the system in one place, each with its reason.
//!
//! A bound is a promise to whoever sizes a machine: past it there is a typed refusal, never growth. Knobs that an
//! operator may turn are in [`crate::config`]; what stands here is part of the formats and protocols.

/// One log block: the unit that a disk tears at most once, so that each batch starts on its own.
pub const BLOCK_BYTES: usize = 4096;

/// One frame between peers, header excluded. Larger state travels in chunks, so a frame never holds a link for long.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// One key. Keys are listed, compared and sent in contexts, so they stay short.
pub const KEY_BYTES_MAX: usize = 1024;

/// One field name of a record.
pub const FIELD_BYTES_MAX: usize = 256;

/// One value. With its framing it fits into a peer frame and into a log batch.
pub const VALUE_BYTES_MAX: usize = 512 << 10;

/// The name of a namespace.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 64;

/// An address of a node, as `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// Edits in one atomic write.
pub const EDITS_MAX: usize = 1024;

/// Writes in one request: one log batch's worth.
pub const BATCH_WRITES_MAX: usize = 4096;

/// Encoded bytes of one request or one write: below a frame with room for its envelope.
pub const REQUEST_BYTES_MAX: usize = FRAME_BYTES_MAX - (16 << 10);

/// One snapshot chunk on the wire and in a side file.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// One batch of the log: writes past it wait for the next one.
pub const LOG_BATCH_BYTES_MAX: usize = 8 << 20;

/// Voters of one group: quorums are counted on the stack, and seven survive three failures.
pub const VOTERS_MAX: usize = 7;

/// Members of a federation, learners included.
pub const MEMBERS_MAX: usize = 1024;

/// Namespaces of a federation.
pub const NAMESPACES_MAX: usize = 4096;

/// Shards of one eventual namespace.
pub const SLOTS_MAX: u16 = 256;

/// Siblings of one register: past it a write is refused, never a sibling dropped.
pub const SIBLINGS_MAX: usize = 64;

/// Authors that one shard knows: each boot of a store that wrote is one, and a context names them all in one message.
pub const SHARD_ACTORS_MAX: usize = 4096;

/// Encoded bytes of one causal context: with the writes and answers beside it, it fits into a frame.
pub const CONTEXT_BYTES_MAX: usize = 400 << 10;

/// Dots of one shard that are known to be superseded, wholly or in part, before they arrived.
pub const DEFERRED_MAX: usize = 65_536;

/// The greatest sequence number of a dot: far beyond reach, and arithmetic on it cannot overflow.
pub const SEQ_MAX: u64 = 1 << 48;

/// Client sessions that one group remembers.
pub const SESSIONS_MAX: usize = 65_536;

/// Rows in one page of a listing or an export.
pub const PAGE_ROWS_MAX: usize = 1000;

/// Requests that wait inside one node for a quorum, a disk or a peer.
pub const REQUESTS_PENDING_MAX: usize = 65_536;

/// Bytes handed to the disk and not yet durable, past which clients are refused and peers slowed.
pub const UNPERSISTED_BYTES_MAX: usize = 64 << 20;

/// Messages that wait for the disk inside one node. Past it they are dropped as a full queue drops them: each machine
/// repeats its messages.
pub const WAITING_ACTIONS_MAX: usize = 65_536;
