//! The simulator of Continuum: whole nodes on real log bytes, in a world that can break everything.
//!
//! A [`plan::Plan`] is data: cluster, workload, faults. [`run::run`] plays it in one thread and judges it with oracles
//! that look after every event. Same plan, same run, event for event: the trace is a SHA-256 chain that two processes
//! must agree on.
//!
//! | module | what it answers |
//! |---|---|
//! | [`plan`], [`fault`] | what a run is made of |
//! | `swarm`, `atlas` | how a seed becomes a plan, and whom it may strike |
//! | `draw` | chance by position |
//! | `world`, `happen`, `strike` | the loop, what happens in it, how faults begin and end |
//! | `network`, `disk`, `clock`, `process` | what surrounds a node, and how it breaks |
//! | `identity`, `standing`, `topology` | which store a node has, who still counts, who comes and goes |
//! | `client`, `history`, `operator` | who asks what, and what they were told |
//! | `oracle` | what must hold |
//! | `durable` | what writes amount to |
//! | `trace`, [`report`] | what is remembered of a run, and how it is told |
//! | [`run`], [`campaign`], [`mutant`] | one run, many runs, runs with planted bugs |
//!
//! # What is deliberately absent
//!
//! No mock of any part of the core: the node, its log's bytes and their recovery are the product's own. No real clock,
//! no thread in a run, no ambient chance, no unordered map.

mod atlas;
mod client;
mod clock;
mod disk;
mod draw;
mod durable;
mod happen;
mod history;
mod identity;
mod network;
mod operator;
mod oracle;
mod process;
mod standing;
mod strike;
mod swarm;
mod topology;
mod trace;
mod world;

pub mod campaign;
pub mod fault;
pub mod mutant;
pub mod plan;
pub mod report;
pub mod run;

pub use oracle::liveness::Liveness;
