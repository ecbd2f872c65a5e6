//! Law: a group's voters never change, so that any two majorities ever counted overlap (Raft, §6; this project changes
//! learners only).
//!
//! Compares the voters of each configuration that a replica writes with the group's first voters. It does not judge
//! learners, nor what a leader may propose.

use continuum_core::id::Replica;
use continuum_core::raft::{Configuration, Entry, Payload};

use super::ledger::GroupLedger;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-configuration";

/// Judges entries that a replica writes.
pub(crate) fn check(ledger: &mut GroupLedger, entries: &[Entry]) -> Verdict {
    for entry in entries {
        let Payload::Configuration(configuration) = &entry.payload else { continue };
        check_voters(&mut ledger.voters, configuration)?;
    }
    Ok(())
}

/// Judges a configuration that a replica writes; the group's first configuration becomes known.
pub(crate) fn check_voters(known: &mut Vec<Replica>, configuration: &Configuration) -> Verdict {
    if !configuration.is_valid() {
        return Err(Broken::new(NAME, format!("{configuration:?} is not a valid configuration")));
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
