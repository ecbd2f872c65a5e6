//! The thin half of Continuum: sockets, TLS, disk, clock, HTTP and the command line around the pure core.
//!
//! The driver feeds one [`continuum_core::node::Node`] with events and performs its actions. All other modules produce
//! those events or carry out those actions. This crate decides no protocol question.

pub mod api;
pub mod cli;
pub mod clock;
pub mod disk;
mod driver;
pub mod entropy;
mod error;
pub mod handle;
pub mod link;
pub mod log;
pub mod metrics;
mod network;
mod regular;
pub mod resolve;
mod run;
pub mod settings;
pub mod tls;
mod visible;

pub use driver::Observer;
pub use error::{RunError, Stopped};
pub use run::{Inputs, Started, run};
