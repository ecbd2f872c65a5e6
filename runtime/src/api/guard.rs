//! Time limits of one connection: for a slow head, for a client that does not read, and for an idle connection.
//!
//! hyper's own limits need its timer. Here the stream records its progress and one task checks it, so that the same
//! code runs on a simulated network. Bodies have a limit of their own, where they are read.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A head must be complete within this after its first byte.
pub(super) const HEAD_MS: u64 = 5_000;
/// A connection without a request is closed after this.
pub(super) const IDLE_MS: u64 = 75_000;
/// A client that reads nothing of an answer is closed after this.
pub(super) const STALLED_MS: u64 = 30_000;
/// How often a connection is checked.
const LOOK_MS: u64 = 1_000;

/// The reason when a connection without a request is closed.
pub(super) const IDLE: &str = "idle";

/// The state of one connection. Times are milliseconds since it was opened; 0 means "not now".
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    is_serving: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    stalled_since: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            is_serving: AtomicBool::new(false),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
        })
    }

    /// The time now, never 0.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A request's head is complete. Until [`Progress::served`] the connection is not idle.
    pub(super) fn serving(&self) {
        self.is_serving.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// The request was answered.
    pub(super) fn served(&self) {
        self.idle_since.store(self.now_ms(), Ordering::Relaxed);
        self.is_serving.store(false, Ordering::Relaxed);
    }

    fn received(&self) {
        if !self.is_serving.load(Ordering::Relaxed) && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    fn sent(&self, is_pending: bool) {
        if !is_pending {
            self.stalled_since.store(0, Ordering::Relaxed);
        } else if self.stalled_since.load(Ordering::Relaxed) == 0 {
            self.stalled_since.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Why the connection must be closed now, if it must.
    fn overdue(&self) -> Option<&'static str> {
        let now = self.now_ms();
        let passed = |since: &AtomicU64, ms: u64| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) > ms
        };
        if passed(&self.stalled_since, STALLED_MS) {
            return Some("stalled");
        }
        if self.is_serving.load(Ordering::Relaxed) {
            return None;
        }
        if self.head_since.load(Ordering::Relaxed) != 0 {
            return passed(&self.head_since, HEAD_MS).then_some("slow_head");
        }
        passed(&self.idle_since, IDLE_MS).then_some(IDLE)
    }
}

/// Waits until the connection is overdue, and returns the reason.
pub(super) async fn watch(progress: Weak<Progress>) -> &'static str {
    loop {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        let Some(progress) = progress.upgrade() else { return IDLE };
        if let Some(why) = progress.overdue() {
            return why;
        }
    }
}

/// A stream that records its progress.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    progress: Arc<Progress>,
}

impl<S> Guarded<S> {
    pub(super) const fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.progress.received();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.sent(result.is_pending());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress.sent(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets a connection's clock back, so that the test need not wait.
    fn aged(ms: u64) -> Progress {
        let progress = Arc::into_inner(Progress::new()).expect("no other owner");
        Progress { begun: progress.begun - Duration::from_millis(ms), ..progress }
    }

    #[test]
    fn an_idle_connection_is_closed() {
        assert_eq!(aged(IDLE_MS - 1000).overdue(), None);
        assert_eq!(aged(IDLE_MS + 1000).overdue(), Some(IDLE));
    }

    #[test]
    fn a_trickling_head_is_closed_and_a_running_request_is_not() {
        let progress = aged(HEAD_MS + 1000);
        progress.head_since.store(1, Ordering::Relaxed);
        assert_eq!(progress.overdue(), Some("slow_head"));
        progress.serving();
        progress.received();
        assert_eq!(progress.overdue(), None);
        progress.served();
        assert_eq!(progress.overdue(), None);
    }

    #[test]
    fn a_peer_that_does_not_read_is_closed_even_while_served() {
        let progress = aged(STALLED_MS + 1000);
        progress.serving();
        progress.stalled_since.store(1, Ordering::Relaxed);
        assert_eq!(progress.overdue(), Some("stalled"));
        progress.sent(false);
        assert_eq!(progress.overdue(), None);
    }
}
