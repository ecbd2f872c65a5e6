//! Persist before you promise: tokens of the lane's log, and what waits for them.
//!
//! Every write gets the next token of the lane. Whatever promises something waits here for the newest token of the
//! machine that promises, even if the step that promises wrote nothing, and leaves when that token is durable. Nothing
//! at all leaves before this process's [`crate::wal::Write::Boot`] is durable.
//!
//! Not here: what is a promise (the machines say), and what the bytes on disk look like (`wal`).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::digest::Hasher;
use crate::id::{GroupId, Token};
use crate::wal::Write;
use crate::{mutant, reach};

use super::Action;

/// Messages that may wait for the disk. Past it they are dropped like any message that a full queue drops: each is
/// repeated by its machine.
const HELD_MAX: usize = 65_536;

/// The one lane of this node.
const LANE: u16 = 0;

/// A machine that writes and promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keeper {
    /// The node itself.
    Node,
    /// A group's Raft.
    Group(GroupId),
    /// The replicator, for all shards.
    Shards,
}

/// What a machine has written so far.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// The newest token issued for it.
    newest: u64,
    /// Its own writes since the process began, as it counts them.
    writes: u64,
}

/// A write under way to the disk.
#[derive(Clone, Copy, Debug)]
struct Issued {
    seq: u64,
    keeper: Keeper,
    /// The machine's count with this write; the node's own writes do not raise it.
    writes: u64,
    bytes: usize,
}

/// What became durable, for one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) keeper: Keeper,
    /// Its first so many writes are durable.
    pub(super) writes: u64,
}

/// The tokens of the lane and what waits for them.
#[derive(Debug)]
pub(super) struct Hold {
    next: u64,
    durable: u64,
    /// The token of this process's boot; nothing leaves before it is durable.
    boot: u64,
    written: BTreeMap<Keeper, Written>,
    issued: VecDeque<Issued>,
    /// Sorted by token; equal tokens in the order in which they came.
    held: VecDeque<(u64, Action)>,
    unpersisted_bytes: usize,
}

impl Hold {
    /// Tokens go on after `last`, the newest that the log holds. Until [`Hold::booted`] nothing leaves.
    pub(super) const fn new(last: u64) -> Self {
        Self {
            next: last + 1,
            durable: last,
            boot: last + 1,
            written: BTreeMap::new(),
            issued: VecDeque::new(),
            held: VecDeque::new(),
            unpersisted_bytes: 0,
        }
    }

    /// Numbers a write. `counted` tells whether the machine itself issued it, or the node on its behalf.
    pub(super) fn issue(&mut self, keeper: Keeper, counted: bool, bytes: usize) -> Token {
        let seq = self.next;
        self.next += 1;
        let written = self.written.entry(keeper).or_default();
        written.newest = seq;
        written.writes += u64::from(counted);
        self.issued.push_back(Issued { seq, keeper, writes: written.writes, bytes });
        self.unpersisted_bytes += bytes;
        Token { lane: LANE, seq }
    }

    /// The token that a promise of this machine waits for: its newest, and at least the boot's.
    pub(super) fn newest(&self, keeper: Keeper) -> u64 {
        self.written.get(&keeper).map_or(self.boot, |written| written.newest.max(self.boot))
    }

    /// The token of this process's boot.
    pub(super) const fn boot(&self) -> u64 {
        self.boot
    }

    /// Lets everything leave at once: for the planted bug that does not persist its boot.
    pub(super) const fn skip_boot(&mut self) {
        self.boot = self.durable;
    }

    /// Whether this process's boot is durable.
    pub(super) const fn is_booted(&self) -> bool {
        self.durable >= self.boot
    }

    /// Whether the token is durable.
    pub(super) const fn is_durable(&self, seq: u64) -> bool {
        self.durable >= seq
    }

    /// The number of the next write.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Bytes handed to the disk and not yet durable.
    pub(super) const fn unpersisted_bytes(&self) -> usize {
        self.unpersisted_bytes
    }

    /// Messages and replies that wait for the disk.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Hands `action` back if all it waits for is durable, and keeps it otherwise.
    pub(super) fn withhold(&mut self, seq: u64, action: Action) -> Option<Action> {
        if self.is_durable(seq) || mutant!("node.hold.skipped") {
            return Some(action);
        }
        if matches!(action, Action::Reply { .. }) {
            // Replies are bounded by the requests that wait, and are never dropped.
            reach!("node.hold.reply");
            if mutant!("node.reply.before_durable") {
                return Some(action);
            }
        } else {
            reach!("node.hold.message");
            if self.held.len() >= HELD_MAX {
                reach!("node.hold.dropped");
                return None;
            }
        }
        // Tokens mostly come in order, so the place is almost always at the end.
        let at = self.held.iter().rposition(|(held, _)| *held <= seq).map_or(0, |at| at + 1);
        self.held.insert(at, (seq, action));
        None
    }

