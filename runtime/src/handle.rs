//! How clients reach the driver: a bounded queue of commands, each with a channel for its one answer.
//!
//! A full queue refuses at once, so that an overloaded node reports overload and does not grow. A part of the queue is
//! kept for questions about the node itself, so that a busy node is not taken for a dead one. The timeouts of requests
//! are the core's.

use std::time::Duration;

use continuum_core::api::{Namespace, Outcome, Request, Status};
use continuum_core::id::Index;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Figures;

/// Commands that may wait for the driver. A longer queue would only add latency: the driver takes a bounded number in
/// each round, and the core refuses past its own bound.
pub const COMMANDS_MAX: usize = 4096;

/// Further commands that may wait when they ask for the node's status.
const STATUS_MAX: usize = 64;

/// A driver that does not tell its status within this is taken for broken.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a command got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The queue is full. The node did not see the command, so a retry is harmless.
    #[error("the node has too many requests waiting; try again in a moment")]
    Busy,
    /// The node has stopped. It did not see the command.
    #[error("the node has stopped; start it again")]
    Stopped,
    /// The driver did not answer in time.
    #[error("the node does not answer itself: it waits for its disk, or has far too much to do")]
    Silent,
    /// The node stopped before it answered. A write may have happened.
    #[error("the node stopped before it answered; a write may have happened")]
    Lost,
}

/// A client's command to the driver.
#[derive(Debug)]
#[expect(missing_docs, reason = "the types of the fields say what they are")]
pub enum Command {
    Request {
        request: Request,
        /// Receives exactly one outcome.
        reply: oneshot::Sender<Outcome>,
    },
    /// A question about the node itself, answered between two steps, so also when no disk or peer answers.
    Status { reply: oneshot::Sender<Status> },
    /// A question for the namespaces as this node has applied them, with the last applied entry of the registry.
    Namespaces { reply: oneshot::Sender<Option<(Vec<Namespace>, Index)>> },
    /// A question for figures of the node's machines.
    Figures { reply: oneshot::Sender<Figures> },
}

/// The clients' end. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// The driver's end.
pub type Commands = mpsc::Receiver<Command>;

/// A queue of at most [`COMMANDS_MAX`] requests.
#[must_use]
pub fn channel() -> (Handle, Commands) {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX + STATUS_MAX);
    (Handle { commands }, receiver)
}

impl Handle {
    /// Sends a request to the core. Every request has exactly one outcome.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the queue is full or the driver is gone.
    pub async fn request(&self, request: Request) -> Result<Outcome, HandleError> {
        // Callers on other threads may pass this at once; they are few beside what is kept.
        if self.commands.capacity() <= STATUS_MAX && !self.commands.is_closed() {
            return Err(HandleError::Busy);
        }
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Request { request, reply }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => HandleError::Busy,
                mpsc::error::TrySendError::Closed(_) => HandleError::Stopped,
            },
        )?;
        answer.await.map_err(|_| HandleError::Lost)
    }

    /// The node's own state, also when the queue is full.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the driver is gone, or does not answer within 5 seconds.
    pub async fn status(&self) -> Result<Status, HandleError> {
        self.own(|reply| Command::Status { reply }).await
    }

    /// The namespaces as this node has applied them, with the last applied entry of the registry; `None` in no
    /// federation.
    ///
    /// # Errors
    ///
    /// As [`Handle::status`].
    pub async fn namespaces(&self) -> Result<Option<(Vec<Namespace>, Index)>, HandleError> {
        self.own(|reply| Command::Namespaces { reply }).await
    }

    /// Figures of the node's machines.
    ///
    /// # Errors
    ///
    /// As [`Handle::status`].
    pub async fn figures(&self) -> Result<Figures, HandleError> {
        self.own(|reply| Command::Figures { reply }).await
    }

    /// Asks the driver about the node itself. There is a place for it also when the queue is full.
    async fn own<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, HandleError> {
        let asked = async {
            let (reply, answer) = oneshot::channel();
            let sent = self.commands.send(command(reply)).await;
            sent.map_err(|_| HandleError::Stopped)?;
            answer.await.map_err(|_| HandleError::Stopped)
        };
        tokio::time::timeout(STATUS_TIMEOUT, asked).await.unwrap_or(Err(HandleError::Silent))
    }
}
