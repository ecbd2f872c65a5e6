//! The users of the federation: clients, the operator, and churn that creates and deletes namespaces.
//!
//! Each decides what it asks next and knows only the replies that it got. The world carries requests and replies, and
//! the oracles judge them; this module does neither.

pub(crate) mod choice;
pub(crate) mod churn;
pub(crate) mod client;
pub(crate) mod history;
pub(crate) mod operator;
