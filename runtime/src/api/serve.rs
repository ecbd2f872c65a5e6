//! The accept loop: hyper's http1 over our own streams, with a bounded number of connections.
//!
//! hyper starts no task and no timer here. `connections` says which connections are served, and which only as probes.
//! The caller chooses plain HTTP or TLS.

use std::convert::Infallible;
use std::io;
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
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use super::connections::{Bounds, Connections, Place};
use super::guard::{self, Guarded};
use super::token::Client;
use super::{Api, Arrival, router};
use crate::log;
use crate::tls::principal::Principal;
use crate::tls::{self, HANDSHAKE_TIMEOUT};

/// On a stop, requests under way are answered within this.
const LAST_ANSWERS_S: u64 = 1;

/// Bytes of a request's head, and of hyper's buffer: a key of a kibibyte is up to three times as long when encoded.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Pause after a failed accept, mostly because no file descriptor is free.
const ACCEPT_PAUSE_MS: u64 = 50;

/// In the reserve a connection has this long for its one request.
const RESERVE_S: u64 = 3;

/// How often the end of the last connections is looked for.
const LAST_LOOK_MS: u64 = 5;

/// Serves until `stop` turns true. Then requests under way are answered, and their connections closed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    api: Arc<Api>,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let router = router(Arc::clone(&api));
    let connections = Connections::new(bounds);
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
        let place = connections.admit(from.ip());
        let parts = (router.clone(), Arc::clone(&api));
        let served = one(stream, tls.clone(), place, parts, stop.clone());
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            if let Err((why, detail)) = served.await {
                api.metrics.rejected(why);
                log::refused(&format_args!("API connection from {from}"), why, &detail);
            }
        });
    }
    let last = Instant::now() + Duration::from_secs(LAST_ANSWERS_S);
    while !connections.is_empty() && Instant::now() < last {
        tokio::time::sleep(Duration::from_millis(LAST_LOOK_MS)).await;
    }
}

/// Serves one connection to its end. The reason and its detail when it was refused or closed.
async fn one(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    place: Place,
    (router, api): (Router, Arc<Api>),
    stop: watch::Receiver<bool>,
) -> Result<(), (&'static str, String)> {
    let served = async {
        match open(stream, tls).await {
            Ok(Opened::Plain(stream)) => {
                Ok(http(stream, Client::default(), router, &place, stop).await)
            }
            Ok(Opened::Secure(stream)) => {
                let client = client(&stream);
                Ok(http(*stream, client, router, &place, stop).await)
            }
            Err(error) => {
                let why = tls::reason(&error);
                api.metrics.handshake_failed(why);
                Err((why, error.to_string()))
            }
        }
    };
    tokio::select! {
        biased;
        () = place.gives_way() => Err(("too_many_connections", "others needed its place".into())),
        served = served => match served? {
            None | Some(guard::IDLE | guard::LINGERED) => Ok(()),
            Some(why) => Err((why, "it took too long".into())),
        },
    }
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
    place: &Place,
    mut stop: watch::Receiver<bool>,
) -> Option<&'static str>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let looked_at = Arc::downgrade(&place.progress);
    let io = TokioIo::new(Guarded::new(stream, Arc::clone(&place.progress)));
    let is_reserve = place.is_reserve;
    let progress = Arc::clone(&place.progress);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (router, client) = (router.clone(), client.clone());
        let progress = Arc::clone(&progress);
        let is_ambiguous = progress.serving();
        async move {
            let mut request = request.map(Body::new);
            let arrival = Arrival { is_ambiguous, is_reserve, progress: Arc::clone(&progress) };
            request.extensions_mut().insert(arrival);
            request.extensions_mut().insert(client);
            let mut router = router;
            let response: Result<Response<Body>, Infallible> = router.call(request).await;
            progress.served();
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(!is_reserve)
        .half_close(false)
        .header_read_timeout(None);
    let served = builder.serve_connection(io, service);
    tokio::pin!(served);
    tokio::select! {
        biased;
        _ = &mut served => return None,
        _ = stop.wait_for(|stop| *stop) => {}
        why = guard::watch(looked_at) => return Some(why),
        () = reserve_ends(is_reserve) => return Some("slow_probe"),
    }
    place.progress.ending();
    served.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(Duration::from_secs(LAST_ANSWERS_S), served).await);
    None
}

/// Waits until a connection in the reserve has had its time.
async fn reserve_ends(is_reserve: bool) {
    if is_reserve {
        tokio::time::sleep(Duration::from_secs(RESERVE_S)).await;
    } else {
        std::future::pending::<()>().await;
    }
}
