//! Law: a node answers every request exactly once (the contract of `node::Action::Reply`).
//!
//! Compares replies with the requests that wait at a process; at the end of a run none may wait. It does not judge what
//! a reply says.

use continuum_core::id::RequestId;

use crate::env::process::Process;
use crate::env::requester::Requester;
use crate::verdict::Broken;

pub(crate) const NAME: &str = "one-reply";

/// Judges a reply, and returns the asker of its request.
pub(crate) fn check(process: &mut Process, id: RequestId) -> Result<Requester, Broken> {
    process.requests.remove(&id).ok_or_else(|| {
        Broken::new(NAME, format!("request {id} is answered, but does not wait for an answer"))
    })
}

/// Judges the end of a run: no request may wait for an answer.
pub(crate) fn check_end(process: &Process) -> Result<(), Broken> {
    match process.requests.keys().next() {
        None => Ok(()),
        Some(id) => Err(Broken::new(NAME, format!("request {id} was never answered"))),
    }
}
