//! Law: a node that does not know a message's kind, because the sender has a later version, drops the message, counts
//! it and keeps the link (contract of `node::MessageError`).
//!
//! Compares what decoding bytes of an unknown kind returns with the expected error. It does not judge what a later
//! version would send instead: no later version exists.

use continuum_core::node::{Message, MessageError};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "unknown-message-is-dropped";

/// Judges the result of decoding a message of an unknown kind.
pub(crate) fn check(kind: u32, read: &Result<Message, MessageError>) -> Verdict {
    if *read == Err(MessageError::UnknownKind { kind }) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("a message of the unknown kind {kind} is decoded as {read:?}")))
}

#[cfg(test)]
mod tests {
    use continuum_core::codec::DecodeError;

    use super::*;

    #[test]
    fn an_unknown_kind_that_is_decoded_as_another_or_as_garbage_is_seen() {
        assert_eq!(check(9, &Err(MessageError::UnknownKind { kind: 9 })), Ok(()));
        assert!(check(9, &Err(MessageError::UnknownKind { kind: 10 })).is_err());
        assert!(check(9, &Err(MessageError::Malformed(DecodeError::Malformed))).is_err());
        assert!(check(9, &Ok(Message::Genesis { genesis: None, replaced: None })).is_err());
    }
}
