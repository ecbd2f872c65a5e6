//! The environment of a node and how it breaks: network, disk, clock, and the process itself.
//!
//! Each file models one thing and draws its own random numbers. The world tells this module when a fault begins; the
//! module does not know the clients or the laws.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod durable;
pub(crate) mod link_conditions;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod replay;
pub(crate) mod requester;
pub(crate) mod step_queue;
