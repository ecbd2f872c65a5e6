//! The users of the federation: clients, the operator, and churn that creates and deletes namespaces.
//!
//! Each decides what it asks next and knows only what it was told. The world carries their requests and replies; the
//! oracles judge them.

pub(crate) mod churn;
pub(crate) mod client;
pub(crate) mod history;
pub(crate) mod operator;
