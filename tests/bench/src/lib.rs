//! Helpers that the benches share: the measure of CPU time, the record of alternating runs, the simulators' mesh.

pub mod cpu;
pub mod mesh;
pub mod runs;
