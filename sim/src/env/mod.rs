//! What surrounds a node and how it breaks: network, disk, clock, and the process itself.
//!
//! Each file models one thing and draws its own chance. Nothing here knows who uses the federation, what must hold, or
//! when a fault begins: the world tells it.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod durable;
pub(crate) mod link_conditions;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod replay;
pub(crate) mod requester;
pub(crate) mod step_queue;
