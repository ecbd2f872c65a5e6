//! SWIM (Das, Gupta, Motivala, DSN 2002, sections 3 and 4) and Lifeguard (Dadgar, Phillips, Currey, DSN 2018, section
//! IV), message by message: one test for each rule that the machine follows. Tests of many machines together are in
//! `core/src/gossip`.

#[path = "swim/driven.rs"]
mod driven;
#[path = "swim/hostile.rs"]
mod hostile;
#[path = "swim/lifeguard.rs"]
mod lifeguard;
#[path = "swim/members.rs"]
mod members;
#[path = "swim/transcript.rs"]
mod transcript;

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::config::GossipConfig;
use continuum_core::gossip::{Body, Event, State};
use continuum_core::id::{Address, NodeId};

use driven::{Driven, ME, Sent, incarnation, node, ping, replica, requests, says, update};

// SWIM 3.1: the failure detector.

#[test]
fn one_member_is_probed_in_each_period() {
    let mut d = Driven::met(7);
    let sent = d.live(20_000, &[]);
    let numbers: BTreeSet<u64> = sent.iter().filter_map(ping).map(|(_, number)| number).collect();
    assert!((19..=20).contains(&numbers.len()), "{numbers:?}");
}

#[test]
fn a_target_that_answers_is_not_pinged_again_in_the_period() {
    let mut d = Driven::met(7);
    let sent = d.live(20_000, &[]);
    let pings = sent.iter().filter_map(ping).count();
    assert!((19..=20).contains(&pings), "{pings}");
    assert!(requests(&sent).is_empty());
}

#[test]
fn a_silent_target_is_pinged_again_within_the_timeout() {
    // This rule is not in the paper: three direct pings, at 0, 1/3 and 2/3 of the ping timeout.
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
    assert!(asked.iter().all(|(helper, n, of)| *helper != target && *n == number && *of == target));
}

#[test]
fn a_member_asked_pings_the_target_and_forwards_its_ack() {
    let mut d = Driven::met(7);
    let sent = d.receive(1, Body::PingRequest { number: 77, target: node(2) }, vec![]);
    let (to, number) = sent.iter().find_map(ping).expect("a ping");
    assert_eq!(to, node(2));
    let sent = d.receive(2, Body::Ack { number }, vec![]);
    assert!(says(&sent, 1, Body::Ack { number: 77 }));
    assert!(d.receive(2, Body::Ack { number }, vec![]).is_empty(), "once");
}

#[test]
fn a_ping_is_answered_with_its_number() {
    let mut d = Driven::met(2);
    let sent = d.receive(2, Body::Ping { number: 31 }, vec![]);
    assert!(says(&sent, 2, Body::Ack { number: 31 }));
}

