//! Hearsay: contacts are told on only when this node verified them itself (this project's design, section 5,
//! discovery).

use continuum_core::id::Contact;

use crate::verdict::{Broken, Verdict};

pub(crate) const NAME: &str = "verified-contacts-only";

/// Contacts leave.
pub(crate) fn check(verified: impl Iterator<Item = Contact>, told: &[Contact]) -> Verdict {
    let verified: Vec<Contact> = verified.collect();
    match told.iter().find(|contact| !verified.contains(contact)) {
        None => Ok(()),
        Some(contact) => {
            Err(Broken::new(NAME, format!("{contact:?} is told on and was never verified")))
        }
    }
}
