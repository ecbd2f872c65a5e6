//! TLS for peers and for the API: version 1.3 only, certificates of one authority at both ends, no resumption, no
//! 0-RTT.
//!
//! A peer's identity is its certificate's SAN URI ([`principal`]). It is checked inside the handshake, so that a wrong
//! certificate is answered with a TLS alert. Host names and addresses are not checked: a node may move between hosts.

pub mod pki;
pub mod principal;
pub mod secret;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use continuum_core::id::{FederationId, NodeId};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::{Clock, TlsTime};
use crate::regular;

use pki::federation_of;
use principal::{Principal, Role};
use verify::{Audience, Authorities, Verifier};
pub use verify::{Refused, reason};

/// The ALPN protocol of peer links.
pub const PEER_PROTOCOL: &[u8] = b"continuum/1";
/// The ALPN protocol of the API.
pub const API_PROTOCOL: &[u8] = b"http/1.1";
/// A handshake that takes longer is closed, so that a silent connection holds its slot no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// No file of certificates is longer.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}; hint: give a file that `continuum pki issue` wrote")]
    File {
        /// The file.
        path: PathBuf,
        /// From the operating system.
        error: io::Error,
    },
    /// The key file cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    /// A file is not PEM of the expected kind.
    #[error("the {what} is not PEM: {why}; hint: use the files that `continuum pki issue` wrote")]
    Pem {
        /// The kind.
        what: &'static str,
        /// From the parser.
        why: String,
    },
    /// The certificate names no identity, or several.
    #[error(
        "the certificate names no identity of a federation; hint: issue one with `continuum pki issue`"
    )]
    NoIdentity,
    /// A node needs a node's certificate.
    #[error(
        "the certificate is {principal}, but a node needs one for a node; hint: issue one with `continuum pki issue`"
    )]
    NotANode {
        /// The client that it names.
        principal: String,
    },
    /// The certificate is not valid under its authority, or not valid now.
    #[error(
        "the certificate is not valid under this authority: {why}; hint: issue a new one with `continuum pki issue`"
    )]
    Invalid {
        /// The failed check.
        why: String,
    },
    /// The certificate and the key do not match, or rustls refused them.
    #[error(
        "the certificate and key cannot be used: {0}; hint: give the key that was issued with the certificate"
    )]
    Unusable(#[from] rustls::Error),
}

