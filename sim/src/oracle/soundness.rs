//! The state of each node and of each way between two nodes, and how long it has been so.
//!
//! Laws that hold while faults last need a premise: these nodes have been up and soundly linked with each other for a
//! while. `world::soundness` says what is so now; this file remembers since when. It judges nothing.

use crate::env::clock::MS;

/// The effect of faults on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes each step at once, and its disk answers soon and has room. The number is its process's generation.
    Well(u64),
    /// It takes each step at once, but its disk is slow, hangs or is full. The number is its process's generation.
    Disk(u64),
    /// It takes no step: its process is down or stopped.
    Silent,
    /// Anything else: it is slow, its boot is not durable or not confirmed yet, or it is about to stop.
    Poor,
}

/// The fate of messages from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All arrive soon and in order, on the link of this epoch.
    Sound(u32),
    /// None arrives.
    Cut,
    /// Some are lost, late or out of order, or there is no link.
    Poor,
}

/// The state of all nodes and ways now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) nodes: Vec<Health>,
    /// From each node to each: `ways[from][to]`.
    pub(crate) ways: Vec<Vec<Way>>,
    /// By node number: whether it votes with the store that the federation began with.
    pub(crate) votes: Vec<bool>,
}

/// Each state, and since when it has been so.
#[derive(Debug, Default)]
pub(crate) struct Soundness {
    picture: Picture,
    /// The room of an earlier picture, for the next one.
    spare: Picture,
    nodes: Vec<u64>,
    ways: Vec<Vec<u64>>,
    votes: Vec<u64>,
    /// How many nodes the first configuration lets vote.
    voters: usize,
}

impl Soundness {
    pub(crate) fn new(voters: usize) -> Self {
        Self { voters, ..Self::default() }
    }

    /// Takes the picture of now. A state that differs from the one before lasts since now.
    pub(crate) fn see(&mut self, now: u64, picture: Picture) {
        let count = picture.nodes.len();
        if self.nodes.len() != count {
            (self.nodes, self.ways) = (vec![now; count], vec![vec![now; count]; count]);
            self.votes = vec![now; count];
        } else if picture != self.picture {
            for a in 0..count {
                let votes_anew = picture.votes[a] != self.picture.votes[a];
                if votes_anew {
                    self.votes[a] = now;
                }
                if votes_anew || picture.nodes[a] != self.picture.nodes[a] {
                    self.nodes[a] = now;
                }
                for b in (0..count).filter(|b| picture.ways[a][*b] != self.picture.ways[a][*b]) {
                    self.ways[a][b] = now;
                }
            }
        }
        self.spare = std::mem::replace(&mut self.picture, picture);
    }

    /// A picture without nodes and votes, whose room the next one uses again.
    pub(crate) fn take_spare(&mut self) -> Picture {
        let mut spare = std::mem::take(&mut self.spare);
        spare.nodes.clear();
        spare.votes.clear();
        spare
    }

    /// Since when a node has been well.
    fn well_since(&self, node: usize) -> Option<u64> {
        let well = matches!(self.picture.nodes.get(node), Some(Health::Well(_)));
        well.then(|| self.nodes[node])
    }

    /// Since when two nodes have been well and soundly linked with each other.
    pub(crate) fn linked_since(&self, a: usize, b: usize) -> Option<u64> {
        let one = self.well_since(a)?.max(self.well_since(b)?);
        let sound = |from: usize, to: usize| {
            let way = self.picture.ways[from][to];
            matches!(way, Way::Sound(_)).then(|| self.ways[from][to])
        };
        if a == b { Some(one) } else { Some(one.max(sound(a, b)?).max(sound(b, a)?)) }
    }

    /// The voters that have been well and soundly linked with this node since `since`, itself included.
    pub(crate) fn voters_around(&self, node: usize, since: u64) -> Vec<usize> {
        let linked = |other: &usize| self.linked_since(node, *other).is_some_and(|at| at <= since);
        (0..self.picture.votes.len()).filter(|v| self.picture.votes[*v]).filter(linked).collect()
    }

