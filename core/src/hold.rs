//! The durability gate: persist before you promise.
//!
//! A driver gives every write the next token of its log. A message or reply that promises something waits here for the
//! newest token of the machine that promises, even if the step that promises wrote nothing, and leaves once that token
//! is durable. The first write of a process is its boot record, and no action leaves before that is durable.
//!
//! [`crate::node::Node`] owns a gate. The driver of a single machine owns one too:
//!
//! ```
//! use continuum_core::hold::{DurabilityGate, Durable, Waits};
//! use continuum_core::id::{GroupId, Writer};
//!
//! let writer = Writer::Group(GroupId(1));
//! let mut gate = DurabilityGate::new(0);
//! gate.issue(Writer::Node, false, 48); // the boot record
//! let token = gate.issue(writer, true, 20); // a record that the machine persists
//! let vote = "a vote";
//! assert_eq!(gate.release_when_durable(gate.newest(writer), vote, Waits::Droppable), None);
//!
//! let (mut durable, mut released) = (Vec::new(), Vec::new());
//! gate.persisted(token, &mut durable, &mut released); // the log is synced up to `token`
//! assert_eq!(durable[1], Durable { writer, writes: 1 }); // the machine's next `Persisted { writes }`
//! assert_eq!(released, [vote]);
//! ```
//!
//! The gate does not decide what is a promise (the machines say so), and it does not know what a write holds.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::digest::Hasher;
use crate::id::{Token, Writer};
use crate::limits::WAITING_ACTIONS_MAX;
use crate::{mutant, reach};

/// The one lane of this node.
const LANE: u16 = 0;

/// Whether an action may be dropped when too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A message: past [`WAITING_ACTIONS_MAX`] waiting actions it is dropped, as a full queue drops it. Its machine
    /// repeats it.
    Droppable,
    /// A reply: it is never dropped. The requests that wait bound the number of replies.
    Always,
}

/// The writes of one machine so far.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// The newest token issued for it.
    newest: u64,
    /// Its own writes since the process began, as it counts them.
    writes: u64,
}

/// A write that is not durable yet.
#[derive(Clone, Copy, Debug)]
struct Issued {
    seq: u64,
    writer: Writer,
    /// The machine's count with this write; writes that the node issues on its behalf do not raise it.
    writes: u64,
    bytes: usize,
}

/// How many writes of one machine are durable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The machine.
    pub writer: Writer,
    /// Its first N writes are durable.
    pub writes: u64,
}

/// The tokens of one log, and the actions `A` that wait for them.
#[derive(Debug)]
pub struct DurabilityGate<A> {
    next: u64,
    durable: u64,
    /// The token of this process's boot record.
    boot: u64,
    written: BTreeMap<Writer, Written>,
    issued: VecDeque<Issued>,
    /// Sorted by token; actions with equal tokens stand in the order in which they came.
    waiting: VecDeque<(u64, A)>,
    unpersisted_bytes: usize,
    /// Whether nothing leaves, durable or not.
    held: bool,
}

impl<A> DurabilityGate<A> {
    /// A gate whose tokens follow `last`, the newest token that the log holds. No action leaves before the first write
    /// is durable, which is the process's boot record.
    #[must_use]
    pub const fn new(last: u64) -> Self {
        Self {
            next: last + 1,
            durable: last,
            boot: last + 1,
            written: BTreeMap::new(),
            issued: VecDeque::new(),
            waiting: VecDeque::new(),
            unpersisted_bytes: 0,
            held: false,
        }
    }

    /// Gives a write of `bytes` bytes its token. `counted` is true if the machine itself issued the write, false if the
    /// node did on its behalf.
    pub fn issue(&mut self, writer: Writer, counted: bool, bytes: usize) -> Token {
        let seq = self.next;
        self.next += 1;
        let written = self.written.entry(writer).or_default();
        written.newest = seq;
        written.writes += u64::from(counted);
        self.issued.push_back(Issued { seq, writer, writes: written.writes, bytes });
        self.unpersisted_bytes += bytes;
        Token { lane: LANE, seq }
    }

    /// The token that a promise of this machine waits for: its newest, and at least the boot record's.
    #[must_use]
    pub fn newest(&self, writer: Writer) -> u64 {
        self.written.get(&writer).map_or(self.boot, |written| written.newest.max(self.boot))
    }

