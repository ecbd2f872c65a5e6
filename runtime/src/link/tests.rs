//! Tests of links over loopback: what is let in, what is refused and counted, and the link between two real ends.

use std::net::SocketAddr;
use std::time::Duration;

use continuum_core::id::{FederationId, StoreId};
use continuum_core::seed::Seed;
use continuum_core::time::WallTime;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::link::frame::{self, HELLO_BYTES_MAX, Hello, HelloRefusal, VERSIONS, Verdict};
use crate::tls::Credentials;
use crate::tls::pki::{Authority, ISSUED_VALID, Issued, Validity};

pub(crate) const ANN: NodeId = NodeId([1; 16]);
pub(crate) const BEN: NodeId = NodeId([2; 16]);
pub(crate) const BOOT: Boot = Boot { count: 1, nonce: 9 };
/// Generous: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> WallTime {
    SystemClock.now().wall
}

fn valid() -> Validity {
    Validity::starting(now(), ISSUED_VALID)
}

pub(crate) fn authority() -> Authority {
    Authority::mint(valid()).unwrap()
}

fn credentials(authority: &Authority, issued: &Issued) -> Credentials {
    let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    Credentials::from_pem(authority.certificate().as_bytes(), certificate, key).unwrap()
}

pub(crate) fn node(authority: &Authority, node: NodeId) -> Credentials {
    credentials(authority, &authority.issue_node(node, &[], valid()).unwrap())
}

pub(crate) fn tls(credentials: &Credentials) -> Tls {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Tls {
        server: credentials.peer_server(Arc::clone(&clock)).unwrap(),
        client: credentials.peer_client(clock).unwrap(),
    }
}

/// A node's links and their address.
pub(crate) struct End {
    pub(crate) links: Links,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
}

async fn end(credentials: &Credentials, boot: Boot) -> End {
    limited(credentials, boot, Limits::default()).await
}

async fn limited(credentials: &Credentials, boot: Boot, limits: Limits) -> End {
    let end = closed(credentials, (boot, Lineage::default()), limits).await;
    end.links.open();
    end
}

/// A node's links before its boot is durable.
pub(crate) async fn closed(
    credentials: &Credentials,
    (boot, lineage): (Boot, Lineage),
    limits: Limits,
) -> End {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = credentials.node().unwrap();
    let federation = credentials.federation();
    let me = LocalIdentity { federation, node, store: StoreId(node.0), boot, lineage };
    let metrics = Arc::new(Metrics::new());
    let jitter = Seed::from_number(1).derive("test", 0);
    let links = Links::start(me, listener, tls(credentials), limits, Arc::clone(&metrics), jitter);
    End { links, metrics, address }
}

impl End {
    /// The next event, consumed as by a core that refuses no peer.
    async fn event(&mut self) -> Event {
        let next = async {
            loop {
                if let Some(event) = self.links.next_event() {
                    self.links.event_consumed();
                    return event;
                }
                let report = self.links.reports.recv().await.unwrap();
                self.links.handle(report);
            }
        };
        timeout(PATIENCE, next).await.expect("an event")
    }

    pub(crate) async fn connected(&mut self) -> (NodeId, Boot) {
        loop {
            if let Event::Connected { peer, boot, .. } = self.event().await {
                return (peer, boot);
            }
        }
    }

    /// Waits until something was counted: a connection that fails early reports nothing.
    async fn counted(&self, count: impl Fn(&Metrics) -> u64) {
        let seen = async {
            while count(&self.metrics) == 0 {
                tokio::task::yield_now().await;
            }
        };
        let figures = || self.metrics.render();
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("a count in\n{}", figures()));
    }

    /// Checks that a good peer is still let in.
    async fn is_healthy(&mut self, authority: &Authority) {
        let mut other = end(&node(authority, NodeId([0xee; 16])), BOOT).await;
        other.links.route(ANN, Some(Address(self.address.to_string())));
        let (connected, _) = tokio::join!(self.connected(), other.connected());
        assert_eq!(connected.0, NodeId([0xee; 16]));
    }
}

