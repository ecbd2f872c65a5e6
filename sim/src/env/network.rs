//! The network: which message arrives, when, and how often.
//!
//! A pair of nodes has at most one link. A handshake makes it; a crash, a reset or a long silence breaks it. On a link,
//! messages are first-in, first-out per plane, unless a fault says otherwise. The network decides times and fates only:
//! it holds no messages. `link_conditions` derives what faults do to a link.

use continuum_core::node::Plane;

use crate::env::clock::MS;
use crate::env::link_conditions::{LinkConditions, swizzle};
use crate::plan::fault::{Fault, Kind, Tally};
use crate::rng::{Draws, stream};

/// A silent link is given up after this time.
pub(crate) const KEEPALIVE_NS: u64 = 3_000 * MS;
/// Shortest wait before a failed dial is repeated.
pub(crate) const REDIAL_NS: u64 = 200 * MS;

/// Most bytes that wait for a connection of limited capacity; one message is always accepted. This is far less than a
/// driver's queue takes, because the connection is far slower than a real one.
const QUEUE_BYTES: u64 = 128 << 10;
/// Per million: connections that break within a message and leave the other plane of their link up, for at most
/// `HALF_NS`.
const HALF_PPM: u64 = 500_000;
const HALF_NS: u64 = 100 * MS;

const DROP: u64 = stream("net.drop", 0);
const TWICE: u64 = stream("net.duplicate", 0);
const LATER: u64 = stream("net.duplicate.later", 0);
const REORDER: u64 = stream("net.reorder", 0);
const OVERTAKEN: u64 = stream("net.reorder.by", 0);
const DELAY: u64 = stream("net.delay", 0);
const LATE: u64 = stream("net.delay.by", 0);
const CORRUPT: u64 = stream("net.corrupt", 0);
const BIT: u64 = stream("net.corrupt.bit", 0);
const BREAK: u64 = stream("net.break", 0);
const HALF: u64 = stream("net.break.half", 0);
const NOTICED: u64 = stream("net.break.noticed", 0);
const LATENCY: u64 = stream("net.latency", 0);

/// One direction between two nodes.
#[derive(Clone, Debug)]
struct Direction {
    stream: u64,
    sent: u64,
    /// The latest arrival so far, per plane.
    last: [u64; 2],
    /// When each plane has sent all that waits for it; for connections of limited capacity.
    free_at: [u64; 2],
    /// Planes that broke before the link did.
    broken: [bool; 2],
    conditions: LinkConditions,
    /// Nothing passes any more, whatever the conditions.
    severed: bool,
}

/// The state of the link between two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Down,
    Dialling,
    Up,
}

/// Two nodes, the lower number first.
#[derive(Clone, Debug, Default)]
struct Pair {
    /// Counts the links that were made or given up, to recognise what belongs to an old one.
    epoch: u32,
    state: State,
    /// Whether the lower and the higher node want the link.
    wanted: [bool; 2],
    /// Whether a dial of the lower and of the higher node is scheduled.
    planned: [bool; 2],
}

/// When a message arrives: a second time when it was duplicated, never when it was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    pub(crate) first: Option<u64>,
    pub(crate) second: Option<u64>,
    /// When the link breaks, if this message breaks it.
    pub(crate) breaks: Option<u64>,
}

/// The links of all nodes.
#[derive(Debug)]
pub(crate) struct Network {
    nodes: usize,
    draws: Draws,
    /// Shortest and longest latency of a message while nothing goes wrong.
    pub(crate) latency_ns: (u64, u64),
    /// Per million: messages that arrive once more as if a node of another federation had sent them; `None` without
    /// such a fault.
    pub(crate) other_genesis_ppm: Option<u64>,
    directions: Vec<Direction>,
    pairs: Vec<Pair>,
}

