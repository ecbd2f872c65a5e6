//! Checks a certificate inside the handshake: chain and dates by webpki, then identity and role.

use std::io;
use std::sync::Arc;

use continuum_core::id::FederationId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::tls::principal::{Principal, Role};

/// Which holders are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Nodes of the federation.
    Nodes,
    /// Nodes and clients of the federation.
    Federation,
}

/// Why a certificate with a valid chain was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It names no identity, or several.
    #[error("the certificate names no identity")]
    NoIdentity,
    /// It is of another federation.
    #[error("the certificate is of another federation")]
    OtherFederation,
    /// It is a client's, where only nodes are let in.
    #[error("the certificate is a client's, not a node's")]
    NotANode,
    /// More authorities stand between it and the root than the root permits.
    #[error("the certificate's chain is longer than its authority permits")]
    PathLength,
    /// It does not say what it is for.
    #[error("the certificate has no extended key usage")]
    NoPurpose,
}

/// Checks the certificates of both ends in the same way.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    authorities: Arc<Authorities>,
    federation: FederationId,
    audience: Audience,
}

/// The facts about roots that a root store forgets.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    ders: Vec<Vec<u8>>,
    /// The most authorities that any of them permits below itself.
    depth: usize,
}

impl Authorities {
    pub(super) fn add(&mut self, der: &[u8]) {
        let parsed = X509Certificate::from_der(der);
        let constraints = parsed
            .ok()
            .and_then(|(_, root)| Some(root.basic_constraints().ok()??.value.path_len_constraint));
        let depth = match constraints {
            Some(Some(depth)) => usize::try_from(depth).unwrap_or(usize::MAX),
            Some(None) => usize::MAX,
            // It does not say that it is an authority for others.
            None => 0,
        };
        self.depth = self.depth.max(depth);
        self.ders.push(der.to_vec());
    }
}

impl Verifier {
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        roots: Arc<RootCertStore>,
        authorities: Arc<Authorities>,
        (federation, audience): (FederationId, Audience),
    ) -> Result<Self, String> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| error.to_string())?;
        Ok(Self { provider, roots, clients, authorities, federation, audience })
    }

    /// Checks a certificate's chain, dates and identity.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let verified = self.clients.verify_client_cert(leaf, intermediates, now);
        verified.map_err(|error| self.explain(leaf, error))?;
        self.check_form(leaf, intermediates)?;
        self.check_identity(leaf)
    }

    /// Checks the same of a certificate that a server shows.
    pub(super) fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
        let roots = &self.roots;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
            .map_err(|error| self.explain(leaf, error))?;
        self.check_form(leaf, intermediates)?;
        self.check_identity(leaf)
    }

    /// A chain without a known authority is mostly another federation's. The federation that the certificate claims is
    /// not proved, but it is refused either way, and the claim explains the refusal best.
    fn explain(&self, leaf: &CertificateDer<'_>, error: Error) -> Error {
        let claimed = Principal::of_certificate(leaf).map(|claimed| claimed.federation);
        let is_unknown = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            )
        );
        if is_unknown && claimed.is_some_and(|claimed| claimed != self.federation) {
            return refusal(Refused::OtherFederation);
        }
        error
    }

    /// Checks what webpki leaves open: it takes a leaf without a purpose for any purpose, and a root as a bare key,
    /// without its bound on the authorities below it.
    fn check_form(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let purpose = X509Certificate::from_der(leaf)
            .is_ok_and(|(_, leaf)| matches!(leaf.extended_key_usage(), Ok(Some(_))));
        if !purpose {
            return Err(refusal(Refused::NoPurpose));
        }
        // A chain may repeat its root.
        let is_below =
            |found: &&CertificateDer<'_>| !self.authorities.ders.contains(&found.to_vec());
        if intermediates.iter().filter(is_below).count() > self.authorities.depth {
            return Err(refusal(Refused::PathLength));
        }
        Ok(())
    }

    fn check_identity(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = match Principal::of_certificate(leaf) {
            None => Refused::NoIdentity,
            Some(found) if found.federation != self.federation => Refused::OtherFederation,
            Some(Principal { role: Role::Client(_), .. }) if self.audience == Audience::Nodes => {
                Refused::NotANode
            }
            Some(_) => return Ok(()),
        };
        Err(refusal(refused))
    }
}