fn refused_message() -> Message {
    Message::Refused { refusal: Refusal::StaleBoot, known: BOOT }
}

#[tokio::test]
async fn two_ends_that_dial_each_other_have_one_link_with_both_planes() {
    let authority = authority();
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let mut ben = end(&node(&authority, BEN), BOOT).await;
    ann.links.route(BEN, Some(Address(ben.address.to_string())));
    ben.links.route(ANN, Some(Address(ann.address.to_string())));
    let (of_ann, of_ben) = tokio::join!(ann.connected(), ben.connected());
    assert_eq!((of_ann, of_ben), ((BEN, BOOT), (ANN, BOOT)));
    for plane in PLANES {
        // A simultaneous dial may still replace a connection and lose what was on it, so the message is repeated.
        let message = async {
            loop {
                ann.links.send(BEN, plane, refused_message());
                let queue = if plane == Plane::Control {
                    &mut ben.links.control
                } else {
                    &mut ben.links.bulk
                };
                tokio::select! {
                    biased;
                    incoming = queue.recv() => return incoming.unwrap(),
                    report = ann.links.reports.recv() => ann.links.handle(report.unwrap()),
                    report = ben.links.reports.recv() => ben.links.handle(report.unwrap()),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        let incoming = timeout(PATIENCE, message).await.unwrap();
        assert!(ben.links.is_current(&incoming));
        assert_eq!((incoming.from, incoming.message), (ANN, refused_message()));
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_is_reported_and_dialled_again() {
    let authority = authority();
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let ben = end(&node(&authority, BEN), BOOT).await;
    let address = ben.address;
    ann.links.route(BEN, Some(Address(address.to_string())));
    // Nothing drives Ben's side, which is enough for a handshake.
    assert_eq!(ann.connected().await, (BEN, BOOT));
    drop(ben);
    assert!(matches!(ann.event().await, Event::Unreachable { peer: BEN }));
    // The same node returns at the same address as another process.
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
    };
    let credentials = node(&authority, BEN);
    let boot = Boot { count: 2, nonce: 3 };
    let me = LocalIdentity {
        federation: authority.federation(),
        node: BEN,
        store: StoreId(BEN.0),
        boot,
        lineage: Lineage::default(),
    };
    let metrics = Arc::new(Metrics::new());
    let jitter = Seed::from_number(2).derive("test", 0);
    let ben = Links::start(me, listener, tls(&credentials), Limits::default(), metrics, jitter);
    let early = timeout(Duration::from_millis(200), ann.connected()).await;
    assert!(early.is_err(), "a boot that is not durable is in no handshake");
    ben.open();
    assert_eq!(ann.connected().await, (BEN, boot));
}

#[tokio::test]
async fn a_refused_process_is_told_and_the_earlier_link_stays() {
    let authority = authority();
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let ben = node(&authority, BEN);
    let mut first = end(&ben, BOOT).await;
    first.links.route(ANN, Some(Address(ann.address.to_string())));
    tokio::join!(ann.connected(), first.connected());

    let clone = Boot { count: 1, nonce: 10 };
    let mut second = end(&ben, clone).await;
    second.links.route(ANN, Some(Address(ann.address.to_string())));
    let event = async {
        loop {
            if let Some(event) = ann.links.next_event() {
                return event;
            }
            let report = ann.links.reports.recv().await.unwrap();
            ann.links.handle(report);
        }
    };
    let (event, _) = tokio::join!(timeout(PATIENCE, event), second.connected());
    let event = event.unwrap();
    assert!(matches!(event, Event::Connected { peer: BEN, boot, .. } if boot == clone));
    ann.links.refuse(BEN, clone, Refusal::Cloned, BOOT);
    ann.links.event_consumed();
    let told = timeout(PATIENCE, second.links.control.recv()).await.unwrap().unwrap();
    assert_eq!(told.message, Message::Refused { refusal: Refusal::Cloned, known: BOOT });
    // The first process still has its link.
    ann.links.send(BEN, Plane::Control, refused_message());
    let received = timeout(PATIENCE, first.links.control.recv()).await.unwrap().unwrap();
    assert_eq!(received.message, refused_message());
}

#[tokio::test]
async fn verifying_an_address_returns_the_node_that_answers() {
    let authority = authority();
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let ben = end(&node(&authority, BEN), BOOT).await;
    let outcome = async |ann: &mut End, address: String| {
        ann.links.verify(Address(address));
        match ann.event().await {
            Event::Verified { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    };
    let found = outcome(&mut ann, ben.address.to_string()).await.unwrap();
    assert_eq!((found.node, found.store, found.boot), (BEN, StoreId(BEN.0), BOOT));
    let own = ann.address.to_string();
    assert_eq!(outcome(&mut ann, own).await.unwrap().node, ANN, "a node finds itself");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(outcome(&mut ann, free.to_string()).await, Err(Unverified::Unreachable));
    let foreign = end(&node(&self::authority(), BEN), BOOT).await;
    assert_eq!(outcome(&mut ann, foreign.address.to_string()).await, Err(Unverified::Refused));
}

/// Dials with any TLS configuration, and returns the error of the handshake or of the first read.
async fn dial_raw(address: SocketAddr, config: rustls::ClientConfig) -> std::io::Error {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("continuum").unwrap();
    match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
        Err(error) => error,
        // With TLS 1.3 the dialler sees a refusal only after its handshake.
        Ok(mut stream) => match stream.read(&mut [0; 1]).await {
            Err(error) => error,
            Ok(read) => panic!("the listener sent {read} bytes"),
        },
    }
}

/// A dialling end that trusts any listener, so that only the listener can refuse.
fn client_config(credentials: &Credentials) -> rustls::ClientConfig {
    let ours = credentials.peer_client(Arc::new(SystemClock)).unwrap();
    let mut config = rustls::ClientConfig::clone(&ours);
    config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
    config
}

#[tokio::test]
async fn each_wrong_certificate_is_refused_with_its_own_reason() {
    let authority = authority();
    let ann_credentials = node(&authority, ANN);
    let mut ann = end(&ann_credentials, BOOT).await;

    let forger = Authority::mint_for(authority.federation(), valid()).unwrap();
    let other = Authority::mint(valid()).unwrap();
    let old = Validity { from: WallTime(0), until: WallTime(now().0 - 1000) };
    let early = Validity { from: WallTime(now().0 + 100_000), until: WallTime(now().0 + 200_000) };
    let cases = [
        ("other_authority", forger.issue_node(BEN, &[], valid()).unwrap()),
        ("other_federation", other.issue_node(BEN, &[], valid()).unwrap()),
        ("expired", authority.issue_node(BEN, &[], old).unwrap()),
        ("not_yet_valid", authority.issue_node(BEN, &[], early).unwrap()),
        ("not_a_node", authority.issue_client("ann", valid()).unwrap()),
    ];
    for (reason, issued) in cases {
        let before = ann.metrics.handshake_failures(reason);
        let wrong = credentials(&authority, &issued);
        dial_raw(ann.address, client_config(&wrong)).await;
        ann.counted(|metrics| metrics.handshake_failures(reason) - before).await;
    }
    ann.is_healthy(&authority).await;
}

#[tokio::test]
async fn another_federation_under_the_same_authority_is_refused() {
    // One key with two federation ids, as a careless operator could make. The chain alone would accept it.
    let authority = authority();
    let issued = authority.issue_node(BEN, &[], valid()).unwrap();
    let ann = end(&node(&authority, ANN), BOOT).await;
    let mut hello = hello_of(&authority, BEN);
    hello.federation = FederationId([0xab; 16]);
    let verdict = say_hello(ann.address, &credentials(&authority, &issued), &hello).await;
    assert_eq!(verdict, Verdict::Refused(HelloRefusal::Federation));
    ann.counted(|metrics| metrics.rejections("hello_federation")).await;
}

#[tokio::test]
async fn no_certificate_tls_12_and_another_protocol_are_refused() {
    let authority = authority();
    let credentials = node(&authority, BEN);
    let mut ann = end(&node(&authority, ANN), BOOT).await;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let (_, pem) = x509_parser::pem::parse_x509_pem(authority.certificate().as_bytes()).unwrap();
    roots.add(pem.contents.into()).unwrap();
    let anonymous = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
        config.alpn_protocols = vec![crate::tls::PEER_PROTOCOL.to_vec()];
        config
    };
    dial_raw(ann.address, anonymous(&[&rustls::version::TLS13])).await;
    ann.counted(|metrics| metrics.handshake_failures("no_certificate")).await;
    dial_raw(ann.address, anonymous(&[&rustls::version::TLS12])).await;
    ann.counted(|metrics| metrics.handshake_failures("version")).await;

    let mut config = client_config(&credentials);
    config.alpn_protocols = vec![b"h2".to_vec()];
    dial_raw(ann.address, config).await;
    let mut config = client_config(&credentials);
    config.alpn_protocols = Vec::new();
    dial_raw(ann.address, config).await;
    ann.counted(|metrics| metrics.handshake_failures("protocol").saturating_sub(1)).await;

    let mut plain = TcpStream::connect(ann.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    ann.counted(|metrics| metrics.handshake_failures("garbage")).await;
    ann.is_healthy(&authority).await;
}

/// Trusts any server, because the test is about the other end.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _leaf: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &rustls::pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &rustls::pki_types::CertificateDer<'_>,
        _signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn hello_of(authority: &Authority, node: NodeId) -> Hello {
    Hello {
        federation: authority.federation(),
        node,
        store: StoreId([4; 16]),
        boot: BOOT,
        lineage: Lineage::default(),
        purpose: Purpose::Messages(Plane::Control),
        versions: VERSIONS,
    }
}

/// A TLS stream with a valid certificate, before any frame.
async fn stream_of(
    address: SocketAddr,
    credentials: &Credentials,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("continuum").unwrap();
    let connector = TlsConnector::from(Arc::new(client_config(credentials)));
    connector.connect(name, tcp).await.unwrap()
}

/// Sends any hello, and returns the verdict.
async fn say_hello(address: SocketAddr, credentials: &Credentials, hello: &Hello) -> Verdict {
    let mut stream = stream_of(address, credentials).await;
    frame::write_value(&mut stream, hello).await.unwrap();
    let _theirs: Hello = frame::read_value(&mut stream, HELLO_BYTES_MAX).await.unwrap();
    frame::write_value(&mut stream, &Verdict::Welcome).await.unwrap();
    frame::read_value(&mut stream, HELLO_BYTES_MAX).await.unwrap()
}

#[tokio::test]
async fn a_hello_that_claims_another_node_is_refused() {
    let authority = authority();
    let credentials = node(&authority, BEN);
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let claim = hello_of(&authority, NodeId([3; 16]));
    let verdict = say_hello(ann.address, &credentials, &claim).await;
    assert_eq!(verdict, Verdict::Refused(HelloRefusal::Identity));
    ann.counted(|metrics| metrics.rejections("hello_identity")).await;
    let mut future = hello_of(&authority, BEN);
    future.versions = (7, 9);
    let verdict = say_hello(ann.address, &credentials, &future).await;
    assert_eq!(verdict, Verdict::Refused(HelloRefusal::Version));
    ann.counted(|metrics| metrics.rejections("hello_version")).await;
    ann.is_healthy(&authority).await;
}

/// Both planes of a link, made by hand.
async fn link_by_hand(
    ann: &End,
    authority: &Authority,
    credentials: &Credentials,
    boot: u64,
) -> Vec<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut planes = Vec::new();
    for plane in PLANES {
        let mut hello = hello_of(authority, BEN);
        hello.boot = Boot { count: boot, nonce: 0 };
        hello.purpose = Purpose::Messages(plane);
        let mut stream = stream_of(ann.address, credentials).await;
        frame::write_value(&mut stream, &hello).await.unwrap();
        let _: Hello = frame::read_value(&mut stream, HELLO_BYTES_MAX).await.unwrap();
        frame::write_value(&mut stream, &Verdict::Welcome).await.unwrap();
        let _: Verdict = frame::read_value(&mut stream, HELLO_BYTES_MAX).await.unwrap();
        planes.push(stream);
    }
    planes
}

#[tokio::test]
async fn a_message_of_a_later_version_is_counted_and_the_link_stays_up() {
    let authority = authority();
    let credentials = node(&authority, BEN);
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let mut planes = link_by_hand(&ann, &authority, &credentials, 1).await;
    assert_eq!(ann.connected().await.0, BEN);
    let later = (Message::KINDS, "what a later version says");
    frame::write_value(&mut planes[0], &later).await.unwrap();
    frame::write_value(&mut planes[0], &refused_message()).await.unwrap();
    let received = timeout(PATIENCE, ann.links.control.recv()).await.unwrap().unwrap();
    assert_eq!(received.message, refused_message());
    assert_eq!(ann.metrics.rejections("message_unknown"), 1);
}

#[tokio::test]
async fn garbage_and_endless_frames_close_the_link_and_nothing_else() {
    let authority = authority();
    let credentials = node(&authority, BEN);
    let mut ann = end(&node(&authority, ANN), BOOT).await;
    let garbage: [(&str, &[u8]); 2] =
        [("frame_garbage", b"\0\0\0\x03abc"), ("frame_too_long", &[0xff; 8])];
    for (boot, (reason, bytes)) in (1..).zip(garbage) {
        let mut planes = link_by_hand(&ann, &authority, &credentials, boot).await;
        assert_eq!(ann.connected().await.0, BEN);
        planes[0].write_all(bytes).await.unwrap();
        planes[0].flush().await.unwrap();
        assert!(matches!(ann.event().await, Event::Unreachable { peer: BEN }));
        assert_eq!(ann.metrics.rejections(reason), 1, "{reason}");
    }
    // The frame of a hello has its own, far lower bound.
    let mut stream = stream_of(ann.address, &credentials).await;
    stream.write_all(&[0, 1, 0, 0]).await.unwrap();
    stream.flush().await.unwrap();
    ann.counted(|metrics| metrics.rejections("frame_too_long").saturating_sub(1)).await;
    ann.is_healthy(&authority).await;
}

#[tokio::test]
async fn a_silent_connection_holds_its_slot_for_the_handshake_timeout_at_most() {
    let authority = authority();
    let limits = Limits { pending_max: 1, ..Limits::default() };
    let mut ann = limited(&node(&authority, ANN), BOOT, limits).await;
    let _silent = TcpStream::connect(ann.address).await.unwrap();
    let mut refused = TcpStream::connect(ann.address).await.unwrap();
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0, "the one slot is taken");
    tokio::time::pause();
    tokio::time::advance(crate::tls::HANDSHAKE_TIMEOUT).await;
    tokio::time::resume();
    ann.counted(|metrics| metrics.handshake_failures("timeout")).await;
    ann.is_healthy(&authority).await;
}

#[tokio::test]
async fn past_the_bound_new_connections_are_closed_at_once() {
    let authority = authority();
    let limits = Limits { pending_per_address_max: 1, ..Limits::default() };
    let ann = limited(&node(&authority, ANN), BOOT, limits).await;
    let _silent = TcpStream::connect(ann.address).await.unwrap();
    let mut second = TcpStream::connect(ann.address).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without a word");
    ann.counted(|metrics| metrics.rejections("too_many_pending")).await;
}
