//! A patient client of one node, for tests on real and on simulated time: it retries refusals that pass with time.
//!
//! This module does not start nodes.

use std::time::Duration;

use bytes::Bytes;
use continuum_core::api::{
    Change, Edit, Level, Mutation, Outcome, Policy, Query, Reason, Request, Value,
};
use continuum_core::id::Address;
use tokio::time::timeout;

/// Generous: only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node that can be asked.
pub(crate) trait Patient {
    /// Sends the request once; `None` when the node is not running.
    async fn ask_once(&self, request: &Request) -> Option<Outcome>;

    /// Waits before the next attempt.
    async fn pause(&self);

    /// Retries until the outcome is final.
    async fn ask(&self, request: Request) -> Outcome {
        let answered = async {
            loop {
                match self.ask_once(&request).await {
                    Some(outcome) if is_final(&outcome) => return outcome,
                    _ => self.pause().await,
                }
            }
        };
        timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("no answer to {request:?}"))
    }

    /// Creates a federation with these other voters.
    async fn create_federation(&self, voters: Vec<Address>) {
        let outcome = self.ask(Request::Init { voters }).await;
        // An earlier attempt with an unknown outcome may have succeeded.
        let formed = Outcome::Rejected(Reason::AlreadyFormed);
        let founded = outcome == formed || matches!(outcome, Outcome::Value(Value::Initialized));
        assert!(founded, "{outcome:?}");
    }

    /// Creates a namespace.
    async fn create(&self, name: &str, policy: Policy) {
        let name = name.to_owned();
        let outcome = self.ask(Request::CreateNamespace { name, policy, session: None }).await;
        // As above.
        let exists = Outcome::Rejected(Reason::NamespaceExists);
        assert!(outcome == exists || matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }

    /// Sets the register of a key.
    async fn put(&self, namespace: &str, key: &str, value: &str) {
        let change = Change::Put(Bytes::copy_from_slice(value.as_bytes()));
        let edits = vec![Edit { field: Bytes::new(), change }];
        let key = Bytes::copy_from_slice(key.as_bytes());
        let mutations = vec![Mutation { key, edits, context: None }];
        let namespace = namespace.to_owned();
        let level = Level::Durable;
        let outcome = self.ask(Request::Write { namespace, mutations, level, session: None }).await;
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }

    /// Reads the register of a key.
    async fn get(&self, namespace: &str, key: &str) -> Option<Bytes> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let query = Query::Get { key, field: Bytes::new() };
        match self.ask(Request::Read { namespace: namespace.to_owned(), query }).await {
            Outcome::Value(Value::Register(register)) => register.value,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until the value arrives.
    async fn sees(&self, namespace: &str, key: &str, value: &str) {
        let seen = async {
            while self.get(namespace, key).await.as_deref() != Some(value.as_bytes()) {
                self.pause().await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{key} never came"));
    }
}

fn is_final(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Rejected(reason) => !passes(reason),
        Outcome::Unknown { .. } => false,
        _ => true,
    }
}

/// Whether a retry may succeed.
const fn passes(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::NoLeader
            | Reason::NotFormed
            | Reason::Busy
            | Reason::UnknownNamespace
            | Reason::VoterUnavailable { .. }
    )
}