/// A certificate with its key, and the authority that it is checked against.
#[derive(Debug)]
pub struct Credentials {
    principal: Principal,
    /// The federation that the authority names.
    authority: Option<FederationId>,
    roots: Arc<RootCertStore>,
    authorities: Arc<Authorities>,
    authority_ends_s: u64,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads PEM files. No other user may read the key's file.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let (ca, certificate) = (Self::read(ca)?, Self::read(certificate)?);
        Self::from_pem(&ca, &certificate, &secret::read(key)?)
    }

    /// Reads a file of certificates.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::File`].
    pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
        regular::read(path, PEM_BYTES_MAX)
            .map_err(|error| CredentialsError::File { path: path.to_owned(), error })
    }

    /// Parses PEM bytes.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        let (mut authorities, mut authority_ends_s) = (Authorities::default(), u64::MAX);
        for root in certificates("authority's certificate", ca)? {
            authorities.add(&root);
            authority_ends_s = authority_ends_s.min(ends_s(&root));
            roots.add(root).map_err(|error| pem_error("authority's certificate", error))?;
        }
        let chain = certificates("certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| pem_error("key", error))?;
        let principal = Principal::of_certificate(&chain[0]).ok_or(CredentialsError::NoIdentity)?;
        let authority = std::str::from_utf8(ca).ok().and_then(federation_of);
        let (roots, authorities) = (Arc::new(roots), Arc::new(authorities));
        Ok(Self { principal, authority, roots, authorities, authority_ends_s, chain, key })
    }

    /// The identity in the certificate.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The federation that issued it.
    #[must_use]
    pub const fn federation(&self) -> FederationId {
        self.principal.federation
    }

    /// The node in the certificate.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::NotANode`] for a client's certificate.
    pub fn node(&self) -> Result<NodeId, CredentialsError> {
        match self.principal.role {
            Role::Node(node) => Ok(node),
            Role::Client(_) => {
                Err(CredentialsError::NotANode { principal: self.principal.to_string() })
            }
        }
    }

    /// When the certificate ends, in seconds since 1970.
    #[must_use]
    pub fn ends_s(&self) -> u64 {
        ends_s(&self.chain[0])
    }

    /// When the first of the authority's certificates ends, in seconds since 1970.
    #[must_use]
    pub const fn authority_ends_s(&self) -> u64 {
        self.authority_ends_s
    }

    /// Checks that the certificate is valid now under its own authority, so that a node with an expired certificate
    /// fails at its start, and not at every peer.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Invalid`].
    pub fn check(&self, clock: &dyn Clock) -> Result<(), CredentialsError> {
        let ours = self.federation();
        if let Some(theirs) = self.authority.filter(|theirs| *theirs != ours) {
            let why =
                format!("it is of federation {ours}, and the authority of federation {theirs}");
            return Err(CredentialsError::Invalid { why });
        }
        let now = UnixTime::since_unix_epoch(Duration::from_millis(clock.now().wall.0));
        let invalid = |error: rustls::Error| CredentialsError::Invalid { why: error.to_string() };
        let verifier = self.verifier(Audience::Federation)?;
        verifier.verify(&self.chain[0], &self.chain[1..], now).map_err(invalid)?;
        if matches!(self.principal.role, Role::Node(_)) {
            // A node is also dialled.
            verifier.verify_server(&self.chain[0], &self.chain[1..], now).map_err(invalid)?;
        }
        Ok(())
    }

    /// For accepting peer links. Only nodes of the federation are let in.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Unusable`].
    pub fn peer_server(
        &self,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<ServerConfig>, CredentialsError> {
        self.server(clock, Audience::Nodes, PEER_PROTOCOL)
    }

    /// For dialling peer links.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Unusable`].
    pub fn peer_client(
        &self,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<ClientConfig>, CredentialsError> {
        self.client(clock, PEER_PROTOCOL)
    }

    /// For the API's listener. Nodes and clients of the federation are let in.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Unusable`].
    pub fn api_server(&self, clock: Arc<dyn Clock>) -> Result<Arc<ServerConfig>, CredentialsError> {
        self.server(clock, Audience::Federation, API_PROTOCOL)
    }

    /// For a client of the API. It only connects to nodes of its federation.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Unusable`].
    pub fn api_client(&self, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, CredentialsError> {
        self.client(clock, API_PROTOCOL)
    }

    fn server(
        &self,
        clock: Arc<dyn Clock>,
        audience: Audience,
        protocol: &[u8],
    ) -> Result<Arc<ServerConfig>, CredentialsError> {
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(TlsTime(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.verifier(audience)?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        // A resumed session would skip the certificate checks.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    fn client(
        &self,
        clock: Arc<dyn Clock>,
        protocol: &[u8],
    ) -> Result<Arc<ClientConfig>, CredentialsError> {
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(TlsTime(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(Audience::Nodes)?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(Arc::new(config))
    }

    fn verifier(&self, audience: Audience) -> Result<Arc<Verifier>, CredentialsError> {
        let (roots, authorities) = (Arc::clone(&self.roots), Arc::clone(&self.authorities));
        Verifier::new(provider(), roots, authorities, (self.federation(), audience))
            .map(Arc::new)
            .map_err(|why| CredentialsError::Invalid { why })
    }
}

/// When a certificate ends, in seconds since 1970.
fn ends_s(certificate: &CertificateDer<'_>) -> u64 {
    let parsed = X509Certificate::from_der(certificate);
    let ends = parsed.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp());
    u64::try_from(ends).unwrap_or(0)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(what, error))?;
    if found.is_empty() {
        return Err(pem_error(what, "no certificate in it"));
    }
    Ok(found)
}

fn pem_error(what: &'static str, why: impl std::fmt::Display) -> CredentialsError {
    CredentialsError::Pem { what, why: why.to_string() }
}
