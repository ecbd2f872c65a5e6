//! Large answers: made only while the budget has room for them, and apart from the threads that serve the node.
//!
//! An answer in JSON may be six times as large as the values in it, and takes that much work. A client that asks for
//! many and reads none must not make the node do that work again and again for answers that it then cannot send.

use bytes::Bytes;
use continuum_core::api::{Content, Field, Row, Value};

use super::problem::Problem;
use super::{Api, body};

/// JSON writes one byte of a text as up to six.
const ESCAPED: usize = 6;

/// Values above this are written apart.
const HEAVY_BYTES: usize = 64 << 10;

/// Makes an answer out of values of this size.
///
/// # Errors
///
/// [`super::problem::BUSY`] when the budget has no room for it.
pub(super) async fn made<T: Send + 'static>(
    api: &Api,
    bytes: usize,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= HEAVY_BYTES {
        return Ok(make());
    }
    // Held until the answer is there. From then on its true size is charged.
    let mut account = api.answers.open();
    account.charge(bytes.saturating_mul(ESCAPED))?;
    body::apart(&api.turns, make).await
}

/// The bytes of the keys, names and values of a read.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Register(register) => {
            register.value.as_ref().map_or(0, Bytes::len) + sum(&register.siblings)
        }
        Value::Set { members: all, .. } | Value::Keys { keys: all, .. } => sum(all),
        Value::Record { fields, .. } => fields.iter().map(of_field).sum(),
        Value::Rows { rows, .. } => rows.iter().map(of_row).sum(),
        Value::Export(page) => page.rows.iter().map(of_row).sum(),
        _ => 0,
    }
}

fn sum(all: &[Bytes]) -> usize {
    all.iter().map(Bytes::len).sum()
}

fn of_row(row: &Row) -> usize {
    row.key.len() + row.fields.iter().map(of_field).sum::<usize>()
}

fn of_field(field: &Field) -> usize {
    field.field.len()
        + match &field.content {
            Content::Register(all) | Content::Set(all) => sum(all),
            Content::Counter(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_of_a_row_count() {
        let bytes = |length| Bytes::from(vec![0; length]);
        let field = |content| Field { field: bytes(1), content };
        let contents = [
            Content::Register(vec![bytes(10), bytes(100)]),
            Content::Set(vec![bytes(1000)]),
            Content::Counter(7),
        ];
        let row = Row { key: bytes(10_000), fields: contents.map(field).to_vec() };
        assert_eq!(size(&Value::Rows { rows: vec![row.clone(), row], more: false }), 2 * 11_113);
        assert_eq!(size(&Value::Keys { keys: vec![bytes(3), bytes(4)], more: true }), 7);
        assert_eq!(size(&Value::Counter(1)), 0);
    }
}
