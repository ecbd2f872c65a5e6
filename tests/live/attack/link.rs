//! The attacker's end of a link: two TLS connections, one for each plane, greeted as a node greets.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use continuum_core::codec;
use continuum_core::node::{Message, Plane};
use continuum_runtime::clock::Stopwatch;
use continuum_runtime::link::frame::{
    self, Decoded, HELLO_BYTES_MAX, Hello, Purpose, VERSIONS, Verdict,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Attacker;

/// A bound on each blocking call, so that no row hangs.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long one look at a connection waits.
const LOOK: Duration = Duration::from_millis(5);
/// Received messages that are kept, for replays.
const KEPT_MAX: usize = 4096;

/// One connection.
struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
}

/// A link to one node.
pub(crate) struct Link {
    control: Connection,
    bulk: Connection,
    /// All messages that the node sent so far, oldest first.
    pub(crate) received: Vec<Message>,
}

impl Connection {
    fn open(who: &Attacker, to: SocketAddr, purpose: Purpose) -> io::Result<Self> {
        let tcp = TcpStream::connect_timeout(&to, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("continuum").map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&who.tls), name).map_err(io::Error::other)?;
        let stream = StreamOwned::new(tls, tcp);
        let mut connection = Self { stream, unread: Vec::new() };
        connection.write(&encoded(&hello(who, purpose))?)?;
        let _: Hello = connection.read_value()?;
        connection.write(&encoded(&Verdict::Welcome)?)?;
        match connection.read_value()? {
            Verdict::Welcome => Ok(connection),
            Verdict::Refused(why) => Err(io::Error::other(why)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    fn read_value<T: DeserializeOwned + Serialize>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > HELLO_BYTES_MAX {
            return Err(io::Error::other("a frame longer than a greeting"));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        codec::decode(&body, HELLO_BYTES_MAX).map_err(|_| io::Error::other("no greeting"))
    }

    /// Reads what has arrived. False once the connection is closed.
    fn look(&mut self, into: &mut Vec<Message>) -> bool {
        if self.stream.sock.set_read_timeout(Some(LOOK)).is_err() {
            return false;
        }
        let mut piece = [0; 64 << 10];
        let is_open = match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.unread.extend_from_slice(&piece[..read]);
                true
            }
            Err(error) => {
                use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
                matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
            }
        };
        let mut at = 0;
        while let Ok(decoded) = frame::decode(&self.unread[at..]) {
            at += match decoded {
                Decoded::Incomplete => break,
                Decoded::Keepalive(taken) | Decoded::Unknown(_, taken) => taken,
                Decoded::Message(message, taken) => {
                    into.push(*message);
                    taken
                }
            };
        }
        self.unread.drain(..at);
        is_open
    }
}

fn encoded<T: Serialize>(value: &T) -> io::Result<bytes::Bytes> {
    frame::encode(value).ok_or_else(|| io::Error::other("it fits no frame"))
}

/// The greeting of a process that has this identity.
fn hello(who: &Attacker, purpose: Purpose) -> Hello {
    Hello {
        federation: who.federation,
        node: who.me.node,
        store: who.me.store,
        boot: who.boot,
        lineage: who.lineage.clone(),
        purpose,
        versions: VERSIONS,
    }
}

