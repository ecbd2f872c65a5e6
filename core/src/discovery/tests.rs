//! The discovery machine, driven by hand.

use alloc::format;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::id::{Boot, StoreId};
use crate::time::WallTime;

const ME: NodeId = NodeId([0xee; 16]);

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn host(n: u16) -> Address {
    Address(format!("host{n}:7000"))
}

fn identity(node: NodeId) -> Identity {
    Identity { node, store: StoreId::default(), boot: Boot::default() }
}

struct Driven {
    machine: Discovery,
    now: Instant,
}

impl Driven {
    fn new(config: DiscoveryConfig, contacts: Vec<Contact>) -> Self {
        let machine = Discovery::new(ME, config, &Seed::from_number(3), contacts);
        Self { machine, now: Instant::from_millis(1) }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        let now = Now { mono: self.now, wall: WallTime(0) };
        self.machine.step(now, event, &mut out);
        assert!(self.machine.deadline().is_none_or(|due| due > self.now), "nothing is left due");
        out.drain().collect()
    }

    /// Lets this many milliseconds pass, with a tick at each deadline.
    fn run(&mut self, ms: u64) -> Vec<(u64, Action)> {
        let end = self.now + Duration::from_millis(ms);
        let mut seen = Vec::new();
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let at = self.now.as_millis();
            seen.extend(self.step(Event::Tick).into_iter().map(|action| (at, action)));
        }
        self.now = end;
        seen
    }

    fn listed(&mut self, places: &[u16]) -> Vec<Action> {
        let peers = places.iter().map(|n| Contact { node: None, address: host(*n) }).collect();
        self.step(Event::Resolved { source: Source::Bootstrap, peers })
    }

    fn verify(&mut self, n: u16, outcome: Result<NodeId, Unverified>) -> Vec<Action> {
        self.step(Event::Verified { address: host(n), outcome: outcome.map(identity) })
    }
}

fn dials(actions: &[Action]) -> Vec<&Address> {
    let dialled = actions.iter().filter_map(|action| match action {
        Action::Verify { address } => Some(address),
        _ => None,
    });
    dialled.collect()
}

fn dial_times(actions: &[(u64, Action)]) -> Vec<u64> {
    let dialled = actions.iter().filter(|(_, action)| matches!(action, Action::Verify { .. }));
    dialled.map(|(at, _)| *at).collect()
}

#[test]
fn a_candidate_is_found_only_by_its_handshake() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    let actions = d.listed(&[1]);
    assert_eq!(dials(&actions), vec![&host(1)]);
    assert_eq!(d.machine.verified().count(), 0);
    let actions = d.verify(1, Ok(node(1)));
    assert!(matches!(&actions[..], [Action::Connect { identity, .. }] if identity.node == node(1)));
    assert_eq!(d.machine.contacts(), vec![Contact { node: Some(node(1)), address: host(1) }]);
}

#[test]
fn a_silent_address_is_dialled_ever_more_rarely_but_for_ever() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    d.listed(&[1]);
    let (mut pauses, mut last) = (vec![], d.now.as_millis());
    for _ in 0..12 {
        d.verify(1, Err(Unverified::Unreachable));
        let times = dial_times(&d.run(15_000));
        let first = times.first().copied().expect("it is dialled again");
        pauses.push(first - last);
        // The test answers only the first dial of each run.
        last = d.now.as_millis();
    }
    assert!(pauses[0] <= 250 && pauses[2] > 500, "{pauses:?}");
    assert!(pauses[7..].iter().all(|pause| (11_250..=15_000).contains(pause)), "{pauses:?}");
}

#[test]
fn an_unexpected_node_is_retried_later_than_no_answer() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    d.listed(&[1]);
    d.verify(1, Err(Unverified::Refused));
    let told = vec![Contact { node: Some(node(1)), address: host(1) }];
    d.step(Event::Connected { peer: node(9) });
    d.step(Event::ContactsReceived { from: node(9), contacts: told });
    assert!(dial_times(&d.run(80_000)).is_empty(), "neither time nor hearsay shortens it");
    assert!(!dial_times(&d.run(60_000)).is_empty());
}

