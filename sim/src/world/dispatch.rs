//! Handles the events of the world: links, syncs, requests, faults, starts and crashes. A node's own tick is in
//! `world`.

use continuum_core::api::{Outcome, Request};
use continuum_core::discovery::Source;
use continuum_core::id::{Address, Boot, Contact, NodeId, Replica};
use continuum_core::node::{Event, Message, Node, Refusal};

use crate::env::clock::MS;
use crate::env::disk::Fate;
use crate::env::network::{KEEPALIVE_NS, REDIAL_NS};
use crate::env::requester::{Attempt, Requester};
use crate::oracle::{one_process_per_identity, recovery};
use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::scene::Lane;
use crate::verdict::{Broken, Verdict};
use crate::workload::history::Responder;

use crate::env::process::{Process, address_of, number_at};
use crate::trace::fold;
use crate::world::{World, WorldEvent};

/// An idle log is sealed after this time.
const SEAL_NS: u64 = 20 * MS;
const OLD_PROCESS: u64 = stream("net.replay.handshake", 0);
/// The protocol version that both ends of each link speak.
pub(super) const PROTOCOL: u16 = 1;

/// Tags of events in the trace.
pub(super) mod tag {
    pub(in crate::world) const RECEIVED: u8 = 1;
    pub(in crate::world) const CONNECTED: u8 = 2;
    pub(in crate::world) const UNREACHABLE: u8 = 3;
    pub(in crate::world) const PERSISTED: u8 = 4;
    pub(in crate::world) const REQUESTED: u8 = 5;
    pub(in crate::world) const INFORMED: u8 = 6;
}

impl World {
    /// Handles one event.
    pub(crate) fn dispatch(&mut self, event: WorldEvent) -> Verdict {
        match event {
            WorldEvent::Deliver { from, to, epoch, print, message } => {
                self.deliver(from, to, epoch, print, message)
            }
            WorldEvent::Dial { from, to, generation } => self.dial(from, to, generation),
            WorldEvent::LinkUp { from, to, epoch } => self.link_up(from, to, epoch),
            WorldEvent::LinkLost { node, peer, generation } => {
                self.link_lost(node, peer, generation)
            }
            WorldEvent::Break { from, to, epoch } => {
                if self.network.epoch(from, to) == Some(epoch) {
                    self.break_link(from, to, false);
                }
                Ok(())
            }
            WorldEvent::Keepalive { from, to, epoch } => self.keepalive(from, to, epoch),
            WorldEvent::Synced { node, generation } => self.synced(node, generation),
            WorldEvent::FilesSynced { node, generation } => self.files_synced(node, generation),
            WorldEvent::Seal { node, generation, syncs } => {
                self.seal(node, generation, syncs);
                Ok(())
            }
            WorldEvent::Inform { node, generation, event } => {
                self.deliver_event(node, generation, event)
            }
            WorldEvent::Request { node, requester, request } => self.ask(node, requester, request),
            WorldEvent::Reply { requester, by, outcome } => {
                self.reply(requester, by, outcome);
                Ok(())
            }
            WorldEvent::Lost { requester, tainted } => {
                self.lost(requester, tainted);
                Ok(())
            }
            WorldEvent::Timeout { attempt } => {
                self.time_out(attempt);
                Ok(())
            }
            WorldEvent::Wake { client } => {
                self.wake(client);
                Ok(())
            }
            WorldEvent::Begin { fault } => self.begin_fault(fault),
            WorldEvent::End { fault } => self.end_fault(fault),
            WorldEvent::Start { node } => self.start(node),
            WorldEvent::Loop { node, fault } => self.crash_again(node, fault),
            WorldEvent::RunQueued { node, generation } => self.run_queued(node, generation),
            WorldEvent::Exit { node, generation } => self.exit(node, generation),
            WorldEvent::Crash { .. }
            | WorldEvent::EndFounder { .. }
            | WorldEvent::Leave { .. }
            | WorldEvent::OldStoreNoticed { .. } => {
                self.end_process(&event);
                Ok(())
            }
            WorldEvent::Clone { fault, event } => self.on_clone(fault, event),
            WorldEvent::Operate => {
                self.operate();
                self.look_at_spans()
            }
            WorldEvent::Hostile { fault, k } => self.on_hostile(fault, k),
            WorldEvent::Churn { id } => {
                self.churn_asks(id);
                Ok(())
            }
        }
    }

