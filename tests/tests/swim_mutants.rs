//! The planted bugs of gossip, discovery and coordinator, each with the law that it breaks.
//!
//! The active mutant is global to the process, so this file holds a single test. Every law holds in the sound code and
//! fails under its mutant.

use continuum_core::api::Health;
use continuum_core::config::{CoordinatorConfig, DiscoveryConfig, GossipConfig};
use continuum_core::coordinator::{self, Choice, Coordinator, Liveness};
use continuum_core::discovery::{self, Discovery, Identity, Source};
use continuum_core::gossip::{
    self, Body, Gossip, Incarnation, Member, Message, REFUTATIONS_MAX, State, Update,
};
use continuum_core::id::{Address, Boot, Contact, NodeId, Replica, StoreId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::mark::instrument::{MUTANTS, activate};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn incarnation(refutations: u64) -> Incarnation {
    Incarnation { boot: Boot { count: 1, nonce: 1 }, refutations }
}

fn update(n: u8, refutations: u64, state: State) -> Update {
    Update {
        replica: Replica { node: node(n), store: StoreId::default() },
        incarnation: incarnation(refutations),
        state,
        address: Address("here:1".into()),
        confirmations: vec![node(3); usize::from(state == State::Suspect)],
    }
}

fn step<M: Machine>(machine: &mut M, ms: u64, event: M::Event) -> Vec<M::Action> {
    let mut out = Outbox::new();
    let now = Now { mono: Instant::from_millis(ms), wall: WallTime(0) };
    machine.step(now, event, &mut out);
    out.drain().collect()
}

/// Node 0 at millisecond 1. It knows nodes 1 to 5.
fn gossip() -> Gossip {
    let me = Member {
        replica: update(0, 0, State::Alive).replica,
        name: "me".into(),
        address: Address("here:1".into()),
        incarnation: incarnation(0),
        state: State::Alive,
        load: 0,
    };
    let mut machine = Gossip::new(me, GossipConfig::default(), &Seed::from_number(1));
    for n in 1..=5 {
        let Update { replica, address, .. } = update(n, 0, State::Alive);
        step(&mut machine, 1, gossip::Event::Add { replica, name: "n".into(), address });
        receive(&mut machine, 1, n, Body::Updates, vec![]);
    }
    machine
}

fn receive(
    machine: &mut Gossip,
    ms: u64,
    from: u8,
    body: Body,
    updates: Vec<Update>,
) -> Vec<gossip::Action> {
    let message =
        Message { body, sender: update(from, 0, State::Alive).into(), updates, loads: vec![] };
    step(machine, ms, gossip::Event::Received { from: node(from), message })
}

fn state(machine: &Gossip, n: u8) -> State {
    machine.member(node(n)).expect("a member").state
}

fn refutes() -> bool {
    let mut machine = gossip();
    receive(&mut machine, 1, 1, Body::Updates, vec![update(0, 0, State::Suspect)]);
    machine.own().incarnation.refutations == 1
}

fn keeps_the_newer_boot_against(claimed: State) -> bool {
    let mut machine = gossip();
    receive(&mut machine, 1, 1, Body::Updates, vec![update(2, 1, State::Alive)]);
    receive(&mut machine, 1, 1, Body::Updates, vec![update(2, 0, claimed)]);
    state(&machine, 2) == State::Alive
}

/// Node 2 proved its process over its own link, so nobody can tell of another one.
fn keeps_the_proved_boot() -> bool {
    let mut machine = gossip();
    let mut lie = update(2, 0, State::Dead);
    lie.incarnation.boot = Boot { count: u64::MAX, nonce: 7 };
    receive(&mut machine, 1, 1, Body::Updates, vec![lie]);
    state(&machine, 2) == State::Alive
}

/// After one lie a member can still refute.
fn leaves_refutations() -> bool {
    let mut machine = gossip();
    let lies =
        vec![update(0, REFUTATIONS_MAX, State::Dead), update(2, REFUTATIONS_MAX, State::Dead)];
    receive(&mut machine, 1, 1, Body::Updates, lies);
    machine.own().incarnation.refutations == 0 && state(&machine, 2) == State::Alive
}

/// Ticks through the first probe. Only `liar` answers it. Returns the target's state at its end.
fn first_probe(mut liar: bool) -> State {
    let mut machine = gossip();
    let mut begun = None;
    loop {
        let due = machine.deadline().expect("a probe").as_millis() + 1;
        if let Some((target, number, ends)) = begun {
            if due > ends {
                step(&mut machine, ends, gossip::Event::Tick);
                return state(&machine, target);
            }
            // A member that was not asked to help sends an ack for the target.
            let bystander = (1..=5).find(|n| *n != target).expect("of five");
            if core::mem::take(&mut liar) {
                receive(&mut machine, due - 1, bystander, Body::Ack { number }, vec![]);
            }
        }
        for action in step(&mut machine, due, gossip::Event::Tick) {
            if let gossip::Action::Send { to, message } = action
                && let Body::Ping { number } = message.body
                && begun.is_none()
            {
                begun = Some((to.0[0], number, due + 1000));
            }
        }
    }
}

fn informs_the_suspect() -> bool {
    let mut machine = gossip();
    receive(&mut machine, 1, 1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    // Use up the retransmissions to the others first, so that only the buddy system is left.
    (0..50).for_each(|number| drop(receive(&mut machine, 1, 1, Body::Ping { number }, vec![])));
    let sent = receive(&mut machine, 1, 2, Body::Ping { number: 1 }, vec![]);
    sent.iter().any(|action| match action {
        gossip::Action::Send { message, .. } => {
            message.updates.iter().any(|c| c.replica.node == node(2) && c.state == State::Suspect)
        }
        _ => false,
    })
}

fn shares_only_verified_contacts() -> bool {
    let (me, seed) = (node(0), Seed::from_number(1));
    let mut machine = Discovery::new(me, DiscoveryConfig::default(), &seed, vec![]);
    let peers: Vec<Contact> =
        (1..4).map(|n| Contact { node: None, address: Address(format!("host{n}:1")) }).collect();
    let address = peers[0].address.clone();
    step(&mut machine, 1, discovery::Event::Resolved { source: Source::Bootstrap, peers });
    let store = StoreId::default();
    let outcome = Ok(Identity { node: node(1), store, boot: Boot::default() });
    step(&mut machine, 1, discovery::Event::Verified { address, outcome });
    let sent = step(&mut machine, 1, discovery::Event::Connected { peer: node(2) });
    sent.iter().all(|action| match action {
        discovery::Action::SendContacts { contacts, .. } => {
            contacts.iter().all(|c| c.node.is_some())
        }
        _ => true,
    })
}

fn coordinator() -> Coordinator {
    let mut machine = Coordinator::new(node(0), CoordinatorConfig::default());
    for n in 1..=2 {
        step(&mut machine, 1, coordinator::Event::Add { node: node(n) });
        let alive = coordinator::Event::LivenessChanged {
            node: node(n),
            liveness: Liveness::Alive,
            load: 0,
        };
        step(&mut machine, 1, alive);
    }
    machine
}

fn one_failure_changes_no_health() -> bool {
    let mut machine = coordinator();
    let bad = coordinator::Event::RequestEnded { node: node(1), answered: false };
    step(&mut machine, 9000, bad);
    machine.health(node(1)) == Health::Healthy
}

fn spreads_its_own_requests() -> bool {
    let mut machine = coordinator();
    // Node 2 reported a slightly higher load. After the first few requests node 1 has the higher one.
    let load =
        coordinator::Event::LivenessChanged { node: node(2), liveness: Liveness::Alive, load: 3 };
    step(&mut machine, 1, load);
    for _ in 0..20 {
        let both = [node(1), node(2)].into_iter();
        assert!(machine.choose(Choice::LeastLoaded, both).is_some());
    }
    machine.under_way(node(2)) > 5
}

fn ends_each_request() -> bool {
    let mut machine = coordinator();
    assert!(machine.choose(Choice::LeastLoaded, [node(2)].into_iter()).is_some());
    assert_eq!(machine.under_way(node(2)), 1);
    step(&mut machine, 1, coordinator::Event::RequestEnded { node: node(2), answered: false });
    machine.under_way(node(2)) == 0
}

fn waits_for_a_refutation() -> bool {
    let mut machine = gossip();
    receive(&mut machine, 1, 1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    step(&mut machine, 100, gossip::Event::Tick);
    state(&machine, 2) == State::Suspect
}

fn asks_the_suspect() -> bool {
    let mut machine = gossip();
    let sent = receive(&mut machine, 1, 1, Body::Updates, vec![update(2, 0, State::Suspect)]);
    sent.iter().any(|action| match action {
        gossip::Action::Send { to, message } => {
            *to == node(2) && matches!(message.body, Body::Ping { .. })
        }
        _ => false,
    })
}

/// A mutant, and the law that holds only without it.
type Law = (&'static str, fn() -> bool);

#[test]
fn each_law_fails_under_its_mutant_and_holds_in_sound_code() {
    let laws: [Law; 14] = [
        ("gossip.refute.dropped", refutes),
        ("gossip.dead.overrides_newer_alive", || keeps_the_newer_boot_against(State::Dead)),
        ("gossip.incarnation.ignored", || keeps_the_newer_boot_against(State::Suspect)),
        ("gossip.hearsay.any_boot", keeps_the_proved_boot),
        ("gossip.hearsay.any_refutations", leaves_refutations),
        ("gossip.suspect.at_once", || first_probe(false) == State::Suspect),
        ("gossip.suspicion.not_asked", asks_the_suspect),
        ("gossip.suspicion.too_short", waits_for_a_refutation),
        ("gossip.ack.of_anybody", || first_probe(true) == State::Suspect),
        ("gossip.buddy.silent", informs_the_suspect),
        ("discovery.contacts.unverified", shares_only_verified_contacts),
        ("coordinator.health.no_hysteresis", one_failure_changes_no_health),
        ("coordinator.choice.herds", spreads_its_own_requests),
        ("coordinator.choice.leaks", ends_each_request),
    ];
    for (mutant, law) in laws {
        assert!(activate(None));
        assert!(law(), "{mutant}: the law fails in sound code");
        assert!(activate(Some(mutant)));
        assert!(!law(), "no law fails under {mutant}");
    }
    assert!(activate(None));
    let rooms = ["gossip.", "discovery.", "coordinator."];
    let planted =
        MUTANTS.iter().filter(|(name, _)| rooms.iter().any(|room| name.starts_with(room)));
    assert_eq!(planted.count(), laws.len(), "a mutant of these modules has no law here");
}
