//! Media types of values: how a value is stored together with the type that it was put with.
//!
//! The core keeps a value as bytes and knows no media types. A value without one is stored as it is. One with a type is
//! stored behind a head: a mark, the length of the type in one byte, the type. So type and value change together, on
//! every path that a value takes: siblings, batches, snapshots, exports. A value without a type that begins with the
//! mark gets a head with an empty type, so every value reads back as it was put. In JSON a value with a type is
//! `{"text": "...", "type": "..."}`, or with `base64` in the place of `text`.
//!
//! Keys, fields and members of sets have no types. This module looks into no value.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::json::JsonBytes;
use super::problem::Problem;

/// Begins a stored value that has a head. No text begins so.
const MARK: &[u8] = b"\xff\x00type";

/// The longest media type; its length is one byte.
const TYPE_BYTES_MAX: usize = u8::MAX as usize;

/// The type of values that were put without one.
pub const DEFAULT: &str = "application/octet-stream";

/// The types that are not stored: the default, and the one that `curl -d` sends whatever it sends.
const SILENT: [&str; 2] = [DEFAULT, "application/x-www-form-urlencoded"];

/// The stored form of a value.
#[must_use]
pub fn stored(kind: Option<&str>, value: Bytes) -> Bytes {
    if kind.is_none() && !value.starts_with(MARK) {
        return value;
    }
    let kind = kind.unwrap_or_default();
    let Ok(length) = u8::try_from(kind.len()) else { return value };
    [MARK, &[length], kind.as_bytes(), &value].concat().into()
}

/// The type of a stored value, and the value itself.
#[must_use]
pub fn split(stored: &Bytes) -> (Option<&str>, Bytes) {
    let whole = (None, stored.clone());
    let Some((&length, rest)) = stored.strip_prefix(MARK).and_then(<[u8]>::split_first) else {
        return whole;
    };
    let Some((kind, value)) = rest.split_at_checked(usize::from(length)) else { return whole };
    match std::str::from_utf8(kind) {
        Ok("") => (None, stored.slice_ref(value)),
        Ok(kind) if is_type(kind) => (Some(kind), stored.slice_ref(value)),
        _ => whole,
    }
}

/// The media type that a request gives its body; `None` when it says nothing.
///
/// # Errors
///
/// A problem when it is not one media type.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let wrong = || {
        let hint = format!("send one, such as text/plain, of at most {TYPE_BYTES_MAX} bytes");
        Problem::invalid("Content-Type is not one media type", hint)
    };
    let kind = first.to_str().map_err(|_| wrong())?.trim();
    if all.next().is_some() || !is_type(kind) {
        return Err(wrong());
    }
    Ok(Some(kind).filter(|kind| !is_silent(kind)).map(ToOwned::to_owned))
}

fn is_silent(kind: &str) -> bool {
    SILENT.iter().any(|silent| kind.eq_ignore_ascii_case(silent))
}

/// Whether a text is a media type (RFC 9110, 8.3.1). Parameters are any visible text.
fn is_type(text: &str) -> bool {
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    let is_token = |part: &str| {
        let is_mark = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
    };
    let named = essence.trim_end().split_once('/');
    text.len() <= TYPE_BYTES_MAX
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && named.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// A stored value in JSON.
struct Typed(Bytes);

impl Serialize for Typed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Some(kind), value) = split(&self.0) else {
            return JsonBytes(split(&self.0).1).serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(2))?;
        match std::str::from_utf8(&value) {
            Ok(text) => map.serialize_entry("text", text)?,
            Err(_) => map.serialize_entry("base64", &STANDARD.encode(&value))?,
        }
        map.serialize_entry("type", kind)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Typed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TypedVisitor)
    }
}

struct TypedVisitor;

