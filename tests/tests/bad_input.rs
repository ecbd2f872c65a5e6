//! Bad input against real processes. Each case has its own error, exit code or status, counter and log line. The node,
//! or the rest of the federation, stays healthy and loses nothing.
//!
//! Every case first shows that good input works. A node that never starts is judged by its exit code and its standard
//! error; counters are read from running nodes.

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
