//! Law: a namespace exists until its creator deletes it; after that no node holds any of it (README, Guarantees: a
//! deleted namespace takes all in it along).
//!
//! Compares what each node holds, once replicas are equal, with what the churn client that created the namespace was
//! told. It does not judge what a node serves before it learns of a deletion.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use continuum_core::api::{Content, Namespace, Policy, Query, Row, Value};
use continuum_core::id::{GroupId, NamespaceId, ShardId};
use continuum_core::limits::PAGE_ROWS_MAX;
use continuum_core::node::Node;
use continuum_core::state::StateMachine;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "deleted-is-gone";

/// The state of a namespace, as its creator was told.
#[derive(Clone, Debug)]
pub(crate) struct Owed<'a> {
    /// The namespace's policy; `None` when it was deleted.
    pub(crate) policy: Option<Policy>,
    /// By key, the value that was acknowledged last.
    pub(crate) values: &'a BTreeMap<Bytes, Bytes>,
    /// Whether some disk lost what it held: an eventual write that only this disk acknowledged may be lost with it.
    pub(crate) may_lose: bool,
}

/// The content that a node holds under a namespace's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    policy: Option<Policy>,
    values: BTreeMap<Bytes, Vec<Bytes>>,
}

impl Held {
    pub(crate) fn of(node: &Node, name: &str) -> Self {
        let registry = node.state(GroupId::REGISTRY).map(StateMachine::registry);
        let Some(record) = registry.and_then(|registry| registry.namespace(name)) else {
            return Self::default();
        };
        let Namespace { id, policy, group, .. } = record.namespace;
        let mut values = BTreeMap::new();
        match policy {
            Policy::Strong => {
                let state = group.and_then(|group| node.state(group));
                read_all(&mut values, |query| state?.query(query).ok());
            }
            Policy::Eventual { slots, .. } => {
                for shard in (0..slots).map(|slot| ShardId { namespace: id, slot }) {
                    read_all(&mut values, |query| node.replicator().read(shard, query).ok());
                }
            }
        }
        Self { policy: Some(policy), values }
    }
}

/// Adds all registers, page by page.
fn read_all(values: &mut BTreeMap<Bytes, Vec<Bytes>>, read: impl Fn(&Query) -> Option<Value>) {
    let mut after = None;
    loop {
        let query = Query::Rows { after, limit: PAGE_ROWS_MAX as u32 };
        let rows = read(&query).map(registers).unwrap_or_default();
        after = rows.last().map(|(key, _)| key.clone());
        values.extend(rows);
        if after.is_none() {
            return;
        }
    }
}

/// The key and the register's values of each row of a page.
fn registers(page: Value) -> Vec<(Bytes, Vec<Bytes>)> {
    let Value::Rows { rows, .. } = page else { return Vec::new() };
    let register = |row: Row| {
        let values = row.fields.into_iter().find_map(|field| match field.content {
            Content::Register(values) => Some(values),
            Content::Set(_) | Content::Counter(_) => None,
        });
        (row.key, values.unwrap_or_default())
    };
    rows.into_iter().map(register).collect()
}

/// Judges what a node holds under a name against what the namespace's creator was told.
pub(crate) fn check(number: usize, name: &str, owed: &Owed<'_>, held: &Held) -> Verdict {
    let broken = |what: String| Err(Broken::new(NAME, format!("{name} on node {number}: {what}")));
    if held.policy != owed.policy {
        return broken(format!("its policy is {:?}, and must be {:?}", held.policy, owed.policy));
    }
    let is_strong = owed.policy == Some(Policy::Strong);
    if owed.policy.is_none() || (owed.may_lose && !is_strong) {
        return Ok(());
    }
    for (key, value) in owed.values {
        let found = held.values.get(key).map_or(&[][..], Vec::as_slice);
        // In an eventual namespace, a retry sent to another node is another write, and may win.
        if found.is_empty() || (is_strong && found != [value.clone()]) {
            return broken(format!("{key:?} holds {found:?}, and {value:?} was acknowledged last"));
        }
    }
    Ok(())
}

/// Judges that no client was told that it has created a namespace that existed.
pub(crate) fn check_created(twice: Option<&str>) -> Verdict {
    let Some(name) = twice else { return Ok(()) };
    Err(Broken::new(NAME, format!("{name} existed, and its client was told it is created")))
}

/// Judges that a node has no group and no shard that its registry does not name.
pub(crate) fn check_leftovers(number: usize, node: &Node) -> Verdict {
    let Some(registry) = node.state(GroupId::REGISTRY).map(StateMachine::registry) else {
        return Ok(());
    };
    let named = || registry.namespaces().map(|record| &record.namespace);
    let groups: BTreeSet<GroupId> = named().filter_map(|namespace| namespace.group).collect();
    let namespaces: BTreeSet<NamespaceId> = named().map(|namespace| namespace.id).collect();
    let mut left = node.groups().filter(|group| *group != GroupId::REGISTRY);
    if let Some(group) = left.find(|group| !groups.contains(group)) {
        return Err(Broken::new(
            NAME,
            format!("node {number} still has group {group}, which was deleted"),
        ));
    }
    let mut left = node.replicator().shards();
    if let Some(shard) = left.find(|shard| !namespaces.contains(&shard.namespace)) {
        let what =
            format!("node {number} still has a shard of {}, which was deleted", shard.namespace);
        return Err(Broken::new(NAME, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use continuum_core::api::Strategy;

    use super::*;

    const EVENTUAL: Policy =
        Policy::Eventual { strategy: Strategy::LastWriterWins, slots: 1, discard: false };

    fn values(pairs: &[(&'static str, &'static str)]) -> BTreeMap<Bytes, Bytes> {
        pairs.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect()
    }

    /// Whether a node may hold the second after the creator was told the first.
    fn holds(
        (policy, owed, may_lose): (Option<Policy>, &[(&'static str, &'static str)], bool),
        (there, held): (Option<Policy>, &[(&'static str, &'static str)]),
    ) -> bool {
        let owed = values(owed);
        let owed = Owed { policy, values: &owed, may_lose };
        let held = values(held).into_iter().map(|(key, value)| (key, vec![value])).collect();
        check(0, "t", &owed, &Held { policy: there, values: held }).is_ok()
    }

    #[test]
    fn a_namespace_is_created_once() {
        assert_eq!(check_created(None), Ok(()));
        assert!(check_created(Some("t")).is_err());
    }

    #[test]
    fn planted_deletions() {
        let (strong, eventual) = (Some(Policy::Strong), Some(EVENTUAL));
        assert!(holds((None, &[], false), (None, &[])));
        assert!(holds((strong, &[("a", "1.3")], false), (strong, &[("a", "1.3")])));
        assert!(holds((eventual, &[("a", "1.3")], false), (eventual, &[("a", "1.2")])), "a retry");
        assert!(holds((eventual, &[("a", "1.3")], true), (eventual, &[])), "with its disk");
        // A deletion that did not happen, one that nobody asked for, and another policy.
        assert!(!holds((None, &[], false), (strong, &[])));
        assert!(!holds((strong, &[], false), (None, &[])));
        assert!(!holds((strong, &[], false), (eventual, &[])));
        // An acknowledged value is lost, or a late retry undid it.
        assert!(!holds((strong, &[("a", "1.3")], true), (strong, &[])));
        assert!(!holds((strong, &[("a", "1.3")], false), (strong, &[("a", "1.2")])));
        assert!(!holds((eventual, &[("a", "1.3")], false), (eventual, &[])));
    }
}