impl Network {
    pub(crate) fn new(nodes: usize, draws: Draws, latency_us: (u64, u64)) -> Self {
        let direction = |at: usize| Direction {
            stream: stream("net.way", at as u64),
            sent: 0,
            last: [0; 2],
            free_at: [0; 2],
            broken: [false; 2],
            conditions: LinkConditions::default(),
            severed: false,
        };
        Self {
            nodes,
            draws,
            latency_ns: (latency_us.0 * 1_000, latency_us.1 * 1_000),
            other_genesis_ppm: None,
            directions: (0..nodes * nodes).map(direction).collect(),
            pairs: vec![Pair::default(); nodes * nodes],
        }
    }

    const fn pair(&self, a: usize, b: usize) -> usize {
        if a < b { a * self.nodes + b } else { b * self.nodes + a }
    }

    /// Derives the conditions of each direction from the active faults.
    pub(crate) fn set_conditions<'a, I>(&mut self, active: &I)
    where
        I: Iterator<Item = &'a Fault> + Clone,
    {
        for at in 0..self.directions.len() {
            let (from, to) = (at / self.nodes, at % self.nodes);
            let mut conditions = LinkConditions::default();
            active.clone().for_each(|fault| conditions.add(fault, from, to));
            let direction = &mut self.directions[at];
            direction.conditions = conditions;
            if conditions.bytes_per_s == 0 {
                direction.free_at = [0; 2];
            }
        }
        let other_genesis = active.clone().filter(|fault| fault.kind == Kind::OtherGenesis);
        self.other_genesis_ppm = other_genesis.map(|fault| fault.rate_ppm).max();
        for fault in active.clone().filter(|fault| fault.kind == Kind::Swizzle) {
            for ((a, b), times) in swizzle(fault, self.nodes, self.draws) {
                for direction in [a * self.nodes + b, b * self.nodes + a] {
                    self.directions[direction].conditions.swizzled = times;
                }
            }
        }
    }

    /// Whether the direction has a limited capacity, so that the length of a message matters.
    pub(crate) fn is_narrow(&self, from: usize, to: usize) -> bool {
        self.directions[from * self.nodes + to].conditions.bytes_per_s > 0
    }

    /// The rate per million and the greatest delay of replayed messages in this direction, if there are any.
    pub(crate) fn replays(&self, from: usize, to: usize) -> Option<(u64, u64)> {
        let conditions = &self.directions[from * self.nodes + to].conditions;
        (conditions.replay_ppm > 0).then_some((conditions.replay_ppm, conditions.replay_ns))
    }

    /// Per million: messages of this direction that are accompanied by one the older receiver does not know.
    pub(crate) fn later_ppm(&self, from: usize, to: usize) -> u64 {
        self.directions[from * self.nodes + to].conditions.later_ppm
    }

    /// The stream of this direction, and the number of its last message.
    pub(crate) fn position(&self, from: usize, to: usize) -> (u64, u64) {
        let direction = &self.directions[from * self.nodes + to];
        (direction.stream, direction.sent)
    }

    /// Blocks one direction for good.
    pub(crate) fn sever(&mut self, from: usize, to: usize) {
        self.directions[from * self.nodes + to].severed = true;
    }

    /// Whether messages can pass both ways.
    pub(crate) fn is_open(&self, a: usize, b: usize) -> bool {
        let hears = |from: usize, to: usize| {
            let direction = &self.directions[from * self.nodes + to];
            direction.conditions.cut.is_none() && !direction.severed
        };
        hears(a, b) && hears(b, a)
    }