#[test]
fn this_nodes_own_address_is_dialled_once() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    d.listed(&[1, 2]);
    let actions = d.verify(1, Ok(ME));
    assert!(actions.is_empty());
    d.verify(2, Ok(node(2)));
    d.step(Event::Connected { peer: node(2) });
    for _ in 0..20 {
        assert!(dials(&d.listed(&[1, 2])).is_empty());
        d.run(30_000);
    }
    assert!(d.machine.contacts().iter().all(|contact| contact.address != host(1)));
}

#[test]
fn sources_are_resolved_for_ever_and_more_often_without_peers() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    let resolves = |seen: &[(u64, Action)]| {
        seen.iter().filter(|(_, action)| matches!(action, Action::Resolve { .. })).count()
    };
    let alone = resolves(&d.run(600_000));
    assert!((80..=107).contains(&alone), "{alone}");
    d.step(Event::Connected { peer: node(1) });
    d.run(30_000);
    let together = resolves(&d.run(600_000));
    assert!((20..=27).contains(&together), "{together}");
    d.step(Event::Unreachable { peer: node(1) });
    assert!(resolves(&d.run(7_500)) > 0);
}

#[test]
fn one_node_at_two_addresses_is_one_peer() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    d.listed(&[1, 2]);
    assert_eq!(d.verify(1, Ok(node(1))).len(), 1);
    d.step(Event::Connected { peer: node(1) });
    assert!(d.verify(2, Ok(node(1))).is_empty(), "its link stays where it is");
    assert_eq!(d.machine.verified().count(), 2);
    d.step(Event::Unreachable { peer: node(1) });
    let seen = d.run(300);
    assert_eq!(dial_times(&seen).len(), 2, "both addresses are tried again");
}

#[test]
fn a_moved_node_is_followed() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    d.listed(&[1]);
    d.verify(1, Ok(node(1)));
    d.step(Event::Connected { peer: node(1) });
    d.step(Event::Located { node: node(1), address: host(5) });
    assert!(dial_times(&d.run(60_000)).is_empty());
    d.step(Event::Unreachable { peer: node(1) });
    let seen = d.run(300);
    assert!(
        seen.iter().any(|(_, a)| matches!(a, Action::Verify { address } if *address == host(5)))
    );
    let found = d.verify(5, Ok(node(1)));
    assert!(matches!(&found[..], [Action::Connect { address, .. }] if *address == host(5)));
    // Another node took over the old address.
    d.verify(1, Ok(node(2)));
    let contact = Contact { node: Some(node(2)), address: host(1) };
    assert!(d.machine.contacts().contains(&contact));
}

#[test]
fn only_verified_contacts_are_sent_and_not_too_often() {
    let hearsay = Contact { node: Some(node(7)), address: host(7) };
    let mut d = Driven::new(DiscoveryConfig::default(), vec![hearsay]);
    d.listed(&[1, 2, 3]);
    d.verify(1, Ok(node(1)));
    d.verify(2, Ok(node(2)));
    let actions = d.step(Event::Connected { peer: node(1) });
    let expected = vec![Contact { node: Some(node(2)), address: host(2) }];
    assert!(actions.iter().any(
        |action| matches!(action, Action::SendContacts { to, contacts } if *to == node(1) && *contacts == expected)
    ));
    assert!(d.step(Event::Connected { peer: node(1) }).is_empty());
    // The change is sent once the contacts stop changing, and then nothing more.
    d.verify(3, Ok(node(3)));
    let tells = |seen: &[(u64, Action)]| {
        seen.iter().filter(|(_, action)| matches!(action, Action::SendContacts { .. })).count()
    };
    assert_eq!(tells(&d.run(5_000)), 1);
    d.step(Event::Connected { peer: node(3) });
    d.step(Event::Connected { peer: node(2) });
    assert_eq!(tells(&d.run(50_000)), 0);
}

