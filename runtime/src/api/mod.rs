//! The HTTP API: JSON under `/v1`, metrics and probes, on top of the [`Handle`] to the driver.
//!
//! One table, [`ROUTES`], makes the router and the documentation test. A route turns one HTTP request into one request
//! of the core, and its outcome into one answer. It decides no protocol question, keeps no state and retries nothing.
//! Every error is problem+json, including those of unknown routes and wrong methods.

mod batch;
mod body;
mod budget;
mod call;
pub mod conditions;
pub mod connections;
mod guard;
mod head;
mod heavy;
#[cfg(test)]
mod http_tests;
pub mod input;
pub mod json;
pub mod media;
pub mod origin;
pub mod output;
mod pages;
mod probes;
pub mod problem;
mod routes;
pub mod serve;
mod strict;
#[cfg(test)]
mod tests;
pub mod token;
pub mod uri;
#[cfg(test)]
mod wire_tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use hyper::body::Body as _;
use tokio::sync::Semaphore;

use crate::handle::Handle;
use crate::log;
use crate::metrics::Metrics;
use budget::Budget;
use call::Call;
use continuum_core::limits::KEY_BYTES_MAX;
use guard::Progress;
use origin::Hosts;
use problem::{BUSY, Kind, METHOD_NOT_ALLOWED, Problem, UNKNOWN_ROUTE};

/// Large bodies that are parsed at once.
const PARSED_AT_ONCE: usize = 1;

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
    GET "/v1/namespaces/{namespace}/keys" Keys "keys in order, a page at a time, or with `count=true` how many";
    GET "/v1/namespaces/{namespace}/kv/{key}" Get "read a value; raw with Accept: application/octet-stream";
    PUT "/v1/namespaces/{namespace}/kv/{key}" Put "set a value: the body, whatever its media type";
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
    bodies: Budget,
    answers: Budget,
    /// Turns at parsing a large body, and at making a large answer.
    turns: Arc<Semaphore>,
    hosts: Hosts,
}

/// The facts about a request that only its connection knows.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Its head declared the body's length in two ways.
    is_ambiguous: bool,
    /// It came by the reserve for probes.
    is_reserve: bool,
    progress: Arc<Progress>,
}

impl Api {
    /// An API over a handle, for requests that are meant for these hosts. It counts requests in `metrics`, and renders
    /// them.
    #[must_use]
    pub fn new(handle: Handle, metrics: Arc<Metrics>, hosts: Hosts) -> Self {
        let routes = ROUTES.iter().map(|route| (route.method, route.path));
        metrics.http().know(routes, problem::KINDS.iter().map(|kind| kind.code));
        let (bodies, answers) = (Budget::new(), Budget::new());
        let turns = Arc::new(Semaphore::new(PARSED_AT_ONCE));
        Self { handle, metrics, bodies, answers, turns, hosts }
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

/// Refuses what a browser carries here from elsewhere, and what the connection cannot take, on every path. Of what is
/// answered, no cache keeps anything, and no browser guesses another media type.
async fn checked(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let arrival = parts.extensions.get::<Arrival>().cloned();
    let has_no_body = body.is_end_stream();
    let checked = origin::check(&api.hosts, &parts)
        .and_then(|()| arrival.as_ref().map_or(Ok(()), |arrival| arrival.check(&parts)));
    let mut response = match checked {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => refuse(&api, "any route", problem),
    };
    if let Some(arrival) = &arrival {
        let is_whole = has_no_body || arrival.progress.is_read();
        arrival.progress.read(is_whole);
        if !is_whole || arrival.is_reserve {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response = match budget::charged(&api.answers, response).await {
        Ok(response) => response,
        Err(problem) => refuse(&api, "any route", problem),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn refuse(api: &Api, path: &str, problem: Problem) -> Response {
    let response = problem.into_response();
    count_problem(api, path, &response);
    response
}

/// Answered also when all connections are taken.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

impl Arrival {
    fn check(&self, parts: &Parts) -> Result<(), Problem> {
        if self.is_ambiguous {
            return Err(Problem::invalid(
                "the head has both Content-Length and Transfer-Encoding",
                "send one of them (RFC 9112, 6.3)",
            ));
        }
        if self.is_reserve && !PROBES.contains(&parts.uri.path()) {
            return Err(Problem::new(
                &BUSY,
                "the node has reached its bound on open connections, or on those of your address",
                "close connections that are not used, or raise api.connections_of_address_max",
            ));
        }
        Ok(())
    }
}

/// All methods of a path, and the problem for any other method.
fn methods(path: &'static str) -> MethodRouter<Arc<Api>> {
    let mut methods = MethodRouter::new();
    for route in ROUTES.iter().filter(|route| route.path == path) {
        let answer =
            move |State(api): State<Arc<Api>>, request: Request| answer(api, route, request);
        methods = methods.merge(on(filter(route.method), answer));
    }
    let refuse = move |State(api): State<Arc<Api>>, method: Method| async move {
        if method == Method::OPTIONS { options(path) } else { wrong_method(&api, path) }
    };
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
    let arrival = request.extensions().get::<Arrival>().cloned();
    let read = Call::read(&api, request).await;
    if let Some(arrival) = arrival.filter(|_| read.is_ok()) {
        arrival.progress.read(true);
    }
    let result = match read {
        Ok(call) => routes::perform(&api, route.operation, call).await,
        Err(problem) => Err(problem),
    };
    let response = result.unwrap_or_else(IntoResponse::into_response);
    count(&api, route, &response, begun.elapsed().as_secs_f64());
    response
}

/// The methods of a path. HEAD comes with GET, and OPTIONS with all.
fn allowed(path: &str) -> String {
    let routes = ROUTES.iter().filter(|route| route.path == path);
    let mut methods: Vec<&str> = routes.map(|route| route.method).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    methods.join(", ")
}

/// The answer that names the methods of a path.
fn options(path: &'static str) -> Response {
    with_allowed(&allowed(path))
}

fn with_allowed(methods: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(allowed) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn wrong_method(api: &Api, path: &'static str) -> Response {
    let allowed = allowed(path);
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

/// Whether a path is that of a key, without the key.
fn lacks_key(path: &str) -> bool {
    let mut parts = path.split('/');
    let is_namespaces = parts.next() == Some("") && parts.next() == Some("v1");
    let is_named = is_namespaces && parts.next() == Some("namespaces") && parts.next().is_some();
    let is_keyed = matches!(parts.next(), Some("kv" | "cas" | "sets" | "counters" | "records"));
    is_named && is_keyed && matches!(parts.next(), None | Some("")) && parts.next().is_none()
}

async fn unknown_route(State(api): State<Arc<Api>>, request: Request) -> Response {
    let mut path = request.uri().path().to_owned();
    if request.method() == Method::OPTIONS && path == "*" {
        return with_allowed("GET, PUT, POST, DELETE, HEAD, OPTIONS");
    }
    path.truncate(path.floor_char_boundary(200));
    let problem = if lacks_key(&path) {
        Problem::invalid(
            format!("the key is empty: a key has 1 to {KEY_BYTES_MAX} bytes"),
            "name the key after the last `/`; send the keys `.` and `..` in a batch, since clients take them out of \
             paths",
        )
    } else {
        let hint = "see the table of routes in runtime/README.md; encode a `/` in a key as %2F, and send the keys `.` \
                    and `..` in a batch, since clients take them out of paths";
        Problem::new(&UNKNOWN_ROUTE, format!("no route is at {path}"), hint)
    };
    let response = problem.into_response();
    count_problem(&api, "no route", &response);
    response
}
