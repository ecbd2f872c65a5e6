//! An ordered map that can be read in slices as it was at one moment, while it goes on changing.
//!
//! At rest the map is one tree. A view shares that tree; while the view lives, changes go to an overlay. When the view
//! is gone the overlay is merged back, a few entries with each change, and more on request. So taking a view, writing
//! beside it and ending it each cost only what they touch, whatever the size of the map.
//!
//! There is one level of overlay only: a new view waits until the last one is merged.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map;
use alloc::sync::Arc;
use core::iter::Peekable;
use core::ops::Bound;

use crate::reach;

/// Overlay entries merged back with each change: more than one, so that the overlay shrinks.
const MERGE_PER_CHANGE: usize = 8;

/// The tree as it was when a view was taken.
pub type View<K, V> = Arc<BTreeMap<K, V>>;

/// An ordered map with views of earlier states.
#[derive(Debug)]
pub struct SnapshotMap<K, V> {
    base: Arc<BTreeMap<K, V>>,
    /// Changes since the base was shared; `None` for a removed key.
    overlay: BTreeMap<K, Option<V>>,
    length: usize,
}

impl<K, V> Default for SnapshotMap<K, V> {
    fn default() -> Self {
        Self { base: Arc::default(), overlay: BTreeMap::new(), length: 0 }
    }
}

/// Copies the tree, in O(n): a shared tree would keep both maps from merging.
impl<K: Ord + Clone, V: Clone> Clone for SnapshotMap<K, V> {
    fn clone(&self) -> Self {
        Self::from_tree(self.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl<K: Ord + Clone, V: Clone> SnapshotMap<K, V> {
    /// A map of these entries.
    #[must_use]
    pub fn from_tree(tree: BTreeMap<K, V>) -> Self {
        Self { length: tree.len(), base: Arc::new(tree), overlay: BTreeMap::new() }
    }

    /// The number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the map has no keys.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        // At rest, the usual case, one tree is searched.
        if self.overlay.is_empty() {
            return self.base.get(key);
        }
        match self.overlay.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.base.get(key),
        }
    }

    /// Sets the value of a key, and returns the previous one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.put(key, Some(value));
        self.length += usize::from(before.is_none());
        before
    }

    /// Removes the value of a key, and returns it.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // An absent key needs no entry in the overlay.
        self.get(key)?;
        let before = self.put(key.clone(), None);
        self.length -= usize::from(before.is_some());
        before
    }

    fn put(&mut self, key: K, value: Option<V>) -> Option<V> {
        self.merge_overlay(MERGE_PER_CHANGE);
        let Some(base) = Arc::get_mut(&mut self.base) else {
            reach!("state.snapshot_map.overlaid");
            let held = self.base.get(&key);
            return match self.overlay.entry(key) {
                btree_map::Entry::Occupied(mut changed) => changed.insert(value),
                btree_map::Entry::Vacant(unchanged) => {
                    unchanged.insert(value);
                    held.cloned()
                }
            };
        };
        let changed = if self.overlay.is_empty() { None } else { self.overlay.remove(&key) };
        let held = match value {
            Some(value) => base.insert(key, value),
            None => base.remove(&key),
        };
        changed.unwrap_or(held)
    }

    /// Merges at most `entries_max` overlay entries back, if no view is left. Returns true when none remain and a view
    /// can be taken.
    pub fn merge_overlay(&mut self, entries_max: usize) -> bool {
        if self.overlay.is_empty() {
            return true;
        }
        let Some(base) = Arc::get_mut(&mut self.base) else { return false };
        for _ in 0..entries_max {
            match self.overlay.pop_first() {
                None => break,
                Some((key, Some(value))) => drop(base.insert(key, value)),
                Some((key, None)) => drop(base.remove(&key)),
            }
        }
        reach!("state.snapshot_map.merged");
        self.overlay.is_empty()
    }

    /// A view of the map as it is now. `None` while changes made beside the last view are not merged.
    #[must_use]
    pub fn view(&self) -> Option<View<K, V>> {
        self.overlay.is_empty().then(|| Arc::clone(&self.base))
    }

    /// All entries in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.iter_from(Bound::Unbounded)
    }

    /// The entries from a key on, in order.
    pub fn iter_from(&self, from: Bound<&K>) -> Iter<'_, K, V> {
        let range = (from, Bound::Unbounded);
        Iter {
            base: self.base.range::<K, _>(range).peekable(),
            overlay: self.overlay.range::<K, _>(range).peekable(),
        }
    }
}

/// The entries of base and overlay together, in order.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    base: Peekable<btree_map::Range<'a, K, V>>,
    overlay: Peekable<btree_map::Range<'a, K, Option<V>>>,
}

impl<'a, K: Ord, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((changed, _)) = self.overlay.peek() else { return self.base.next() };
            if self.base.peek().is_some_and(|(held, _)| held < changed) {
                return self.base.next();
            }
            // The overlay overrides the base.
            self.base.next_if(|(held, _)| held == changed);
            if let Some((key, Some(value))) = self.overlay.next() {
                return Some((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u16),
        Remove(u8),
        View,
        Drop,
        Merge(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<u8>(), any::<u16>()).prop_map(|(key, value)| Step::Insert(key % 40, value)),
            4 => any::<u8>().prop_map(|key| Step::Remove(key % 40)),
            1 => Just(Step::View),
            1 => Just(Step::Drop),
            1 => (0..9_usize).prop_map(Step::Merge),
        ]
    }

    proptest! {
        #[test]
        fn it_equals_a_plain_map_and_a_view_never_changes(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut map, mut model) = (SnapshotMap::default(), BTreeMap::new());
            let mut view = None;
            for step in steps {
                match step {
                    Step::Insert(key, value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Step::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Step::View if view.is_none() => {
                        prop_assert_eq!(map.view().is_some(), map.overlay.is_empty());
                        view = map.view().map(|view| (view, model.clone()));
                    }
                    Step::View => {}
                    Step::Drop => view = None,
                    Step::Merge(count) => prop_assert_eq!(map.merge_overlay(count), map.view().is_some()),
                }
                if let Some((view, then)) = &view {
                    prop_assert_eq!(&**view, then);
                }
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(map.iter().eq(model.iter()));
                for from in [0, 7, 39] {
                    prop_assert_eq!(map.get(&from), model.get(&from));
                    let ours: Vec<_> = map.iter_from(Bound::Excluded(&from)).collect();
                    let theirs: Vec<_> = model.range((Bound::Excluded(from), Bound::Unbounded)).collect();
                    prop_assert_eq!(ours, theirs);
                }
            }
            drop(view);
            prop_assert!(map.merge_overlay(usize::MAX) && map.view().is_some());
        }
    }

    #[test]
    fn changes_alone_merge_the_overlay() {
        let mut map = SnapshotMap::default();
        let view = map.view();
        for key in 0..800 {
            map.insert(key, key);
        }
        drop(view);
        for key in 800..900 {
            assert!(map.view().is_none());
            map.insert(key, key);
        }
        assert!(map.view().is_some_and(|view| view.len() == 900));
    }
}
