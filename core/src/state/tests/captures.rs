//! Captures hold the state at their beginning, equal states give equal bytes, and restoring accepts any bytes.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::{apply, capture, drain, keys, put, session, write};
use crate::api::{Bootstrap, MemberInfo, Policy, Secret};
use crate::id::{GenesisId, Index, NodeId, Replica};
use crate::limits::CHUNK_BYTES_MAX;
use crate::state::{Command, Kind, Operation, RestoreError, Slice, StateMachine};

fn registry_command() -> impl Strategy<Value = Bytes> {
    let member_info = (0..6_u8, 0..3_u8).prop_map(|(node, store)| {
        let replica = Replica { node: NodeId([node; 16]), store: crate::id::StoreId([store; 16]) };
        MemberInfo { replica, ..member_info(node) }
    });
    let policy = prop_oneof![
        Just(Policy::Strong),
        Just(Policy::Eventual { strategy: Default::default(), slots: 2, discard: false }),
    ];
    let name = (0..5_u8).prop_map(|n| alloc::format!("n{n}"));
    let operation = prop_oneof![
        member_info.prop_map(Operation::Join),
        (name.clone(), policy)
            .prop_map(|(name, policy)| Operation::CreateNamespace { name, policy }),
        name.prop_map(|name| Operation::DeleteNamespace { name }),
        any::<[u8; 32]>().prop_map(|secret| Operation::RotateKey { secret: Secret(secret) }),
    ];
    (operation, proptest::option::of((0..3_u8, 0..4_u64))).prop_map(|(operation, of)| {
        Command { session: of.map(|(id, seq)| session(id, seq)), operation }.encode().unwrap()
    })
}

pub(super) fn member_info(node: u8) -> MemberInfo {
    let replica = Replica { node: NodeId([node; 16]), ..Replica::default() };
    MemberInfo { replica, address: Default::default(), name: alloc::format!("node-{node}") }
}

pub(super) fn bootstrap(members: u8, voters: u8) -> Bytes {
    let members = (0..members).map(member_info).collect();
    let bootstrap = Bootstrap { genesis: GenesisId(1), members, voters };
    let operation = Operation::Bootstrap(bootstrap, Secret([3; 32]));
    Command { session: None, operation }.encode().unwrap()
}

fn command(kind: Kind) -> BoxedStrategy<Bytes> {
    match kind {
        Kind::Registry => registry_command().boxed(),
        Kind::Keys => (keys::mutations(), proptest::option::of((0..3_u8, 0..4_u64)))
            .prop_map(|(mutations, of)| write(of.map(|(id, seq)| session(id, seq)), mutations))
            .boxed(),
    }
}

fn run() -> impl Strategy<Value = (Kind, Vec<(Bytes, bool, usize)>)> {
    prop_oneof![Just(Kind::Registry), Just(Kind::Keys)].prop_flat_map(|kind| {
        let step = (command(kind), prop::bool::weighted(0.3), 1..300_usize);
        (Just(kind), proptest::collection::vec(step, 1..80))
    })
}

proptest! {
    #[test]
    fn a_capture_is_the_state_at_its_beginning((kind, steps) in run()) {
        let mut machine = StateMachine::new(kind);
        if kind == Kind::Registry {
            apply(&mut machine, 0, &bootstrap(3, 3));
        }
        // The same state without any capture beside it.
        let mut plain = machine.clone();
        let (mut expected, mut chunks) = (None, Vec::new());
        for (step, (command, begins, budget)) in steps.into_iter().enumerate() {
            if begins && machine.begin_capture() {
                expected = Some((capture(&plain), plain.digest(), plain.applied()));
            }
            match machine.next_slice(budget) {
                Slice::Chunk(chunk) => chunks.push(chunk),
                Slice::More => prop_assert!(expected.is_some()),
                Slice::Done => {
                    if let Some((bytes, digest, applied)) = expected.take() {
                        prop_assert_eq!(&chunks, &bytes);
                        let restored = StateMachine::restore(kind, &chunks).unwrap();
                        prop_assert_eq!((restored.digest(), restored.applied()), (digest, applied));
                        prop_assert_eq!(capture(&restored), bytes);
                        chunks.clear();
                    }
                }
            }
            let time_ms = step as u64;
            prop_assert_eq!(apply(&mut machine, time_ms, &command), apply(&mut plain, time_ms, &command));
            prop_assert_eq!(machine.digest(), plain.digest());
        }
        let last = drain(&mut machine, 1000);
        if let Some((bytes, ..)) = expected {
            chunks.extend(last);
            prop_assert_eq!(chunks, bytes);
        }
        // After the capture everything merges, and the next capture holds the newest state.
        prop_assert!(machine.merge_overlay(usize::MAX));
        prop_assert_eq!(capture(&machine), capture(&plain));
    }

    #[test]
    fn whatever_restores_is_canonical(
        (kind, steps) in run(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut machine = StateMachine::new(kind);
        if kind == Kind::Registry {
            apply(&mut machine, 0, &bootstrap(2, 1));
        }
        for (command, ..) in steps {
            apply(&mut machine, 0, &command);
        }
        let mut bytes = capture(&machine).concat();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bytes = Bytes::from(bytes);
        let (head, tail) = (bytes.slice(..7.min(bytes.len())), bytes.slice(7.min(bytes.len())..));
        if let Ok(restored) = StateMachine::restore(kind, &[head, tail]) {
            prop_assert_eq!(capture(&restored).concat(), bytes);
        }
    }

    #[test]
    fn restoring_noise_fails_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut tagged = capture::FORMAT.to_vec();
        tagged.extend_from_slice(&bytes);
        let noise = StateMachine::restore(Kind::Keys, &[bytes.into()]).map(|_| ());
        prop_assert!(matches!(noise, Err(RestoreError::Format | RestoreError::Short)));
        prop_assert!(StateMachine::restore(Kind::Registry, &[tagged.into()]).is_err());
    }
}

