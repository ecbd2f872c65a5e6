//! Short texts of the API: levels, entity tags, context tokens, cursors, sessions.
//!
//! An entity tag is `"r17"` for revision 17 of a strong key, or `"c..."` for the causal context of an eventual read.
//! Contexts and cursors are opaque to clients: base64url of the core's bytes, which for a context are sealed. The
//! cursor of an export is its name and a key, divided by a point.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use continuum_core::api::{Context, ExportCursor, Fingerprint, Level, Session};
use continuum_core::digest::Hasher;
use continuum_core::id::{ExportId, SessionId};
use continuum_core::limits::{CONTEXT_BYTES_MAX, KEY_BYTES_MAX};

/// The most characters of a context's token: base64 of a context with its seal.
const TOKEN_CHARS_MAX: usize = CONTEXT_BYTES_MAX / 3 * 4 + 64;

/// The client of a connection: the name in its certificate, or `None` without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client(pub Option<Arc<str>>);

/// The version of a value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// In a strong namespace.
    Revision(u64),
    /// In an eventual namespace.
    Context(Context),
}

/// The text of a level.
#[must_use]
pub fn level(level: Level) -> String {
    match level {
        Level::Applied => "applied".into(),
        Level::Durable => "durable".into(),
        Level::Replicated(replicas) => format!("replicated:{replicas}"),
    }
}

/// Reads the text of a level.
#[must_use]
pub fn parse_level(text: &str) -> Option<Level> {
    match text {
        "applied" => Some(Level::Applied),
        "durable" => Some(Level::Durable),
        other => other.strip_prefix("replicated:")?.parse().ok().map(Level::Replicated),
    }
}

/// The token of a context.
#[must_use]
pub fn context(context: &Context) -> String {
    URL_SAFE_NO_PAD.encode(context.as_bytes())
}

/// Reads the token of a context. A node checks its seal when it opens it.
#[must_use]
pub fn parse_context(token: &str) -> Option<Context> {
    if token.len() > TOKEN_CHARS_MAX {
        return None;
    }
    Some(Context::from_bytes(URL_SAFE_NO_PAD.decode(token).ok()?.into()))
}

/// The entity tag of a value.
#[must_use]
pub fn tag(tag: &Tag) -> String {
    match tag {
        Tag::Revision(revision) => format!("\"r{revision}\""),
        Tag::Context(seen) => format!("\"c{}\"", context(seen)),
    }
}

/// Reads an entity tag from `If-Match`.
#[must_use]
pub fn parse_tag(text: &str) -> Option<Tag> {
    let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    match inner.split_at_checked(1)? {
        ("r", revision) => revision.parse().ok().map(Tag::Revision),
        ("c", token) => parse_context(token).map(Tag::Context),
        _ => None,
    }
}

/// The cursor after a key.
#[must_use]
pub fn cursor(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The cursor of an export.
#[must_use]
pub fn export_cursor(cursor: &ExportCursor) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(cursor.export.0), self::cursor(&cursor.after))
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// After a key.
    After(Bytes),
    /// Within an export.
    Export(ExportCursor),
}

/// Reads a cursor.
#[must_use]
pub fn parse_cursor(text: &[u8]) -> Option<Cursor> {
    let Some(point) = text.iter().position(|byte| *byte == b'.') else {
        return parse_key(text).map(Cursor::After);
    };
    let (name, after) = (&text[..point], parse_key(&text[point + 1..])?);
    let export = ExportId(URL_SAFE_NO_PAD.decode(name).ok()?.try_into().ok()?);
    Some(Cursor::Export(ExportCursor { export, after }))
}

fn parse_key(text: &[u8]) -> Option<Bytes> {
    let key = URL_SAFE_NO_PAD.decode(text).ok()?;
    (key.len() <= KEY_BYTES_MAX).then(|| key.into())
}

