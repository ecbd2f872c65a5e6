//! Law: a write with a context supersedes exactly what the context names, within the scope of its edits, and a count
//! supersedes only earlier totals of its author (Bieniusa and others 2012; README, Guarantees: a write that carries the
//! context of a read supersedes just what was read).
//!
//! Compares the dots that a new write supersedes with the context of the client's mutation, both ways: nothing else may
//! be superseded, and what the context names must be, by name if the replica holds it, and otherwise as absent; a
//! delete may name all as absent.
//! It does not judge writes without a context: these supersede what their replica holds.

use continuum_core::api::{Change, Mutation};
use continuum_core::id::Dot;
use continuum_core::limits::REPLACED_MAX;

use super::eventual_specification::is_in_scope;
use crate::format::write::{Op, Written, WrittenEdit};
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "supersedes-what-was-seen";

/// Judges a new write against the mutation that a client asked for.
pub(crate) fn check(write: &Written, mutation: &Mutation) -> Verdict {
    let broken = |what: String| Err(Broken::new(NAME, what));
    for (edit, wanted) in write.edits.iter().zip(&mutation.edits) {
        let counts = matches!(wanted.change, Change::Count(_));
        let seen = |dot: &Dot| match &mutation.context {
            _ if *dot == write.dot => true,
            _ if counts => dot.actor == write.dot.actor,
            Some(context) => context.peek().is_some_and(|seen| seen.dots.contains(dot)),
            None => true,
        };
        if mutation.context.is_some() && !edit.covered.is_empty() {
            return broken(format!("{write:?} covers more than its client named: {mutation:?}"));
        }
        let superseded = edit.superseded.iter().map(|(dot, _)| dot);
        if let Some(dot) = superseded.chain(&edit.absent).find(|dot| !seen(dot)) {
            return broken(format!(
                "{write:?} supersedes {dot:?}, which its client did not name: {mutation:?}"
            ));
        }
    }
    Ok(())
}

/// The state at a replica of a write that a context names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The replica has seen the write, and no write that it has seen supersedes the edit.
    Seen,
    /// The write has not arrived.
    Unseen,
    /// The replica has seen the write, and one that supersedes the edit. A replica may hold the edit all the same.
    Replaced,
}

/// Judges that a new write supersedes one element that its context names: an edit with its key, and its name.
pub(crate) fn check_whole(
    write: &Written,
    (key, edit): (&[u8], &WrittenEdit),
    element: (Dot, u16),
    held: Held,
) -> Verdict {
    let scopes = |by: &&WrittenEdit| {
        let observes = !matches!(by.op, Op::Count { .. });
        observes && is_in_scope((&write.key, by), (key, edit))
    };
    let supersedes = |by: &WrittenEdit| {
        let (by_name, as_absent) =
            (by.superseded.contains(&element), by.absent.contains(&element.0));
        match held {
            // A delete of many elements names none.
            Held::Seen => by_name || as_absent && by.op == Op::Delete,
            Held::Unseen => as_absent,
            Held::Replaced => by_name || as_absent || by.absent.len() >= REPLACED_MAX,
        }
    };
    match write.edits.iter().filter(scopes).find(|by| !supersedes(by)) {
        None => Ok(()),
        Some(by) => {
            let what = format!(
                "{:?} does not supersede {element:?} ({held:?}), which its client's context names: {by:?}",
                write.dot
            );
            Err(Broken::new(NAME, what))
        }
    }
}
