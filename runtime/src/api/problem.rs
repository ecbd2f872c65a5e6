//! Errors as problem+json (RFC 9457): what, why and a hint, and the exit code of the command line for each.
//!
//! One table maps each of the core's reasons, and each error of HTTP itself, to a status and a code. The codes are a
//! contract: scripts match on them, so they are never renamed.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use continuum_core::api::{Bound, Level, Reason, Resource};
use continuum_core::limits::{EXPORTS_MAX, NAMESPACE_NAME_BYTES_MAX, SIBLINGS_MAX};
use serde_json::{Value, json};

use crate::handle::HandleError;

/// One kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Programs match on it.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The exit code of the command line; `--help` lists all.
    pub exit: u8,
    /// A short description for people.
    pub title: &'static str,
}

impl Kind {
    /// Whether the request itself is wrong: such requests are logged. Absent values, conflicts and overload are
    /// ordinary.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        self.exit == 2 || matches!(self.status, 413 | 422) || self.code == UNKNOWN_NAMESPACE.code
    }
}

/// Declares the kinds and the table of all of them.
macro_rules! kinds {
    ($($name:ident = ($code:literal, $status:literal, $exit:literal, $title:literal);)*) => {
        $(
            #[doc = $title]
            pub static $name: Kind = Kind { code: $code, status: $status, exit: $exit, title: $title };
        )*
        /// Every kind of problem.
        pub static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    ABSENT = ("absent", 404, 1, "There is no such value");
    ALREADY_FORMED = ("already_formed", 409, 6, "The node is in a federation already");
    BODY_TIMEOUT = ("body_timeout", 408, 4, "The request's body did not arrive in time");
    BODY_TOO_LARGE = ("body_too_large", 413, 7, "The request's body is too large");
    BUSY = ("busy", 429, 7, "The node is overloaded");
    CONFLICT = ("conflict", 412, 6, "The value is not as expected");
    CROSS_ORIGIN = ("cross_origin", 403, 2, "A page of another origin sent the request");
    DISK_STALLED = ("disk_stalled", 503, 3, "The node's disk takes no write");
    EXPECTATION_FAILED = ("expectation_failed", 417, 2, "The request expects what the node does not do");
    EXPORT_EXPIRED = ("export_expired", 410, 6, "The export is not there any more");
    EXPORTS_BUSY = ("exports_busy", 429, 7, "Other exports of the namespace are under way");
    FEDERATION_EXISTS = ("federation_exists", 409, 6, "A federation of this id exists already");
    FOREIGN_CONTEXT = ("foreign_context", 409, 6, "The context is not one that this federation gave out");
    FOUNDING_UNDECIDED = ("founding_undecided", 409, 6, "Another founding is not decided yet");
    FULL = ("full", 507, 7, "The node is full");
    GROUP_HALTED = ("group_halted", 503, 3, "The group cannot be applied by this build");
    INVALID_NAME = ("invalid_name", 400, 2, "The name is not valid");
    INVALID_REQUEST = ("invalid_request", 400, 2, "The request is not valid");
    KEY_REUSED = ("key_reused", 422, 2, "The idempotency key belongs to another request");
    MALFORMED_JSON = ("malformed_json", 400, 2, "The body is not the expected JSON");
    LEVEL_MISSED = ("level_missed", 504, 10, "The write happened, but missed its level");
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, 2, "The route has no such method");
    NAMESPACE_EXISTS = ("namespace_exists", 409, 6, "A namespace of that name exists");
    NO_LEADER = ("no_leader", 503, 3, "No leader is known");
    NOT_FORMED = ("not_formed", 503, 3, "The node is in no federation");
    NOT_READY = ("not_ready", 503, 3, "The node is not ready to serve");
    OUT_OF_BOUNDS = ("out_of_bounds", 422, 7, "A number or address is outside its bound");
    PARTLY_WRITTEN = ("partly_written", 409, 6, "A part of the batch was written");
    SESSION_EXPIRED = ("session_expired", 409, 6, "The idempotency key is too old");
    STOPPING = ("stopping", 503, 3, "The node is stopping");
    STORE_REPLACED = ("store_replaced", 409, 9, "The node is a member with another disk");
    TOO_MANY_SIBLINGS = ("too_many_siblings", 409, 6, "The value has too many siblings");
    UNEXPECTED_ANSWER = ("unexpected_answer", 500, 8, "The node's answer does not fit the request");
    UNKNOWN_NAMESPACE = ("unknown_namespace", 404, 1, "The federation has no such namespace");
    UNKNOWN_OUTCOME = ("unknown_outcome", 504, 4, "The write may have happened, or may still happen");
    UNKNOWN_ROUTE = ("unknown_route", 404, 2, "There is no such route");
    UNSUPPORTED_MEDIA_TYPE = ("unsupported_media_type", 415, 2, "The body has another media type than the route takes");
    UNSUPPORTED_TRANSFER_CODING = ("unsupported_transfer_coding", 501, 2, "The body has an unknown transfer coding");
    VALUE_TOO_LARGE = ("value_too_large", 413, 7, "A key, value or request is too large");
    VOTER_UNAVAILABLE = ("voter_unavailable", 503, 3, "A named first voter is not available");
    WRONG_CONSISTENCY = ("wrong_consistency", 409, 2, "The namespace has the other consistency");
    WRONG_HOST = ("wrong_host", 421, 2, "The listener does not answer for this host");
}

