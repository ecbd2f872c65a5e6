//! Peers: the store and boot of each linked node, and whether its process is the one that should be there.
//!
//! A boot is durable before its first send, and names the boots before it. So two boots of one store that contradict
//! each other mean that a disk was copied or rolled back. One of the two processes is refused, at each of its starts:
//! the boots of members are durable here, and survive a restart of this node.
//!
//! A later boot while the earlier process is linked may be a quick restart, or may run on a copy of its disk. The
//! earlier process is asked: if it answers, the later one is refused for good.
//!
//! An older copy is recognised as long as its boots lie within [`crate::id::Lineage::MAX`] starts of the boot that is
//! known here. A copy made during that very boot has the same boots before it; only the original, while it runs, gives
//! it away. This module does not decide who is a member (`registry`), and does not judge this process (`doubt`).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use crate::digest::Hasher;
use crate::id::{AskId, Boot, Lineage, NodeId, Replica, StoreId};
use crate::limits::{MEMBERS_MAX, REQUESTS_PENDING_MAX};
use crate::time::Instant;
use crate::{mutant, reach};

use super::Refusal;

/// Peers remembered. Certificates bound which nodes may connect; this bounds their cost.
const PEERS_MAX: usize = 2 * MEMBERS_MAX;

/// Numbers of forwarded requests remembered per peer, so that a duplicate on the wire is no second request. The peer
/// names its lowest open number, and no number below that is remembered. So the bound is reached only while one request
/// stays open and this many later ones arrive.
const FORWARDS_KEPT: usize = REQUESTS_PENDING_MAX;

/// The meaning of a forwarded request's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// It is a new request.
    New,
    /// It was taken before, the peer gave it up, or another process of the peer sent it.
    Old,
    /// It may have been taken before: it was forgotten, see [`FORWARDS_KEPT`].
    Forgotten,
}

/// A peer as its last handshake proved it. `forwards` holds seen numbers of forwarded requests from `floor` on; numbers
/// below `floor` are forgotten, and the peer gave up those below `open`.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) store: StoreId,
    pub(super) boot: Boot,
    /// Whether its link is up.
    pub(super) up: bool,
    /// When the last message or handshake arrived.
    heard: Instant,
    open: u64,
    floor: u64,
    forwards: BTreeSet<u64>,
    /// A later boot that came while this process was linked, and the number of the question whether this one lives.
    rival: Option<(Boot, u64)>,
    /// A boot that runs on a copy of this process's disk.
    clone: Option<Boot>,
}

/// The judgement of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The process is the one that should be there.
    Welcome,
    /// The process is an old one, or runs on a copied disk.
    Refuse(Refusal, Boot),
    /// The process before it is linked, and must be asked under this number whether it lives.
    Ask(Boot, u64),
    /// The table is full, see [`PEERS_MAX`].
    Full,
}

/// All peers that were ever linked to this process, and the durable boots of members.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    /// The newest boots of members that were welcomed here, each one durable or on its way to the disk.
    welcomed: BTreeMap<Replica, Boot>,
    /// The number of the newest question whether a process lives.
    asked: u64,
}

impl Peers {
    /// No peer is linked; the boots of members are known from the disk.
    pub(super) fn new(welcomed: BTreeMap<Replica, Boot>) -> Self {
        Self { welcomed, ..Self::default() }
    }

