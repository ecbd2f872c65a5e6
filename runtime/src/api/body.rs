//! The body of a request: read within its bounds of size, memory and time.
//!
//! A body is charged as it arrives. It must keep a least rate, so that slow bodies hold little and not for long. JSON
//! takes far more memory once it is parsed than it has bytes; that is charged, and bounded, before it is parsed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::budget::Account;
use super::input::BODY_BYTES_MAX;
use super::problem::{BODY_TIMEOUT, BODY_TOO_LARGE, BUSY, Problem};

/// A body must be complete within this.
const BODY_TIMEOUT_S: u64 = 30;

/// In each window of this length a body that is not complete must bring [`WINDOW_BYTES`].
const WINDOW_S: u64 = 5;
/// The least rate, 16 KiB a second.
const WINDOW_BYTES: usize = (16 << 10) * WINDOW_S as usize;

/// Bytes of a parsed body: the largest request that the core takes, written as its smallest edits.
const PARSED_BYTES_MAX: usize = 48 << 20;

/// Bodies whose parsed size is above this are parsed apart from the threads that serve the node.
const APART_BYTES: usize = 512 << 10;

/// A whole body.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// About what it takes once it is parsed.
    parsed_bytes: usize,
}

impl Read {
    /// The body of a request that has none.
    pub(super) const fn empty() -> Self {
        Self { bytes: Bytes::new(), parsed_bytes: 0 }
    }

    /// Whether parsing it would hold up other work.
    pub(super) const fn is_heavy(&self) -> bool {
        self.parsed_bytes > APART_BYTES
    }
}

/// Reads a body to its end.
///
/// # Errors
///
/// A problem when it is too large or too slow, or when it breaks off.
pub(super) async fn read(
    mut body: Body,
    declared: Option<u64>,
    is_json: bool,
    account: &mut Account,
) -> Result<Read, Problem> {
    if declared.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut pace = Pace::new();
    let mut bytes = Vec::new();
    let mut shape = Shape::default();
    loop {
        let Ok(frame) = tokio::time::timeout(pace.left(), body.frame()).await else {
            pace.check()?;
            continue;
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Problem::invalid(format!("the body could not be read: {error}"), "send it whole")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        pace.received(data.len());
        pace.check()?;
        let parsed = if is_json { shape.feed(&data) } else { 0 };
        if shape.bytes > PARSED_BYTES_MAX {
            return Err(too_many_values());
        }
        account.charge(data.len() + parsed)?;
        // A small frame may share a large buffer of the connection, so it is copied.
        bytes.extend_from_slice(&data);
    }
    Ok(Read { bytes: Bytes::from(bytes), parsed_bytes: shape.bytes })
}

/// Performs long work on a thread of its own, one after the other, so that the driver keeps its threads.
///
/// # Errors
///
/// [`BUSY`] when there is no thread for it.
pub(super) async fn apart<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let busy = || Problem::new(&BUSY, "no thread reads large bodies now", "repeat it in a moment");
    let turn = Arc::clone(turns).acquire_owned().await.map_err(|_| busy())?;
    let (done, result) = oneshot::channel();
    let worker = move || {
        // The one who waits may have gone away.
        drop(done.send(work()));
        drop(turn);
    };
    std::thread::Builder::new().name("body".into()).spawn(worker).map_err(|_| busy())?;
    result.await.map_err(|_| busy())
}

/// The time that a body takes.
struct Pace {
    ends: Instant,
    window: Instant,
    in_window: usize,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { ends: now + Duration::from_secs(BODY_TIMEOUT_S), window: now, in_window: 0 }
    }

    fn received(&mut self, bytes: usize) {
        self.in_window = self.in_window.saturating_add(bytes);
    }

    /// When the body must be looked at again.
    fn due(&self) -> Instant {
        self.ends.min(self.window + Duration::from_secs(WINDOW_S))
    }

    /// The time until then.
    fn left(&self) -> Duration {
        self.due().saturating_duration_since(Instant::now())
    }

    /// Refuses a body that is too slow by now.
    fn check(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        if now < self.due() {
            return Ok(());
        }
        if now >= self.ends || self.in_window < WINDOW_BYTES {
            return Err(Problem::new(
                &BODY_TIMEOUT,
                format!(
                    "a body needs {} KiB in each {WINDOW_S} s, and its end within {BODY_TIMEOUT_S} s",
                    WINDOW_BYTES >> 10
                ),
                "send it in smaller parts, or over a faster link",
            ));
        }
        self.window = now;
        self.in_window = 0;
        Ok(())
    }
}

/// The structure of JSON, seen byte by byte: an upper bound of what it takes once it is parsed.
#[derive(Default)]
struct Shape {
    is_string: bool,
    is_escaped: bool,
    bytes: usize,
}

impl Shape {
    /// Takes the next bytes. Returns what they add to the parsed size.
    fn feed(&mut self, bytes: &[u8]) -> usize {
        // An object is at most an edit with all its members; any other value is at most a text of its own.
        const OBJECT_BYTES: usize = 320;
        const VALUE_BYTES: usize = 64;
        let before = self.bytes;
        self.bytes = self.bytes.saturating_add(bytes.len());
        for &byte in bytes {
            if self.is_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_string = false,
                    _ => {}
                }
                continue;
            }
            self.bytes = self.bytes.saturating_add(match byte {
                b'{' => OBJECT_BYTES,
                b'[' | b',' => VALUE_BYTES,
                _ => 0,
            });
            self.is_string = byte == b'"';
        }
        self.bytes - before
    }
}

pub(super) fn too_large() -> Problem {
    let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
    Problem::new(&BODY_TOO_LARGE, detail, "split it into several requests")
        .with("limit", BODY_BYTES_MAX.into())
}

fn too_many_values() -> Problem {
    let detail =
        format!("the body has too many values: parsed it may take {PARSED_BYTES_MAX} bytes");
    Problem::new(&BODY_TOO_LARGE, detail, "split it into several requests")
        .with("limit", PARSED_BYTES_MAX.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_json_counts_objects_and_values_but_no_text() {
        let size = |text: &str| {
            let mut shape = Shape::default();
            // In two parts, cut anywhere, it is the same.
            for cut in 0..text.len() {
                let mut parts = Shape::default();
                parts.feed(&text.as_bytes()[..cut]);
                parts.feed(&text.as_bytes()[cut..]);
                assert_eq!(parts.bytes, {
                    shape = Shape::default();
                    shape.feed(text.as_bytes())
                });
            }
            shape.bytes - text.len()
        };
        assert_eq!(size("{}"), 320);
        assert_eq!(size("[1,2]"), 128);
        assert_eq!(size("\"{[,\\\"{[,\""), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_keeps_a_least_rate() {
        let mut pace = Pace::new();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(WINDOW_S)).await;
            pace.received(WINDOW_BYTES);
            assert!(pace.check().is_ok());
        }
        // A fast beginning earns no slow end.
        tokio::time::advance(Duration::from_secs(WINDOW_S)).await;
        pace.received(WINDOW_BYTES - 1);
        assert_eq!(pace.check().err().map(|problem| problem.kind), Some(&BODY_TIMEOUT));
        let mut pace = Pace::new();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(WINDOW_S)).await;
            pace.received(WINDOW_BYTES * 2);
            assert!(pace.check().is_ok());
        }
        tokio::time::advance(Duration::from_secs(BODY_TIMEOUT_S)).await;
        pace.received(WINDOW_BYTES * 2);
        assert!(pace.check().is_err());
    }
}
