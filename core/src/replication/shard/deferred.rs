//! What is doomed: victims of writes that came before what they supersede.
//!
//! A dot that is doomed is not in the context: nobody here has seen its write. What is doomed of it is dead when it
//! arrives. When and why a write supersedes another is the shard's business.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::Dot;
use crate::limits::DOOMED_MAX;
use crate::reach;

use super::live_edits::Mask;
use super::{At, Shard};
use crate::replication::write::{self, Author};

/// What was superseded of a write that has not arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Doom {
    /// One element.
    Edit(u16),
    /// All elements in a place or range.
    Scope {
        /// The place, or what all places begin with.
        place: Vec<u8>,
        /// Whether it is a beginning.
        all: bool,
    },
}

impl Doom {
    fn takes(&self, edit: u16, place: &[u8]) -> bool {
        match self {
            Self::Edit(doomed) => *doomed == edit,
            Self::Scope { place: scope, all } => {
                if *all {
                    place.starts_with(scope)
                } else {
                    place == scope
                }
            }
        }
    }
}

impl Shard {
    /// What is doomed, in canonical order within each dot.
    pub(crate) fn doomed(&self) -> impl Iterator<Item = (Dot, &Doom)> {
        let each = |(at, dooms): (&At, _)| (self.dot(*at), dooms);
        self.doomed.iter().map(each).flat_map(|(dot, dooms): (Dot, &BTreeSet<Doom>)| {
            dooms.iter().map(move |doom| (dot, doom))
        })
    }

    /// How many writes are doomed, wholly or in part.
    pub(crate) fn doomed_writes(&self) -> usize {
        self.doomed.len()
    }

    /// What was superseded of the write before it came is dead at once.
    pub(crate) fn meet_doom(&mut self, at: At, author: &Author<'_>, mask: &mut Mask) {
        let Some(dooms) = self.doomed.remove(&at) else { return };
        reach!("replication.doom.met");
        for (edit, deed) in author.edits.iter().enumerate() {
            let place = deed.place(author.key.0).unwrap_or_default();
            if dooms.iter().any(|doom| doom.takes(edit as u16, &place)) {
                mask.remove(edit as u16);
            }
        }
    }

    /// Takes what is doomed of a write: now if its dot is in the context, else when it arrives.
    pub(crate) fn kill_or_doom(&mut self, at: At, doom: Doom) {
        if !self.seen(at.0).contains(at.1) {
            return self.doom(at, doom);
        }
        let Some(left) = self.left_by(at, &doom) else { return };
        self.keep_only(at, &left);
    }

    /// What a doom would leave of a live write, if it takes something.
    fn left_by(&self, at: At, doom: &Doom) -> Option<Mask> {
        let live = self.live.get(&at)?;
        let author = write::reopen(&live.sealed);
        let mut left = live.mask.clone();
        for edit in live.mask.edits() {
            let place = author.edits[usize::from(edit)].place(author.key.0).unwrap_or_default();
            if doom.takes(edit, &place) {
                left.remove(edit);
            }
        }
        (left != live.mask).then_some(left)
    }

    /// Notes that something is doomed of a write that has not arrived.
    pub(crate) fn doom(&mut self, at: At, doom: Doom) {
        reach!("replication.doom.set");
        // Past the bound the victim will come back as a sibling until a session drops it; nothing is lost.
        if self.doomed.len() < DOOMED_MAX || self.doomed.contains_key(&at) {
            self.doomed.entry(at).or_default().insert(doom);
        } else {
            reach!("replication.doom.full");
        }
    }

    /// What a doom of a dot in the context would leave; `None` when it changes nothing.
    pub(crate) fn death_by(&self, dot: &Dot, doom: &Doom) -> Option<Mask> {
        self.left_by((self.number(&dot.actor)?, dot.seq), doom)
    }

    /// Whether this doom is known.
    pub(crate) fn is_doomed(&self, dot: &Dot, doom: &Doom) -> bool {
        let Some(actor) = self.number(&dot.actor) else { return false };
        self.doomed.get(&(actor, dot.seq)).is_some_and(|dooms| dooms.contains(doom))
    }
}
