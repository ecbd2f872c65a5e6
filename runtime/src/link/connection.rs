//! One connection of one class of messages: writes frames from a bounded queue, and reads frames into the driver's
//! queue.
//!
//! Each group of frames is flushed before the next wait. A connection that receives nothing for a while counts as dead,
//! and an idle connection sends keepalives, because TCP itself notices a lost peer only after minutes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use continuum_core::codec;
use continuum_core::id::{Boot, NodeId};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::node::{Message, MessageError, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::link::frame::{self, FrameError, HEADER_BYTES};
use crate::log;
use crate::metrics::Metrics;

/// An idle connection sends a keepalive this often.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(1);
/// A connection that receives nothing for this long is dead: three keepalives were lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(4);
/// A peer that accepts no bytes for this long is dead.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Frames are joined into one write up to this many bytes.
const GATHER_BYTES: usize = 128 << 10;

/// An item of a connection's queue.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message {
        message: Message,
        /// The message's share of the queue's budget, returned when the message leaves the queue.
        _permit: OwnedSemaphorePermit,
    },
    /// The last frame: the reason for closing.
    Goodbye(Refusal, Boot),
}

/// The driver's end of a connection's queue. Its bound is in bytes as sent: a few pages of anti-entropy take as much
/// of it as thousands of votes.
#[derive(Clone, Debug)]
pub(super) struct SendQueue {
    sender: mpsc::UnboundedSender<Outgoing>,
    budget: Arc<Semaphore>,
}

/// Each message takes this of the budget, beside its bytes. This also bounds the number of messages.
const MESSAGE_BYTES: usize = 256;

impl SendQueue {
    /// A queue for this many bytes, and its receiving end.
    pub(super) fn new(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, budget: Arc::new(Semaphore::new(bytes)) }, receiver)
    }

    /// Queues a message, and returns true, if the budget has room for it.
    pub(super) fn send(&self, message: Message) -> bool {
        let bytes = MESSAGE_BYTES + codec::encoded_len(&message);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(_permit) = Arc::clone(&self.budget).try_acquire_many_owned(bytes) else {
            return false;
        };
        self.sender.send(Outgoing::Message { message, _permit }).is_ok()
    }

    /// Queues the reason for closing as the last frame. It needs no budget.
    pub(super) fn close_with(&self, refusal: Refusal, known: Boot) {
        // A connection that has ended needs no reason.
        let _ = self.sender.send(Outgoing::Goodbye(refusal, known));
    }
}

/// A received message, with its share of the budget of bytes that wait for the driver.
#[derive(Debug)]
pub struct Incoming {
    /// The sender.
    pub from: NodeId,
    /// The sender's process.
    pub boot: Boot,
    /// Its content.
    pub message: Message,
    _permit: OwnedSemaphorePermit,
}

/// The driver's queue for messages of one class.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub(super) queue: mpsc::Sender<Incoming>,
    /// Bytes that may wait for the driver.
    pub(super) budget: Arc<Semaphore>,
    pub(super) metrics: Arc<Metrics>,
}

/// Runs a connection until either end closes it or it fails.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    stream: S,
    peer: (NodeId, Boot),
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    start_reading: oneshot::Receiver<()>,
    inbox: Inbox,
) -> Result<(), FrameError> {
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        biased;
        ended = write(writer, outgoing, (peer.0, &inbox.metrics)) => Ok(ended?),
        ended = read(reader, peer, start_reading, inbox.clone()) => ended,
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    (peer, metrics): (NodeId, &Metrics),
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let mut is_last = false;
        match timeout(KEEPALIVE, outgoing.recv()).await {
            Err(_) => buffer.extend_from_slice(&[0; HEADER_BYTES]),
            Ok(None) => is_last = true,
            Ok(Some(first)) => {
                is_last |= push(&mut buffer, first, (peer, metrics));
                while buffer.len() < GATHER_BYTES && !is_last {
                    let Ok(next) = outgoing.try_recv() else { break };
                    is_last |= push(&mut buffer, next, (peer, metrics));
                }
            }
        }
        timeout(WRITE_MAX, flush(&mut writer, &buffer)).await.map_err(|_| silent())??;
        metrics.sent(peer, buffer.len());
        buffer.clear();
        if is_last {
            return timeout(WRITE_MAX, writer.shutdown()).await.map_err(|_| silent())?;
        }
    }
}

