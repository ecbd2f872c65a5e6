//! Rows as `export` writes them: one row of canonical JSON on each line.

use bytes::Bytes;
use continuum_core::api::{Content, Field, Row};

use crate::api::json::{FieldBody, JsonBytes, RowBody};

/// The row of one line.
///
/// # Errors
///
/// The defect of the line.
pub(super) fn row(line: &[u8]) -> Result<Row, String> {
    if line.trim_ascii_start().starts_with(b"[") {
        return Err(
            "it is a JSON array; write one row on each line, for example with `jq -c '.[]'`".into(),
        );
    }
    let body: RowBody = serde_json::from_slice(line).map_err(|error| within_line(&error))?;
    if body.fields.is_empty() {
        return Err("the row has no fields".into());
    }
    let fields = body.fields.into_iter().enumerate();
    let fields = fields.map(|(at, body)| field(body).map_err(|why| format!("fields[{at}]: {why}")));
    Ok(Row { key: body.key.0, fields: fields.collect::<Result<_, _>>()? })
}

/// The words of an error, with the column alone: the number of the line is told beside the name of the file.
fn within_line(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    format!("{words} at column {}", error.column())
}

/// A field of a row.
///
/// # Errors
///
/// The defect of the field.
pub(super) fn field(body: FieldBody) -> Result<Field, String> {
    let content = match (body.register, body.set, body.counter) {
        (Some(values), None, None) if !values.is_empty() => Content::Register(plain(values)),
        (Some(_), None, None) => return Err("a register needs a value".into()),
        (None, Some(members), None) if !members.is_empty() => Content::Set(plain(members)),
        (None, Some(_), None) => return Err("a set needs a member".into()),
        (None, None, Some(count)) => Content::Counter(count.0),
        _ => return Err("exactly one of register, set and counter is required".into()),
    };
    Ok(Field { field: body.field.0, content })
}

fn plain(values: Vec<JsonBytes>) -> Vec<Bytes> {
    values.into_iter().map(|value| value.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, what) in [
            ("", "EOF while parsing a value at column 0"),
            (" [{}]", "a JSON array"),
            ("{\"key\":\"a\"}", "missing field `fields`"),
            ("{\"key\":\"a\",\"fields\":[]}", "no fields"),
            ("{\"key\":\"a\",\"fields\":[{\"field\":\"f\"}]}", "fields[0]: exactly one"),
            ("{\"key\":\"a\",\"fields\":[{\"field\":\"f\",\"set\":[]}]}", "needs a member"),
            ("{\"key\":\"a\",\"fields\":[{\"field\":\"f\",\"register\":[]}]}", "needs a value"),
            ("{\"key\":{\"base64\":\"!\"},\"fields\":[]}", "base64"),
        ] {
            let error = row(line.as_bytes()).expect_err(line);
            assert!(error.contains(what), "{line}: {error}");
            assert!(!error.contains("line 1"), "{error}");
        }
    }
}
