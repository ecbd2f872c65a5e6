//! SWIM (Das, Gupta, Motivala, DSN 2002, sections 3 and 4) and Lifeguard (Dadgar, Phillips, Currey, DSN 2018, section
//! IV), message by message: one test for each rule that the machine follows. One machine, driven by hand; what many do
//! together is tested beside the code.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::config::GossipConfig;
use continuum_core::discovery::Address;
use continuum_core::gossip::{
    Action, Body, Claim, Event, Gossip, Incarnation, Member, Message, State,
};
use continuum_core::id::{Boot, NodeId, Replica, StoreId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};
use proptest::prelude::*;

const ME: u8 = 0;

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn replica(n: u8) -> Replica {
    Replica { node: node(n), store: StoreId([n; 16]) }
}

fn incarnation(refutations: u64) -> Incarnation {
    Incarnation { boot: Boot { count: 5, nonce: 5 }, refutations }
}

fn claim(n: u8, refutations: u64, state: State) -> Claim {
    let accusers = if state == State::Suspect { vec![node(9)] } else { Vec::new() };
    let address = Address(format!("host{n}:1"));
    Claim { replica: replica(n), incarnation: incarnation(refutations), state, address, accusers }
}

fn message(from: u8, body: Body, claims: Vec<Claim>) -> Message {
    Message { body, me: claim(from, 0, State::Alive), claims, loads: Vec::new() }
}

/// Node 0 of a federation of nodes 0 to n.
struct Driven {
    machine: Gossip,
    now: Instant,
    out: Outbox<Action>,
    changed: Vec<Member>,
}

type Sent = (u64, NodeId, Message);

impl Driven {
    fn new(others: u8, config: GossipConfig) -> Self {
        let me = Member {
            replica: replica(ME),
            name: "me".into(),
            address: Address("me:1".into()),
            incarnation: incarnation(0),
            state: State::Alive,
            load: 0,
        };
        let machine = Gossip::new(me, config, &Seed::from_number(11));
        let now = Instant::from_millis(1);
        let mut driven = Self { machine, now, out: Outbox::new(), changed: Vec::new() };
        for n in 1..=others {
            let (replica, address) = (replica(n), Address(format!("host{n}:1")));
            driven.step(Event::Join { replica, name: format!("n{n}"), address });
        }
        driven
    }

    /// As [`Self::new`], with everybody heard of, and no full sync for a while.
    fn met(others: u8) -> Self {
        let mut driven = Self::new(others, GossipConfig::default());
        for n in 1..=others {
            driven.hear(n, Body::News, vec![]);
        }
        driven.drain_news();
        driven
    }

    fn step(&mut self, event: Event) -> Vec<Sent> {
        let now = Now { mono: self.now, wall: WallTime(0) };
        self.machine.step(now, event, &mut self.out);
        let (at, mut sent) = (self.now.as_millis(), Vec::new());
        for action in self.out.drain() {
            match action {
                Action::Send { to, message } => sent.push((at, to, message)),
                Action::Changed { member } => self.changed.push(member),
                Action::Rejected { why, .. } => panic!("rejected: {why}"),
            }
        }
        sent
    }

    fn hear(&mut self, from: u8, body: Body, claims: Vec<Claim>) -> Vec<Sent> {
        self.step(Event::Received { from: node(from), message: message(from, body, claims) })
    }

