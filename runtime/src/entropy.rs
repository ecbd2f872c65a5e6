//! Fresh randomness from the operating system: identities and the seed of a process life.
//!
//! Only edges of the program call it (the command line, the PKI). The driver is handed a [`Seed`], so that a simulated
//! run can be repeated.

use continuum_core::seed::Seed;

/// 32 fresh bytes: the root of all chance of one process life.
///
/// # Panics
///
/// If the operating system has no randomness to give: without it no key and no identity is safe.
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
