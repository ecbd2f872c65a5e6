//! Checks that all cases share: a key written before, the node's health, counters and log, and how a process ended.

use std::fs;
use std::process::{Command, Output};

use continuum_runtime::clock::{Clock, SystemClock};
use continuum_runtime::tls::pki::{ISSUED_VALID, Validity};
use continuum_tests::process::{Dev, get, metric, wait_until};

/// Writes the key that must survive the case, and reads it.
pub(crate) fn write_key(dev: &Dev) {
    dev.ok(1, &["ns", "create", "facts", "--consistency", "strong"]);
    dev.ok(1, &["kv", "put", "facts", "sky", "blue"]);
    still_serves(dev, 1);
}

/// Checks that the node is ready, still has the key, and accepts another.
pub(crate) fn still_serves(dev: &Dev, number: usize) {
    let ready = get(dev.api(number), "/readyz?strong").map(|answer| answer.status);
    assert_eq!(ready, Some(200), "node {number} is ready");
    assert_eq!(dev.ok(number, &["kv", "get", "facts", "sky"]), "blue\n");
    dev.ok(number, &["kv", "put", "facts", "grass", "green"]);
}

/// The log of node `number` so far, before and after its restart.
pub(crate) fn log(dev: &Dev, number: usize) -> String {
    let data = dev.data(number);
    let first = fs::read_to_string(data.with_file_name("node.log")).expect("a readable log");
    first + &fs::read_to_string(data.with_extension("restarted.log")).unwrap_or_default()
}

/// The number of log lines of node `number` that contain all of `parts`.
pub(crate) fn lines(dev: &Dev, number: usize, parts: &[&str]) -> usize {
    let log = log(dev, number);
    log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

/// Provokes a refusal by node 1. The node counts it once in `series`, logs it in one line that contains `parts`, and
/// keeps serving.
pub(crate) fn refused<T>(
    dev: &Dev,
    series: &str,
    parts: &[&str],
    provoke: impl FnOnce() -> T,
) -> T {
    let (counted, logged) = (metric(dev.api(1), series), lines(dev, 1, parts));
    let answer = provoke();
    wait_until(&format!("{series} counts"), || metric(dev.api(1), series) > counted);
    wait_until(&format!("the log has {parts:?}"), || lines(dev, 1, parts) > logged);
    assert!((metric(dev.api(1), series) - counted - 1.0).abs() < 0.5, "{series} counts once");
    assert_eq!(lines(dev, 1, parts), logged + 1, "one line contains {parts:?}");
    still_serves(dev, 1);
    answer
}

/// Runs a process until it ends. Returns its exit code and standard error.
pub(crate) fn ended(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("it starts");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Checks that a process ended with this code, and printed what, why and the hint, once for the user and once as a log
/// line.
pub(crate) fn ended_with((code, stderr): &(Option<i32>, String), expected: i32, parts: &[&str]) {
    assert_eq!(*code, Some(expected), "{stderr}");
    let (log, error) = stderr.split_once("error[").unwrap_or_else(|| panic!("no error: {stderr}"));
    assert!(error.contains("\n  hint: "), "the hint: {stderr}");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "one log line: {stderr}");
    for part in parts {
        assert!(error.contains(part) && errors[0].contains(part), "{part:?} in both of {stderr}");
    }
}

/// The validity of the certificates in these tests.
pub(crate) fn validity() -> Validity {
    Validity::starting(SystemClock.now().wall, ISSUED_VALID)
}