/// A problem to answer with.
#[derive(Debug)]
pub struct Problem {
    /// Gives the status and the code.
    pub kind: &'static Kind,
    /// The event and its reason.
    pub detail: String,
    /// Advice for the client.
    pub hint: String,
    /// Further members of the body.
    pub more: Vec<(&'static str, Value)>,
    /// Further headers.
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of a kind. Statuses 429 and 503 get a `Retry-After` of one second.
    pub fn new(kind: &'static Kind, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let (more, headers) = (Vec::new(), Vec::new());
        let mut problem = Self { kind, detail: detail.into(), hint: hint.into(), more, headers };
        if matches!(kind.status, 429 | 503) {
            problem.headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        problem
    }

    /// The request is not valid.
    pub fn invalid(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(&INVALID_REQUEST, detail, hint)
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.more.push((name, value));
        self
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Value {
        let kind = self.kind;
        let mut body = json!({
            "type": format!("urn:continuum:problem:{}", kind.code),
            "title": kind.title,
            "status": kind.status,
            "code": kind.code,
            "detail": self.detail,
            "hint": self.hint,
        });
        for (name, value) in &self.more {
            body[*name] = value.clone();
        }
        body
    }

    /// The level that was asked for was not reached, or the outcome is not known.
    #[must_use]
    pub fn unknown(reached: Option<Level>) -> Self {
        let Some(reached) = reached else {
            return Self::new(
                &UNKNOWN_OUTCOME,
                "no answer came in time: the write may have happened, or may still happen",
                "repeat it with the same Idempotency-Key, or read before you write again",
            )
            .with("reached", Value::Null);
        };
        let level = super::token::level(reached);
        Self::new(
            &LEVEL_MISSED,
            format!("the write happened and is {level}; the level that was asked for was not reached in time"),
            "do not repeat it: it goes on to further replicas by itself; see `continuum cluster members`",
        )
        .with("committed", true.into())
        .with("reached", level.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = self.body().to_string();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        self.headers.into_iter().for_each(|(name, value)| drop(headers.insert(name, value)));
        // The metrics count by code, and need not parse the body.
        response.extensions_mut().insert(self.kind);
        response
    }
}

impl From<HandleError> for Problem {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::Busy => {
                Self::new(&BUSY, error.to_string(), "wait a moment and repeat the request")
            }
            HandleError::Silent => {
                Self::new(&NOT_READY, error.to_string(), "see the node's log and its disk")
            }
            HandleError::Stopped => Self::new(&STOPPING, error.to_string(), "ask another node"),
            HandleError::Lost => Self::unknown(None),
        }
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotFormed => Self::new(
                &NOT_FORMED,
                "the node belongs to no federation yet",
                "see /readyz of this node: it says whether to create a federation or to wait for one",
            ),
            Reason::AlreadyFormed => Self::new(
                &ALREADY_FORMED,
                "a federation is created once, on one node",
                "nothing is needed: `continuum cluster status` shows it",
            ),
            Reason::VoterUnavailable { address } => Self::new(
                &VOTER_UNAVAILABLE,
                format!("no node without a federation proved to be at {}", address.0),
                "start that node, or leave it out and let it join later",
            ),
            Reason::FoundingUndecided { founder, address } => Self::new(
                &FOUNDING_UNDECIDED,
                format!("node {founder} at {} began a founding that is not decided", address.0),
                "start that node, or wait until it is decided, and repeat the request; if the disk of that node is \
                 lost for good, stop this node and start it with an empty data directory",
            ),
            Reason::FederationExists { node, address } => Self::new(
                &FEDERATION_EXISTS,
                format!("node {node} at {} is in a federation of this id", address.0),
                "let this node join that federation: name its address in peer.bootstrap and start the node",
            ),
            Reason::NoLeader => Self::new(
                &NO_LEADER,
                "no leader was found in time, or the voters have not confirmed this process; nothing was logged",
                "see `/readyz` and `continuum cluster members`: more than half of the voters must run and reach each \
                 other",
            ),
            Reason::Busy => Self::new(
                &BUSY,
                "the node has reached its bound on requests under way",
                "wait a moment and repeat the request",
            ),
            Reason::StoreReplaced => Self::new(
                &STORE_REPLACED,
                "the node runs at this moment with another data directory than the one that asks",
                "run only one process of a node; stop the one whose data directory is not wanted",
            ),
            Reason::Full { what } => full(what),
            Reason::ExportExpired => export_expired(),
            Reason::ExportsBusy => exports_busy(),
            Reason::DiskStalled => disk_stalled(),
            Reason::Stopping => {
                Self::new(&STOPPING, "the node is stopping, or fenced", "ask another node")
            }
            Reason::GroupHalted { group, index } => Self::new(
                &GROUP_HALTED,
                format!("entry {index} of group {group} cannot be applied by this build"),
                "start this node with the newest version that any node runs; nothing is lost until then",
            )
            .with("group", group.0.into())
            .with("index", index.0.into()),
            refused @ (Reason::UnknownNamespace
            | Reason::NamespaceExists
            | Reason::InvalidName
            | Reason::WrongConsistency
            | Reason::OutOfBounds { .. }
            | Reason::Conflict { .. }
            | Reason::ForeignContext
            | Reason::TooManySiblings
            | Reason::SessionExpired
            | Reason::SessionReused) => refused_write(refused),
        }
    }
}

/// The reasons that lie in the request, not in the node.
fn refused_write(reason: Reason) -> Problem {
    match reason {
        Reason::UnknownNamespace => Problem::new(
            &UNKNOWN_NAMESPACE,
            "the federation's registry does not list it",
            "see `continuum ns list`, or create it with `continuum ns create NAME --consistency strong|eventual`",
        ),
        Reason::NamespaceExists => Problem::new(
            &NAMESPACE_EXISTS,
            "names of namespaces are unique in a federation",
            "use it, choose another name, or delete it first with `continuum ns delete`",
        ),
        Reason::InvalidName => Problem::new(
            &INVALID_NAME,
            "the name has a character or a length that is not allowed",
            format!(
                "use 1 to {NAMESPACE_NAME_BYTES_MAX} of a-z, 0-9, `-`, `_`, `.`, starting with a letter"
            ),
        ),
        Reason::WrongConsistency => Problem::new(
            &WRONG_CONSISTENCY,
            "compare-and-set needs a strong namespace; sets, counters and records need an eventual one",
            "see `continuum ns list`, and use a namespace of the other consistency",
        ),
        Reason::Conflict { revision, .. } => Problem::new(
            &CONFLICT,
            revision.map_or_else(
                || "the key has no value".into(),
                |revision| format!("the key is at revision {revision}"),
            ),
            "read it again, and repeat the write with what you read",
        )
        .with("revision", revision.map_or(Value::Null, |revision| revision.0.into())),
        Reason::ForeignContext => Problem::new(
            &FOREIGN_CONTEXT,
            "no node of this federation gave out the context for this key, or the key that seals contexts was \
             replaced twice since",
            "read the key again, and write with the context of that read",
        ),
        Reason::TooManySiblings => Problem::new(
            &TOO_MANY_SIBLINGS,
            format!("the register has {SIBLINGS_MAX} concurrent values, which is the bound"),
            "read it, choose or merge, and write with the context of that read",
        ),
        Reason::SessionExpired => Problem::new(
            &SESSION_EXPIRED,
            "this try did nothing: the outcome of an earlier one with this key is forgotten, a later number of the \
             session was used, or the session did not begin with the number 0",
            "read before you write again, then use a new Idempotency-Key; its numbers begin with 0",
        ),
        Reason::SessionReused => Problem::new(
            &KEY_REUSED,
            "a request with another method, path or body has this Idempotency-Key; this one did nothing",
            "draw a new Idempotency-Key for each write, and repeat one only with the very same request",
        ),
        Reason::OutOfBounds { what, limit } => out_of_bounds(what, limit),
        node => Problem::new(
            &UNEXPECTED_ANSWER,
            format!("{node:?}"),
            "ask another node, and report this",
        ),
    }
}

fn out_of_bounds(what: Bound, limit: u64) -> Problem {
    let (kind, name, unit) = match what {
        Bound::Key => (&VALUE_TOO_LARGE, "the key", "bytes"),
        Bound::Field => (&VALUE_TOO_LARGE, "the field's name", "bytes"),
        Bound::Value => (&VALUE_TOO_LARGE, "the value", "bytes"),
        Bound::Request => (&VALUE_TOO_LARGE, "the request", "bytes"),
        Bound::Edits => (&VALUE_TOO_LARGE, "the number of edits of one key", "edits"),
        Bound::Mutations => (&VALUE_TOO_LARGE, "the number of writes of one request", "writes"),
        Bound::Slots => (&OUT_OF_BOUNDS, "the number of slots", "slots"),
        Bound::Address => (&OUT_OF_BOUNDS, "the address", "bytes"),
        Bound::Counter => (&OUT_OF_BOUNDS, "the counter", "in size"),
        Bound::Stamp => (&OUT_OF_BOUNDS, "the stamp of what the write supersedes", "in size"),
        Bound::Replicas => {
            let detail =
                format!("the write was to be on {limit} other disks at most; nothing was written");
            return Problem::new(
                &OUT_OF_BOUNDS,
                detail,
                "ask for no more replicas than there are: see `continuum cluster members`",
            )
            .with("limit", limit.into());
        }
        Bound::Voters => (&OUT_OF_BOUNDS, "the number of first voters", "voters"),
    };
    let detail = format!("{name} is outside its bound of {limit} {unit}");
    Problem::new(kind, detail, "make it smaller, or split it").with("limit", limit.into())
}

fn export_expired() -> Problem {
    let why = "nobody read on for a minute, too much was written meanwhile, a snapshot of another node came, or \
               another process began it";
    let hint =
        "begin it again without the cursor, and ask one node for all pages, without long pauses";
    Problem::new(&EXPORT_EXPIRED, why, hint)
}

fn exports_busy() -> Problem {
    let why = format!("{EXPORTS_MAX} exports of the namespace are under way on this node");
    Problem::new(&EXPORTS_BUSY, why, "repeat it once one of them has ended, or ask another node")
}

fn disk_stalled() -> Problem {
    let hint = "ask another node; this one resumes by itself when its disk does";
    Problem::new(&DISK_STALLED, "the node's disk takes no write; nothing was written", hint)
}

fn full(what: Resource) -> Problem {
    let (name, hint) = match what {
        Resource::Disk => ("disk", "free space on the node's disk; the node resumes by itself"),
        Resource::Memory => (
            "memory for keys and values",
            "delete what is not needed, or raise core.node.memory_bytes_max",
        ),
        Resource::Namespaces => ("table of namespaces", "delete one that is not needed"),
        Resource::Members => ("table of members", "remove one that is gone"),
    };
    Problem::new(&FULL, format!("the {name} is full"), hint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use continuum_core::id::{Address, GroupId, Index, NodeId};

    use super::*;

    /// Every reason once. The compiler checks that each has a match arm of its own.
    fn reasons() -> Vec<Reason> {
        vec![
            Reason::NotFormed,
            Reason::AlreadyFormed,
            Reason::VoterUnavailable { address: Address("a:1".into()) },
            Reason::StoreReplaced,
            Reason::FoundingUndecided { founder: NodeId([1; 16]), address: Address("a:1".into()) },
            Reason::FederationExists { node: NodeId([1; 16]), address: Address("a:1".into()) },
            Reason::UnknownNamespace,
            Reason::NamespaceExists,
            Reason::InvalidName,
            Reason::WrongConsistency,
            Reason::OutOfBounds { what: Bound::Value, limit: 7 },
            Reason::OutOfBounds { what: Bound::Slots, limit: 7 },
            Reason::Conflict { revision: Some(Index(3)), at: 0 },
            Reason::ForeignContext,
            Reason::TooManySiblings,
            Reason::SessionExpired,
            Reason::SessionReused,
            Reason::NoLeader,
            Reason::Busy,
            Reason::Full { what: Resource::Disk },
            Reason::DiskStalled,
            Reason::Stopping,
            Reason::GroupHalted { group: GroupId(3), index: Index(7) },
            Reason::ExportExpired,
            Reason::ExportsBusy,
        ]
    }

    #[test]
    fn every_reason_has_its_own_problem() {
        let problems: Vec<Problem> = reasons().into_iter().map(Problem::from).collect();
        let codes: BTreeSet<&str> = problems.iter().map(|problem| problem.kind.code).collect();
        assert_eq!(codes.len(), problems.len(), "{codes:?}");
        assert!(!codes.contains(UNEXPECTED_ANSWER.code));
        assert!(
            problems.iter().all(|problem| !problem.hint.is_empty() && !problem.detail.is_empty())
        );
    }

    #[test]
    fn codes_are_unique_and_lower_case() {
        let codes: BTreeSet<&str> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), KINDS.len());
        assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn statuses_are_errors_and_exits_are_documented() {
        for kind in KINDS {
            assert!((400..600).contains(&kind.status), "{}", kind.code);
            assert!((1..=10).contains(&kind.exit), "{}", kind.code);
        }
    }

    #[test]
    fn overload_says_when_to_retry() {
        let response = Problem::from(HandleError::Busy).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_lost_write_is_unknown_and_not_failed() {
        assert_eq!(Problem::from(HandleError::Lost).kind, &UNKNOWN_OUTCOME);
        let body = Problem::unknown(Some(Level::Durable)).body();
        assert_eq!((&body["status"], &body["code"]), (&504.into(), &"level_missed".into()));
        assert_eq!(body["committed"], true);
        assert_eq!(body["reached"], "durable");
    }
}
