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
}

/// Checks the certificates of both ends in the same way.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    federation: FederationId,
    audience: Audience,
}

impl Verifier {
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        roots: Arc<RootCertStore>,
        federation: FederationId,
        audience: Audience,
    ) -> Result<Self, String> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| error.to_string())?;
        Ok(Self { provider, roots, clients, federation, audience })
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
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )
        .map_err(|error| self.explain(leaf, error))?;
        self.check_identity(leaf)?;
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
            None => "certificate",
        },
        _ => "certificate",
    }
}