fn refusal(refused: Refused) -> Error {
    CertificateError::Other(OtherError(Arc::new(refused))).into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_server(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

/// Why a handshake failed, in one word: the label of its counter.
#[must_use]
pub fn reason(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(error)) => certificate_reason(error),
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::NoApplicationProtocol) => "protocol",
        Some(Error::PeerIncompatible(_)) => "version",
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => "garbage",
        Some(_) => "tls",
        None if error.kind() == io::ErrorKind::TimedOut => "timeout",
        None => "closed",
    }
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not_yet_valid"
        }
        // Two authorities with the same name differ in their keys alone, which shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "other_authority",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "purpose"
        }
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Refused>() {
            Some(Refused::NoIdentity) => "no_identity",
            Some(Refused::OtherFederation) => "other_federation",
            Some(Refused::NotANode) => "not_a_node",
            Some(Refused::PathLength) => "path_length",
            Some(Refused::NoPurpose) => "purpose",
            None => "certificate",
        },
        _ => "certificate",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use continuum_core::id::NodeId;
    use continuum_core::time::WallTime;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        SanType,
    };
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::tls::pki::{Authority, Validity};

    const NOW_S: u64 = 1_700_000_000;

    fn authority() -> Authority {
        let span = Duration::from_secs(3600);
        Authority::mint(Validity::starting(WallTime(NOW_S * 1000), span)).expect("an authority")
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
    }

    /// A verifier for the holders of certificates of this root.
    fn verifier(root: &CertificateDer<'static>, federation: FederationId) -> Verifier {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (mut roots, mut authorities) = (RootCertStore::empty(), Authorities::default());
        roots.add(root.clone()).expect("a root");
        authorities.add(root);
        let whose = (federation, Audience::Nodes);
        Verifier::new(provider, Arc::new(roots), Arc::new(authorities), whose).expect("a verifier")
    }

    /// A certificate for a node, with these purposes.
    fn leaf(
        federation: FederationId,
        purposes: &[ExtendedKeyUsagePurpose],
        issuer: &Issuer<'_, KeyPair>,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        let node = Principal { federation, role: Role::Node(NodeId([3; 16])) };
        let uri = node.to_string().try_into().expect("ASCII");
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = purposes.to_vec();
        let pair = KeyPair::generate().expect("a key");
        params.signed_by(&pair, issuer).expect("signed").der().clone()
    }

    fn below(
        issuer: Option<&Issuer<'_, KeyPair>>,
        name: &str,
    ) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(u8::from(name == "root")));
        let pair = KeyPair::generate().expect("a key");
        let made = match issuer {
            Some(issuer) => params.signed_by(&pair, issuer),
            None => params.self_signed(&pair),
        };
        (made.expect("signed").der().clone(), Issuer::new(params, pair))
    }

    fn both(verifier: &Verifier, chain: &[CertificateDer<'_>]) -> [Result<(), String>; 2] {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW_S));
        [
            verifier.verify(&chain[0], &chain[1..], now),
            verifier.verify_server(&chain[0], &chain[1..], now),
        ]
        .map(|result| result.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_certificate_says_what_it_is_for() {
        let federation = FederationId([5; 16]);
        let (root, issuer) = below(None, "root");
        let verifier = verifier(&root, federation);
        let (client, server) =
            (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        let with = |purposes: &[ExtendedKeyUsagePurpose]| {
            both(&verifier, &[leaf(federation, purposes, &issuer)]).map(|result| result.is_ok())
        };
        assert_eq!(with(&[client.clone(), server.clone()]), [true, true]);
        assert_eq!(with(&[client]), [true, false]);
        assert_eq!(with(&[server]), [false, true]);
        assert_eq!(with(&[ExtendedKeyUsagePurpose::CodeSigning]), [false, false]);
        assert_eq!(with(&[]), [false, false]);
    }

    #[test]
    fn a_chain_is_no_longer_than_the_root_permits() {
        let federation = FederationId([5; 16]);
        let purposes = [ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let (root, issuer) = below(None, "root");
        let (between, lower) = below(Some(&issuer), "between");
        let lowest = leaf(federation, &purposes, &lower);
        let permits_one = verifier(&root, federation);
        let chain = [lowest.clone(), between.clone(), root.clone()];
        assert_eq!(both(&permits_one, &chain), [Ok(()), Ok(())]);
        // The same chain under a root of its own kind that permits none.
        let ours = authority();
        let verifier = verifier(&der(ours.certificate()), ours.federation());
        assert_eq!(verifier.authorities.depth, 0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW_S));
        let node = ours.issue_node(
            NodeId([3; 16]),
            &[],
            Validity::starting(WallTime(NOW_S * 1000), Duration::from_secs(60)),
        );
        let node = der(&node.expect("issued").certificate);
        assert!(
            verifier.verify(&node, &[der(ours.certificate())], now).is_ok(),
            "a chain may repeat its root"
        );
        let refused = verifier.verify(&node, &[between], now).expect_err("one too many");
        assert_eq!(reason(&io::Error::other(refused)), "path_length");
    }
}
