//! The coordinator, driven by hand.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::time::WallTime;

const ME: NodeId = NodeId([0xee; 16]);

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

struct Driven {
    machine: Coordinator,
    now: Instant,
    told: Vec<(u64, NodeId, Health)>,
}

impl Driven {
    /// Members 1 to `n`, all alive by gossip.
    fn new(n: u8) -> Self {
        let machine = Coordinator::new(ME, CoordinatorConfig::default());
        let mut driven = Self { machine, now: Instant::from_millis(10_000), told: Vec::new() };
        for n in 1..=n {
            driven.step(Event::Add { node: node(n) });
            driven.gossip(n, Liveness::Alive, 0);
        }
        driven
    }

    fn step(&mut self, event: Event) {
        let mut out = Outbox::new();
        self.machine.step(Now { mono: self.now, wall: WallTime(0) }, event, &mut out);
        assert!(self.machine.deadline().is_none_or(|due| due > self.now), "nothing is left due");
        for Action::Health { node, from, to } in out.drain() {
            assert_ne!(from, to);
            self.told.push((self.now.as_millis(), node, to));
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + core::time::Duration::from_millis(ms);
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.step(Event::Tick);
        }
        self.now = end;
        self.step(Event::Tick);
    }

    fn gossip(&mut self, n: u8, liveness: Liveness, load: u32) {
        self.step(Event::LivenessChanged { node: node(n), liveness, load });
    }

    fn serve(&mut self, n: u8, answered: bool) {
        self.step(Event::RequestEnded { node: node(n), answered });
    }

    fn link(&mut self, n: u8, up: bool) {
        self.step(Event::LinkChanged { node: node(n), up });
    }

    fn health(&self, n: u8) -> Health {
        self.machine.health(node(n))
    }

    /// How often each of the members 1 to `n` is chosen in `times` choices. Each request is answered at once.
    fn shares(&mut self, how: Choice, n: u8, times: usize) -> Vec<usize> {
        let mut shares = vec![0; usize::from(n)];
        for _ in 0..times {
            let chosen = self.machine.choose(how, (1..=n).map(node)).expect("somebody serves");
            shares[usize::from(chosen.0[0]) - 1] += 1;
            self.step(Event::RequestEnded { node: chosen, answered: true });
        }
        shares
    }
}

#[test]
fn a_member_never_heard_of_is_unknown() {
    let mut d = Driven::new(0);
    d.step(Event::Add { node: node(1) });
    assert_eq!(d.health(1), Health::Unknown);
    d.link(1, false);
    d.run(60_000);
    assert_eq!(d.health(1), Health::Unknown);
    d.link(1, true);
    assert_eq!(d.health(1), Health::Healthy);
    assert_eq!(d.health(9), Health::Unknown);
    d.gossip(9, Liveness::Alive, 3);
    assert_eq!((d.health(9), d.machine.load(node(9))), (Health::Unknown, 0), "not registered");
}

#[test]
fn a_few_failures_change_nothing_and_enough_do() {
    let mut d = Driven::new(2);
    d.run(5000);
    d.serve(1, false);
    d.serve(1, false);
    d.serve(1, true);
    d.serve(1, false);
    d.serve(1, false);
    assert_eq!(d.health(1), Health::Healthy);
    d.serve(1, false);
    assert_eq!(d.health(1), Health::Unhealthy);
    assert_eq!(d.health(2), Health::Healthy);
}

#[test]
fn a_failed_member_is_tried_again_as_a_suspect_and_recovers_by_answers() {
    let mut d = Driven::new(3);
    d.run(5000);
    (0..3).for_each(|_| d.serve(1, false));
    d.run(9_900);
    assert_eq!(d.health(1), Health::Unhealthy);
    d.run(200);
    assert_eq!(d.health(1), Health::Suspect);
    d.run(60_000);
    assert_eq!(d.health(1), Health::Suspect, "time alone does not heal");
    d.serve(1, true);
    d.run(2000);
    assert_eq!(d.health(1), Health::Suspect);
    d.serve(1, true);
    assert_eq!(d.health(1), Health::Healthy);
}

