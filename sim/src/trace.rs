//! The trace of a run: a SHA-256 chain over time, node, event and actions, with links that locate the first difference
//! between two runs.
//!
//! An event adds a few dozen bytes, whatever it carries: a message enters as a fingerprint of all its fields. The
//! fingerprint is fast, not cryptographic, because nobody attacks a simulator.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Events between two links of the chain. Each link adds a digest of the whole state of one node, each node in turn.
pub(crate) const LINK_EVENTS: u64 = 1024;
const BUFFER_BYTES: usize = 8192;

/// The chain so far.
#[derive(Debug)]
pub(crate) struct Trace {
    sha: Sha256,
    buffer: Vec<u8>,
    pub(crate) events: u64,
    /// The first eight bytes of the chain after each `LINK_EVENTS` events.
    links: Vec<u64>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            sha: Sha256::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 64),
            events: 0,
            links: Vec::new(),
        }
    }

    /// A node receives an event.
    pub(crate) fn event(&mut self, at: u64, node: usize, tag: u8, fingerprint: u64) {
        self.events += 1;
        let mut entry = [0xe0; 19];
        entry[..8].copy_from_slice(&at.to_le_bytes());
        (entry[9], entry[10]) = (node as u8, tag);
        entry[11..].copy_from_slice(&fingerprint.to_le_bytes());
        self.buffer.extend_from_slice(&entry);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// The node emits an action.
    pub(crate) fn action(&mut self, tag: u8, fingerprint: u64) {
        let mut entry = [tag; 9];
        entry[1..].copy_from_slice(&fingerprint.to_le_bytes());
        self.buffer.extend_from_slice(&entry);
    }

    /// Whether a link is due.
    pub(crate) const fn is_link(&self) -> bool {
        self.events.is_multiple_of(LINK_EVENTS)
    }

    /// The number of links so far.
    pub(crate) const fn links(&self) -> usize {
        self.links.len()
    }

    /// Adds a link with the digest of a node's whole state.
    pub(crate) fn link(&mut self, state: [u8; 32]) {
        self.buffer.extend_from_slice(&state);
        self.flush();
        let so_far: [u8; 32] = self.sha.clone().finalize().into();
        let mut short = [0; 8];
        short.copy_from_slice(&so_far[..8]);
        self.links.push(u64::from_be_bytes(short));
    }

    /// The whole chain as hexadecimal digits, and its links.
    pub(crate) fn finish(mut self) -> (String, Vec<u64>) {
        self.flush();
        let digest: [u8; 32] = self.sha.finalize().into();
        (digest.iter().map(|byte| format!("{byte:02x}")).collect(), self.links)
    }

    fn flush(&mut self) {
        self.sha.update(&self.buffer);
        self.buffer.clear();
    }
}

/// A number that depends on every field of a value.
pub(crate) fn fingerprint<T: Serialize + ?Sized>(value: &T) -> u64 {
    let mut mixer = Mixer::default();
    // Our types always serialize. If one did not, its fingerprint would cover the part that did.
    let _ = value.serialize(&mut mixer);
    mixer.finish()
}

/// Mixes two numbers by folding their product (as wyhash does).
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = (a ^ 0xa076_1d64_78bd_642f) as u128 * (b ^ 0xe703_7ed1_a0b4_28db) as u128;
    product as u64 ^ (product >> 64) as u64
}

/// A serializer that keeps only a hash.
#[derive(Default)]
struct Mixer {
    state: u64,
    /// Single bytes, collected into words: an id is sixteen of them.
    bytes: u64,
    count: u32,
}

impl Mixer {
    fn add(&mut self, word: u64) {
        if self.count > 0 {
            self.state = fold(self.state, self.bytes);
            (self.bytes, self.count) = (0, 0);
        }
        self.state = fold(self.state, word);
    }

