//! The picture of a failure: one self-contained page with a space-time diagram of the events before it.
//!
//! The plan runs again with a `Scene` that records what happens. `layout` chooses the time range and the positions,
//! `svg` draws the shapes, `page` adds the text around them. This module does not judge runs, and an ordinary run
//! records nothing.

mod layout;
mod page;
mod svg;

use continuum_core::node::Action;

use crate::plan::Plan;
use crate::run;
use crate::scene::Scene;
use crate::world::World;

use layout::{Focus, Layout};
use page::Page;

/// The fate of a message of the step that broke the law.
pub(crate) const UNSENT: &str = "in the step that breaks the law";

/// A failure as a page.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The page.
    pub html: String,
    /// The broken law.
    pub oracle: String,
    /// The violation as text: what happened, and what was expected, with nodes by their numbers.
    pub what: String,
    /// Time of the violation, in virtual nanoseconds.
    pub at_ns: u64,
}

/// Runs a plan and draws how it fails. `None` if it breaks no law.
#[must_use]
pub fn draw(plan: &Plan, mutant: Option<&str>, replay: &str) -> Option<Picture> {
    let violation = run::run(plan).violation?;
    let mut world = run::record(plan);
    let mut scene = *world.scene.take()?;
    record_last_step(&world, &mut scene);
    let plain = |text: &String| scene.names.plain(text);
    let (oracle, what) = (violation.oracle.as_str(), plain(&violation.what));
    let group = scene.last_group(violation.node);
    let focus = Focus::of(oracle, &violation.what, group);
    let operations = &world.clients.history.operations;
    let layout = Layout::new(&scene, operations, focus, violation.at_ns);
    let end = svg::End { oracle, what: &what, node: violation.node };
    let seconds = format!("{:.4} s", violation.at_ns as f64 / 1e9);
    let mut facts = vec![("at", seconds), ("step of", format!("node {}", violation.node))];
    facts.extend(mutant.map(|name| ("mutant", name.to_owned())));
    facts.extend([
        ("seed", plan.seed.to_string()),
        ("nodes", plan.cluster.nodes.to_string()),
        ("faults", plan.faults.len().to_string()),
        ("operations", operations.len().to_string()),
        ("replay", replay.to_owned()),
    ]);
    let page = Page {
        oracle,
        what: &what,
        facts,
        svg: svg::draw(&layout, &end),
        toml: plan.to_toml(),
        steps: violation.steps.iter().map(plain).collect(),
    };
    let html = page::render(&page);
    let (oracle, at_ns) = (violation.oracle, violation.at_ns);
    Some(Picture { html, oracle, what, at_ns })
}

/// Records the actions of the last step. The world did not perform them, but its messages and writes may be what broke
/// the law.
fn record_last_step(world: &World, scene: &mut Scene) {
    let me = world.stepping;
    let mut writes = false;
    for action in world.unperformed() {
        match action {
            Action::Send { to, message, .. } => {
                if let Some(to) = world.oracles.roster.number(*to).filter(|to| *to != me) {
                    scene.sends(world.now, (me, to), message, &[], Some(UNSENT));
                }
            }
            Action::Persist { write, .. } => {
                scene.writes(me, write);
                writes = true;
            }
            _ => {}
        }
    }
    if writes {
        scene.begins_batch(world.now, me);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_breaks_no_law_has_no_picture() {
        let mut plan = Plan::from_seed(1);
        (plan.fault_ms, plan.workload.operations_min) = (0, 0);
        plan.faults.clear();
        assert!(draw(&plan, None, "").is_none());
    }
}
