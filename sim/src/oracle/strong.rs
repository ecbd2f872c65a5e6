//! Law of the strong namespace at the end of a run: the history is linearizable (Herlihy and Wing 1990). Two
//! independent checks judge it.
//!
//! 1. *Witness*: every reply is what the committed log says at one index, and these indexes respect real time.
//! 2. *Search*: per key, an order exists that explains what clients were told, whatever the log says.
//!
//! The log resolves outcomes that clients do not know: the operation took place at an index, or never. So there is no
//! third verdict; a search that exceeds its budget is a failure of the workload. Rejected writes that happened are
//! reported as exactly-once (Raft thesis, §6.3). The search judges reads of a single key only; the witness judges pages
//! of keys and rows too. An export takes place when its first page is read, and its other pages are of that index.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{Change, Expected, Mutation, Outcome, Query, Reason, Register, Value};
use continuum_core::id::{ExportId, Index};

use continuum_core::state::StateMachine;

use super::linear::{self, Call, Seen, Version};
use super::page;
use super::witness::{EXACTLY_ONCE, Effect, Versions, Witness};
use crate::verdict::{Broken, Verdict};

use crate::workload::history::{Body, Ending, History, Operation, Space};

pub(crate) const WITNESS: &str = "linearizable-witness";
pub(crate) const SEARCH: &str = "linearizable-search";
/// Configurations that the search for one key may try.
const BUDGET: usize = 2_000_000;

/// Judges all operations of the strong namespace.
///
/// The search comes first: it relies on the clients' answers, so a history that it refuses is wrong whatever the log
/// says.
pub(crate) fn check(history: &History, witness: &Witness) -> Verdict {
    check_search(history, witness)?;
    let (mut located, mut exports) = (Vec::new(), Exports::new());
    for (_, operation) in history.of(Space::Strong) {
        match &operation.body {
            Body::Read(query @ Query::Export { .. }) => {
                located.extend(locate_export(operation, query, witness, &mut exports)?);
            }
            _ => located.extend(locate(operation, witness)?),
        }
    }
    check_real_time(&mut located)
}

/// Judges that a replica's state is what the committed log determines.
pub(crate) fn check_state(witness: &Witness, state: &StateMachine) -> Verdict {
    for (key, versions) in &witness.keys {
        let query = Query::Get { key: key.clone(), field: Bytes::new() };
        let current = versions.current();
        let expected = (current.map(|(value, _)| value), current.map(|(_, revision)| revision));
        match state.query(&query) {
            Ok(Value::Register(found)) if (found.value.as_ref(), found.revision) == expected => {}
            found => {
                let what = format!("{key:?} is {found:?}, and the log determines {expected:?}");
                return Err(Broken::new(EXACTLY_ONCE, what));
            }
        }
    }
    Ok(())
}

/// An operation and the ranges of the log in which it can have taken place.
struct Located {
    called: u64,
    returned: u64,
    /// Ranges of indexes: the first, and the one after the last.
    ranges: Vec<(u64, u64)>,
    is_write: bool,
}

/// Compares what the client was told with the log, and returns where in the log the operation can have taken place.
fn locate(operation: &Operation, witness: &Witness) -> Result<Option<Located>, Broken> {
    let (called, returned) = (operation.called, operation.returned);
    match &operation.body {
        Body::Write { mutations, .. } => {
            let effect = witness.effect(operation.session, mutations);
            check_told(operation, mutations, effect)?;
            let Some(effect) = effect else { return Ok(None) };
            let returned = if operation.is_told() { returned } else { u64::MAX };
            let at = effect.index().0;
            let ranges = vec![(at, at + 1)];
            Ok(Some(Located { called, returned, ranges, is_write: true }))
        }
        Body::Read(Query::Get { key, .. }) => {
            let Some(register) = operation.register() else { return Ok(None) };
            let nothing = Versions::default();
            let versions = witness.keys.get(key).unwrap_or(&nothing);
            let ranges = versions.ranges_of(register.value.as_ref());
            // A value is unique to its write, and its first range begins there.
            let first = ranges.first().map(|(from, _)| Index(*from));
            let revision = first.filter(|_| register.value.is_some());
            if ranges.is_empty() || revision != register.revision {
                let what = format!(
                    "a read of {key:?} saw {:?} at revision {:?}, and the log has it at {revision:?}",
                    register.value, register.revision
                );
                return Err(Broken::new(WITNESS, what));
            }
            Ok(Some(Located { called, returned, ranges, is_write: false }))
        }
        Body::Read(query) => {
            let Ending::Answered(Outcome::Value(value)) = &operation.ended else { return Ok(None) };
            let ranges = page::ranges_of(query, value, witness);
            if ranges.is_empty() {
                let what = format!("{query:?} is answered with {value:?}, as the log never had it");
                return Err(Broken::new(WITNESS, what));
            }
            Ok(Some(Located { called, returned, ranges, is_write: false }))
        }
    }
}

