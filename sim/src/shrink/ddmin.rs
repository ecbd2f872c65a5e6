//! Delta debugging: reduces a list that fails until no part can be left out (Zeller and Hildebrandt 2002, ddmin).
//!
//! As in most implementations, only complements are tried: leaving out the other parts finds a subset that fails alone.
//! This module does not know what the items are.

/// The smallest list found for which `fails` still holds. Each try leaves out a part of the list; the smallest part is
/// one of `parts`, or a single item if there are more parts than items. The tried lists become smaller and smaller.
/// `fails` may return false from some time on to end the search: the best list so far is returned.
pub(crate) fn ddmin<T: Clone>(
    mut items: Vec<T>,
    parts: usize,
    mut fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let shortest = items.len().div_ceil(parts);
    let mut length = items.len().div_ceil(2);
    loop {
        let (mut start, mut smaller) = (0, false);
        while start < items.len() && items.len() >= 2 {
            let end = (start + length).min(items.len());
            let rest: Vec<T> = items[..start].iter().chain(&items[end..]).cloned().collect();
            if !rest.is_empty() && fails(&rest) {
                // The following items moved to `start`: continue there.
                (items, smaller) = (rest, true);
            } else {
                start = end;
            }
        }
        if length > shortest {
            length = length.min(items.len()).div_ceil(2).max(shortest);
        } else if !smaller {
            return items;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shrinks 0..n for a predicate; returns the rest, and how often the predicate was called.
    fn shrink(n: u32, fails: impl Fn(&[u32]) -> bool) -> (Vec<u32>, u32) {
        let mut asked = 0;
        let left = ddmin((0..n).collect(), usize::MAX, |items| {
            asked += 1;
            fails(items)
        });
        (left, asked)
    }

    #[test]
    fn only_the_needed_items_are_left() {
        for n in [1_u32, 2, 3, 7, 64, 1000] {
            for wanted in [vec![0], vec![n - 1], vec![n / 2], vec![0, n / 3, n - 1]] {
                let wanted: std::collections::BTreeSet<u32> = wanted.into_iter().collect();
                let (left, _) = shrink(n, |items| wanted.iter().all(|w| items.contains(w)));
                assert_eq!(left, wanted.into_iter().collect::<Vec<_>>(), "of {n}");
            }
        }
    }

    #[test]
    fn one_of_many_costs_little() {
        let (left, asked) = shrink(1024, |items| items.contains(&700));
        assert_eq!(left, [700]);
        assert!(asked < 40, "asked {asked} times");
    }

    #[test]
    fn coarse_parts_are_not_divided_further() {
        let mut asked = 0;
        let left = ddmin((0..1024).collect(), 8, |items: &[u32]| {
            asked += 1;
            items.contains(&700)
        });
        assert_eq!(left, (640..768).collect::<Vec<_>>());
        assert!(asked < 12, "asked {asked} times");
    }

    #[test]
    fn a_failure_that_needs_no_item_leaves_none() {
        assert_eq!(shrink(10, |_| true).0, Vec::<u32>::new());
        assert_eq!(shrink(0, |_| true), (Vec::new(), 0));
    }

    #[test]
    fn a_predicate_that_is_not_monotone_ends_at_a_local_minimum() {
        // Fails with an even number of items among which is 3: no single item can be left out.
        let fails = |items: &[u32]| items.contains(&3) && items.len().is_multiple_of(2);
        let (left, _) = shrink(16, fails);
        assert!(fails(&left));
        for at in 0..left.len() {
            let mut fewer = left.clone();
            fewer.remove(at);
            assert!(!fails(&fewer));
        }
    }

    #[test]
    fn a_budget_that_ends_leaves_the_best_so_far() {
        let mut budget = 5;
        let left = ddmin((0..100).collect(), usize::MAX, |items: &[u32]| {
            budget -= i32::from(budget > 0);
            budget > 0 && items.contains(&90)
        });
        assert!(left.contains(&90) && left.len() < 100);
    }
}
