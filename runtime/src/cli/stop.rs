//! Waits for signals: SIGINT and SIGTERM end a command, SIGHUP ends it too, and makes a node read its log filter again.

use std::{fs, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use super::exit::{self, Failure};

/// Becomes true at the first SIGINT or SIGTERM, even if the process inherited SIGINT as ignored; for a command also at
/// SIGHUP, unless it runs under `nohup`.
pub(super) fn signals() -> Result<watch::Receiver<bool>, Failure> {
    let hangup = Some(SIGHUP).filter(|_| !is_ignored(SIGHUP));
    listen(&[&[SIGINT, SIGTERM], hangup.as_slice()].concat())
}

/// As [`signals`], for a node: `hung_up` is called at each SIGHUP, and the node goes on.
pub(super) fn signals_of_node(
    mut hung_up: impl FnMut() + Send + 'static,
) -> Result<watch::Receiver<bool>, Failure> {
    let mut hangups = Signals::new([SIGHUP]).map_err(|error| unhandled(&error))?;
    thread::spawn(move || hangups.forever().for_each(|_| hung_up()));
    listen(&[SIGINT, SIGTERM])
}

fn listen(numbers: &[i32]) -> Result<watch::Receiver<bool>, Failure> {
    let (tell, told) = watch::channel(false);
    let mut signals = Signals::new(numbers).map_err(|error| unhandled(&error))?;
    thread::spawn(move || {
        for _ in signals.forever() {
            tell.send_replace(true);
        }
    });
    Ok(told)
}

fn unhandled(error: &std::io::Error) -> Failure {
    Failure::local("signals cannot be handled", error, "report this")
}

/// Whether the process inherited a signal as ignored.
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, number)
}

/// Whether a text of `/proc/PID/status` says so.
fn ignores(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}

/// The failure of an interrupted command. Its request may have been performed.
pub(super) fn interrupted() -> Failure {
    let hint = "read before you write again";
    Failure::new(
        exit::INTERRUPTED,
        "interrupted",
        "interrupted",
        "a write that was under way may have happened",
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_ignored_signals_counts_from_one() {
        let nohup = "Name:\tcontinuum\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(ignores(nohup, SIGHUP));
        assert!(!ignores(nohup, SIGINT));
        assert!(!ignores("", SIGHUP));
    }
}
