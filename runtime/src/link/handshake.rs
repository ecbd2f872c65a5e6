//! The handshake of a connection, at both ends: TLS, then a hello and a verdict each way, all within one timeout.
//!
//! What the hello claims must be what the certificate proves. A refusal is told to the other end, counted and logged by
//! the caller.

use std::io;
use std::sync::Arc;

use continuum_core::discovery::{Identity, Unverified};
use continuum_core::id::{Boot, FederationId, NodeId, StoreId};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::limits::{Gate, Known};
use crate::link::frame::{
    self, FrameError, GREETING_BYTES_MAX, Hello, HelloRefusal, Purpose, VERSIONS, Verdict,
};
use crate::tls::principal::{Principal, Role};
use crate::tls::{HANDSHAKE_TIMEOUT, PEER_PROTOCOL, reason};

/// Who this end is.
#[derive(Clone, Copy, Debug)]
pub struct Myself {
    /// The federation.
    pub federation: FederationId,
    /// The node.
    pub node: NodeId,
    /// Its store.
    pub store: StoreId,
    /// Its process.
    pub boot: Boot,
}

/// A connection whose other end proved who it is.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) hello: Hello,
    pub(super) version: u16,
    pub(super) place: Known,
}

impl Greeted {
    pub(super) const fn identity(&self) -> Identity {
        let Hello { node, store, boot, .. } = self.hello;
        Identity { node, store, boot }
    }
}

/// Why a handshake ended without a connection.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// Nobody answers there.
    #[error("nobody answers: {0}")]
    Unreachable(io::Error),
    /// It took too long.
    #[error("the handshake took longer than {}s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// TLS failed.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// The other end did not agree on our protocol.
    #[error("the other end does not speak the protocol of peers")]
    Protocol,
    /// No frame of ours.
    #[error("the greeting failed: {0}")]
    Frame(#[from] FrameError),
    /// Its hello was refused here.
    #[error("refused: {0}")]
    Refused(HelloRefusal),
    /// Our hello was refused there.
    #[error("the other end refused: {0}")]
    RefusedByPeer(HelloRefusal),
    /// Somebody else answers there.
    #[error("node {0} answers there, and another was expected")]
    Stranger(NodeId),
}

impl From<io::Error> for GreetError {
    fn from(error: io::Error) -> Self {
        Self::Tls(error)
    }
}

impl GreetError {
    /// The label of its counter.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls(error) | Self::Frame(FrameError::Io(error)) => reason(error),
            Self::Protocol => "protocol",
            Self::Frame(error) => error.label().unwrap_or("closed"),
            Self::Refused(refusal) => refusal.label(),
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::Stranger(_) => "stranger",
        }
    }

    /// What the core is told of an address where this happened.
    pub(super) const fn unverified(&self) -> Unverified {
        match self {
            Self::Unreachable(_) | Self::Timeout => Unverified::Unreachable,
            _ => Unverified::Refused,
        }
    }
}

/// The dialling end.
pub(super) async fn dial(
    connector: &TlsConnector,
    gate: &Arc<Gate>,
    me: Myself,
    address: &str,
    purpose: Purpose,
) -> Result<Greeted, GreetError> {
    let whole = async {
        let tcp = TcpStream::connect(address).await.map_err(GreetError::Unreachable)?;
        tcp.set_nodelay(true).map_err(GreetError::Unreachable)?;
        // No name is sent, and none is checked: the identity in the certificate counts.
        let name = ServerName::try_from("continuum").map_err(|_| GreetError::Protocol)?;
        let mut stream = TlsStream::from(connector.connect(name, tcp).await?);
        let proved = proved(&stream)?;
        frame::write_value(&mut stream, &me.hello(purpose)).await?;
        let theirs: Hello = frame::read_value(&mut stream, GREETING_BYTES_MAX).await?;
        conclude(stream, me, proved, theirs, purpose, gate).await
    };
    timeout(HANDSHAKE_TIMEOUT, whole).await.unwrap_or(Err(GreetError::Timeout))
}

/// The accepting end.
pub(super) async fn accept(
    acceptor: &TlsAcceptor,
    gate: &Arc<Gate>,
    me: Myself,
    tcp: TcpStream,
) -> Result<Greeted, GreetError> {
    let whole = async {
        tcp.set_nodelay(true).map_err(GreetError::Unreachable)?;
        let mut stream = TlsStream::from(acceptor.accept(tcp).await?);
        let proved = proved(&stream)?;
        let theirs: Hello = frame::read_value(&mut stream, GREETING_BYTES_MAX).await?;
        frame::write_value(&mut stream, &me.hello(theirs.purpose)).await?;
        conclude(stream, me, proved, theirs, theirs.purpose, gate).await
    };
    timeout(HANDSHAKE_TIMEOUT, whole).await.unwrap_or(Err(GreetError::Timeout))
}

