//! Minting: a write with a context supersedes what that context names and nothing else; a count only the earlier
//! totals of its author (Bieniusa and others 2012; this project's design, section 5, replication).

use continuum_core::api::{Change, Mutation};
use continuum_core::id::Dot;
use continuum_core::replication::WriteInfo;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "supersedes-what-was-seen";

/// A write is made as it was asked for.
pub(crate) fn check(told: &WriteInfo, mutation: &Mutation) -> Verdict {
    let broken = |what: String| Err(Broken::new(NAME, what));
    for (edit, wanted) in told.edits.iter().zip(&mutation.edits) {
        let counts = matches!(wanted.change, Change::Count(_));
        let seen = |dot: &Dot| match &mutation.context {
            _ if *dot == told.dot => true,
            _ if counts => dot.actor == told.dot.actor,
            Some(context) => context.dots.contains(dot),
            None => true,
        };
        let superseded = edit.superseded.iter().map(|(dot, _)| dot);
        if let Some(dot) = superseded.chain(&edit.unseen).find(|dot| !seen(dot)) {
            return broken(format!(
                "{told:?} supersedes {dot:?}, and was asked for as {mutation:?}"
            ));
        }
    }
    Ok(())
}
