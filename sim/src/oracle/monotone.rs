//! Law: a replica's term, commit index and applied index never go back within one process life (Raft, §5.1 and Figure
//! 2).
//!
//! Compares each value that a replica reports with the one before it. It does not judge restarts (`recovery`).

use continuum_core::id::{Index, Term};

use super::Watched;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "monotone";

/// Judges the term and commit index that a machine reports.
pub(crate) fn check_progress(watched: &Watched, term: Term, commit: Index) -> Verdict {
    if term < watched.term {
        return Err(Broken::new(NAME, format!("term {} becomes {term}", watched.term)));
    }
    if commit < watched.commit {
        return Err(Broken::new(NAME, format!("commit {} becomes {commit}", watched.commit)));
    }
    Ok(())
}

/// Judges the applied index that a node reports.
pub(crate) fn check_applied(before: Index, index: Index) -> Verdict {
    if index < before {
        return Err(Broken::new(NAME, format!("applied {before} becomes {index}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_back_is_seen() {
        let watched = Watched { term: Term(2), commit: Index(5), ..Watched::default() };
        assert_eq!(check_progress(&watched, Term(2), Index(6)), Ok(()));
        assert!(check_progress(&watched, Term(1), Index(6)).is_err());
        assert!(check_progress(&watched, Term(3), Index(4)).is_err());
        assert!(check_applied(Index(3), Index(2)).is_err());
    }
}
