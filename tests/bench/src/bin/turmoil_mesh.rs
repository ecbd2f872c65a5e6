//! The mesh on turmoil, over UDP. The argument is the tick in milliseconds.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use continuum_bench::mesh::{
    BYTES, EVERY, LATENCY_MAX, LATENCY_MIN, NODES, PING, PONG, ROUNDS, VIRTUAL_S, tell,
};
use cpu_time::ThreadTime;
use turmoil::net::UdpSocket;

const PORT: u16 = 7000;

fn main() {
    let tick_ms = std::env::args().nth(1).and_then(|ms| ms.parse().ok()).unwrap_or(1);
    let started = ThreadTime::now();
    let messages = Rc::new(Cell::new(0));
    let mut sim = turmoil::Builder::new()
        .rng_seed(1)
        .simulation_duration(Duration::from_secs(VIRTUAL_S + 10))
        .tick_duration(Duration::from_millis(tick_ms))
        .min_message_latency(LATENCY_MIN)
        .max_message_latency(LATENCY_MAX)
        .udp_capacity(4096)
        .build();
    for number in 0..NODES {
        sim.client(name(number), ping(number, messages.clone()));
    }
    sim.run().expect("the mesh runs to its end");
    let name = format!("turmoil 0.7, tick {tick_ms} ms");
    tell(&name, started.elapsed(), sim.elapsed().as_secs_f64(), messages.get(), None);
}

fn name(number: u8) -> String {
    format!("node{number}")
}

async fn ping(number: u8, count: Rc<Cell<u64>>) -> turmoil::Result {
    let socket = Rc::new(UdpSocket::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?);
    let answering = socket.clone();
    tokio::task::spawn_local(async move {
        let mut bytes = [0; BYTES];
        while let Ok((_, from)) = answering.recv_from(&mut bytes).await {
            count.set(count.get() + 1);
            if bytes[0] == PING {
                answering.send_to(&[PONG; BYTES], from).await.expect("sent");
            }
        }
    });
    let peers = (0..NODES).filter(|peer| *peer != number);
    let peers: Vec<IpAddr> = peers.map(|peer| turmoil::lookup(name(peer))).collect();
    for _ in 0..ROUNDS {
        for peer in &peers {
            socket.send_to(&[PING; BYTES], (*peer, PORT)).await?;
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}
