//! Bytes, counters and rows in JSON, shared by the HTTP API, `export` and `import`.
//!
//! Keys, fields, values and members are bytes. In JSON they are a string when they are UTF-8, and otherwise
//! `{"base64": "..."}`, so that text stays readable and no byte is lost. A row has one canonical line: fixed member
//! order, no spaces, keys and fields in the order of their bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use continuum_core::api::{Content, Field, Row};

use super::media;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JsonBytes(pub Bytes);

impl From<&str> for JsonBytes {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl Serialize for JsonBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for JsonBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonBytesVisitor)
    }
}

struct JsonBytesVisitor;

impl<'de> Visitor<'de> for JsonBytesVisitor {
    type Value = JsonBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\": \"...\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonBytes, E> {
        Ok(JsonBytes::from(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<JsonBytes, E> {
        Ok(JsonBytes(Bytes::from(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonBytes, A::Error> {
        let Some((name, value)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::missing_field("base64"));
        };
        if name != "base64" {
            return Err(de::Error::unknown_field(&name, &["base64"]));
        }
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("only the member base64 may stand here"));
        }
        STANDARD
            .decode(value)
            .map(|bytes| JsonBytes(Bytes::from(bytes)))
            .map_err(|error| de::Error::custom(format!("base64: {error}")))
    }
}

/// The greatest number that every reader of JSON keeps.
const EXACT_MAX: i128 = (1 << 53) - 1;

/// A counter in JSON: a number, or past 2^53 a string of decimal digits, since readers round larger numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub i128);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(self.0) {
            Ok(number) if self.0.abs() <= EXACT_MAX => serializer.serialize_i64(number),
            _ => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or a string of decimal digits")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
        Ok(Count(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
        Ok(Count(number.into()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
        text.parse().map(Count).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Reads what is added to a counter: a number or a string of decimal digits.
///
/// # Errors
///
/// When it does not fit into 64 bits.
pub fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let Count(amount) = Count::deserialize(deserializer)?;
    i64::try_from(amount).map_err(|_| de::Error::custom("what is added has at most 64 bits"))
}

/// As [`amount`], or nothing.
///
/// # Errors
///
/// As [`amount`].
pub fn optional_amount<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    let Some(Count(amount)) = Option::<Count>::deserialize(deserializer)? else { return Ok(None) };
    let amount = i64::try_from(amount);
    amount.map(Some).map_err(|_| de::Error::custom("what is added has at most 64 bits"))
}

/// A row in JSON: one line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowBody {
    /// The key.
    pub key: JsonBytes,
    /// Its fields, in order of name and kind.
    pub fields: Vec<FieldBody>,
}

/// A field in JSON. It has exactly one of the kinds; a name used for two kinds makes two fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldBody {
    /// Its name; empty for the key's own value.
    pub field: JsonBytes,
    /// The stored values of a register; the first is the one that the namespace's strategy chooses.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "media::list")]
    pub register: Option<Vec<JsonBytes>>,
    /// The members of a set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Vec<JsonBytes>>,
    /// The value of a counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<Count>,
}

impl From<&Row> for RowBody {
    fn from(row: &Row) -> Self {
        Self {
            key: JsonBytes(row.key.clone()),
            fields: row.fields.iter().map(FieldBody::from).collect(),
        }
    }
}

impl From<&Field> for FieldBody {
    fn from(field: &Field) -> Self {
        let mut body = Self { field: JsonBytes(field.field.clone()), ..Self::default() };
        match &field.content {
            Content::Register(values) => body.register = Some(json_bytes(values)),
            Content::Set(members) => body.set = Some(json_bytes(members)),
            Content::Counter(value) => body.counter = Some(Count(*value)),
        }
        body
    }
}

/// Wraps each for JSON.
#[must_use]
pub fn json_bytes(values: &[Bytes]) -> Vec<JsonBytes> {
    values.iter().cloned().map(JsonBytes).collect()
}

/// The canonical line of a row, without its newline.
#[must_use]
pub fn line(row: &Row) -> Vec<u8> {
    // Serialization to memory fails only on maps whose keys are not strings, and a row has none.
    serde_json::to_vec(&RowBody::from(row)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from)
    }

    fn content() -> impl Strategy<Value = Content> {
        let list = || proptest::collection::vec(bytes(), 1..4);
        prop_oneof![
            list().prop_map(Content::Register),
            list().prop_map(Content::Set),
            any::<i128>().prop_map(Content::Counter)
        ]
    }

    proptest! {
        #[test]
        fn a_line_reads_back_as_its_row(
            key in bytes(),
            fields in proptest::collection::vec((bytes(), content()), 0..4),
        ) {
            let fields = fields.into_iter().map(|(field, content)| Field { field, content }).collect();
            let row = Row { key, fields };
            let read: RowBody = serde_json::from_slice(&line(&row)).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(read, RowBody::from(&row));
        }
    }

    #[test]
    fn a_line_is_canonical() {
        let row = Row {
            key: Bytes::from_static(b"n1"),
            fields: vec![
                Field { field: Bytes::from_static(b"hits"), content: Content::Counter(-3) },
                Field {
                    field: Bytes::from_static(b"raw"),
                    content: Content::Register(vec![Bytes::from_static(b"\xff\x00")]),
                },
            ],
        };
        let fields =
            r#"[{"field":"hits","counter":-3},{"field":"raw","register":[{"base64":"/wA="}]}]"#;
        let expected = format!(r#"{{"key":"n1","fields":{fields}}}"#);
        assert_eq!(String::from_utf8_lossy(&line(&row)), expected);
    }

    #[test]
    fn large_counts_are_strings() {
        let count = Count(i128::from(i64::MAX) + 1);
        assert_eq!(serde_json::to_string(&count).ok().as_deref(), Some("\"9223372036854775808\""));
        assert_eq!(serde_json::from_str::<Count>("\"9223372036854775808\"").ok(), Some(count));
        assert!(serde_json::from_str::<Count>("\"many\"").is_err());
        let text = |count| serde_json::to_string(&Count(count)).expect("JSON");
        for exact in [EXACT_MAX, -EXACT_MAX, 0] {
            assert_eq!(text(exact), exact.to_string());
        }
        for rounded in [EXACT_MAX + 1, -EXACT_MAX - 1, 9_007_199_254_740_993] {
            assert_eq!(text(rounded), format!("\"{rounded}\""));
            let read = optional_amount(&mut serde_json::Deserializer::from_str(&text(rounded)));
            assert_eq!(read.ok().flatten().map(i128::from), Some(rounded));
        }
        assert!(
            amount(&mut serde_json::Deserializer::from_str("\"9223372036854775808\"")).is_err()
        );
    }

    #[test]
    fn bytes_have_exactly_two_forms_in_json() {
        for broken in
            ["{}", r#"{"hex":"00"}"#, r#"{"base64":"!"}"#, r#"{"base64":"AA==","x":1}"#, "7"]
        {
            assert!(serde_json::from_str::<JsonBytes>(broken).is_err(), "{broken}");
        }
    }
}
