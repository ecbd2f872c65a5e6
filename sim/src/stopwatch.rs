//! Measures what a command took. This is the one place of the simulator that reads a real clock, and no run sees it.

use std::time::Instant;

/// Measures from its start.
pub(crate) struct Stopwatch {
    started: Instant,
    cpu_ns: u64,
}

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "the figures of a campaign are in real seconds")]
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), cpu_ns: cpu_ns().unwrap_or(0) }
    }

    /// Real seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// CPU seconds of this thread; real seconds where the system does not report CPU time.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_ns().map_or_else(|| self.seconds(), |now| (now - self.cpu_ns) as f64 / 1e9)
    }
}

/// This thread's CPU time as Linux counts it, in nanoseconds.
fn cpu_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}
