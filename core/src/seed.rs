//! Randomness: one 32-byte seed, from which every consumer derives its own stream.
//!
//! Streams share nothing, so one more draw in gossip never shifts an election timeout. This module reads no entropy: in
//! production the driver supplies 32 fresh bytes at each start, the simulator a number.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest as _, Sha256};

/// The root of all randomness of one boot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// A seed from a number, for simulators and tests only.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"continuum.seed");
        hash.update(number.to_be_bytes());
        Self(hash.finalize().into())
    }

    /// The stream of one consumer: `label` names it ("raft.election"), `id` numbers its instances.
    #[must_use]
    pub fn derive(&self, label: &str, id: u64) -> Stream {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(label.as_bytes());
        // The length keeps the label ("a", "ab") apart from the bytes of the id.
        hash.update((label.len() as u64).to_be_bytes());
        hash.update(id.to_be_bytes());
        Stream { chacha: ChaCha8Rng::from_seed(hash.finalize().into()) }
    }
}

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A production seed is a secret: it must not reach a log.
        f.write_str("Seed(..)")
    }
}

/// One consumer's stream of draws.
#[derive(Clone, Debug)]
pub struct Stream {
    chacha: ChaCha8Rng,
}

impl Stream {
    /// 64 uniform bits.
    pub fn draw(&mut self) -> u64 {
        self.chacha.next_u64()
    }

    /// A number below `bound`; 0 when `bound` is 0. Its bias is below `bound / 2^64` (Lemire's multiplication).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included; `low` when the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_from_each_other() {
        let seed = Seed::from_number(7);
        assert_eq!(seed.derive("a", 1).draw(), seed.derive("a", 1).draw());
        assert_ne!(seed.derive("a", 1).draw(), seed.derive("a", 2).draw());
        assert_ne!(seed.derive("a", 1).draw(), seed.derive("b", 1).draw());
        assert_ne!(seed.derive("a", 1).draw(), Seed::from_number(8).derive("a", 1).draw());
    }

    #[test]
    fn bounds_hold() {
        let mut stream = Seed::from_number(1).derive("bounds", 0);
        for _ in 0..10_000 {
            assert!(stream.below(7) < 7);
            assert!((3..=5).contains(&stream.between(3, 5)));
        }
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.between(4, 4), 4);
    }
}
