//! Law: a fenced node sends nothing and acknowledges nothing (README, Guarantees: a failed `fsync` is never retried,
//! the node goes silent). Second law, wiped-voter-never-votes: a voter whose disk was wiped votes in no group with its
//! new store (README, Guarantees: a wiped disk cannot vote or write as the old one).
//!
//! Compares the actions of a step with the node's state when the step ends. It does not judge when a node must fence
//! itself, nor which of two boots is admitted (`one_process_per_identity`).

use continuum_core::api::Outcome;
use continuum_core::id::{GroupId, Role};
use continuum_core::node::{Action, Notice};

use super::Step;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "fencing";
pub(crate) const SECOND_VOTE: &str = "wiped-voter-never-votes";

/// Judges a step of a node that is fenced when the step ends, or that is a voter with another store.
pub(crate) fn check(step: &Step<'_>) -> Verdict {
    if step.node.is_fenced() {
        check_silence(step.actions)?;
    }
    if step.processes[step.me].has_foreign_store && step.node.groups().any(|id| votes(step, id)) {
        let replica = step.processes[step.me].replica;
        let what = format!("{replica:?} votes, and so does another store of its node");
        return Err(Broken::new(SECOND_VOTE, what));
    }
    Ok(())
}

/// Whether a replica is a voter of a group, in its own eyes.
fn votes(step: &Step<'_>, group: GroupId) -> bool {
    let replica = step.processes[step.me].replica;
    step.node
        .raft(group)
        .is_some_and(|raft| raft.role() != Role::Learner || raft.configuration().is_voter(replica))
}

/// Judges that such a step sends nothing, and acknowledges nothing after the node fenced itself.
fn check_silence(actions: &[Action]) -> Verdict {
    let fences = |action: &Action| matches!(action, Action::Notify(Notice::Fenced { .. }));
    let since = actions.iter().position(fences).unwrap_or(0);
    let promise = actions.iter().enumerate().find(|(at, action)| match action {
        Action::Send { .. } => true,
        Action::Reply { outcome: Outcome::Committed { .. }, .. } => *at >= since,
        _ => false,
    });
    match promise {
        None => Ok(()),
        Some((_, action)) => Err(Broken::new(NAME, format!("a fenced node emits {action:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::api::{Level, Reason, Receipt};
    use continuum_core::id::{NodeId, RequestId};
    use continuum_core::node::{Message, Plane};

    use super::*;

    #[test]
    fn a_fenced_node_that_acknowledges_or_sends_is_seen() {
        let reply = |outcome| Action::Reply { id: RequestId(1), outcome };
        let committed = || {
            let receipt = Receipt::default();
            reply(Outcome::Committed { level: Level::Durable, receipt })
        };
        let fenced = || Action::Notify(Notice::Fenced { why: "x" });
        let stopping = || reply(Outcome::Rejected(Reason::Stopping));
        assert_eq!(check_silence(&[committed(), fenced(), stopping()]), Ok(()));
        assert_eq!(check_silence(&[stopping()]), Ok(()));
        assert!(check_silence(&[fenced(), committed()]).is_err());
        assert!(check_silence(&[committed()]).is_err());
        let (to, plane) = (NodeId::default(), Plane::Control);
        let message = Message::Genesis { genesis: None, replaced: None };
        assert!(check_silence(&[Action::Send { to, plane, message }, fenced()]).is_err());
    }
}