    /// Whether these voters are a majority of all that the first configuration names.
    pub(crate) const fn is_majority(&self, voters: &[usize]) -> bool {
        voters.len() > self.voters / 2
    }

    /// The largest set of nodes with this one that have all been well and soundly linked with each other since `since`.
    pub(crate) fn circle(&self, node: usize, since: u64, of: &[usize]) -> Vec<usize> {
        let linked = |a: usize, b: usize| self.linked_since(a, b).is_some_and(|at| at <= since);
        let near: Vec<usize> =
            of.iter().copied().filter(|other| *other != node && linked(node, *other)).collect();
        let mut best = Vec::new();
        if !linked(node, node) {
            return best;
        }
        for mask in 0..1_u32 << near.len() {
            let chosen = near.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
            let mut set: Vec<usize> = chosen.map(|(_, node)| *node).collect();
            let whole = set.iter().all(|a| set.iter().all(|b| linked(*a, *b)));
            if whole && set.len() >= best.len() {
                set.push(node);
                best = set;
            }
        }
        best
    }

    /// The voters beside this one that have been well and soundly linked with each other and with it since `since`,
    /// whatever its own state is.
    pub(crate) fn heirs_of(&self, node: usize, since: u64) -> Vec<usize> {
        let sound = |from: usize, to: usize| {
            matches!(self.picture.ways[from][to], Way::Sound(_)) && self.ways[from][to] <= since
        };
        let near = |other: &usize| sound(node, *other) && sound(*other, node);
        let voters = (0..self.picture.votes.len()).filter(|v| self.picture.votes[*v] && *v != node);
        let near: Vec<usize> = voters.filter(near).collect();
        let circles = near.iter().map(|first| self.circle(*first, since, &near));
        circles.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Whether two nodes belong to a majority of all nodes that have been well and soundly linked since `since`.
    pub(crate) fn is_in_majority_of_nodes(&self, a: usize, b: usize, since: u64) -> bool {
        let near = |other: &usize| self.linked_since(b, *other).is_some_and(|at| at <= since);
        let all = 0..self.picture.nodes.len();
        let shared: Vec<usize> = all.filter(near).collect();
        let circle = self.circle(a, since, &shared);
        circle.contains(&b) && circle.len() > self.picture.nodes.len() / 2
    }

    /// Whether all of these nodes have been well and soundly linked with each other since `since`.
    pub(crate) fn lasts(&self, nodes: &[usize], since: u64) -> bool {
        let linked = |a: usize, b: usize| self.linked_since(a, b).is_some_and(|at| at <= since);
        nodes.iter().all(|a| nodes.iter().all(|b| linked(*a, *b)))
    }

    /// Whether this node has been in a majority of voters that are well and soundly linked with each other, since
    /// `since`, and which no other voter can keep from its work: each of the others has been silent all the time, or it
    /// takes its steps at once and is heard by all of the majority or by none, and hears all of it or none. A voter
    /// that lost its store may have led until then.
    pub(crate) fn is_served(&self, node: usize, since: u64) -> bool {
        let voters: Vec<usize> =
            (0..self.picture.votes.len()).filter(|v| self.picture.votes[*v]).collect();
        if !voters.contains(&node) {
            return false;
        }
        let majority = self.circle(node, since, &voters);
        let mut others = (0..self.voters).filter(|first| !majority.contains(first));
        self.is_majority(&majority) && others.all(|other| self.is_harmless(other, &majority, since))
    }

    /// Whether a node of the first configuration cannot stop a majority.
    fn is_harmless(&self, other: usize, majority: &[usize], since: u64) -> bool {
        if !self.picture.votes[other] {
            return self.votes[other] <= since;
        }
        let kind = |way: Way| match way {
            Way::Sound(_) => Some(true),
            Way::Cut => Some(false),
            Way::Poor => None,
        };
        let alike = |way: &dyn Fn(usize) -> (Way, u64)| {
            let first = kind(way(majority[0]).0);
            let same = |member: &usize| kind(way(*member).0) == first && way(*member).1 <= since;
            first.is_some() && majority.iter().all(same)
        };
        let to = |member: usize| (self.picture.ways[other][member], self.ways[other][member]);
        let from = |member: usize| (self.picture.ways[member][other], self.ways[member][other]);
        self.nodes[other] <= since
            && match self.picture.nodes[other] {
                Health::Silent => true,
                Health::Well(_) | Health::Disk(_) => alike(&to) && alike(&from),
                Health::Poor => false,
            }
    }
}

/// The time this many election timeouts before `now`; `None` if the run is younger.
pub(crate) const fn timeouts_before(now: u64, count: u64, timeout_ms: u64) -> Option<u64> {
    now.checked_sub(count * timeout_ms * MS)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A picture of nodes that all vote, in which each state is as given and each way is sound.
    pub(crate) fn picture(nodes: &[Health]) -> Picture {
        let count = nodes.len();
        Picture {
            nodes: nodes.to_vec(),
            ways: vec![vec![Way::Sound(1); count]; count],
            votes: vec![true; count],
        }
    }

    const WELL: Health = Health::Well(1);

    #[test]
    fn only_what_changed_begins_anew() {
        let mut sound = Soundness::new(3);
        sound.see(1, picture(&[WELL; 3]));
        sound.see(5, picture(&[WELL, WELL, Health::Well(2)]));
        assert_eq!((sound.linked_since(0, 1), sound.linked_since(0, 2)), (Some(1), Some(5)));
        let mut reset = picture(&[WELL, WELL, Health::Well(2)]);
        reset.ways[0][1] = Way::Sound(2);
        sound.see(9, reset);
        assert_eq!((sound.linked_since(0, 1), sound.linked_since(1, 2)), (Some(9), Some(5)));
        assert_eq!(sound.voters_around(2, 5), [0, 1, 2]);
        assert_eq!(sound.voters_around(0, 5), [0, 2]);
    }

    #[test]
    fn a_majority_is_served_unless_another_voter_reaches_a_part_of_it() {
        let served = |change: &dyn Fn(&mut Picture)| {
            let mut sound = Soundness::new(3);
            let mut now = picture(&[WELL; 3]);
            change(&mut now);
            sound.see(1, now);
            sound.is_served(0, 1)
        };
        assert!(served(&|_| ()));
        assert!(served(&|p| p.nodes[2] = Health::Silent), "the third is down");
        assert!(served(&|p| p.nodes[2] = Health::Disk(1)), "its disk hangs");
        assert!(!served(&|p| p.nodes[2] = Health::Poor), "a slow leader slows all");
        let cut = |p: &mut Picture, with: &[usize]| {
            for member in with {
                (p.ways[2][*member], p.ways[*member][2]) = (Way::Cut, Way::Cut);
            }
        };
        assert!(served(&|p| cut(p, &[0, 1])), "it is cut off");
        assert!(!served(&|p| cut(p, &[0])), "it may lead with the second");
        assert!(!served(&|p| (p.nodes[0], p.nodes[1]) = (Health::Silent, WELL)), "it is down");
    }

    #[test]
    fn a_voter_that_lost_its_store_led_until_then() {
        let mut sound = Soundness::new(3);
        sound.see(1, picture(&[WELL; 3]));
        let mut lost = picture(&[WELL, WELL, Health::Silent]);
        lost.votes[2] = false;
        sound.see(5, lost.clone());
        assert!(!sound.is_served(0, 1), "it may have led until now");
        assert!(sound.is_served(0, 5), "a leader is found after it");
        lost.nodes[2] = Health::Poor;
        sound.see(9, lost);
        assert!(sound.is_served(0, 5), "the node that replaces it has no vote");
    }
}
