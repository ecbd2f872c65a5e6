//! The federation's own certificate authority: it mints the federation id and issues certificates of nodes and clients.
//!
//! Keys are ECDSA over P-256, which every TLS tool reads, so that a client's certificate also works in curl. This
//! module neither revokes nor renews: a certificate ends at its date.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use continuum_core::id::{FederationId, NodeId};
use continuum_core::time::WallTime;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::tls::PEM_BYTES_MAX;
use crate::tls::principal::{Principal, Role, is_client_name};
use crate::tls::secret;
use crate::{entropy, regular};

/// The file of the authority's certificate.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The file of the authority's key. Only the machine that issues certificates needs it.
pub const CA_KEY: &str = "ca.key";

/// How long the authority's certificate is valid: ten years.
pub const CA_VALID: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long an issued certificate is valid by default: one year.
pub const ISSUED_VALID: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates become valid this long before they are made, so that clocks may differ a little.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be written or read.
    #[error("cannot use {path}: {error}{}", hint_for(error))]
    File {
        /// The file or directory.
        path: PathBuf,
        /// From the operating system.
        error: io::Error,
    },
    /// The authority's key file cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    /// The files are not those that `pki init` writes.
    #[error(
        "{path} is not this program's authority: {why}; hint: use the directory that `pki init` made"
    )]
    NotAnAuthority {
        /// The file.
        path: PathBuf,
        /// Its defect.
        why: String,
    },
    /// A name of a client or host is not valid.
    #[error("{name:?} is not a {what}; hint: {hint}")]
    Name {
        /// The name.
        name: String,
        /// The kind of name.
        what: &'static str,
        /// A name to give instead.
        hint: &'static str,
    },
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
}

fn hint_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            "; hint: choose another directory or name, nothing is overwritten"
        }
        io::ErrorKind::NotFound => "; hint: make the authority first with `continuum pki init`",
        _ => "",
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Not valid before.
    pub from: WallTime,
    /// Not valid after.
    pub until: WallTime,
}

impl Validity {
    /// From a little before `now`, for `span`.
    #[must_use]
    pub fn starting(now: WallTime, span: Duration) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            from: WallTime(now.0.saturating_sub(ms(BACKDATED))),
            until: WallTime(now.0.saturating_add(ms(span))),
        }
    }
}

/// The certificate authority of one federation, with its key.
pub struct Authority {
    federation: FederationId,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    key: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The identity in the certificate.
    pub principal: Principal,
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// Mints a federation id and makes its authority.
    ///
    /// # Errors
    ///
    /// [`PkiError::Make`].
    pub fn mint(validity: Validity) -> Result<Self, PkiError> {
        Self::mint_for(FederationId(entropy::identity()), validity)
    }

    /// Makes another authority for a federation id, as a forger would. Where the first one is trusted, its certificates
    /// are refused.
    ///
    /// # Errors
    ///
    /// As [`Authority::mint`].
    pub fn mint_for(federation: FederationId, validity: Validity) -> Result<Self, PkiError> {
        let mut params = parameters(&format!("continuum federation {federation}"), validity)?;
        params.subject_alt_names = vec![SanType::URI(ca_uri(federation).try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&pair)?.pem();
        let key = pair.serialize_pem();
        Ok(Self { federation, certificate, issuer: Issuer::new(params, pair), key })
    }

    /// Reads the files of [`Authority::save`].
    ///
    /// # Errors
    ///
    /// [`PkiError`] when the files are missing, readable by others, or not an authority's.
    pub fn load(directory: &Path) -> Result<Self, PkiError> {
        let path = directory.join(CA_CERTIFICATE);
        let certificate = regular::read_text(&path, PEM_BYTES_MAX)
            .map_err(|error| PkiError::File { path: path.clone(), error })?;
        let federation = federation_of(&certificate).ok_or_else(|| PkiError::NotAnAuthority {
            path,
            why: "it names no federation".to_owned(),
        })?;
        let path = directory.join(CA_KEY);
        let key = String::from_utf8_lossy(&secret::read(&path)?).into_owned();
        let not_ours = |error: rcgen::Error| PkiError::NotAnAuthority {
            path: path.clone(),
            why: error.to_string(),
        };
        let pair = KeyPair::from_pem(&key).map_err(not_ours)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, pair).map_err(not_ours)?;
        Ok(Self { federation, certificate, issuer, key })
    }

    /// Writes `ca.pem` and `ca.key` (readable by its owner alone) into a directory, which is created when absent.
    ///
    /// # Errors
    ///
    /// [`PkiError::File`]. An existing authority is left alone.
    pub fn save(&self, directory: &Path) -> Result<(), PkiError> {
        let failed = |path: &Path, error| PkiError::File { path: path.to_owned(), error };
        fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        write_pair(
            &directory.join(CA_CERTIFICATE),
            &self.certificate,
            &directory.join(CA_KEY),
            &self.key,
        )
    }

    /// The federation's id.
    #[must_use]
    pub const fn federation(&self) -> FederationId {
        self.federation
    }