    /// Hands an event to a process if it still runs.
    fn deliver_event(&mut self, node: usize, generation: u64, event: Event) -> Verdict {
        if self.processes[node].generation != generation {
            return Ok(());
        }
        self.step(node, event, tag::INFORMED, 0)
    }

    fn ask(&mut self, node: usize, requester: Requester, request: Request) -> Verdict {
        if !self.processes[node].is_up() {
            self.schedule_in(MS, WorldEvent::Lost { requester, tainted: false });
            return Ok(());
        }
        if let (Some(scene), Requester::Client(_)) = (&mut self.scene, requester) {
            scene.arrives(self.now, Lane::Clients, node);
        }
        let id = self.processes[node].take_request(requester);
        self.step(node, Event::Requested { id, request }, tag::REQUESTED, id.0)
    }

    /// A process ends, if it is still the one that was meant.
    fn end_process(&mut self, event: &WorldEvent) {
        match *event {
            WorldEvent::Crash { node, generation } => {
                let process = &self.processes[node];
                if process.generation == generation && process.crashes_in_sync {
                    self.crash(node, Kind::Crash);
                }
            }
            WorldEvent::Leave { node, generation, since } => self.leave(node, generation, since),
            WorldEvent::OldStoreNoticed { node, losses } => self.notice_old_store(node, losses),
            WorldEvent::EndFounder { node, generation }
                if self.processes[node].generation == generation =>
            {
                self.crash(node, Kind::RivalFounding);
            }
            _ => {}
        }
    }

    fn deliver(
        &mut self,
        from: usize,
        to: usize,
        epoch: u32,
        print: u64,
        message: Message,
    ) -> Verdict {
        if epoch != 0 && self.network.epoch(from, to) != Some(epoch) {
            return Ok(());
        }
        if let Some(scene) = self.scene.as_mut().filter(|_| self.processes[to].is_up()) {
            scene.arrives(self.now, Lane::Node(from), to);
        }
        if self.processes[to].step_queue.is_open() {
            self.live_clones.hears(to, from, self.now);
        }
        let from_id = self.oracles.roster.replica(from).node;
        self.step(to, Event::Received { from: from_id, message }, tag::RECEIVED, print)
    }

    /// A node wants a link to a peer at this address; with `None` it wants no link.
    pub(crate) fn route(&mut self, me: usize, peer: NodeId, address: Option<&Address>) -> Verdict {
        let Some(peer) = self.oracles.roster.number(peer).filter(|peer| *peer != me) else {
            return Ok(());
        };
        let wanted = address.is_some_and(|address| number_at(address) == Some(peer));
        self.network.want(me, peer, wanted);
        if wanted {
            self.redial(me, peer, 0);
        } else if !self.network.is_wanted(me, peer) {
            self.break_link(me, peer, false);
        }
        Ok(())
    }

    /// Schedules the next dial, unless one is scheduled.
    fn redial(&mut self, me: usize, peer: usize, after: u64) {
        if self.network.is_missing(me, peer) && self.network.plan_dial(me, peer) {
            let generation = self.processes[me].generation;
            let jitter = self.network.jitter(me, peer, REDIAL_NS / 2);
            let after = if after == 0 { jitter / 100 } else { after + jitter };
            self.schedule_in(after, WorldEvent::Dial { from: me, to: peer, generation });
        }
    }

    fn dial(&mut self, me: usize, peer: usize, generation: u64) -> Verdict {
        if self.processes[me].generation != generation || !self.processes[me].is_up() {
            return Ok(());
        }
        self.network.dial_done(me, peer);
        if !self.network.is_missing(me, peer) {
            return Ok(());
        }
        if !self.accepts_handshake(me) {
            self.redial(me, peer, MS);
            return Ok(());
        }
        if self.accepts_handshake(peer) && self.network.is_open(me, peer) {
            let epoch = self.network.dial(me, peer);
            let latency = 3 * self.network.latency(me, peer);
            self.schedule_in(latency, WorldEvent::LinkUp { from: me, to: peer, epoch });
            return Ok(());
        }
        self.redial(me, peer, REDIAL_NS);
        let peer_id = self.oracles.roster.replica(peer).node;
        self.step(me, Event::Unreachable { peer: peer_id }, tag::UNREACHABLE, peer as u64)
    }

