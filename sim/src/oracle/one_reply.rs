//! One reply per request: a node answers what it was asked, once (the contract of `node::Action::Reply`).

use continuum_core::id::RequestId;

use crate::env::process::Process;
use crate::env::requester::Requester;
use crate::verdict::Broken;

pub(crate) const NAME: &str = "one-reply";

/// A node answers; returns who asked.
pub(crate) fn check(process: &mut Process, id: RequestId) -> Result<Requester, Broken> {
    process.requests.remove(&id).ok_or_else(|| {
        Broken::new(NAME, format!("request {id} is answered, and is not waiting for an answer"))
    })
}

/// Everything is quiet: nothing may wait any more.
pub(crate) fn check_end(process: &Process) -> Result<(), Broken> {
    match process.requests.keys().next() {
        None => Ok(()),
        Some(id) => Err(Broken::new(NAME, format!("request {id} was never answered"))),
    }
}
