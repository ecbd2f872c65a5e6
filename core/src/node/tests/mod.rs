//! Tests of whole nodes in the small world of `testing`.

mod answers;
mod boots;
mod bootstrap;
mod deletion;
mod exports;
mod figures;
mod founding;
mod halting;
mod requests;
mod standing;
mod starts;
mod storage;

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::testing::{World, address};
use super::{Message, MessageError, Notice};
use crate::api::{
    Change, Edit, Level, Mutation, Outcome, Policy, Query, Register, Request, Session, Strategy,
    Value,
};
use crate::codec;
use crate::id::AskId;

/// A federation of this many voters, with a strong namespace `locks` and an eventual one `notes`.
fn federation(voters: usize, seed: u64) -> World {
    let mut world = World::new(voters, seed);
    bootstrap(&mut world, voters);
    world
}

fn bootstrap(world: &mut World, voters: usize) {
    let others = (1..voters).map(address).collect();
    let outcome = world.ask(0, Request::Init { voters: others });
    assert_eq!(outcome, Outcome::Value(Value::Initialized));
    create(world, "locks", Policy::Strong);
    create(world, "notes", eventual(4));
}

fn eventual(slots: u16) -> Policy {
    Policy::Eventual { strategy: Strategy::LastWriterWins, slots, discard: false }
}

fn create(world: &mut World, name: &str, policy: Policy) {
    let name = name.to_string();
    let outcome = world.ask(0, Request::CreateNamespace { name, policy, session: None });
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
}

fn mutation(key: &str, change: Change) -> Mutation {
    let edits = vec![Edit { field: Bytes::new(), change }];
    Mutation { key: Bytes::copy_from_slice(key.as_bytes()), edits, context: None }
}

fn put_with(
    namespace: &str,
    key: &str,
    value: &str,
    level: Level,
    session: Option<Session>,
) -> Request {
    let change = Change::Put(Bytes::copy_from_slice(value.as_bytes()));
    let mutations = vec![mutation(key, change)];
    Request::Write { namespace: namespace.to_string(), mutations, level, session }
}

fn put(namespace: &str, key: &str, value: &str) -> Request {
    put_with(namespace, key, value, Level::Durable, None)
}

fn get(namespace: &str, key: &str) -> Request {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Request::Read {
        namespace: namespace.to_string(),
        query: Query::Get { key, field: Bytes::new() },
    }
}

fn is_committed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

/// The value of a register, from the answer to a read.
fn value(outcome: Outcome) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Value(Value::Register(Register { value, .. })) => value.map(|v| v.to_vec()),
        other => panic!("not a register: {other:?}"),
    }
}

#[test]
fn the_last_kind_of_message_is_known_and_the_next_one_is_of_a_later_version() {
    let id = AskId { nonce: 3, number: 7 };
    let last = codec::encode(&Message::Confirmed(id));
    assert_eq!(codec::variant(&last), Some(Message::KINDS - 1));
    assert_eq!(Message::decode(&last, 100), Ok(Message::Confirmed(id)));
    let next = codec::encode(&(Message::KINDS, 7_u8));
    assert_eq!(
        Message::decode(&next, 100),
        Err(MessageError::UnknownKind { kind: Message::KINDS })
    );
    let garbage = codec::encode(&(Message::KINDS - 1, 99_u8));
    assert!(matches!(Message::decode(&garbage, 100), Err(MessageError::Malformed(_))));
    let long = Message::decode(&next, next.len() - 1);
    assert!(matches!(long, Err(MessageError::Malformed(_))), "{long:?}");
}
