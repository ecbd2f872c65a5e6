//! One configuration: a group's voters never change, so that any two majorities ever counted meet; learners change one
//! at a time, each change after the one before is committed (Raft, §6; this project changes learners alone).
//!
//! Looked at where an entry that holds a configuration is appended. What a leader may propose is not here.

use continuum_core::id::Replica;
use continuum_core::raft::{Configuration, Entry, Payload};

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-configuration";

/// Entries are appended by a replica.
pub(crate) fn check(ledger: &mut GroupLedger, entries: &[Entry]) -> Verdict {
    for entry in entries {
        let Payload::Configuration(configuration) = &entry.payload else { continue };
        check_voters(&mut ledger.voters, configuration)?;
    }
    Ok(())
}

/// A replica says how its group is configured.
pub(crate) fn check_voters(known: &mut Vec<Replica>, configuration: &Configuration) -> Verdict {
    if !configuration.is_valid() {
        return Err(Broken::new(NAME, format!("{configuration:?} is none")));
    }
    if known.is_empty() {
        known.clone_from(&configuration.voters);
    }
    if *known == configuration.voters {
        return Ok(());
    }
    let what = format!("the voters {known:?} become {:?}", configuration.voters);
    Err(Broken::new(NAME, what))
}
