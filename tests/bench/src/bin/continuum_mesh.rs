//! Continuum's own simulator: five whole nodes that ping, gossip and replicate, with real log bytes, ten operations a
//! second, all oracles and the trace chain on. It has more to do for a message than the peers' mesh.

use continuum_bench::{cpu_seconds, tell};
use continuum_sim::plan::Plan;
use continuum_sim::run;

fn main() {
    let plan = Plan::parse(include_str!("../../mesh.toml")).expect("the plan is sound");
    let before = cpu_seconds();
    let outcome = run::run(&plan);
    let cpu_s = cpu_seconds() - before;
    assert_eq!(outcome.violation, None, "the bench is not to break a law");
    let virtual_s = outcome.virtual_ns as f64 / 1e9;
    tell("continuum, whole nodes", cpu_s, virtual_s, outcome.messages, Some(outcome.events));
}
