//! Conditions in the head of a request (RFC 9110, 13): which value a write is for, and whether a reader has it already.
//!
//! An entity tag of this API is one of `token`; a raw answer has it with an ending, since its bytes are others than
//! those of the JSON answer. A tag that is none of this API, or a weak one, matches nothing. This module reads no
//! value.

use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use continuum_core::api::Context;

use super::media;
use super::problem::{CONFLICT, Problem};
use super::token::{self, Tag};

/// The header that carries the context of a read.
pub static CONTEXT: HeaderName = HeaderName::from_static("continuum-context");

/// Ends the tag of a raw answer. No tag of `token` has this character.
const RAW: &str = ".raw";

/// The most tags in one list.
const TAGS_MAX: usize = 64;

/// The condition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Write in any case.
    Always,
    /// There is no value.
    Absent,
    /// There is a value.
    Present,
    /// The value has one of these revisions; at least one.
    Revisions(Vec<u64>),
    /// The write follows this read: no condition, but it replaces only what was read.
    After(Context),
}

/// The condition of a write.
///
/// # Errors
///
/// A problem when the headers cannot be read, contradict each other, or when no tag can match.
pub(super) fn of_write(headers: &HeaderMap) -> Result<Condition, Problem> {
    let required = tags(headers, &header::IF_MATCH)?;
    let refused = tags(headers, &header::IF_NONE_MATCH)?;
    let context = context(headers)?;
    match (required, refused, context) {
        (None, None, None) => Ok(Condition::Always),
        (None, None, Some(context)) => Ok(Condition::After(context)),
        (None, Some(Tags::Any), None) => Ok(Condition::Absent),
        (Some(Tags::Any), None, None) => Ok(Condition::Present),
        (Some(Tags::List(list)), None, None) => one_of(&list),
        (None, Some(Tags::List(_)), _) => Err(Problem::invalid(
            "a write has If-None-Match with another text than `*`",
            "use `*`, or If-Match",
        )),
        _ => Err(Problem::invalid(
            "If-Match, If-None-Match and Continuum-Context contradict each other",
            "send one of them",
        )),
    }
}

/// The condition of a list of tags.
fn one_of(list: &[String]) -> Result<Condition, Problem> {
    let known: Vec<Tag> = list.iter().filter_map(|text| read(text)).collect();
    let revisions: Vec<u64> = known
        .iter()
        .filter_map(|tag| if let Tag::Revision(revision) = tag { Some(*revision) } else { None })
        .collect();
    match &known[..] {
        [] => Err(Problem::new(
            &CONFLICT,
            "no entity tag in If-Match is a strong one of this API, so none is the value's",
            "use the ETag of a read, unchanged",
        )),
        [Tag::Context(seen)] => Ok(Condition::After(seen.clone())),
        _ if revisions.len() == known.len() => Ok(Condition::Revisions(revisions)),
        _ => Err(Problem::invalid(
            "If-Match has several tags of an eventual namespace",
            "send the one of your last read",
        )),
    }
}

/// The context of the read that a write follows.
fn context(headers: &HeaderMap) -> Result<Option<Context>, Problem> {
    let mut all = headers.get_all(&CONTEXT).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let read = first.to_str().ok().and_then(token::parse_context);
    match (read, all.next()) {
        (Some(context), None) => Ok(Some(context)),
        _ => Err(Problem::invalid(
            "Continuum-Context is not one context",
            "use the context of a read, unchanged",
        )),
    }
}

/// Whether a reader has the answer with this tag already.
///
/// # Errors
///
/// A problem when `If-None-Match` cannot be read.
pub(super) fn is_known(headers: &HeaderMap, tag: Option<&HeaderValue>) -> Result<bool, Problem> {
    let Some(tag) = tag.and_then(|tag| tag.to_str().ok()) else { return Ok(false) };
    Ok(match tags(headers, &header::IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        // Here a weak tag may match.
        Some(Tags::List(list)) => list.iter().any(|one| one.trim_start_matches("W/") == tag),
    })
}

