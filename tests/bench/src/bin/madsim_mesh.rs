//! The mesh on madsim, over UDP or TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use continuum_bench::mesh::{
    BYTES, EVERY, LATENCY_MAX, LATENCY_MIN, NODES, PING, PONG, ROUNDS, VIRTUAL_S, tell,
};
use cpu_time::ThreadTime;
use madsim::net::{TcpListener, TcpStream, UdpSocket};
use madsim::runtime::{Handle, Runtime};
use madsim::time::{Duration, Instant, sleep, sleep_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PORT: u16 = 7000;

type Count = Arc<AtomicU64>;

fn main() {
    let by_tcp = std::env::args().nth(1).is_some_and(|by| by == "tcp");
    let mut config = madsim::Config::default();
    config.net.send_latency = LATENCY_MIN..LATENCY_MAX;
    // Both readings are outside the runtime, because inside it madsim simulates every clock.
    let started = ThreadTime::now();
    let messages = Count::default();
    let count = messages.clone();
    Runtime::with_seed_and_config(1, config).block_on(async move {
        for number in 0..NODES {
            let node = Handle::current().create_node().ip(ip(number)).build();
            if by_tcp {
                node.spawn(listen(number, count.clone()));
                peers(number).for_each(|peer| drop(node.spawn(ping_by_tcp(peer, count.clone()))));
            } else {
                node.spawn(ping_by_udp(number, count.clone()));
            }
        }
        sleep(Duration::from_secs(VIRTUAL_S)).await;
    });
    let name = if by_tcp { "madsim 0.2, TCP" } else { "madsim 0.2, UDP" };
    let messages = messages.load(Ordering::Relaxed);
    tell(name, started.elapsed(), VIRTUAL_S as f64, messages, None);
}

fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number + 1).into()
}

fn peers(number: u8) -> impl Iterator<Item = SocketAddr> {
    (0..NODES).filter(move |peer| *peer != number).map(|peer| SocketAddr::new(ip(peer), PORT))
}

async fn ping_by_udp(number: u8, count: Count) {
    let socket = Arc::new(UdpSocket::bind((ip(number), PORT)).await.expect("a port"));
    let answering = socket.clone();
    madsim::task::spawn(async move {
        let mut bytes = [0; BYTES];
        while let Ok((_, from)) = answering.recv_from(&mut bytes).await {
            count.fetch_add(1, Ordering::Relaxed);
            if bytes[0] == PING {
                answering.send_to(from, &[PONG; BYTES]).await.expect("sent");
            }
        }
    });
    for _ in 0..ROUNDS {
        // Sending takes virtual time, so the next round is timed from the start of this one.
        let next = Instant::now() + EVERY;
        for peer in peers(number) {
            socket.send_to(peer, &[PING; BYTES]).await.expect("sent");
        }
        sleep_until(next).await;
    }
}

async fn listen(number: u8, count: Count) {
    let listener = TcpListener::bind((ip(number), PORT)).await.expect("a port");
    while let Ok((mut stream, _)) = listener.accept().await {
        let count = count.clone();
        madsim::task::spawn(async move {
            let mut bytes = [0; BYTES];
            while stream.read_exact(&mut bytes).await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
                stream.write_all(&[PONG; BYTES]).await.expect("sent");
                stream.flush().await.expect("sent");
            }
        });
    }
}

async fn ping_by_tcp(peer: SocketAddr, count: Count) {
    // By then the other side listens.
    sleep(EVERY).await;
    let mut stream = TcpStream::connect(peer).await.expect("a connection");
    let mut bytes = [0; BYTES];
    for _ in 0..ROUNDS {
        let next = Instant::now() + EVERY;
        stream.write_all(&[PING; BYTES]).await.expect("sent");
        stream.flush().await.expect("sent");
        stream.read_exact(&mut bytes).await.expect("an answer");
        count.fetch_add(1, Ordering::Relaxed);
        sleep_until(next).await;
    }
}
