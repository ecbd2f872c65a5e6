//! Law: no node dials an address that only a stranger named, and what members and the operator's list name makes it
//! dial a bounded number of times a second (contract of `core::discovery`).
//!
//! Looks at the addresses that a node dials or keeps a link to, and counts the dials of each second. It does not judge
//! which of the addresses that members name are dialled.

use continuum_core::discovery::CONTACTS_MAX;
use continuum_core::id::Address;
use continuum_core::node::Action;
use continuum_core::time::Instant;

use super::Step;
use super::bounded_memory::Budgets;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "bounded-dials";

/// The first bytes of each address that a stranger makes up.
pub(crate) const STRANGERS_ADDRESS: &str = "stranger:";

/// The dials of one process life of a node in the present second.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    second: u64,
    count: usize,
}

/// A new address is dialled this often in its first second: the first pauses are a quarter and half of a second.
const TRIES: usize = 3;

/// The most dials of a second: each peer may name a message of new addresses, and the operator's list a table of them,
/// and each other address in the table is tried again.
const fn most(nodes: usize, candidates: usize) -> usize {
    TRIES * (CONTACTS_MAX * (nodes + 1) + candidates) + candidates
}

impl Dials {
    /// Judges an action that names an address.
    pub(crate) fn observe(
        &mut self,
        step: &Step<'_>,
        action: &Action,
        budgets: &Budgets,
    ) -> Verdict {
        let most = most(step.processes.len(), budgets.candidates());
        match action {
            Action::Verify { address } => self.check(step.now.mono, address, most),
            Action::Route { address: Some(address), .. } => check_address(address),
            _ => Ok(()),
        }
    }

    /// Judges a dial, one of at most `most` in a second.
    fn check(&mut self, now: Instant, address: &Address, most: usize) -> Verdict {
        let second = now.since(Instant::ZERO).as_secs();
        let count = if second == self.second { self.count + 1 } else { 1 };
        (self.second, self.count) = (second, count);
        if count > most {
            let what = format!("the dial of {address:?} is number {count} of a second");
            return Err(Broken::new(NAME, what));
        }
        check_address(address)
    }
}

/// Judges an address that a node dials or keeps a link to.
pub(crate) fn check_address(address: &Address) -> Verdict {
    if !address.0.starts_with(STRANGERS_ADDRESS) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("{address:?} is dialled, and only a stranger named it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_address_and_too_many_dials_are_seen() {
        let (at, members) = (Instant::from_millis, Address("n1:7000".to_owned()));
        let mut dials = Dials::default();
        for ms in 0..3 {
            assert_eq!(dials.check(at(100 + ms), &members, 3), Ok(()));
        }
        assert!(dials.check(at(104), &members, 3).is_err());
        assert_eq!(dials.check(at(1_100), &members, 3), Ok(()), "another second");
        assert!(dials.check(at(9_000), &Address("stranger:1".to_owned()), 3).is_err());
    }
}
