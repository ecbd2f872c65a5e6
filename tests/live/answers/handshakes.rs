//! Handshakes that begin and never end, on the listener of the peers and on an API with TLS: honest peers link and
//! honest clients are served all the same.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use continuum_runtime::clock::{Stopwatch, SystemClock};
use rcgen::ExtendedKeyUsagePurpose as Purpose;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::ClientConfig;
use serde_json::json;

use super::attacks::{Going, WATCHED, judge_above, raise_files};
use super::papers::{self, start_with_tls};
use super::{ALL, begin, finish};
use crate::book::{Book, STRONG};
use crate::federation::Nodes;
use crate::honest::{Honest, Manner, Told};
use crate::http::{Answer, Ask, brief, metric};
use crate::row::{Bench, Check, Row, holds, pause, wait_for, wait_until};
use crate::writers::answered;

/// A record of a TLS client's greeting that says its length and lacks nearly all of it.
const HALF: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
/// Connections that one address holds open to one listener. Ten addresses want a few more than all 256 places: so each
/// that becomes free is taken at once, and few are refused, which would cost the machine more than the node.
const OF_ADDRESS: usize = 26;
const ADDRESSES: u8 = 10;
/// An address of this crowd looks at its connections after each such rest, and opens what was closed.
const REST: Duration = Duration::from_millis(10);
/// Starts of a node that are measured with the crowd and without.
const STARTS: usize = 3;
/// The crowd delays the start of a node by this at most.
const DELAY_MAX: f64 = 3.0;
/// Below this a wait is that of a machine on which the crowd, clients and nodes share the processors.
const NOISE: Duration = Duration::from_millis(50);
/// Silent handshakes on an API, of the honest client's own address.
const SILENT: usize = 2100;
/// The same for the crowd on an API.
const REST_OF_API: Duration = Duration::from_secs(1);
/// Pause of the honest client between two writes.
const PACE: Duration = Duration::from_millis(20);

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "handshakes.peer-crowd",
        "10 addresses that hold all places for handshakes of all peers' listeners, and open each anew at \
                   once: a killed node serves at most 3 s later than without them, and honest writers are refused \
                   nothing, with a p99 of at most 50 ms, or twice that without",
        peer_crowd,
    ),
    Row::new(
        "handshakes.silent-api",
        "2,100 TLS handshakes from the client's own address that say nothing or half a greeting: an honest \
                   client with a certificate is refused nothing, and its p99 is at most 50 ms, or twice that without",
        silent_api,
    ),
];