    /// Whether no message passes in this direction.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        let direction = &self.directions[from * self.nodes + to];
        direction.conditions.cut.is_some() || direction.severed
    }

    /// Whether every message in this direction arrives soon and in order.
    pub(crate) fn is_clean(&self, from: usize, to: usize, now: u64) -> bool {
        let direction = &self.directions[from * self.nodes + to];
        let is_open = direction.conditions.cut.is_none() && !direction.severed;
        is_open && direction.broken == [false; 2] && direction.conditions.is_prompt(now)
    }

    /// Draws the latency of one message when nothing goes wrong.
    pub(crate) fn latency(&mut self, from: usize, to: usize) -> u64 {
        let direction = &mut self.directions[from * self.nodes + to];
        direction.sent += 1;
        self.draws.between(
            LATENCY ^ direction.stream,
            direction.sent,
            self.latency_ns.0,
            self.latency_ns.1,
        )
    }

    /// Decides the fate of one message that leaves at `now`. Its length `bytes` matters only on a link of limited
    /// capacity.
    pub(crate) fn transmit(
        &mut self,
        (from, to): (usize, usize),
        plane: Plane,
        now: u64,
        bytes: u64,
        fired: &mut Tally,
    ) -> Arrivals {
        let direction = &mut self.directions[from * self.nodes + to];
        direction.sent += 1;
        let (draws, id, k) = (self.draws, direction.stream, direction.sent);
        if direction.severed {
            return Arrivals::default();
        }
        if let Some(kind) = direction.conditions.cut {
            fired.count(kind);
            return Arrivals::default();
        }
        if draws.chance(DROP ^ id, k, direction.conditions.drop_ppm) {
            fired.count(Kind::Drop);
            return Arrivals::default();
        }
        if direction.broken[plane as usize] {
            return Arrivals::default();
        }
        let Some(leaves) = direction.enqueue(plane, now, bytes, fired) else {
            return Arrivals::default();
        };
        let latency = draws.between(LATENCY ^ id, k, self.latency_ns.0, self.latency_ns.1);
        let at = direction.arrive(draws, plane, leaves + latency, fired);
        if draws.chance(BREAK ^ id, k, direction.conditions.break_ppm) {
            fired.count(Kind::ResetMidFrame);
            let half = draws.chance(HALF ^ id, k, HALF_PPM);
            direction.broken[plane as usize] = half;
            let noticed = if half { draws.below(NOTICED ^ id, k, HALF_NS) } else { 0 };
            return Arrivals { breaks: Some(at + noticed), ..Arrivals::default() };
        }
        let twice = draws.chance(TWICE ^ id, k, direction.conditions.twice_ppm);
        let second = twice.then(|| {
            fired.count(Kind::Duplicate);
            at + draws.below(LATER ^ id, k, 50 * MS)
        });
        Arrivals { first: Some(at), second, breaks: None }
    }

    /// Which of the `bits` of the last message in this direction is flipped, if one is.
    pub(crate) fn corrupted(&self, from: usize, to: usize, bits: u64) -> Option<u64> {
        let direction = &self.directions[from * self.nodes + to];
        let struck = self.draws.chance(
            CORRUPT ^ direction.stream,
            direction.sent,
            direction.conditions.corrupt_ppm,
        );
        struck.then(|| self.draws.below(BIT ^ direction.stream, direction.sent, bits))
    }

    /// Notes whether one end wants the link. Returns whether it should dial now.
    pub(crate) fn want(&mut self, me: usize, peer: usize, wanted: bool) -> bool {
        let pair = self.pair(me, peer);
        let pair = &mut self.pairs[pair];
        pair.wanted[usize::from(me > peer)] = wanted;
        wanted && pair.state == State::Down
    }

    /// Whether this end wants the link and there is none.
    pub(crate) fn is_missing(&self, me: usize, peer: usize) -> bool {
        let pair = &self.pairs[self.pair(me, peer)];
        pair.wanted[usize::from(me > peer)] && pair.state == State::Down
    }

    /// Whether at least one end wants the link.
    pub(crate) fn is_wanted(&self, a: usize, b: usize) -> bool {
        self.pairs[self.pair(a, b)].wanted.contains(&true)
    }

    /// Notes that one end will dial. False when a dial is already scheduled.
    pub(crate) fn plan_dial(&mut self, me: usize, peer: usize) -> bool {
        let pair = self.pair(me, peer);
        !std::mem::replace(&mut self.pairs[pair].planned[usize::from(me > peer)], true)
    }

    /// The scheduled dial of one end happens now.
    pub(crate) fn dial_done(&mut self, me: usize, peer: usize) {
        let pair = self.pair(me, peer);
        self.pairs[pair].planned[usize::from(me > peer)] = false;
    }

    /// A handshake begins. Returns the epoch of its link.
    pub(crate) fn dial(&mut self, a: usize, b: usize) -> u32 {
        let at = self.pair(a, b);
        let pair = &mut self.pairs[at];
        pair.state = State::Dialling;
        pair.epoch += 1;
        pair.epoch
    }

    /// Whether this handshake is still in progress.
    pub(crate) fn is_dialling(&self, a: usize, b: usize, epoch: u32) -> bool {
        let pair = &self.pairs[self.pair(a, b)];
        pair.state == State::Dialling && pair.epoch == epoch
    }

    /// The handshake succeeded.
    pub(crate) fn come_up(&mut self, a: usize, b: usize, now: u64) {
        let at = self.pair(a, b);
        self.pairs[at].state = State::Up;
        for direction in [a * self.nodes + b, b * self.nodes + a] {
            let direction = &mut self.directions[direction];
            (direction.last, direction.free_at, direction.broken) = ([now; 2], [0; 2], [false; 2]);
        }
    }

    /// The link is gone, or its handshake failed.
    pub(crate) fn go_down(&mut self, a: usize, b: usize) {
        let at = self.pair(a, b);
        let pair = &mut self.pairs[at];
        pair.state = State::Down;
        pair.epoch += 1;
    }

    /// The process of a node ended and wants no links any more.
    pub(crate) fn forget_wishes(&mut self, node: usize) {
        for peer in (0..self.nodes).filter(|peer| *peer != node) {
            self.want(node, peer, false);
            self.dial_done(node, peer);
        }
    }

    /// The epoch of the link, if it is up.
    pub(crate) fn epoch(&self, a: usize, b: usize) -> Option<u32> {
        let pair = &self.pairs[self.pair(a, b)];
        (pair.state == State::Up).then_some(pair.epoch)
    }

    /// Whether there is neither a link nor a handshake.
    pub(crate) fn is_down(&self, a: usize, b: usize) -> bool {
        self.pairs[self.pair(a, b)].state == State::Down
    }

    /// A random number for a pair that belongs to no message.
    pub(crate) fn jitter(&mut self, a: usize, b: usize, bound: u64) -> u64 {
        let direction = &mut self.directions[a * self.nodes + b];
        direction.sent += 1;
        self.draws.below(stream("net.jitter", 0) ^ direction.stream, direction.sent, bound)
    }
}

