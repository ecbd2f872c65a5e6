//! The system's allocator, with an account of the bytes that it handed out.
//!
//! The account is kept with plain loads and stores, because a program that reads it runs on one thread and the account
//! must not slow what it measures. This module does not know what is resident: an allocator keeps freed pages
//! ([`resident`] asks the kernel).

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// [`System`], counted. A bench names it as its global allocator.
#[derive(Debug)]
pub struct Counting;

fn took(bytes: usize) {
    let live = LIVE.load(Relaxed) + bytes as u64;
    LIVE.store(live, Relaxed);
    TOTAL.store(TOTAL.load(Relaxed) + bytes as u64, Relaxed);
    if live > PEAK.load(Relaxed) {
        PEAK.store(live, Relaxed);
    }
}

fn gave(bytes: usize) {
    LIVE.store(LIVE.load(Relaxed).wrapping_sub(bytes as u64), Relaxed);
}

// SAFETY: every call goes to `System` unchanged; the account beside it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes that are allocated now.
#[must_use]
pub fn live() -> u64 {
    LIVE.load(Relaxed)
}

/// The most bytes that were allocated at once since [`reset_peak`].
#[must_use]
pub fn peak() -> u64 {
    PEAK.load(Relaxed)
}

/// Begins a new peak at what is allocated now.
pub fn reset_peak() {
    PEAK.store(live(), Relaxed);
}

/// Bytes that were ever allocated.
#[must_use]
pub fn total() -> u64 {
    TOTAL.load(Relaxed)
}

/// Bytes of this process that are in memory now, and the most since [`reset_resident_peak`]; 0 where there is no
/// `/proc`.
#[must_use]
pub fn resident() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    (kilobytes(&status, "VmRSS:"), kilobytes(&status, "VmHWM:"))
}

/// Begins a new peak of [`resident`]. A kernel that refuses it goes on with the peak of the whole process.
pub fn reset_resident_peak() {
    // Nothing depends on it: the figure is then an upper bound.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_bytes() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), 1 << 20);
        assert_eq!(kilobytes(status, "VmHWM:"), 2 << 20);
        assert_eq!(kilobytes(status, "VmNone:"), 0);
    }

    #[test]
    fn the_account_follows_the_calls() {
        let layout = Layout::from_size_align(1000, 8).unwrap();
        let (before, all) = (live(), total());
        reset_peak();
        // SAFETY: the block is used as its layout says, and freed once.
        unsafe {
            let at = Counting.alloc(layout);
            assert_eq!((live(), peak(), total()), (before + 1000, before + 1000, all + 1000));
            let at = Counting.realloc(at, layout, 3000);
            assert_eq!((live(), peak(), total()), (before + 3000, before + 3000, all + 4000));
            Counting.dealloc(at, Layout::from_size_align(3000, 8).unwrap());
        }
        assert_eq!((live(), peak()), (before, before + 3000));
    }
}