    /// Judges a handshake, and remembers the peer if it is welcome.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        replica: Replica,
        (boot, lineage): (Boot, &Lineage),
        clone_window: Duration,
    ) -> Verdict {
        let durable = self.welcomed.get(&replica);
        let linked = self.peers.get(&replica.node).filter(|peer| peer.store == replica.store);
        let known = linked.map(|peer| peer.boot).into_iter().chain(durable.copied());
        for known in known {
            if let Some(refusal) = contradiction(known, boot, lineage) {
                return Verdict::Refuse(refusal, known);
            }
        }
        let full = self.peers.len() >= PEERS_MAX;
        match self.peers.get_mut(&replica.node) {
            Some(known) if known.store == replica.store => {
                if let Some(verdict) = known.earlier_lives(now, (boot, lineage), clone_window) {
                    if let Verdict::Ask(rival, _) = verdict {
                        // A repeat asks the same question, because the answer to the first may be under way.
                        let same = known.rival.filter(|(before, _)| *before == rival);
                        let number = same.map_or(self.asked + 1, |(_, number)| number);
                        self.asked = self.asked.max(number);
                        known.rival = Some((rival, number));
                        return Verdict::Ask(known.boot, number);
                    }
                    return verdict;
                }
                known.welcome(now, boot);
            }
            None if full => return Verdict::Full,
            _ => {
                self.peers.insert(replica.node, Peer::new(now, replica.store, boot));
            }
        }
        Verdict::Welcome
    }

    /// A peer answers the question with this number: its process lives, so the later one runs on a copy of its disk.
    pub(super) fn confirmed(&mut self, peer: NodeId, number: u64) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if let Some((rival, _)) = known.rival.take_if(|(_, asked)| *asked == number) {
            reach!("node.peers.cloned_alive");
            known.clone = Some(rival);
        }
    }

    /// A number that no question of this process has.
    pub(super) const fn ask_number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// The boots of linked members that are not durable here, now that `is_member` says which peers are members.
    pub(super) fn unrecorded(
        &mut self,
        is_member: impl Fn(Replica) -> bool,
    ) -> Vec<(Replica, Boot)> {
        let Self { peers, welcomed, .. } = self;
        let boots = peers
            .iter()
            .map(|(node, peer)| (Replica { node: *node, store: peer.store }, peer.boot));
        let new: Vec<_> = boots
            .filter(|(replica, boot)| welcomed.get(replica) != Some(boot) && is_member(*replica))
            .collect();
        welcomed.extend(new.iter().copied());
        if welcomed.len() > PEERS_MAX {
            welcomed.retain(|replica, _| is_member(*replica));
        }
        new
    }

    /// All boots of members that are durable here.
    pub(super) fn welcomed(&self) -> Vec<(Replica, Boot)> {
        self.welcomed.iter().map(|(replica, boot)| (*replica, *boot)).collect()
    }

    /// Notes that a message arrived. Returns the replica that the transport authenticated; `None` without a link.
    pub(super) fn heard(&mut self, now: Instant, peer: NodeId) -> Option<Replica> {
        let known = self.peers.get_mut(&peer).filter(|known| known.up)?;
        known.heard = now;
        Some(Replica { node: peer, store: known.store })
    }

    /// Notes that a link is down. Returns whether it was up.
    pub(super) fn unreachable(&mut self, peer: NodeId) -> bool {
        self.peers.get_mut(&peer).is_some_and(|known| core::mem::replace(&mut known.up, false))
    }

    /// A known peer, whether its link is up or not.
    pub(super) fn get(&self, peer: NodeId) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    /// Whether a link to this very replica is up.
    pub(super) fn is_linked(&self, to: Replica) -> bool {
        self.peers.get(&to.node).is_some_and(|known| known.up && known.store == to.store)
    }

    /// All peers with a link, in order of their node ids.
    pub(super) fn linked(&self) -> impl Iterator<Item = Replica> + '_ {
        let up = self.peers.iter().filter(|(_, peer)| peer.up);
        up.map(|(node, peer)| Replica { node: *node, store: peer.store })
    }

    /// Takes the number of a forwarded request. `open` is the lowest number that the peer still waits for.
    pub(super) fn take_forward(&mut self, peer: NodeId, id: AskId, open: u64) -> Forwarded {
        let known = self.peers.get_mut(&peer);
        known.map_or(Forwarded::Old, |known| known.take_forward(id, open))
    }

    pub(super) fn digest(&self, hash: &mut Hasher) {
        hash.number(self.asked);
        self.welcomed.iter().for_each(|known| hash.value(&known));
        for (node, peer) in &self.peers {
            hash.value(&(node, peer.store, peer.boot, peer.up, peer.heard));
        }
    }
}

impl Peer {
    const fn new(now: Instant, store: StoreId, boot: Boot) -> Self {
        Self {
            store,
            boot,
            up: true,
            heard: now,
            open: 0,
            floor: 0,
            forwards: BTreeSet::new(),
            rival: None,
            clone: None,
        }
    }

    /// Judges a later boot by whether this process is alive.
    fn earlier_lives(
        &self,
        now: Instant,
        (boot, lineage): (Boot, &Lineage),
        clone_window: Duration,
    ) -> Option<Verdict> {
        if boot.count <= self.boot.count || mutant!("node.peers.old_welcome") {
            return None;
        }
        if self.clone.is_some_and(|clone| {
            clone == boot || lineage.nonce_at(boot, clone.count) == Some(clone.nonce)
        }) {
            return Some(Verdict::Refuse(Refusal::Cloned, self.boot));
        }
        let alive = self.up && now.since(self.heard) < clone_window;
        alive.then_some(Verdict::Ask(boot, 0))
    }