#[test]
fn a_death_counts_at_once_and_is_undone_step_by_step() {
    let mut d = Driven::new(1);
    d.gossip(1, Liveness::Dead, 0);
    assert_eq!(d.health(1), Health::Unhealthy);
    d.gossip(1, Liveness::Alive, 0);
    assert_eq!(d.health(1), Health::Unhealthy, "one alive does not undo a death");
    d.run(1000);
    assert_eq!(d.health(1), Health::Suspect);
    d.run(1000);
    assert_eq!(d.health(1), Health::Healthy);
    d.gossip(1, Liveness::Left, 0);
    assert_eq!(d.health(1), Health::Left);
}

#[test]
fn a_flapping_member_changes_at_most_once_a_dwell() {
    let mut d = Driven::new(1);
    for turn in 0..1000_u32 {
        let liveness = if turn % 2 == 0 { Liveness::Suspect } else { Liveness::Alive };
        d.gossip(1, liveness, 0);
        d.run(50);
    }
    assert!(d.told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 1000), "{:?}", d.told);
    assert!(d.told.len() > 3);
}

#[test]
fn a_broken_link_makes_a_suspect_and_never_worse() {
    let mut d = Driven::new(1);
    d.link(1, true);
    d.run(5000);
    d.link(1, false);
    assert_eq!(d.health(1), Health::Healthy);
    d.run(3000);
    assert_eq!(d.health(1), Health::Suspect);
    (0..1000).for_each(|_| d.link(1, false));
    d.run(600_000);
    assert_eq!(d.health(1), Health::Suspect);
    d.link(1, true);
    assert_eq!(d.health(1), Health::Healthy);
    // A link that is up for less than a dwell has not recovered.
    d.run(5000);
    for _ in 0..3 {
        d.link(1, false);
        d.run(100);
        d.link(1, true);
        d.run(100);
    }
    d.link(1, false);
    assert_eq!(d.health(1), Health::Suspect);
}

#[test]
fn equal_members_take_turns_and_the_least_loaded_gets_more() {
    let mut d = Driven::new(4);
    assert_eq!(d.shares(Choice::LeastLoaded, 4, 400), vec![100; 4]);
    assert_eq!(d.shares(Choice::RoundRobin, 4, 400), vec![100; 4]);
    d.gossip(2, Liveness::Alive, 5);
    assert_eq!(d.shares(Choice::LeastLoaded, 4, 300), vec![100, 0, 100, 100]);
}

#[test]
fn our_own_requests_count_before_the_next_report() {
    let mut d = Driven::new(2);
    d.gossip(1, Liveness::Alive, 0);
    d.gossip(2, Liveness::Alive, 10);
    let chosen: Vec<_> =
        (0..30).filter_map(|_| d.machine.choose(Choice::LeastLoaded, (1..=2).map(node))).collect();
    let first = chosen.iter().filter(|chosen| **chosen == node(1)).count();
    assert_eq!((first, d.machine.under_way(node(1)), d.machine.under_way(node(2))), (20, 20, 10));
}

#[test]
fn a_withdrawn_request_counts_no_more_and_says_nothing_of_the_member() {
    let mut d = Driven::new(1);
    d.machine.begin(node(1));
    assert_eq!(d.machine.choose(Choice::LeastLoaded, core::iter::once(node(1))), Some(node(1)));
    assert_eq!(d.machine.under_way(node(1)), 2);
    d.machine.withdraw(node(1));
    assert_eq!((d.machine.under_way(node(1)), d.machine.charge(node(1))), (1, 0));
    d.step(Event::RequestEnded { node: node(1), answered: false });
    assert_eq!(d.machine.under_way(node(1)), 0);
    assert!(d.machine.charge(node(1)) > 0);
}

