//! Continuum's own simulator: five whole nodes that ping, gossip and replicate, with real log bytes, ten operations a
//! second, all oracles and the trace chain on. It does more work for a message than the peers' meshes.

use continuum_bench::mesh::tell;
use continuum_sim::plan::Plan;
use continuum_sim::run;
use cpu_time::ThreadTime;

fn main() {
    let plan = Plan::parse(include_str!("../../mesh.toml")).expect("the plan is sound");
    let started = ThreadTime::now();
    let outcome = run::run(&plan);
    let cpu_s = started.elapsed();
    assert_eq!(outcome.violation, None, "the bench breaks no law");
    let virtual_s = outcome.virtual_ns as f64 / 1e9;
    tell("continuum, whole nodes", cpu_s, virtual_s, outcome.messages, Some(outcome.events));
}