    /// Lets time pass, with a tick at each deadline.
    fn run(&mut self, ms: u64) -> Vec<Sent> {
        let end = Instant(self.now.0 + ms * 1_000_000);
        let mut sent = Vec::new();
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            sent.extend(self.step(Event::Tick));
        }
        self.now = end;
        sent
    }

    /// Lets time pass, while everybody but `silent` answers every ping.
    fn live(&mut self, ms: u64, silent: &[u8]) -> Vec<Sent> {
        let end = Instant(self.now.0 + ms * 1_000_000);
        let mut sent = Vec::new();
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            for (at, to, said) in self.step(Event::Tick) {
                if let Body::Ping { number } = said.body
                    && !silent.contains(&to.0[0])
                {
                    self.hear(to.0[0], Body::Ack { number }, vec![]);
                }
                sent.push((at, to, said));
            }
        }
        self.now = end;
        sent
    }

    /// Has every pending piece of news told out.
    fn drain_news(&mut self) {
        for _ in 0..40 {
            self.hear(1, Body::Ping { number: 0 }, vec![]);
            self.hear(2, Body::Ping { number: 0 }, vec![]);
        }
    }

    /// Lets time pass until the next probe's first ping.
    fn next_probe(&mut self) -> (NodeId, u64) {
        loop {
            let due = self.machine.deadline().expect("somebody is always to be probed");
            self.now = self.now.max(due);
            let sent = self.step(Event::Tick);
            if let Some(found) = sent.iter().find_map(ping) {
                return found;
            }
        }
    }

    fn state(&self, n: u8) -> State {
        self.machine.member(node(n)).expect("a member").state
    }

    fn refutations(&self, n: u8) -> u64 {
        self.machine.member(node(n)).expect("a member").incarnation.refutations
    }
}

fn ping((_, to, message): &Sent) -> Option<(NodeId, u64)> {
    match message.body {
        Body::Ping { number } => Some((*to, number)),
        _ => None,
    }
}

fn requests(sent: &[Sent]) -> Vec<(NodeId, u64, NodeId)> {
    let asked = sent.iter().filter_map(|(_, to, message)| match message.body {
        Body::PingRequest { number, target } => Some((*to, number, target)),
        _ => None,
    });
    asked.collect()
}

fn says(sent: &[Sent], to: u8, body: Body) -> bool {
    sent.iter().any(|(_, whom, message)| *whom == node(to) && message.body == body)
}

// SWIM 3.1: the failure detector.

#[test]
fn one_member_is_probed_in_each_period() {
    let mut d = Driven::met(7);
    let sent = d.live(20_000, &[]);
    let numbers: BTreeSet<u64> = sent.iter().filter_map(ping).map(|(_, number)| number).collect();
    assert!((19..=20).contains(&numbers.len()), "{numbers:?}");
}

#[test]
fn who_answers_is_not_pinged_again_in_the_period() {
    let mut d = Driven::met(7);
    let sent = d.live(20_000, &[]);
    let pings = sent.iter().filter_map(ping).count();
    assert!((19..=20).contains(&pings), "{pings}");
    assert!(requests(&sent).is_empty());
}

#[test]
fn a_silent_target_is_pinged_again_within_the_timeout() {
    // Ours, not the paper's: three direct pings, at 0, 1/3 and 2/3 of the ping timeout.
    let mut d = Driven::met(7);
    let (target, number) = d.next_probe();
    let begun = d.now.as_millis();
    let sent = d.run(499);
    let again: Vec<u64> =
        sent.iter().filter(|s| ping(s) == Some((target, number))).map(|s| s.0 - begun).collect();
    assert!(matches!(again[..], [166..=167, 333..=334]), "{again:?}");
}

#[test]
fn after_the_timeout_k_members_are_asked_to_ping() {
    let mut d = Driven::met(7);
    let (target, number) = d.next_probe();
    assert!(requests(&d.run(499)).is_empty());
    let asked = requests(&d.run(1));
    let helpers: BTreeSet<NodeId> = asked.iter().map(|(helper, _, _)| *helper).collect();
    assert_eq!((asked.len(), helpers.len()), (3, 3));
    assert!(
        asked.iter().all(|(helper, n, whom)| *helper != target && *n == number && *whom == target)
    );
}

#[test]
fn a_member_asked_pings_the_target_and_forwards_its_ack() {
    let mut d = Driven::met(7);
    let sent = d.hear(1, Body::PingRequest { number: 77, target: node(2) }, vec![]);
    let (to, number) = sent.iter().find_map(ping).expect("a ping");
    assert_eq!(to, node(2));
    let sent = d.hear(2, Body::Ack { number }, vec![]);
    assert!(says(&sent, 1, Body::Ack { number: 77 }));
    assert!(d.hear(2, Body::Ack { number }, vec![]).is_empty(), "once");
}

#[test]
fn a_ping_is_answered_with_its_number() {
    let mut d = Driven::met(2);
    let sent = d.hear(2, Body::Ping { number: 31 }, vec![]);
    assert!(says(&sent, 2, Body::Ack { number: 31 }));
}

