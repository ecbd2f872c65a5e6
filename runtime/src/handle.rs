//! How clients reach the driver: a bounded queue of commands, each with a channel for its one answer.
//!
//! A full queue refuses at once, so that an overloaded node reports overload and does not grow. This module sets no
//! timeouts; those of requests are the core's.

use continuum_core::api::{Namespace, Outcome, Request, Status};
use continuum_core::id::Index;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Figures;

/// Commands that may wait for the driver. A longer queue would only add latency: the driver takes a bounded number in
/// each round, and the core refuses past its own bound.
pub const COMMANDS_MAX: usize = 4096;

/// Why a command got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The queue is full. The node did not see the command, so a retry is harmless.
    #[error("the node has too many requests waiting; try again in a moment")]
    Busy,
    /// The node has stopped. It did not see the command.
    #[error("the node has stopped; start it again")]
    Stopped,
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

/// A queue of at most [`COMMANDS_MAX`] commands.
#[must_use]
pub fn channel() -> (Handle, Commands) {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    (Handle { commands }, receiver)
}

impl Handle {
    /// Sends a request to the core. Every request has exactly one outcome.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the queue is full or the driver is gone.
    pub async fn request(&self, request: Request) -> Result<Outcome, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Request { request, reply })?;
        answer.await.map_err(|_| HandleError::Lost)
    }

    /// The node's own state.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`].
    pub async fn status(&self) -> Result<Status, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Status { reply })?;
        answer.await.map_err(|_| HandleError::Stopped)
    }

    /// The namespaces as this node has applied them, with the last applied entry of the registry; `None` in no
    /// federation.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`].
    pub async fn namespaces(&self) -> Result<Option<(Vec<Namespace>, Index)>, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Namespaces { reply })?;
        answer.await.map_err(|_| HandleError::Stopped)
    }

    /// Figures of the node's machines.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`].
    pub async fn figures(&self) -> Result<Figures, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Figures { reply })?;
        answer.await.map_err(|_| HandleError::Stopped)
    }

    fn ask(&self, ask: Command) -> Result<(), HandleError> {
        self.commands.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HandleError::Busy,
            mpsc::error::TrySendError::Closed(_) => HandleError::Stopped,
        })
    }
}
