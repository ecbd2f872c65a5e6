//! How clients reach the driver: a bounded queue of questions, each with a place for its one answer.
//!
//! A full queue refuses at once, so that an overloaded node says so instead of growing. Nothing here waits longer than
//! the node: timeouts of requests are the core's.

use continuum_core::api::{Outcome, Request, Status};
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the driver. More than this would only add latency: the driver takes a bounded number in
/// each turn, and the core refuses past its own bound.
pub const ASKS_MAX: usize = 4096;

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The queue is full. Nothing was asked: a retry is harmless.
    #[error("the node has too many requests waiting; try again in a moment")]
    Busy,
    /// The node has stopped, and nothing was asked.
    #[error("the node has stopped; start it again")]
    Stopped,
    /// The node stopped before it answered: what was asked may have happened.
    #[error("the node stopped before it answered; a write may have happened")]
    Lost,
}

/// What clients ask of the driver.
#[derive(Debug)]
pub enum Ask {
    /// A request for the core.
    Request {
        /// What is asked.
        request: Request,
        /// Where its outcome goes.
        reply: oneshot::Sender<Outcome>,
    },
    /// What the node knows of itself, read between two steps: it is answered also when no disk or peer answers.
    Status {
        /// Where it goes.
        reply: oneshot::Sender<Status>,
    },
}

/// The asking end. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

/// The driver's end.
pub type Asks = mpsc::Receiver<Ask>;

/// A queue of at most [`ASKS_MAX`] questions.
#[must_use]
pub fn channel() -> (Handle, Asks) {
    let (asks, receiver) = mpsc::channel(ASKS_MAX);
    (Handle { asks }, receiver)
}

impl Handle {
    /// Asks the core. Every request has exactly one outcome.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the queue is full or the driver is gone.
    pub async fn request(&self, request: Request) -> Result<Outcome, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Request { request, reply })?;
        answer.await.map_err(|_| HandleError::Lost)
    }

    /// What the node knows of itself.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`].
    pub async fn status(&self) -> Result<Status, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Status { reply })?;
        answer.await.map_err(|_| HandleError::Stopped)
    }

    fn ask(&self, ask: Ask) -> Result<(), HandleError> {
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HandleError::Busy,
            mpsc::error::TrySendError::Closed(_) => HandleError::Stopped,
        })
    }
}
