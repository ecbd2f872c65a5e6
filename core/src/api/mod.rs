//! The API between clients and nodes: requests, outcomes, values, status.
//!
//! These types are the contract of the HTTP API, of forwarding between nodes and of the simulator's clients. Clients
//! name namespaces by name; the node resolves the number. This module holds data only: it does not act.

mod context;
mod outcome;
mod request;
mod status;
mod value;

pub use context::{Context, ContextKeys, Observed, Secret};
pub use outcome::{Before, Bootstrap, Bound, MemberInfo, Outcome, Reason, Receipt, Resource};
pub use request::{
    Change, Edit, Expected, ExportCursor, Fingerprint, Level, Mutation, Policy, Query, Request,
    Session, Strategy,
};
pub use status::{FormedPeer, GroupStatus, ShardStatus, Status, Unready, Warning};
pub use value::{Content, ExportPage, Field, Health, Member, Namespace, Register, Row, Value};
