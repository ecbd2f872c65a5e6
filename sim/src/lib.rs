//! The simulator of Continuum: whole nodes on real log bytes, in a world that can break everything.
//!
//! A [`plan::Plan`] is data: cluster, workload, faults. [`run::run`] plays it in one thread and judges it with oracles
//! that look after every event. Same plan, same run, event for event: the trace is a SHA-256 chain that two processes
//! must agree on.
//!
//! | module | what it answers |
//! |---|---|
//! | [`plan`], [`fault`], [`kept`] | what a run is made of |
//! | `swarm`, `atlas` | how a seed becomes a plan, and whom it may strike |
//! | `draw` | chance by position |
//! | `world`, `happen`, `strike`, `pace` | the loop, what happens in it, how faults begin and end, what is too much |
//! | `network`, `weather`, `disk`, `clock`, `process` | what surrounds a node, and how it breaks |
//! | `post`, `replay`, `gate` | what becomes of a message, of old messages, of events whose node is stopped or slow |
//! | `identity`, `standing`, `topology` | which store a node has, who still counts, who comes and goes |
//! | `client`, `history`, `operator` | who asks what, and what they were told |
//! | `oracle` | what must hold |
//! | `durable` | what writes amount to |
//! | `trace`, [`report`] | what is remembered of a run, and how it is told |
//! | [`run`], [`campaign`], [`mutant`] | one run, many runs, runs with planted bugs |
//! | [`shrink`] | of a plan that fails, a small one |
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
mod gate;
mod happen;
mod history;
mod identity;
mod network;
mod operator;
mod oracle;
mod pace;
mod post;
mod process;
mod replay;
mod standing;
mod strike;
mod swarm;
mod tenant;
mod topology;
mod trace;
mod weather;
mod world;

pub mod campaign;
pub mod diagram;
pub mod fault;
pub mod kept;
pub mod mutant;
pub mod plan;
pub mod report;
pub mod run;
pub mod shrink;

pub use oracle::liveness::Liveness;