#[test]
fn an_indirect_ack_within_the_period_saves_the_target() {
    let mut d = Driven::met(7);
    let (target, number) = d.next_probe();
    let (helper, _, _) = requests(&d.run(500))[0];
    d.hear(helper.0[0], Body::Ack { number }, vec![]);
    d.run(600);
    assert_eq!(d.state(target.0[0]), State::Alive);
}

#[test]
fn without_any_ack_by_the_end_of_the_period_the_target_fails() {
    let mut d = Driven::met(7);
    let (target, _) = d.next_probe();
    d.run(999);
    assert_eq!(d.state(target.0[0]), State::Alive);
    d.run(1);
    assert_eq!(d.state(target.0[0]), State::Suspect);
}

#[test]
fn an_ack_of_another_probe_or_from_nobody_asked_counts_for_nothing() {
    let mut d = Driven::met(7);
    let (target, number) = d.next_probe();
    let asked = requests(&d.run(500));
    d.hear(target.0[0], Body::Ack { number: number - 1 }, vec![]);
    d.hear(target.0[0], Body::Ack { number: number + 1 }, vec![]);
    let helpers: Vec<NodeId> = asked.iter().map(|(helper, _, _)| *helper).collect();
    let bystander = (1..=7).find(|n| node(*n) != target && !helpers.contains(&node(*n)));
    d.hear(bystander.expect("of seven"), Body::Ack { number }, vec![]);
    d.run(600);
    assert_eq!(d.state(target.0[0]), State::Suspect);
}

// SWIM 4.1: dissemination.

#[test]
fn news_rides_on_pings_acks_and_requests() {
    let mut d = Driven::met(7);
    d.hear(1, Body::News, vec![claim(2, 1, State::Alive)]);
    let told = |sent: &[Sent]| {
        sent.iter().any(|(_, _, m)| m.claims.iter().any(|c| c.replica.node == node(2)))
    };
    assert!(told(&d.hear(3, Body::Ping { number: 1 }, vec![])), "an ack");
    d.hear(1, Body::News, vec![claim(2, 2, State::Alive)]);
    assert!(told(&d.hear(3, Body::PingRequest { number: 1, target: node(4) }, vec![])), "a ping");
    d.hear(1, Body::News, vec![claim(2, 3, State::Alive)]);
    let silent = d.run(1600);
    assert!(told(&silent));
}

#[test]
fn each_piece_of_news_is_told_lambda_log_n_times() {
    let mut d = Driven::met(9);
    d.hear(1, Body::News, vec![claim(2, 1, State::Alive)]);
    let mut times = 0;
    for number in 0..40 {
        let sent = d.hear(3, Body::Ping { number }, vec![]);
        times += sent
            .iter()
            .flat_map(|(_, _, m)| &m.claims)
            .filter(|c| c.replica.node == node(2))
            .count();
    }
    // 4 * log10(10 + 1), rounded up.
    assert_eq!(times, 5);
}

#[test]
fn news_told_less_often_goes_first() {
    let config = GossipConfig { updates_max: 1, ..GossipConfig::default() };
    let mut d = Driven::new(9, config);
    (1..=9).for_each(|n| drop(d.hear(n, Body::News, vec![])));
    (0..200).for_each(|_| {
        d.hear(1, Body::Ping { number: 0 }, vec![]);
        d.hear(2, Body::Ping { number: 0 }, vec![]);
    });
    let tell = |d: &mut Driven| {
        let sent = d.hear(3, Body::Ping { number: 1 }, vec![]);
        sent.iter().flat_map(|(_, _, m)| &m.claims).map(|c| c.replica.node.0[0]).collect::<Vec<_>>()
    };
    d.hear(1, Body::News, vec![claim(4, 1, State::Alive)]);
    assert_eq!((tell(&mut d), tell(&mut d)), (vec![4], vec![4]));
    d.hear(1, Body::News, vec![claim(5, 1, State::Alive)]);
    assert_eq!((tell(&mut d), tell(&mut d)), (vec![5], vec![5]));
}

