//! Laws of the whole machine, in a world of many.

mod join;
mod world;

use alloc::vec::Vec;

use super::*;
use world::{World, id, member, replica};

const SECOND: u64 = 1000;

fn deaths(world: &World) -> usize {
    world.changes.iter().filter(|(_, _, member)| member.state == State::Dead).count()
}

#[test]
fn all_members_learn_of_each_other() {
    let mut world = World::new(12, 1, GossipConfig::default());
    assert!(world.run_until(20 * SECOND, |w| w.agree(State::Alive)));
    assert_eq!(deaths(&world), 0);
    // The registry did not know the address; it came with the member's own update.
    assert_eq!(world.view(3, 4).address, member(4, 1).address);
}

#[test]
fn ten_percent_loss_declares_nobody_dead() {
    for seed in 0..8 {
        let mut world = World::new(20, seed, GossipConfig::default());
        world.loss = 100;
        world.run(60 * SECOND);
        assert_eq!(deaths(&world), 0, "seed {seed}");
        let probes: u64 = world.counters().map(|c| c.probes).sum();
        assert!(probes > 1000, "only {probes} probes: the run shows nothing");
    }
}

#[test]
fn all_learn_of_a_crash_within_the_bound() {
    for seed in 0..6 {
        let n = 20;
        let mut world = World::new(n, seed, GossipConfig::default());
        world.run(20 * SECOND);
        world.crash(7);
        let known = |w: &World| w.agree(State::Dead);
        // The first probe, the longest suspicion (confirmations shorten it), and the broadcast.
        let bound = 2 * SECOND + 6 * 4 * 1302 + 5 * SECOND;
        assert!(world.run_until(bound, known), "seed {seed}");
        world.run(30 * SECOND);
        assert!(known(&world), "seed {seed}: the verdict does not stay");
        let wrong = world.changes.iter().filter(|(_, _, m)| m.state == State::Dead);
        assert!(wrong.clone().all(|(_, _, m)| m.replica.node == id(7)));
        assert_eq!(wrong.count(), n - 1, "each observer reports it once");
    }
}

#[test]
fn confirmations_make_detection_fast() {
    let mut slowest = 0;
    for seed in 0..6 {
        let mut world = World::new(50, seed, GossipConfig::default());
        world.run(20 * SECOND);
        let crashed = world.now;
        world.crash(7);
        assert!(world.run_until(60 * SECOND, |w| w.agree(State::Dead)), "seed {seed}");
        slowest = slowest.max(world.now.since(crashed).as_millis());
    }
    // The longest suspicion alone would be 41 s; with two confirmations it is 6.8 s.
    assert!(slowest < 16_000, "{slowest} ms");
}

#[test]
fn a_wrongly_suspected_member_refutes() {
    let mut world = World::new(10, 3, GossipConfig::default());
    world.run(20 * SECOND);
    // Long enough for a suspicion, too short for a death.
    world.sides[4] = 1;
    let suspected = |w: &World| (0..10).any(|o| o != 4 && w.view(o, 4).state == State::Suspect);
    assert!(world.run_until(20 * SECOND, suspected));
    world.sides[4] = 0;
    assert!(world.run_until(10 * SECOND, |w| w.agree(State::Alive)));
    assert!(world.node(4).own().incarnation.refutations > 0);
    assert!(world.node(4).counters().refutations > 0);
    assert!(
        !world.changes.iter().any(|(_, _, m)| m.state == State::Dead && m.replica.node == id(4))
    );
}

#[test]
fn a_healed_partition_becomes_one_view() {
    for (n, smaller, seed) in [(10, 4, 1), (30, 12, 2), (50, 20, 3)] {
        let mut world = World::new(n, seed, GossipConfig::default());
        world.run(20 * SECOND);
        (0..smaller).for_each(|at| world.sides[at] = 1);
        world.run(600 * SECOND);
        assert_eq!(world.view(n - 1, 0).state, State::Dead);
        assert_eq!(world.view(0, n - 1).state, State::Dead);
        assert_eq!(world.view(0, 1).state, State::Alive);
        world.changes.clear();
        world.sides.fill(0);
        assert!(world.run_until(70 * SECOND, |w| w.agree(State::Alive)), "{n} nodes");
        world.run(60 * SECOND);
        assert!(world.agree(State::Alive), "{n} nodes: it does not stay");
        assert_eq!(deaths(&world), 0, "{n} nodes: healing declared somebody dead");
    }
}

