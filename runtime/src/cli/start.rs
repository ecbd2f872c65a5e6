//! `node start`: runs a node with its API until SIGINT or SIGTERM.
//!
//! This module gives the node its files, listeners and seams; the driver runs it. Both listeners are opened before the
//! store, so that a busy port is reported without touching the store.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::args::Start;
use super::exit::{self, Failure};
use super::{local, stop};
use crate::api::Api;
use crate::api::origin::Hosts;
use crate::api::serve::serve;
use crate::clock::{Clock, SystemClock};
use crate::disk::OpenError;
use crate::error::RunError;
use crate::metrics::Metrics;
use crate::run::{Inputs, run};
use crate::settings::{ApiSettings, Settings};
use crate::tls::{Credentials, CredentialsError};
use crate::{handle, log};

/// Runs a node.
pub(super) fn start(start: &Start) -> Result<u8, Failure> {
    if let Some(parent) = start.parent {
        end_with(parent)?;
    }
    let settings = local::settings(&start.layers)?;
    log::begin(&settings.log).map_err(|error| local::settings_failure(&error))?;
    let stop = stop::signals()?;
    // The log must also say why the node ended, even if it never started.
    super::wait(on_workers(settings, stop)).map(|()| 0).inspect_err(|failure| {
        let Failure { what, why, hint, .. } = failure;
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        log::fatal(&failure.code, &format_args!("{what}{why}; hint: {hint}"));
    })
}

/// Runs the node on the runtime's workers, beside its links and clients, so that passing work between them mostly wakes
/// no other thread.
async fn on_workers(settings: Settings, stop: watch::Receiver<bool>) -> Result<(), Failure> {
    match tokio::spawn(node(settings, stop)).await {
        Ok(ran) => ran,
        // A broken invariant ends the process, as it would on the main thread.
        Err(broken) => panic!("the node's task broke: {broken}"),
    }
}

async fn node(settings: Settings, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let peer = &settings.peer;
    let credentials =
        Credentials::load(&peer.ca, &peer.cert, &peer.key).map_err(|e| refused(&e))?;
    let acceptor = acceptor(&settings.api, &clock)?;
    let listener = listen(&settings.api).await?;
    let metrics = Arc::new(Metrics::new());
    let (handle, commands) = handle::channel();
    let api = Arc::new(Api::new(handle, Arc::clone(&metrics), hosts(&settings.api)));
    let (end, ended) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, acceptor, api, ended));
    let inputs = Inputs::of_machine(settings, credentials, clock, (commands, metrics));
    let stopping = async move {
        // An error means that no signal can arrive any more, so the node stops too.
        drop(stop.wait_for(|stop| *stop).await);
    };
    let ran = run(inputs, stopping).await;
    // The last answers are sent before the process ends.
    end.send_replace(true);
    drop(serving.await);
    ran.map(|_| ()).map_err(|error| failed(&error))
}

/// The TLS of the API, if it is set.
fn acceptor(api: &ApiSettings, clock: &Arc<dyn Clock>) -> Result<Option<TlsAcceptor>, Failure> {
    let Some(files) = &api.tls else { return Ok(None) };
    let config = Credentials::load(&files.ca, &files.cert, &files.key).and_then(|credentials| {
        // Else each client would find out by itself that the certificate has expired.
        credentials.node()?;
        credentials.check(clock.as_ref())?;
        credentials.api_server(Arc::clone(clock))
    });
    config.map(|config| Some(TlsAcceptor::from(config))).map_err(|error| refused(&error))
}

/// The hosts for which the API's listener answers.
fn hosts(api: &ApiSettings) -> Hosts {
    if api.tls.is_some() { Hosts::Any } else { Hosts::Local(api.hosts.clone()) }
}

async fn listen(api: &ApiSettings) -> Result<TcpListener, Failure> {
    TcpListener::bind(api.listen).await.map_err(|error| {
        let hint = "stop the process that uses it, or set api.listen";
        Failure::local(format!("cannot listen for clients on {}", api.listen), &error, hint)
    })
}

fn refused(error: &CredentialsError) -> Failure {
    let exit = match error {
        CredentialsError::File { .. } => exit::LOCAL,
        _ => exit::REFUSED,
    };
    local::failure(exit, "credentials", error)
}

fn failed(error: &RunError) -> Failure {
    let (exit, code) = match error {
        RunError::Settings(_) => (exit::USAGE, "settings"),
        RunError::Credentials(_) => (exit::REFUSED, "credentials"),
        RunError::Listen { .. } => (exit::LOCAL, "listen"),
        RunError::Open(OpenError::Foreign { .. }) => (exit::MISMATCH, "foreign_store"),
        RunError::Open(OpenError::Condemned { .. }) => (exit::CONFLICT, "fenced"),
        RunError::Open(_) => (exit::LOCAL, "store"),
        RunError::Restore(_) => (exit::LOCAL, "restore"),
        RunError::StorageFailed { .. } => (exit::LOCAL, "storage_failed"),
        // Not the code of a failed disk: a supervisor must not restart a second process of the same identity.
        RunError::Fenced { .. } | RunError::Condemned { .. } => (exit::CONFLICT, "fenced"),
    };
    local::failure(exit, code, error)
}

/// Ends this process together with its parent; at once if the parent is gone already.
fn end_with(parent: u32) -> Result<(), Failure> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let set = set_parent_process_death_signal(Some(Signal::TERM));
    set.map_err(|error| {
        Failure::local("the parent cannot be watched", &error.into(), "leave --parent out")
    })?;
    let found = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found != Some(parent) {
        let hint = "leave --parent out: only `continuum dev` uses it";
        return Err(Failure::usage("the parent process is gone", "", hint));
    }
    Ok(())
}