impl<'de> Visitor<'de> for TypedVisitor {
    type Value = Typed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, {\"base64\": \"...\"}, or one of text and base64 with a type")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Typed, E> {
        Ok(Typed(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Typed, E> {
        Ok(Typed(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Typed, A::Error> {
        let (mut value, mut kind) = (None, None);
        while let Some((name, text)) = map.next_entry::<String, String>()? {
            let place = match name.as_str() {
                "text" | "base64" => &mut value,
                "type" => &mut kind,
                _ => return Err(de::Error::unknown_field(&name, &["text", "base64", "type"])),
            };
            if place.replace((name, text)).is_some() {
                return Err(de::Error::custom("a value is given once, and so is its type"));
            }
        }
        let kind = kind.map(|(_, kind)| kind);
        if let Some(kind) = &kind
            && !is_type(kind)
        {
            return Err(de::Error::custom("type: not a media type"));
        }
        let value = match value {
            Some((name, text)) if name == "base64" => STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|error| de::Error::custom(format!("base64: {error}")))?,
            Some((_, text)) if kind.is_some() => text.into(),
            Some(_) => return Err(de::Error::missing_field("type")),
            None => return Err(de::Error::missing_field("base64")),
        };
        Ok(Typed(stored(kind.as_deref().filter(|kind| !is_silent(kind)), value)))
    }
}

/// serde for a member that may have a stored value.
pub(super) mod one {
    use super::*;

    pub(in crate::api) fn serialize<S: Serializer>(
        value: &Option<JsonBytes>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|value| Typed(value.0.clone())).serialize(serializer)
    }

    pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<JsonBytes>, D::Error> {
        Ok(Option::<Typed>::deserialize(deserializer)?.map(|value| JsonBytes(value.0)))
    }
}

/// serde for a member that may have a list of stored values.
pub(super) mod list {
    use super::*;

    pub(in crate::api) fn serialize<S: Serializer>(
        values: &Option<Vec<JsonBytes>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let typed = |value: &JsonBytes| Typed(value.0.clone());
        let values = values.as_ref().map(|values| values.iter().map(typed).collect::<Vec<_>>());
        values.serialize(serializer)
    }

    pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<JsonBytes>>, D::Error> {
        let values = Option::<Vec<Typed>>::deserialize(deserializer)?;
        Ok(values.map(|values| values.into_iter().map(|value| JsonBytes(value.0)).collect()))
    }
}

/// Stored values in JSON, each with its type if it has one.
#[must_use]
pub fn json(values: &[Bytes]) -> serde_json::Value {
    let one = |value: &Bytes| serde_json::to_value(Typed(value.clone())).unwrap_or_default();
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Bytes> {
        let head = prop_oneof![Just(&b""[..]), Just(MARK), Just(&MARK[..3])];
        let rest = proptest::collection::vec(prop_oneof![Just(0), Just(3), any::<u8>()], 0..9);
        (head, rest).prop_map(|(head, rest)| [head, &rest].concat().into())
    }

    fn kind() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[a-z]{1,5}/[a-z+.]{1,9}(; q=\"[ -~]{0,9}\")?")
    }

    proptest! {
        #[test]
        fn a_value_reads_back_with_its_type(kind in kind(), value in value()) {
            let kept = stored(kind.as_deref(), value.clone());
            prop_assert_eq!(split(&kept), (kind.as_deref(), value.clone()));
            let json = serde_json::to_string(&Typed(kept.clone())).expect("JSON");
            let read: Typed = serde_json::from_str(&json).expect("its own form");
            prop_assert_eq!(read.0, kept, "{}", json);
        }

        #[test]
        fn any_stored_bytes_have_a_value(stored in value()) {
            let (kind, value) = split(&stored);
            prop_assert!(kind.is_none_or(is_type));
            prop_assert!(stored.ends_with(&value));
        }
    }

    #[test]
    fn values_without_a_type_are_stored_as_they_are() {
        for plain in [&b"blue"[..], b"", b"\xff\x00", b"\xff\x00typ"] {
            let plain = Bytes::from_static(plain);
            assert_eq!(stored(None, plain.clone()), plain);
            assert_eq!(split(&plain), (None, plain.clone()));
        }
        assert_ne!(stored(None, Bytes::from_static(MARK)), MARK);
    }

    #[test]
    fn a_request_says_one_type_or_none() {
        let of = |all: &[&str]| {
            let mut headers = HeaderMap::new();
            for one in all {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_str(one).expect("a value"));
            }
            of_request(&headers).map_err(|problem| problem.kind.code)
        };
        let kept = "text/html; charset=\"utf-8\"";
        assert_eq!(of(&[kept]), Ok(Some(kept.to_owned())));
        for silent in [&[][..], &[DEFAULT], &["Application/X-www-form-urlencoded"]] {
            assert_eq!(of(silent), Ok(None), "{silent:?}");
        }
        let long = format!("text/{}", "x".repeat(TYPE_BYTES_MAX));
        for broken in ["", "text", "/", "text/", "a b/c", "te\tt/a", "text/a/b", &long] {
            assert_eq!(of(&[broken]), Err("invalid_request"), "{broken}");
        }
        assert_eq!(of(&[kept, kept]), Err("invalid_request"));
    }

    #[test]
    fn json_has_one_value_and_one_type() {
        for broken in [
            "{}",
            "{\"text\":\"a\"}",
            "{\"type\":\"text/plain\"}",
            "{\"text\":\"a\",\"base64\":\"AA==\",\"type\":\"text/plain\"}",
            "{\"text\":\"a\",\"type\":\"plain\"}",
            "{\"base64\":\"!\",\"type\":\"text/plain\"}",
            "{\"text\":\"a\",\"type\":\"text/plain\",\"x\":\"\"}",
            "{\"text\":\"a\",\"type\":\"a/b\",\"type\":\"a/b\"}",
            "7",
        ] {
            assert!(serde_json::from_str::<Typed>(broken).is_err(), "{broken}");
        }
        let plain = "{\"text\":\"a\",\"type\":\"application/octet-stream\"}";
        let plain: Typed = serde_json::from_str(plain).expect("JSON");
        assert_eq!(plain.0, "a");
    }
}