#[test]
fn old_news_is_not_told_on() {
    let mut d = Driven::met(7);
    d.hear(1, Body::News, vec![claim(2, 4, State::Alive)]);
    d.drain_news();
    let before = d.changed.len();
    for (refutations, state) in [(3, State::Dead), (3, State::Suspect), (4, State::Alive)] {
        d.hear(1, Body::News, vec![claim(2, refutations, state)]);
    }
    let sent = d.hear(3, Body::Ping { number: 1 }, vec![]);
    assert!(sent[0].2.claims.is_empty());
    assert_eq!(d.changed.len(), before);
}

// SWIM 4.2: suspicion.

#[test]
fn the_failed_target_is_suspected_and_that_is_spread() {
    let mut d = Driven::met(7);
    let (target, _) = d.next_probe();
    d.run(1000);
    let other = (1..=7).find(|n| node(*n) != target).expect("of seven");
    let sent = d.hear(other, Body::Ping { number: 1 }, vec![]);
    let told = sent[0].2.claims.iter().find(|c| c.replica.node == target).expect("told");
    assert_eq!((told.state, &told.accusers), (State::Suspect, &vec![node(ME)]));
}

#[test]
fn a_suspect_is_still_a_member_and_is_probed() {
    let mut d = Driven::met(3);
    d.hear(1, Body::News, vec![claim(2, 0, State::Suspect)]);
    let sent = d.live(3_500, &[]);
    assert!(sent.iter().filter_map(ping).any(|(to, _)| to == node(2)));
}

#[test]
fn a_suspicion_that_runs_out_is_a_death_and_that_is_spread() {
    let mut d = Driven::met(3);
    d.step(Event::Remove { node: node(1) });
    d.hear(3, Body::News, vec![claim(2, 0, State::Suspect)]);
    // Three members: nobody is there to confirm, so the shortest time holds: 4 * max(1, log10 3) periods.
    d.live(3_990, &[2]);
    assert_eq!(d.state(2), State::Suspect);
    d.live(20, &[2]);
    assert_eq!(d.state(2), State::Dead);
    let sent = d.hear(3, Body::Ping { number: 1 }, vec![]);
    assert!(sent[0].2.claims.iter().any(|c| c.replica.node == node(2) && c.state == State::Dead));
}

#[test]
fn a_suspect_that_refutes_in_time_is_alive() {
    let mut d = Driven::met(3);
    d.hear(1, Body::News, vec![claim(2, 0, State::Suspect)]);
    d.live(2_000, &[]);
    assert_eq!(d.state(2), State::Suspect, "an ack is no refutation");
    d.hear(3, Body::News, vec![claim(2, 1, State::Alive)]);
    assert_eq!((d.state(2), d.refutations(2)), (State::Alive, 1));
    d.live(60_000, &[]);
    assert_eq!(d.state(2), State::Alive);
}

#[test]
fn a_member_that_hears_that_it_is_suspected_raises_its_incarnation() {
    let mut d = Driven::met(3);
    let sent = d.hear(1, Body::Ping { number: 1 }, vec![claim(ME, 0, State::Suspect)]);
    assert_eq!(d.refutations(ME), 1);
    assert!(sent.iter().all(|(_, _, m)| m.me.incarnation == incarnation(1)));
    // An old accusation is answered by nothing.
    d.hear(2, Body::News, vec![claim(ME, 0, State::Dead)]);
    assert_eq!(d.refutations(ME), 1);
    d.hear(2, Body::News, vec![claim(ME, 1, State::Dead)]);
    assert_eq!(d.refutations(ME), 2);
}

#[test]
fn nobody_raises_anothers_incarnation() {
    let mut d = Driven::met(4);
    let mut sent = Vec::new();
    for round in 0..20 {
        let accused = claim(2, 0, if round % 2 == 0 { State::Suspect } else { State::Dead });
        sent.extend(d.hear(1, Body::Ping { number: round }, vec![accused]));
        sent.extend(d.live(700, &[3]));
    }
    let claims = sent.iter().flat_map(|(_, _, m)| &m.claims);
    assert!(claims.filter(|c| c.replica.node != node(ME)).all(|c| c.incarnation.refutations == 0));
}

