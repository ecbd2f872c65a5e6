//! Law: a write of an eventual namespace says what its client asked for: each edit once, in order, with its field and
//! its value, and a counter's total changes by what is counted (README, Guarantees: what an answer means).
//!
//! Compares the record that the author logs with the mutation as the client sent it. The record is read with the
//! simulator's own decoder: an author or an encoder that loses a part of a write differs from the client here. A
//! record that does not follow the format breaks the law too. Totals are added up in 128 bits. It does not judge what
//! the write supersedes (`supersedes_what_was_seen`).

use continuum_core::api::{Change, Mutation};

use crate::format::write::{Op, Written};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "write-says-what-was-asked";

/// Judges a new write. `before` returns the totals of its author in a counter before it: more than one if some deletion
/// may have ended the last.
pub(crate) fn check(
    write: &Written,
    mutation: &Mutation,
    before: impl Fn(&[u8]) -> Vec<i128>,
) -> Verdict {
    let says = |(op, wanted): (&Op, &Change), field: &[u8]| match (op, wanted) {
        (Op::Put(value), Change::Put(asked))
        | (Op::Add(value), Change::Add(asked))
        | (Op::Remove(value), Change::Remove(asked)) => value[..] == asked[..],
        (Op::Delete, Change::Delete) => true,
        (Op::Count { .. }, Change::Count(by)) => {
            let total = total_of(op);
            before(field).iter().any(|before| *before + i128::from(*by) == total)
        }
        _ => false,
    };
    let edits = write.edits.iter().zip(&mutation.edits);
    let alike = edits.into_iter().all(|(edit, wanted)| {
        edit.field[..] == wanted.field[..] && says((&edit.op, &wanted.change), &edit.field)
    });
    if alike && write.edits.len() == mutation.edits.len() && write.key[..] == mutation.key[..] {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{write:?} was made for {mutation:?}")))
}

/// The total that an edit leaves; nought if it does not count.
pub(crate) fn total_of(op: &Op) -> i128 {
    match op {
        Op::Count { plus, minus } => i128::from(*plus) - i128::from(*minus),
        _ => 0,
    }
}
