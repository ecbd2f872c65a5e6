//! Commands of a group of keys, as its log holds them: the version, the session of the client if there is one, and the
//! mutations.
//!
//! The registry's commands are not read. This module does not apply a command.

use bytes::Bytes;
use continuum_core::api::{Change, Context, Edit, Expected, Fingerprint, Mutation, Session};
use continuum_core::id::SessionId;

use super::reader::Reader;
use super::write::VERSION;

/// The number of the one operation that changes keys, and the number after the last.
const WRITE: u32 = 4;
const OPERATIONS: u32 = 6;

/// The meaning of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) session: Option<Session>,
    /// The mutations, in order; none for a command that changes no key.
    pub(crate) mutations: Option<Vec<Mutation>>,
}

/// The meaning of a command; `None` if its bytes do not follow the format.
pub(crate) fn read(bytes: &[u8]) -> Option<Command> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let session = reader.option(|reader| {
        let (id, seq) = (SessionId(reader.array()?), reader.u64()?);
        Some(Session { id, seq, request: Fingerprint(reader.array()?) })
    })?;
    match reader.u32()? {
        WRITE => {
            let mutations = Some(reader.list(mutation)?);
            reader.is_at_end().then_some(Command { session, mutations })
        }
        number => (number < OPERATIONS).then_some(Command { session, mutations: None }),
    }
}

fn mutation(reader: &mut Reader<'_>) -> Option<Mutation> {
    Some(Mutation {
        key: reader.owned()?,
        edits: reader
            .list(|reader| Some(Edit { field: reader.owned()?, change: change(reader)? }))?,
        context: reader.option(|reader| reader.owned().map(Context::from_bytes))?,
    })
}

fn change(reader: &mut Reader<'_>) -> Option<Change> {
    Some(match reader.u32()? {
        0 => Change::Put(reader.owned()?),
        1 => Change::Delete,
        2 => Change::Cas { expected: expected(reader)?, value: value(reader)? },
        3 => Change::Add(reader.owned()?),
        4 => Change::Remove(reader.owned()?),
        5 => Change::Count(reader.i64()?),
        _ => return None,
    })
}

fn expected(reader: &mut Reader<'_>) -> Option<Expected> {
    Some(match reader.u32()? {
        0 => Expected::Absent,
        1 => Expected::Revision(reader.u64()?),
        2 => Expected::Value(reader.owned()?),
        _ => return None,
    })
}

fn value(reader: &mut Reader<'_>) -> Option<Option<Bytes>> {
    reader.option(Reader::owned)
}

#[cfg(test)]
mod tests {
    use continuum_core::state::{Command as Encoded, Operation};
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    fn change() -> impl Strategy<Value = Change> {
        let expected = prop_oneof![
            Just(Expected::Absent),
            any::<u64>().prop_map(Expected::Revision),
            bytes().prop_map(Expected::Value),
        ];
        prop_oneof![
            bytes().prop_map(Change::Put),
            Just(Change::Delete),
            (expected, proptest::option::of(bytes()))
                .prop_map(|(expected, value)| Change::Cas { expected, value }),
            bytes().prop_map(Change::Add),
            bytes().prop_map(Change::Remove),
            any::<i64>().prop_map(Change::Count),
        ]
    }

    fn mutation() -> impl Strategy<Value = Mutation> {
        let edit = (bytes(), change()).prop_map(|(field, change)| Edit { field, change });
        let context = proptest::option::of(bytes().prop_map(Context::from_bytes));
        (bytes(), proptest::collection::vec(edit, 0..4), context)
            .prop_map(|(key, edits, context)| Mutation { key, edits, context })
    }

    proptest! {
        /// The core's encoder and this reader know one format.
        #[test]
        fn a_command_says_what_was_encoded(
            mutations in proptest::collection::vec(mutation(), 0..4),
            session in proptest::option::of(any::<([u8; 16], u64, [u8; 16])>()),
        ) {
            let session = session.map(|(id, seq, request)| {
                Session { id: SessionId(id), seq, request: Fingerprint(request) }
            });
            let operation = Operation::Write { mutations: mutations.clone() };
            let encoded = Encoded { session, operation }.encode().expect("it is short");
            let expected = Command { session, mutations: Some(mutations) };
            prop_assert_eq!(read(&encoded), Some(expected));
            prop_assert_eq!(read(&encoded[..encoded.len() - 1]), None);
            prop_assert_eq!(read(&[&encoded[..], &[0]].concat()), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut command = vec![VERSION, 0, WRITE as u8];
            command.extend(&bytes);
            drop((read(&bytes), read(&command)));
        }
    }

    #[test]
    fn commands_of_the_registry_change_no_key() {
        let operation = Operation::DeleteNamespace { name: "notes".to_owned() };
        let encoded = Encoded { session: None, operation }.encode().expect("it is short");
        assert_eq!(read(&encoded), Some(Command { session: None, mutations: None }));
        assert_eq!(read(&[VERSION, 0, OPERATIONS as u8]), None);
    }
}