#[test]
fn a_member_that_fails_fast_attracts_nothing() {
    let mut d = Driven::new(4);
    let mut failed = 0;
    for round in 0..1000 {
        let chosen = d.machine.choose(Choice::LeastLoaded, (1..=4).map(node)).expect("somebody");
        let answered = chosen != node(3);
        failed += u32::from(!answered);
        d.step(Event::RequestEnded { node: chosen, answered });
        if round % 10 == 0 {
            d.run(10);
        }
    }
    assert!((1..=3).contains(&failed), "{failed} of 1000 went to the black hole");
}

#[test]
fn suspects_get_half_and_the_unhealthy_nothing() {
    let mut d = Driven::new(4);
    d.run(2000);
    d.gossip(1, Liveness::Suspect, 0);
    d.gossip(2, Liveness::Dead, 0);
    let shares = d.shares(Choice::RoundRobin, 4, 500);
    assert_eq!(shares[1], 0);
    assert!(shares[0].abs_diff(100) <= 2 && shares[2].abs_diff(200) <= 2, "{shares:?}");
    let mut d = Driven::new(2);
    d.run(2000);
    d.gossip(1, Liveness::Suspect, 0);
    (0..30).for_each(|_| {
        d.machine.choose(Choice::LeastLoaded, (1..=2).map(node));
    });
    assert_eq!((d.machine.under_way(node(1)), d.machine.under_way(node(2))), (10, 20));
}

#[test]
fn when_most_are_unwell_only_members_that_left_are_excluded() {
    let mut d = Driven::new(5);
    for n in 1..=3 {
        d.gossip(n, Liveness::Dead, 0);
    }
    d.gossip(4, Liveness::Left, 0);
    let shares = d.shares(Choice::RoundRobin, 5, 400);
    assert_eq!(shares, vec![100, 100, 100, 0, 100]);
    assert_eq!(d.machine.choose(Choice::RoundRobin, core::iter::once(node(4))), None);
    assert_eq!(d.machine.choose(Choice::LeastLoaded, core::iter::empty()), None);
}

#[test]
fn leaders_are_set_and_cleared() {
    let mut d = Driven::new(1);
    d.step(Event::LeaderChanged { group: GroupId(3), leader: Some(node(1)) });
    assert_eq!(d.machine.leader(GroupId(3)), Some(node(1)));
    d.step(Event::LeaderChanged { group: GroupId(3), leader: None });
    assert_eq!(d.machine.leader(GroupId(3)), None);
    for group in 0..9000 {
        d.step(Event::LeaderChanged { group: GroupId(group), leader: Some(ME) });
    }
    assert_eq!(d.machine.leaders().count(), NAMESPACES_MAX + 1);
}

fn any_event() -> impl Strategy<Value = Event> {
    let states = [Liveness::Alive, Liveness::Suspect, Liveness::Dead, Liveness::Left];
    prop_oneof![
        Just(Event::Tick),
        (1..5_u8).prop_map(|n| Event::Add { node: node(n) }),
        (1..5_u8).prop_map(|n| Event::Remove { node: node(n) }),
        (1..5_u8, 0..4_usize, any::<u32>()).prop_map(move |(n, at, load)| Event::LivenessChanged {
            node: node(n),
            liveness: states[at],
            load
        }),
        (1..5_u8, any::<bool>())
            .prop_map(|(n, answered)| Event::RequestEnded { node: node(n), answered }),
        (1..5_u8, any::<bool>()).prop_map(|(n, up)| Event::LinkChanged { node: node(n), up }),
    ]
}

proptest! {
    #[test]
    fn after_any_events_health_settles_and_a_choice_is_a_candidate(
        events in proptest::collection::vec((any_event(), 0..3_000_u64), 0..150),
    ) {
        let mut d = Driven::new(2);
        for (event, pause) in events {
            d.step(event);
            d.run(pause);
            let chosen = d.machine.choose(Choice::LeastLoaded, (1..5).map(node));
            let present = (1..5).any(|n| d.health(n) != Health::Left);
            prop_assert_eq!(chosen.is_some(), present);
            prop_assert!(chosen.is_none_or(|chosen| (1..5).any(|n| node(n) == chosen)));
        }
        // Without further events every health settles.
        d.run(100_000);
        prop_assert_eq!(d.machine.deadline(), None);
    }
}
