//! An attacker: a client that speaks the protocol of peers with a real certificate, and says what it likes.
//!
//! It may be a stranger (a certificate that never joined), a learner (it joins, then misbehaves) or a voter (the
//! certificate, the store and the next boot of a voter that is down). It keeps no promise and no state.

pub(crate) mod forge;
pub(crate) mod link;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use continuum_core::api::{Outcome, Request, Value};
use continuum_core::id::{Address, AskId, Boot, FederationId, Lineage, NodeId, Replica, StoreId};
use continuum_core::node::{Message, Plane};
use continuum_runtime::clock::SystemClock;
use continuum_runtime::entropy;
use continuum_runtime::tls::Credentials;
use continuum_runtime::tls::pki::Issued;
use rustls::ClientConfig;

use crate::federation::{Node, Nodes, validity};
use crate::row::Check;
use link::Link;

/// The identity that an attacker shows.
#[derive(Clone, Debug)]
pub(crate) struct Attacker {
    pub(crate) federation: FederationId,
    pub(crate) me: Replica,
    pub(crate) boot: Boot,
    /// The boots of the store before.
    pub(crate) lineage: Lineage,
    /// The name and the address that it claims to have.
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) tls: Arc<ClientConfig>,
}

/// Random bits of 64.
fn nonce() -> u64 {
    let (low, _) =
        entropy::identity().split_first_chunk().map(|(low, rest)| (*low, rest)).expect("16 bytes");
    u64::from_be_bytes(low)
}

impl Attacker {
    fn new(nodes: &Nodes, node: NodeId, store: StoreId, boot: Boot, issued: &Issued) -> Self {
        let (ca, certificate) = (nodes.authority.certificate(), issued.certificate.as_bytes());
        let credentials = Credentials::from_pem(ca.as_bytes(), certificate, issued.key.as_bytes());
        let tls = credentials.expect("credentials").peer_client(Arc::new(SystemClock));
        let tls = tls.expect("a configuration");
        // A port on which nothing listens.
        let (name, address) = ("attacker".into(), Address("127.0.0.1:9".into()));
        let me = Replica { node, store };
        let lineage = Lineage::default();
        Self { federation: nodes.federation(), me, boot, lineage, name, address, tls }
    }

    /// A certificate that never joined, with a new store.
    pub(crate) fn stranger(nodes: &Nodes) -> Self {
        let node = NodeId(entropy::identity());
        let issued = nodes.authority.issue_node(node, &[], validity()).expect("a certificate");
        let boot = Boot { count: 1, nonce: nonce() };
        Self::new(nodes, node, StoreId(entropy::identity()), boot, &issued)
    }

    /// The identity of a voter that is down: its certificate, its store, and the boot after its last one.
    pub(crate) fn voter(nodes: &Nodes, node: &Node, store: StoreId, last: Boot) -> Self {
        let boot = Boot { count: last.count + 1, nonce: nonce() };
        let lineage = Lineage::default().after(last);
        Self { lineage, ..Self::new(nodes, node.id, store, boot, &node.issued) }
    }

    /// Opens both planes of a link to a node.
    pub(crate) fn link(&self, to: SocketAddr) -> Check<Link> {
        Link::open(self, to).map_err(|error| format!("no link to {to}: {error}"))
    }

    /// A request to join under this attacker's own name.
    pub(crate) fn request_to_join(&self) -> Request {
        let (replica, name, address) = (self.me, self.name.clone(), self.address.clone());
        Request::Join { replica, address, name, genesis: None }
    }

    /// A forwarded request of this process.
    pub(crate) const fn forward(&self, number: u64, request: Request) -> Message {
        let id = AskId { nonce: self.boot.nonce, number };
        Message::Forward { id, open: 0, request }
    }

    /// Joins as a learner through any of these nodes. Returns the links to all of them.
    pub(crate) fn join(&self, to: &[SocketAddr]) -> Check<Vec<Link>> {
        let mut links = to.iter().map(|to| self.link(*to)).collect::<Check<Vec<_>>>()?;
        for attempt in 0..20 {
            let at = attempt as usize % links.len();
            let id = AskId { nonce: self.boot.nonce, number: 1000 + attempt };
            let ask = self.forward(id.number, self.request_to_join());
            links[at].send(Plane::Control, &ask).map_err(|error| error.to_string())?;
            let joined = links[at].await_message(Duration::from_secs(3), |message| {
                let answer = matches!(message, Message::Answer { id: found, .. } if *found == id);
                let is_joined = matches!(
                    message,
                    Message::Answer { outcome: Outcome::Value(Value::Joined(_)), .. }
                );
                answer.then_some(is_joined)
            });
            if joined == Some(true) {
                return Ok(links);
            }
            links.iter_mut().for_each(Link::keep_alive);
        }
        Err("the attacker was not let in".into())
    }
}
