//! OR-sets: a member is in the set while one of its adds is live.
//!
//! An add supersedes the observed adds of the same member, so a member that is added again and again costs one element.
//! A remove supersedes the observed adds and nothing else: a concurrent add, which it has not seen, wins.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::api::Value;

use super::{Shard, register};
use crate::replication::write::path::{self, Kind};

/// The members of a set, in order.
pub(crate) fn read(shard: &Shard, key: &[u8], field: &[u8]) -> Value {
    let prefix = path::of_field(key, field);
    let mut members = BTreeSet::new();
    let mut elements = Vec::new();
    for (place, held) in shard.within(&prefix) {
        let rest = &place[prefix.len()..];
        if rest[0] == Kind::Set as u8 {
            members.insert(Bytes::copy_from_slice(&rest[1..]));
            elements.extend_from_slice(held);
        }
    }
    let context = register::context(shard, elements.iter());
    Value::Set { members: members.into_iter().collect(), context }
}