#[test]
fn a_restart_replaces_the_earlier_boot() {
    let mut world = World::new(10, 5, GossipConfig::default());
    world.run(20 * SECOND);
    world.crash(2);
    world.run(300);
    world.boot(2);
    assert!(world.run_until(20 * SECOND, |w| w.agree(State::Alive)));
    assert_eq!(world.view(0, 2).incarnation.boot.count, 2);
    assert_eq!(world.view(0, 2).address, member(2, 2).address);
    assert_eq!(deaths(&world), 0);
}

#[test]
fn a_member_that_leaves_is_not_dead() {
    let mut world = World::new(10, 6, GossipConfig::default());
    world.run(20 * SECOND);
    world.step(3, Event::Leave);
    world.run(50);
    world.crash(3);
    assert!(world.run_until(20 * SECOND, |w| w.agree(State::Left)));
    world.run(60 * SECOND);
    assert!(world.agree(State::Left));
    assert_eq!(deaths(&world), 0);
    world.boot(3);
    assert!(world.run_until(20 * SECOND, |w| w.agree(State::Alive)));
}

#[test]
fn a_load_reaches_all_and_an_older_one_does_not_win() {
    let mut world = World::new(12, 7, GossipConfig::default());
    world.run(20 * SECOND);
    for load in 1..=30 {
        world.step(5, Event::Load { requests: 1000 - load });
        world.run(100);
    }
    world.run(20 * SECOND);
    assert!((0..12).filter(|o| *o != 5).all(|o| world.view(o, 5).load == 970));
    // The true load only fell, so each observer's view must only fall.
    for observer in 0..12 {
        let seen =
            world.changes.iter().filter(|(_, o, m)| *o == observer && m.replica == replica(5));
        let loads: Vec<u32> = seen.map(|(_, _, m)| m.load).filter(|load| *load > 0).collect();
        assert!(loads.windows(2).all(|pair| pair[0] >= pair[1]), "{loads:?}");
    }
}

#[test]
fn false_suspicions_follow_the_formula() {
    // SWIM 3.1: 1 - (1-p)^2 for the direct ping, 1 - (1-p)^4 for each of three helpers.
    let patient = GossipConfig { pings: 1, suspicion_multiplier: 1_000_000, ..Default::default() };
    let (mut probes, mut failed) = (0, 0);
    for seed in 0..6 {
        let mut world = World::new(40, seed, patient.clone());
        world.run(20 * SECOND);
        let count =
            |w: &World| w.counters().fold((0, 0), |a, c| (a.0 + c.probes, a.1 + c.failed_probes));
        let before = count(&world);
        world.loss = 300;
        world.run(600 * SECOND);
        let after = count(&world);
        probes += after.0 - before.0;
        failed += after.1 - before.1;
    }
    // In parts per million: 0.51 * 0.7599^3 = 0.22379.
    let (measured, expected) = (failed * 1_000_000 / probes, 223_790);
    assert!(
        measured.abs_diff(expected) < expected / 20,
        "{failed} of {probes} probes: {measured} ppm"
    );
}

#[test]
fn a_paused_process_declares_nobody_dead() {
    let mut world = World::new(10, 8, GossipConfig::default());
    world.run(20 * SECOND);
    // Node 1 learns of the suspicion of node 2, and is paused before the refutation.
    world.sides[2] = 1;
    assert!(world.run_until(20 * SECOND, |w| w.view(1, 2).state == State::Suspect));
    let mut stopped = world.nodes[1].take().expect("it runs");
    world.sides[2] = 0;
    world.now = Instant(world.now.0 + 120 * 1_000_000_000);
    let mut out = Outbox::new();
    stopped.step(Now { mono: world.now, wall: crate::time::WallTime(0) }, Event::Tick, &mut out);
    assert_eq!(stopped.member(id(2)).map(|m| m.state), Some(State::Suspect));
    assert!(stopped.local_health() > 0);
}

