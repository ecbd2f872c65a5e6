//! One mesh for every simulator: five nodes, each pings the four others every 100 ms for 600 virtual seconds, messages
//! take 1 to 20 ms. A run has 120,000 pings and 120,000 answers.
//!
//! This module holds what the programs share: the numbers of the mesh and how a figure is printed. Each program sets up
//! its own simulator.

use std::time::Duration;

/// The number of nodes.
pub const NODES: u8 = 5;
/// The length of a run in virtual seconds.
pub const VIRTUAL_S: u64 = 600;
/// The time between two pings of a node to each other node.
pub const EVERY: Duration = Duration::from_millis(100);
/// Pings of a node to each other node in all.
pub const ROUNDS: u64 = VIRTUAL_S * 10;
/// The shortest time of a message.
pub const LATENCY_MIN: Duration = Duration::from_millis(1);
/// The longest time of a message.
pub const LATENCY_MAX: Duration = Duration::from_millis(20);
/// The first byte of a ping.
pub const PING: u8 = 1;
/// The first byte of an answer.
pub const PONG: u8 = 2;
/// Bytes of a message.
pub const BYTES: usize = 16;

/// Prints one program's figures as a line of JSON.
pub fn tell(name: &str, cpu: Duration, virtual_s: f64, messages: u64, events: Option<u64>) {
    let cpu_s = cpu.as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "name": name, "cpu_s": cpu_s, "virtual_s": virtual_s, "messages": messages,
            "events": events, "virtual_s_per_cpu_s": virtual_s / cpu_s,
            "messages_per_cpu_s": messages as f64 / cpu_s,
            "events_per_cpu_s": events.map(|events| events as f64 / cpu_s),
        })
    );
}