    /// The authority's certificate, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a node's certificate. The DNS names and IP addresses are for clients that check them.
    ///
    /// # Errors
    ///
    /// [`PkiError::Name`] for a host that is neither.
    pub fn issue_node(
        &self,
        node: NodeId,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Issued, PkiError> {
        let names = hosts.iter().map(|host| host_name(host)).collect::<Result<Vec<_>, _>>()?;
        self.issue(Role::Node(node), names, validity)
    }

    /// Issues a client's certificate.
    ///
    /// # Errors
    ///
    /// [`PkiError::Name`] for an invalid name.
    pub fn issue_client(&self, name: &str, validity: Validity) -> Result<Issued, PkiError> {
        if !is_client_name(name) {
            return Err(PkiError::Name {
                name: name.to_owned(),
                what: "name of a client",
                hint: "1 to 64 letters, digits, `-`, `_` or `.`",
            });
        }
        self.issue(Role::Client(name.to_owned()), Vec::new(), validity)
    }

    fn issue(
        &self,
        role: Role,
        hosts: Vec<SanType>,
        validity: Validity,
    ) -> Result<Issued, PkiError> {
        let principal = Principal { federation: self.federation, role };
        let (common_name, usages) = match &principal.role {
            Role::Node(node) => (
                format!("node {node}"),
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            ),
            Role::Client(name) => {
                (format!("client {name}"), vec![ExtendedKeyUsagePurpose::ClientAuth])
            }
        };
        let mut params = parameters(&common_name, validity)?;
        params.subject_alt_names = vec![SanType::URI(principal.to_string().try_into()?)];
        params.subject_alt_names.extend(hosts);
        params.extended_key_usages = usages;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&pair, &self.issuer)?.pem();
        Ok(Issued { principal, certificate, key: pair.serialize_pem() })
    }
}

impl Issued {
    /// Writes `<stem>.pem` and `<stem>.key` (readable by its owner alone) into a directory, which is created when
    /// absent.
    ///
    /// # Errors
    ///
    /// [`PkiError::File`]. Nothing is overwritten.
    pub fn save(&self, directory: &Path, stem: &str) -> Result<(PathBuf, PathBuf), PkiError> {
        fs::create_dir_all(directory)
            .map_err(|error| PkiError::File { path: directory.to_owned(), error })?;
        let certificate = directory.join(format!("{stem}.pem"));
        let key = directory.join(format!("{stem}.key"));
        write_pair(&certificate, &self.certificate, &key, &self.key)?;
        Ok((certificate, key))
    }
}

/// Writes the key first: if it exists, nothing is written, and no certificate is left without its key.
fn write_pair(cert: &Path, cert_pem: &str, key: &Path, key_pem: &str) -> Result<(), PkiError> {
    let failed = |path: &Path, error| PkiError::File { path: path.to_owned(), error };
    secret::create(key, key_pem.as_bytes(), true).map_err(|error| failed(key, error))?;
    secret::create(cert, cert_pem.as_bytes(), false).map_err(|error| failed(cert, error))
}

fn parameters(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(validity.from);
    params.not_after = date(validity.until);
    // 127 random bits, so that two certificates of one authority never share a number.
    let mut serial = entropy::identity();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// A certificate cannot hold times past the year 9999.
fn date(wall: WallTime) -> OffsetDateTime {
    let seconds = i64::try_from(wall.0 / 1000).unwrap_or(i64::MAX).min(253_402_300_799);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn host_name(host: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plausible = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*".contains(&b));
    if !plausible {
        return Err(PkiError::Name {
            name: host.to_owned(),
            what: "host name or IP address",
            hint: "give a host without port, such as n1.example or 10.0.0.1",
        });
    }
    Ok(SanType::DnsName(host.to_owned().try_into()?))
}

fn ca_uri(federation: FederationId) -> String {
    format!("spiffe://{federation}")
}

/// The federation that an authority's PEM certificate names.
#[must_use]
pub fn federation_of(certificate_pem: &str) -> Option<FederationId> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut federations = names.value.general_names.iter().filter_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => {
            FederationId::parse(uri.strip_prefix("spiffe://")?)
        }
        _ => None,
    });
    federations.next()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn validity() -> Validity {
        Validity::starting(WallTime(1_700_000_000_000), ISSUED_VALID)
    }

    fn principal_of(issued: &Issued) -> Option<Principal> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate.as_bytes()).unwrap();
        Principal::of_certificate(&pem.contents)
    }

    #[test]
    fn an_authority_loads_from_its_files_and_issues_for_its_federation() {
        let dir = tempfile::tempdir().unwrap();
        let minted = Authority::mint(validity()).unwrap();
        minted.save(dir.path()).unwrap();
        let loaded = Authority::load(dir.path()).unwrap();
        assert_eq!(loaded.federation(), minted.federation());
        let hosts = ["n1.example".to_owned(), "127.0.0.1".to_owned()];
        let node = loaded.issue_node(NodeId([3; 16]), &hosts, validity()).unwrap();
        assert_eq!(principal_of(&node), Some(node.principal.clone()));
        assert_eq!(node.principal.federation, minted.federation());
        let client = loaded.issue_client("ann", validity()).unwrap();
        assert_eq!(principal_of(&client).unwrap().role, Role::Client("ann".to_owned()));
    }

    #[test]
    fn nothing_is_overwritten_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::mint(validity()).unwrap();
        authority.save(dir.path()).unwrap();
        let again = authority.save(dir.path()).unwrap_err();
        assert!(again.to_string().contains("nothing is overwritten"), "{again}");
        let mode = fs::metadata(dir.path().join(CA_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn invalid_names_are_refused() {
        let authority = Authority::mint(validity()).unwrap();
        assert!(authority.issue_client("a b", validity()).is_err());
        let hosts = ["n1:7000".to_owned()];
        assert!(authority.issue_node(NodeId([1; 16]), &hosts, validity()).is_err());
    }
}
