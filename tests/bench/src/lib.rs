//! What the benches share: the measure of CPU time, the record of alternating runs, the mesh of the simulators.

pub mod cpu;
pub mod mesh;
pub mod runs;
