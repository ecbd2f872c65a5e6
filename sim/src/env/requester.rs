//! Names of those who wait for a reply: a client's attempt, the operator, a probe, a churn request.
//!
//! A process keeps one for each open request. This module does not say what they ask or how they retry: that is the
//! workload's business.

/// One request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) client: usize,
    /// Its place among the client's operations.
    pub(crate) op_index: u64,
    /// Its number in the history.
    pub(crate) operation: usize,
    pub(crate) number: u32,
}

/// One request of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChurnRequest {
    /// The fault that brought the tenant.
    pub(crate) fault: usize,
    /// The number of the request.
    pub(crate) number: u64,
}

/// Who waits for a request's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A client.
    Client(Attempt),
    /// The operator who founds the federation.
    Operator,
    /// The probe after healing.
    Probe,
    /// A tenant.
    Churn(ChurnRequest),
}
