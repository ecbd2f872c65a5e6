//! Paths and queries as bytes. Keys need not be UTF-8, so a percent-encoded byte may be any byte.
//!
//! This module does no routing. The router matches the encoded path, so an encoded `/` never ends a segment.

use bytes::Bytes;

/// Decodes `%XX`, and with `plus` also `+` as a space, as forms write it in queries. `None` for a broken escape.
#[must_use]
pub fn decode(text: &str, plus: bool) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let (pair, after) = tail.split_at_checked(2)?;
                bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
                rest = after;
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Some(bytes.into())
}

/// Encodes all but the unreserved characters of RFC 3986.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            text.extend([
                '%',
                DIGITS[usize::from(byte >> 4)].into(),
                DIGITS[usize::from(byte & 15)].into(),
            ]);
        }
    }
    text
}

/// The parameters of a query, decoded. A parameter without `=` has an empty value. `None` for a broken escape.
#[must_use]
pub fn query(text: &str) -> Option<Vec<(Bytes, Bytes)>> {
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name, true)?, decode(value, true)?))
        })
        .collect()
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_survives(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let text = encode(&bytes);
            prop_assert!(!text.contains(['/', '+', '&', '?', ' ']));
            prop_assert_eq!(decode(&text, false), Some(Bytes::from(bytes.clone())));
            prop_assert_eq!(decode(&text, true), Some(Bytes::from(bytes)));
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for broken in ["%", "%4", "%zz", "a%f"] {
            assert_eq!(decode(broken, false), None, "{broken}");
        }
        assert_eq!(query("a=%"), None);
    }

    #[test]
    fn a_query_is_read() {
        let pairs = query("after=a%2Fb+c&flag&limit=7").unwrap_or_default();
        let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(pairs, [(&b"after"[..], &b"a/b c"[..]), (b"flag", b""), (b"limit", b"7")]);
    }
}
