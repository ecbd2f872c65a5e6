//! How faults begin and end: the conditions that follow from the active faults, and the faults that act once.
//!
//! This module decides which faults are active, which nodes they strike, and what their beginning and end do. The
//! module that owns a message, a write or a process decides what a fault does to it.

use continuum_core::id::{GroupId, Role};

use crate::env::clock::MS;
use crate::env::network::KEEPALIVE_NS;
use crate::plan::fault::Kind;
use crate::rng::stream;
use crate::verdict::Verdict;

use crate::world::{World, WorldEvent};

/// How long a process in a crash loop stays down each time.
const DOWN_NS: (u64, u64) = (MS, 200 * MS);

impl World {
    /// A fault begins.
    pub(crate) fn begin_fault(&mut self, fault: usize) -> Verdict {
        self.active[fault] = true;
        self.target_leader(fault);
        self.refresh();
        if let Some(scene) = &mut self.scene {
            scene.fault_begins(self.now, fault, &self.plan.faults[fault]);
        }
        let (number, fault) = (fault, self.plan.faults[fault].clone());
        let mut struck = (0..self.processes.len()).filter(|node| fault.strikes(*node));
        match fault.kind {
            Kind::RivalFounding => self.found_beside(&fault),
            Kind::Crash | Kind::FounderCrash if fault.amount % 2 == 1 => {
                struck.for_each(|node| self.processes[node].crashes_in_sync = true);
            }
            Kind::Crash | Kind::Blackout | Kind::FounderCrash | Kind::VoterAway => {
                struck.for_each(|node| self.crash(node, fault.kind));
            }
            Kind::CrashLoop => {
                struck
                    .for_each(|node| self.schedule_in(0, WorldEvent::Loop { node, fault: number }));
            }
            Kind::Pause => struck.for_each(|node| self.pause(node)),
            Kind::Reset => {
                for node in struck {
                    for peer in (0..self.processes.len()).filter(|peer| *peer != node) {
                        if self.network.epoch(node, peer).is_some() {
                            self.fired.count(Kind::Reset);
                        }
                        self.break_link(node, peer, false);
                    }
                }
            }
            Kind::Partition | Kind::OneWay | Kind::Bridge | Kind::Isolate | Kind::Deposed => {
                self.watch_cuts();
            }
            Kind::Freeze => struck.for_each(|_| self.fired.count(Kind::Freeze)),
            Kind::JumpAhead | Kind::JumpBack => {
                let ahead = fault.kind == Kind::JumpAhead;
                let by = if ahead { fault.amount } else { -fault.amount };
                for node in struck {
                    self.processes[node].clock.jump(by);
                    self.fired.count(fault.kind);
                }
            }
            Kind::Rot | Kind::Latent | Kind::Misdirect => {
                struck.for_each(|node| self.damage(node, fault.kind, fault.amount));
            }
            Kind::Wipe => struck.for_each(|node| self.wipe(node)),
            Kind::Rollback => struck.for_each(|node| self.keep_backup(number, node)),
            Kind::LiveClone => struck.for_each(|node| self.start_clone(number, node)),
            Kind::Full => struck.try_for_each(|node| self.fill(node, true))?,
            Kind::Handover => struck.try_for_each(|node| self.ask_to_stop(node))?,
            Kind::Churn | Kind::Bulk => self.add_churn_client(number),
            Kind::HostileLearner | Kind::HostileStranger => {
                self.schedule_in(0, WorldEvent::Hostile { fault: number, k: 0 });
            }
            _ => {}
        }
        Ok(())
    }

    /// Some faults strike the present leader.
    fn target_leader(&mut self, fault: usize) {
        let others = match (self.plan.faults[fault].kind, self.plan.faults[fault].amount) {
            (Kind::Crash, 2..) | (Kind::Pause | Kind::Isolate | Kind::Handover, 1..) => 0,
            (Kind::CrashLoop | Kind::Slow | Kind::Hang, amount) if amount % 2 == 1 => 0,
            (Kind::Deposed, _) => return self.target_deposed(fault),
            (Kind::Partition | Kind::OneWay, amount @ 1..) => amount as usize - 1,
            _ => return,
        };
        let Some(leader) = self.leader() else { return };
        let nodes = self.processes.len();
        let chosen = (0..=others).map(|step| (leader + step) % nodes).collect();
        self.plan.faults[fault].nodes = chosen;
    }

    /// The present leader comes first, if it is a voter, and the other voters follow.
    fn target_deposed(&mut self, fault: usize) {
        let voters = self.plan.cluster.voters;
        let Some(leader) = self.leader().filter(|leader| *leader < voters) else { return };
        let others = (0..voters).filter(|voter| *voter != leader);
        self.plan.faults[fault].nodes = std::iter::once(leader).chain(others).collect();
    }

