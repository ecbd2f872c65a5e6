//! Strangers at the peer port: some fail the handshake, others pass it and send garbage.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use continuum_core::codec;
use continuum_core::id::{Boot, FederationId, Lineage, NodeId, StoreId};
use continuum_core::node::Plane;
use continuum_runtime::clock::SystemClock;
use continuum_runtime::link::frame::{self, HELLO_BYTES_MAX, Hello, Purpose, VERSIONS, Verdict};
use continuum_runtime::tls::pki::{Authority, Issued};
use continuum_runtime::tls::{Credentials, PEER_PROTOCOL};
use continuum_tests::process::{Dev, metric, wait_until};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use serde::de::DeserializeOwned;

use super::witness::{refused, still_serves, validity, write_key};

const NODE: NodeId = NodeId([9; 16]);
/// A frame of eight bytes that do not decode.
const GARBAGE: [u8; 12] = [0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// The length prefix of a frame of 4 GiB minus one byte.
const FOUR_GIB: [u8; 4] = [0xff; 4];

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Trusts any listener, so that only the listener can refuse.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS client with this certificate.
fn with(authority: &Authority, issued: &Issued) -> ClientConfig {
    let (ca, certificate) = (authority.certificate(), issued.certificate.as_bytes());
    let credentials = Credentials::from_pem(ca.as_bytes(), certificate, issued.key.as_bytes());
    let config = credentials.expect("credentials").peer_client(Arc::new(SystemClock));
    let mut config = ClientConfig::clone(&config.expect("a configuration"));
    config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
    config
}

/// A TLS client without a certificate.
fn without(version: &'static SupportedProtocolVersion) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let builder = builder.expect("a version of the provider").dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![PEER_PROTOCOL.to_vec()];
    config
}

/// The peer address of node 1.
fn peers(dev: &Dev) -> SocketAddr {
    let address = dev.ready["nodes"][0]["peer"].as_str().expect("an address");
    address.parse().expect("a socket address")
}

fn dial(dev: &Dev, config: &ClientConfig) -> Stream {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config.clone()), name);
    let tcp = TcpStream::connect(peers(dev)).expect("a listener");
    StreamOwned::new(connection.expect("a connection"), tcp)
}

/// Does only the handshake and returns the result of a read after it.
fn handshake(dev: &Dev, config: &ClientConfig) -> io::Result<usize> {
    dial(dev, config).read(&mut [0; 1])
}

/// Checks that the handshake fails for `reason` and that the stranger gets a TLS alert.
fn shut_out(dev: &Dev, reason: &str, config: &ClientConfig) {
    let series = format!("continuum_tls_handshake_failures_total{{reason=\"{reason}\"");
    let parts = ["refused 127.0.0.1:", "TLS failed: ", &format!("reason=\"{reason}\"")];
    let error = refused(dev, &series, &parts, || handshake(dev, config));
    let error = error.expect_err("a refusal").to_string();
    assert!(error.contains("received fatal alert"), "{reason}: {error}");
}

/// An honest hello.
fn hello(federation: FederationId, purpose: Purpose) -> Hello {
    let (store, boot) = (StoreId([7; 16]), Boot { count: 1, nonce: 5 });
    let lineage = Lineage::default();
    Hello { federation, node: NODE, store, boot, lineage, purpose, versions: VERSIONS }
}

fn receive<T: DeserializeOwned + serde::Serialize>(stream: &mut Stream) -> T {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a frame");
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).expect("a whole frame");
    codec::decode(&body, HELLO_BYTES_MAX).expect("what is due")
}

/// Greets as a node does and is welcomed.
fn greeted(dev: &Dev, config: &ClientConfig, hello: &Hello) -> Stream {
    let mut stream = dial(dev, config);
    stream.write_all(&frame::encode(hello).expect("short")).expect("sent");
    let theirs: Hello = receive(&mut stream);
    assert_eq!(theirs.federation, hello.federation);
    stream.write_all(&frame::encode(&Verdict::Welcome).expect("short")).expect("sent");
    assert_eq!(receive::<Verdict>(&mut stream), Verdict::Welcome);
    stream
}

