//! Where a request comes from: browsers are kept from carrying the requests of other pages to a node.
//!
//! A browser sends requests of any page to any address, a node on its own machine included, and a name that a page's
//! owner controls may lead there (DNS rebinding). So a plain listener answers only for loopback addresses, `localhost`
//! and the names of `api.hosts`. A request that a page of another origin sent is refused on every listener (Fetch, and
//! Fetch Metadata). Programs that are no browsers send neither header. This module authenticates nobody.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Version, header};

use super::problem::{CROSS_ORIGIN, Problem, WRONG_HOST};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The hosts for which a listener answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any: TLS proves to each side which one it speaks with.
    Any,
    /// Loopback addresses, `localhost` and these names.
    Local(Vec<String>),
}

impl Hosts {
    fn has(&self, host: &str) -> bool {
        let Self::Local(names) = self else { return true };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_loopback =
            address.unwrap_or(host).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_named = |name: &String| name.eq_ignore_ascii_case(host);
        is_loopback || host.eq_ignore_ascii_case("localhost") || names.iter().any(is_named)
    }
}

/// Refuses a request that was meant for another host, or that a page of another origin sent.
///
/// # Errors
///
/// The problem to answer with.
pub(super) fn check(hosts: &Hosts, parts: &Parts) -> Result<(), Problem> {
    let authority = authority(parts)?;
    if let Some(authority) = &authority
        && !hosts.has(host_of(authority))
    {
        return Err(Problem::new(
            &WRONG_HOST,
            format!("this listener does not answer for the host {}", shown(authority)),
            "use 127.0.0.1, [::1] or localhost, or add the name to api.hosts",
        ));
    }
    if is_of_another_page(&parts.headers, authority.as_deref()) {
        return Err(Problem::new(
            &CROSS_ORIGIN,
            "a page of another origin sent the request",
            "send it from a program that is no browser, or from a page of this address",
        ));
    }
    Ok(())
}

/// The host and port for which the request was meant: of its target, else of its header (RFC 9112, 3.2). HTTP/1.0 has
/// neither, and no browser sends it.
fn authority(parts: &Parts) -> Result<Option<String>, Problem> {
    let mut named = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (named.next(), named.next());
    let is_needed = parts.version >= Version::HTTP_11;
    if second.is_some() || (first.is_none() && is_needed) {
        return Err(Problem::invalid(
            "the request has not exactly one Host",
            "send one header Host (RFC 9112, 3.2)",
        ));
    }
    if let Some(target) = parts.uri.authority() {
        return Ok(Some(target.as_str().to_owned()));
    }
    let text = first.map(|host| host.to_str().map(str::to_owned)).transpose();
    text.map_err(|_| Problem::invalid("the header Host is not ASCII", "send visible ASCII only"))
}

/// The host of `host:port`; an IPv6 address keeps its brackets. A text that is no port stays with the host, so that no
/// listener answers for it.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether a browser says that a page of another origin sent the request. Another port is another origin.
fn is_of_another_page(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let sites = headers.get_all(FETCH_SITE);
    let is_foreign = sites.iter().any(|site| site != "same-origin" && site != "none");
    let is_ours = |origin: &str| {
        let (_, of_page) = origin.split_once("://").unwrap_or(("", origin));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(of_page))
    };
    let origins = headers.get_all(header::ORIGIN);
    is_foreign || origins.iter().any(|origin| !origin.to_str().is_ok_and(is_ours))
}

/// A host in an error: bounded, and without control characters.
fn shown(authority: &str) -> String {
    authority.chars().take(100).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    /// The code of the problem of a request with these headers; empty when it is served.
    fn code(hosts: &Hosts, target: &str, headers: &[(&str, &str)]) -> &'static str {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        check(hosts, &parts).err().map_or("", |problem| problem.kind.code)
    }

    fn local(headers: &[(&str, &str)]) -> &'static str {
        code(&Hosts::Local(vec!["node.home".into()]), "/v1/status", headers)
    }

    #[test]
    fn a_plain_listener_answers_for_loopback_and_named_hosts_only() {
        for host in
            ["127.0.0.1:7401", "127.8.9.1", "[::1]:7401", "[::1]", "LOCALHOST:1", "node.home:7401"]
        {
            assert_eq!(local(&[("host", host)]), "", "{host}");
        }
        for host in [
            "evil.example:7401",
            "10.0.0.1:7401",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "127.0.0.1:80@evil.example",
            "localhost:evil.example",
            "evil.example:1:127.0.0.1",
            "[::1].evil.example",
            "0.0.0.0:7401",
            "node.home.",
            "",
        ] {
            assert_eq!(local(&[("host", host)]), "wrong_host", "{host}");
        }
        assert_eq!(code(&Hosts::Any, "/livez", &[("host", "node7.example:7401")]), "");
    }

    #[test]
    fn a_request_has_one_host_and_its_target_counts_first() {
        assert_eq!(local(&[]), "invalid_request");
        assert_eq!(local(&[("host", "localhost"), ("host", "localhost")]), "invalid_request");
        let hosts = Hosts::Local(Vec::new());
        let target = "http://evil.example/v1/status";
        assert_eq!(code(&hosts, target, &[("host", "localhost")]), "wrong_host");
    }

    #[test]
    fn a_page_of_another_origin_is_refused_on_every_listener() {
        let host = ("host", "127.0.0.1:7401");
        let sends = |name, value| {
            let one = code(&Hosts::Any, "/v1/status", &[host, (name, value)]);
            assert_eq!(one, local(&[host, (name, value)]));
            one
        };
        assert_eq!(sends("origin", "http://127.0.0.1:7401"), "");
        assert_eq!(sends("sec-fetch-site", "same-origin"), "");
        assert_eq!(sends("sec-fetch-site", "none"), "");
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:3000",
            "http://127.0.0.1",
            "http://localhost:7401",
            "",
        ] {
            assert_eq!(sends("origin", origin), "cross_origin", "{origin}");
        }
        for site in ["cross-site", "same-site", "other", ""] {
            assert_eq!(sends("sec-fetch-site", site), "cross_origin", "{site}");
        }
    }
}
