//! Causal contexts as clients carry them: sealed tokens, and the keys that seal them.
//!
//! A context names the values that a client has read, and a write with it supersedes exactly these. A client that could
//! make one up could make a node supersede what nobody has written yet. So a context is sealed: HMAC-SHA-256 under a
//! key that group 0 holds, over the shard and the content. A node takes only what some node of the federation gave out
//! for the same shard. The two newest keys are valid, so that a rotation does not refuse the contexts of a moment ago.
//!
//! A sealed context is not a secret: it proves where it came from, and it can be used again. This module does not draw
//! keys, and does not know what a dot means.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Reason;
use crate::digest::hmac;
use crate::id::{Dot, ShardId};
use crate::limits::{CONTEXT_BYTES_MAX, STAMP_MAX};
use crate::{codec, mutant, reach};

/// Separates these codes from any other use of the key.
const DOMAIN: &[u8] = b"continuum context 1";
/// Bytes of the key's number and of the code, before the content. The code is the first half of the HMAC.
const NUMBER_BYTES: usize = 4;
const CODE_BYTES: usize = 16;

/// The versions that a read returned, so that a later write supersedes exactly those. Opaque to clients. The empty
/// context names nothing, so it needs no seal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context(Bytes);

/// The content of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The dots of the values that were returned.
    pub dots: Vec<Dot>,
    /// The greatest stamp among them, as the 64 bits of the hybrid logical clock. A write with this context is stamped
    /// above it.
    pub stamp: u64,
}

/// The random bytes of a key. They are not printed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

/// A key with its number: the first of a federation is number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    number: u32,
    secret: Secret,
}

/// The keys of a federation: the newest seals, and the one before it is still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextKeys {
    newest: Key,
    before: Option<Key>,
}

impl Context {
    /// The bytes of a token that a client sent. Nothing is checked until a node opens it.
    #[must_use]
    pub const fn from_bytes(token: Bytes) -> Self {
        Self(token)
    }

    /// The bytes of the token.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The content, without a check of its seal: for judges and tests, never for a decision.
    #[must_use]
    pub fn peek(&self) -> Option<Observed> {
        if self.0.is_empty() {
            return Some(Observed::default());
        }
        codec::decode(self.0.get(NUMBER_BYTES + CODE_BYTES..)?, CONTEXT_BYTES_MAX).ok()
    }
}

impl ContextKeys {
    /// The first key of a federation.
    #[must_use]
    pub const fn new(secret: Secret) -> Self {
        Self { newest: Key { number: 1, secret }, before: None }
    }

    /// A new key. The key before the present one is no longer valid.
    #[must_use]
    pub fn rotate(&self, secret: Secret) -> Self {
        let before =
            if mutant!("api.context.old_keys") { self.before } else { None }.or(Some(self.newest));
        Self { newest: Key { number: self.newest.number.saturating_add(1), secret }, before }
    }

    /// The number of the newest key.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.newest.number
    }

    /// Seals a context of a shard.
    #[must_use]
    pub fn seal(&self, shard: ShardId, observed: &Observed) -> Context {
        if observed.dots.is_empty() {
            return Context::default();
        }
        let mut token = Vec::with_capacity(NUMBER_BYTES + CODE_BYTES + 64 * observed.dots.len());
        token.extend_from_slice(&self.newest.number.to_be_bytes());
        token.resize(NUMBER_BYTES + CODE_BYTES, 0);
        codec::encode_into(observed, &mut token);
        let code = self.newest.code(shard, &token[NUMBER_BYTES + CODE_BYTES..]);
        token[NUMBER_BYTES..NUMBER_BYTES + CODE_BYTES].copy_from_slice(&code);
        Context(token.into())
    }

    /// Opens a context of a shard.
    ///
    /// # Errors
    ///
    /// [`Reason::ForeignContext`] when no node of this federation sealed it for this shard, or when its key is too old.
    pub fn open(&self, shard: ShardId, context: &Context) -> Result<Observed, Reason> {
        if context.0.is_empty() {
            return Ok(Observed::default());
        }
        let observed = self.open_sealed(shard, &context.0);
        if observed.is_none() {
            reach!("api.context.foreign");
        }
        observed.ok_or(Reason::ForeignContext)
    }

    fn open_sealed(&self, shard: ShardId, token: &[u8]) -> Option<Observed> {
        let (number, rest) = token.split_first_chunk::<NUMBER_BYTES>()?;
        let (code, content) = rest.split_first_chunk::<CODE_BYTES>()?;
        if content.len() > CONTEXT_BYTES_MAX {
            return None;
        }
        let number = u32::from_be_bytes(*number);
        let key = [Some(self.newest), self.before].into_iter().flatten();
        let key = key.into_iter().find(|key| key.number == number)?;
        let sound = is_equal(&key.code(shard, content), code);
        if !sound && !mutant!("api.context.unchecked") {
            return None;
        }
        let observed: Observed = codec::decode(content, CONTEXT_BYTES_MAX).ok()?;
        (observed.stamp <= STAMP_MAX).then_some(observed)
    }
}

