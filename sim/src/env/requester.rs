//! Names for those who wait for a reply: a client's attempt, the operators, a probe, a churn request.
//!
//! A process keeps one for each open request. This module does not say what they ask or how they retry; `workload`
//! does.

/// One request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) client: usize,
    /// The operation's index among the client's operations.
    pub(crate) op_index: u64,
    /// The operation's number in the history.
    pub(crate) operation: usize,
    pub(crate) number: u32,
}

/// One request of a churn client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChurnRequest {
    /// The fault that added the churn client.
    pub(crate) fault: usize,
    /// The number of the request, counted per client.
    pub(crate) number: u64,
}

/// The one who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A client.
    Client(Attempt),
    /// The operator, who sets up the federation.
    Operator,
    /// Another operator, who founds a federation beside.
    Rival,
    /// The probe that the operator sends after healing.
    Probe,
    /// A churn client.
    Churn(ChurnRequest),
    /// A hostile client, which does not care for the answer.
    Hostile,
}
