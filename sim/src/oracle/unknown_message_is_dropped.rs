//! A message of a later version harms nobody (design §5, "Upgrades"): who does not know its kind drops it, counts it,
//! and its link lives on. What a later version says instead is not simulated: there is none yet.

use continuum_core::node::{Message, MessageError};

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "unknown-message-is-dropped";

/// Bytes of a kind that this version does not know were read.
pub(crate) fn check(kind: u32, read: &Result<Message, MessageError>) -> Verdict {
    if *read == Err(MessageError::UnknownKind { kind }) {
        return Ok(());
    }
    Err(Broken::new(NAME, format!("a message of kind {kind} is read as {read:?}")))
}

#[cfg(test)]
mod tests {
    use continuum_core::codec::DecodeError;

    use super::*;

    #[test]
    fn an_unknown_kind_that_is_taken_for_another_or_for_garbage_is_seen() {
        assert_eq!(check(9, &Err(MessageError::UnknownKind { kind: 9 })), Ok(()));
        assert!(check(9, &Err(MessageError::UnknownKind { kind: 10 })).is_err());
        assert!(check(9, &Err(MessageError::Malformed(DecodeError::Malformed))).is_err());
        assert!(check(9, &Ok(Message::BootstrapAck)).is_err());
    }
}