    fn add_byte(&mut self, byte: u8) {
        self.bytes = self.bytes << 8 | u64::from(byte);
        self.count += 1;
        if self.count == 8 {
            self.state = fold(self.state, self.bytes);
            (self.bytes, self.count) = (0, 0);
        }
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            self.state = fold(self.state, u64::from_le_bytes(eight));
        }
        words.remainder().iter().for_each(|byte| self.add_byte(*byte));
    }

    fn finish(mut self) -> u64 {
        self.add(0);
        self.state
    }
}

macro_rules! numbers {
    ($($method:ident($number:ty)),* $(,)?) => {
        $(fn $method(self, value: $number) -> Result<(), fmt::Error> {
            self.add(value as u64);
            Ok(())
        })*
    };
}

/// Every compound kind of serde's data model: its parts are mixed one after the other.
macro_rules! compounds {
    ($($kind:ident::$method:ident),* $(,)?) => {
        $(impl serde::ser::$kind for &mut Mixer {
            type Ok = ();
            type Error = fmt::Error;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })*
    };
}

compounds!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

/// The kinds with named fields: the names belong to the type and need no mixing.
macro_rules! structs {
    ($($kind:ident),* $(,)?) => {
        $(impl serde::ser::$kind for &mut Mixer {
            type Ok = ();
            type Error = fmt::Error;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);

impl serde::ser::SerializeMap for &mut Mixer {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), fmt::Error> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

impl serde::Serializer for &mut Mixer {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers!(
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_bool(bool),
        serialize_char(char),
    );

    fn serialize_u8(self, value: u8) -> Result<(), fmt::Error> {
        self.add_byte(value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), fmt::Error> {
        self.add(value as u64);
        self.add((value >> 64) as u64);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), fmt::Error> {
        self.add(value as u64);
        self.add((value >> 64) as u64);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), fmt::Error> {
        self.add(u64::from(value.to_bits()));
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), fmt::Error> {
        self.add(value.to_bits());
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), fmt::Error> {
        self.add_bytes(value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), fmt::Error> {
        self.add_bytes(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        self.add(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), fmt::Error> {
        self.add(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
    ) -> Result<(), fmt::Error> {
        self.add(u64::from(variant));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        self.add(u64::from(variant));
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, fmt::Error> {
        self.add(length.unwrap_or(0) as u64);
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.add(u64::from(variant));
        Ok(self)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self, fmt::Error> {
        self.add(length.unwrap_or(0) as u64);
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.add(u64::from(variant));
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::id::{NodeId, Term};

    use super::*;

    #[test]
    fn a_fingerprint_sees_every_field() {
        let base = (NodeId([1; 16]), Term(3), Some(vec![1_u64, 2]), "ab");
        let mut other = base.0;
        other.0[15] = 2;
        let whole = fingerprint(&base);
        assert_eq!(whole, fingerprint(&base.clone()));
        assert_ne!(whole, fingerprint(&(other, base.1, base.2.clone(), base.3)));
        assert_ne!(whole, fingerprint(&(base.0, Term(4), base.2.clone(), base.3)));
        assert_ne!(whole, fingerprint(&(base.0, base.1, Some(vec![2_u64, 1]), base.3)));
        assert_ne!(whole, fingerprint(&(base.0, base.1, None::<Vec<u64>>, base.3)));
        assert_ne!(whole, fingerprint(&(base.0, base.1, base.2.clone(), "ba")));
        assert_ne!(fingerprint(&[0_u8; 3][..]), fingerprint(&[0_u8; 4][..]));
    }

    #[test]
    fn the_chain_depends_on_order() {
        let chain = |tags: [u8; 2]| {
            let mut trace = Trace::new();
            tags.iter().for_each(|tag| trace.event(5, 0, *tag, 7));
            trace.finish().0
        };
        assert_eq!(chain([1, 2]), chain([1, 2]));
        assert_ne!(chain([1, 2]), chain([2, 1]));
    }
}
