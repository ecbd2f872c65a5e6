//! The metrics and the memory of nodes, looked at all the time while a row runs.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;

use super::MB;
use crate::http::Ask;
use crate::row::pause;

/// The time between two looks.
const PACE: Duration = Duration::from_millis(100);
/// Bytes that a process may take beside what it counts, over the two that it may take for each counted one.
const BESIDE_BYTES: u64 = 64 * MB;

/// One look at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// Since the watch began.
    pub(super) at: Duration,
    /// Checkpoints that were completed.
    pub(super) checkpoints: f64,
    /// Snapshot files that are being written.
    pub(super) unfinished: f64,
    pub(super) resident: u64,
    pub(super) counted: u64,
}

/// A thread that looks at nodes.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    looker: Option<JoinHandle<Vec<Vec<Look>>>>,
}

impl Watch {
    /// Begins to look at the nodes behind these addresses. Nothing is seen of one that does not answer.
    pub(super) fn start(apis: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let looker = std::thread::spawn(move || {
            let begun = Stopwatch::start();
            let mut looks = vec![Vec::new(); apis.len()];
            while !seen.load(Ordering::Relaxed) {
                for (api, looks) in apis.iter().zip(&mut looks) {
                    let at = begun.elapsed();
                    looks.extend(metrics(*api).map(|page| Look { at, ..look(&page) }));
                }
                pause(PACE);
            }
            looks
        });
        Self { stop, looker: Some(looker) }
    }

    /// Ends it. Returns the looks at each node in order.
    pub(super) fn stop(mut self) -> Vec<Vec<Look>> {
        self.stop.store(true, Ordering::Relaxed);
        self.looker.take().expect("it runs").join().expect("a watch does not panic")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub(super) fn metrics(api: SocketAddr) -> Option<String> {
    Ask::get("/metrics").send(api).map(|answer| answer.body)
}

/// The sum of a metric's samples on a page.
pub(super) fn sum(page: &str, name: &str) -> f64 {
    let of = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
    };
    let samples = page.lines().filter(of);
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A look that a page of metrics gives.
pub(super) fn look(page: &str) -> Look {
    Look {
        at: Duration::ZERO,
        checkpoints: sum(page, "continuum_checkpoints_total"),
        unfinished: sum(page, "continuum_snapshot_files_unfinished"),
        resident: sum(page, "process_resident_memory_bytes") as u64,
        counted: sum(page, "continuum_memory_bytes") as u64,
    }
}

/// Whether a checkpoint is under way at some node at some moment of a span: a file is unfinished at a look within it or
/// at the look before or after it, or a checkpoint was completed between these.
pub(super) fn is_beside_checkpoint(looks: &[Vec<Look>], from: Duration, to: Duration) -> bool {
    looks.iter().any(|looks| {
        let first = looks.partition_point(|look| look.at <= from).saturating_sub(1);
        let end = looks.len().min(looks.partition_point(|look| look.at < to) + 1);
        let within = looks.get(first..end).unwrap_or_default();
        let completed = within.windows(2).any(|pair| pair[1].checkpoints > pair[0].checkpoints);
        completed || within.iter().any(|look| look.unfinished > 0.0)
    })
}

/// The most that a node took beside what it counted at that moment: bytes above twice the counted ones and 64 MB; 0
/// when it never took more.
pub(super) fn excess(looks: &[Look]) -> u64 {
    let over = |look: &Look| look.resident.saturating_sub(2 * look.counted + BESIDE_BYTES);
    looks.iter().map(over).max().unwrap_or(0)
}

/// The most resident bytes.
pub(super) fn peak(looks: &[Look]) -> u64 {
    looks.iter().map(|look| look.resident).max().unwrap_or(0)
}

/// Bytes in all files of a folder and below.
pub(super) fn folder_bytes(folder: &PathBuf) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE continuum_checkpoints counter\n\
        continuum_checkpoints_total 3\n\
        continuum_checkpoint_bytes_total 900\n\
        continuum_memory_bytes 1000\n\
        continuum_memory_limit_bytes 5000\n\
        continuum_snapshot_files_unfinished 2\n\
        process_resident_memory_bytes 70000000\n\
        x{a=\"1\"} 2\nx{a=\"2\"} 3\nxy 9\n";

    fn at(ms: u64, checkpoints: f64, unfinished: f64) -> Look {
        Look { at: Duration::from_millis(ms), checkpoints, unfinished, ..Look::default() }
    }

    #[test]
    fn a_page_is_read_by_whole_names() {
        let look = look(PAGE);
        assert_eq!((look.checkpoints, look.unfinished), (3.0, 2.0));
        assert_eq!((look.resident, look.counted), (70_000_000, 1000));
        assert_eq!((sum(PAGE, "x"), sum(PAGE, "none")), (5.0, 0.0));
    }

    #[test]
    fn a_span_is_beside_a_checkpoint_of_any_node() {
        let of = |looks: &[Vec<Look>], from, to| {
            is_beside_checkpoint(looks, Duration::from_millis(from), Duration::from_millis(to))
        };
        let quiet = vec![at(0, 0.0, 0.0), at(100, 0.0, 0.0)];
        let busy = vec![at(0, 1.0, 0.0), at(100, 1.0, 0.0), at(200, 1.0, 1.0), at(300, 1.0, 0.0)];
        let looks = [quiet, busy];
        assert!(!of(&looks, 10, 90), "between two looks without a file");
        assert!(of(&looks, 110, 120), "a file is there at the next look");
        assert!(of(&looks, 210, 220) && of(&looks, 50, 290), "it was there, and it came and went");
        assert!(!of(&looks, 310, 320), "it was gone at the last look");
        let short = [vec![at(0, 1.0, 0.0), at(100, 2.0, 0.0), at(200, 2.0, 0.0)]];
        assert!(of(&short, 50, 60) && !of(&short, 150, 160), "one that no look met was completed");
        assert!(!of(&[Vec::new()], 0, 1));
    }

    #[test]
    fn memory_above_the_law_is_an_excess() {
        let look = |resident, counted| Look {
            resident: resident * MB,
            counted: counted * MB,
            ..Look::default()
        };
        assert_eq!(excess(&[look(264, 100), look(64, 0)]), 0);
        assert_eq!(excess(&[look(300, 100), look(265, 100)]), 36 * MB);
        assert_eq!((excess(&[]), peak(&[look(1, 0), look(3, 0)])), (0, 3 * MB));
    }

    #[test]
    fn a_folder_is_as_large_as_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::write(folder.path().join("in/a"), [0; 10]).unwrap();
        fs::write(folder.path().join("b"), [0; 7]).unwrap();
        assert_eq!(folder_bytes(&folder.path().into()), 17);
    }
}
