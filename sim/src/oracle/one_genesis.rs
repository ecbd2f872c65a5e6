//! Law: a federation begins once, by a durable promise of every named voter (README, Guarantees: one federation).
//!
//! * A replica accepts one founding at a time, and is formed with one genesis.
//! * The first replica that is formed with a genesis finds the acceptance of every other voter on that voter's disk,
//!   and is linked to no node that told it of another federation.
//! * All replicas that are formed with a genesis are told the same voters.
//! * A message of a founding claims only what the sender's disk has.
//! * What a founder said will never be, to a voter or to an operator, never is.
//! * A formed node drops the messages of another genesis.
//!
//! Compares the records and messages of a step with what other nodes wrote. It does not judge what a group does
//! afterwards: the laws of Raft do, for the federation whose first voters the plan names.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::api::{Outcome, Reason, Value};
use continuum_core::id::{GenesisId, GroupId, NodeId, Replica};
use continuum_core::node::{Action, Founding, Message, Node, Notice};
use continuum_core::raft;
use continuum_core::wal::Write;

use super::Step;
use crate::env::durable::Durable;
use crate::env::process::Process;
use crate::env::requester::Requester;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "one-genesis";

/// All foundings of a run.
#[derive(Debug, Default)]
pub(crate) struct Geneses {
    /// The voters that the plan names, with their present stores.
    first_voters: Vec<Replica>,
    /// The genesis with those voters.
    main: Option<GenesisId>,
    /// The voters of each genesis that some node wrote.
    voters: BTreeMap<GenesisId, Vec<Replica>>,
    /// The geneses that are on some disk.
    decided: BTreeSet<GenesisId>,
    /// The geneses that will never be, as a founder said.
    dead: BTreeSet<GenesisId>,
    /// By replica, as it wrote it: its genesis, and the founding that it accepted and was not released from.
    formed: BTreeMap<Replica, GenesisId>,
    accepted: BTreeMap<Replica, GenesisId>,
    /// The geneses that each node offered.
    offered: BTreeMap<usize, BTreeSet<GenesisId>>,
    /// The formed nodes that each node is linked to, as they told it.
    heard: BTreeMap<usize, BTreeSet<NodeId>>,
}

fn broken(what: String) -> Verdict {
    Err(Broken::new(NAME, what))
}

impl Geneses {
    pub(crate) fn new(mut first_voters: Vec<Replica>) -> Self {
        first_voters.sort_unstable();
        Self { first_voters, ..Self::default() }
    }

    /// The operator replaced the store of a node that belonged to no federation that stays.
    pub(crate) fn renewed(&mut self, replica: Replica) {
        let known = self.first_voters.iter_mut().find(|known| known.node == replica.node);
        if let Some(known) = known {
            *known = replica;
        }
        self.first_voters.sort_unstable();
    }

    /// The genesis of the federation whose first voters the plan names.
    pub(crate) const fn main(&self) -> Option<GenesisId> {
        self.main
    }

    /// Whether a node is formed, and in another federation than the plan's.
    pub(crate) fn is_rival(&self, node: &Node) -> bool {
        node.genesis().is_some_and(|genesis| self.main != Some(genesis))
    }

    /// Whether a replica is one of the voters that the plan names.
    pub(crate) fn is_first_voter(&self, replica: Replica) -> bool {
        self.first_voters.contains(&replica)
    }

    /// A process starts: what it wrote and did not sync is gone.
    pub(crate) fn restarted(&mut self, me: usize, process: &Process) -> Verdict {
        self.heard.remove(&me);
        self.offered.remove(&me);
        let Process { replica, disk, .. } = process;
        self.formed.remove(replica);
        self.accepted.remove(replica);
        self.formed.extend(disk.durable.genesis.map(|genesis| (*replica, genesis)));
        self.accepted.extend(disk.durable.accepted.map(|genesis| (*replica, genesis)));
        self.decide(&disk.durable)
    }

    /// A genesis that is on a disk is decided.
    fn decide(&mut self, durable: &Durable) -> Verdict {
        let Some(genesis) = durable.genesis else { return Ok(()) };
        if self.decided.insert(genesis) && self.dead.contains(&genesis) {
            return broken(format!("genesis {genesis} is decided although it was aborted"));
        }
        Ok(())
    }

    /// Judges a step.
    pub(crate) fn observe(&mut self, step: &Step<'_>) -> Verdict {
        self.decide(&step.processes[step.me].disk.durable)?;
        self.note_links(step);
        for action in step.actions {
            match action {
                Action::Persist { write, .. } => self.observe_write(step, write)?,
                Action::Send { message, .. } => self.observe_send(step, message)?,
                Action::Reply { id, outcome } => {
                    let requester = step.processes[step.me].requests.get(id);
                    if matches!(requester, Some(Requester::Operator | Requester::Rival)) {
                        self.observe_reply(step, outcome)?;
                    }
                }
                _ => {}
            }
        }
        check_dropped(step)
    }

    fn note_links(&mut self, step: &Step<'_>) {
        let (relinked, formed) = (step.cause.relinked, step.cause.formed_peer);
        if relinked.is_none() && formed.is_none() {
            return;
        }
        let heard = self.heard.entry(step.me).or_default();
        if let Some(peer) = relinked {
            heard.remove(&peer);
        }
        let refused = |action: &Action| matches!(action, Action::Notify(Notice::Rejected { .. }));
        if let Some(peer) = formed.filter(|_| !step.actions.iter().any(refused)) {
            heard.insert(peer);
        }
    }

