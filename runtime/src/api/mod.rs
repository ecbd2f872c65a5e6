//! The HTTP API: JSON under `/v1`, metrics and probes, on top of the [`Handle`] to the driver.
//!
//! One table, [`ROUTES`], makes the router and the documentation test. A route turns one HTTP request into one request
//! of the core, and its outcome into one answer. It decides no protocol question, keeps no state and retries nothing.
//! Every error is problem+json, including those of unknown routes and wrong methods.

mod call;
mod guard;
pub mod input;
pub mod json;
pub mod origin;
pub mod output;
mod probes;
pub mod problem;
mod routes;
pub mod serve;
#[cfg(test)]
mod tests;
pub mod token;
pub mod uri;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use tokio::sync::Semaphore;

use crate::handle::Handle;
use crate::log;
use crate::metrics::Metrics;
use call::Call;
use origin::Hosts;
use problem::{Kind, METHOD_NOT_ALLOWED, Problem, UNKNOWN_ROUTE};

/// Kibibytes of bodies in memory, over all connections. Past it, new bodies are answered with 429.
const BODIES_KIB_MAX: usize = 256 << 10;

/// The operation of a route; [`ROUTES`] says it in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of routes has a summary of each")]
pub enum Operation {
    Live,
    Ready,
    Metrics,
    Status,
    Members,
    Init,
    RotateKey,
    Namespaces,
    CreateNamespace,
    Namespace,
    DeleteNamespace,
    Keys,
    Get,
    Put,
    Delete,
    Cas,
    SetMembers,
    SetChange,
    Count,
    CountAdd,
    Record,
    RecordChange,
    Batch,
    Rows,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path; a part in braces is one percent-encoded segment.
    pub path: &'static str,
    /// Performed for each request.
    pub operation: Operation,
    /// One line for the documentation.
    pub summary: &'static str,
}

/// Declares the table of routes.
macro_rules! routes {
    ($($method:ident $path:literal $operation:ident $summary:literal;)*) => {
        /// Every route of the API.
        pub static ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            operation: Operation::$operation,
            summary: $summary,
        }),*];
    };
}

routes! {
    GET "/livez" Live "200 while the process runs and is not fenced";
    GET "/readyz" Ready "200 when eventual memory is served, with ?strong also strong memory; else 503 and why";
    GET "/metrics" Metrics "metrics in Prometheus' text format, or in OpenMetrics when Accept names it";
    GET "/v1/status" Status "the node's own state: groups, shards, memory";
    GET "/v1/members" Members "the members of the federation and their health, as this node sees them";
    POST "/v1/init" Init "create the federation, once, on one node";
    POST "/v1/rotate-key" RotateKey "replace the key that seals contexts; the one before it stays valid";
    GET "/v1/namespaces" Namespaces "all namespaces, as this node knows them; with ?consistent as the federation does";
    POST "/v1/namespaces" CreateNamespace "create a namespace";
    GET "/v1/namespaces/{namespace}" Namespace "one namespace";
    DELETE "/v1/namespaces/{namespace}" DeleteNamespace "delete a namespace and everything in it";
    GET "/v1/namespaces/{namespace}/keys" Keys "keys in order, a page at a time";
    GET "/v1/namespaces/{namespace}/kv/{key}" Get "read a value; raw with Accept: application/octet-stream";
    PUT "/v1/namespaces/{namespace}/kv/{key}" Put "set a value: the raw body, or JSON with value and context";
    DELETE "/v1/namespaces/{namespace}/kv/{key}" Delete "remove a value; without a field, the whole record";
    POST "/v1/namespaces/{namespace}/cas/{key}" Cas "set or remove a value if it is as expected (strong)";
    GET "/v1/namespaces/{namespace}/sets/{key}" SetMembers "the members of a set (eventual)";
    POST "/v1/namespaces/{namespace}/sets/{key}" SetChange "add members to and remove them from a set (eventual)";
    GET "/v1/namespaces/{namespace}/counters/{key}" Count "the value of a counter (eventual)";
    POST "/v1/namespaces/{namespace}/counters/{key}" CountAdd "add to a counter (eventual)";
    GET "/v1/namespaces/{namespace}/records/{key}" Record "all fields of a key";
    POST "/v1/namespaces/{namespace}/records/{key}" RecordChange "change fields of a key in one atomic write";
    POST "/v1/namespaces/{namespace}/batch" Batch "many writes in one request; all or none in a strong namespace";
    GET "/v1/namespaces/{namespace}/rows" Rows "whole rows as lines of canonical JSON, a page at a time";
}

