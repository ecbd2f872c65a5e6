//! Converts rows as `export` writes them back to writes.
//!
//! A register keeps its siblings: the first value supersedes what the replica holds, and each further one is a write
//! with an empty context, which supersedes nothing. A counter's value is added, because counters can only be added to.

use crate::api::input::{EditBody, WriteBody};
use crate::api::json::{FieldBody, JsonBytes, RowBody};
use crate::api::token;

/// The writes of one line.
///
/// # Errors
///
/// The defect of the line.
pub(super) fn writes(line: &[u8]) -> Result<Vec<WriteBody>, String> {
    if line.trim_ascii_start().starts_with(b"[") {
        return Err(
            "it is a JSON array; write one row on each line, for example with `jq -c '.[]'`".into(),
        );
    }
    let row: RowBody = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut edits = Vec::new();
    let mut siblings = Vec::new();
    for (at, field) in row.fields.into_iter().enumerate() {
        let name = field.field.clone();
        let (edit, further) = edit(field).map_err(|why| format!("fields[{at}]: {why}"))?;
        edits.push(edit);
        siblings.extend(further.into_iter().map(|value| sibling(&row.key, &name, value)));
    }
    if edits.is_empty() {
        return Err("the row has no fields".into());
    }
    let mut writes = vec![WriteBody { key: row.key, edits, context: None }];
    writes.extend(siblings);
    Ok(writes)
}

/// The edit of one field, and the further values of its register.
fn edit(field: FieldBody) -> Result<(EditBody, Vec<JsonBytes>), String> {
    let mut edit = EditBody { field: field.field, ..EditBody::default() };
    let mut further = Vec::new();
    match (field.register, field.set, field.counter) {
        (Some(values), None, None) => {
            let mut values = values.into_iter();
            edit.put = values.next();
            further.extend(values);
            if edit.put.is_none() {
                return Err("a register needs a value".into());
            }
        }
        (None, Some(members), None) if !members.is_empty() => edit.add = members,
        (None, Some(_), None) => return Err("a set needs a member".into()),
        (None, None, Some(count)) => {
            let amount = i64::try_from(count.0);
            edit.count = Some(
                amount.map_err(|_| "a counter takes at most 64 bits in one write".to_owned())?,
            );
        }
        _ => return Err("exactly one of register, set and counter is required".into()),
    }
    Ok((edit, further))
}

/// A write that adds a sibling: its context is empty, so it supersedes nothing.
fn sibling(key: &JsonBytes, field: &JsonBytes, value: JsonBytes) -> WriteBody {
    let nothing = token::context(&continuum_core::api::Context::default());
    let edit = EditBody { field: field.clone(), put: Some(value), ..EditBody::default() };
    WriteBody { key: key.clone(), edits: vec![edit], context: Some(nothing) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use continuum_core::api::{Change, Content, Context, Field, Mutation, Row};
    use proptest::prelude::*;

    use super::*;
    use crate::api::input;
    use crate::api::json::line;

    fn mutations(line: &[u8]) -> Vec<Mutation> {
        let writes = writes(line).expect("a row");
        writes.into_iter().map(|write| input::mutation("", write).expect("a mutation")).collect()
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 1..6).prop_map(Bytes::from)
    }

    proptest! {
        /// All bytes of an exported row reappear in the mutations of its import.
        #[test]
        fn a_row_survives_export_and_import(
            key in bytes(),
            name in bytes(),
            values in proptest::collection::vec(bytes(), 1..4),
            members in proptest::collection::vec(bytes(), 1..4),
            count in any::<i64>(),
        ) {
            let field = |content| Field { field: name.clone(), content };
            let fields = vec![
                field(Content::Register(values.clone())),
                field(Content::Set(members.clone())),
                field(Content::Counter(count.into())),
            ];
            let mutations = mutations(&line(&Row { key: key.clone(), fields }));
            prop_assert!(mutations.iter().all(|mutation| mutation.key == key));
            prop_assert!(mutations.iter().flat_map(|m| &m.edits).all(|edit| edit.field == name));
            let changes: Vec<Change> =
                mutations[0].edits.iter().map(|edit| edit.change.clone()).collect();
            let mut expected = vec![Change::Put(values[0].clone())];
            expected.extend(members.into_iter().map(Change::Add));
            expected.push(Change::Count(count));
            prop_assert_eq!(changes, expected);
            let seen = |m: &Mutation| (m.edits[0].change.clone(), m.context.clone());
            let siblings: Vec<_> = mutations[1..].iter().map(seen).collect();
            let further = values[1..].iter().map(|v| (Change::Put(v.clone()), Some(Context::default())));
            prop_assert_eq!(siblings, further.collect::<Vec<_>>());
        }
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, what) in [
            ("", "EOF"),
            (" [{}]", "a JSON array"),
            ("{\"key\":\"a\"}", "missing field `fields`"),
            ("{\"key\":\"a\",\"fields\":[]}", "no fields"),
            ("{\"key\":\"a\",\"fields\":[{\"field\":\"f\"}]}", "fields[0]: exactly one"),
            ("{\"key\":\"a\",\"fields\":[{\"field\":\"f\",\"set\":[]}]}", "needs a member"),
            (
                "{\"key\":\"a\",\"fields\":[{\"field\":\"f\",\"counter\":\"9223372036854775808\"}]}",
                "64 bits",
            ),
            ("{\"key\":{\"base64\":\"!\"},\"fields\":[]}", "base64"),
        ] {
            let error = writes(line.as_bytes()).expect_err(line);
            assert!(error.contains(what), "{line}: {error}");
        }
    }
}