/// Both ends alike: a verdict each way.
async fn conclude(
    mut stream: TlsStream<TcpStream>,
    me: Myself,
    proved: Principal,
    theirs: Hello,
    purpose: Purpose,
    gate: &Arc<Gate>,
) -> Result<Greeted, GreetError> {
    let judged = judge(me, &proved, &theirs, purpose).and_then(|version| {
        let place = gate.known(theirs.node).ok_or(HelloRefusal::TooMany)?;
        Ok((version, place))
    });
    let verdict = match &judged {
        Ok(_) => Verdict::Welcome,
        Err(refusal) => Verdict::Refused(*refusal),
    };
    let told = frame::write_value(&mut stream, &verdict).await;
    // Read also by an end that refuses: closing with bytes unread would tear its own verdict off the wire.
    let theirs_of_us = frame::read_value(&mut stream, GREETING_BYTES_MAX).await;
    let (version, place) = judged.map_err(GreetError::Refused)?;
    told?;
    match theirs_of_us? {
        Verdict::Welcome => Ok(Greeted { stream, hello: theirs, version, place }),
        Verdict::Refused(refusal) => Err(GreetError::RefusedByPeer(refusal)),
    }
}

/// Whether the hello says what the certificate proves, and in which version both speak.
fn judge(
    me: Myself,
    proved: &Principal,
    theirs: &Hello,
    purpose: Purpose,
) -> Result<u16, HelloRefusal> {
    if theirs.federation != me.federation || proved.federation != me.federation {
        return Err(HelloRefusal::Federation);
    }
    if proved.role != Role::Node(theirs.node) {
        return Err(HelloRefusal::Identity);
    }
    // Who asks an address only who is there may find itself.
    if theirs.node == me.node && purpose != Purpose::Verify {
        return Err(HelloRefusal::Myself);
    }
    frame::common_version(VERSIONS, theirs.versions).ok_or(HelloRefusal::Version)
}

/// What the other end's certificate proves.
fn proved(stream: &TlsStream<TcpStream>) -> Result<Principal, GreetError> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(PEER_PROTOCOL) {
        return Err(GreetError::Protocol);
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    leaf.and_then(|leaf| Principal::of_certificate(leaf))
        .ok_or(GreetError::Refused(HelloRefusal::Identity))
}

impl Myself {
    const fn hello(&self, purpose: Purpose) -> Hello {
        let Self { federation, node, store, boot } = *self;
        Hello { federation, node, store, boot, purpose, versions: VERSIONS }
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::node::Plane;

    use super::*;

    const ME: Myself = Myself {
        federation: FederationId([1; 16]),
        node: NodeId([2; 16]),
        store: StoreId([3; 16]),
        boot: Boot { count: 1, nonce: 2 },
    };
    const CARRY: Purpose = Purpose::Carry(Plane::Control);

    fn judged(change: impl FnOnce(&mut Hello, &mut Principal)) -> Result<u16, HelloRefusal> {
        let node = NodeId([7; 16]);
        let mut hello = Hello { node, ..ME.hello(CARRY) };
        let mut proved = Principal { federation: ME.federation, role: Role::Node(node) };
        change(&mut hello, &mut proved);
        judge(ME, &proved, &hello, CARRY)
    }

    #[test]
    fn a_hello_says_what_its_certificate_proves() {
        assert_eq!(judged(|_, _| ()), Ok(1));
        let other = FederationId([9; 16]);
        assert_eq!(judged(|hello, _| hello.federation = other), Err(HelloRefusal::Federation));
        assert_eq!(judged(|_, proved| proved.federation = other), Err(HelloRefusal::Federation));
        let another = NodeId([8; 16]);
        assert_eq!(judged(|hello, _| hello.node = another), Err(HelloRefusal::Identity));
        let client = Role::Client("ann".to_owned());
        assert_eq!(judged(|_, proved| proved.role = client), Err(HelloRefusal::Identity));
        assert_eq!(judged(|hello, _| hello.versions = (9, 9)), Err(HelloRefusal::Version));
        let myself = |hello: &mut Hello, proved: &mut Principal| {
            hello.node = ME.node;
            proved.role = Role::Node(ME.node);
        };
        assert_eq!(judged(myself), Err(HelloRefusal::Myself));
    }
}