/// A connection from this address of the loopback network.
fn opened(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Holds this many connections from an address. Every second one begins to greet. One that was closed is opened anew at
/// once.
fn hold(from: IpAddr, to: SocketAddr, count: usize, rest: Duration, going: &Going) {
    let mut all: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    while going.is_on() {
        for (at, slot) in all.iter_mut().enumerate() {
            let is_open = slot.as_mut().is_some_and(|stream| {
                let read = stream.read(&mut [0; 64]);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            });
            if !is_open {
                *slot = opened(from, to).ok();
                if let Some(stream) = slot.as_mut().filter(|_| at % 2 == 0) {
                    let _ = stream.write_all(HALF);
                }
                going.count();
            }
        }
        pause(rest);
    }
}

/// An attack under way, which ends with this value.
struct Crowd {
    going: Arc<Going>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Crowd {
    fn start(of: impl Iterator<Item = (IpAddr, SocketAddr, usize, Duration)>) -> Self {
        let going = Arc::new(Going::default());
        let start = |(from, to, count, rest)| {
            let going = Arc::clone(&going);
            std::thread::spawn(move || hold(from, to, count, rest, &going))
        };
        let threads = of.map(start).collect();
        Self { going, threads }
    }

    fn acts(&self) -> u64 {
        self.going.acts.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.going.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The longest of some starts of node 3 after a crash, in seconds.
fn slowest_start(nodes: &mut Nodes) -> Check<f64> {
    let mut slowest: f64 = 0.0;
    for _ in 0..STARTS {
        let _ = nodes.all[2].kill();
        let watch = Stopwatch::start();
        nodes.all[2].start();
        nodes.all[2].answers()?;
        nodes.all[2].becomes_ready()?;
        slowest = slowest.max(watch.elapsed().as_secs_f64());
    }
    Ok(slowest)
}

fn peer_crowd(bench: &Bench) -> Check<String> {
    raise_files(bench)?;
    let (mut nodes, mut book) = begin(bench, 3)?;
    let watched = |book: &mut Book, nodes: &Nodes, when: &str| {
        let honest = Honest::start(Manner::at(nodes.all[0].api), format!("{when}-crowd"));
        pause(WATCHED);
        honest.stop(book)
    };
    let without = slowest_start(&mut nodes)?;
    nodes.all_serve(&ALL)?;
    let before = watched(&mut book, &nodes, "before");
    let refused = |nodes: &Nodes| {
        let part = "rejected_total{reason=\"too_many_pending\"}";
        ALL.iter().map(|at| metric(nodes.all[*at].api, part)).sum::<f64>()
    };
    let peers = ALL.map(|at| nodes.all[at].peer);
    let addresses = (0..ADDRESSES).map(|last| IpAddr::from([127, 0, 77, last + 1]));
    let crowd =
        Crowd::start(addresses.flat_map(|from| peers.map(|to| (from, to, OF_ADDRESS, REST))));
    wait_until(
        Duration::from_secs(10),
        || refused(&nodes) > 0.0,
        || "no handshake was refused: the places are not all taken".into(),
    )?;
    let under = watched(&mut book, &nodes, "under");
    let with = slowest_start(&mut nodes);
    let acts = crowd.acts();
    drop(crowd);
    let with = with?;
    nodes.all_serve(&ALL)?;
    let after = watched(&mut book, &nodes, "after");
    let starts = format!("a killed node serves after {with:.1} s, {without:.1} s without");
    holds(with <= without + DELAY_MAX, || starts.clone())?;
    let told = judge_above(NOISE, [&before, &after], &under)?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{starts}; {told}; {acts} connections; {settled}"))
}

/// A client of an API with TLS, one connection for each request.
struct Secure {
    api: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Secure {
    fn ask(&self, ask: &Ask<'_>) -> Option<Answer> {
        let stream = papers::connect(self.api, Arc::clone(&self.config)).ok()?;
        ask.send_over(self.api, stream)
    }

    /// Writes for a while, and notes each answer.
    fn write(&self, book: &mut Book, when: &str) -> Vec<Told> {
        let (begun, mut told) = (Stopwatch::start(), Vec::new());
        while begun.elapsed() < WATCHED {
            let (key, value) = (format!("{when}-{}", told.len()), "v".to_owned());
            let ask = Ask::new("PUT", super::path(STRONG, &format!("kv/{key}")));
            let watch = Stopwatch::start();
            let answer = self.ask(&ask.raw(value.as_str()));
            let took = watch.elapsed();
            book.put(STRONG, &key, &value, answered(answer.as_ref()));
            let is_ok = answer.as_ref().is_some_and(Answer::is_ok);
            let refusal = if is_ok { String::new() } else { brief(answer.as_ref()) };
            told.push(Told { at: begun.elapsed(), took, refusal, key, value });
            pause(PACE);
        }
        told
    }
}

fn silent_api(bench: &Bench) -> Check<String> {
    raise_files(bench)?;
    let mut nodes = Nodes::new(bench, 1);
    start_with_tls(&mut nodes, bench)?;
    let shown =
        papers::credentials(&nodes, bench, &[Purpose::ClientAuth, Purpose::ServerAuth], false)?;
    let config = shown.api_client(Arc::new(SystemClock)).map_err(|error| error.to_string())?;
    let client = Secure { api: nodes.all[0].api, config };
    let makes = |path: &str, body: serde_json::Value| {
        let ask = Ask::new("POST", path).json(&body);
        wait_for(Duration::from_secs(10), || client.ask(&ask).filter(Answer::is_ok))
            .map(drop)
            .ok_or_else(|| format!("POST {path} does not succeed"))
    };
    makes("/v1/init", json!({}))?;
    makes("/v1/namespaces", json!({ "name": STRONG, "consistency": "strong" }))?;
    makes("/v1/namespaces", json!({ "name": crate::book::EVENTUAL, "consistency": "eventual" }))?;
    let mut book = Book::default();
    let before = client.write(&mut book, "before");
    let own = IpAddr::from([127, 0, 0, 1]);
    let crowd = Crowd::start([(own, client.api, SILENT, REST_OF_API)].into_iter());
    wait_until(
        Duration::from_secs(20),
        || crowd.acts() > SILENT as u64,
        || format!("only {} handshakes were begun", crowd.acts()),
    )?;
    let under = client.write(&mut book, "under");
    let (acts, is_alive) = (crowd.acts(), client.ask(&Ask::get("/livez")).is_some());
    drop(crowd);
    let after = client.write(&mut book, "after");
    let told = judge_above(NOISE, [&before, &after], &under)?;
    holds(is_alive, || format!("{told}; /livez was silent"))?;
    // All that was acknowledged is looked for without TLS.
    let _ = nodes.all[0].stop();
    nodes.all[0].settings.clear();
    nodes.start(&[0])?;
    let settled = finish(bench, &mut nodes, &mut book)?;
    Ok(format!("{told}; {acts} handshakes; {settled}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_crowd_has_its_own_address_and_opens_again_what_was_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("bound");
        let from = IpAddr::from([127, 0, 77, 9]);
        let crowd = Crowd::start([(from, to, 1, Duration::from_millis(1))].into_iter());
        let (mut first, peer) = listener.accept().expect("a connection");
        assert_eq!(peer.ip(), from);
        let mut half = [0; HALF.len()];
        first.read_exact(&mut half).expect("half a greeting");
        assert_eq!(half, HALF);
        drop(first);
        let (_second, peer) = listener.accept().expect("another connection");
        assert_eq!(peer.ip(), from);
        drop(crowd);
    }
}