    /// The leader of the newest group that has one.
    fn leader(&self) -> Option<usize> {
        let led = self.processes.iter().enumerate().filter_map(|(number, process)| {
            let node = process.node.as_ref()?;
            let leads =
                |group: &GroupId| node.raft(*group).is_some_and(|raft| raft.role() == Role::Leader);
            Some((node.groups().filter(leads).max()?, number))
        });
        led.max().map(|(_, number)| number)
    }

    /// Links that are cut now break when the cut lasts.
    pub(crate) fn watch_cuts(&mut self) {
        for a in 0..self.processes.len() {
            for b in a + 1..self.processes.len() {
                if let Some(epoch) =
                    self.network.epoch(a, b).filter(|_| !self.network.is_open(a, b))
                {
                    self.schedule_in(KEEPALIVE_NS, WorldEvent::Keepalive { from: a, to: b, epoch });
                }
            }
        }
    }

    /// A fault ends.
    pub(crate) fn end_fault(&mut self, fault: usize) -> Verdict {
        self.active[fault] = false;
        self.refresh();
        if let Some(scene) = &mut self.scene {
            scene.fault_ends(self.now, fault);
        }
        let (number, fault) = (fault, self.plan.faults[fault].clone());
        if matches!(fault.kind, Kind::HostileLearner | Kind::HostileStranger) {
            self.end_hostile(number)?;
        }
        for node in (0..self.processes.len()).filter(|node| fault.strikes(*node)) {
            match fault.kind {
                Kind::Crash | Kind::FounderCrash => {
                    self.processes[node].crashes_in_sync = false;
                    self.start_again(node)?;
                }
                Kind::Blackout if self.processes[node].generation > 0 => {
                    let name = stream("blackout.start", node as u64);
                    let most = fault.amount.unsigned_abs() * MS;
                    let after = self.draws.below(name, number as u64, most);
                    self.schedule_in(after, WorldEvent::Start { node });
                }
                Kind::CrashLoop | Kind::Wipe | Kind::Handover | Kind::VoterAway => {
                    self.start_again(node)?;
                }
                Kind::RivalFounding => self.start_again(node)?,
                Kind::Pause if !self.is_active(Kind::Pause, node) => {
                    self.processes[node].step_queue.stopped = false;
                    self.schedule_queued(node);
                }
                Kind::Rot | Kind::Latent | Kind::Misdirect | Kind::FsyncLies => {
                    self.processes[node].disk.misdirects_next = false;
                    self.power_cycle_damaged(node);
                }
                Kind::Rollback => self.roll_back(number, node),
                Kind::LiveClone => self.end_clone(number),
                Kind::Full if !self.is_active(Kind::Full, node) => self.fill(node, false)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts a process again, but never one that has not yet started for the first time.
    fn start_again(&mut self, node: usize) -> Verdict {
        if self.processes[node].generation > 0 { self.start(node) } else { Ok(()) }
    }

    /// A process in a crash loop crashes if it is up, and starts if it is down; then the opposite is scheduled.
    pub(crate) fn crash_again(&mut self, node: usize, fault: usize) -> Verdict {
        let generation = self.processes[node].generation;
        if !self.active[fault] || generation == 0 {
            return Ok(());
        }
        let name = stream("crash.loop", node as u64);
        let was_up = self.processes[node].is_up();
        if was_up {
            self.crash(node, Kind::CrashLoop);
        } else {
            self.start_again(node)?;
        }
        let after = if was_up || !self.processes[node].is_up() {
            self.draws.between(name, generation, DOWN_NS.0, DOWN_NS.1)
        } else {
            // Often shorter than its first sync takes, so that its boot is not durable.
            let early = self.draws.chance(name ^ 1, generation, 400_000);
            let most = if early {
                self.plan.cluster.sync_us_max * 1_000
            } else {
                self.plan.faults[fault].amount.max(1).unsigned_abs() * MS
            };
            self.draws.below(name ^ 2, generation, most)
        };
        self.schedule_in(after, WorldEvent::Loop { node, fault });
        Ok(())
    }

    /// Stops a process. Its peers give up links that have been silent for too long.
    fn pause(&mut self, node: usize) {
        if !self.processes[node].is_up() {
            return;
        }
        self.processes[node].step_queue.stopped = true;
        self.fired.count(Kind::Pause);
        for peer in (0..self.processes.len()).filter(|peer| *peer != node) {
            if let Some(epoch) = self.network.epoch(node, peer) {
                self.schedule_in(
                    KEEPALIVE_NS,
                    WorldEvent::Keepalive { from: node, to: peer, epoch },
                );
            }
        }
    }

    /// Damages a node's log, or lets its next batch go to a wrong offset.
    fn damage(&mut self, node: usize, kind: Kind, amount: i64) {
        if !self.may_break(node) {
            return;
        }
        let disk = &mut self.processes[node].disk;
        if kind == Kind::Misdirect {
            disk.misdirects_next = true;
        } else {
            disk.damage(kind, amount);
        }
    }

    /// Power-cycles a machine whose disk is damaged or lies.
    fn power_cycle_damaged(&mut self, node: usize) {
        let process = &self.processes[node];
        let is_damaged = !process.disk.damaged_by().is_empty() || process.disk.is_lying();
        if process.is_up() && is_damaged {
            self.end_silently(node);
            self.schedule_in(MS, WorldEvent::Start { node });
        }
    }

    /// Whether a fault of this kind strikes this node now.
    pub(crate) fn is_active(&self, kind: Kind, node: usize) -> bool {
        let faults = self.plan.faults.iter().zip(&self.active);
        faults
            .into_iter()
            .any(|(fault, active)| *active && fault.kind == kind && fault.strikes(node))
    }

    /// Derives the present conditions from the active faults.
    fn refresh(&mut self) {
        let faults = self.plan.faults.iter().zip(&self.active);
        let active = faults.filter(|(_, active)| **active).map(|(fault, _)| fault);
        self.network.set_conditions(&active);
        self.mode = crate::workload::client::ClientMode::default();
        for fault in active.clone() {
            match fault.kind {
                Kind::ClientDuplicate => self.mode.duplicate_ppm = fault.rate_ppm,
                Kind::ClientAbandon => self.mode.abandon_ppm = fault.rate_ppm,
                Kind::HostileClient => self.mode.hostile_ppm = fault.rate_ppm,
                Kind::ReusedKey => self.mode.reuse_ppm = fault.rate_ppm,
                Kind::ClientRetry => self.mode.retry_ms = fault.amount.max(1).unsigned_abs(),
                Kind::ClientBurst => {
                    self.mode.bursts = true;
                    let quiet_ms = fault.at_ms + fault.amount.unsigned_abs();
                    self.mode.quiet_until = self.mode.quiet_until.max(quiet_ms * MS);
                }
                _ => {}
            }
        }
        self.clients.retry_ms = self.mode.retry_ms;
        if !active.clone().any(|fault| fault.kind == Kind::Replay) {
            self.replays.clear();
        }
        for (node, process) in self.processes.iter_mut().enumerate() {
            let of = |kind| {
                let struck = active.clone().filter(|f| f.kind == kind && f.strikes(node));
                struck.map(|fault| fault.amount).max_by_key(|amount| amount.abs()).unwrap_or(0)
            };
            let (skew, drift) = (of(Kind::Skew), of(Kind::Drift));
            let deposed = active
                .clone()
                .filter(|f| f.kind == Kind::Deposed && f.nodes.first() == Some(&node))
                .map(|fault| -fault.amount);
            let drift = deposed.min().unwrap_or(drift);
            if skew != 0 {
                self.fired.count(Kind::Skew);
            }
            if drift != 0 {
                self.fired.count(Kind::Drift);
            }
            process.clock.set_skew(skew);
            process.clock.set_drift(self.now, drift);
            process.step_queue.slow_ns = of(Kind::Slow).unsigned_abs() * MS;
            let frozen = active.clone().filter(|f| f.kind == Kind::Freeze && f.strikes(node));
            process.clock.set_frozen(frozen.map(|fault| fault.at_ms * MS).min());
            process.update_deadline();
        }
        self.take_picture();
    }

    /// When a node's disk no longer hangs; `None` if it does not hang now.
    pub(crate) fn hangs_until(&self, node: usize) -> Option<u64> {
        let faults = self.plan.faults.iter().zip(&self.active);
        let hangs = faults
            .filter(|(fault, active)| **active && fault.kind == Kind::Hang && fault.strikes(node));
        hangs.map(|(fault, _)| (fault.at_ms + fault.for_ms) * MS).max()
    }

    /// The longest stall of a node's syncs.
    pub(crate) fn stall_ns(&mut self, node: usize) -> u64 {
        let faults = self.plan.faults.iter().zip(&self.active);
        let stalls = faults
            .filter(|(fault, active)| **active && fault.kind == Kind::Stall && fault.strikes(node));
        let most = stalls.map(|(fault, _)| fault.amount).max().unwrap_or(0);
        if most > 0 {
            self.fired.count(Kind::Stall);
        }
        most.unsigned_abs() * MS
    }
}
