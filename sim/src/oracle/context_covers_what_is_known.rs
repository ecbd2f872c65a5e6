//! Coverage: a context covers a dot only when its write was held here, or all of it is superseded by covered writes, or
//! beaten in the LWW order by one where losers go (gap safety: Almeida and others 2018, causal contexts with gaps; this
//! project's design, section 5, replication). Whatever else were covered would never be asked for: lost for good.
//!
//! A model of each node's contexts grows by what the node logs. With each logged write the ranges of its author are
//! compared; with each record that teaches more than a write, all of the shard, and what is new must be explained.

use std::collections::{BTreeMap, BTreeSet};

use continuum_core::id::{Actor, Dot, ShardId};
use continuum_core::replication::{Dots, Ranges, Replicator};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "context-covers-what-is-known";

/// What of a shard a step touched.
#[derive(Debug, Default)]
struct Touched {
    actors: BTreeSet<Actor>,
    /// More than writes was taught.
    whole: bool,
}

/// What one node's contexts should be.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    model: BTreeMap<ShardId, Dots>,
    touched: BTreeMap<ShardId, Touched>,
}

impl Covered {
    /// A write is logged as seen.
    pub(crate) fn logs(&mut self, shard: ShardId, dot: &Dot) {
        self.model.entry(shard).or_default().insert(dot);
        self.touched.entry(shard).or_default().actors.insert(dot.actor);
    }

    /// Something else than a write is logged.
    pub(crate) fn learns(&mut self, shard: ShardId) {
        self.touched.entry(shard).or_default().whole = true;
    }

    /// A shard is gone.
    pub(crate) fn forgets(&mut self, shard: ShardId) {
        self.model.remove(&shard);
        self.touched.remove(&shard);
    }

    /// What a node holds after a restart.
    pub(crate) fn adopt(&mut self, shard: ShardId, context: Dots) {
        self.model.insert(shard, context);
    }

    /// A step ends. `explains` says whether a dot that was not held may be covered in a context.
    pub(crate) fn check(
        &mut self,
        replicator: &Replicator,
        explains: impl Fn(ShardId, &Dot, &Dots) -> bool,
    ) -> Verdict {
        for (shard, touched) in std::mem::take(&mut self.touched) {
            let model = self.model.entry(shard).or_default();
            if touched.whole {
                let context = replicator.context(shard).unwrap_or_default();
                check_whole(model, &context, |dot| explains(shard, dot, &context))?;
                *model = context;
                continue;
            }
            for actor in touched.actors {
                check_actor(&actor, model.ranges(&actor), replicator.seen(shard, &actor))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn check_actor(
    actor: &Actor,
    expected: Option<&Ranges>,
    found: Option<&Ranges>,
) -> Verdict {
    if expected == found {
        return Ok(());
    }
    let what = format!("of {actor:?} {found:?} is covered, and {expected:?} was seen");
    Err(Broken::new(NAME, what))
}

/// All that was seen is covered, and what else is covered is explained.
pub(crate) fn check_whole(seen: &Dots, context: &Dots, explains: impl Fn(&Dot) -> bool) -> Verdict {
    if !seen.is_subset(context) {
        return Err(Broken::new(NAME, format!("{context:?} lacks some of {seen:?}")));
    }
    let nothing = Ranges::default();
    for (actor, ranges) in context.iter() {
        let news = ranges.minus(seen.ranges(actor).unwrap_or(&nothing));
        for seq in news.iter().flat_map(|(low, high)| low..=high) {
            let dot = Dot { actor: *actor, seq };
            if !explains(&dot) {
                let what = format!("{dot:?} is covered, was never held here, and lives");
                return Err(Broken::new(NAME, what));
            }
        }
    }
    Ok(())
}
