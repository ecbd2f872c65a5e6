//! Law: a write with a context supersedes only what the context names, and a count supersedes only earlier totals of
//! its author (Bieniusa and others 2012; README, Guarantees: a write that carries the context of a read supersedes just
//! what was read).
//!
//! Compares the dots that a new write supersedes with the context of the client's mutation. It does not judge writes
//! without a context: these supersede what their replica holds.

use continuum_core::api::{Change, Mutation};
use continuum_core::id::Dot;
use continuum_core::replication::WriteInfo;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "supersedes-what-was-seen";

/// Judges a new write against the mutation that a client asked for.
pub(crate) fn check(write: &WriteInfo, mutation: &Mutation) -> Verdict {
    let broken = |what: String| Err(Broken::new(NAME, what));
    for (edit, wanted) in write.edits.iter().zip(&mutation.edits) {
        let counts = matches!(wanted.change, Change::Count(_));
        let seen = |dot: &Dot| match &mutation.context {
            _ if *dot == write.dot => true,
            _ if counts => dot.actor == write.dot.actor,
            Some(context) => context.peek().is_some_and(|seen| seen.dots.contains(dot)),
            None => true,
        };
        let superseded = edit.superseded.iter().map(|(dot, _)| dot);
        if let Some(dot) = superseded.chain(&edit.unseen).find(|dot| !seen(dot)) {
            return broken(format!(
                "{write:?} supersedes {dot:?}, which its client did not name: {mutation:?}"
            ));
        }
    }
    Ok(())
}