    fn welcome(&mut self, now: Instant, boot: Boot) {
        if boot.count > self.boot.count {
            reach!("node.peers.restarted");
            (self.open, self.floor) = (0, 0);
            self.forwards.clear();
        }
        self.rival = None;
        self.boot = boot;
        self.up = true;
        self.heard = now;
    }

    fn take_forward(&mut self, id: AskId, open: u64) -> Forwarded {
        if mutant!("node.forward.duplicated") {
            return Forwarded::New;
        }
        if id.nonce != self.boot.nonce {
            reach!("node.forward.of_other_boot");
            return Forwarded::Old;
        }
        // A number cannot be lower than the lowest open one: such a claim says nothing.
        self.open = self.open.max(open.min(id.number));
        while self.forwards.first().is_some_and(|seen| *seen < self.open) {
            self.forwards.pop_first();
        }
        if id.number < self.open || self.forwards.contains(&id.number) {
            reach!("node.forward.repeated");
            return Forwarded::Old;
        }
        if id.number < self.floor {
            reach!("node.forward.forgotten");
            return Forwarded::Forgotten;
        }
        self.forwards.insert(id.number);
        if self.forwards.len() > FORWARDS_KEPT {
            self.floor = self.forwards.pop_first().map_or(self.floor, |oldest| oldest + 1);
        }
        Forwarded::New
    }
}