/// Whether the value is one that a reader asks for: without `If-Match`, any is.
///
/// # Errors
///
/// A problem when `If-Match` cannot be read.
pub(super) fn is_wanted(headers: &HeaderMap, tag: Option<&HeaderValue>) -> Result<bool, Problem> {
    let is_of_value = |one: &String| {
        let tag = tag.and_then(|tag| read(tag.to_str().ok()?));
        tag.is_some() && read(one) == tag
    };
    Ok(match tags(headers, &header::IF_MATCH)? {
        None | Some(Tags::Any) => true,
        Some(Tags::List(list)) => list.iter().any(is_of_value),
    })
}

/// The tag of a raw answer.
pub(super) fn raw_tag(tag: &str) -> String {
    format!("{}{RAW}\"", tag.strip_suffix('"').unwrap_or(tag))
}

/// A strong tag of this API.
fn read(text: &str) -> Option<Tag> {
    let plain = text.strip_suffix('"')?;
    let plain = plain.strip_suffix(RAW).unwrap_or(plain);
    token::parse_tag(&format!("{plain}\""))
}

/// The tags of a header.
enum Tags {
    Any,
    List(Vec<String>),
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let wrong = || {
        let hint = "send `*`, or entity tags in quotes with commas between them";
        Problem::invalid(format!("{name} is not a list of entity tags"), hint)
    };
    let mut list = Vec::new();
    let mut is_any = false;
    for value in headers.get_all(name) {
        let mut rest = value.to_str().map_err(|_| wrong())?.trim();
        while !rest.is_empty() {
            let (tag, after) = first(rest).ok_or_else(wrong)?;
            is_any |= tag == "*";
            list.push(tag.to_owned());
            rest = after;
        }
    }
    let is_present = headers.contains_key(name);
    if (is_present && list.is_empty()) || (is_any && list.len() > 1) || list.len() > TAGS_MAX {
        return Err(wrong());
    }
    Ok(is_present.then_some(if is_any { Tags::Any } else { Tags::List(list) }))
}

/// Splits the first tag from a list.
fn first(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with('*') {
        1
    } else {
        let opened = if text.starts_with("W/\"") { 3 } else { usize::from(text.starts_with('"')) };
        if opened == 0 {
            return None;
        }
        opened + text.get(opened..)?.find('"')? + 1
    };
    let (tag, rest) = text.split_at_checked(end)?;
    let rest = rest.trim_start();
    if rest.is_empty() {
        return Some((tag, rest));
    }
    // Empty elements are allowed (RFC 9110, 5.6.1).
    let after = rest.strip_prefix(',')?;
    Some((tag, after.trim_start_matches([',', ' ', '\t'])))
}

/// Whether a reader prefers the bytes of a value with this media type to JSON that has the value in it.
pub(super) fn wants_raw(headers: &HeaderMap, kind: Option<&str>) -> bool {
    let accepted: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let own = kind.and_then(|kind| kind.split(';').next()).map_or(media::DEFAULT, str::trim);
    let raw = [media::DEFAULT, own].map(|kind| quality(&accepted, kind));
    raw.into_iter().max() > Some(quality(&accepted, "application/json"))
}

/// How much a reader wants a media type, in thousandths; the most specific range counts.
fn quality(accepted: &[&str], kind: &str) -> u32 {
    let mut best = (0, 0);
    let family = kind.split('/').next().unwrap_or_default();
    for range in accepted {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let of_family =
            name.strip_suffix("/*").is_some_and(|name| name.eq_ignore_ascii_case(family));
        let specific = match name {
            "*/*" => 1,
            _ if of_family => 2,
            name if name.eq_ignore_ascii_case(kind) => 3,
            _ => continue,
        };
        let weight =
            parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1000, thousandths);
        if specific > best.0 {
            best = (specific, weight);
        }
    }
    best.1
}

