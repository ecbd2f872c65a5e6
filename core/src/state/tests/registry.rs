//! The registry, rule by rule.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::captures::{bootstrap, member_info};
use super::{apply, capture};
use crate::api::{
    Bootstrap, Bound, Context, MemberInfo, Namespace, Observed, Policy, Reason, Resource, Secret,
    Strategy,
};
use crate::id::{
    Address, GenesisId, GroupId, Index, NamespaceId, NodeId, Replica, ShardId, StoreId,
};
use crate::limits::{ADDRESS_BYTES_MAX, MEMBERS_MAX, NAMESPACES_MAX, SLOTS_MAX, VOTERS_MAX};
use crate::state::registry::is_name;
use crate::state::{Command, Kind, Operation, Reply, StateMachine};

fn act(machine: &mut StateMachine, operation: Operation) -> Reply {
    apply(machine, 0, &Command { session: None, operation }.encode().unwrap())
}

fn bootstrapped() -> StateMachine {
    let mut machine = StateMachine::new(Kind::Registry);
    assert_eq!(apply(&mut machine, 0, &bootstrap(4, 3)), Reply::Bootstrapped);
    machine
}

#[test]
fn the_bootstrap_brings_the_first_key_and_a_rotation_the_next() {
    let mut machine = StateMachine::new(Kind::Registry);
    assert!(machine.registry().context_keys().is_none());
    let early = act(&mut machine, Operation::RotateKey { secret: Secret([1; 32]) });
    assert_eq!(early, Reply::Rejected(Reason::NotFormed));
    let mut machine = bootstrapped();
    let keys = *machine.registry().context_keys().expect("a key");
    let (shard, observed) =
        (ShardId::default(), Observed { dots: [Default::default()].into(), stamp: 1 });
    let sealed = keys.seal(shard, &observed);
    for (number, opens) in [(2, true), (3, false)] {
        let secret = Secret([number as u8; 32]);
        assert_eq!(
            act(&mut machine, Operation::RotateKey { secret }),
            Reply::KeyRotated { number }
        );
        let keys = machine.registry().context_keys().expect("a key");
        assert_eq!(keys.open(shard, &sealed).is_ok(), opens, "the two newest keys are valid");
    }
    let restored = StateMachine::restore(Kind::Registry, &capture(&machine)).expect("restores");
    assert_eq!(restored.registry().context_keys(), machine.registry().context_keys());
    assert_ne!(sealed, Context::default());
}

fn create(machine: &mut StateMachine, name: &str, policy: Policy) -> Reply {
    act(machine, Operation::CreateNamespace { name: name.into(), policy })
}

fn delete(machine: &mut StateMachine, name: &str) -> Reply {
    act(machine, Operation::DeleteNamespace { name: name.into() })
}

fn rejected(reason: Reason) -> Reply {
    Reply::Rejected(reason)
}

const fn eventual(slots: u16) -> Policy {
    Policy::Eventual { strategy: Strategy::LastWriterWins, slots, discard: false }
}

fn on_store(node: u8, store: u8) -> MemberInfo {
    let replica = Replica { node: NodeId([node; 16]), store: StoreId([store; 16]) };
    MemberInfo { replica, ..member_info(node) }
}

#[test]
fn nothing_precedes_the_bootstrap_and_it_happens_once() {
    let mut machine = StateMachine::new(Kind::Registry);
    assert_eq!(create(&mut machine, "a", Policy::Strong), rejected(Reason::NotFormed));
    assert_eq!(act(&mut machine, Operation::Join(member_info(1))), rejected(Reason::NotFormed));
    assert_eq!(apply(&mut machine, 0, &bootstrap(4, 3)), Reply::Bootstrapped);
    assert_eq!(apply(&mut machine, 0, &bootstrap(4, 3)), rejected(Reason::AlreadyFormed));
    let voters: Vec<bool> = machine.registry().members().map(|(_, record)| record.voter).collect();
    assert_eq!(voters, [true, true, true, false]);
    let membership =
        Bootstrap { genesis: GenesisId(7), members: (0..4).map(member_info).collect(), voters: 3 };
    assert_eq!(machine.registry().membership(GenesisId(7)), membership);
}

#[test]
fn a_bootstrap_that_could_not_elect_is_rejected() {
    let limit = VOTERS_MAX as u64;
    for (members, voters) in [(3, 0), (8, 8), (2, 3), (0, 0)] {
        let mut machine = StateMachine::new(Kind::Registry);
        let reason = Reason::OutOfBounds { what: Bound::Voters, limit };
        assert_eq!(apply(&mut machine, 0, &bootstrap(members, voters)), rejected(reason));
        assert!(!machine.registry().is_bootstrapped());
    }
    let members = [on_store(1, 1), on_store(1, 2)].into();
    let twice = Bootstrap { genesis: GenesisId(7), members, voters: 2 };
    let reply =
        act(&mut StateMachine::new(Kind::Registry), Operation::Bootstrap(twice, Secret([3; 32])));
    assert_eq!(reply, rejected(Reason::OutOfBounds { what: Bound::Voters, limit: 1 }));
}

#[test]
fn a_member_joins_once_and_may_move() {
    let mut machine = bootstrapped();
    let mut new = member_info(9);
    let joined = Reply::Joined { node: NodeId([9; 16]) };
    assert_eq!(act(&mut machine, Operation::Join(new.clone())), joined);
    new.address = Address("elsewhere:1".into());
    assert_eq!(act(&mut machine, Operation::Join(new.clone())), joined);
    let (replica, record) = machine.registry().member(NodeId([9; 16])).unwrap();
    assert_eq!((*replica, record.voter, record.joined), (new.replica, false, Index(2)));
    assert_eq!(record.address, new.address);
    assert_eq!(machine.registry().members().count(), 5);
    // A voter that tells its new address stays a voter.
    act(&mut machine, Operation::Join(member_info(0)));
    assert!(machine.registry().member(NodeId([0; 16])).unwrap().1.voter);
}