#[test]
fn contacts_are_saved_once_they_stop_changing_and_survive() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    d.listed(&[1, 2, 3]);
    for n in 1..=3 {
        d.verify(n, Ok(node(n as u8)));
        d.run(300);
    }
    let seen = d.run(60_000);
    let written: Vec<_> = seen
        .iter()
        .filter_map(|(_, action)| match action {
            Action::SaveContacts { contacts } => Some(contacts.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(written.len(), 1, "three changes, one write");
    let mut d = Driven::new(DiscoveryConfig::default(), written[0].clone());
    assert_eq!(d.machine.contacts(), written[0]);
    assert_eq!(dials(&d.step(Event::Tick)).len(), 3);
    assert_eq!(d.machine.verified().count(), 0);
}

#[test]
fn a_flood_evicts_nothing_better() {
    let mut d = Driven::new(DiscoveryConfig { candidates_max: 20, ..Default::default() }, vec![]);
    d.listed(&[1, 2]);
    d.verify(1, Ok(node(1)));
    d.step(Event::Connected { peer: node(9) });
    for round in 0..50_u16 {
        let many = (0..200).map(|n| Contact { node: None, address: host(100 + round * 200 + n) });
        d.step(Event::ContactsReceived { from: node(9), contacts: many.collect() });
        d.run(1_000);
    }
    assert_eq!(d.machine.known(), 20);
    let known = |d: &Driven, n| d.machine.candidates.contains(&host(n));
    assert!(known(&d, 1) && known(&d, 2));
    assert!(d.machine.candidates.dialling() <= DIALS_MAX);
    // The operator's list still has room in the table.
    d.listed(&[3, 4]);
    assert!(known(&d, 3) && known(&d, 4));
}

#[test]
fn a_dial_that_is_never_answered_ends() {
    let mut d = Driven::new(DiscoveryConfig::default(), vec![]);
    let start = d.now.as_millis();
    d.listed(&[1]);
    let times = dial_times(&d.run(35_000));
    assert_eq!(times.len(), 1);
    assert!(times[0] - start >= 30_000);
}

fn any_event() -> impl Strategy<Value = Event> {
    let contact = (0..30_u16, proptest::option::of(0..9_u8))
        .prop_map(|(n, id)| Contact { node: id.map(node), address: host(n) });
    let contacts = proptest::collection::vec(contact, 0..6);
    let outcome = prop_oneof![
        (0..9_u8).prop_map(|n| Ok(identity(node(n)))),
        Just(Ok(identity(ME))),
        Just(Err(Unverified::Unreachable)),
        Just(Err(Unverified::Refused)),
    ];
    prop_oneof![
        Just(Event::Tick),
        contacts.clone().prop_map(|peers| Event::Resolved { source: Source::Bootstrap, peers }),
        (0..9_u8, contacts)
            .prop_map(|(n, contacts)| Event::ContactsReceived { from: node(n), contacts }),
        (0..30_u16, outcome).prop_map(|(n, outcome)| Event::Verified { address: host(n), outcome }),
        (0..9_u8).prop_map(|n| Event::Connected { peer: node(n) }),
        (0..9_u8).prop_map(|n| Event::Unreachable { peer: node(n) }),
        (0..9_u8, 0..30_u16)
            .prop_map(|(n, at)| Event::Located { node: node(n), address: host(at) }),
    ]
}

proptest! {
    #[test]
    fn any_events_leave_it_bounded_and_honest(
        events in proptest::collection::vec((any_event(), 0..9_000_u64), 0..120),
    ) {
        let mut d = Driven::new(DiscoveryConfig { candidates_max: 12, ..Default::default() }, vec![]);
        let mut proven = alloc::collections::BTreeSet::new();
        for (event, pause) in events {
            if let Event::Verified { address, outcome: Ok(identity) } = &event {
                proven.insert((address.clone(), identity.node));
            }
            let mut actions = d.step(event);
            actions.extend(d.run(pause).into_iter().map(|(_, action)| action));
            for action in actions {
                if let Action::SendContacts { contacts, .. } | Action::SaveContacts { contacts } = action {
                    for contact in contacts {
                        let node = contact.node.expect("a verified contact has a node");
                        prop_assert!(proven.contains(&(contact.address, node)) && node != ME);
                    }
                }
            }
            prop_assert!(d.machine.known() <= 12);
            let c = &d.machine.candidates;
            prop_assert!(c.dialling() <= DIALS_MAX);
        }
    }
}