/// A weight such as `0.5`; anything else is 0.
fn thousandths(text: &str) -> u32 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || part.len() > 3 || !digits(part) {
        return 0;
    }
    let whole = u32::from(whole == "1") * 1000;
    let part = format!("{part:0<3}").parse().unwrap_or(0);
    (whole + part).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn of(pairs: &[(&'static str, &str)]) -> Result<Condition, &'static str> {
        of_write(&headers(pairs)).map_err(|problem| problem.kind.code)
    }

    #[test]
    fn a_write_has_one_condition() {
        let seen = Context::from_bytes(bytes::Bytes::from_static(b"sealed"));
        let tag = token::tag(&Tag::Context(seen.clone()));
        let token = token::context(&seen);
        assert_eq!(of(&[]), Ok(Condition::Always));
        assert_eq!(of(&[("if-match", "*")]), Ok(Condition::Present));
        assert_eq!(of(&[("if-none-match", " * ")]), Ok(Condition::Absent));
        assert_eq!(of(&[("if-match", "\"r3\"")]), Ok(Condition::Revisions(vec![3])));
        for list in ["\"r3\", \"r5\"", "\"x\" ,, W/\"r9\",\"r3.raw\",\"r5\""] {
            assert_eq!(of(&[("if-match", list)]), Ok(Condition::Revisions(vec![3, 5])), "{list}");
        }
        let lines = [("if-match", "\"r3\""), ("if-match", "\"r5\"")];
        assert_eq!(of(&lines), Ok(Condition::Revisions(vec![3, 5])));
        assert_eq!(of(&[("if-match", &tag)]), Ok(Condition::After(seen.clone())));
        assert_eq!(of(&[("if-match", &raw_tag(&tag))]), Ok(Condition::After(seen.clone())));
        assert_eq!(of(&[("continuum-context", &token)]), Ok(Condition::After(seen)));
    }

    #[test]
    fn tags_of_others_match_nothing_and_broken_ones_are_no_tags() {
        for foreign in ["\"abc\"", "W/\"r3\"", "\"\"", "\"r\", \"c!\""] {
            assert_eq!(of(&[("if-match", foreign)]), Err("conflict"), "{foreign}");
        }
        for broken in
            ["r3", "", "\"r3", "\"r3\" \"r5\"", "*, \"r3\"", "\"r3\", *", "**", "w/\"r3\""]
        {
            assert_eq!(of(&[("if-match", broken)]), Err("invalid_request"), "{broken}");
        }
        let both = [("if-match", "*"), ("if-none-match", "*")];
        assert_eq!(of(&both), Err("invalid_request"));
        assert_eq!(of(&[("if-none-match", "\"r3\"")]), Err("invalid_request"));
        assert_eq!(of(&[("continuum-context", "!")]), Err("invalid_request"));
        let many = ["\"r3\""; TAGS_MAX + 1].join(",");
        assert_eq!(of(&[("if-match", &many)]), Err("invalid_request"));
    }

    #[test]
    fn a_reader_knows_an_answer_by_its_tag() {
        let known = |value: &str| {
            let tag = HeaderValue::from_static("\"r3\"");
            is_known(&headers(&[("if-none-match", value)]), Some(&tag)).ok()
        };
        assert_eq!(known("\"r3\""), Some(true));
        assert_eq!(known("\"r2\", W/\"r3\""), Some(true));
        assert_eq!(known("*"), Some(true));
        assert_eq!(known("\"r3.raw\""), Some(false));
        assert_eq!(known("r3"), None);
    }

    #[test]
    fn raw_bytes_go_to_those_who_prefer_them() {
        let raw = |value: &str| wants_raw(&headers(&[("accept", value)]), None);
        assert!(raw("application/octet-stream"));
        assert!(raw("application/json;q=0.2, application/octet-stream; q=0.9"));
        assert!(raw("application/octet-stream, */*;q=0.1"));
        assert!(!raw("application/json, application/octet-stream;q=0.1"));
        for other in
            ["", "*/*", "application/*", "text/html", "application/octet-stream;q=0", "*/*;q=7"]
        {
            assert!(!raw(other), "{other}");
        }
        let typed =
            |value: &str| wants_raw(&headers(&[("accept", value)]), Some("image/PNG; q=\"a,b\""));
        for own in ["image/png", "image/*, */*;q=0.5", "application/octet-stream"] {
            assert!(typed(own), "{own}");
        }
        for other in ["*/*", "application/json", "image/jpeg", "image/*, application/json", ""] {
            assert!(!typed(other), "{other}");
        }
        let json = headers(&[("accept", "application/json")]);
        assert!(!wants_raw(&json, Some("application/json")));
    }
}
