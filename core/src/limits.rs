//! Every bound of the system in one place, each with its reason.
//!
//! Past a bound there is a typed refusal, never growth, so an operator can size a machine. Knobs are in
//! [`crate::config`]: the bounds here are part of formats and protocols, and nobody may turn them.

/// Bytes of a log block. A disk tears at most one block of a write, so each batch starts on its own block.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes of a frame between peers, without its header. Larger state travels in chunks, so no frame occupies a link for
/// long.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes of a key. Keys are listed, compared and sent in contexts, so they stay short.
pub const KEY_BYTES_MAX: usize = 1024;

/// Bytes of a field name of a record.
pub const FIELD_BYTES_MAX: usize = 256;

/// Bytes of a value. With its framing it fits into a peer frame and into a log batch.
pub const VALUE_BYTES_MAX: usize = 512 << 10;

/// Bytes of a namespace's name.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 64;

/// Bytes of a node's address, `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// Edits in one atomic write.
pub const EDITS_MAX: usize = 1024;

/// Writes in one request: they fit into one log batch.
pub const BATCH_WRITES_MAX: usize = 4096;

/// Encoded bytes of one request or one write: below a frame with room for its envelope.
pub const REQUEST_BYTES_MAX: usize = FRAME_BYTES_MAX - (16 << 10);

/// Bytes of a snapshot chunk, on the wire and in a snapshot file.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Bytes of a batch of the log. Further writes wait for the next batch.
pub const LOG_BATCH_BYTES_MAX: usize = 8 << 20;

/// Voters of one group. Seven survive three failures, and a quorum of them is counted on the stack.
pub const VOTERS_MAX: usize = 7;

/// Members of a federation, learners included.
pub const MEMBERS_MAX: usize = 1024;

/// Namespaces of a federation.
pub const NAMESPACES_MAX: usize = 4096;

/// Shards of one eventual namespace.
pub const SLOTS_MAX: u16 = 256;

/// Siblings of one register. Past this bound a write is refused; no sibling is ever dropped.
pub const SIBLINGS_MAX: usize = 64;

/// Authors of one shard past which a node authors nothing that adds one. Each boot that wrote is one, and a context
/// names them all in one message.
pub const SHARD_ACTORS_MAX: usize = 4096;

/// Authors of one shard past which a replica refuses what a peer sends. It is far above the bound on authoring, so that
/// replicas that reach that one in different orders all take what each of them authored.
pub const SHARD_ACTORS_HELD_MAX: usize = 6144;

/// Encoded bytes of one causal context. With the writes and answers beside it, it fits into a frame.
pub const CONTEXT_BYTES_MAX: usize = 400 << 10;

/// Writes of one context that a new write names although its replica no longer holds all of them. A register has at
/// most as many values at a time.
pub const REPLACED_MAX: usize = SIBLINGS_MAX;

/// Names of such writes in one new write, over all its edits: a few bytes each.
pub const REPLACED_NAMES_MAX: usize = 4096;

/// Removals of one shard that wait for their elements. Each takes about a hundred bytes. Past this bound a client's
/// write that needs more is refused.
pub const DEFERRED_MAX: usize = 65_536;

/// Removals of whole scopes of one shard that wait for dots. Each arriving write looks at all of them.
pub const COVERS_MAX: usize = 1024;

/// The greatest sequence number of a dot. No author reaches it, and arithmetic on it cannot overflow.
pub const SEQ_MAX: u64 = 1 << 48;

/// The greatest stamp of a write. Wall clocks are taken up to half of it, so there is room for 2^62 overwrites above
/// the greatest honest stamp.
pub const STAMP_MAX: u64 = 1 << 63;

/// Client sessions whose last answer one group keeps; the longest unused one makes room for a new one. At 17,000 new
/// sessions a second an answer is kept for 15 s, which is three times the longest wait for one.
pub const SESSIONS_MAX: usize = 262_144;

/// Milliseconds of group time after which a session without commands may be forgotten although there is room.
pub const SESSION_IDLE_MS: u64 = 10 * 60 * 1000;

/// Bytes that one session takes in memory: its record and its place in the order of use, in trees that are three
/// quarters full.
pub const SESSION_BYTES: u64 = 192;

/// Rows in one page of a listing or an export.
pub const PAGE_ROWS_MAX: usize = 1000;

/// Exports of one group that are under way on one node. Each costs every write a look at its kept slots.
pub const EXPORTS_MAX: usize = 2;

/// Bytes that the exports on one node keep of what was replaced since they began. Past it the largest one ends.
pub const EXPORT_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a kept slot counts beside its key and value: its places in two trees that are half full.
pub const EXPORT_SLOT_BYTES: u64 = 128;

/// Milliseconds after which an export ends whose next page nobody asked for.
pub const EXPORT_IDLE_MS: u64 = 60_000;

/// Milliseconds after which an export makes room for another whose next page nobody asked for; and after which one
/// ends whose last page was given out, which is kept until then in case that the answer was lost.
pub const EXPORT_YIELD_MS: u64 = 5_000;

/// Keys that one page of an export looks at. Keys that were created since the export began make a page shorter.
pub const EXPORT_LOOKS_MAX: usize = 8 * PAGE_ROWS_MAX;

/// Requests that wait inside one node for a quorum, a disk or a peer.
pub const REQUESTS_PENDING_MAX: usize = 65_536;

/// Bytes given to the disk and not yet durable. Past this bound clients are refused and peers slowed.
pub const UNPERSISTED_BYTES_MAX: usize = 64 << 20;

/// A process that starts inside a federation waits this long for voters that do not answer, before it stands.
pub const START_GRACE_MS: u64 = 3_000;

/// It waits at most this long for voters that leave its question open, while none refuses it.
pub const START_WAIT_MS_MAX: u64 = 30_000;

/// Messages that wait for the disk inside one node. Past it they are dropped as a full queue drops them: each machine
/// repeats its messages.
pub const WAITING_ACTIONS_MAX: usize = 65_536;
