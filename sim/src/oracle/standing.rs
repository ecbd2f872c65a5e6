//! Law: a message that its sender may not send changes nothing at its receiver; and no message of a hostile node fences
//! or suspends its receiver, halts a group there, or makes a member of a node that never ran (contract of
//! `core::node::standing`).
//!
//! Compares what a node is before and after a hostile message. The whole state is compared for some messages only,
//! because that costs much. It does not judge what a message may change that its sender may send.

use continuum_core::digest::{Digest, Hasher};
use continuum_core::id::{GroupId, Replica};
use continuum_core::machine::Machine as _;
use continuum_core::node::Node;
use continuum_core::state::StateMachine;
use continuum_core::time::Instant;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "standing";

/// The facts about a node that this law compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    is_fenced: bool,
    is_suspended: bool,
    is_halted: bool,
    /// Whether a node that never ran is a member.
    has_nobody: bool,
    /// The digest of the whole state, if it is compared.
    whole: Option<Digest>,
}

impl Sight {
    /// Looks at a node. `nobody` never ran.
    pub(crate) fn of(node: &Node, nobody: &Replica) -> Self {
        let is_halted = |group| node.state(group).is_some_and(|state| state.halted().is_some());
        let registry = node.state(GroupId::REGISTRY).map(StateMachine::registry);
        Self {
            is_fenced: node.is_fenced(),
            is_suspended: node.is_suspended(),
            is_halted: node.groups().any(is_halted),
            has_nobody: registry.is_some_and(|registry| registry.is_member(nobody)),
            whole: None,
        }
    }

    /// Adds the whole state, if the node has nothing left to do by `now`. Otherwise each step changes it.
    pub(crate) fn whole(mut self, node: &Node, now: Instant) -> Self {
        if node.deadline().is_none_or(|due| due > now) {
            let mut hash = Hasher::new();
            node.digest(&mut hash);
            self.whole = Some(hash.finish());
        }
        self
    }

    /// Judges what a hostile message did. `what` describes it.
    pub(crate) fn check(self, after: Self, what: impl FnOnce() -> String) -> Verdict {
        let began = |before: bool, after: bool| after && !before;
        let why = if began(self.is_halted, after.is_halted) {
            "has a halted group"
        } else if began(self.is_fenced, after.is_fenced) {
            "is fenced"
        } else if began(self.is_suspended, after.is_suspended) {
            "is suspended"
        } else if began(self.has_nobody, after.has_nobody) {
            "has a member that never ran"
        } else if self.whole.is_some() && self.whole != after.whole {
            "is changed"
        } else {
            return Ok(());
        };
        Err(Broken::new(NAME, format!("the receiver {why}: {}", what())))
    }
}

/// Planted histories.
#[cfg(test)]
pub(super) fn planted() -> [(&'static str, bool, Verdict); 7] {
    let calm = Sight::default();
    let whole = |text: &[u8]| Sight { whole: Some(Digest::of(text)), ..calm };
    let judge = |before: Sight, after| before.check(after, String::new);
    [
        ("a hostile message without effect", true, judge(whole(b"a"), whole(b"a"))),
        ("a hostile message that changes the receiver", false, judge(whole(b"a"), whole(b"b"))),
        ("a hostile fence", false, judge(calm, Sight { is_fenced: true, ..calm })),
        ("a hostile doubt", false, judge(calm, Sight { is_suspended: true, ..calm })),
        ("a hostile entry", false, judge(calm, Sight { is_halted: true, ..calm })),
        ("a hostile guest", false, judge(calm, Sight { has_nobody: true, ..calm })),
        ("a hostile message to a fenced node", true, {
            let fenced = Sight { is_fenced: true, ..calm };
            judge(fenced, fenced)
        }),
    ]
}
