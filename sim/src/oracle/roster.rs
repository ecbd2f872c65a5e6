//! The numbers of nodes and the stores that the federation began with. This file states no law.

use continuum_core::id::{NodeId, Replica};

use crate::env::process::Process;

/// The replica of each node number.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    pub(super) replicas: Vec<Replica>,
}

impl Roster {
    pub(crate) const fn new(replicas: Vec<Replica>) -> Self {
        Self { replicas }
    }

    /// The number of a node.
    pub(crate) fn number(&self, node: NodeId) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.node == node)
    }

    /// The number of a node that runs with the store that the federation began with, and is formed.
    pub(super) fn running(&self, processes: &[Process], node: NodeId) -> Option<usize> {
        let number = self.number(node)?;
        let process = processes.get(number).filter(|process| process.is_up())?;
        let is_first = process.replica == self.replica(number);
        (is_first && process.disk.durable.genesis.is_some()).then_some(number)
    }

    /// A node gets another store before the federation begins.
    pub(crate) fn renew(&mut self, number: usize, replica: Replica) {
        self.replicas[number] = replica;
    }

    /// The replica of a node number with the store that the federation began with: if the node is a voter, it votes
    /// with that store.
    pub(crate) fn replica(&self, number: usize) -> Replica {
        self.replicas[number]
    }
}