/// The order of all claims: the paper's table of overrides, with a later boot above everything.
fn order() -> Vec<(u64, u64, State)> {
    let states = [State::Alive, State::Suspect, State::Dead, State::Left];
    let mut all = Vec::new();
    for boot in [5, 6] {
        for refutations in [0, 1] {
            all.extend(states.map(|state| (boot, refutations, state)));
        }
    }
    all
}

#[test]
fn claims_override_each_other_as_in_the_table() {
    let order = order();
    for (first_at, first) in order.iter().enumerate() {
        for (second_at, second) in order.iter().enumerate() {
            let mut d = Driven::met(4);
            for (boot, refutations, state) in [first, second] {
                let mut news = claim(2, *refutations, *state);
                news.incarnation.boot.count = *boot;
                d.hear(1, Body::News, vec![news]);
            }
            let member = d.machine.member(node(2)).expect("a member");
            let held =
                (member.incarnation.boot.count, member.incarnation.refutations, member.state);
            assert_eq!(held, order[first_at.max(second_at)], "{first:?} then {second:?}");
        }
    }
}

// SWIM 4.3: round-robin probing.

#[test]
fn each_round_probes_each_member_once_in_a_new_order() {
    let mut d = Driven::met(20);
    let mut orders = BTreeSet::new();
    for _ in 0..5 {
        let round: Vec<NodeId> = (0..20)
            .map(|_| {
                let (target, number) = d.next_probe();
                d.hear(target.0[0], Body::Ack { number }, vec![]);
                target
            })
            .collect();
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 20);
        orders.insert(round);
    }
    assert_eq!(orders.len(), 5);
}

#[test]
fn every_member_is_probed_within_two_rounds_whoever_joins() {
    let mut d = Driven::met(8);
    let mut last: BTreeMap<NodeId, usize> = (1..=8).map(|n| (node(n), 0)).collect();
    for period in 1..200 {
        if period % 9 == 0 && period < 100 {
            let n = 8 + (period / 9) as u8;
            let (replica, address) = (replica(n), Address(format!("host{n}:1")));
            d.step(Event::Join { replica, name: format!("n{n}"), address });
            last.insert(node(n), period);
        }
        let (target, number) = d.next_probe();
        d.hear(target.0[0], Body::Ack { number }, vec![]);
        let waited = period - last.insert(target, period).expect("a member");
        assert!(waited < 2 * last.len(), "{target} waited {waited} periods among {}", last.len());
    }
}

// Lifeguard IV-A: the local health multiplier, and nacks.

#[test]
fn a_helper_says_so_when_it_could_not_reach_the_target() {
    let mut d = Driven::met(7);
    let asked = d.now.as_millis();
    d.hear(1, Body::PingRequest { number: 77, target: node(2) }, vec![]);
    let sent = d.live(900, &[2]);
    let nacks: Vec<&Sent> = sent.iter().filter(|s| s.2.body == Body::Nack { number: 77 }).collect();
    assert_eq!(nacks.len(), 1);
    // Four fifths of the time that the asker has left.
    assert_eq!((nacks[0].1, nacks[0].0 - asked), (node(1), 400));
}

/// Runs one probe that fails, with so many of the three helpers nacking.
fn fail_probe(d: &mut Driven, nacks: usize) {
    let (_, number) = d.next_probe();
    let asked = requests(&d.run(500 * u64::from(d.machine.distrust() + 1)));
    assert_eq!(asked.len(), 3);
    for (helper, _, _) in asked.iter().take(nacks) {
        d.hear(helper.0[0], Body::Nack { number }, vec![]);
    }
    let ends = 500 * u64::from(d.machine.distrust() + 1);
    d.run(ends);
}

#[test]
fn a_missing_nack_is_a_reason_to_distrust_oneself_and_a_full_set_is_none() {
    let mut d = Driven::met(30);
    fail_probe(&mut d, 3);
    assert_eq!(d.machine.distrust(), 0);
    fail_probe(&mut d, 2);
    assert_eq!(d.machine.distrust(), 1);
}

#[test]
fn a_successful_probe_restores_trust_and_a_refutation_takes_it() {
    let mut d = Driven::met(30);
    d.hear(1, Body::News, vec![claim(ME, 0, State::Suspect)]);
    assert_eq!(d.machine.distrust(), 1);
    d.live(5_000, &[]);
    assert_eq!(d.machine.distrust(), 0);
}

