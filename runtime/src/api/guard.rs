//! One connection: its progress, its time limits, and its end.
//!
//! hyper's own limits need its timer. Here the stream records its progress and one task checks it, so that the same
//! code runs on a simulated network. Bodies have a limit of their own, where they are read.
//!
//! A connection that ends before its request was read whole lingers: the node says that it writes no more, and reads
//! and drops what the client still sends. Else the client's system would throw the answer away with the unread bytes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::head::Head;

/// A head must be complete within this after its first byte.
pub(super) const HEAD_MS: u64 = 5_000;
/// A connection without a request is closed after this.
pub(super) const IDLE_MS: u64 = 75_000;
/// A client that has not yet read all of an answer is closed when it reads less than [`READ_BYTES_MIN`] in this time.
pub(super) const STALLED_MS: u64 = 10_000;
/// The least rate of a reader, 16 KiB a second.
const READ_BYTES_MIN: u64 = (16 << 10) * (STALLED_MS / 1000);
/// An ended connection reads and drops for this long, and this much.
const LINGER_MS: u64 = 5_000;
const LINGER_BYTES_MAX: usize = 64 << 20;
/// How often a connection is checked.
const LOOK_MS: u64 = 1_000;

/// The reason when a connection without a request is closed.
pub(super) const IDLE: &str = "idle";
/// The reason when an ended connection is closed.
pub(super) const LINGERED: &str = "lingered";