    fn link_up(&mut self, from: usize, to: usize, epoch: u32) -> Verdict {
        if !self.network.is_dialling(from, to, epoch) {
            return Ok(());
        }
        let up = self.accepts_handshake(from) && self.accepts_handshake(to);
        if !up || !self.network.is_open(from, to) {
            self.network.go_down(from, to);
            self.redial(from, to, REDIAL_NS);
            self.redial(to, from, REDIAL_NS);
            return Ok(());
        }
        // As in a driver, the link is up before a step that accepts the process speaks to it. A step that refuses the
        // process speaks to the one before: to the original of a live clone (`clones`), else to nobody.
        self.network.come_up(from, to, self.now);
        self.connected(to, from)?;
        self.connected(from, to)?;
        self.connect_old_process(to, from)?;
        self.connect_old_process(from, to)
    }

    /// An earlier process of the peer, already replaced by the present one, completes a handshake this late. Replies to
    /// it reach nobody.
    fn connect_old_process(&mut self, me: usize, peer: usize) -> Verdict {
        let (way, k) = self.network.position(peer, me);
        let rate = self.network.replays(peer, me).map_or(0, |(ppm, _)| ppm);
        let Process { replica, last_boot, .. } = self.processes[peer];
        let lineage = self.processes[peer].last_lineage.clone();
        // If the present process was not let in just now, its earlier one would be let in instead.
        let let_in = self.network.epoch(me, peer).is_some();
        if last_boot.count == 0 || !let_in || !self.draws.chance(OLD_PROCESS ^ way, k, rate) {
            return Ok(());
        }
        self.fired.count(Kind::Replay);
        let Replica { node, store } = replica;
        let event =
            Event::Connected { peer: node, store, boot: last_boot, lineage, version: PROTOCOL };
        self.step(me, event, tag::CONNECTED, fold(peer as u64, last_boot.count))
    }

    fn connected(&mut self, me: usize, peer: usize) -> Verdict {
        let other = &self.processes[peer];
        let event = Event::Connected {
            peer: other.replica.node,
            store: other.replica.store,
            boot: other.boot,
            lineage: other.lineage(),
            version: PROTOCOL,
        };
        let print = fold(peer as u64, other.boot.count);
        self.step(me, event, tag::CONNECTED, print)?;
        self.check_rolled_back(me, peer)
    }

    /// No peer links a voter whose disk was rolled back, at whichever start.
    fn check_rolled_back(&self, me: usize, peer: usize) -> Verdict {
        let Process { replica, boot, .. } = &self.processes[peer];
        if self.runs_untrusted(peer) && self.oracles.let_in(me, replica.node) == Some(*boot) {
            let what =
                format!("node {me} links {boot:?} of node {peer}, whose disk was rolled back");
            return Err(Broken::new(one_process_per_identity::NAME, what));
        }
        Ok(())
    }

    /// Cuts the link of two nodes. Each end notices later; how much later depends on whether the other end could still
    /// close the connection.
    pub(crate) fn break_link(&mut self, a: usize, b: usize, silently: bool) {
        if self.network.is_down(a, b) {
            return;
        }
        self.network.go_down(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            if !self.processes[node].is_up() {
                continue;
            }
            let generation = self.processes[node].generation;
            let latency = self.network.latency(peer, node);
            let after = if silently { KEEPALIVE_NS / 2 + latency } else { latency };
            self.schedule_in(after, WorldEvent::LinkLost { node, peer, generation });
        }
    }

    fn link_lost(&mut self, me: usize, peer: usize, generation: u64) -> Verdict {
        // A link that was established again meanwhile is not lost.
        if self.processes[me].generation != generation || !self.network.is_down(me, peer) {
            return Ok(());
        }
        self.redial(me, peer, REDIAL_NS);
        let peer_id = self.oracles.roster.replica(peer).node;
        self.step(me, Event::Unreachable { peer: peer_id }, tag::UNREACHABLE, peer as u64)
    }