impl Link {
    pub(crate) fn open(who: &Attacker, to: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            control: Connection::open(who, to, Purpose::Messages(Plane::Control))?,
            bulk: Connection::open(who, to, Purpose::Messages(Plane::Bulk))?,
            received: Vec::new(),
        })
    }

    fn connection(&mut self, plane: Plane) -> &mut Connection {
        match plane {
            Plane::Control => &mut self.control,
            Plane::Bulk => &mut self.bulk,
        }
    }

    /// Sends a message on a plane.
    pub(crate) fn send(&mut self, plane: Plane, message: &Message) -> io::Result<()> {
        self.send_bytes(plane, &encoded(message)?)
    }

    /// Sends bytes that need be no frame.
    pub(crate) fn send_bytes(&mut self, plane: Plane, bytes: &[u8]) -> io::Result<()> {
        self.connection(plane).write(bytes)
    }

    /// Sends what keeps both connections from counting as dead, and reads what has arrived.
    pub(crate) fn keep_alive(&mut self) {
        for plane in [Plane::Control, Plane::Bulk] {
            // A closed connection is noticed by `listen`.
            let _ = self.connection(plane).write(&[0; 4]);
        }
        self.listen();
    }

    /// Reads what has arrived on both planes. False once one of them is closed.
    pub(crate) fn listen(&mut self) -> bool {
        let Self { control, bulk, received } = self;
        let is_open = control.look(received) & bulk.look(received);
        if received.len() > KEPT_MAX {
            received.drain(..KEPT_MAX / 2);
        }
        is_open
    }

    /// Listens until a message gives an answer. `None` when the link closes or patience ends.
    pub(crate) fn await_message<T>(
        &mut self,
        patience: Duration,
        mut answer: impl FnMut(&Message) -> Option<T>,
    ) -> Option<T> {
        let (watch, mut beat) = (Stopwatch::start(), Stopwatch::start());
        loop {
            let before = self.received.len();
            let is_open = self.listen();
            let news = self.received.get(before..).unwrap_or_default();
            if let Some(found) = news.iter().find_map(&mut answer) {
                return Some(found);
            }
            if !is_open || watch.elapsed() > patience {
                return None;
            }
            if beat.elapsed() > Duration::from_secs(1) {
                self.keep_alive();
                beat = Stopwatch::start();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use continuum_core::id::{Address, Boot, FederationId, Lineage, NodeId, Replica, StoreId};
    use continuum_core::node::Refusal;
    use continuum_runtime::clock::SystemClock;
    use continuum_runtime::tls::Credentials;
    use continuum_runtime::tls::pki::Authority;

    use super::*;
    use crate::federation::validity;

    fn attacker() -> (Attacker, Credentials) {
        let authority = Authority::mint(validity()).expect("an authority");
        let node = NodeId([7; 16]);
        let issued = authority.issue_node(node, &[], validity()).expect("a certificate");
        let ca = authority.certificate().as_bytes();
        let credentials =
            Credentials::from_pem(ca, issued.certificate.as_bytes(), issued.key.as_bytes());
        let credentials = credentials.expect("credentials");
        let tls = credentials.peer_client(Arc::new(SystemClock)).expect("a configuration");
        let who = Attacker {
            federation: authority.federation(),
            me: Replica { node, store: StoreId([8; 16]) },
            boot: Boot { count: 3, nonce: 9 },
            lineage: Lineage::default().after(Boot { count: 2, nonce: 8 }),
            name: "attacker".into(),
            address: Address("127.0.0.1:9".into()),
            tls,
        };
        (who, credentials)
    }

    #[test]
    fn the_greeting_names_the_whole_identity() {
        let (who, _) = attacker();
        let sent = hello(&who, Purpose::Messages(Plane::Bulk));
        let bytes = encoded(&sent).unwrap();
        let read: Hello = codec::decode(&bytes[4..], HELLO_BYTES_MAX).unwrap();
        assert_eq!((read.boot.nonce, read.node), (9, NodeId([7; 16])));
        assert_eq!(read.lineage.nonce_at(read.boot, 2), Some(8));
        assert_eq!(read, sent);
        assert_ne!(read.federation, FederationId::default());
    }

    #[test]
    fn messages_in_pieces_are_put_together() {
        let (who, credentials) = attacker();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("bound");
        let server = credentials.peer_server(Arc::new(SystemClock)).expect("a configuration");
        let node = std::thread::spawn(move || {
            for _ in 0..2 {
                let (tcp, _) = listener.accept().expect("a connection");
                let tls = rustls::ServerConnection::new(Arc::clone(&server)).expect("TLS");
                let mut stream = StreamOwned::new(tls, tcp);
                let mut body = [0; HELLO_BYTES_MAX];
                let read = stream.read(&mut body).expect("a greeting");
                stream.write_all(&body[..read]).expect("sent");
                stream.write_all(&encoded(&Verdict::Welcome).unwrap()).expect("sent");
                let frame =
                    encoded(&Message::Refused { refusal: Refusal::Cloned, known: Boot::default() })
                        .unwrap();
                for byte in [&[0; 4][..], &frame].concat() {
                    stream.write_all(&[byte]).expect("sent");
                    stream.flush().expect("sent");
                }
                let _ = stream.read(&mut body);
            }
        });
        let mut link = Link::open(&who, to).expect("a link");
        let is_refusal =
            |message: &Message| matches!(message, Message::Refused { .. }).then_some(());
        link.await_message(PATIENCE, is_refusal).expect("a message");
        drop(link);
        node.join().expect("the other end");
    }
}