    /// The token of this process's boot record.
    #[must_use]
    pub const fn boot(&self) -> u64 {
        self.boot
    }

    /// Lets actions leave before the boot record is durable: for the planted bug that does not persist it.
    pub(crate) const fn skip_boot(&mut self) {
        self.boot = self.durable;
    }

    /// Whether this process's boot record is durable.
    #[must_use]
    pub const fn is_booted(&self) -> bool {
        self.durable >= self.boot
    }

    /// Whether the token is durable.
    #[must_use]
    pub const fn is_durable(&self, seq: u64) -> bool {
        self.durable >= seq
    }

    /// The token of the next write.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Bytes that were issued and are not durable yet.
    #[must_use]
    pub const fn unpersisted_bytes(&self) -> usize {
        self.unpersisted_bytes
    }

    /// Whether writes were issued that are not durable yet.
    #[must_use]
    pub const fn awaits_disk(&self) -> bool {
        self.durable + 1 < self.next
    }

    /// The number of actions that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no action waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns `action` if the token is durable already. Otherwise keeps it until it is, and returns `None`.
    pub fn release_when_durable(&mut self, seq: u64, action: A, waits: Waits) -> Option<A> {
        if self.is_durable(seq) && !self.held || mutant!("node.hold.skipped") {
            return Some(action);
        }
        match waits {
            Waits::Always => {
                reach!("node.hold.reply");
                if mutant!("node.reply.before_durable") {
                    return Some(action);
                }
            }
            Waits::Droppable => {
                reach!("node.hold.message");
                if self.waiting.len() >= WAITING_ACTIONS_MAX {
                    reach!("node.hold.dropped");
                    return None;
                }
            }
        }
        // Tokens mostly come in order, so the action almost always goes to the end.
        let at = self.waiting.iter().rposition(|(held, _)| *held <= seq).map_or(0, |at| at + 1);
        self.waiting.insert(at, (seq, action));
        None
    }

    /// All writes up to `token` are durable. Appends how many writes of each machine that makes durable to `durable`,
    /// and the actions that no longer wait to `released`, oldest first. Returns how many bytes became durable.
    pub fn persisted(
        &mut self,
        token: Token,
        durable: &mut Vec<Durable>,
        released: &mut Vec<A>,
    ) -> usize {
        // A token that was never issued proves nothing: a driver cannot make more durable than it was given.
        let seq = token.seq.min(self.next - 1);
        if token.lane != LANE || seq <= self.durable {
            reach!("node.hold.repeated");
            return 0;
        }
        self.durable = seq;
        let mut bytes = 0;
        while let Some(issued) = self.issued.pop_front_if(|issued| issued.seq <= seq) {
            bytes += issued.bytes;
            let count = Durable { writer: issued.writer, writes: issued.writes };
            match durable.iter_mut().find(|known| known.writer == issued.writer) {
                Some(known) => *known = count,
                None => durable.push(count),
            }
        }
        self.release(released);
        self.unpersisted_bytes -= bytes;
        bytes
    }

    /// From now on holds back every action, durable or not; or releases again what is durable, with
    /// [`DurabilityGate::release`]. For a process that may have no right to promise.
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Appends the waiting actions whose tokens are durable to `released`, oldest first.
    pub fn release(&mut self, released: &mut Vec<A>) {
        let (durable, held) = (self.durable, self.held);
        let leaves = |waiting: &mut (u64, A)| waiting.0 <= durable && !held;
        while let Some((_, action)) = self.waiting.pop_front_if(leaves) {
            released.push(action);
        }
    }

    /// Forgets a machine that is gone.
    pub fn forget(&mut self, writer: Writer) {
        self.written.remove(&writer);
    }

    /// Takes out all actions that wait, oldest first: they will never leave.
    pub fn abandon(&mut self) -> impl Iterator<Item = A> + use<A> {
        core::mem::take(&mut self.waiting).into_iter().map(|(_, action)| action)
    }