/// The index of each export that has further pages.
type Exports = BTreeMap<ExportId, Index>;

/// Compares a page of an export with the log. The first page is a read at the export's index, and no other page is a
/// read of its own.
fn locate_export(
    operation: &Operation,
    query: &Query,
    witness: &Witness,
    exports: &mut Exports,
) -> Result<Option<Located>, Broken> {
    let Ending::Answered(Outcome::Value(value)) = &operation.ended else { return Ok(None) };
    let broken = |why: &str| {
        let what = format!("{query:?} is answered with {value:?}, {why}");
        Err(Broken::new(WITNESS, what))
    };
    let (Query::Export { from, .. }, Value::Export(page)) = (query, value) else {
        return broken("which is no page of an export");
    };
    if !page::is_of_export(query, page, witness) {
        return broken("as the log never had it at that index");
    }
    if let Some(from) = from {
        let begun = exports.get(&from.export);
        return if begun == Some(&page.at) {
            Ok(None)
        } else {
            broken("which is of another export")
        };
    }
    if let Some(next) = &page.next {
        exports.insert(next.export, page.at);
    }
    let (called, returned) = (operation.called, operation.returned);
    let ranges = vec![(page.at.0, page.at.0 + 1)];
    Ok(Some(Located { called, returned, ranges, is_write: false }))
}

fn check_told(operation: &Operation, mutations: &[Mutation], effect: Option<Effect>) -> Verdict {
    let broken = |law, told: &dyn std::fmt::Debug| {
        let key = &mutations[0].key;
        let what = format!(
            "the client of a write of {key:?} (session {:?}, called at {} ns, ended at {}) was told {told:?}, and the \
             log says {effect:?}",
            operation.session, operation.called, operation.returned
        );
        Err(Broken::new(law, what))
    };
    match (&operation.ended, effect) {
        (Ending::Answered(Outcome::Committed { receipt, .. }), Some(Effect::Written(index)))
            if receipt.revision == Some(index) =>
        {
            Ok(())
        }
        (
            Ending::Answered(Outcome::Rejected(Reason::Conflict { revision, .. })),
            Some(Effect::Conflict(_, found)),
        ) if *revision == found => Ok(()),
        (Ending::Answered(told), _) => broken(WITNESS, told),
        (Ending::Nothing, Some(_)) => broken(EXACTLY_ONCE, &"that nothing happened"),
        _ => Ok(()),
    }
}

/// Judges whether indexes can be chosen so that an operation that returned before another was called comes first.
fn check_real_time(located: &mut [Located]) -> Verdict {
    located.sort_by_key(|operation| (operation.called, operation.returned));
    // Returns in order, each with the index that was chosen for its operation.
    let mut returns: BTreeMap<(u64, usize), u64> = BTreeMap::new();
    let mut floor = 0;
    for (number, operation) in located.iter().enumerate() {
        while let Some(entry) = returns.first_entry() {
            if entry.key().0 >= operation.called {
                break;
            }
            floor = floor.max(entry.remove());
        }
        let least = |(from, before): &(u64, u64)| {
            let at = if operation.is_write { *from } else { (*from).max(floor) };
            let later = !operation.is_write || at > floor;
            (later && at >= floor && at < *before).then_some(at)
        };
        let Some(at) = operation.ranges.iter().filter_map(least).min() else {
            let what = format!(
                "an operation that was called at {} ns, after index {floor} was seen, took place within {:?}",
                operation.called, operation.ranges
            );
            return Err(Broken::new(WITNESS, what));
        };
        returns.insert((operation.returned, number), at);
    }
    Ok(())
}

fn check_search(history: &History, witness: &Witness) -> Verdict {
    let mut keys: BTreeMap<Bytes, Vec<Call>> = BTreeMap::new();
    for (_, operation) in history.of(Space::Strong) {
        for (key, call) in calls(operation, witness) {
            keys.entry(key).or_default().push(call);
        }
    }
    for (key, calls) in &keys {
        let what = match linear::check(calls, BUDGET) {
            linear::Verdict::Linearizable => continue,
            linear::Verdict::Not => {
                format!("no order explains the {} operations on {key:?}", calls.len())
            }
            linear::Verdict::TooHard => {
                format!("the {} operations on {key:?} are too concurrent to be judged", calls.len())
            }
        };
        return Err(Broken::new(SEARCH, what));
    }
    Ok(())
}

