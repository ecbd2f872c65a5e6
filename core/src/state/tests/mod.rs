//! Laws of the applied state, checked against models without overlays, slices or bytes.

mod captures;
mod exports;
mod keys;
mod registry;
mod sessions;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::api::{Change, Edit, Fingerprint, Mutation, Session};
use crate::id::SessionId;

pub(super) fn mutation(key: &[u8], change: Change) -> Mutation {
    let edit = Edit { field: Bytes::new(), change };
    Mutation { key: Bytes::copy_from_slice(key), edits: vec![edit], context: None }
}

pub(super) fn put(key: &[u8], value: &[u8]) -> Mutation {
    mutation(key, Change::Put(Bytes::copy_from_slice(value)))
}

pub(super) fn session(id: u8, seq: u64) -> Session {
    Session { id: SessionId([id; 16]), seq, request: Fingerprint::default() }
}

pub(super) fn write(session: Option<Session>, mutations: Vec<Mutation>) -> Bytes {
    Command { session, operation: Operation::Write { mutations } }.encode().unwrap()
}

/// Applies a command at the next index and returns the reply. Panics when the machine halts.
pub(super) fn apply(machine: &mut StateMachine, time_ms: u64, command: &Bytes) -> Reply {
    match machine.apply(machine.applied().next(), time_ms, command) {
        Applied::Reply(reply) => reply,
        Applied::Halted(halt) => panic!("halted: {halt:?}"),
    }
}

/// The rest of a capture, with slices of this budget.
pub(super) fn drain(machine: &mut StateMachine, budget_bytes: usize) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    loop {
        match machine.next_slice(budget_bytes) {
            Slice::More => {}
            Slice::Chunk(chunk) => chunks.push(chunk),
            Slice::Done => return chunks,
        }
    }
}

/// A whole capture at once.
pub(super) fn capture(machine: &StateMachine) -> Vec<Bytes> {
    let mut machine = machine.clone();
    assert!(machine.begin_capture());
    drain(&mut machine, usize::MAX)
}

#[test]
fn an_unknown_command_halts_and_is_never_skipped() {
    let mut machine = StateMachine::new(Kind::Keys);
    apply(&mut machine, 0, &write(None, vec![put(b"a", b"1")]));
    let before = machine.digest();
    let unknown = Bytes::from_static(&[1, 0, 99]);
    let halted = machine.apply(Index(2), 0, &unknown);
    let halt = Halt { index: Index(2), why: DecodeError::Malformed };
    assert_eq!(halted, Applied::Halted(halt));
    // Later entries are not applied either, known or not.
    let known = write(None, vec![put(b"a", b"2")]);
    assert_eq!(machine.apply(Index(3), 0, &known), Applied::Halted(halt));
    machine.advance(Index(4));
    assert_eq!((machine.applied(), machine.halted()), (Index(1), Some(halt)));
    assert_ne!(machine.digest(), before);
}

#[test]
fn a_machine_rejects_commands_of_the_other_kind() {
    let found = Operation::DeleteNamespace { name: "a".into() };
    let command = Command { session: None, operation: found }.encode().unwrap();
    let refused = Reply::Rejected(Reason::WrongConsistency);
    assert_eq!(apply(&mut StateMachine::new(Kind::Keys), 0, &command), refused);
    let query = Query::Get { key: Bytes::new(), field: Bytes::new() };
    assert_eq!(StateMachine::new(Kind::Registry).query(&query), Err(Reason::WrongConsistency));
}

#[test]
#[should_panic(expected = "in order")]
fn an_entry_is_not_applied_twice() {
    let mut machine = StateMachine::new(Kind::Keys);
    machine.advance(Index(1));
    machine.advance(Index(1));
}

#[test]
fn a_command_that_would_halt_its_group_is_not_encoded() {
    let value = vec![7; crate::limits::VALUE_BYTES_MAX];
    let mutations = |count| {
        let operation = Operation::Write { mutations: vec![put(b"a", &value); count] };
        Command { session: Some(session(1, 0)), operation }
    };
    let fits = mutations(1);
    assert_eq!(Command::decode(&fits.encode().unwrap()), Ok(fits));
    let limit = crate::limits::REQUEST_BYTES_MAX as u64;
    let what = crate::api::Bound::Request;
    assert_eq!(mutations(2).encode(), Err(Reason::OutOfBounds { what, limit }));
}