/// Whether a boot that this node knows contradicts another boot of the same store, and how.
fn contradiction(known: Boot, boot: Boot, lineage: &Lineage) -> Option<Refusal> {
    if mutant!("node.peers.old_welcome") {
        return None;
    }
    if boot.count < known.count {
        reach!("node.peers.stale");
        return Some(Refusal::StaleBoot);
    }
    if boot.count == known.count {
        return (boot.nonce != known.nonce).then_some(Refusal::Cloned);
    }
    let before = lineage.nonce_at(boot, known.count);
    let forked = before.is_some_and(|nonce| nonce != known.nonce);
    if forked && !mutant!("node.peers.lineage_ignored") {
        reach!("node.peers.forked");
        return Some(Refusal::Forked);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);
    const PEER: Replica = Replica { node: NodeId([1; 16]), store: StoreId([2; 16]) };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn boot(count: u64, nonce: u64) -> Boot {
        Boot { count, nonce }
    }

    fn connect(peers: &mut Peers, ms: u64, boot: Boot, lineage: &Lineage) -> Verdict {
        peers.connected(at(ms), PEER, (boot, lineage), WINDOW)
    }

    /// The lineage of a boot after these nonces of the boots from 1 on.
    fn after(nonces: &[u64]) -> Lineage {
        let boots = (1..).zip(nonces);
        boots.fold(Lineage::default(), |before, (count, nonce)| before.after(boot(count, *nonce)))
    }

    #[test]
    fn an_old_boot_is_stale_and_a_contradicting_one_is_a_clone_or_a_fork() {
        let mut peers = Peers::default();
        let mut connect = |boot, lineage: &[u64]| connect(&mut peers, 9000, boot, &after(lineage));
        let refused = |reason, count, nonce| Verdict::Refuse(reason, boot(count, nonce));
        assert_eq!(connect(boot(3, 33), &[11, 22]), Verdict::Welcome);
        assert_eq!(connect(boot(3, 33), &[11, 22]), Verdict::Welcome);
        assert_eq!(connect(boot(2, 22), &[11]), refused(Refusal::StaleBoot, 3, 33));
        assert_eq!(connect(boot(3, 34), &[11, 22]), refused(Refusal::Cloned, 3, 33));
        // The disk was rolled back to its first start, and started again and again.
        let mut fork = alloc::vec![11, 22, 34];
        for count in 4..4 + Lineage::MAX as u64 - 1 {
            let verdict = connect(boot(count, 100 + count), &fork);
            assert_eq!(verdict, refused(Refusal::Forked, 3, 33), "at its start {count}");
            fork.push(100 + count);
        }
    }

    #[test]
    fn a_rolled_back_process_is_refused_also_after_a_restart_of_this_node() {
        let mut peers = Peers::default();
        assert_eq!(connect(&mut peers, 0, boot(3, 33), &after(&[11, 22])), Verdict::Welcome);
        assert_eq!(peers.unrecorded(|_| false), [], "only members are recorded");
        assert_eq!(peers.unrecorded(|_| true), [(PEER, boot(3, 33))]);
        assert_eq!(peers.unrecorded(|_| true), [], "once");
        let mut peers = Peers::new(peers.welcomed().into_iter().collect());
        let refused = Verdict::Refuse(Refusal::Forked, boot(3, 33));
        assert_eq!(connect(&mut peers, 0, boot(4, 44), &after(&[11, 22, 34])), refused);
        // Another store of the node came in between.
        let other = Replica { store: StoreId([7; 16]), ..PEER };
        let first = (boot(1, 1), &Lineage::default());
        assert_eq!(peers.connected(at(9), other, first, WINDOW), Verdict::Welcome);
        assert_eq!(connect(&mut peers, 10, boot(4, 44), &after(&[11, 22, 34])), refused);
        assert_eq!(connect(&mut peers, 10, boot(4, 45), &after(&[11, 22, 33])), Verdict::Welcome);
    }

    #[test]
    fn a_restart_waits_for_its_old_link_and_a_clone_is_refused_once_the_original_answers() {
        let mut peers = Peers::default();
        let later = |count| (boot(count, 10 * count), after(&[1, 20][..count as usize - 1]));
        connect(&mut peers, 0, boot(1, 1), &Lineage::default());
        let (second, lineage) = later(2);
        let Verdict::Ask(first, number) = connect(&mut peers, 10, second, &lineage) else {
            panic!("the first process is asked")
        };
        assert_eq!(first, boot(1, 1));
        peers.confirmed(PEER.node, number + 1);
        assert_eq!(connect(&mut peers, 20, second, &lineage), Verdict::Ask(first, number));
        peers.confirmed(PEER.node, number);
        let refused = Verdict::Refuse(Refusal::Cloned, boot(1, 1));
        assert_eq!(connect(&mut peers, 30, second, &lineage), refused);
        peers.unreachable(PEER.node);
        assert_eq!(connect(&mut peers, 40, second, &lineage), refused, "a clone stays one");
        let (third, lineage) = later(3);
        assert_eq!(connect(&mut peers, 50, third, &lineage), refused, "as does what comes of it");
        assert_eq!(connect(&mut peers, 60, boot(2, 2), &after(&[1])), Verdict::Welcome);
    }

    #[test]
    fn a_restart_whose_old_link_went_down_is_welcome_at_once() {
        let mut peers = Peers::default();
        connect(&mut peers, 0, boot(1, 1), &Lineage::default());
        assert!(peers.unreachable(PEER.node));
        assert_eq!(connect(&mut peers, 1, boot(2, 7), &after(&[1])), Verdict::Welcome);
    }

    #[test]
    fn a_forwarded_request_is_taken_once_and_one_of_another_boot_never() {
        use Forwarded::{New, Old};
        let mut peers = Peers::default();
        connect(&mut peers, 0, boot(1, 1), &Lineage::default());
        let take = |peers: &mut Peers, nonce, number, open| {
            peers.take_forward(PEER.node, AskId { nonce, number }, open)
        };
        assert_eq!(take(&mut peers, 1, 3, 2), New);
        assert_eq!(take(&mut peers, 1, 2, 2), New, "it was overtaken");
        assert_eq!(take(&mut peers, 1, 3, 2), Old);
        assert_eq!(take(&mut peers, 7, 4, 2), Old, "an earlier boot sent it");
        for number in 10..5000 {
            assert_eq!(take(&mut peers, 1, number, 4), New);
        }
        assert_eq!(take(&mut peers, 1, 4, 4), New, "however many overtook it");
        assert_eq!(take(&mut peers, 1, 5000, 5000), New);
        assert_eq!(take(&mut peers, 1, 6, 4), Old, "the peer gave it up");
        assert_eq!(peers.peers[&PEER.node].forwards.len(), 1);
        peers.unreachable(PEER.node);
        connect(&mut peers, 9, boot(2, 2), &after(&[1]));
        assert_eq!(take(&mut peers, 1, 6000, 0), Old);
        assert_eq!(take(&mut peers, 2, 1, 1), New);
    }

    #[test]
    fn a_number_that_was_forgotten_is_said_to_be_so() {
        let mut peers = Peers::default();
        connect(&mut peers, 0, boot(1, 1), &Lineage::default());
        let mut take = |number| peers.take_forward(PEER.node, AskId { nonce: 1, number }, 1);
        assert!((2..FORWARDS_KEPT as u64 + 4).all(|number| take(number) == Forwarded::New));
        assert_eq!(take(1), Forwarded::Forgotten);
        assert_eq!(take(2), Forwarded::Forgotten);
        assert_eq!(take(9), Forwarded::Old);
    }
}
