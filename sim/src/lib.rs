//! The simulator of Continuum: whole nodes on real log bytes, in a world that can break everything.
//!
//! A [`plan::Plan`] is data: cluster, workload, faults. [`run::run`] plays it in one thread and judges it with oracles
//! that look after every event. Same plan, same run, event for event: the trace is a SHA-256 chain that two processes
//! must agree on.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | a run as data: faults, the fault budget, selected operations, and how a seed becomes a plan |
//! | `env` | what surrounds a node, and how it breaks: network, disk, clock, process |
//! | `workload` | clients, the operator, churn, and the history of what each was told |
//! | `world` | the event loop: dispatch, sending, faults, pauses, topology, healing |
//! | `oracle` | the laws |
//! | `scene`, [`diagram`] | what a picture of a run shows, and how it is drawn |
//! | `rng`, `trace`, `transcript`, `verdict` | chance by position, the trace chain, steps in words, a broken law |
//! | [`run`], [`report`] | one run, and its record |
//! | [`campaign`], [`mutant`] | many runs, and runs with planted bugs |
//! | [`shrink`] | a small plan from one that fails |
//!
//! A module imports only what stands below it: `plan`, `env`, `workload`, `oracle`, `world`, `run`, then the rest.
//!
//! # What is deliberately absent
//!
//! No mock of any part of the core: the node, its log's bytes and their recovery are the product's own. No real clock,
//! no thread in a run, no ambient chance, no unordered map.

mod env;
mod oracle;
mod rng;
mod scene;
mod trace;
mod transcript;
mod verdict;
mod workload;
mod world;

pub mod campaign;
pub mod diagram;
pub mod mutant;
pub mod plan;
pub mod report;
pub mod run;
pub mod shrink;

pub use oracle::liveness::Liveness;