    /// Feeds the canonical form of the gate to `hash`; waiting actions count by their tokens.
    pub fn digest(&self, hash: &mut Hasher) {
        hash.number(self.next);
        hash.number(self.durable);
        hash.number(self.waiting.len() as u64);
        self.waiting.iter().for_each(|(seq, _)| hash.number(*seq));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::GroupId;

    type Gate = DurabilityGate<u64>;

    fn wait(gate: &mut Gate, seq: u64, action: u64) -> Option<u64> {
        gate.release_when_durable(seq, action, Waits::Always)
    }

    fn persisted(gate: &mut Gate, seq: u64) -> (Vec<Durable>, Vec<u64>) {
        let (mut durable, mut released) = (Vec::new(), Vec::new());
        gate.persisted(Token { lane: 0, seq }, &mut durable, &mut released);
        (durable, released)
    }

    #[test]
    fn a_promise_waits_for_the_newest_token_of_its_machine_alone() {
        let mut gate = Gate::new(10);
        let group = Writer::Group(GroupId(1));
        gate.issue(Writer::Node, false, 1);
        gate.issue(group, true, 1);
        gate.issue(Writer::Shards, true, 1);
        let (of_group, of_shards) = (gate.newest(group), gate.newest(Writer::Shards));
        assert_eq!(wait(&mut gate, of_shards, 3), None);
        assert_eq!(wait(&mut gate, of_group, 1), None);
        assert_eq!(wait(&mut gate, of_group, 2), None);
        assert_eq!(persisted(&mut gate, 11).1, []);
        let (durable, released) = persisted(&mut gate, 12);
        assert_eq!(released, [1, 2]);
        assert_eq!(durable, [Durable { writer: group, writes: 1 }]);
        let of_group = gate.newest(group);
        assert_eq!(wait(&mut gate, of_group, 4), Some(4));
        assert_eq!(persisted(&mut gate, 13).1, [3]);
    }

    #[test]
    fn no_action_leaves_before_the_boot_is_durable() {
        let mut gate = Gate::new(0);
        gate.issue(Writer::Node, false, 1);
        assert!(!gate.is_booted());
        let of_shards = gate.newest(Writer::Shards);
        assert_eq!(wait(&mut gate, of_shards, 1), None);
        assert_eq!(persisted(&mut gate, 1).1, [1]);
        assert!(gate.is_booted());
    }

    #[test]
    fn repeats_and_tokens_never_issued_release_no_more() {
        let mut gate = Gate::new(0);
        let token = gate.issue(Writer::Node, false, 7);
        assert_eq!(persisted(&mut gate, 99).0.len(), 1);
        assert_eq!(gate.unpersisted_bytes(), 0);
        assert_eq!(persisted(&mut gate, token.seq), (Vec::new(), Vec::new()));
        let late = gate.issue(Writer::Node, false, 7);
        assert!(!gate.is_durable(late.seq));
    }

    #[test]
    fn writes_on_a_machines_behalf_do_not_raise_its_count() {
        let mut gate = Gate::new(0);
        let group = Writer::Group(GroupId(0));
        gate.issue(group, false, 1);
        gate.issue(group, true, 1);
        gate.issue(group, false, 1);
        assert_eq!(persisted(&mut gate, 1).0, [Durable { writer: group, writes: 0 }]);
        assert_eq!(persisted(&mut gate, 3).0, [Durable { writer: group, writes: 1 }]);
    }

    #[test]
    fn nothing_leaves_while_it_is_held() {
        let mut gate = Gate::new(0);
        gate.issue(Writer::Node, false, 1);
        wait(&mut gate, 1, 3);
        gate.hold(true);
        assert_eq!(persisted(&mut gate, 1).1, []);
        assert_eq!(wait(&mut gate, 1, 4), None);
        gate.hold(false);
        let mut released = Vec::new();
        gate.release(&mut released);
        assert_eq!(released, [3, 4]);
        assert_eq!(wait(&mut gate, 1, 5), Some(5));
    }

    #[test]
    fn only_what_may_be_dropped_is_dropped_when_too_many_wait() {
        let mut gate = Gate::new(0);
        gate.issue(Writer::Node, false, 1);
        for action in 0..=WAITING_ACTIONS_MAX as u64 {
            assert_eq!(gate.release_when_durable(1, action, Waits::Droppable), None);
        }
        assert_eq!(gate.len(), WAITING_ACTIONS_MAX);
        assert_eq!(wait(&mut gate, 1, 7), None);
        assert_eq!(gate.len(), WAITING_ACTIONS_MAX + 1);
        assert_eq!(gate.abandon().last(), Some(7));
        assert!(gate.is_empty());
    }
}
