//! A node whose wall clock a file sets: the runtime's library with another clock, since the shipped binary has no such
//! door.
//!
//! The file holds two numbers: the milliseconds by which the clock is ahead when the file is read, and its speed from
//! then on in thousandths. `0 1000` is right, `3600000 1000` an hour ahead, `0 5000` five times too fast, `0 0` frozen.
//! The monotonic clock is the machine's, as it is on a machine whose wall clock is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use continuum_core::machine::Now;
use continuum_core::time::WallTime;
use continuum_runtime::RunError;
use continuum_runtime::api::Api;
use continuum_runtime::api::connections::Bounds;
use continuum_runtime::api::origin::Hosts;
use continuum_runtime::api::serve::serve;
use continuum_runtime::clock::{Clock, SystemClock};
use continuum_runtime::metrics::Metrics;
use continuum_runtime::settings::Settings;
use continuum_runtime::tls::Credentials;
use continuum_runtime::{Inputs, handle, log};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::args::Node;
use crate::report::Failure;
use crate::row::pause;
use crate::{BROKEN, FAILED, PASSED, USAGE};

/// The exit code of a fenced node, as the shipped binary has it.
const FENCED: u8 = 6;
/// The file is read this often.
const LOOK: Duration = Duration::from_millis(20);

/// A setting of the clock, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    ahead_ms: i64,
    speed_permille: u64,
    since: u64,
}

impl Setting {
    fn parse(text: &str, since: u64) -> Option<Self> {
        let mut words = text.split_whitespace();
        let ahead_ms = words.next()?.parse().ok()?;
        let speed_permille = words.next()?.parse().ok()?;
        Some(Self { ahead_ms, speed_permille, since })
    }

    /// The time that the clock shows when the machine's shows `real`.
    fn shows(self, real: u64) -> u64 {
        let went = real.saturating_sub(self.since);
        let shown = self.since + went * self.speed_permille / 1000;
        shown.saturating_add_signed(self.ahead_ms)
    }
}

#[derive(Debug)]
struct FileClock(Mutex<Setting>);

impl FileClock {
    /// Takes over the file's setting if it is a new one.
    fn look(&self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let Some(read) = Setting::parse(&text, SystemClock.now().wall.0) else { return };
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (held.ahead_ms, held.speed_permille) != (read.ahead_ms, read.speed_permille) {
            *held = read;
        }
    }
}

impl Clock for FileClock {
    fn now(&self) -> Now {
        let Now { mono, wall } = SystemClock.now();
        let held = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Now { mono, wall: WallTime(held.shows(wall.0)) }
    }
}

/// Runs the node until it ends or is killed.
pub(crate) fn run(node: &Node) -> Result<u8, Failure> {
    let refused = |what: String| Failure { code: USAGE, what, hint: "correct the settings" };
    let settings = Settings::load(Some(&node.config), [], &[]);
    let settings = settings.map_err(|error| refused(error.to_string()))?;
    log::begin(&settings.log).map_err(|error| refused(error.to_string()))?;
    let right = Setting { ahead_ms: 0, speed_permille: 1000, since: SystemClock.now().wall.0 };
    let clock = Arc::new(FileClock(Mutex::new(right)));
    clock.look(&node.clock);
    let (seen, path): (_, PathBuf) = (Arc::clone(&clock), node.clock.clone());
    // It ends with the process.
    std::thread::spawn(move || {
        loop {
            pause(LOOK);
            seen.look(&path);
        }
    });
    let broken = |what: String| Failure { code: BROKEN, what, hint: "free threads and memory" };
    let workers = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let workers = workers.map_err(|error| broken(error.to_string()))?;
    workers.block_on(perform(settings, clock))
}

async fn perform(settings: Settings, clock: Arc<dyn Clock>) -> Result<u8, Failure> {
    let failed = |code, what: String| Failure { code, what, hint: "see the node's log" };
    let peer = &settings.peer;
    let credentials = Credentials::load(&peer.ca, &peer.cert, &peer.key);
    let credentials = credentials.map_err(|error| failed(USAGE, error.to_string()))?;
    let listener = TcpListener::bind(settings.api.listen).await;
    let listener = listener.map_err(|error| failed(BROKEN, error.to_string()))?;
    let metrics = Arc::new(Metrics::new());
    let (handle, commands) = handle::channel();
    let api = Arc::new(Api::new(handle, Arc::clone(&metrics), Hosts::Local(Vec::new())));
    let (_end, ended) = watch::channel(false);
    tokio::spawn(serve(listener, None, api, Bounds::default(), ended));
    let inputs = Inputs::of_machine(settings, credentials, clock, (commands, metrics));
    match continuum_runtime::run(inputs, std::future::pending()).await {
        Ok(_) => Ok(PASSED),
        Err(error @ RunError::Fenced { .. }) => Err(failed(FENCED, error.to_string())),
        Err(error) => Err(failed(FAILED, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_behind_fast_or_frozen() {
        let shows = |text, real| Setting::parse(text, 1_000_000).map(|set| set.shows(real));
        assert_eq!(shows("0 1000", 1_000_700), Some(1_000_700));
        assert_eq!(shows("3600000 1000", 1_000_700), Some(4_600_700));
        assert_eq!(shows("-600000 1000\n", 1_000_700), Some(400_700));
        assert_eq!(shows("0 5000", 1_000_700), Some(1_003_500));
        assert_eq!(shows("0 0", 1_000_700), Some(1_000_000));
        assert_eq!([shows("", 0), shows("fast 1", 0), shows("1", 0)], [None; 3]);
    }

    #[test]
    fn only_a_new_setting_moves_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clock");
        let right = Setting { ahead_ms: 0, speed_permille: 1000, since: 7 };
        let clock = FileClock(Mutex::new(right));
        clock.look(&path);
        fs::write(&path, "0 1000").unwrap();
        clock.look(&path);
        assert_eq!(*clock.0.lock().unwrap(), right, "the same setting does not begin again");
        fs::write(&path, "0 0").unwrap();
        clock.look(&path);
        let frozen = clock.now().wall;
        assert_eq!(clock.now().wall, frozen);
        assert!(frozen.0 > 1_577_836_800_000);
    }
}