    /// Whether a node takes part in handshakes: its process is up and not stopped, and its boot, which a handshake
    /// names, is durable.
    pub(crate) fn accepts_handshake(&self, node: usize) -> bool {
        let process = &self.processes[node];
        !process.step_queue.stopped && process.node.as_ref().is_some_and(Node::is_booted)
    }

    fn keepalive(&mut self, a: usize, b: usize, epoch: u32) -> Verdict {
        let open =
            self.network.is_open(a, b) && self.accepts_handshake(a) && self.accepts_handshake(b);
        if self.network.epoch(a, b) == Some(epoch) && !open {
            self.break_link(a, b, false);
        }
        Ok(())
    }

    /// A node closes its link to a process and says why. If that process is gone, nothing happens.
    pub(crate) fn refuse(
        &mut self,
        me: usize,
        (peer, boot): (NodeId, Boot),
        (refusal, known): (Refusal, Boot),
    ) -> Verdict {
        if self.refuses_clone(me, (peer, boot), (refusal, known)) {
            return Ok(());
        }
        let is_process = |n: &usize| *n != me && self.processes[*n].boot == boot;
        let Some(peer) = self.oracles.roster.number(peer).filter(is_process) else {
            return Ok(());
        };
        if self.network.epoch(me, peer).is_some() && self.network.is_open(me, peer) {
            let latency = self.network.latency(me, peer);
            let message = Message::Refused { refusal, known };
            let refusal = WorldEvent::Deliver { from: me, to: peer, epoch: 0, print: 0, message };
            self.schedule_in(latency, refusal);
        }
        self.break_link(me, peer, false);
        Ok(())
    }

    /// A discovery source answers with addresses.
    pub(crate) fn resolve(&mut self, me: usize, source: Source) {
        let all = 0..self.processes.len();
        let peers = match source {
            Source::Bootstrap => {
                let others = all.filter(|number| *number != me);
                let true_ones = others.map(|n| Contact { node: None, address: address_of(n) });
                self.mislead(me, true_ones.collect())
            }
            Source::Peers => Vec::new(),
        };
        let latency = self.network.latency(me, me);
        let generation = self.processes[me].generation;
        let event = Event::Resolved { source, peers };
        self.schedule_in(latency, WorldEvent::Inform { node: me, generation, event });
    }

    fn synced(&mut self, node: usize, generation: u64) -> Verdict {
        if self.processes[node].generation != generation {
            return Ok(());
        }
        if let Some(until) = self.hangs_until(node) {
            self.fired.count(Kind::Hang);
            self.schedule_at(until + 1, WorldEvent::Synced { node, generation });
            return Ok(());
        }
        if self.fails_sync(node) {
            return self.fail_sync(node);
        }
        let lies = self.is_active(Kind::FsyncLies, node) && self.may_break(node);
        let token = self.processes[node].disk.finish(lies);
        if let Some(scene) = self.scene.as_mut().filter(|_| token.is_some()) {
            scene.synced(self.now, node);
        }
        if !self.sync(node) && token.is_some() {
            let syncs = self.processes[node].syncs;
            self.schedule_in(SEAL_NS, WorldEvent::Seal { node, generation, syncs });
        }
        match token {
            Some(token) => self.step(node, Event::Persisted { token }, tag::PERSISTED, token.seq),
            None => Ok(()),
        }
    }

    /// Whether the sync in flight fails: the first one in the window of a fault.
    pub(super) fn fails_sync(&mut self, node: usize) -> bool {
        if self.processes[node].disk.is_lying() {
            return false;
        }
        let faults = self.plan.faults.iter().zip(&self.active).enumerate();
        let mut lasting = faults.filter(|(number, (fault, active))| {
            let strikes = **active && fault.kind == Kind::FsyncError && fault.strikes(node);
            strikes && !self.failed.contains(&(*number, node))
        });
        let Some(fault) = lasting.next().map(|(number, _)| number) else { return false };
        self.failed.insert((fault, node));
        true
    }