    /// Takes note that all up to `token` is durable. Appends what that means for each machine to `durable`, and what it
    /// releases to `released`, oldest first. Returns how many bytes became durable.
    pub(super) fn persisted(
        &mut self,
        token: Token,
        durable: &mut Vec<Durable>,
        released: &mut Vec<Action>,
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
            let news = Durable { keeper: issued.keeper, writes: issued.writes };
            match durable.iter_mut().find(|known| known.keeper == issued.keeper) {
                Some(known) => *known = news,
                None => durable.push(news),
            }
        }
        while let Some((_, action)) = self.held.pop_front_if(|(held, _)| *held <= seq) {
            released.push(action);
        }
        self.unpersisted_bytes -= bytes;
        bytes
    }

    /// Forgets a machine that is gone.
    pub(super) fn forget(&mut self, keeper: Keeper) {
        self.written.remove(&keeper);
    }

    /// Drops all messages that wait and hands over the replies: the node is fenced.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Action> + use<> {
        let held = core::mem::take(&mut self.held);
        held.into_iter().map(|(_, action)| action).filter(|a| matches!(a, Action::Reply { .. }))
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.next);
        hash.number(self.durable);
        hash.number(self.held.len() as u64);
        self.held.iter().for_each(|(seq, _)| hash.number(*seq));
    }
}

/// About how many bytes a write takes in the log. Exact enough to decide when to refuse and when to checkpoint.
pub(super) fn cost(write: &Write) -> usize {
    const RECORD: usize = 48;
    let payload = match write {
        Write::Append { entries, .. } => entries.iter().map(entry_cost).sum(),
        Write::Chunk { data, .. } => data.len(),
        Write::Dots { records, .. } => records.iter().map(|record| record.len() + 4).sum(),
        Write::Contacts { contacts } => contacts.iter().map(|c| c.address.0.len() + 24).sum(),
        Write::Genesis { configuration, .. } | Write::Snapshot { configuration, .. } => {
            (configuration.voters.len() + configuration.learners.len()) * 34
        }
        Write::Boot { .. } | Write::Hard { .. } | Write::Forget { .. } => 0,
    };
    RECORD + payload
}

fn entry_cost(entry: &crate::raft::Entry) -> usize {
    use crate::raft::Payload;
    let payload = match &entry.payload {
        Payload::Noop => 0,
        Payload::Configuration(members) => (members.voters.len() + members.learners.len()) * 34,
        Payload::Command(command) => command.len(),
    };
    payload + 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Outcome, Reason};
    use crate::id::RequestId;

    fn reply(id: u64) -> Action {
        Action::Reply { id: RequestId(id), outcome: Outcome::Rejected(Reason::Busy) }
    }

    fn ids(actions: &[Action]) -> Vec<u64> {
        let id = |action: &Action| match action {
            Action::Reply { id, .. } => id.0,
            _ => u64::MAX,
        };
        actions.iter().map(id).collect()
    }

    fn persisted(hold: &mut Hold, seq: u64) -> (Vec<Durable>, Vec<u64>) {
        let (mut durable, mut released) = (Vec::new(), Vec::new());
        hold.persisted(Token { lane: 0, seq }, &mut durable, &mut released);
        (durable, ids(&released))
    }

    #[test]
    fn a_promise_waits_for_the_newest_token_of_its_machine_alone() {
        let mut hold = Hold::new(10);
        let group = Keeper::Group(GroupId(1));
        hold.issue(Keeper::Node, false, 1);
        hold.issue(group, true, 1);
        hold.issue(Keeper::Shards, true, 1);
        let (of_group, of_shards) = (hold.newest(group), hold.newest(Keeper::Shards));
        assert!(hold.withhold(of_shards, reply(3)).is_none());
        assert!(hold.withhold(of_group, reply(1)).is_none());
        assert!(hold.withhold(of_group, reply(2)).is_none());
        assert_eq!(persisted(&mut hold, 11).1, []);
        let (durable, released) = persisted(&mut hold, 12);
        assert_eq!(released, [1, 2]);
        assert_eq!(durable, [Durable { keeper: group, writes: 1 }]);
        assert!(hold.withhold(hold.newest(group), reply(4)).is_some());
        assert_eq!(persisted(&mut hold, 13).1, [3]);
    }

    #[test]
    fn nothing_leaves_before_the_boot_is_durable() {
        let mut hold = Hold::new(0);
        hold.issue(Keeper::Node, false, 1);
        assert!(!hold.is_booted());
        assert!(hold.withhold(hold.newest(Keeper::Shards), reply(1)).is_none());
        assert_eq!(persisted(&mut hold, 1).1, [1]);
        assert!(hold.is_booted());
    }

    #[test]
    fn repeats_and_tokens_never_issued_release_nothing_more() {
        let mut hold = Hold::new(0);
        let token = hold.issue(Keeper::Node, false, 7);
        assert_eq!(persisted(&mut hold, 99).0.len(), 1);
        assert_eq!(hold.unpersisted_bytes(), 0);
        assert_eq!(persisted(&mut hold, token.seq), (Vec::new(), Vec::new()));
        let late = hold.issue(Keeper::Node, false, 7);
        assert!(!hold.is_durable(late.seq));
    }

    #[test]
    fn the_nodes_own_writes_do_not_raise_a_machines_count() {
        let mut hold = Hold::new(0);
        let group = Keeper::Group(GroupId(0));
        hold.issue(group, false, 1);
        hold.issue(group, true, 1);
        hold.issue(group, false, 1);
        assert_eq!(persisted(&mut hold, 1).0, [Durable { keeper: group, writes: 0 }]);
        assert_eq!(persisted(&mut hold, 3).0, [Durable { keeper: group, writes: 1 }]);
    }
}