#[test]
fn distrust_slows_the_period_and_the_timeout_and_saturates() {
    let mut d = Driven::met(30);
    for refutations in 0..40 {
        d.hear(1, Body::News, vec![claim(ME, refutations, State::Suspect)]);
    }
    assert_eq!(d.machine.distrust(), 8);
    let (target, _) = d.next_probe();
    let begun = d.now.as_millis();
    assert!(requests(&d.run(4_499)).is_empty(), "0.5 s, nine times as long");
    assert_eq!(requests(&d.run(1)).len(), 3);
    let (next, _) = d.next_probe();
    assert_ne!(next, target);
    assert_eq!(d.now.as_millis() - begun, 9_000);
}

// Lifeguard IV-B: the suspicion timeout.

/// How long node 2 of a federation of ten is suspected when so many others accuse it.
fn suspected_for(accusers: &[u8]) -> u64 {
    let mut d = Driven::met(9);
    let begun = d.now.as_millis();
    for accuser in accusers {
        let mut news = claim(2, 0, State::Suspect);
        news.accusers = vec![node(*accuser)];
        d.hear(1, Body::News, vec![news]);
    }
    while d.state(2) != State::Dead {
        d.live(10, &[]);
    }
    d.now.as_millis() - begun
}

#[test]
fn independent_accusers_shorten_the_suspicion_and_repeats_do_not() {
    // Ten members: shortest 4 s, longest 24 s, K = 2; one confirmation cuts 20 s * log 2 / log 3.
    let near = |expected: u64, found: u64| found.abs_diff(expected) <= 20;
    assert!(near(24_000, suspected_for(&[4])));
    assert!(near(24_000, suspected_for(&[4, 4, 4, 4])));
    assert!(near(11_381, suspected_for(&[4, 5])), "{}", suspected_for(&[4, 5]));
    assert!(near(4_000, suspected_for(&[4, 5, 6])));
    assert!(near(4_000, suspected_for(&[4, 5, 6, 7, 8])));
}

#[test]
fn who_accuses_itself_or_is_no_member_confirms_nothing() {
    let near = |expected: u64, found: u64| found.abs_diff(expected) <= 20;
    assert!(near(24_000, suspected_for(&[4, 2, 200, 201])));
}

#[test]
fn a_new_accuser_is_told_on() {
    let mut d = Driven::met(9);
    d.hear(1, Body::News, vec![claim(2, 0, State::Suspect)]);
    d.drain_news();
    let mut news = claim(2, 0, State::Suspect);
    news.accusers = vec![node(5)];
    d.hear(1, Body::News, vec![news]);
    let sent = d.hear(3, Body::Ping { number: 1 }, vec![]);
    let told = sent[0].2.claims.iter().find(|c| c.replica.node == node(2)).expect("told");
    assert_eq!(told.accusers, vec![node(9), node(5)]);
}

// Lifeguard IV-C: the buddy system.

#[test]
fn a_suspect_learns_of_it_with_every_ping() {
    let mut d = Driven::met(3);
    d.hear(1, Body::News, vec![claim(2, 0, State::Suspect)]);
    d.drain_news();
    let sent = d.live(3_500, &[2]);
    let to_suspect: Vec<&Sent> =
        sent.iter().filter(|s| ping(s).is_some() && s.1 == node(2)).collect();
    assert!(!to_suspect.is_empty());
    assert!(to_suspect.iter().all(|(_, _, m)| {
        m.claims.first().is_some_and(|c| c.replica.node == node(2) && c.state == State::Suspect)
    }));
}

// Ours, where the papers are silent.

#[test]
fn the_dead_are_pinged_now_and_then_and_told_of_it() {
    let mut d = Driven::met(3);
    d.hear(1, Body::News, vec![claim(2, 0, State::Dead)]);
    d.drain_news();
    let sent = d.live(60_000, &[2]);
    let to_dead: Vec<&Sent> = sent.iter().filter(|s| ping(s).is_some() && s.1 == node(2)).collect();
    assert!((10..=13).contains(&to_dead.len()), "{}", to_dead.len());
    assert!(to_dead.iter().all(|(_, _, m)| m.claims[0].state == State::Dead));
}

