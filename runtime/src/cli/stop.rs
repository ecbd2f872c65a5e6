//! Waits for SIGINT and SIGTERM.

use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use super::exit::{self, Failure};

/// Becomes true at the first SIGINT or SIGTERM, even if the process inherited SIGINT as ignored.
pub(super) fn signals() -> Result<watch::Receiver<bool>, Failure> {
    let (tell, told) = watch::channel(false);
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|error| Failure::local("signals cannot be handled", &error, "report this"))?;
    thread::spawn(move || {
        for _ in signals.forever() {
            tell.send_replace(true);
        }
    });
    Ok(told)
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