impl Key {
    fn code(&self, shard: ShardId, content: &[u8]) -> [u8; CODE_BYTES] {
        let shard = if mutant!("api.context.any_shard") { ShardId::default() } else { shard };
        let (namespace, slot) = (shard.namespace.0.to_be_bytes(), shard.slot.to_be_bytes());
        let number = self.number.to_be_bytes();
        let whole = hmac(&self.secret.0, &[DOMAIN, &number, &namespace, &slot, content]);
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&whole.0[..CODE_BYTES]);
        code
    }
}

/// Compares in a time that does not depend on where the codes differ.
fn is_equal(one: &[u8; CODE_BYTES], other: &[u8; CODE_BYTES]) -> bool {
    one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::NamespaceId;

    const SHARD: ShardId = ShardId { namespace: NamespaceId(7), slot: 3 };

    fn keys() -> ContextKeys {
        ContextKeys::new(Secret([5; 32]))
    }

    fn observed() -> Observed {
        Observed { dots: vec![Dot { seq: 9, ..Dot::default() }], stamp: 77 }
    }

    #[test]
    fn what_was_sealed_opens_and_peeks() {
        let sealed = keys().seal(SHARD, &observed());
        assert_eq!(keys().open(SHARD, &sealed), Ok(observed()));
        assert_eq!(sealed.peek(), Some(observed()));
        assert_eq!(keys().seal(SHARD, &Observed::default()), Context::default());
        assert_eq!(keys().open(SHARD, &Context::default()), Ok(Observed::default()));
        assert!(!alloc::format!("{:?}", keys()).contains('5'));
    }

    #[test]
    fn altered_truncated_and_foreign_tokens_are_refused() {
        let sealed = keys().seal(SHARD, &observed()).0;
        let opens = |token: &[u8], shard| {
            keys().open(shard, &Context::from_bytes(Bytes::copy_from_slice(token))).is_ok()
        };
        assert!(opens(&sealed, SHARD));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&flipped, SHARD), "bit {bit}");
        }
        (1..sealed.len()).for_each(|length| assert!(!opens(&sealed[..length], SHARD)));
        assert!(!opens(&[&sealed[..], &[0]].concat(), SHARD));
        assert!(!opens(&sealed, ShardId { slot: 4, ..SHARD }));
        assert!(!opens(&sealed, ShardId { namespace: NamespaceId(8), ..SHARD }));
        let other = ContextKeys::new(Secret([6; 32]));
        let sealed = Context::from_bytes(sealed);
        assert_eq!(other.open(SHARD, &sealed), Err(Reason::ForeignContext));
    }

    #[test]
    fn the_two_newest_keys_are_valid() {
        let first = keys().seal(SHARD, &observed());
        let second = keys().rotate(Secret([6; 32]));
        assert_eq!(second.open(SHARD, &first), Ok(observed()));
        let again = second.seal(SHARD, &observed());
        let third = second.rotate(Secret([7; 32]));
        assert_eq!(third.number(), 3);
        assert_eq!(third.open(SHARD, &again), Ok(observed()));
        assert_eq!(third.open(SHARD, &first), Err(Reason::ForeignContext));
    }
}
