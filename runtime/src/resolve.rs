//! Finds addresses of nodes: the operator's list, with host names resolved by the system.
//!
//! This module does not check which node answers at an address; the core has each one verified.

use std::future::Future;

use continuum_core::id::{Address, Contact};

/// Addresses taken from one host name; more than a node can use.
const PER_NAME_MAX: usize = 64;

/// Turns the operator's list into addresses.
pub trait Resolver: Clone + Send + Sync + 'static {
    /// The current addresses of all names. A name without an address adds nothing.
    fn resolve(&self, names: Vec<String>) -> impl Future<Output = Vec<Contact>> + Send;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    async fn resolve(&self, names: Vec<String>) -> Vec<Contact> {
        let mut found = Vec::new();
        for name in names {
            let Ok(addresses) = tokio::net::lookup_host(&name).await else { continue };
            let mut texts: Vec<String> =
                addresses.take(PER_NAME_MAX).map(|address| address.to_string()).collect();
            // A single address is kept as its name, so that a host that moves is found again.
            if texts.len() == 1 {
                texts = vec![name];
            }
            found.extend(
                texts.into_iter().map(|text| Contact { node: None, address: Address(text) }),
            );
        }
        found.dedup();
        found
    }
}
