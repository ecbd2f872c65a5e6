//! Fresh randomness from the operating system, for identities and for the seed of a process.
//!
//! Only the command line and the PKI call it. The driver is given a [`Seed`], so that a simulated run can be repeated.

use continuum_core::seed::Seed;

/// 32 fresh bytes: the root of all randomness of one process.
///
/// # Panics
///
/// If the operating system has no randomness: without it no key and no identity is safe.
#[must_use]
pub fn seed() -> Seed {
    Seed(bytes())
}

/// A fresh 128-bit identity.
///
/// # Panics
///
/// As [`seed`].
#[must_use]
pub fn identity() -> [u8; 16] {
    bytes()
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}