#[test]
fn an_indirect_ack_within_the_period_saves_the_target() {
    let mut d = Driven::met(7);
    let (target, number) = d.next_probe();
    let (helper, _, _) = requests(&d.run(500))[0];
    d.receive(helper.0[0], Body::Ack { number }, vec![]);
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
fn an_ack_of_another_probe_or_from_a_member_not_asked_counts_for_nothing() {
    let mut d = Driven::met(7);
    let (target, number) = d.next_probe();
    let asked = requests(&d.run(500));
    d.receive(target.0[0], Body::Ack { number: number - 1 }, vec![]);
    d.receive(target.0[0], Body::Ack { number: number + 1 }, vec![]);
    let helpers: Vec<NodeId> = asked.iter().map(|(helper, _, _)| *helper).collect();
    let bystander = (1..=7).find(|n| node(*n) != target && !helpers.contains(&node(*n)));
    d.receive(bystander.expect("of seven"), Body::Ack { number }, vec![]);
    d.run(600);
    assert_eq!(d.state(target.0[0]), State::Suspect);
}

#[test]
fn an_ack_to_a_ping_from_before_a_restart_counts_for_nothing() {
    // This rule is not in the paper: a process may restart between its ping and the answer.
    let numbers = |seed: u64| -> BTreeSet<u64> {
        let mut d = Driven::met_as(7, seed);
        d.live(100_000, &[]).iter().filter_map(ping).map(|(_, number)| number).collect()
    };
    let (before, after) = (numbers(11), numbers(12));
    assert!(before.len() > 90 && before.is_disjoint(&after));
}

// SWIM 4.1: dissemination.

#[test]
fn updates_are_piggybacked_on_pings_acks_and_requests() {
    let mut d = Driven::met(7);
    d.receive(1, Body::Updates, vec![update(2, 1, State::Alive)]);
    let carries = |sent: &[Sent]| {
        sent.iter().any(|(_, _, m)| m.updates.iter().any(|c| c.replica.node == node(2)))
    };
    assert!(carries(&d.receive(3, Body::Ping { number: 1 }, vec![])), "an ack");
    d.receive(1, Body::Updates, vec![update(2, 2, State::Alive)]);
    assert!(
        carries(&d.receive(3, Body::PingRequest { number: 1, target: node(4) }, vec![])),
        "a ping"
    );
    d.receive(1, Body::Updates, vec![update(2, 3, State::Alive)]);
    let silent = d.run(1600);
    assert!(carries(&silent));
}

#[test]
fn each_update_is_sent_lambda_log_n_times() {
    let mut d = Driven::met(9);
    d.receive(1, Body::Updates, vec![update(2, 1, State::Alive)]);
    let mut times = 0;
    for number in 0..40 {
        let sent = d.receive(3, Body::Ping { number }, vec![]);
        times += sent
            .iter()
            .flat_map(|(_, _, m)| &m.updates)
            .filter(|c| c.replica.node == node(2))
            .count();
    }
    // 4 * log10(10 + 1), rounded up.
    assert_eq!(times, 5);
}

#[test]
fn updates_sent_less_often_go_first() {
    let config = GossipConfig { updates_max: 1, ..GossipConfig::default() };
    let mut d = Driven::new(9, config);
    (1..=9).for_each(|n| drop(d.receive(n, Body::Updates, vec![])));
    (0..200).for_each(|_| {
        d.receive(1, Body::Ping { number: 0 }, vec![]);
        d.receive(2, Body::Ping { number: 0 }, vec![]);
    });
    let tell = |d: &mut Driven| {
        let sent = d.receive(3, Body::Ping { number: 1 }, vec![]);
        sent.iter()
            .flat_map(|(_, _, m)| &m.updates)
            .map(|c| c.replica.node.0[0])
            .collect::<Vec<_>>()
    };
    d.receive(1, Body::Updates, vec![update(4, 1, State::Alive)]);
    assert_eq!((tell(&mut d), tell(&mut d)), (vec![4], vec![4]));
    d.receive(1, Body::Updates, vec![update(5, 1, State::Alive)]);
    assert_eq!((tell(&mut d), tell(&mut d)), (vec![5], vec![5]));
}

#[test]
fn stale_updates_are_not_forwarded() {
    let mut d = Driven::met(7);
    d.receive(1, Body::Updates, vec![update(2, 4, State::Alive)]);
    d.drain_news();
    let before = d.changed.len();
    for (refutations, state) in [(3, State::Dead), (3, State::Suspect), (4, State::Alive)] {
        d.receive(1, Body::Updates, vec![update(2, refutations, state)]);
    }
    let sent = d.receive(3, Body::Ping { number: 1 }, vec![]);
    assert!(sent[0].2.updates.is_empty());
    assert_eq!(d.changed.len(), before);
}

// SWIM 4.2: suspicion.

#[test]
fn a_failed_target_is_suspected_and_the_suspicion_spreads() {
    let mut d = Driven::met(7);
    let (target, _) = d.next_probe();
    d.run(1000);
    let other = (1..=7).find(|n| node(*n) != target).expect("of seven");
    let sent = d.receive(other, Body::Ping { number: 1 }, vec![]);
    let suspicion =
        sent[0].2.updates.iter().find(|c| c.replica.node == target).expect("it is sent");
    assert_eq!((suspicion.state, &suspicion.confirmations), (State::Suspect, &vec![node(ME)]));
}

#[test]
fn a_suspect_is_still_a_member_and_is_probed() {
    let mut d = Driven::met(3);
    d.receive(1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    let sent = d.live(3_500, &[]);
    assert!(sent.iter().filter_map(ping).any(|(to, _)| to == node(2)));
}

#[test]
fn a_suspicion_that_times_out_is_a_death_and_the_death_spreads() {
    let mut d = Driven::met(3);
    d.step(Event::Remove { node: node(1) });
    d.receive(3, Body::Updates, vec![update(2, 0, State::Suspect)]);
    // With three members no one can confirm, so the shortest timeout applies: 4 * max(1, log10 3) periods.
    d.live(3_990, &[2]);
    assert_eq!(d.state(2), State::Suspect);
    d.live(20, &[2]);
    assert_eq!(d.state(2), State::Dead);
    let sent = d.receive(3, Body::Ping { number: 1 }, vec![]);
    assert!(sent[0].2.updates.iter().any(|c| c.replica.node == node(2) && c.state == State::Dead));
}

#[test]
fn a_suspect_that_refutes_in_time_stays_alive() {
    let mut d = Driven::met(3);
    d.receive(1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    d.live(2_000, &[]);
    assert_eq!(d.state(2), State::Suspect, "an ack is no refutation");
    d.receive(3, Body::Updates, vec![update(2, 1, State::Alive)]);
    assert_eq!((d.state(2), d.refutations(2)), (State::Alive, 1));
    d.live(60_000, &[]);
    assert_eq!(d.state(2), State::Alive);
}

#[test]
fn a_suspected_member_raises_its_incarnation() {
    let mut d = Driven::met(3);
    let sent = d.receive(1, Body::Ping { number: 1 }, vec![update(ME, 0, State::Suspect)]);
    assert_eq!(d.refutations(ME), 1);
    assert!(sent.iter().all(|(_, _, m)| m.sender.incarnation == incarnation(1)));
    // A suspicion of an older incarnation gets no answer.
    d.receive(2, Body::Updates, vec![update(ME, 0, State::Dead)]);
    assert_eq!(d.refutations(ME), 1);
    d.receive(2, Body::Updates, vec![update(ME, 1, State::Dead)]);
    assert_eq!(d.refutations(ME), 2);
}

#[test]
fn no_member_raises_the_incarnation_of_another() {
    let mut d = Driven::met(4);
    let mut sent = Vec::new();
    for round in 0..20 {
        let claimed = update(2, 0, if round % 2 == 0 { State::Suspect } else { State::Dead });
        sent.extend(d.receive(1, Body::Ping { number: round }, vec![claimed]));
        sent.extend(d.live(700, &[3]));
    }
    let updates = sent.iter().flat_map(|(_, _, m)| &m.updates);
    assert!(updates.filter(|c| c.replica.node != node(ME)).all(|c| c.incarnation.refutations == 0));
}

/// All updates in order: the paper's table of overrides, and a later boot above everything.
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
            // The member has not spoken to this node itself. Once it has, nobody else's word changes its boot.
            let mut d = Driven::new(4, GossipConfig::default());
            d.receive(1, Body::Updates, vec![]);
            for (boot, refutations, state) in [first, second] {
                let mut claimed = update(2, *refutations, *state);
                claimed.incarnation.boot.count = *boot;
                d.receive(1, Body::Updates, vec![claimed]);
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
                d.receive(target.0[0], Body::Ack { number }, vec![]);
                target
            })
            .collect();
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 20);
        orders.insert(round);
    }
    assert_eq!(orders.len(), 5);
}

