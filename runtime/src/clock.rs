//! Time for the core and for TLS. No other module reads a clock.
//!
//! A test or a simulated world injects its own [`Clock`]; certificate validity is checked against the same one.

use std::sync::Arc;
use std::time::Duration;

use continuum_core::machine::Now;
use continuum_core::time::{Instant, WallTime};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// A source of time.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The monotonic and the wall time now.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        // BOOTTIME counts suspend, so that a lease ends while the machine sleeps.
        let boot = clock_gettime(ClockId::Boottime);
        let wall = clock_gettime(ClockId::Realtime);
        let nanos = unsigned(boot.tv_sec) * 1_000_000_000 + unsigned(boot.tv_nsec);
        let millis = unsigned(wall.tv_sec) * 1000 + unsigned(wall.tv_nsec) / 1_000_000;
        Now { mono: Instant(nanos), wall: WallTime(millis) }
    }
}

/// A clock before its own epoch reads as zero.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Measures a span for a metric, outside the core.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[must_use]
    pub fn start() -> Self {
        Self(SystemClock.now().mono)
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        SystemClock.now().mono.since(self.0)
    }
}

/// Lets rustls check certificates by an injected clock.
#[derive(Debug)]
pub(crate) struct TlsTime(pub(crate) Arc<dyn Clock>);

impl TimeProvider for TlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall = Duration::from_millis(self.0.now().wall.0);
        Some(UnixTime::since_unix_epoch(wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_goes_forward_and_is_past_2020() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(second.mono >= first.mono);
        assert!(first.wall.0 > 1_577_836_800_000);
    }
}
