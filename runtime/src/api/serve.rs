//! The accept loop: hyper's http1 over our own streams, with a bounded number of connections.
//!
//! hyper starts no task and no timer here. Past the bound a connection is closed at once, so that open ones keep their
//! share. The caller chooses plain HTTP or TLS.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use super::guard::{self, Guarded, Progress};
use super::token::Client;
use super::{Api, router};
use crate::log;
use crate::tls::principal::Principal;
use crate::tls::{self, HANDSHAKE_TIMEOUT};

/// Connections at once. Each may hold a head and one request; bodies have a budget of their own.
pub const CONNECTIONS_MAX: usize = 2048;

/// On a stop, requests under way are answered within this.
const LAST_ANSWERS_S: u64 = 2;

/// Bytes of a request's head, and of hyper's buffer: a key of a kibibyte is up to three times as long when encoded.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Pause after a failed accept, mostly because no file descriptor is free.
const ACCEPT_PAUSE_MS: u64 = 50;

/// Serves until `stop` turns true. Then requests under way are answered, and their connections closed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    api: Arc<Api>,
    mut stop: watch::Receiver<bool>,
) {
    let router = router(Arc::clone(&api));
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            refused(
                &api,
                from,
                "too_many_connections",
                &"the bound on open connections is reached",
            );
            continue;
        };
        let (tls, router, api, stop) =
            (tls.clone(), router.clone(), Arc::clone(&api), stop.clone());
        tokio::spawn(async move {
            match open(stream, tls).await {
                Ok(Opened::Plain(stream)) => {
                    note(&api, from, http(stream, Client::default(), router, stop).await);
                }
                Ok(Opened::Secure(stream)) => {
                    let client = client(&stream);
                    note(&api, from, http(*stream, client, router, stop).await);
                }
                Err(error) => {
                    let why = tls::reason(&error);
                    api.metrics.handshake_failed(why);
                    refused(&api, from, why, &error);
                }
            }
            drop(permit);
        });
    }
    // All permits are free once the last answer is sent.
    let last = Duration::from_secs(LAST_ANSWERS_S);
    drop(tokio::time::timeout(last, permits.acquire_many(CONNECTIONS_MAX as u32)).await);
}

/// Closing a slow connection counts as a refusal; closing an idle one does not.
fn note(api: &Api, from: SocketAddr, why: Option<&'static str>) {
    if let Some(why) = why.filter(|why| *why != guard::IDLE) {
        refused(api, from, why, &"it took too long");
    }
}

/// Counts and logs a refused connection.
fn refused(api: &Api, from: SocketAddr, why: &'static str, detail: &dyn Display) {
    api.metrics.rejected(why);
    log::refused(&format_args!("API connection from {from}"), why, detail);
}

/// A stream for HTTP.
enum Opened {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// Performs the TLS handshake, if there is TLS.
async fn open(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Opened> {
    // Small answers must not wait for Nagle's algorithm. A socket without the option is only slower.
    drop(stream.set_nodelay(true));
    let Some(tls) = tls else { return Ok(Opened::Plain(stream)) };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Opened::Secure(Box::new(stream)))
}

/// The client that the certificate of a connection names.
fn client(stream: &TlsStream<TcpStream>) -> Client {
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let principal = leaf.and_then(|leaf| Principal::of_certificate(leaf));
    Client(principal.map(|principal| principal.to_string().into()))
}

/// Serves HTTP on any stream. Returns the reason if it closed the connection as overdue.
pub(super) async fn http<S>(
    stream: S,
    client: Client,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> Option<&'static str>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Progress::new();
    let looked_at = Arc::downgrade(&progress);
    let io = TokioIo::new(Guarded::new(stream, Arc::clone(&progress)));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        let (mut router, progress) = (router.clone(), Arc::clone(&progress));
        progress.serving();
        async move {
            let response: Result<Response<Body>, Infallible> =
                router.call(request.map(Body::new)).await;
            progress.served();
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        .half_close(false)
        .header_read_timeout(None);
    let served = builder.serve_connection(io, service);
    tokio::pin!(served);
    tokio::select! {
        biased;
        _ = &mut served => return None,
        _ = stop.wait_for(|stop| *stop) => {}
        why = guard::watch(looked_at) => return Some(why),
    }
    served.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(Duration::from_secs(LAST_ANSWERS_S), served).await);
    None
}
