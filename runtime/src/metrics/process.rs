//! The process's own figures, by the names that all Prometheus clients use, read from `/proc` at each scrape.
//!
//! A file that cannot be read leaves its figures as they were.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Default)]
pub(super) struct ProcessMetrics {
    cpu: Counter<f64, AtomicU64>,
    open_fds: Gauge,
    max_fds: Gauge<f64, AtomicU64>,
    virtual_memory: Gauge,
    resident_memory: Gauge,
    threads: Gauge,
    start_time: Gauge<f64, AtomicU64>,
}

/// The figures of `/proc/self/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stat {
    cpu_s: f64,
    threads: i64,
    started_s_after_boot: f64,
    virtual_bytes: i64,
    resident_pages: i64,
}

impl ProcessMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        let cpu = self.cpu.clone();
        r.register_with_unit("cpu", "User and system CPU time spent", Unit::Seconds, cpu);
        r.register("open_fds", "Open file descriptors", self.open_fds.clone());
        r.register("max_fds", "Most file descriptors that may be open", self.max_fds.clone());
        let bytes = [
            ("virtual_memory", "Size of the virtual memory", &self.virtual_memory),
            ("resident_memory", "Size of the resident memory", &self.resident_memory),
        ];
        for (name, help, gauge) in bytes {
            r.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        r.register("threads", "Threads of the process", self.threads.clone());
        let help = "When the process started, since 1970";
        r.register_with_unit("start_time", help, Unit::Seconds, self.start_time.clone());
    }

    pub(super) fn observe(&self) {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(stat) {
            self.cpu.inc_by((stat.cpu_s - self.cpu.get()).max(0.0));
            self.threads.set(stat.threads);
            self.virtual_memory.set(stat.virtual_bytes);
            let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
            self.resident_memory.set(stat.resident_pages.saturating_mul(page));
            let booted = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time_s);
            if let Some(booted) = booted {
                self.start_time.set(booted + stat.started_s_after_boot);
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The reading itself has one open.
            self.open_fds.set(i64::try_from(open.count()).unwrap_or(i64::MAX) - 1);
        }
        let limits = fs::read_to_string("/proc/self/limits").ok();
        if let Some(most) = limits.as_deref().and_then(max_fds) {
            self.max_fds.set(most);
        }
    }
}

/// Parses `/proc/self/stat`. The name in parentheses may hold spaces and parentheses.
fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc_pid_stat(5) counts from 1, and this list begins with its third field.
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(Stat {
        cpu_s: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        started_s_after_boot: field(22)? as f64 / ticks,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

fn boot_time_s(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_hides_no_field() {
        let text = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 100 50 0 0 20 0 9 0 300 4096 12 99";
        let found = stat(text).expect("figures");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert!((found.cpu_s - 150.0 / ticks).abs() < 1e-9);
        assert_eq!((found.threads, found.virtual_bytes, found.resident_pages), (9, 4096, 12));
        assert_eq!(stat("7 (a"), None);
    }

    #[test]
    fn limits_and_boot_time_are_found() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(boot_time_s("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_has_figures() {
        let metrics = ProcessMetrics::default();
        metrics.observe();
        assert!(metrics.open_fds.get() > 0 && metrics.resident_memory.get() > 1 << 20);
        assert!(metrics.threads.get() > 0 && metrics.start_time.get() > 1e9);
    }
}
