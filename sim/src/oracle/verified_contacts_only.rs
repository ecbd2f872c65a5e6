//! Law: a node passes on only contacts that it verified itself (contract of `core::discovery`: a candidate becomes a
//! peer only after a verified handshake).
//!
//! Compares the contacts in a message with those that the sender verified. It does not judge which of them it should
//! send.

use continuum_core::id::Contact;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "verified-contacts-only";

/// Judges contacts that leave in a message.
pub(crate) fn check(verified: impl Iterator<Item = Contact>, told: &[Contact]) -> Verdict {
    let verified: Vec<Contact> = verified.collect();
    match told.iter().find(|contact| !verified.contains(contact)) {
        None => Ok(()),
        Some(contact) => {
            Err(Broken::new(NAME, format!("{contact:?} is passed on, but was never verified")))
        }
    }
}
