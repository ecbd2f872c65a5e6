//! Counted maps: owners of memory, and the bytes of all of them together.
//!
//! The bytes of all values are kept, not summed: a question costs as much as the number of values that were borrowed
//! since the last [`CountedMap::settle`], whatever the number of values. Nobody can forget to report a change, because
//! every mutable borrow is noted. This module does not know what a value's bytes are.

use alloc::collections::btree_map::Range;
use alloc::collections::{BTreeMap, BTreeSet};
use core::ops::RangeBounds;

use crate::mutant;

/// A value that knows how many bytes of memory it takes, at once and not by counting.
pub trait Weighed {
    /// Bytes of memory.
    fn bytes(&self) -> u64;
}

/// A value with the bytes that the total has of it.
#[derive(Debug)]
struct Slot<V> {
    value: V,
    counted: u64,
    is_touched: bool,
}

/// An ordered map that keeps the bytes of all its values.
#[derive(Debug)]
pub struct CountedMap<K, V> {
    slots: BTreeMap<K, Slot<V>>,
    /// The keys that were borrowed to change since the map was last settled.
    touched: BTreeSet<K>,
    /// The counted bytes of all slots.
    total: u64,
}

impl<K, V> Default for CountedMap<K, V> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), touched: BTreeSet::new(), total: 0 }
    }
}

impl<K: Copy + Ord, V: Weighed> CountedMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots.get_mut(key)?;
        if !slot.is_touched {
            slot.is_touched = true;
            self.touched.insert(*key);
        }
        Some(&mut slot.value)
    }

    /// Whether there is a value of this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.slots.contains_key(key)
    }

    /// Inserts a value in place of the one of the same key.
    pub fn insert(&mut self, key: K, value: V) {
        drop(self.remove(&key));
        let counted = value.bytes();
        self.total += counted;
        self.slots.insert(key, Slot { value, counted, is_touched: false });
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slots.remove(key)?;
        if slot.is_touched {
            self.touched.remove(key);
        }
        self.total -= slot.counted;
        Some(slot.value)
    }

    /// All keys and values, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// The keys and values in a range, in order.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        let range: Range<'_, K, Slot<V>> = self.slots.range(range);
        range.map(|(key, slot)| (key, &slot.value))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.slots.keys()
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.slots.values().map(|slot| &slot.value)
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The bytes of all values.
    pub fn bytes(&self) -> u64 {
        let touched = self.touched.iter().filter_map(|key| self.slots.get(key));
        touched.fold(self.total, |total, slot| total - slot.counted + slot.value.bytes())
    }

    /// The same by a sum over all values: what [`Self::bytes`] must say.
    pub fn recounted(&self) -> u64 {
        self.values().map(Weighed::bytes).sum()
    }

    /// Changes all values, each at its turn.
    pub fn each_mut(&mut self, mut each: impl FnMut(&K, &mut V)) {
        for (key, slot) in &mut self.slots {
            each(key, &mut slot.value);
            let bytes = slot.value.bytes();
            self.total = self.total - slot.counted + bytes;
            slot.counted = bytes;
        }
    }

    /// Counts what changed since the last time, and shows each value that was borrowed to change.
    pub fn settle(&mut self, mut each: impl FnMut(K, &mut V)) {
        while let Some(key) = self.touched.pop_first() {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            slot.is_touched = false;
            each(key, &mut slot.value);
            let bytes = slot.value.bytes();
            if mutant!("node.memory.growth_uncounted") && bytes > slot.counted {
                continue;
            }
            self.total = self.total - slot.counted + bytes;
            slot.counted = bytes;
        }
    }
}

impl<K: Copy + Ord, V: Weighed> FromIterator<(K, V)> for CountedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        let mut map = Self::default();
        all.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    impl Weighed for u64 {
        fn bytes(&self) -> u64 {
            *self
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u64),
        Change(u8, u64),
        Remove(u8),
        Settle,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..8u8, 0..100u64).prop_map(|(key, value)| Step::Insert(key, value)),
            (0..8u8, 0..100u64).prop_map(|(key, value)| Step::Change(key, value)),
            (0..8u8).prop_map(Step::Remove),
            Just(Step::Settle),
        ]
    }

    proptest! {
        #[test]
        fn the_kept_bytes_are_the_sum_after_every_change(steps in prop::collection::vec(step(), 0..64)) {
            let mut map = CountedMap::default();
            for step in steps {
                match step {
                    Step::Insert(key, value) => map.insert(key, value),
                    Step::Change(key, value) => {
                        if let Some(known) = map.get_mut(&key) {
                            *known = value;
                        }
                    }
                    Step::Remove(key) => drop(map.remove(&key)),
                    Step::Settle => map.settle(|_, _| {}),
                }
                prop_assert_eq!(map.bytes(), map.recounted());
            }
        }
    }

    #[test]
    fn settling_shows_each_borrowed_value_once() {
        let mut map: CountedMap<u8, u64> = [(1, 10), (2, 20), (3, 30)].into_iter().collect();
        for to in [7, 8] {
            *map.get_mut(&2).expect("it is there") = to;
        }
        let mut seen = Vec::new();
        map.settle(|key, value| seen.push((key, *value)));
        map.settle(|key, value| seen.push((key, *value)));
        assert_eq!((seen, map.bytes()), ([(2, 8)].to_vec(), 48));
    }
}
