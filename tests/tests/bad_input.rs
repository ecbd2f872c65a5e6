//! Bad input against real processes: each gets its own error, exit code or status, a counter and a log line, and the
//! node, or the rest of the federation, stays healthy with nothing lost.
//!
//! Every case first shows that the good input works. What a node that never ran leaves is its exit code and its
//! standard error; counters are those of the nodes that live.

#[path = "bad_input/clones.rs"]
mod clones;
#[path = "bad_input/logs.rs"]
mod logs;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/starts.rs"]
mod starts;
#[path = "bad_input/wire.rs"]
mod wire;
#[path = "bad_input/witness.rs"]
mod witness;