/// The calls of an operation for the search, one per key.
fn calls(operation: &Operation, witness: &Witness) -> Vec<(Bytes, Call)> {
    let (called, returned) = (operation.called, operation.returned);
    match &operation.body {
        Body::Read(Query::Get { key, .. }) => {
            let Some(register) = operation.register() else { return Vec::new() };
            let seen = Seen::Read(register.revision.map_or(0, |revision| revision.0));
            vec![(key.clone(), Call { called, returned, seen })]
        }
        Body::Read(_) => Vec::new(),
        Body::Write { mutations, .. } => {
            let (effect, returned) = match &operation.ended {
                Ending::Answered(Outcome::Committed { receipt, .. }) => {
                    (receipt.revision.map(Effect::Written), returned)
                }
                Ending::Answered(Outcome::Rejected(Reason::Conflict { revision, .. })) => {
                    (Some(Effect::Conflict(Index(0), *revision)), returned)
                }
                _ => (witness.effect(operation.session, mutations), u64::MAX),
            };
            let Some(effect) = effect else { return Vec::new() };
            let call = |mutation: &Mutation| {
                let seen = seen_of(mutation, effect, witness);
                (mutation.key.clone(), Call { called, returned, seen })
            };
            let is_refused = matches!(effect, Effect::Conflict(..));
            let asked = mutations.iter().filter(|mutation| !is_refused || swaps(mutation));
            // Of several conditions nobody says which one failed.
            if is_refused && asked.clone().count() > 1 {
                return Vec::new();
            }
            asked.map(call).collect()
        }
    }
}

fn swaps(mutation: &Mutation) -> bool {
    matches!(mutation.edits[0].change, Change::Cas { .. })
}

fn seen_of(mutation: &Mutation, effect: Effect, witness: &Witness) -> Seen {
    let version = |index: Option<Index>| index.map_or(0, |index| index.0);
    let wanted = |expected: &Expected| -> Version {
        match expected {
            Expected::Absent => 0,
            Expected::Revision(revision) => *revision,
            // A value that nobody wrote has no version; `MAX` never matches.
            Expected::Value(value) => witness
                .keys
                .get(&mutation.key)
                .and_then(|versions| versions.revision_of(value))
                .map_or(Version::MAX, |index| index.0),
        }
    };
    match (&mutation.edits[0].change, effect) {
        (Change::Cas { expected, value: Some(_) }, Effect::Written(index)) => {
            Seen::Swapped(wanted(expected), index.0)
        }
        (Change::Cas { expected, value: None }, Effect::Written(_)) => {
            Seen::Swapped(wanted(expected), 0)
        }
        (Change::Cas { expected, .. }, Effect::Conflict(_, found)) => {
            Seen::Refused(wanted(expected), version(found))
        }
        (Change::Put(_), Effect::Written(index)) => Seen::Wrote(index.0),
        _ => Seen::Wrote(0),
    }
}

impl Operation {
    /// Whether the client was told what happened.
    pub(crate) const fn is_told(&self) -> bool {
        matches!(self.ended, Ending::Answered(_))
    }

    /// The register that the operation read.
    const fn register(&self) -> Option<&Register> {
        match &self.ended {
            Ending::Answered(Outcome::Value(Value::Register(register))) => Some(register),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(called: u64, returned: u64, at: u64) -> Located {
        Located { called, returned, ranges: vec![(at, at + 1)], is_write: true }
    }

    fn read(called: u64, returned: u64, ranges: &[(u64, u64)]) -> Located {
        Located { called, returned, ranges: ranges.to_vec(), is_write: false }
    }

    #[test]
    fn indexes_that_respect_time_pass() {
        let end = u64::MAX;
        assert_eq!(check_real_time(&mut []), Ok(()));
        assert_eq!(check_real_time(&mut [write(0, 5, 1), write(6, 7, 2)]), Ok(()));
        assert_eq!(check_real_time(&mut [write(0, 9, 2), write(1, 8, 1)]), Ok(()));
        assert_eq!(check_real_time(&mut [write(0, 5, 3), read(6, 7, &[(3, end)])]), Ok(()));
        assert_eq!(check_real_time(&mut [write(0, 5, 3), read(1, 7, &[(0, 3)])]), Ok(()));
        assert_eq!(check_real_time(&mut [write(0, end, 9), read(1, 2, &[(0, 9)])]), Ok(()));
        // The value was absent twice; the later range explains the read.
        let ranges = [(0, 3), (5, end)];
        assert_eq!(check_real_time(&mut [write(0, 5, 4), read(6, 7, &ranges)]), Ok(()));
    }

    #[test]
    fn indexes_that_break_time_are_seen() {
        let end = u64::MAX;
        assert!(check_real_time(&mut [write(0, 5, 2), write(6, 7, 1)]).is_err());
        assert!(check_real_time(&mut [write(0, 5, 3), read(6, 7, &[(0, 3)])]).is_err());
        // Across two keys: a read of one key must not precede what an earlier read of the other saw.
        let mut across = [read(0, 5, &[(7, end)]), read(6, 7, &[(2, 7)])];
        assert!(check_real_time(&mut across).is_err());
        assert!(check_real_time(&mut [read(0, 5, &[(7, end)]), write(6, 9, 6)]).is_err());
    }
}
