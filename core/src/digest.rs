//! SHA-256: checksums of values, digests of states, fingerprints of sets, and authentication codes.
//!
//! There are no signatures: the transport authenticates nodes, and [`hmac`] what they give to clients.

use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 value.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of one run of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 8 bytes as a number: a check, not an identity.
    #[must_use]
    pub const fn short(&self) -> u64 {
        let b = &self.0;
        u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.short())
    }
}

/// HMAC-SHA-256 (RFC 2104) over the parts, one after the other. The caller makes sure that two lists of parts that mean
/// different things do not join to the same bytes.
#[must_use]
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Digest {
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Digest::of(key).0);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    let mut outer = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c));
    outer.update(inner.finalize());
    Digest(outer.finalize().into())
}

/// Hashes the canonical form of a state. Parts of variable length get a length prefix, so that states with the same
/// bytes split elsewhere differ.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    sha: Sha256,
}

impl Hasher {
    /// An empty hasher.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one number.
    pub fn number(&mut self, value: u64) {
        self.sha.update(value.to_be_bytes());
    }

    /// Adds a run of bytes with its length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.sha.update(value);
    }

    /// Adds anything serializable, in its canonical encoding.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        crate::codec::feed(value, |bytes| self.sha.update(bytes));
    }

    /// The digest of all added bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.sha.finalize().into())
    }
}

/// The fingerprint of a set: the sum of its members' digests modulo 2^256. A member is added or removed in constant
/// time, in any order. Equal sets have equal sums. A peer can choose members that collide, so a sync session also
/// compares counts, and exchanges members where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SetSum {
    limbs: [u64; 4],
}

impl SetSum {
    /// Adds a member that is not in the set.
    pub fn add(&mut self, member: &Digest) {
        self.combine(&limbs(member), false);
    }

    /// Removes a member of the set.
    pub fn remove(&mut self, member: &Digest) {
        self.combine(&limbs(member), true);
    }

    /// Adds all members of a disjoint set.
    pub fn merge(&mut self, other: &Self) {
        self.combine(&other.limbs, false);
    }

    /// Whether the set is empty, as far as a sum can tell.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.limbs == [0; 4]
    }

    fn combine(&mut self, other: &[u64; 4], subtract: bool) {
        let mut carry = false;
        for (mine, theirs) in self.limbs.iter_mut().zip(other) {
            let (partial, first) = if subtract {
                mine.overflowing_sub(*theirs)
            } else {
                mine.overflowing_add(*theirs)
            };
            let (whole, second) = if subtract {
                partial.overflowing_sub(u64::from(carry))
            } else {
                partial.overflowing_add(u64::from(carry))
            };
            *mine = whole;
            carry = first || second;
        }
    }
}

fn limbs(digest: &Digest) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(digest.0.chunks_exact(8)) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        *limb = u64::from_le_bytes(bytes);
    }
    limbs
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The test vectors of RFC 4231, without the truncated one.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let long = [0xaa; 131];
        let count: Vec<u8> = (1..26).collect();
        let cases: [(&[u8], &[u8], &str); 6] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &count,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &long,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &long,
                b"This is a test using a larger than block-size key and a larger than block-size data. \
                  The key needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, data, code) in cases {
            assert_eq!(alloc::format!("{}", hmac(key, &[data])), code);
            let (first, rest) = data.split_at(data.len() / 2);
            assert_eq!(hmac(key, &[first, rest]), hmac(key, &[data]));
        }
    }

    #[test]
    fn a_value_hashes_like_its_encoding() {
        for length in [0, 1, 255, 256, 257, 1000] {
            let value: (u64, Vec<u16>) = (7, vec![300; length]);
            let mut gathered = Hasher::new();
            gathered.value(&value);
            let whole = Digest::of(&crate::codec::encode(&value)[1..]);
            assert_eq!(gathered.finish(), whole, "{length}");
        }
    }

    proptest! {
        #[test]
        fn a_sum_ignores_order_and_removing_undoes_it(members in proptest::collection::vec(any::<[u8; 32]>(), 0..9)) {
            let mut forth = SetSum::default();
            let mut back = SetSum::default();
            members.iter().for_each(|m| forth.add(&Digest(*m)));
            members.iter().rev().for_each(|m| back.add(&Digest(*m)));
            prop_assert_eq!(forth, back);
            members.iter().for_each(|m| forth.remove(&Digest(*m)));
            prop_assert!(forth.is_zero());
        }
    }
}
