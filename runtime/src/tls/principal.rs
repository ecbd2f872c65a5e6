//! The identity in a certificate: the SAN URI `spiffe://<federation>/node/<node>` or
//! `spiffe://<federation>/client/<name>`.
//!
//! A certificate without such a URI, or with several, has no identity. Host names and addresses in it are ignored.

use std::fmt;

use continuum_core::id::{FederationId, NodeId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The longest name of a client in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// The holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The federation whose authority issued it.
    pub federation: FederationId,
    /// A node or a client.
    pub role: Role,
}

/// The role of a certificate's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node: it may open peer links.
    Node(NodeId),
    /// A client: it may use the API, but never a peer link.
    Client(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Node(node) => write!(f, "spiffe://{}/node/{node}", self.federation),
            Role::Client(name) => write!(f, "spiffe://{}/client/{name}", self.federation),
        }
    }
}

impl Principal {
    /// Parses exactly the form that [`Principal`] prints; `None` for anything else.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let (federation, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let federation = FederationId::parse(federation)?;
        let role = match path.split_once('/')? {
            ("node", node) => Role::Node(NodeId::parse(node)?),
            ("client", name) if is_client_name(name) => Role::Client(name.to_owned()),
            _ => return None,
        };
        let principal = Self { federation, role };
        // Upper-case digits would give one identity two spellings.
        (principal.to_string() == uri).then_some(principal)
    }

    /// The identity in a DER certificate; `None` when it does not have exactly one.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::parse(uri),
            _ => None,
        }
    }
}

/// Whether a client may have this name: 1 to 64 bytes of letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_printed_form_parses() {
        let federation = FederationId([0xab; 16]);
        for role in [Role::Node(NodeId([7; 16])), Role::Client("ann.laptop".to_owned())] {
            let principal = Principal { federation, role };
            assert_eq!(Principal::parse(&principal.to_string()), Some(principal));
        }
        let hex = "ab".repeat(16);
        for uri in [
            String::new(),
            format!("spiffe://{hex}/node/"),
            format!("spiffe://{hex}/node/{}", "AB".repeat(16)),
            format!("spiffe://{hex}/node/{hex}/"),
            format!("spiffe://{hex}/admin/{hex}"),
            format!("spiffe://{hex}/client/a/b"),
            format!("spiffe://{hex}/client/"),
            format!("https://{hex}/node/{hex}"),
        ] {
            assert_eq!(Principal::parse(&uri), None, "{uri}");
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(Principal::of_certificate(b""), None);
        assert_eq!(Principal::of_certificate(&[0x30; 64]), None);
    }
}
