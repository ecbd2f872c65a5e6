//! Foundings that meet crashes, lost messages and each other. The result is always nothing, or one federation per
//! genesis that all named voters are in.

use alloc::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::api::{Bootstrap, MemberInfo, Reason, Unready};
use crate::id::{Boot, GenesisId, GroupId, Lineage, NodeId, Replica, RequestId, Role, StoreId};
use crate::machine::{Machine as _, Now, Outbox};
use crate::node::{Action, Event, Founding as Says};
use crate::time::{Instant, WallTime};

/// The first voters of each founding, by host, and the request that an operator sent for it.
struct Founding {
    founder: usize,
    named: Vec<usize>,
    request: RequestId,
}

fn found(world: &mut World, founder: usize, others: &[usize]) -> Founding {
    let voters = others.iter().map(|at| address(*at)).collect();
    let request = world.request(founder, Request::Init { voters });
    let named = others.iter().copied().chain([founder]).collect();
    Founding { founder, named, request }
}

fn genesis(world: &World, at: usize) -> Option<GenesisId> {
    world.node(at).status().genesis
}

fn is_voter(world: &World, at: usize) -> bool {
    let raft = world.node(at).raft(GroupId::REGISTRY);
    raft.is_some_and(|raft| raft.role() != Role::Learner)
}

/// The founder of a genesis, as its voters were told; a founder alone has no other voter to tell.
fn founder_of(world: &World, genesis: GenesisId, voters: &BTreeSet<usize>) -> Option<usize> {
    let told = |notice: &Notice| match notice {
        Notice::Founding { founder, genesis: of, .. } if *of == genesis => Some(*founder),
        _ => None,
    };
    let founder = world.hosts.iter().flat_map(|host| &host.notices).find_map(told);
    match founder {
        Some(founder) => world.hosts.iter().position(|host| host.replica == founder),
        None => voters.first().copied().filter(|_| voters.len() == 1),
    }
}

/// The law: each host has one genesis or none, all named voters of a genesis have it and vote, and an answer is true.
/// Other hosts may have joined as learners.
fn check(world: &World, foundings: &[Founding], what: &str) {
    let mut formed: BTreeMap<GenesisId, BTreeSet<usize>> = BTreeMap::new();
    for at in 0..world.hosts.len() {
        if let Some(genesis) = genesis(world, at) {
            let voters = formed.entry(genesis).or_default();
            if is_voter(world, at) {
                voters.insert(at);
            }
        }
        let status = world.node(at).status();
        assert!(status.undecided.is_none(), "{what}: host {at} is free or formed");
    }
    let mut founders = BTreeSet::new();
    for (genesis, voters) in &formed {
        let founder = founder_of(world, *genesis, voters).expect("a genesis has a founder");
        let founding = foundings.iter().find(|founding| founding.founder == founder);
        let named = founding.map(|founding| founding.named.iter().copied().collect());
        assert_eq!(Some(voters), named.as_ref(), "{what}: the voters of {genesis}");
        assert!(founders.insert(founder), "{what}: one genesis of each founder");
    }
    for founding in foundings {
        let exists = founders.contains(&founding.founder);
        match world.reply(founding.founder, founding.request) {
            Some(Outcome::Value(Value::Initialized)) => assert!(exists, "{what}: it happened"),
            Some(Outcome::Rejected(_)) => assert!(!exists, "{what}: it never will"),
            Some(other) => panic!("{what}: {other:?}"),
            // The founder crashed before it answered.
            None => {}
        }
    }
}

/// Lets everything come to an end.
fn calm(world: &mut World) {
    (world.loss, world.repeats) = (0, 0);
    world.isolated.clear();
    for at in 0..world.hosts.len() {
        if world.hosts[at].node.is_none() {
            world.start(at);
        }
    }
    world.run(15_000);
}

#[test]
fn a_voter_that_missed_the_founding_is_a_voter() {
    for missed_at in [0, 1, 2, 3, 4, 6, 8, 10, 15, 20, 40, 80, 160, 320] {
        let mut world = World::new(3, 900 + missed_at);
        let founding = found(&mut world, 0, &[1, 2]);
        while world.node(2).status().undecided.is_none() {
            world.run(1);
        }
        world.run(missed_at);
        world.crash(2);
        world.run(4000);
        world.start(2);
        world.run(4000);
        check(&world, &[founding], "missed");
        if genesis(&world, 0).is_none() {
            continue;
        }
        // With the founder gone, the other two are a majority: whichever has the longer log can win.
        create(&mut world, "locks", Policy::Strong);
        world.crash(0);
        world.run(8000);
        assert!(is_committed(&world.ask(2, put("locks", "k", "1"))), "missed at {missed_at}");
        assert!(is_committed(&world.ask(1, put("locks", "k", "2"))), "missed at {missed_at}");
    }
}

