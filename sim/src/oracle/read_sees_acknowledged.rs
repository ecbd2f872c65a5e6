//! Freshness: a linearizable read sees every write that was acknowledged before it was asked (Herlihy and Wing 1990;
//! Raft, §8). The judgement over whole histories is in `strong`; this one shows the reply that goes wrong.
//!
//! What was acknowledged is taken from the replies of all nodes, what a key held from the committed log.

use std::collections::BTreeMap;

use bytes::Bytes;
use continuum_core::api::{Outcome, Register, Value};
use continuum_core::id::{Index, RequestId};

use super::cause::Asks;
use super::witness::Witness;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "read-sees-acknowledged";

/// What waits for an answer.
#[derive(Debug)]
enum Waits {
    /// A read of a key of which this write was acknowledged before.
    Read(Bytes, Index),
    Write(Vec<Bytes>),
}

/// Requests of the strong namespace under way, and what was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    acknowledged: BTreeMap<Bytes, Index>,
    waits: BTreeMap<(usize, RequestId), Waits>,
}

impl Fresh {
    /// A request arrives.
    pub(crate) fn arrives(&mut self, me: usize, id: RequestId, asks: &Asks) {
        let waits = match asks {
            Asks::Read(key) => {
                let floor = self.acknowledged.get(key).copied().unwrap_or_default();
                Waits::Read(key.clone(), floor)
            }
            Asks::Write(keys) => Waits::Write(keys.clone()),
            Asks::Other => return,
        };
        self.waits.insert((me, id), waits);
    }

    /// A request is answered.
    pub(crate) fn check(
        &mut self,
        me: usize,
        id: RequestId,
        outcome: &Outcome,
        witness: Option<&Witness>,
    ) -> Verdict {
        match (self.waits.remove(&(me, id)), outcome) {
            (Some(Waits::Write(keys)), Outcome::Committed { receipt, .. }) => {
                for key in keys {
                    let known = self.acknowledged.entry(key).or_default();
                    *known = (*known).max(receipt.revision.unwrap_or_default());
                }
                Ok(())
            }
            (Some(Waits::Read(key, floor)), Outcome::Value(Value::Register(register))) => {
                check_read(&key, floor, register, witness)
            }
            _ => Ok(()),
        }
    }

    /// A node ended: it answers nothing of what it was asked.
    pub(crate) fn ended(&mut self, me: usize) {
        self.waits.retain(|(node, _), _| *node != me);
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
        "a read of {key:?} sees revision {:?}, and {floor} was acknowledged before it was asked",
        register.revision
    );
    Err(Broken::new(NAME, what))
}