#[test]
fn a_wiped_learner_is_replaced_and_a_wiped_voter_keeps_its_old_vote() {
    let mut machine = bootstrapped();
    for (node, stores) in [(3, 1), (0, 2)] {
        act(&mut machine, Operation::Join(on_store(node, 5)));
        act(&mut machine, Operation::Join(on_store(node, 4)));
        let registry = machine.registry();
        let of = |(replica, _): &(&Replica, _)| replica.node == NodeId([node; 16]);
        assert_eq!(registry.members().filter(of).count(), stores);
        let (newest, record) = registry.member(NodeId([node; 16])).unwrap();
        assert_eq!((newest.store, record.voter), (StoreId([4; 16]), false));
        assert!(!registry.is_member(&on_store(node, 5).replica));
    }
    assert_eq!(machine.registry().configuration().voters.len(), 3);
}

#[test]
fn names_are_checked() {
    for good in ["a", "a-b_c.9", &"a".repeat(64)] {
        assert!(is_name(good), "{good}");
    }
    let bad = ["", "9a", "A", "-a", "a b", "a/b", "é", ".a", "a\n", &"a".repeat(65)];
    for bad in bad {
        assert!(!is_name(bad), "{bad}");
        assert_eq!(create(&mut bootstrapped(), bad, Policy::Strong), rejected(Reason::InvalidName));
    }
    let mut long = member_info(7);
    long.name = "a".repeat(65);
    assert_eq!(act(&mut bootstrapped(), Operation::Join(long)), rejected(Reason::InvalidName));
    let mut far = member_info(7);
    far.address = Address("a".repeat(ADDRESS_BYTES_MAX + 1));
    let limit = ADDRESS_BYTES_MAX as u64;
    let reason = Reason::OutOfBounds { what: Bound::Address, limit };
    assert_eq!(act(&mut bootstrapped(), Operation::Join(far)), rejected(reason));
}

#[test]
fn a_strong_namespace_gets_a_group_of_all_members() {
    let mut machine = bootstrapped();
    let reply = create(&mut machine, "locks", Policy::Strong);
    let (id, group) = (NamespaceId(1), Some(GroupId(1)));
    let namespace = Namespace { id, name: "locks".to_string(), policy: Policy::Strong, group };
    assert_eq!(reply, Reply::Created { namespace });
    act(&mut machine, Operation::Join(member_info(9)));
    create(&mut machine, "later", Policy::Strong);
    let learners = |name| {
        let record = machine.registry().namespace(name).unwrap();
        assert_eq!(record.configuration.voters.len(), 3);
        record.configuration.learners.len()
    };
    // The record keeps the members of its time. Later members join through the group's own configuration.
    assert_eq!((learners("locks"), learners("later")), (1, 2));
    assert_eq!(create(&mut machine, "locks", eventual(1)), rejected(Reason::NamespaceExists));
}

#[test]
fn numbers_are_never_used_again() {
    let mut machine = bootstrapped();
    let mut seen = Vec::new();
    for round in 0..3 {
        for (name, policy) in [("a", Policy::Strong), ("b", eventual(4))] {
            let Reply::Created { namespace } = create(&mut machine, name, policy) else {
                panic!("created");
            };
            assert_eq!(namespace.group.is_some(), policy == Policy::Strong);
            assert!(!seen.contains(&(namespace.id, namespace.group)));
            seen.push((namespace.id, namespace.group));
            let deleted = Reply::Deleted { namespace: namespace.id };
            assert_eq!(delete(&mut machine, name), deleted);
            assert_eq!(delete(&mut machine, name), rejected(Reason::UnknownNamespace));
        }
        // A restored state without namespaces does not reuse their numbers either.
        assert_eq!(machine.registry().namespaces().count(), 0, "{round}");
        machine = StateMachine::restore(Kind::Registry, &capture(&machine)).unwrap();
    }
    assert_eq!(seen.last(), Some(&(NamespaceId(6), None)));
    for slots in [0, SLOTS_MAX + 1] {
        let limit = u64::from(SLOTS_MAX);
        let reason = Reason::OutOfBounds { what: Bound::Slots, limit };
        assert_eq!(create(&mut machine, "a", eventual(slots)), rejected(reason));
    }
}

#[test]
fn the_tables_have_bounds() {
    let mut machine = bootstrapped();
    for number in 0..NAMESPACES_MAX {
        let name: String = alloc::format!("n{number}");
        assert!(matches!(create(&mut machine, &name, eventual(1)), Reply::Created { .. }));
    }
    let full = |what| rejected(Reason::Full { what });
    assert_eq!(create(&mut machine, "one-more", eventual(1)), full(Resource::Namespaces));
    delete(&mut machine, "n7");
    assert!(matches!(create(&mut machine, "one-more", eventual(1)), Reply::Created { .. }));
    for number in 4..MEMBERS_MAX as u128 {
        let mut member = member_info(0);
        member.replica.node = NodeId((number << 64).to_be_bytes());
        assert!(matches!(act(&mut machine, Operation::Join(member)), Reply::Joined { .. }));
    }
    assert_eq!(act(&mut machine, Operation::Join(member_info(200))), full(Resource::Members));
    // A new disk of a learner takes the place of the old one.
    assert!(matches!(act(&mut machine, Operation::Join(on_store(3, 8))), Reply::Joined { .. }));
    let restored = StateMachine::restore(Kind::Registry, &capture(&machine)).unwrap();
    assert_eq!(restored.digest(), machine.digest());
}
