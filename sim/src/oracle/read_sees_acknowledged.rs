//! Law: a strong read sees every write that was acknowledged before the read was asked (Herlihy and Wing 1990; Raft,
//! §8).
//!
//! Compares the revision that a read returns with the revisions that replies of any node acknowledged before it, and an
//! absent value with the committed log. It names the reply that goes wrong. It does not judge the order of whole
//! histories (`strong`).

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{Outcome, Register, Value};
use continuum_core::id::{Index, RequestId};

use super::cause::Asks;
use super::witness::Witness;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "read-sees-acknowledged";

/// A request that waits for an answer.
#[derive(Debug)]
enum Pending {
    /// A read of this key, and the greatest revision of the key that was acknowledged before.
    Read(Bytes, Index),
    Write(Vec<Bytes>),
}

/// The acknowledged revisions and the pending requests of the strong namespace.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    revisions: BTreeMap<Bytes, Index>,
    pending: BTreeMap<(usize, RequestId), Pending>,
}

impl Acknowledged {
    /// Records a request that arrives.
    pub(crate) fn arrives(&mut self, me: usize, id: RequestId, asks: &Asks) {
        let pending = match asks {
            Asks::Read(key) => {
                let floor = self.revisions.get(key).copied().unwrap_or_default();
                Pending::Read(key.clone(), floor)
            }
            Asks::Write(keys) => Pending::Write(keys.clone()),
            Asks::ReadOther(..) | Asks::Other => return,
        };
        self.pending.insert((me, id), pending);
    }

    /// Judges the answer to a request.
    pub(crate) fn check(
        &mut self,
        me: usize,
        id: RequestId,
        outcome: &Outcome,
        witness: Option<&Witness>,
    ) -> Verdict {
        match (self.pending.remove(&(me, id)), outcome) {
            (Some(Pending::Write(keys)), Outcome::Committed { receipt, .. }) => {
                for key in keys {
                    let known = self.revisions.entry(key).or_default();
                    *known = (*known).max(receipt.revision.unwrap_or_default());
                }
                Ok(())
            }
            (Some(Pending::Read(key, floor)), Outcome::Value(Value::Register(register))) => {
                check_read(&key, floor, register, witness)
            }
            _ => Ok(()),
        }
    }

    /// Forgets the requests of a node whose process ended: they are never answered.
    pub(crate) fn ended(&mut self, me: usize) {
        self.pending.retain(|(node, _), _| *node != me);
    }
}

pub(crate) fn check_read(
    key: &Bytes,
    floor: Index,
    register: &Register,
    witness: Option<&Witness>,
) -> Verdict {
    let is_fresh = match register.revision {
        Some(revision) => revision >= floor,
        None => {
            floor == Index(0) || witness.is_some_and(|witness| witness.is_absent_since(key, floor))
        }
    };
    if is_fresh {
        return Ok(());
    }
    let what = format!(
        "a read of {key:?} sees revision {:?}, but revision {floor} was acknowledged before it was asked",
        register.revision
    );
    Err(Broken::new(NAME, what))
}