#[test]
fn who_leaves_says_so_and_probes_no_more() {
    let mut d = Driven::met(7);
    let sent = d.step(Event::Leave);
    assert_eq!(sent.len(), 7);
    assert!(sent.iter().all(|(_, _, m)| m.me.state == State::Left));
    assert!(d.run(60_000).is_empty());
    // It still answers, so that nobody takes it for dead before it is gone.
    let sent = d.hear(3, Body::Ping { number: 5 }, vec![]);
    assert!(says(&sent, 3, Body::Ack { number: 5 }));
}

#[test]
fn a_refutation_goes_straight_to_the_accusers() {
    let mut d = Driven::met(9);
    let mut news = claim(ME, 0, State::Suspect);
    news.accusers = vec![node(4), node(5)];
    let sent = d.hear(1, Body::News, vec![news]);
    let told: BTreeSet<NodeId> = sent.iter().map(|(_, to, _)| *to).collect();
    assert_eq!(told, BTreeSet::from([node(1), node(4), node(5)]));
}

// Whatever a member says.

fn any_claim() -> impl Strategy<Value = Claim> {
    let states = [State::Alive, State::Suspect, State::Dead, State::Left];
    let accusers = proptest::collection::vec((0..12_u8).prop_map(node), 0..11);
    (0..12_u8, 4..7_u64, any::<u64>(), 0..40_u32, 0..4_usize, accusers).prop_map(
        move |(n, boot, refutations, shift, state, accusers)| {
            let mut claim = claim(n, refutations >> (shift + 24), states[state]);
            claim.incarnation.boot.count = boot;
            claim.accusers = accusers;
            claim
        },
    )
}

fn any_message() -> impl Strategy<Value = (u8, Message)> {
    let body = prop_oneof![
        (0..20_u64).prop_map(|number| Body::Ping { number }),
        (0..20_u64, 0..12_u8).prop_map(|(number, n)| Body::PingRequest { number, target: node(n) }),
        (0..20_u64).prop_map(|number| Body::Ack { number }),
        (0..20_u64).prop_map(|number| Body::Nack { number }),
        Just(Body::News),
        (0..12_u8).prop_map(|n| Body::Push { after: Some(node(n)), upto: None }),
        (0..12_u8).prop_map(|n| Body::Push { after: None, upto: Some(node(n)) }),
        (0..12_u8).prop_map(|n| Body::Pull { after: None, upto: Some(node(n)) }),
    ];
    let claims = proptest::collection::vec(any_claim(), 0..70);
    (0..12_u8, body, any_claim(), claims, any::<bool>()).prop_map(
        |(n, body, card, claims, honest)| {
            let me = if honest { claim(n, 0, State::Alive) } else { card };
            (n, Message { body, me, claims, loads: Vec::new() })
        },
    )
}

proptest! {
    #[test]
    fn no_message_breaks_it_and_every_answer_is_within_bounds(
        messages in proptest::collection::vec((any_message(), 0..2_000_u64), 0..60),
    ) {
        let mut d = Driven::new(9, GossipConfig::default());
        let mut sent = 0;
        for ((from, message), pause) in messages {
            let event = Event::Received { from: node(from), message };
            let end = Instant(d.now.0 + pause * 1_000_000);
            let mut next = Some(event);
            while let Some(event) = next {
                let now = Now { mono: d.now, wall: WallTime(0) };
                d.machine.step(now, event, &mut d.out);
                for action in d.out.drain() {
                    if let Action::Send { to, message } = action {
                        prop_assert!(to != node(ME));
                        prop_assert_eq!(message.check(node(ME)), Ok(()));
                        sent += 1;
                    }
                }
                let due = d.machine.deadline().filter(|due| *due <= end);
                d.now = due.unwrap_or(end).max(d.now);
                next = due.map(|_| Event::Tick);
            }
        }
        prop_assert_eq!(d.machine.members().count(), 10);
        prop_assert!(sent < 60 * 200);
        prop_assert_eq!(d.state(ME), State::Alive);
    }
}