#[test]
fn runs_repeat_byte_for_byte() {
    let trace = |seed| {
        let mut world = World::new(15, seed, GossipConfig::default());
        world.loss = 150;
        world.run(30 * SECOND);
        let mut hash = Hasher::new();
        world.nodes.iter().flatten().for_each(|node| node.digest(&mut hash));
        world.changes.iter().for_each(|(when, at, member)| hash.value(&(when, *at as u64, member)));
        hash.finish()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

fn hears(machine: &mut Gossip, from: usize, boot: u64, updates: Vec<Update>) -> Vec<Action> {
    let Member { replica, address, .. } = member(from, boot);
    let incarnation = member(from, boot).incarnation;
    let confirmations = Vec::new();
    let sender = Update { replica, incarnation, state: State::Alive, address, confirmations };
    let message = Message {
        body: Body::Ping { number: 1 },
        sender: sender.into(),
        updates,
        loads: Vec::new(),
    };
    let mut out = Outbox::new();
    let now = Now { mono: Instant::from_millis(1), wall: crate::time::WallTime(0) };
    machine.step(now, Event::Received { from: id(from), message }, &mut out);
    out.drain().collect()
}

#[test]
fn a_members_own_word_replaces_what_others_claimed() {
    let mut machine = Gossip::new(member(0, 1), GossipConfig::default(), &Seed::from_number(1));
    for other in 1..3 {
        let Member { replica, address, .. } = member(other, 1);
        let now = Now { mono: Instant::from_millis(1), wall: crate::time::WallTime(0) };
        let event = Event::Add { replica, name: String::new(), address };
        machine.step(now, event, &mut Outbox::new());
    }
    let claim = |refutations, boot| {
        let Member { replica, mut incarnation, address, .. } = member(2, boot);
        incarnation.refutations = refutations;
        Update { replica, incarnation, state: State::Alive, address, confirmations: Vec::new() }
    };
    // Nobody heard of member 2 yet, so another's word counts.
    hears(&mut machine, 1, 1, alloc::vec![claim(0, u64::MAX)]);
    assert_eq!(machine.member(id(2)).map(|m| m.incarnation.boot.count), Some(u64::MAX));
    hears(&mut machine, 2, 3, Vec::new());
    assert_eq!(machine.member(id(2)).map(|m| m.incarnation.boot.count), Some(3));
    hears(&mut machine, 1, 1, alloc::vec![claim(0, u64::MAX)]);
    assert_eq!(machine.member(id(2)).map(|m| m.incarnation.boot.count), Some(3));
    // A claim that is beyond its word is told to it, because only it can outdo the claim.
    hears(&mut machine, 1, 1, alloc::vec![claim(5, 3)]);
    let answers = hears(&mut machine, 2, 3, Vec::new());
    let tells = |action: &Action| match action {
        Action::Send { message, .. } => message.updates.contains(&claim(5, 3)),
        _ => false,
    };
    assert!(answers.iter().any(tells), "{answers:?}");
}

/// Another member's suspicion of a member, heard by a machine among this many members: whether it tells the suspect.
fn asks_suspect(members: usize, probes_slowly: bool) -> bool {
    let mut machine = Gossip::new(member(0, 1), GossipConfig::default(), &Seed::from_number(1));
    for other in 1..members {
        let Member { replica, address, .. } = member(other, 1);
        let now = Now { mono: Instant::from_millis(1), wall: crate::time::WallTime(0) };
        let event = Event::Add { replica, name: String::new(), address };
        machine.step(now, event, &mut Outbox::new());
        hears(&mut machine, other, 1, Vec::new());
    }
    if probes_slowly {
        machine.prober.worsen_health();
    }
    let Member { replica, incarnation, address, .. } = member(2, 1);
    let confirmations = alloc::vec![id(1)];
    let claim = Update { replica, incarnation, state: State::Suspect, address, confirmations };
    let actions = hears(&mut machine, 1, 1, alloc::vec![claim.clone()]);
    let is_told = |action: &Action| match action {
        Action::Send { to, message } => *to == id(2) && message.updates.contains(&claim),
        _ => false,
    };
    let is_told = actions.iter().any(is_told);
    // A suspicion that is known already makes no further message to the suspect.
    let actions = hears(&mut machine, 1, 1, alloc::vec![claim]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Send { to, .. } if *to == id(2))));
    is_told
}

#[test]
fn a_suspicion_that_another_raised_is_told_to_the_suspect_in_time() {
    assert!(asks_suspect(3, true), "its probe comes after the timeout");
    assert!(asks_suspect(3, false), "nobody else may be left to pass the refutation on");
    assert!(asks_suspect(40, true), "its probe comes after the timeout");
    assert!(!asks_suspect(40, false), "forty members at once would burden the suspect");
}