#[test]
fn every_member_is_probed_within_two_rounds_while_others_join() {
    let mut d = Driven::met(8);
    let mut last: BTreeMap<NodeId, usize> = (1..=8).map(|n| (node(n), 0)).collect();
    for period in 1..200 {
        if period % 9 == 0 && period < 100 {
            let n = 8 + (period / 9) as u8;
            let (replica, address) = (replica(n), Address(format!("host{n}:1")));
            d.step(Event::Add { replica, name: format!("n{n}"), address });
            last.insert(node(n), period);
        }
        let (target, number) = d.next_probe();
        d.receive(target.0[0], Body::Ack { number }, vec![]);
        let waited = period - last.insert(target, period).expect("a member");
        assert!(waited < 2 * last.len(), "{target} waited {waited} periods among {}", last.len());
    }
}

// Rules that are not in the papers.

#[test]
fn dead_members_are_pinged_sometimes_and_learn_of_their_death() {
    let mut d = Driven::met(3);
    d.receive(1, Body::Updates, vec![update(2, 0, State::Dead)]);
    d.drain_news();
    let sent = d.live(60_000, &[2]);
    let to_dead: Vec<&Sent> = sent.iter().filter(|s| ping(s).is_some() && s.1 == node(2)).collect();
    assert!((10..=13).contains(&to_dead.len()), "{}", to_dead.len());
    assert!(to_dead.iter().all(|(_, _, m)| m.updates[0].state == State::Dead));
}

#[test]
fn a_leaving_member_announces_it_and_stops_probing() {
    let mut d = Driven::met(7);
    let sent = d.step(Event::Leave);
    assert_eq!(sent.len(), 7);
    assert!(sent.iter().all(|(_, _, m)| m.sender.state == State::Left));
    assert!(d.run(60_000).is_empty());
    // It still answers, so that no member declares it dead before it is gone.
    let sent = d.receive(3, Body::Ping { number: 5 }, vec![]);
    assert!(says(&sent, 3, Body::Ack { number: 5 }));
}

#[test]
fn a_refutation_goes_straight_to_the_members_that_suspect() {
    let mut d = Driven::met(9);
    let mut suspicion = update(ME, 0, State::Suspect);
    suspicion.confirmations = vec![node(4), node(5)];
    let sent = d.receive(1, Body::Updates, vec![suspicion]);
    let receivers: BTreeSet<NodeId> = sent.iter().map(|(_, to, _)| *to).collect();
    assert_eq!(receivers, BTreeSet::from([node(1), node(4), node(5)]));
}
