//! A cursor over bytes in postcard's format.
//!
//! Numbers above a byte are in groups of 7 bits, the lowest first, with the high bit set in all bytes but the last.
//! Signed numbers are zigzagged first. Byte strings and lists begin with their length, options with 0 or 1, variants
//! with their number. This module does not know what the values mean.

use bytes::Bytes;
use continuum_core::id::{Actor, Boot, Dot, NamespaceId, NodeId, Replica, ShardId, StoreId};

/// The bytes that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left.
    pub(super) const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes of a known number, without a length.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if group << shift >> shift != group {
                return None;
            }
            value |= group << shift;
            if byte < 0x80 {
                let is_shortest = byte != 0 || shift == 0;
                return is_shortest.then_some(value);
            }
        }
        None
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.u64()?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.u64()?.try_into().ok()
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        let zigzagged = self.u64()?;
        let magnitude = (zigzagged >> 1) as i64;
        Some(if zigzagged & 1 == 0 { magnitude } else { !magnitude })
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u64()?;
        self.take(length.try_into().ok()?)
    }

    pub(super) fn owned(&mut self) -> Option<Bytes> {
        self.bytes().map(Bytes::copy_from_slice)
    }

    pub(super) fn option<T>(
        &mut self,
        item: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.bool()? { item(self).map(Some) } else { Some(None) }
    }

    /// A list. It reserves nothing in advance, so a long list that is not there costs nothing.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let length = self.u64()?;
        (0..length).map(|_| item(self)).collect()
    }

    pub(super) fn actor(&mut self) -> Option<Actor> {
        let replica = Replica { node: NodeId(self.array()?), store: StoreId(self.array()?) };
        Some(Actor { replica, boot: Boot { count: self.u64()?, nonce: self.u64()? } })
    }

    pub(super) fn dot(&mut self) -> Option<Dot> {
        Some(Dot { actor: self.actor()?, seq: self.u64()? })
    }

    pub(super) fn shard(&mut self) -> Option<ShardId> {
        Some(ShardId { namespace: NamespaceId(self.u32()?), slot: self.u16()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader(bytes);
            reader.u64().filter(|_| reader.is_at_end())
        };
        assert_eq!(read(&[0]), Some(0));
        assert_eq!(read(&[0x7f]), Some(127));
        assert_eq!(read(&[0x80, 1]), Some(128));
        assert_eq!(read(&[0xac, 2]), Some(300));
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read(&most), Some(u64::MAX));
        assert_eq!(read(&[0x80, 0]), None, "nought in two bytes");
        assert_eq!(read(&[0x80]), None, "it ends early");
        let more = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(read(&more), None, "more than 64 bits");
        assert_eq!(read(&[0xff; 11]), None);
    }

    #[test]
    fn signed_numbers_options_and_lists_are_read() {
        let signed = |bytes: &[u8]| Reader(bytes).i64();
        assert_eq!([signed(&[0]), signed(&[1]), signed(&[2])], [Some(0), Some(-1), Some(1)]);
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(signed(&least), Some(i64::MIN));
        assert_eq!(Reader(&[1, 5]).option(Reader::byte), Some(Some(5)));
        assert_eq!(Reader(&[0]).option(Reader::byte), Some(None));
        assert_eq!(Reader(&[2]).option(Reader::byte), None);
        assert_eq!(Reader(&[2, 1, 9]).list(Reader::byte), Some(vec![1, 9]));
        assert_eq!(Reader(&[3, 1, 9]).list(Reader::byte), None);
        assert_eq!(Reader(&[2, 1]).bytes(), None);
    }
}
