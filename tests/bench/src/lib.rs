//! Helpers that the benches share: the measure of CPU time, the record of alternating runs, the simulators' mesh, the
//! account of steps and memory.

pub mod allocator;
pub mod cpu;
pub mod mesh;
pub mod runs;
pub mod steps;
