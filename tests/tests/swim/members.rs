//! Senders that a machine accepts, and the full sync, page by page. These rules are not in the papers, which have no
//! registry.

use std::collections::BTreeSet;

use continuum_core::config::GossipConfig;
use continuum_core::gossip::{Action, Body, Event, Load, Message, State, UPDATES_MAX, Update};
use continuum_core::id::{Address, NodeId, StoreId};
use continuum_core::machine::{Machine, Now};
use continuum_core::time::WallTime;

use super::driven::{Driven, ME, Sent, message, node, replica, update};

/// The machine's reasons for rejecting a message.
fn refused(d: &mut Driven, from: NodeId, message: Message) -> Vec<&'static str> {
    let now = Now { mono: d.now, wall: WallTime(0) };
    d.machine.step(now, Event::Received { from, message }, &mut d.out);
    let reasons = d.out.drain().map(|action| match action {
        Action::Rejected { why, .. } => why,
        other => panic!("expected a rejection, not {other:?}"),
    });
    reasons.collect()
}

#[test]
fn gossip_from_a_non_member_another_store_or_under_another_name_is_rejected() {
    let mut d = Driven::met(3);
    let updates = || vec![update(2, 9, State::Dead)];
    assert_eq!(refused(&mut d, node(7), message(7, Body::Ping { number: 1 }, updates())).len(), 1);
    let mut other_store = message(3, Body::Ping { number: 1 }, updates());
    other_store.sender.replica.store = StoreId([99; 16]);
    assert_eq!(refused(&mut d, node(3), other_store).len(), 1);
    let borrowed = message(1, Body::Ping { number: 1 }, updates());
    assert_eq!(refused(&mut d, node(3), borrowed).len(), 1);
    assert_eq!((d.state(2), d.machine.counters().rejected), (State::Alive, 3));
}

#[test]
fn claims_and_loads_of_unknown_nodes_are_counted_and_ignored() {
    let mut d = Driven::met(3);
    let mut other_store = update(2, 5, State::Dead);
    other_store.replica.store = StoreId([99; 16]);
    let mut received = message(1, Body::Updates, vec![update(50, 0, State::Alive), other_store]);
    let boot = received.sender.incarnation.boot;
    received.loads.push(Load { node: node(51), boot, version: 1, requests: 1 });
    d.step(Event::Received { from: node(1), message: received });
    assert_eq!((d.machine.counters().unknown, d.state(2)), (3, State::Alive));
    assert_eq!(d.machine.members().count(), 4);
}

#[test]
fn a_removed_member_is_rejected_and_another_store_is_another_member() {
    let mut d = Driven::met(3);
    d.step(Event::Remove { node: node(2) });
    let ping = message(2, Body::Ping { number: 1 }, vec![]);
    assert_eq!(refused(&mut d, node(2), ping.clone()).len(), 1);
    let mut fresh = replica(2);
    fresh.store = StoreId([77; 16]);
    d.step(Event::Add { replica: fresh, name: "n2".into(), address: Address("new:1".into()) });
    assert_eq!(refused(&mut d, node(2), ping).len(), 1, "the old disk is no member");
    let mut fresh_ping = message(2, Body::Ping { number: 1 }, vec![]);
    fresh_ping.sender.replica = fresh;
    fresh_ping.sender.incarnation.boot.count = 1;
    assert_eq!(d.step(Event::Received { from: node(2), message: fresh_ping }).len(), 1);
    let member = d.machine.member(node(2)).expect("a member");
    assert_eq!((member.replica, member.incarnation.boot.count), (fresh, 1));
}

#[test]
fn a_load_of_another_boot_or_an_older_report_does_not_win() {
    let mut d = Driven::met(3);
    let boot = update(2, 0, State::Alive).incarnation.boot;
    let mut report = |count: u64, version: u64, requests: u32| {
        let mut received = message(1, Body::Updates, vec![]);
        let mut boot = boot;
        boot.count = count;
        received.loads.push(Load { node: node(2), boot, version, requests });
        d.step(Event::Received { from: node(1), message: received });
        d.machine.member(node(2)).expect("a member").load
    };
    assert_eq!(report(boot.count, 5, 50), 50);
    assert_eq!(report(boot.count, 4, 40), 50);
    assert_eq!(report(boot.count, 5, 55), 50);
    assert_eq!(report(boot.count + 1, 9, 90), 50);
    assert_eq!(report(boot.count - 1, 9, 90), 50);
    assert_eq!(report(boot.count, u64::MAX, 60), 60);
}

