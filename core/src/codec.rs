//! The codec: a version byte, then the value in postcard's format.
//!
//! Every decoder of the system uses this module. A value has exactly one encoding, and other bytes that would decode to
//! it are refused: decoding encodes the value again and compares byte by byte, without allocating. Decoding never
//! panics, reads at most its limit, and allocates no more than a small multiple of the input's length.
//!
//! This module does not frame messages (the runtime does), write log batches (`wal`) or compress.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version that this build writes. It reads only this one, because there is no older one.
pub const VERSION: u8 = 1;

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    Empty,
    /// More bytes than the caller allows.
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A version that this build does not read.
    Version {
        /// The version byte found.
        found: u8,
    },
    /// Not an encoding of a value of this type.
    Malformed,
    /// The bytes decode, but are not the one encoding of their value, or bytes are left over.
    NotCanonical,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no bytes"),
            Self::TooLong { length, limit } => {
                write!(f, "{length} bytes; at most {limit} are allowed")
            }
            Self::Version { found } => {
                write!(f, "codec version {found}; this build reads version {VERSION}")
            }
            Self::Malformed => f.write_str("malformed bytes"),
            Self::NotCanonical => f.write_str("not the canonical encoding of its value"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Encodes a value.
///
/// # Panics
///
/// If the value cannot be serialized: a broken invariant, since all types of this crate can.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(64);
    encode_into(value, &mut bytes);
    bytes.into()
}

/// Appends the encoding of a value to `bytes`.
///
/// # Panics
///
/// As [`encode`].
pub fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    bytes.push(VERSION);
    serialize(value, Append(bytes));
}

/// The length of the encoding of a value, in bytes.
///
/// # Panics
///
/// As [`encode`].
#[must_use]
pub fn encoded_len<T: Serialize + ?Sized>(value: &T) -> usize {
    1 + serialize(value, Count(0))
}

/// Passes the encoding of a value, without the version byte, to `sink` in pieces of up to 256 bytes, because each call
/// has its cost.
///
/// # Panics
///
/// As [`encode`].
pub(crate) fn feed<T: Serialize + ?Sized>(value: &T, sink: impl FnMut(&[u8])) {
    serialize(value, Gather { sink, gathered: [0; GATHERED_BYTES], length: 0 });
}

fn serialize<T: Serialize + ?Sized, F: Flavor>(value: &T, flavor: F) -> F::Output {
    postcard::serialize_with_flavor(value, flavor)
        .expect("all types of this crate serialize: every sequence knows its length")
}

/// Decodes the value that `bytes` encode canonically. It refuses more than `limit` bytes.
///
/// # Errors
///
/// [`DecodeError`] when `bytes` are not the canonical encoding of a `T`.
pub fn decode<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
) -> Result<T, DecodeError> {
    decode_borrowed(bytes, limit)
}

/// As [`decode`], for values that borrow their byte strings from `bytes`, so that a large value is not copied.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_borrowed<'a, T: Serialize + Deserialize<'a>>(
    bytes: &'a [u8],
    limit: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { length: bytes.len(), limit });
    }
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let value = postcard::from_bytes(body).map_err(|_| DecodeError::Malformed)?;
    postcard::serialize_with_flavor(&value, Compare { expected: body })
        .map_err(|_| DecodeError::NotCanonical)?;
    Ok(value)
}

/// The number of the enum variant that the bytes encode, whether or not this build knows it. `None` if they are of
/// another version or do not begin with a number.
#[must_use]
pub fn variant(bytes: &[u8]) -> Option<u32> {
    let body = bytes.strip_prefix(&[VERSION])?;
    postcard::take_from_bytes::<u32>(body).ok().map(|(variant, _)| variant)
}

/// A flavor that appends to a vector.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A flavor that counts.
struct Count(usize);

impl Flavor for Count {
    type Output = usize;

    #[inline]
    fn try_push(&mut self, _: u8) -> postcard::Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0 += bytes.len();
        Ok(())
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.0)
    }
}

/// Bytes gathered before a piece is passed on: a few blocks of SHA-256. Postcard itself writes a few bytes at a time.
const GATHERED_BYTES: usize = 256;

/// A flavor that gathers bytes and passes them to a closure.
struct Gather<F> {
    sink: F,
    gathered: [u8; GATHERED_BYTES],
    length: usize,
}

impl<F: FnMut(&[u8])> Gather<F> {
    fn flush(&mut self) {
        (self.sink)(&self.gathered[..self.length]);
        self.length = 0;
    }
}

impl<F: FnMut(&[u8])> Flavor for Gather<F> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.length == GATHERED_BYTES {
            self.flush();
        }
        self.gathered[self.length] = byte;
        self.length += 1;
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.length + bytes.len() > GATHERED_BYTES {
            self.flush();
        }
        if bytes.len() > GATHERED_BYTES {
            (self.sink)(bytes);
        } else {
            self.gathered[self.length..self.length + bytes.len()].copy_from_slice(bytes);
            self.length += bytes.len();
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<()> {
        self.flush();
        Ok(())
    }
}

/// A flavor that compares the written bytes with the expected ones, and fails at the first difference.
struct Compare<'a> {
    expected: &'a [u8],
}

impl Flavor for Compare<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        let (first, rest) =
            self.expected.split_first().ok_or(postcard::Error::SerializeBufferFull)?;
        self.expected = rest;
        if *first == byte { Ok(()) } else { Err(postcard::Error::SerializeBufferFull) }
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let rest = self.expected.strip_prefix(bytes);
        self.expected = rest.ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        if self.expected.is_empty() { Ok(()) } else { Err(postcard::Error::SerializeBufferFull) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::string::String;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_undoes_encoding(value: (u64, String, Vec<u32>, Option<bool>)) {
            let bytes = encode(&value);
            prop_assert_eq!(bytes.len(), encoded_len(&value));
            prop_assert_eq!(decode::<(u64, String, Vec<u32>, Option<bool>)>(&bytes, bytes.len()), Ok(value));
        }

        #[test]
        fn whatever_decodes_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode::<(u64, BTreeMap<u8, u16>)>(&bytes, 64) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }
    }

    #[test]
    fn other_spellings_of_a_value_are_refused() {
        // 0 as a two-byte varint, a map with its keys out of order, and an extra byte.
        assert_eq!(decode::<u64>(&[VERSION, 0x80, 0x00], 9), Err(DecodeError::NotCanonical));
        let unordered = [VERSION, 2, 5, 0, 4, 0];
        assert_eq!(
            decode::<BTreeMap<u8, u8>>(&unordered, 9).map(|_| ()),
            Err(DecodeError::NotCanonical)
        );
        assert_eq!(decode::<u8>(&[VERSION, 3, 3], 9), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn each_error_says_why() {
        assert_eq!(decode::<u8>(&[], 9), Err(DecodeError::Empty));
        assert_eq!(decode::<u8>(&[9, 1], 9), Err(DecodeError::Version { found: 9 }));
        assert_eq!(decode::<u8>(&[1; 9], 2), Err(DecodeError::TooLong { length: 9, limit: 2 }));
        assert_eq!(decode::<Vec<u8>>(&[VERSION, 200, 1, 1], 9), Err(DecodeError::Malformed));
        assert!(decode::<Vec<u64>>(&[0xff; 12], 99).is_err());
    }
}