/// The session of an idempotency key that a client chose, and the number of a write in it. A key without numbers is a
/// session of one write.
#[must_use]
pub fn session(client: &Client, key: &[u8], number: u64, request: Fingerprint) -> Session {
    let name = client.0.as_deref().unwrap_or_default();
    let id = SessionId(short_digest(&[name.as_bytes(), key]));
    Session { id, seq: number, request }
}

/// Reads the number of a write in its session: decimal digits alone.
#[must_use]
pub fn parse_number(text: &[u8]) -> Option<u64> {
    // The standard parser takes a sign, too.
    let is_plain = text.first().is_some_and(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// The fingerprint of a request, of the parts that decide its effect.
#[must_use]
pub fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    Fingerprint(short_digest(parts))
}

/// 128 bits of the digest of these parts, each with its length.
fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Hasher::new();
    parts.iter().for_each(|part| hasher.bytes(part));
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finish().0[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_read_back() {
        for one in [Level::Applied, Level::Durable, Level::Replicated(2)] {
            assert_eq!(parse_level(&level(one)), Some(one));
        }
        assert_eq!(parse_level("replicated:many"), None);
        assert_eq!(parse_level("eventually"), None);
    }

    #[test]
    fn tags_read_back() {
        let seen = Context::from_bytes(Bytes::from_static(b"sealed"));
        for one in [Tag::Revision(17), Tag::Context(seen)] {
            assert_eq!(parse_tag(&tag(&one)), Some(one));
        }
        for broken in ["r17", "\"\"", "\"x1\"", "\"c!\"", "\"r-1\"", "*"] {
            assert_eq!(parse_tag(broken), None, "{broken}");
        }
    }

    #[test]
    fn numbers_are_digits() {
        assert_eq!(parse_number(b"0"), Some(0));
        assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
        for broken in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"18446744073709551616", b"\xff"] {
            assert_eq!(parse_number(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn cursors_are_bounded() {
        let after = Cursor::After(Bytes::from_static(b"\xff/a"));
        assert_eq!(parse_cursor(cursor(b"\xff/a").as_bytes()), Some(after));
        assert_eq!(parse_cursor(cursor(&[0; KEY_BYTES_MAX + 1]).as_bytes()), None);
        let mut within = ExportCursor { export: ExportId([7; 16]), after: Bytes::new() };
        for after in [&b""[..], b"\xff/a"] {
            within.after = Bytes::copy_from_slice(after);
            let text = export_cursor(&within);
            assert_eq!(parse_cursor(text.as_bytes()), Some(Cursor::Export(within.clone())));
            assert_eq!(parse_cursor(text.replacen('.', "x.", 1).as_bytes()), None);
            assert_eq!(parse_cursor(&text.as_bytes()[1..]), None);
        }
        within.after = vec![0; KEY_BYTES_MAX + 1].into();
        assert_eq!(parse_cursor(export_cursor(&within).as_bytes()), None);
    }

    #[test]
    fn a_key_of_a_client_is_one_session_and_each_request_has_its_fingerprint() {
        let (ann, ben) = (Client(Some("ann".into())), Client(Some("ben".into())));
        let put = fingerprint(&[b"PUT", b"/v1/a", b"1"]);
        assert_eq!(session(&ann, b"a", 0, put), session(&ann, b"a", 0, put));
        assert_ne!(session(&ann, b"a", 0, put).id, session(&ann, b"b", 0, put).id);
        assert_ne!(session(&ann, b"a", 0, put).id, session(&ben, b"a", 0, put).id);
        assert_ne!(session(&ann, b"a", 0, put).id, session(&Client(None), b"anna", 0, put).id);
        let later = session(&ann, b"a", 7, put);
        assert_eq!((later.id, later.seq), (session(&ann, b"a", 0, put).id, 7));
        for other in [["POST", "/v1/a", "1"], ["PUT", "/v1/a1", ""], ["PUT", "/v1/a?f=1", "1"]] {
            assert_ne!(fingerprint(&other.map(str::as_bytes)), put, "{other:?}");
        }
    }
}