    /// A sync fails. Its bytes may be on the disk or not, and the process promises nothing of them.
    pub(super) fn fail_sync(&mut self, node: usize) -> Verdict {
        self.fired.count(Kind::FsyncError);
        let generation = self.processes[node].generation;
        let fates = [Fate::Kept, Fate::Torn, Fate::Gone];
        let fate =
            fates[self.draws.below(stream("disk.error", node as u64), generation, 3) as usize];
        let token = self.processes[node].disk.fail(fate);
        self.step(node, Event::StorageFailed { token }, tag::INFORMED, token.seq)
    }

    /// The driver tells its node something.
    pub(crate) fn inform(&mut self, node: usize, event: Event) -> Verdict {
        self.step(node, event, tag::INFORMED, 0)
    }

    fn seal(&mut self, node: usize, generation: u64, syncs: u64) {
        let sync_ns = self.sync_ns(node);
        let process = &mut self.processes[node];
        // Only the process that wrote a log seals it.
        if !process.is_up() || process.generation != generation || process.syncs != syncs {
            return;
        }
        if let Some(done_at) = process.disk.seal(self.now, sync_ns) {
            process.syncs += 1;
            self.schedule_at(done_at, WorldEvent::Synced { node, generation });
        }
    }

    fn reply(&mut self, requester: Requester, by: Responder, outcome: Outcome) {
        match requester {
            Requester::Client(attempt) => self.run_client_actions(|world, actions| {
                world.clients.on_reply(attempt, world.now, by, outcome, actions);
            }),
            Requester::Operator => {
                self.operator.has_begun = self.oracles.geneses.main().is_some();
                self.operator.on_reply(&outcome);
            }
            Requester::Rival => {}
            Requester::Probe => self.operator.probed(by.node, &outcome),
            Requester::Churn(request) => self.on_churn_reply(request, Some(&outcome)),
            Requester::Hostile => {}
        }
    }

    fn lost(&mut self, requester: Requester, tainted: bool) {
        match requester {
            Requester::Client(attempt) => self.run_client_actions(|world, actions| {
                world.clients.on_lost(attempt, world.now, tainted, actions);
            }),
            Requester::Operator => self.operator.on_lost(),
            Requester::Rival | Requester::Probe | Requester::Hostile => {}
            Requester::Churn(request) => self.on_churn_reply(request, None),
        }
    }

    fn time_out(&mut self, attempt: Attempt) {
        self.run_client_actions(|world, actions| {
            if world.clients.on_timeout(attempt, world.now, actions) {
                world.fired.count(Kind::ClientRetry);
            }
        });
    }

    fn wake(&mut self, client: usize) {
        if !self.operator.admits_clients() {
            return;
        }
        if let Some(after_ns) = self.mode.quiet_ns(self.now) {
            self.schedule_in(after_ns, WorldEvent::Wake { client });
            return;
        }
        self.run_client_actions(|world, actions| {
            let (now, mode) = (world.now, world.mode);
            let injected = world.clients.wake(client, now, mode, actions);
            if injected.duplicated {
                world.fired.count(Kind::ClientDuplicate);
            }
            if injected.abandoned {
                world.fired.count(Kind::ClientAbandon);
            }
            if injected.reused {
                world.fired.count(Kind::ReusedKey);
            }
        });
    }

    /// Starts a process, unless it is up or kept down.
    pub(crate) fn start(&mut self, node: usize) -> Verdict {
        let survival = &self.survival[node];
        let off = [Kind::Crash, Kind::Blackout, Kind::FounderCrash, Kind::VoterAway];
        let is_off = off.into_iter().any(|kind| self.is_active(kind, node));
        let is_down = self.processes[node].generation > 0 && is_off;
        if self.processes[node].is_up() || survival.is_dead || is_down {
            return Ok(());
        }
        if self.is_old_unknown(node) {
            self.replace_void_store(node);
            return Ok(());
        }
        let mut lasting = self.plan.faults.iter().zip(&self.active);
        let probes = lasting.any(|(fault, active)| *active && fault.kind == Kind::Rot);
        let started = self.processes[node].start(self.now, probes);
        if !started.map_err(|what| Broken::new(recovery::NAME, what))? {
            self.refuse_store(node);
            return Ok(());
        }
        self.survival[node].started_at = self.now;
        // Recovery finds out which records a lying drive has lost.
        self.stop_untrusted_voters(node);
        let restarted = self.processes[node].generation > 1;
        if let Some(scene) = &mut self.scene {
            scene.starts(self.now, node, restarted);
        }
        if restarted {
            self.oracles.restarted(&self.processes[node], node)?;
        } else {
            self.count_added(node);
        }
        if self.is_active(Kind::Full, node) { self.fill(node, true) } else { Ok(()) }
    }