/// The state of one connection. Times are milliseconds since it was opened; 0 means "not now".
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    is_serving: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    /// Since when the node waits for the client; 0 while the client waits for the node.
    waiting_since: AtomicU64,
    /// When the present window of a slow reader began, and how much it has read since.
    window_since: AtomicU64,
    window_bytes: AtomicU64,
    /// Whether the client has not taken what was last written.
    is_behind: AtomicBool,
    lingering_since: AtomicU64,
    /// Whether the client may still be sending a request that was answered already.
    is_unread: AtomicBool,
    /// Whether the process ends: nothing lingers.
    is_ending: AtomicBool,
    head: Mutex<Head>,
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            is_serving: AtomicBool::new(false),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            waiting_since: AtomicU64::new(1),
            window_since: AtomicU64::new(0),
            window_bytes: AtomicU64::new(0),
            is_behind: AtomicBool::new(false),
            lingering_since: AtomicU64::new(0),
            is_unread: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            head: Mutex::default(),
        })
    }

    /// The time now, never 0.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// How long the node has waited for this client, in milliseconds; `None` while the client waits for the node.
    pub(super) fn waited_ms(&self) -> Option<u64> {
        match self.waiting_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(self.now_ms().saturating_sub(since)),
        }
    }

    /// A request's head is complete. Until [`Progress::served`] the connection is not idle. Returns whether the head
    /// declared its body's length in two ways.
    pub(super) fn serving(&self) -> bool {
        self.is_serving.store(true, Ordering::Relaxed);
        self.is_unread.store(false, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.waiting_since.store(self.now_ms(), Ordering::Relaxed);
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *head).is_ambiguous()
    }

    /// The request was read whole, or will not be: now the client waits for the node.
    pub(super) fn read(&self, is_whole: bool) {
        self.is_unread.store(!is_whole, Ordering::Relaxed);
        self.waiting_since.store(0, Ordering::Relaxed);
    }

    /// Whether the present request was read whole.
    pub(super) fn is_read(&self) -> bool {
        self.waiting_since.load(Ordering::Relaxed) == 0 && !self.is_unread.load(Ordering::Relaxed)
    }

    /// The request was answered.
    pub(super) fn served(&self) {
        let now = self.now_ms();
        self.idle_since.store(now, Ordering::Relaxed);
        self.waiting_since.store(now, Ordering::Relaxed);
        self.is_serving.store(false, Ordering::Relaxed);
    }

    fn received(&self, bytes: &[u8]) {
        if self.is_serving.load(Ordering::Relaxed) {
            return;
        }
        self.head.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes);
        if self.head_since.load(Ordering::Relaxed) == 0 {
            let now = self.now_ms();
            self.head_since.store(now, Ordering::Relaxed);
            self.waiting_since.store(now, Ordering::Relaxed);
        }
    }

    /// The client took this many bytes; `None` when it takes none now.
    fn sent(&self, bytes: Option<usize>) {
        self.is_behind.store(bytes.is_none(), Ordering::Relaxed);
        match bytes {
            Some(bytes) => {
                self.window_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            None if self.window_since.load(Ordering::Relaxed) == 0 => {
                self.window_since.store(self.now_ms(), Ordering::Relaxed);
                self.window_bytes.store(0, Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// The process ends, and waits for no client that is still writing.
    pub(super) fn ending(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether the client must be given time to read its answer when the connection ends.
    fn must_linger(&self) -> bool {
        if self.is_ending.load(Ordering::Relaxed) {
            return false;
        }
        // A head that hyper refused never became a request.
        let is_broken = self.head_since.load(Ordering::Relaxed) != 0;
        self.is_unread.load(Ordering::Relaxed) || is_broken
    }

    /// Whether the client reads too slowly. A window ends when it keeps up, or begins again when it was fast enough.
    fn is_stalled(&self, now: u64) -> bool {
        let since = self.window_since.load(Ordering::Relaxed);
        if !self.is_behind.load(Ordering::Relaxed) {
            self.window_since.store(0, Ordering::Relaxed);
            return false;
        }
        if since == 0 || now.saturating_sub(since) <= STALLED_MS {
            return false;
        }
        self.window_since.store(now, Ordering::Relaxed);
        self.window_bytes.swap(0, Ordering::Relaxed) < READ_BYTES_MIN
    }

    /// Why the connection must be closed now, if it must.
    fn overdue(&self) -> Option<&'static str> {
        let now = self.now_ms();
        let passed = |since: &AtomicU64, ms: u64| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) > ms
        };
        if self.lingering_since.load(Ordering::Relaxed) != 0 {
            return passed(&self.lingering_since, LINGER_MS).then_some(LINGERED);
        }
        if self.is_stalled(now) {
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
    /// Bytes that may still be dropped; `None` before the end.
    linger: Option<usize>,
}

impl<S> Guarded<S> {
    pub(super) const fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, progress, linger: None }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads and drops until the client closes, too.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 16 << 10];
        let left = self.linger.get_or_insert(LINGER_BYTES_MAX);
        // The budget of tokio's streams ends a long loop in time.
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if result.is_err() || buffer.filled().is_empty() {
                break;
            }
            *left = left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
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
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.progress.received(bytes);
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.sent(match &result {
            Poll::Pending => None,
            Poll::Ready(written) => Some(*written.as_ref().unwrap_or(&0)),
        });
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if result.is_pending() {
            self.progress.sent(None);
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.progress.must_linger() {
                return Poll::Ready(Ok(()));
            }
            self.progress.lingering_since.store(self.progress.now_ms(), Ordering::Relaxed);
        }
        self.poll_linger(cx)
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
        progress.received(b"a");
        assert_eq!(progress.overdue(), None);
        progress.served();
        assert_eq!(progress.overdue(), None);
    }

    #[test]
    fn a_client_that_reads_too_slowly_is_closed_even_while_served() {
        let progress = aged(STALLED_MS + 1000);
        progress.serving();
        let behind = |bytes: u64| {
            progress.sent(None);
            progress.window_since.store(1, Ordering::Relaxed);
            progress.window_bytes.store(bytes, Ordering::Relaxed);
        };
        behind(READ_BYTES_MIN - 1);
        assert_eq!(progress.overdue(), Some("stalled"));
        behind(READ_BYTES_MIN);
        assert_eq!(progress.overdue(), None);
        behind(0);
        progress.sent(Some(1));
        assert_eq!(progress.overdue(), None);
    }

    #[test]
    fn the_node_waits_for_the_client_except_while_it_works() {
        let progress = aged(7000);
        assert_eq!(progress.waited_ms().map(|ms| ms / 1000), Some(7));
        progress.serving();
        assert_eq!(progress.waited_ms().map(|ms| ms / 1000), Some(0));
        progress.read(true);
        assert_eq!(progress.waited_ms(), None);
        progress.served();
        assert!(progress.waited_ms().is_some());
    }
}