/// The page in an answer: its updates, and where it ends.
fn page(sent: &[Sent]) -> (Vec<Update>, Option<NodeId>, Option<NodeId>) {
    let found = sent.iter().find_map(|(_, _, m)| match m.body {
        Body::Push { after, upto } | Body::Pull { after, upto } => {
            Some((m.updates.clone(), after, upto))
        }
        _ => None,
    });
    found.expect("a page")
}

fn large() -> Driven {
    let mut d = Driven::new(200, GossipConfig::default());
    (1..=200).for_each(|n| drop(d.receive(n, Body::Updates, vec![])));
    d
}

#[test]
fn a_member_that_knows_nothing_gets_the_whole_table_in_pages() {
    let mut d = large();
    let (mut after, mut known) = (None, BTreeSet::new());
    for _ in 0..4 {
        let sent = d.receive(1, Body::Push { after, upto: None }, vec![]);
        let (updates, _, upto) = page(&sent);
        assert!(updates.len() <= UPDATES_MAX);
        known.extend(updates.iter().map(|c| c.replica.node));
        after = upto;
        if after.is_none() {
            break;
        }
    }
    // All members except the asker.
    assert_eq!((known.len(), after), (199, None));
}

#[test]
fn a_session_pushes_page_after_page_until_the_table_ends() {
    let mut d = large();
    let is_page = |s: &Sent| matches!(s.2.body, Body::Push { .. });
    let mut sent = d.run(2_100).into_iter().filter(is_page).collect::<Vec<_>>();
    assert_eq!(sent.len(), 1, "the first session begins within two periods");
    let (mut known, mut pages) = (BTreeSet::new(), 0);
    while sent.iter().any(is_page) {
        let (updates, after, upto) = page(&sent);
        let peer = sent[0].1;
        known.extend(updates.iter().map(|c| c.replica.node));
        pages += 1;
        // An answer of another member does not advance the session.
        let other = if peer == node(1) { 2 } else { 1 };
        assert!(!d.receive(other, Body::Pull { after, upto }, vec![]).iter().any(is_page));
        sent = d.receive(peer.0[0], Body::Pull { after, upto }, vec![]);
    }
    assert_eq!((known.len(), pages), (200, 4));
}

#[test]
fn an_answer_holds_only_claims_newer_than_the_askers() {
    let mut d = Driven::met(6);
    d.receive(1, Body::Updates, vec![update(3, 4, State::Alive)]);
    let theirs: Vec<Update> = (2..=6).map(|n| update(n, 2, State::Alive)).collect();
    let (updates, _, _) = page(&d.receive(1, Body::Push { after: None, upto: None }, theirs));
    let nodes: Vec<NodeId> = updates.iter().map(|c| c.replica.node).collect();
    assert_eq!(nodes, vec![node(3)]);
    assert_eq!(d.refutations(4), 2, "newer updates of the asker are adopted");
}

#[test]
fn a_death_from_a_sync_becomes_a_suspicion_without_confirmations() {
    let mut d = Driven::met(9);
    for peer in [1, 3, 4, 5] {
        d.receive(peer, Body::Push { after: None, upto: None }, vec![update(2, 0, State::Dead)]);
    }
    assert_eq!(d.state(2), State::Suspect);
    d.live(23_000, &[]);
    assert_eq!(d.state(2), State::Suspect, "it gets the longest timeout");
    d.receive(2, Body::Ping { number: 1 }, vec![]);
    d.receive(6, Body::Updates, vec![update(2, 1, State::Alive)]);
    assert_eq!(d.state(2), State::Alive);
    assert_eq!(d.refutations(ME), 0);
}
