//! The thin half of Continuum: sockets, TLS, disk, clock, HTTP and the command line around the pure core.
//!
//! Nothing here decides a protocol question. The driver feeds one [`continuum_core::node::Node`] with events and
//! performs its actions; everything else in this crate makes those events or carries those actions out.

pub mod api;
pub mod cli;
pub mod clock;
pub mod disk;
mod driver;
pub mod entropy;
pub mod frame;
pub mod handle;
pub mod link;
pub mod metrics;
pub mod observe;
pub mod pki;
pub mod principal;
pub mod resolve;
mod run;
pub mod secret;
pub mod settings;
pub mod tls;

pub use run::{Inputs, RunError, Started, Stopped, run};