/// Appends a frame. True if it is the last one. A message that fits no frame is dropped, counted and told: it can never
/// be sent, so its sender has a fault.
fn push(buffer: &mut BytesMut, outgoing: Outgoing, (peer, metrics): (NodeId, &Metrics)) -> bool {
    let (message, is_last) = match outgoing {
        Outgoing::Message { message, .. } => (message, false),
        Outgoing::Goodbye(refusal, known) => (Message::Refused { refusal, known }, true),
    };
    if let Some(frame) = frame::encode(&message) {
        buffer.extend_from_slice(&frame);
    } else {
        metrics.too_long();
        let bytes = codec::encoded_len(&message);
        let detail = format_args!("{bytes} bytes, for {peer}");
        log::warn("a message is longer than a frame and was not sent", &detail);
    }
    is_last
}

async fn flush<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    (from, boot): (NodeId, Boot),
    start_reading: oneshot::Receiver<()>,
    inbox: Inbox,
) -> Result<(), FrameError> {
    if start_reading.await.is_err() {
        // Refused: the writing half sends the reason and ends the connection.
        std::future::pending::<()>().await;
    }
    let mut body = BytesMut::new();
    loop {
        let read = frame::read(&mut reader, &mut body, FRAME_BYTES_MAX);
        let length = timeout(SILENCE_MAX, read).await.map_err(|_| silent())??;
        inbox.metrics.received(from, length + HEADER_BYTES);
        if length == 0 {
            continue;
        }
        let message = match Message::decode(&body, FRAME_BYTES_MAX) {
            Ok(message) => message,
            // Skipped, as if lost: a later version does not rely on a message that older ones do not know.
            Err(MessageError::UnknownKind { .. }) => {
                inbox.metrics.rejected("message_unknown");
                continue;
            }
            Err(MessageError::Malformed(error)) => return Err(error.into()),
        };
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        let slot = Arc::clone(&inbox.budget).acquire_many_owned(bytes).await;
        let _permit = slot.map_err(|_| FrameError::Closed)?;
        let incoming = Incoming { from, boot, message, _permit };
        inbox.queue.send(incoming).await.map_err(|_| FrameError::Closed)?;
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer is silent")
}

#[cfg(test)]
mod tests {
    use continuum_core::api::Request;
    use continuum_core::id::AskId;

    use super::*;

    fn message() -> Message {
        Message::Forward { id: AskId::default(), open: 0, request: Request::Namespaces }
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_and_reading_frees_its_budget() {
        let each = MESSAGE_BYTES + codec::encoded_len(&message());
        let (queue, mut taken) = SendQueue::new(3 * each + 1);
        let sent = [(); 5].map(|()| queue.send(message()));
        assert_eq!(sent, [true, true, true, false, false]);
        queue.close_with(Refusal::StaleBoot, Boot::default());
        drop(taken.try_recv().expect("a message"));
        assert!(queue.send(message()) && !queue.send(message()));
        let left: Vec<_> = std::iter::from_fn(|| taken.try_recv().ok()).collect();
        assert!(matches!(left[2], Outgoing::Goodbye(..)) && left.len() == 4, "in their order");
        drop(taken);
        drop(left);
        assert!(!queue.send(message()), "the reader is gone");
    }

    #[test]
    fn a_message_that_fits_no_frame_is_counted_and_the_next_one_leaves() {
        let metrics = Metrics::new();
        let mut buffer = BytesMut::new();
        let mut add = |request| {
            let message = Message::Forward { id: AskId::default(), open: 0, request };
            let (queue, mut taken) = SendQueue::new(8 << 20);
            assert!(queue.send(message));
            let outgoing = taken.try_recv().expect("a message");
            push(&mut buffer, outgoing, (NodeId::default(), &metrics));
            buffer.len()
        };
        let name = "x".repeat(FRAME_BYTES_MAX);
        assert_eq!(add(Request::DeleteNamespace { name, session: None }), 0);
        assert!(add(Request::Namespaces) > 0);
        let page = metrics.page(None, crate::metrics::Format::Text);
        assert!(page.contains("continuum_sends_too_long_total 1"), "{page}");
    }
}
