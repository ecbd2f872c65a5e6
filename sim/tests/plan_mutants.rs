//! Planted bugs that a plan of a fixed bug detects, and the swarm's first seeds do not. Each plan holds without its
//! mutant (`regressions`) and breaks a law with it.
//!
//! The active mutant is global to the process, so this file holds a single test.

use std::fs;
use std::path::Path;

use continuum_core::mark::instrument;
use continuum_sim::plan::Plan;
use continuum_sim::run;

/// A mutant, and the plan that detects it.
const PLANS: &[(&str, &str)] = &[("node.session.duplicate_early", "duplicate_told_too_early")];

#[test]
fn each_plan_breaks_a_law_with_its_mutant() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/regressions");
    for (mutant, plan) in PLANS {
        let text = fs::read_to_string(folder.join(format!("{plan}.toml"))).expect("a plan");
        let plan = Plan::parse(&text).expect("a plan");
        assert!(instrument::activate(Some(mutant)), "{mutant} is no mutant");
        assert!(run::run(&plan).violation.is_some(), "{mutant} breaks no law");
    }
    instrument::activate(None);
}
