//! The simulator of Continuum: whole nodes on real log bytes, in a world that can break everything around them.
//!
//! A [`plan::Plan`] is data: cluster, workload, faults. [`run::run`] runs it in one thread, and oracles check every
//! event against the laws. The same plan is always the same run, event for event: the trace is a SHA-256 chain, and two
//! processes must agree on it. The README of this crate is the manual.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | a run as data: faults, the fault budget, selected operations, and how a seed becomes a plan |
//! | `format` | records, snapshot files and commands, read without the core |
//! | `env` | what surrounds a node, and how it breaks: network, disk, clock, process |
//! | `workload` | clients, the operator, churn clients, and the history of requests and replies |
//! | `world` | the event loop: dispatch, sending, faults, pauses, topology, healing |
//! | `oracle` | the laws |
//! | `scene`, [`diagram`] | what a picture of a run shows, and how it is drawn |
//! | `rng`, `trace`, `transcript`, `verdict` | positional random numbers, trace chain, steps in words, broken laws |
//! | [`run`], [`report`] | one run, and its record |
//! | [`campaign`], [`mutant`] | many runs, and runs with planted bugs |
//! | [`shrink`] | making a failing plan small |
//!
//! A module imports only what stands below it: `format` and `plan`, `env`, `workload`, `oracle`, `world`, `run`, then
//! the rest.
//!
//! # What is deliberately absent
//!
//! The simulator mocks no part of the core: the node, its log bytes and their recovery are the production code. A run
//! uses no real clock, no threads, no system randomness and no unordered map.

mod env;
mod format;
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

pub use oracle::bounded_step::Work;
pub use oracle::liveness::Liveness;