    fn observe_write(&mut self, step: &Step<'_>, write: &Write) -> Verdict {
        let replica = step.processes[step.me].replica;
        match write {
            Write::Accepted { bootstrap, .. } => {
                let genesis = bootstrap.genesis;
                let open = self.formed.get(&replica).or_else(|| self.accepted.get(&replica));
                if let Some(open) = open.filter(|open| **open != genesis) {
                    return broken(format!("{replica:?} accepts {genesis} beside {open}"));
                }
                self.accepted.insert(replica, genesis);
                Ok(())
            }
            Write::Released { genesis } => {
                self.accepted.remove(&replica);
                if self.decided.contains(genesis) {
                    return broken(format!("{replica:?} leaves {genesis}, which is decided"));
                }
                Ok(())
            }
            Write::Group {
                group: GroupId::REGISTRY,
                write: raft::Write::Genesis { id, configuration },
            } => self.forms(step, *id, &configuration.voters),
            _ => Ok(()),
        }
    }

    fn forms(&mut self, step: &Step<'_>, genesis: GenesisId, voters: &[Replica]) -> Verdict {
        let replica = step.processes[step.me].replica;
        match self.formed.insert(replica, genesis) {
            // A checkpoint writes it again.
            Some(before) if before == genesis => return Ok(()),
            Some(before) => return broken(format!("{replica:?} leaves {before} for {genesis}")),
            None => {}
        }
        self.accepted.remove(&replica);
        if self.dead.contains(&genesis) {
            return broken(format!("{replica:?} is formed with {genesis}, which was aborted"));
        }
        let known = self.voters.entry(genesis).or_insert_with(|| voters.to_vec());
        if *known != voters {
            return broken(format!("{replica:?} is told that {voters:?} vote, not {known:?}"));
        }
        let is_open = self.main.is_none_or(|main| !self.decided.contains(&main));
        if is_open && *known == self.first_voters {
            self.main = Some(genesis);
        }
        if self.decided.contains(&genesis) || !voters.contains(&replica) {
            return Ok(());
        }
        self.check_decision(step, genesis, voters)
    }

    /// Judges the founder's decision.
    fn check_decision(&self, step: &Step<'_>, genesis: GenesisId, voters: &[Replica]) -> Verdict {
        for voter in voters.iter().filter(|voter| **voter != step.processes[step.me].replica) {
            let found = step.processes.iter().find(|process| process.replica == *voter);
            let accepted = found.and_then(|process| process.disk.durable.accepted);
            if accepted != Some(genesis) {
                return broken(format!("{genesis} is decided, and {voter:?} accepts {accepted:?}"));
            }
        }
        match self.heard.get(&step.me).and_then(BTreeSet::first) {
            Some(peer) => {
                broken(format!("{genesis} is decided beside node {peer}, which is formed"))
            }
            None => Ok(()),
        }
    }

    fn observe_send(&mut self, step: &Step<'_>, message: &Message) -> Verdict {
        let durable = &step.processes[step.me].disk.durable;
        let (genesis, holds) = match message {
            Message::Genesis { genesis: Some(genesis), .. } => {
                (genesis, durable.genesis == Some(*genesis))
            }
            Message::Founding(Founding::Formed(list)) => {
                (&list.genesis, durable.genesis == Some(list.genesis))
            }
            Message::Founding(Founding::Acknowledged(genesis)) => {
                (genesis, durable.genesis == Some(*genesis))
            }
            Message::Founding(Founding::Accepted(genesis)) => {
                (genesis, durable.has_accepted(*genesis))
            }
            Message::Founding(Founding::Offer(list)) => {
                self.offered.entry(step.me).or_default().insert(list.genesis);
                return Ok(());
            }
            Message::Founding(Founding::Aborted(genesis)) => {
                self.dead.insert(*genesis);
                (genesis, !self.decided.contains(genesis))
            }
            _ => return Ok(()),
        };
        if holds { Ok(()) } else { broken(format!("{genesis}: {message:?} is not true")) }
    }

    fn observe_reply(&mut self, step: &Step<'_>, outcome: &Outcome) -> Verdict {
        let Process { replica, disk, .. } = &step.processes[step.me];
        match outcome {
            Outcome::Value(Value::Initialized) if disk.durable.genesis.is_none() => {
                broken(format!("{replica:?} says that it founded what no disk has"))
            }
            // A second request is refused while the first goes on.
            Outcome::Rejected(Reason::Busy) => Ok(()),
            Outcome::Rejected(_) => {
                let own = self.formed.get(replica);
                let offered = self.offered.get(&step.me).into_iter().flatten();
                let never = offered
                    .filter(|genesis| Some(*genesis) != own && !self.decided.contains(genesis));
                self.dead.extend(never.copied().collect::<Vec<_>>());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Judges that a formed node drops a protocol message of another genesis, and says so.
fn check_dropped(step: &Step<'_>) -> Verdict {
    let (Some(mine), Some(theirs)) = (step.node.genesis(), step.cause.genesis) else {
        return Ok(());
    };
    let is_said = |action: &Action| {
        matches!(action, Action::Notify(Notice::OtherGenesis { .. } | Notice::Rejected { .. }))
    };
    if mine == theirs || step.node.is_fenced() || step.actions.iter().any(is_said) {
        return Ok(());
    }
    broken(format!("a node of {mine} takes a message of {theirs}"))
}
