//! Law: a group's voters never change, so that any two majorities ever counted overlap; learners change one at a time;
//! and each replica acts by the newest configuration in its log (Raft, §6; this project changes learners only).
//!
//! Compares each configuration that a replica writes with the one before it in the same log, and the configuration that
//! a replica's machine uses with the newest one in the log that it wrote. It does not judge when a leader may propose a
//! change.

use std::collections::BTreeMap;

use continuum_core::id::{Index, Replica, Term};
use continuum_core::raft::{Configuration, Entry, Payload, Position, Raft};

use super::ledger::GroupLedger;
use crate::env::durable::LogView;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-configuration";

/// All configurations of a group that some log held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The group's voters; empty before the first configuration.
    voters: Vec<Replica>,
    /// The configuration before the first entry.
    genesis: Configuration,
    entries: BTreeMap<(Index, Term), Configuration>,
}

/// Judges entries that a replica writes after `prev`. Its log is `view` before the write.
pub(crate) fn check(
    view: &LogView,
    ledger: &mut GroupLedger,
    prev: Index,
    entries: &[Entry],
) -> Verdict {
    let mut before: Option<Configuration> = None;
    for (index, entry) in (prev.0 + 1..).map(Index).zip(entries) {
        let Payload::Configuration(configuration) = &entry.payload else { continue };
        check_voters(&mut ledger.configurations, configuration)?;
        // A checkpoint and a repeated append write entries again.
        let at = (index, entry.term);
        let last = before.take().or_else(|| newest(view, ledger, prev));
        if !ledger.configurations.entries.contains_key(&at)
            && let Some(last) = last
        {
            check_step(&last, configuration)?;
        }
        before = Some(configuration.clone());
        ledger.configurations.entries.insert(at, configuration.clone());
    }
    Ok(())
}

/// Judges a configuration that a replica writes; the group's first configuration becomes known.
pub(crate) fn check_voters(known: &mut Known, configuration: &Configuration) -> Verdict {
    if !configuration.is_valid() {
        return Err(Broken::new(NAME, format!("{configuration:?} is not a valid configuration")));
    }
    if known.voters.is_empty() {
        known.voters.clone_from(&configuration.voters);
        known.genesis = configuration.clone();
    }
    if known.voters == configuration.voters {
        return Ok(());
    }
    let what = format!("the voters {:?} become {:?}", known.voters, configuration.voters);
    Err(Broken::new(NAME, what))
}

/// Judges two successive configurations: a learner joins, perhaps instead of an earlier store of its node, or one
/// leaves.
pub(crate) fn check_step(from: &Configuration, to: &Configuration) -> Verdict {
    let lacks = |list: &[Replica], replica: &&Replica| !list.contains(replica);
    let added: Vec<_> = to.learners.iter().filter(|r| lacks(&from.learners, r)).collect();
    let gone: Vec<_> = from.learners.iter().filter(|r| lacks(&to.learners, r)).collect();
    let is_one = match added[..] {
        [] => gone.len() == 1,
        [joined] => gone.iter().all(|left| left.node == joined.node),
        _ => false,
    };
    if is_one {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("from {from:?} to {to:?}: not one learner joins or leaves")))
}

/// Judges the configuration that a replica's machine uses.
pub(crate) fn check_machine(view: &LogView, ledger: &GroupLedger, raft: &Raft) -> Verdict {
    let Some(expected) = newest(view, ledger, view.last().index) else { return Ok(()) };
    // A node that joins learns the configuration from the log, and begins without one.
    let begins = raft.configuration().voters.is_empty();
    if begins && expected == ledger.configurations.genesis {
        return Ok(());
    }
    check_used(&expected, raft.configuration(), view.last())
}

pub(crate) fn check_used(expected: &Configuration, used: &Configuration, at: Position) -> Verdict {
    if expected == used {
        return Ok(());
    }
    let what = format!(
        "a replica with the log up to {at:?} acts by {used:?}, and the newest configuration of its log is {expected:?}"
    );
    Err(Broken::new(NAME, what))
}

/// The newest configuration of a log up to an index; `None` when the log has nothing.
fn newest(view: &LogView, ledger: &GroupLedger, upto: Index) -> Option<Configuration> {
    let is_there = |(index, term): &(Index, Term)| match *index {
        index if index > view.base.index => view.term_at(index) == Some(*term),
        index => ledger.committed_at(index) == Some(*term),
    };
    let known = &ledger.configurations;
    let mut earlier = known.entries.range(..=(upto, Term(u64::MAX))).rev();
    match earlier.find(|(at, _)| is_there(at)) {
        Some((_, configuration)) => Some(configuration.clone()),
        None if upto == Index(0) || known.voters.is_empty() => None,
        None => Some(known.genesis.clone()),
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{NodeId, StoreId};

    use super::*;

    fn replica(node: u8, store: u8) -> Replica {
        Replica { node: NodeId([node; 16]), store: StoreId([store; 16]) }
    }

    fn with(learners: &[(u8, u8)]) -> Configuration {
        let learners = learners.iter().map(|(node, store)| replica(*node, *store)).collect();
        Configuration { voters: vec![replica(1, 1)], learners }
    }

    #[test]
    fn learners_change_one_at_a_time() {
        let step = |from: &[(u8, u8)], to: &[(u8, u8)]| check_step(&with(from), &with(to)).is_ok();
        assert!(step(&[], &[(2, 1)]) && step(&[(2, 1), (3, 1)], &[(3, 1)]));
        assert!(step(&[(2, 1), (3, 1)], &[(2, 2), (3, 1)]), "another store of its node");
        assert!(!step(&[], &[(2, 1), (3, 1)]), "two join");
        assert!(!step(&[(2, 1), (3, 1)], &[]), "two leave");
        assert!(!step(&[(2, 1)], &[(3, 1)]), "one joins and another leaves");
        assert!(!step(&[(2, 1)], &[(2, 1)]), "nothing changes");
    }

    #[test]
    fn a_truncated_configuration_does_not_hold_any_more() {
        let entry = |term: u64, payload| Entry { term: Term(term), time_ms: 0, payload };
        let (mut view, mut ledger) = (LogView::default(), GroupLedger::default());
        check_voters(&mut ledger.configurations, &with(&[])).expect("the first");
        let change = [entry(1, Payload::Noop), entry(1, Payload::Configuration(with(&[(2, 1)])))];
        check(&view, &mut ledger, Index(0), &change).expect("one joins");
        view.append(Index(0), &change);
        let used = |view: &LogView, ledger: &GroupLedger, used: &Configuration| {
            let expected = newest(view, ledger, view.last().index).expect("a configuration");
            check_used(&expected, used, view.last()).is_ok()
        };
        assert!(used(&view, &ledger, &with(&[(2, 1)])) && !used(&view, &ledger, &with(&[])));
        view.append(Index(1), &[entry(2, Payload::Noop)]);
        assert!(used(&view, &ledger, &with(&[])) && !used(&view, &ledger, &with(&[(2, 1)])));
    }
}
