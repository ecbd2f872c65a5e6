//! Lifeguard (section IV), rule by rule.

use continuum_core::gossip::{Body, State};

use super::driven::{Driven, ME, Sent, node, ping, requests, update};

// Lifeguard IV-A: the local health multiplier, and nacks.

#[test]
fn a_helper_sends_a_nack_when_it_cannot_reach_the_target() {
    let mut d = Driven::met(7);
    let asked = d.now.as_millis();
    d.receive(1, Body::PingRequest { number: 77, target: node(2) }, vec![]);
    let sent = d.live(900, &[2]);
    let nacks: Vec<&Sent> = sent.iter().filter(|s| s.2.body == Body::Nack { number: 77 }).collect();
    assert_eq!(nacks.len(), 1);
    // After four fifths of the time that the requester has left.
    assert_eq!((nacks[0].1, nacks[0].0 - asked), (node(1), 400));
}

/// Runs one probe that fails; `nacks` of the three helpers send a nack.
fn fail_probe(d: &mut Driven, nacks: usize) {
    let (_, number) = d.next_probe();
    let asked = requests(&d.run(500 * u64::from(d.machine.local_health() + 1)));
    assert_eq!(asked.len(), 3);
    for (helper, _, _) in asked.iter().take(nacks) {
        d.receive(helper.0[0], Body::Nack { number }, vec![]);
    }
    let ends = 500 * u64::from(d.machine.local_health() + 1);
    d.run(ends);
}

#[test]
fn missing_nacks_worsen_local_health_and_a_full_set_does_not() {
    let mut d = Driven::met(30);
    fail_probe(&mut d, 3);
    assert_eq!(d.machine.local_health(), 0);
    fail_probe(&mut d, 2);
    assert_eq!(d.machine.local_health(), 1);
}

#[test]
fn a_successful_probe_improves_local_health_and_a_refutation_worsens_it() {
    let mut d = Driven::met(30);
    d.receive(1, Body::Updates, vec![update(ME, 0, State::Suspect)]);
    assert_eq!(d.machine.local_health(), 1);
    d.live(5_000, &[]);
    assert_eq!(d.machine.local_health(), 0);
}

#[test]
fn bad_local_health_lengthens_period_and_timeout_up_to_a_limit() {
    let mut d = Driven::met(30);
    for refutations in 0..40 {
        d.receive(1, Body::Updates, vec![update(ME, refutations, State::Suspect)]);
    }
    assert_eq!(d.machine.local_health(), 8);
    let (target, _) = d.next_probe();
    let begun = d.now.as_millis();
    assert!(requests(&d.run(4_499)).is_empty(), "the timeout of 0.5 s is nine times as long");
    assert_eq!(requests(&d.run(1)).len(), 3);
    let ends = d.next_pings();
    assert_eq!(d.now.as_millis() - begun, 9_000);
    // The failed target is suspected and asked, and the next probe begins.
    assert_eq!(ends.len(), 2);
    assert_eq!(ends.iter().filter(|to| **to == target).count(), 1);
}

#[test]
fn bad_local_health_does_not_slow_the_pings_of_dead_members() {
    let mut d = Driven::met(30);
    d.receive(1, Body::Updates, vec![update(2, 0, State::Dead)]);
    for refutations in 0..40 {
        d.receive(1, Body::Updates, vec![update(ME, refutations, State::Suspect)]);
    }
    assert_eq!(d.machine.local_health(), 8);
    let sent = d.run(27_000);
    let asked = sent.iter().filter(|s| ping(s).is_some() && s.1 == node(2));
    assert_eq!(asked.count(), 3, "one ping in each of the long periods");
}

// Lifeguard IV-B: the suspicion timeout.

/// Milliseconds from the first suspicion of node 2 by these members to its death, in a federation of ten.
fn suspected_for(confirmations: &[u8]) -> u64 {
    let mut d = Driven::met(9);
    let begun = d.now.as_millis();
    for member in confirmations {
        let mut suspicion = update(2, 0, State::Suspect);
        suspicion.confirmations = vec![node(*member)];
        d.receive(1, Body::Updates, vec![suspicion]);
    }
    while d.state(2) != State::Dead {
        d.live(10, &[]);
    }
    d.now.as_millis() - begun
}

#[test]
fn independent_confirmations_shorten_the_suspicion_and_repeats_do_not() {
    // Ten members: shortest 4 s, longest 24 s, K = 2. One confirmation removes 20 s * log 2 / log 3.
    let near = |expected: u64, found: u64| found.abs_diff(expected) <= 20;
    assert!(near(24_000, suspected_for(&[4])));
    assert!(near(24_000, suspected_for(&[4, 4, 4, 4])));
    assert!(near(11_381, suspected_for(&[4, 5])), "{}", suspected_for(&[4, 5]));
    assert!(near(4_000, suspected_for(&[4, 5, 6])));
    assert!(near(4_000, suspected_for(&[4, 5, 6, 7, 8])));
}

#[test]
fn the_suspect_itself_and_non_members_confirm_nothing() {
    let near = |expected: u64, found: u64| found.abs_diff(expected) <= 20;
    assert!(near(24_000, suspected_for(&[4, 2, 200, 201])));
}

#[test]
fn a_new_confirmation_is_forwarded() {
    let mut d = Driven::met(9);
    d.receive(1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    d.drain_news();
    let mut suspicion = update(2, 0, State::Suspect);
    suspicion.confirmations = vec![node(5)];
    d.receive(1, Body::Updates, vec![suspicion]);
    let sent = d.receive(3, Body::Ping { number: 1 }, vec![]);
    let forwarded =
        sent[0].2.updates.iter().find(|c| c.replica.node == node(2)).expect("it is sent");
    assert_eq!(forwarded.confirmations, vec![node(9), node(5)]);
}

// Lifeguard IV-C: the buddy system.

#[test]
fn every_ping_tells_a_suspect_of_the_suspicion() {
    let mut d = Driven::met(3);
    d.receive(1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    d.drain_news();
    let sent = d.live(3_500, &[2]);
    let to_suspect: Vec<&Sent> =
        sent.iter().filter(|s| ping(s).is_some() && s.1 == node(2)).collect();
    assert!(!to_suspect.is_empty());
    assert!(to_suspect.iter().all(|(_, _, m)| {
        m.updates.first().is_some_and(|c| c.replica.node == node(2) && c.state == State::Suspect)
    }));
}

#[test]
fn a_member_that_suspects_another_tells_it_at_once() {
    let mut d = Driven::met(7);
    let (target, _) = d.next_probe();
    let sent = d.run(1_000);
    // A ping, since a member that has refuted another's suspicion already answers nothing else.
    let asks = sent.iter().rfind(|sent| ping(sent).is_some_and(|(to, _)| to == target));
    let (_, _, message) = asks.expect("it is asked");
    assert_eq!(message.updates[0].state, State::Suspect);
    assert_eq!(message.updates[0].replica.node, target);
}

#[test]
fn a_member_that_hears_of_a_suspicion_asks_the_suspect_at_once() {
    let mut d = Driven::met(7);
    let suspicion = vec![update(2, 0, State::Suspect)];
    let sent = d.receive(1, Body::Updates, suspicion.clone());
    let asked = |sent: &[Sent]| sent.iter().filter_map(ping).filter(|to| to.0 == node(2)).count();
    assert_eq!(asked(&sent), 1);
    assert_eq!(asked(&d.receive(1, Body::Updates, suspicion)), 0, "it is asked once");
}
