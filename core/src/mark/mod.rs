//! Marks and mutants. A mark counts how often a run reached a line of code; a mutant is a planted bug that proves that
//! the simulator's oracles see it.
//!
//! Both exist only under the feature `instrument`, which the simulator and the tests enable. Without it `reach!` is
//! empty and `mutant!` is the constant `false`, so no shipped binary contains their names.
//!
//! Every name is in a table, of `marks` or of `mutants`; the compiler refuses any other. The counters and the active
//! mutant belong to the whole process, so a parallel campaign runs in several processes.

/// Counts that the run reached this line: `reach!("raft.election.won")`.
#[macro_export]
macro_rules! reach {
    ($name:literal) => {{
        #[cfg(feature = "instrument")]
        {
            const SITE: usize = $crate::mark::instrument::mark($name);
            $crate::mark::instrument::hit(SITE);
        }
    }};
}

/// Whether the named planted bug is active: `if mutant!("raft.vote.not_persisted") { .. }`.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(feature = "instrument")]
        {
            const SITE: usize = $crate::mark::instrument::mutant($name);
            $crate::mark::instrument::is_active(SITE)
        }
        #[cfg(not(feature = "instrument"))]
        {
            false
        }
    }};
}

#[cfg(feature = "instrument")]
mod marks;
#[cfg(feature = "instrument")]
mod mutants;

/// The tables and counters behind the macros.
#[cfg(feature = "instrument")]
pub mod instrument {
    use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    pub use super::marks::MARKS;
    pub use super::mutants::MUTANTS;

    static HITS: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];
    /// The index of the active mutant plus one; 0 when none is active.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    /// The index of a mark in the table.
    ///
    /// # Panics
    ///
    /// If the name is not in the table. The macros call this in a constant, so it fails at compile time.
    #[must_use]
    pub const fn mark(name: &str) -> usize {
        let mut at = 0;
        while at < MARKS.len() {
            if same(MARKS[at], name) {
                return at;
            }
            at += 1;
        }
        panic!("this mark is not in MARKS")
    }

    /// The index of a mutant in the table.
    ///
    /// # Panics
    ///
    /// If the name is not in the table. The macros call this in a constant, so it fails at compile time.
    #[must_use]
    pub const fn mutant(name: &str) -> usize {
        let mut at = 0;
        while at < MUTANTS.len() {
            if same(MUTANTS[at].0, name) {
                return at;
            }
            at += 1;
        }
        panic!("this mutant is not in MUTANTS")
    }

    const fn same(a: &str, b: &str) -> bool {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }

    /// Counts one hit.
    pub fn hit(site: usize) {
        HITS[site].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the mutant at `site` is active.
    #[must_use]
    pub fn is_active(site: usize) -> bool {
        ACTIVE.load(Ordering::Relaxed) == site + 1
    }

    /// Activates one mutant by name, or none. Returns false if no mutant has this name.
    pub fn activate(name: Option<&str>) -> bool {
        let found = name.map(|name| MUTANTS.iter().position(|(known, _)| *known == name));
        match found {
            None => ACTIVE.store(0, Ordering::Relaxed),
            Some(Some(site)) => ACTIVE.store(site + 1, Ordering::Relaxed),
            Some(None) => return false,
        }
        true
    }

    /// Hits of every mark since the process started, in the order of the table.
    pub fn hits() -> impl Iterator<Item = (&'static str, u64)> {
        MARKS.iter().zip(&HITS).map(|(name, hits)| (*name, hits.load(Ordering::Relaxed)))
    }
}
