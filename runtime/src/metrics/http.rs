//! Metrics of the HTTP API.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Metrics of the HTTP API.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    problems: Family<ProblemLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: &'static str,
    /// The hundreds of the status alone, so that the series stay few.
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    code: &'static str,
}

/// Bucket bounds in seconds: from a read in memory to a write that waits for its timeout.
pub(super) const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            problems: Family::default(),
        }
    }
}

impl HttpMetrics {
    /// Registers the families; their names follow the registry's prefix.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "HTTP requests answered", self.requests.clone());
        let help = "Time to answer an HTTP request";
        let seconds = self.seconds.clone();
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, seconds);
        registry.register("http_problems", "HTTP problems, by code", self.problems.clone());
    }

    /// The routes and codes that there are: their counts are shown from the start, so that no first event is missed.
    pub(crate) fn know(
        &self,
        routes: impl Iterator<Item = (&'static str, &'static str)>,
        codes: impl Iterator<Item = &'static str>,
    ) {
        for (method, route) in routes {
            drop(self.requests.get_or_create(&RequestLabels { method, route, status: 200 }));
            let class = class(200);
            drop(self.seconds.get_or_create(&RouteLabels { method, route, class }));
        }
        codes.for_each(|code| drop(self.problems.get_or_create(&ProblemLabels { code })));
    }

    /// A request was answered after this many seconds.
    pub(crate) fn answered(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        seconds: f64,
    ) {
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
        let class = class(status);
        self.seconds.get_or_create(&RouteLabels { method, route, class }).observe(seconds);
    }

    /// An answer was a problem with this code.
    pub(crate) fn problem(&self, code: &'static str) {
        self.problems.get_or_create(&ProblemLabels { code }).inc();
    }
}

/// The class of a status, as it is commonly written.
const fn class(status: u16) -> &'static str {
    match status {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}
