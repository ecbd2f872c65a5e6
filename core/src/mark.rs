//! Marks and mutants: what a simulated run reached, and the planted bugs that prove its oracles see.
//!
//! Both exist only under the feature `instrument`, which the simulator and the tests enable. Without it `reach!` is
//! nothing and `mutant!` is the constant `false`: no name of either is in a shipped binary.
//!
//! Each name stands in the tables below; a name that does not is an error when the crate is compiled. Counters and the
//! active mutant are of the whole process, so a campaign that runs in parallel does so in processes.

/// Counts that this place was reached: `reach!("raft.election.won")`.
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

/// The tables and counters behind the macros.
#[cfg(feature = "instrument")]
pub mod instrument {
    use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    /// Every mark, as `<machine>.<what>.<case>`.
    pub const MARKS: &[&str] = &[
        // raft
        // replication
        // gossip
        // discovery
        // coordinator
        // state
        // wal
        "wal.segment.opened",
        "wal.recover.clean",
        "wal.recover.torn",
        "wal.recover.stale",
        "wal.recover.rot",
        "wal.recover.rot_at_beginning",
        "wal.recover.rot_before_segment",
        "wal.recover.rot_in_header",
        "wal.recover.misdirected",
        "wal.recover.forked",
        "wal.recover.foreign",
        "wal.recover.hole",
        "wal.recover.empty",
        "wal.recover.empty_segment",
        // node
        "node.start",
    ];

    /// Every mutant, with what it breaks, in a sentence.
    pub const MUTANTS: &[(&str, &str)] = &[
        // raft
        // replication
        // gossip
        // state
        // wal
        ("wal.middle.accepted", "damage in the middle of the log is cut like a tear"),
        ("wal.checksum.skipped", "a batch's digest is not compared"),
        ("wal.torn.accepted", "what can be read of an unfinished batch is taken for written"),
        // node
        ("node.canary", "panics at the first tick: proves that the pipeline reports"),
    ];

    static HITS: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];
    /// The active mutant's place in the table plus one; 0 when the code is sound.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    /// The place of a mark in the table.
    ///
    /// # Panics
    ///
    /// When it is not there: at compile time, since the macros call it in a constant.
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

    /// The place of a mutant in the table.
    ///
    /// # Panics
    ///
    /// When it is not there: at compile time, since the macros call it in a constant.
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

    /// Activates one mutant by name, or none. False when there is no such mutant.
    pub fn activate(name: Option<&str>) -> bool {
        let found = name.map(|name| MUTANTS.iter().position(|(known, _)| *known == name));
        match found {
            None => ACTIVE.store(0, Ordering::Relaxed),
            Some(Some(site)) => ACTIVE.store(site + 1, Ordering::Relaxed),
            Some(None) => return false,
        }
        true
    }

    /// Hits of every mark since the process began, in the order of the table.
    pub fn hits() -> impl Iterator<Item = (&'static str, u64)> {
        MARKS.iter().zip(&HITS).map(|(name, hits)| (*name, hits.load(Ordering::Relaxed)))
    }
}