#[test]
fn chunks_are_full_but_for_the_last_and_cut_through_records() {
    let mut machine = StateMachine::new(Kind::Keys);
    for key in 0..9 {
        apply(&mut machine, 0, &write(None, vec![put(&[key], &vec![key; 300 << 10])]));
    }
    let whole = capture(&machine);
    let lengths: Vec<_> = whole.iter().map(Bytes::len).collect();
    let (last, full) = lengths.split_last().unwrap();
    assert!(full.iter().all(|length| *length == CHUNK_BYTES_MAX) && *last <= CHUNK_BYTES_MAX);
    assert!(full.len() > 9);
    assert!(machine.begin_capture());
    assert_eq!(drain(&mut machine, 1), whole);
    assert_eq!(StateMachine::restore(Kind::Keys, &whole).unwrap().digest(), machine.digest());
    // As one file, and in other pieces.
    let file = Bytes::from(whole.concat());
    let pieces = [file.slice(..5), Bytes::new(), file.slice(5..99_999), file.slice(99_999..)];
    assert_eq!(StateMachine::restore(Kind::Keys, &pieces).unwrap().digest(), machine.digest());
}

#[test]
fn each_damage_of_a_capture_has_its_error() {
    let mut machine = StateMachine::new(Kind::Keys);
    apply(&mut machine, 0, &write(Some(session(1, 0)), vec![put(b"a", b"1"), put(b"b", b"2")]));
    let restore = |kind, bytes: &[u8]| {
        StateMachine::restore(kind, &[Bytes::copy_from_slice(bytes)])
            .map(|machine| machine.applied())
    };
    let whole = capture(&machine).concat();
    assert_eq!(restore(Kind::Keys, &whole), Ok(Index(1)));
    let other = RestoreError::Kind { found: Kind::Keys };
    assert_eq!(restore(Kind::Registry, &whole), Err(other));
    for length in 0..whole.len() {
        assert_eq!(restore(Kind::Keys, &whole[..length]), Err(RestoreError::Short));
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(restore(Kind::Keys, &longer), Err(RestoreError::Long));
    // The last two records in the wrong order; then one of them twice.
    let record = |key: u8| {
        let at = whole.windows(2).rposition(|pair| pair == [1, key]).unwrap() - 5;
        let length = 4 + usize::from(whole[at]);
        whole[at..at + length].to_vec()
    };
    let (a, b) = (record(b'a'), record(b'b'));
    let head = &whole[..whole.len() - a.len() - b.len()];
    assert_eq!(restore(Kind::Keys, &[head, &a, &b].concat()), Ok(Index(1)));
    for wrong in [[head, &b, &a].concat(), [head, &a, &a].concat()] {
        assert_eq!(restore(Kind::Keys, &wrong), Err(RestoreError::Order));
    }
    let mut later = whole.clone();
    *later.last_mut().unwrap() = 2;
    assert_eq!(restore(Kind::Keys, &later), Err(RestoreError::Invalid("record")));
    // A count of 2^60 records reserves no memory, and a registry's tables have bounds.
    let count = head.len() - 8;
    let mut many = whole.clone();
    many[count + 7] = 16;
    assert_eq!(restore(Kind::Keys, &many), Err(RestoreError::Short));
    let members = head.len() - 24;
    many[members] = 1;
    let claim = RestoreError::Count { found: 1, limit: 0 };
    assert_eq!(restore(Kind::Keys, &many), Err(claim));
}

#[test]
fn a_capture_can_be_dropped_and_begun_again() {
    let mut machine = StateMachine::new(Kind::Keys);
    apply(&mut machine, 0, &write(None, vec![put(b"a", b"1")]));
    assert!(machine.begin_capture() && !machine.begin_capture());
    let many: Vec<_> = (0..40_u8).map(|key| put(&[key], b"2")).collect();
    apply(&mut machine, 0, &write(None, many));
    machine.cancel_capture();
    assert!(!machine.is_capturing() && !machine.begin_capture());
    assert!(!machine.merge_overlay(7) && machine.merge_overlay(100));
    assert!(machine.begin_capture());
    assert_eq!(machine.next_slice(9), Slice::More);
    let restored = StateMachine::restore(Kind::Keys, &capture_again(machine)).unwrap();
    assert_eq!(restored.keys().len(), 41);
}

fn capture_again(mut machine: StateMachine) -> Vec<Bytes> {
    drain(&mut machine, 50)
}
