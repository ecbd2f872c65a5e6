//! Law: a causal context covers a dot only if this node held its write, or all that the write left is dead: covered
//! writes supersede it or, in a discarding namespace, beat it in the LWW order, or writes do of which all is dead in
//! turn (gap safety: Almeida and others 2018, causal contexts with gaps). A node never asks for a covered write, so a
//! dot that is covered for any other reason is lost for good.
//!
//! Compares each node's contexts with a model that grows by what the node logs. A logged write
//! compares the ranges of its author. A record that teaches more than one write compares the whole shard, and each new
//! dot must be explained. It does not judge what replicas hold in the end (`eventual_specification`).

use std::collections::BTreeMap;

use continuum_core::id::{Actor, Dot, ShardId};
use continuum_core::replication::{Dots, Ranges, Replicator};

use crate::format::dots::ExactDots;
use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "context-covers-what-is-known";

/// The model of one node's contexts.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    model: BTreeMap<ShardId, ExactDots>,
    /// The authors whose writes the step logged, by shard; none if a record taught more than single writes.
    touched: Vec<(ShardId, Option<Actor>)>,
}

impl Covered {
    /// Records that the node logs a write as seen.
    pub(crate) fn logs(&mut self, shard: ShardId, dot: &Dot) {
        self.model.entry(shard).or_default().insert(dot);
        self.touches(shard, Some(dot.actor));
    }

    /// Records that the node logs something other than a write.
    pub(crate) fn learns(&mut self, shard: ShardId) {
        self.touches(shard, None);
    }

    fn touches(&mut self, shard: ShardId, part: Option<Actor>) {
        if !self.touched.contains(&(shard, part)) {
            self.touched.push((shard, part));
        }
    }

    /// Records that the node forgets a shard.
    pub(crate) fn forgets(&mut self, shard: ShardId) {
        self.model.remove(&shard);
        self.touched.retain(|(touched, _)| *touched != shard);
    }

    /// Takes over the context that a node restored at its restart.
    pub(crate) fn adopt(&mut self, shard: ShardId, context: &Dots) {
        self.model.insert(shard, ExactDots::of(context));
    }

    /// Judges the end of a step. `explains` says whether a dot that was not held may be covered in a context.
    pub(crate) fn check(
        &mut self,
        replicator: &Replicator,
        explains: impl Fn(ShardId, &Dot, &Dots) -> bool,
    ) -> Verdict {
        for (shard, part) in &self.touched {
            let model = self.model.entry(*shard).or_default();
            match part {
                None => {
                    let context = replicator.context(*shard).unwrap_or_default();
                    check_whole(model, &context, |dot| explains(*shard, dot, &context))?;
                    *model = ExactDots::of(&context);
                }
                // The whole shard is compared, or its model was taken from the context.
                Some(_) if self.touched.contains(&(*shard, None)) => {}
                Some(actor) => check_actor(actor, model, replicator.seen(*shard, actor))?,
            }
        }
        self.touched.clear();
        Ok(())
    }
}

pub(crate) fn check_actor(actor: &Actor, seen: &ExactDots, found: Option<&Ranges>) -> Verdict {
    if seen.is_of(actor, found) {
        return Ok(());
    }
    let what = format!("{actor:?}: {found:?} is covered, and {seen:?} was seen");
    Err(Broken::new(NAME, what))
}

/// Judges a whole context: every seen dot is covered, and every other covered dot is explained.
pub(crate) fn check_whole(
    seen: &ExactDots,
    context: &Dots,
    explains: impl Fn(&Dot) -> bool,
) -> Verdict {
    let covered = ExactDots::of(context);
    if let Some(dot) = seen.beyond(&covered) {
        return Err(Broken::new(NAME, format!("{context:?} lacks {dot:?}, which was seen")));
    }
    match covered.find(|dot| !seen.contains(dot) && !explains(dot)) {
        None => Ok(()),
        Some(dot) => {
            let what = format!("{dot:?} is covered, but was never held here and is not superseded");
            Err(Broken::new(NAME, what))
        }
    }
}