    /// Crashes a process by a fault of this kind. The active disk faults decide what its disk keeps.
    pub(crate) fn crash(&mut self, node: usize, kind: Kind) {
        if !self.processes[node].is_up() {
            return;
        }
        self.fired.count(kind);
        let kinds = [
            (Kind::TornWrite, Fate::Torn),
            (Kind::UnsyncedReorder, Fate::Reordered),
            (Kind::UnsyncedLoss, Fate::Lost),
        ];
        let lasting: Vec<_> =
            kinds.into_iter().filter(|(kind, _)| self.is_active(*kind, node)).collect();
        let generation = self.processes[node].generation;
        let name = stream("crash.fate", node as u64);
        let chosen = self.draws.below(name, generation, lasting.len() as u64) as usize;
        let Some((kind, fate)) = lasting.get(chosen).copied() else {
            self.end(node, Fate::Kept);
            return;
        };
        if self.end(node, fate) > 0 {
            self.fired.count(kind);
        }
    }

    /// Ends a process that is up. Returns the number of written sectors that are lost.
    pub(crate) fn end(&mut self, node: usize, fate: Fate) -> u64 {
        let runs_untrusted = self.runs_untrusted(node);
        let lost = self.processes[node].disk.crash(fate);
        if let Some(scene) = &mut self.scene {
            scene.crashes(self.now, node, lost);
        }
        for requester in std::mem::take(&mut self.processes[node].requests).into_values() {
            self.schedule_in(MS, WorldEvent::Lost { requester, tainted: true });
        }
        let generation = self.processes[node].generation;
        self.processes[node].stop();
        self.oracles.ended(node);
        let silently = self.draws.chance(stream("crash.silent", node as u64), generation, 300_000);
        for peer in (0..self.processes.len()).filter(|peer| *peer != node) {
            self.break_link(node, peer, silently);
        }
        self.network.forget_wishes(node);
        if runs_untrusted && !self.restarts_untrusted(node) {
            self.replace_void_store(node);
        } else if self.processes[node].disk.is_lying() {
            self.took_back(node);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn a_process_that_has_ended_seals_no_log() {
        let mut plan = Plan::from_seed(1);
        plan.faults.clear();
        let mut world = World::new(plan);
        world.start(0).expect("an empty disk is no violation");
        world.step(0, Event::Tick, 0, 0).expect("no violation");
        let generation = world.processes[0].generation;
        world.synced(0, generation).expect("no violation");
        while !world.processes[0].disk.is_idle() {
            world.synced(0, generation).expect("no violation");
        }
        let syncs = world.processes[0].syncs;
        world.crash(0, Kind::Crash);
        world.seal(0, generation, syncs);
        assert!(world.processes[0].disk.is_idle(), "the next process would wait for it forever");
    }

    #[test]
    fn a_handshake_waits_until_both_boots_are_durable() {
        let mut plan = Plan::from_seed(1);
        plan.faults.clear();
        let mut world = World::new(plan);
        world.start(0).expect("an empty disk is no violation");
        world.start(1).expect("an empty disk is no violation");
        assert!(!world.accepts_handshake(0) && !world.accepts_handshake(1));
        for node in [0, 1] {
            world.step(node, Event::Tick, 0, 0).expect("no violation");
        }
        let generation = world.processes[0].generation;
        world.network.want(0, 1, true);
        world.dial(0, 1, generation).expect("no violation");
        assert!(world.network.is_missing(0, 1), "its own boot is not durable");
        world.synced(0, generation).expect("no violation");
        assert!(world.accepts_handshake(0));
        world.dial(0, 1, generation).expect("no violation");
        assert!(world.network.is_missing(0, 1), "the other's boot is not durable");
        world.synced(1, generation).expect("no violation");
        world.dial(0, 1, generation).expect("no violation");
        assert!(!world.network.is_missing(0, 1));
    }
}
