//! The handshake of a connection, at both ends: TLS, then a hello and a verdict each way, all within one timeout.
//!
//! The hello must claim what the certificate proves. Each end sends its refusal to the other; the caller counts and
//! logs it.

use std::io;
use std::sync::Arc;

use continuum_core::discovery::{Identity, Unverified};
use continuum_core::id::{Boot, FederationId, Lineage, NodeId, StoreId};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::limits::{Limiter, PeerSlot};
use crate::link::frame::{
    self, FrameError, HELLO_BYTES_MAX, Hello, HelloRefusal, Purpose, VERSIONS, Verdict,
};
use crate::tls::principal::{Principal, Role};
use crate::tls::{HANDSHAKE_TIMEOUT, PEER_PROTOCOL, reason};

/// This node and process, as its hellos name them.
#[derive(Clone, Debug)]
pub struct LocalIdentity {
    /// Also in this node's certificate.
    pub federation: FederationId,
    /// Also in this node's certificate.
    pub node: NodeId,
    /// The id of the data directory.
    pub store: StoreId,
    /// The running process.
    pub boot: Boot,
    /// The boots before it.
    pub lineage: Lineage,
}

/// A connection whose handshake succeeded.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) hello: Hello,
    pub(super) version: u16,
    pub(super) slot: PeerSlot,
}

impl Established {
    pub(super) const fn identity(&self) -> Identity {
        let Hello { node, store, boot, .. } = self.hello;
        Identity { node, store, boot }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No TCP connection was made.
    #[error("no node answers: {0}")]
    Unreachable(io::Error),
    /// It was not complete within [`HANDSHAKE_TIMEOUT`].
    #[error("the handshake took longer than {}s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// TLS failed.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// The other end did not agree on our protocol.
    #[error("the other end does not speak the protocol of peers")]
    Protocol,
    /// The hello or the verdict did not arrive as a frame.
    #[error("the exchange of hellos failed: {0}")]
    Frame(#[from] FrameError),
    /// This end refused the other's hello.
    #[error("refused: {0}")]
    Refused(HelloRefusal),
    /// The other end refused this end's hello.
    #[error("the other end refused: {0}")]
    RefusedByPeer(HelloRefusal),
    /// Another node answers at the address.
    #[error("node {0} answers there, but another was expected")]
    WrongNode(NodeId),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Tls(error)
    }
}

impl HandshakeError {
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
            Self::WrongNode(_) => "wrong_node",
        }
    }

    /// The core's view of the failure.
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
    limiter: &Arc<Limiter>,
    me: &LocalIdentity,
    address: &str,
    purpose: Purpose,
) -> Result<Established, HandshakeError> {
    let whole = async {
        let tcp = TcpStream::connect(address).await.map_err(HandshakeError::Unreachable)?;
        tcp.set_nodelay(true).map_err(HandshakeError::Unreachable)?;
        // TLS wants a name; neither end checks it. The identity in the certificate counts.
        let name = ServerName::try_from("continuum").map_err(|_| HandshakeError::Protocol)?;
        let mut stream = TlsStream::from(connector.connect(name, tcp).await?);
        let proved = proved(&stream)?;
        frame::write_value(&mut stream, &me.hello(purpose)).await?;
        let theirs: Hello = frame::read_value(&mut stream, HELLO_BYTES_MAX).await?;
        conclude(stream, me, proved, theirs, purpose, limiter).await
    };
    timeout(HANDSHAKE_TIMEOUT, whole).await.unwrap_or(Err(HandshakeError::Timeout))
}

/// The accepting end.
pub(super) async fn accept(
    acceptor: &TlsAcceptor,
    limiter: &Arc<Limiter>,
    me: &LocalIdentity,
    tcp: TcpStream,
) -> Result<Established, HandshakeError> {
    let whole = async {
        tcp.set_nodelay(true).map_err(HandshakeError::Unreachable)?;
        let mut stream = TlsStream::from(acceptor.accept(tcp).await?);
        let proved = proved(&stream)?;
        let theirs: Hello = frame::read_value(&mut stream, HELLO_BYTES_MAX).await?;
        frame::write_value(&mut stream, &me.hello(theirs.purpose)).await?;
        let purpose = theirs.purpose;
        conclude(stream, me, proved, theirs, purpose, limiter).await
    };
    timeout(HANDSHAKE_TIMEOUT, whole).await.unwrap_or(Err(HandshakeError::Timeout))
}

