//! OR-sets: a member is in the set while one of its adds is live.
//!
//! An add supersedes the observed adds of the same member, so a member that is added again and again costs one element.
//! A remove supersedes the observed adds and nothing else: an add that it has not seen, a concurrent one, wins.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::api::{Context, Observed, Value};
use crate::mutant;
use crate::replication::write::path::{self, Kind};

use super::{Shard, register};

/// The members of a set, in order.
pub(super) fn read(
    shard: &Shard,
    key: &[u8],
    field: &[u8],
    seal: &dyn Fn(&Observed) -> Context,
) -> Value {
    let prefix = path::of_field(key, field);
    let mut members = BTreeSet::new();
    let mut observed = Vec::new();
    for (path, elements) in shard.within(&prefix) {
        let rest = &path[prefix.len()..];
        if rest[0] == Kind::Set as u8 {
            members.insert(Bytes::copy_from_slice(&rest[1..]));
            observed.extend_from_slice(&elements);
        }
    }
    if mutant!("replication.read.hides_member") {
        members.pop_last();
    }
    let context = seal(&register::observed(shard, observed.iter()));
    Value::Set { members: members.into_iter().collect(), context }
}