/// Sends bytes and reads until the other end closes.
fn say(mut stream: Stream, bytes: &[u8]) {
    stream.write_all(bytes).expect("sent");
    stream.flush().expect("sent");
    // The close may be a reset, because the other end does not read all bytes.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// The peak memory of node 1's process, in KiB.
fn peak_kib(dev: &Dev) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", dev.pid(1))).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn strangers_are_shut_out_of_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("dev");
    let dev = Dev::start(1, &root);
    write_key(&dev);
    let ours = Authority::load(&root.join("pki")).expect("the federation's authority");
    let theirs = Authority::mint(validity()).expect("another authority");
    let forger = Authority::mint_for(ours.federation(), validity()).expect("a forger");
    let node = |authority: &Authority| authority.issue_node(NODE, &[], validity()).expect("issued");
    let client = ours.issue_client("ann", validity()).expect("issued");
    let good = with(&ours, &node(&ours));
    drop(greeted(&dev, &good, &hello(ours.federation(), Purpose::Verify)));

    shut_out(&dev, "version", &without(&rustls::version::TLS12));
    shut_out(&dev, "no_certificate", &without(&rustls::version::TLS13));
    shut_out(&dev, "other_authority", &with(&ours, &node(&forger)));
    shut_out(&dev, "other_federation", &with(&ours, &node(&theirs)));
    shut_out(&dev, "not_a_node", &with(&ours, &client));
    let mut http = good.clone();
    http.alpn_protocols = vec![b"http/1.1".to_vec()];
    shut_out(&dev, "protocol", &http);
    let plain = "continuum_tls_handshake_failures_total{reason=\"garbage\"";
    refused(&dev, plain, &["TLS failed: ", "reason=\"garbage\""], || {
        let mut stream = TcpStream::connect(peers(&dev)).expect("a listener");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    drop(greeted(&dev, &good, &hello(ours.federation(), Purpose::Verify)));
}

#[test]
fn garbage_of_a_known_node_closes_only_its_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("dev");
    let dev = Dev::start(1, &root);
    write_key(&dev);
    let ours = Authority::load(&root.join("pki")).expect("the federation's authority");
    let federation = ours.federation();
    let issued = ours.issue_node(NODE, &[], validity()).expect("issued");
    let config = with(&ours, &issued);
    let rejected = |reason: &str, provoke: &dyn Fn()| {
        let series = format!("continuum_rejected_total{{reason=\"{reason}\"");
        refused(&dev, &series, &["refused ", &format!("reason=\"{reason}\"")], provoke);
    };

    // Garbage instead of a greeting.
    rejected("frame_garbage", &|| say(dial(&dev, &config), &GARBAGE));
    rejected("frame_too_long", &|| say(dial(&dev, &config), &FOUR_GIB));
    let lie = |lie: &Hello| {
        let lie = [frame::encode(lie), frame::encode(&Verdict::Welcome)];
        say(dial(&dev, &config), &lie.map(|frame| frame.expect("short")).concat());
    };
    let truth = hello(federation, Purpose::Verify);
    rejected("hello_identity", &|| lie(&Hello { node: NodeId([8; 16]), ..truth.clone() }));
    rejected("hello_federation", &|| {
        lie(&Hello { federation: FederationId([8; 16]), ..truth.clone() });
    });
    rejected("hello_version", &|| lie(&Hello { versions: (7, 9), ..truth.clone() }));

    // Garbage on an established link: both connections of a peer are up, and one of them sends it.
    let linked = || metric(dev.api(1), "continuum_peers_connected ");
    for (reason, bytes) in [("frame_garbage", &GARBAGE[..]), ("frame_too_long", &FOUR_GIB[..])] {
        wait_until("no peer is linked", || linked() < 0.5);
        let carry = |plane| greeted(&dev, &config, &hello(federation, Purpose::Messages(plane)));
        let (control, bulk) = (carry(Plane::Control), carry(Plane::Bulk));
        wait_until("the peer is linked", || linked() > 0.5);
        let control = std::cell::Cell::new(Some(control));
        rejected(reason, &|| say(control.take().expect("said once"), bytes));
        drop(bulk);
    }
    assert!(peak_kib(&dev) < 1 << 20, "the node allocated no 4 GiB: {} KiB", peak_kib(&dev));
    still_serves(&dev, 1);
}
