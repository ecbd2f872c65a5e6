//! The elements that each node knows to be dead, by its own log: a peer's view says so, or a removal came before the
//! write.
//!
//! A node may know that an element is dead before it knows the write that superseded it. This file only remembers;
//! `writes` judges that some write did supersede the element, and the executable specification counts it as dead.

use std::collections::BTreeMap;

use continuum_core::id::{Dot, ShardId, Token};

/// The dead elements that all nodes were told of.
#[derive(Debug)]
pub(crate) struct Told {
    /// By node.
    nodes: Vec<BTreeMap<(ShardId, Dot), Vec<Left>>>,
}

/// A record's token number, and the edits of a write that it leaves alive.
type Left = (u64, Vec<u16>);

impl Told {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes: vec![BTreeMap::new(); nodes] }
    }

    /// Records that a node logs which edits of a write live.
    pub(crate) fn add(
        &mut self,
        number: usize,
        token: Token,
        (shard, dot): (ShardId, Dot),
        left: Vec<u16>,
    ) {
        self.nodes[number].entry((shard, dot)).or_default().push((token.seq, left));
    }

    /// Whether a node knows that an element is dead.
    pub(crate) fn is_dead(&self, number: usize, shard: ShardId, dot: &Dot, edit: u16) -> bool {
        let told = self.nodes[number].get(&(shard, *dot)).into_iter().flatten();
        told.into_iter().any(|(_, left)| !left.contains(&edit))
    }

    /// A node's disk is gone.
    pub(crate) fn disk_gone(&mut self, number: usize) {
        self.nodes[number].clear();
    }

    /// A node restarts with a log that ends at `last`.
    pub(crate) fn restarted(&mut self, number: usize, last: Token) {
        for told in self.nodes[number].values_mut() {
            told.retain(|(seq, _)| *seq <= last.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_takes_from_the_log_was_never_told() {
        let (shard, dot) = (ShardId::default(), Dot::default());
        let token = |seq| Token { lane: 0, seq };
        let mut told = Told::new(2);
        told.add(0, token(3), (shard, dot), vec![0, 2]);
        told.add(0, token(5), (shard, dot), vec![2]);
        let dead = |told: &Told, node| [0, 1, 2].map(|edit| told.is_dead(node, shard, &dot, edit));
        assert_eq!(dead(&told, 0), [true, true, false]);
        assert_eq!(dead(&told, 1), [false; 3]);
        told.restarted(0, token(4));
        assert_eq!(dead(&told, 0), [false, true, false]);
        told.disk_gone(0);
        assert_eq!(dead(&told, 0), [false; 3]);
    }
}
