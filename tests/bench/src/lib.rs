//! One mesh for every simulator: five nodes, each pings the four others every 100 ms for 600 virtual seconds, messages
//! take 1 to 20 ms. 120,000 pings and as many answers.
//!
//! Here is what the programs share: the numbers of the mesh, CPU time, and how a figure is printed. What a simulator is
//! told is in its own program.

use std::time::Duration;

/// Nodes.
pub const NODES: u8 = 5;
/// Virtual seconds.
pub const VIRTUAL_S: u64 = 600;
/// A node pings the others so often.
pub const EVERY: Duration = Duration::from_millis(100);
/// How often it does so in all.
pub const ROUNDS: u64 = VIRTUAL_S * 10;
/// A message takes at least so long.
pub const LATENCY_MIN: Duration = Duration::from_millis(1);
/// And at most.
pub const LATENCY_MAX: Duration = Duration::from_millis(20);
/// The first byte of a ping; an answer has another.
pub const PING: u8 = 1;
/// The first byte of an answer.
pub const PONG: u8 = 2;
/// Bytes of a message.
pub const BYTES: usize = 16;

/// Seconds for which this thread has been on a processor, by Linux's account.
pub fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
    ns.expect("a Linux that accounts for threads") as f64 / 1e9
}

/// Prints one program's figures: a line of JSON.
pub fn tell(name: &str, cpu_s: f64, virtual_s: f64, messages: u64, events: Option<u64>) {
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