#[test]
fn a_voter_that_is_down_stops_the_founding_everywhere() {
    let mut world = World::new(3, 950);
    world.crash(2);
    let outcome = world.ask(0, Request::Init { voters: vec![address(1), address(2)] });
    let missing = Reason::VoterUnavailable { address: address(2) };
    assert_eq!(outcome, Outcome::Rejected(missing));
    world.start(2);
    world.run(10_000);
    assert!((0..3).all(|at| genesis(&world, at).is_none()));
    // It can be founded afterwards.
    assert_eq!(
        world.ask(1, Request::Init { voters: vec![address(0), address(2)] }),
        Outcome::Value(Value::Initialized)
    );
}

#[test]
fn a_founding_survives_a_crash_of_each_node_at_each_step() {
    let mut ends = [0, 0];
    for victim in 0..3 {
        for step in 0..36 {
            let mut world = World::new(3, 1000 + 40 * victim as u64 + step);
            let founding = found(&mut world, 0, &[1, 2]);
            // Disks sync in a millisecond, and messages take up to two: every durable point is met.
            world.run(if step < 30 { 45 + step * 2 } else { 40 * step });
            world.crash(victim);
            world.run(if step % 2 == 0 { 100 } else { 7000 });
            calm(&mut world);
            check(&world, &[founding], &alloc::format!("{victim} crashes at step {step}"));
            ends[usize::from(genesis(&world, 0).is_some())] += 1;
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "both ends are reached: {ends:?}");
}

#[test]
fn foundings_that_overlap_or_not_end_whole() {
    let pairs: [&[(usize, &[usize])]; 5] = [
        &[(0, &[2, 3]), (1, &[2, 3])],
        &[(0, &[1, 2]), (1, &[0, 2])],
        &[(0, &[2]), (1, &[3])],
        &[(0, &[1, 2, 3]), (1, &[2]), (3, &[0, 2])],
        &[(0, &[2, 3]), (1, &[2, 3]), (2, &[])],
    ];
    let mut founded = 0;
    for (number, plan) in pairs.into_iter().enumerate() {
        for seed in 0..24_u64 {
            let mut world = World::new(4, 2000 + 100 * number as u64 + seed);
            (world.loss, world.repeats) = (seed % 3 * 15, seed % 2 * 30);
            let mut foundings = Vec::new();
            for (at, others) in plan {
                foundings.push(found(&mut world, *at, others));
                world.run(seed % 5 * 3);
            }
            world.run(40 + 9 * seed);
            let victim = (seed % 4) as usize;
            world.crash(victim);
            if seed % 3 == 0 {
                world.isolate((victim + 1) % 4);
            }
            world.run(if seed % 2 == 0 { 50 } else { 6000 });
            calm(&mut world);
            check(&world, &foundings, &alloc::format!("plan {number}, seed {seed}"));
            founded += usize::from((0..4).any(|at| genesis(&world, at).is_some()));
        }
    }
    assert!(founded > 20, "foundings also succeed: {founded}");
}

#[test]
fn two_founders_that_name_each_other_found_one_federation() {
    for seed in 0..10 {
        let mut world = World::new(3, 3000 + seed);
        let foundings = [found(&mut world, 0, &[1, 2]), found(&mut world, 1, &[0, 2])];
        world.run(20_000);
        check(&world, &foundings, "each other");
        assert!((0..3).all(|at| genesis(&world, at).is_some()), "seed {seed}: one of them went on");
    }
}

#[test]
fn a_voter_that_waits_for_its_founder_takes_part_in_nothing_else() {
    let mut world = World::new(4, 3100);
    let _ = found(&mut world, 0, &[1, 2]);
    world.crash(2);
    while world.node(1).status().undecided.is_none() {
        if world.hosts[2].node.is_none() && world.now > 20_000_000 {
            world.start(2);
        }
        world.run(1);
    }
    world.crash(0);
    world.crash(2);
    world.run(1000);
    let founder = world.hosts[0].replica.node;
    let waits = Reason::FoundingUndecided { founder, address: address(0) };
    for _ in 0..2 {
        let own = world.ask(1, Request::Init { voters: vec![] });
        assert_eq!(own, Outcome::Rejected(waits.clone()));
        let other = world.ask(3, Request::Init { voters: vec![address(1)] });
        assert_eq!(other, Outcome::Rejected(waits.clone()), "a second founder is told");
        assert_eq!(world.node(1).unready(), [Unready::FoundingUndecided]);
        world.crash(1);
        world.start(1);
        world.run(3000);
    }
    world.start(0);
    world.run(3000);
    assert_eq!(world.node(1).unready(), [Unready::NotFormed], "the founder's word released it");
    world.crash(1);
    world.start(1);
    world.run(3000);
    assert_eq!(world.node(1).unready(), [Unready::NotFormed], "that is durable");
    let again = world.ask(3, Request::Init { voters: vec![address(1)] });
    assert_eq!(again, Outcome::Value(Value::Initialized));
}

#[test]
fn a_wiped_voter_founds_no_second_federation() {
    for seed in 0..4 {
        let mut world = World::new(3, 3200 + seed);
        world.bootstrap = vec![0, 1, 2];
        bootstrap(&mut world, 3);
        world.run(5000);
        let first = genesis(&world, 0);
        world.crash(2);
        world.wipe(2);
        world.start(2);
        let outcome = world.ask(2, Request::Init { voters: vec![] });
        let exists = matches!(
            outcome,
            Outcome::Rejected(Reason::FederationExists { .. } | Reason::AlreadyFormed)
        );
        assert!(exists, "{outcome:?}");
        world.run(8000);
        assert_eq!(genesis(&world, 2), first, "it came in by itself");
        assert!(!is_voter(&world, 2));
        assert!(world.node(2).unready().is_empty(), "{:?}", world.node(2).unready());
        assert!(is_committed(&world.ask(2, put("locks", "k", "1"))));
    }
}

#[test]
fn two_federations_of_one_id_exchange_nothing_and_say_so() {
    let mut world = World::new(4, 3300);
    let foundings = [found(&mut world, 0, &[1]), found(&mut world, 2, &[3])];
    world.run(5000);
    check(&world, &foundings, "apart");
    let (left, right) = (genesis(&world, 0), genesis(&world, 2));
    assert!(left.is_some() && right.is_some() && left != right);
    // Their nodes learn of each other.
    world.bootstrap = vec![0, 1, 2, 3];
    for at in 0..4 {
        world.crash(at);
        world.start(at);
    }
    world.run(10_000);
    for at in 0..4 {
        let status = world.node(at).status();
        assert_eq!(status.formed_peers.len(), 2, "host {at} sees its rivals");
        let rivals = |notice: &&Notice| matches!(notice, Notice::RivalFederation { .. });
        assert!(world.hosts[at].notices.iter().filter(rivals).count() <= 4, "once on each link");
        assert_eq!(world.node(at).members().len(), 2);
        assert!(status.unready.is_empty());
    }
    check(&world, &foundings, "linked");
}

#[test]
fn a_stranger_that_offers_and_aborts_without_end_costs_little() {
    let mut world = World::new(1, 3500);
    world.run(100);
    let stranger = Replica { node: NodeId([90; 16]), store: StoreId([90; 16]) };
    let me = world.hosts[0].replica;
    let (boot, lineage) = (Boot { count: 1, nonce: 1 }, Lineage::default());
    let Replica { node: peer, store } = stranger;
    world.step(0, Event::Connected { peer, store, boot, lineage, version: 1 });
    let (mut records, mut routed) = (0, BTreeSet::new());
    for number in 0..200_u8 {
        let victim = Replica { node: NodeId([number; 16]), store: StoreId([91; 16]) };
        let member = |replica| MemberInfo { replica, address: address(0), name: "x".to_string() };
        let members = [stranger, me, victim].map(member).into();
        let genesis = GenesisId(u64::from(number) + 1);
        let offer = Bootstrap { genesis, members, voters: 3 };
        for message in [Says::Offer(offer), Says::Aborted(genesis)] {
            let now = Now { mono: Instant(world.now), wall: WallTime(0) };
            let event = Event::Received { from: peer, message: Message::Founding(message) };
            let mut out = Outbox::new();
            world.hosts[0].node.as_mut().expect("it runs").step(now, event, &mut out);
            for action in out.drain() {
                match action {
                    Action::Persist { .. } => records += 1,
                    Action::Route { peer, address: Some(_) } => drop(routed.insert(peer)),
                    Action::Route { peer, address: None } => drop(routed.remove(&peer)),
                    _ => {}
                }
            }
        }
    }
    assert!((1..=10).contains(&records), "{records} records");
    assert!(routed.len() <= 1, "{routed:?}");
}