/// The exchange of verdicts, the same at both ends.
async fn conclude(
    mut stream: TlsStream<TcpStream>,
    me: &LocalIdentity,
    proved: Principal,
    theirs: Hello,
    purpose: Purpose,
    limiter: &Arc<Limiter>,
) -> Result<Established, HandshakeError> {
    let checked = check_hello(me, &proved, &theirs, purpose).and_then(|version| {
        let slot = limiter.established(theirs.node).ok_or(HelloRefusal::TooMany)?;
        Ok((version, slot))
    });
    let verdict = match &checked {
        Ok(_) => Verdict::Welcome,
        Err(refusal) => Verdict::Refused(*refusal),
    };
    let sent = frame::write_value(&mut stream, &verdict).await;
    // An end that refuses reads too: closing with unread bytes resets the connection and loses its own verdict.
    let verdict_on_us = frame::read_value(&mut stream, HELLO_BYTES_MAX).await;
    let (version, slot) = checked.map_err(HandshakeError::Refused)?;
    sent?;
    match verdict_on_us? {
        Verdict::Welcome => Ok(Established { stream, hello: theirs, version, slot }),
        Verdict::Refused(refusal) => Err(HandshakeError::RefusedByPeer(refusal)),
    }
}

/// Checks that the hello claims what the certificate proves, and returns the common protocol version.
fn check_hello(
    me: &LocalIdentity,
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
    // A node that verifies an address may find itself there.
    if theirs.node == me.node && purpose != Purpose::Verify {
        return Err(HelloRefusal::SameNode);
    }
    frame::common_version(VERSIONS, theirs.versions).ok_or(HelloRefusal::Version)
}

/// The identity that the other end's certificate proves.
fn proved(stream: &TlsStream<TcpStream>) -> Result<Principal, HandshakeError> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(PEER_PROTOCOL) {
        return Err(HandshakeError::Protocol);
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    leaf.and_then(|leaf| Principal::of_certificate(leaf))
        .ok_or(HandshakeError::Refused(HelloRefusal::Identity))
}

impl LocalIdentity {
    fn hello(&self, purpose: Purpose) -> Hello {
        let Self { federation, node, store, boot, ref lineage } = *self;
        let lineage = lineage.clone();
        Hello { federation, node, store, boot, lineage, purpose, versions: VERSIONS }
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::node::Plane;

    use super::*;

    const FEDERATION: FederationId = FederationId([1; 16]);
    const NODE: NodeId = NodeId([2; 16]);

    fn me() -> LocalIdentity {
        let mut lineage = Lineage::default();
        for count in 1..200 {
            lineage = lineage.after(Boot { count, nonce: u64::MAX });
        }
        let boot = Boot { count: u64::MAX, nonce: u64::MAX };
        let store = StoreId([3; 16]);
        LocalIdentity { federation: FEDERATION, node: NODE, store, boot, lineage }
    }

    #[test]
    fn the_longest_hello_fits() {
        let hello = me().hello(MESSAGES);
        assert!(frame::encode(&hello).unwrap().len() <= HELLO_BYTES_MAX);
    }

    const MESSAGES: Purpose = Purpose::Messages(Plane::Control);

    fn checked(change: impl FnOnce(&mut Hello, &mut Principal)) -> Result<u16, HelloRefusal> {
        let node = NodeId([7; 16]);
        let mut hello = Hello { node, ..me().hello(MESSAGES) };
        let mut proved = Principal { federation: FEDERATION, role: Role::Node(node) };
        change(&mut hello, &mut proved);
        check_hello(&me(), &proved, &hello, MESSAGES)
    }

    #[test]
    fn a_hello_must_claim_what_its_certificate_proves() {
        assert_eq!(checked(|_, _| ()), Ok(1));
        let other = FederationId([9; 16]);
        assert_eq!(checked(|hello, _| hello.federation = other), Err(HelloRefusal::Federation));
        assert_eq!(checked(|_, proved| proved.federation = other), Err(HelloRefusal::Federation));
        let another = NodeId([8; 16]);
        assert_eq!(checked(|hello, _| hello.node = another), Err(HelloRefusal::Identity));
        let client = Role::Client("ann".to_owned());
        assert_eq!(checked(|_, proved| proved.role = client), Err(HelloRefusal::Identity));
        assert_eq!(checked(|hello, _| hello.versions = (9, 9)), Err(HelloRefusal::Version));
        let myself = |hello: &mut Hello, proved: &mut Principal| {
            hello.node = NODE;
            proved.role = Role::Node(NODE);
        };
        assert_eq!(checked(myself), Err(HelloRefusal::SameNode));
    }
}
