//! One connection that carries messages of one class: frames out of a bounded queue, frames into the driver's.
//!
//! Every frame is flushed before the next wait. A connection that hears nothing for a while is taken for dead, and one
//! that says nothing sends keepalives, because TCP itself notices a lost peer only after minutes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use continuum_core::codec;
use continuum_core::id::{Boot, NodeId};
use continuum_core::limits::FRAME_BYTES_MAX;
use continuum_core::node::{Message, MessageError, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::link::frame::{self, FrameError, HEADER_BYTES};
use crate::metrics::Metrics;

/// A connection that says nothing sends a keepalive this often.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(1);
/// A connection that hears nothing for this long is dead: three keepalives lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(4);
/// A peer that takes no bytes for this long is dead.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Frames are gathered up to so many bytes before they are written in one piece.
const GATHER_BYTES: usize = 128 << 10;

/// What goes out.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages: a box each would cost more"
)]
pub(super) enum Outgoing {
    /// A message.
    Message {
        /// What it says.
        message: Message,
        /// Its place in the queue's room, given back when it is taken.
        _place: OwnedSemaphorePermit,
    },
    /// The last word: why the connection is closed.
    Goodbye(Refusal),
}

/// The driver's end of what a connection sends. Bounded in bytes, as they go over the wire: a few pages of anti-entropy
/// take as much of it as thousands of votes.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
}

/// What a message takes of a queue beside its bytes; it bounds their number too.
const MESSAGE_BYTES: usize = 256;

impl Queue {
    /// A queue for so many bytes, and its other end.
    pub(super) fn new(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, room: Arc::new(Semaphore::new(bytes)) }, receiver)
    }

    /// Sends a message unless there is no room for it; whether it did.
    pub(super) fn send(&self, message: Message) -> bool {
        let bytes = MESSAGE_BYTES + codec::encoded_len(&message);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(_place) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        self.sender.send(Outgoing::Message { message, _place }).is_ok()
    }

    /// Sends the last word, for which there is always room.
    pub(super) fn part(&self, refusal: Refusal) {
        // A connection that has ended needs no last word.
        let _ = self.sender.send(Outgoing::Goodbye(refusal));
    }
}

/// A message that came in, with its place in the budget of bytes that wait for the driver.
#[derive(Debug)]
pub struct Incoming {
    /// Who sent it.
    pub from: NodeId,
    /// In which life.
    pub boot: Boot,
    /// What it says.
    pub message: Message,
    _place: OwnedSemaphorePermit,
}

/// Where messages of one class go.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub(super) queue: mpsc::Sender<Incoming>,
    /// Bytes that may wait for the driver.
    pub(super) budget: Arc<Semaphore>,
    pub(super) metrics: Arc<Metrics>,
}

/// Carries messages until either end closes or fails.
pub(super) async fn carry<S: AsyncRead + AsyncWrite>(
    stream: S,
    peer: (NodeId, Boot),
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    go: oneshot::Receiver<()>,
    inbox: Inbox,
) -> Result<(), FrameError> {
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        biased;
        ended = write(writer, outgoing) => Ok(ended?),
        ended = read(reader, peer, go, inbox) => ended,
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let mut is_last = false;
        match timeout(KEEPALIVE, outgoing.recv()).await {
            Err(_) => buffer.extend_from_slice(&[0; HEADER_BYTES]),
            Ok(None) => is_last = true,
            Ok(Some(first)) => {
                is_last |= push(&mut buffer, first);
                while buffer.len() < GATHER_BYTES && !is_last {
                    let Ok(next) = outgoing.try_recv() else { break };
                    is_last |= push(&mut buffer, next);
                }
            }
        }
        timeout(WRITE_MAX, flush(&mut writer, &buffer)).await.map_err(|_| silent())??;
        buffer.clear();
        if is_last {
            return timeout(WRITE_MAX, writer.shutdown()).await.map_err(|_| silent())?;
        }
    }
}

/// Appends the frame; whether it is the last one.
fn push(buffer: &mut BytesMut, outgoing: Outgoing) -> bool {
    let (message, is_last) = match outgoing {
        Outgoing::Message { message, .. } => (message, false),
        Outgoing::Goodbye(refusal) => (Message::Refused(refusal), true),
    };
    // A message that fits no frame is dropped like any other: its sender repeats or gives up.
    let frame: Bytes = frame::encode(&message).unwrap_or_default();
    buffer.extend_from_slice(&frame);
    is_last
}

async fn flush<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    (from, boot): (NodeId, Boot),
    go: oneshot::Receiver<()>,
    inbox: Inbox,
) -> Result<(), FrameError> {
    if go.await.is_err() {
        // Not wanted: the writing half says its last word and ends the connection.
        std::future::pending::<()>().await;
    }
    let mut body = BytesMut::new();
    loop {
        let read = frame::read(&mut reader, &mut body, FRAME_BYTES_MAX);
        let length = timeout(SILENCE_MAX, read).await.map_err(|_| silent())??;
        if length == 0 {
            continue;
        }
        let message = match Message::decode(&body, FRAME_BYTES_MAX) {
            Ok(message) => message,
            // As if it were lost: a later version does not count on one that does not know it.
            Err(MessageError::UnknownKind { .. }) => {
                inbox.metrics.rejected("message_unknown");
                continue;
            }
            Err(MessageError::Malformed(error)) => return Err(error.into()),
        };
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        let place = Arc::clone(&inbox.budget).acquire_many_owned(bytes).await;
        let _place = place.map_err(|_| FrameError::Closed)?;
        let incoming = Incoming { from, boot, message, _place };
        inbox.queue.send(incoming).await.map_err(|_| FrameError::Closed)?;
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer is silent")
}

#[cfg(test)]
mod tests {
    use continuum_core::api::Request;
    use continuum_core::id::RequestId;

    use super::*;

    fn message() -> Message {
        Message::Forward { id: RequestId(1), request: Request::Namespaces }
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_and_what_was_taken_makes_room() {
        let each = MESSAGE_BYTES + codec::encoded_len(&message());
        let (queue, mut taken) = Queue::new(3 * each + 1);
        let sent = [(); 5].map(|()| queue.send(message()));
        assert_eq!(sent, [true, true, true, false, false]);
        queue.part(Refusal::StaleBoot);
        drop(taken.try_recv().expect("a message"));
        assert!(queue.send(message()) && !queue.send(message()));
        let left: Vec<_> = std::iter::from_fn(|| taken.try_recv().ok()).collect();
        assert!(matches!(left[2], Outgoing::Goodbye(_)) && left.len() == 4, "in their order");
        drop(taken);
        drop(left);
        assert!(!queue.send(message()), "nobody takes any");
    }
}