impl Direction {
    /// When a connection of limited capacity has sent the message; `None` when its queue is full.
    fn enqueue(&mut self, plane: Plane, now: u64, bytes: u64, fired: &mut Tally) -> Option<u64> {
        let rate = self.conditions.bytes_per_s;
        if rate == 0 {
            return Some(now);
        }
        let free_at = &mut self.free_at[plane as usize];
        let begins = now.max(*free_at);
        let waiting = u128::from(begins - now) * u128::from(rate) / 1_000_000_000;
        if begins > now {
            fired.count(Kind::Capacity);
            if waiting as u64 + bytes > QUEUE_BYTES {
                return None;
            }
        }
        *free_at = begins + bytes * 1_000_000_000 / rate;
        // Messages that still wait when the fault ends are sent at once.
        Some((*free_at).min(self.conditions.narrow_until.max(now)))
    }

    /// When a message really arrives, given when it would: later when it is delayed, and after all earlier ones unless
    /// it was overtaken.
    fn arrive(&mut self, draws: Draws, plane: Plane, mut at: u64, fired: &mut Tally) -> u64 {
        let (id, k) = (self.stream, self.sent);
        let conditions = &self.conditions;
        if conditions.clogged_until > at {
            fired.count(Kind::Clog);
            at = conditions.clogged_until;
        }
        let (clogs, opens) = conditions.swizzled;
        if clogs <= at && at < opens {
            fired.count(Kind::Swizzle);
            at = opens;
        }
        if draws.chance(DELAY ^ id, k, conditions.delay_ppm) {
            fired.count(Kind::Delay);
            at += draws.below(LATE ^ id, k, conditions.delay_ns);
        }
        let last = &mut self.last[plane as usize];
        if draws.chance(REORDER ^ id, k, conditions.reorder_ppm) {
            // This message does not hold back later ones.
            fired.count(Kind::Reorder);
            at.max(*last) + draws.below(OVERTAKEN ^ id, k, conditions.reorder_ns)
        } else {
            *last = at.max(*last + 1);
            *last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(3, Draws::new(1), (100, 900))
    }

    fn fault(kind: Kind) -> Fault {
        Fault { kind, at_ms: 0, for_ms: 1000, nodes: vec![0], rate_ppm: 500_000, amount: 10 }
    }

    #[test]
    fn a_calm_link_keeps_order() {
        let mut network = network();
        let mut fired = Tally::default();
        let mut last = 0;
        for now in 0..500 {
            let arrivals = network.transmit((0, 1), Plane::Control, now * 1000, 0, &mut fired);
            let at = arrivals.first.expect("nothing is lost");
            assert!(at > last && arrivals.second.is_none());
            last = at;
        }
        assert_eq!(fired, Tally::default());
    }

    #[test]
    fn a_one_way_cut_cuts_one_way() {
        let mut network = network();
        let mut fired = Tally::default();
        network.set_conditions(&[fault(Kind::OneWay)].iter());
        assert_eq!(network.transmit((0, 1), Plane::Bulk, 0, 0, &mut fired), Arrivals::default());
        assert!(network.transmit((1, 0), Plane::Bulk, 0, 0, &mut fired).first.is_some());
        assert!(network.transmit((1, 2), Plane::Bulk, 0, 0, &mut fired).first.is_some());
        assert!(!network.is_open(0, 1) && network.is_open(1, 2));
        assert_eq!(fired.of(Kind::OneWay), 1);
    }

    #[test]
    fn a_severed_direction_stays_severed_whatever_the_conditions() {
        let mut network = network();
        let mut fired = Tally::default();
        network.sever(0, 1);
        network.set_conditions(&[].iter());
        assert_eq!(network.transmit((0, 1), Plane::Bulk, 0, 0, &mut fired), Arrivals::default());
        assert!(network.transmit((1, 0), Plane::Bulk, 0, 0, &mut fired).first.is_some());
        assert!(!network.is_open(1, 0) && network.is_open(0, 2));
        assert_eq!(fired, Tally::default());
    }

    #[test]
    fn rates_take_effect_and_are_counted() {
        let mut network = network();
        let mut fired = Tally::default();
        let faults = [fault(Kind::Drop), fault(Kind::Duplicate), fault(Kind::Reorder)];
        network.set_conditions(&faults.iter());
        let mut arrived = Vec::new();
        for now in 0..400 {
            let arrivals = network.transmit((0, 1), Plane::Control, now * 100_000, 0, &mut fired);
            arrived.extend(arrivals.first);
        }
        assert!((120..280).contains(&arrived.len()));
        assert!(!arrived.is_sorted(), "nothing was overtaken");
        assert!(fired.of(Kind::Drop) > 100 && fired.of(Kind::Duplicate) > 50);
    }

    #[test]
    fn an_old_handshake_is_told_from_the_present_one() {
        let mut network = network();
        assert!(network.want(2, 0, true));
        let first = network.dial(2, 0);
        assert!(network.is_dialling(0, 2, first));
        network.go_down(0, 2);
        let second = network.dial(0, 2);
        assert!(!network.is_dialling(0, 2, first) && network.is_dialling(0, 2, second));
        network.come_up(0, 2, 5);
        assert_eq!(network.epoch(2, 0), Some(second));
    }

    #[test]
    fn a_swizzled_link_holds_messages_only_during_its_time() {
        let mut network = network();
        let mut fired = Tally::default();
        network.set_conditions(&[fault(Kind::Swizzle)].iter());
        let (clogs, opens) = network.directions[1].conditions.swizzled;
        assert!(opens > clogs, "a link of the first node");
        assert_eq!(network.directions[5].conditions.swizzled, (0, 0), "a link of others");
        let at = |network: &mut Network, now, fired: &mut Tally| {
            network.transmit((0, 1), Plane::Control, now, 0, fired).first
        };
        assert!(at(&mut network, clogs, &mut fired) >= Some(opens));
        assert!(at(&mut network, opens + MS, &mut fired) < Some(opens + 3 * MS));
        assert_eq!(fired.of(Kind::Swizzle), 1);
    }

    #[test]
    fn a_narrow_link_has_a_bounded_queue() {
        let mut network = network();
        let mut fired = Tally::default();
        assert!(!network.is_narrow(0, 1));
        let narrow = Fault { amount: 10_000, for_ms: 60_000, ..fault(Kind::Capacity) };
        network.set_conditions(&[narrow].iter());
        assert!(network.is_narrow(0, 1) && network.is_narrow(2, 0) && !network.is_narrow(1, 2));
        let mut send = |plane, now| network.transmit((0, 1), plane, now, 5_000, &mut fired).first;
        let times: Vec<_> = (0..40).map(|_| send(Plane::Control, 0)).collect();
        assert!(times[1].is_some_and(|at| at >= 1_000 * MS), "two halves of a second");
        assert!(times[0].is_some() && times[20].is_some() && times[39].is_none());
        assert!(
            send(Plane::Bulk, 0).is_some_and(|at| at < 600 * MS),
            "planes do not share a queue"
        );
        assert!(send(Plane::Control, 30_000 * MS).is_some_and(|at| at < 30_600 * MS));
        assert!(fired.of(Kind::Capacity) >= 39);
        network.set_conditions(&[].iter());
        let at = network.transmit((0, 1), Plane::Control, 31_000 * MS, 5_000, &mut fired).first;
        assert!(at.is_some_and(|at| at < 31_001 * MS), "the fault is over");
    }

    #[test]
    fn messages_queued_for_a_narrow_link_arrive_when_the_fault_ends() {
        let mut network = network();
        let mut fired = Tally::default();
        network.set_conditions(&[Fault { amount: 10, ..fault(Kind::Capacity) }].iter());
        let at = network.transmit((0, 1), Plane::Bulk, 0, 5_000, &mut fired).first;
        assert!(at.is_some_and(|at| (1_000 * MS..1_001 * MS).contains(&at)), "{at:?}");
    }

    #[test]
    fn a_connection_that_breaks_within_a_message_loses_later_ones() {
        let mut network = network();
        let mut fired = Tally::default();
        network.come_up(0, 1, 0);
        network.set_conditions(&[fault(Kind::ResetMidFrame)].iter());
        let mut now = 0;
        // Repeats until a connection breaks on its plane alone.
        while !network.directions[1].broken[Plane::Control as usize] {
            now += MS;
            let last = network.directions[1].last[Plane::Control as usize];
            let sent = network.transmit((0, 1), Plane::Control, now, 0, &mut fired);
            assert_eq!(sent.first.is_none(), sent.breaks.is_some());
            assert!(sent.breaks.or(sent.first) > Some(last), "earlier messages arrive earlier");
        }
        network.set_conditions(&[].iter());
        let mut send = |plane| network.transmit((0, 1), plane, now, 0, &mut fired).first;
        assert!(send(Plane::Control).is_none() && send(Plane::Bulk).is_some());
        network.come_up(0, 1, now);
        assert!(network.transmit((0, 1), Plane::Control, now, 0, &mut fired).first.is_some());
        assert!(fired.of(Kind::ResetMidFrame) > 0);
    }
}