/// The state that all routes share.
#[derive(Debug)]
pub struct Api {
    handle: Handle,
    metrics: Arc<Metrics>,
    bodies: Arc<Semaphore>,
    hosts: Hosts,
}

impl Api {
    /// An API over a handle, for requests that are meant for these hosts. It counts requests in `metrics`, and renders
    /// them.
    #[must_use]
    pub fn new(handle: Handle, metrics: Arc<Metrics>, hosts: Hosts) -> Self {
        let routes = ROUTES.iter().map(|route| (route.method, route.path));
        metrics.http().know(routes, problem::KINDS.iter().map(|kind| kind.code));
        Self { handle, metrics, bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)), hosts }
    }
}

/// Counts one answered request.
fn count(api: &Api, route: &Route, response: &Response, seconds: f64) {
    api.metrics.http().answered(route.method, route.path, response.status().as_u16(), seconds);
    count_problem(api, route.path, response);
}

/// Counts a problem. Bad input is also logged, by its route alone: a log never holds what is in a request.
fn count_problem(api: &Api, path: &str, response: &Response) {
    let Some(kind) = response.extensions().get::<&'static Kind>() else { return };
    api.metrics.http().problem(kind.code);
    if kind.is_bad_input() {
        log::refused_request(path, kind.code, kind.title);
    }
}

/// The router over all of [`ROUTES`].
pub fn router(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for (at, first) in ROUTES.iter().enumerate() {
        let is_seen = ROUTES[..at].iter().any(|route| route.path == first.path);
        if !is_seen {
            router = router.route(first.path, methods(first.path));
        }
    }
    let check = middleware::from_fn_with_state(Arc::clone(&api), checked);
    router.fallback(unknown_route).layer(check).with_state(api)
}

/// Refuses what a browser carries here from elsewhere, on every path. Of what is answered, no cache keeps anything, and
/// no browser guesses another media type.
async fn checked(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match origin::check(&api.hosts, &parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => {
            let response = problem.into_response();
            count_problem(&api, "any route", &response);
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// All methods of a path, and the problem for any other method.
fn methods(path: &'static str) -> MethodRouter<Arc<Api>> {
    let mut methods = MethodRouter::new();
    for route in ROUTES.iter().filter(|route| route.path == path) {
        let answer =
            move |State(api): State<Arc<Api>>, request: Request| answer(api, route, request);
        methods = methods.merge(on(filter(route.method), answer));
    }
    let refuse = move |State(api): State<Arc<Api>>| async move { wrong_method(&api, path) };
    methods.fallback(refuse)
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "GET" => MethodFilter::GET,
        "PUT" => MethodFilter::PUT,
        "POST" => MethodFilter::POST,
        "DELETE" => MethodFilter::DELETE,
        other => unreachable!("the table of routes has no method {other}"),
    }
}

/// Serves one request on one route.
async fn answer(api: Arc<Api>, route: &'static Route, request: Request) -> Response {
    let begun = tokio::time::Instant::now();
    let result = match Call::read(&api, request).await {
        Ok(call) => routes::perform(&api, route.operation, call).await,
        Err(problem) => Err(problem),
    };
    let response = result.unwrap_or_else(IntoResponse::into_response);
    count(&api, route, &response, begun.elapsed().as_secs_f64());
    response
}

fn wrong_method(api: &Api, path: &'static str) -> Response {
    let allowed = ROUTES.iter().filter(|route| route.path == path).map(|route| route.method);
    let allowed = allowed.collect::<Vec<_>>().join(", ");
    let mut problem = Problem::new(
        &METHOD_NOT_ALLOWED,
        format!("{path} has the methods {allowed}"),
        format!("use one of {allowed}"),
    );
    problem
        .headers
        .extend(HeaderValue::from_str(&allowed).ok().map(|value| (header::ALLOW, value)));
    let response = problem.into_response();
    count_problem(api, path, &response);
    response
}

async fn unknown_route(State(api): State<Arc<Api>>, request: Request) -> Response {
    let mut path = request.uri().path().to_owned();
    path.truncate(path.floor_char_boundary(200));
    let hint = "see the table of routes in runtime/README.md; encode a `/` in a key as %2F";
    let problem = Problem::new(&UNKNOWN_ROUTE, format!("no route is at {path}"), hint);
    let response = problem.into_response();
    count_problem(&api, "no route", &response);
    response
}
