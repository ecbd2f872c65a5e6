//! CPU time of this thread as criterion's measure.
//!
//! Wall time would count other programs on the machine. This module measures only the calling thread, because every
//! bench runs on one thread.

use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// Makes the allocator keep freed memory.
///
/// By default glibc returns the memory of a dropped state to the kernel, and the next iteration pays for page faults.
/// That took up to a third of a peer's figure in some runs and nothing in others.
#[cfg(target_env = "gnu")]
pub fn keep_memory() {
    // SAFETY: `mallopt` only sets parameters of the allocator, before any other thread runs.
    let kept = unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) == 1
            && libc::mallopt(libc::M_MMAP_MAX, 0) == 1
    };
    assert!(kept, "the allocator takes its parameters");
}

/// Other allocators have no such parameter.
#[cfg(not(target_env = "gnu"))]
pub fn keep_memory() {}

/// The kernel's monotonic clock in nanoseconds, by which `perf record -k CLOCK_MONOTONIC` stamps its samples.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes only to `now`, which lives for the call.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert_eq!(read, 0, "every kernel has this clock");
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Used only for its formatter, because both measures count nanoseconds.
static NANOSECONDS: WallTime = WallTime;

/// The measure: nanoseconds that this thread spent on a processor.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = ThreadTime;
    type Value = Duration;

    fn start(&self) -> ThreadTime {
        ThreadTime::now()
    }

    fn end(&self, started: ThreadTime) -> Duration {
        started.elapsed()
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        NANOSECONDS.formatter()
    }
}
