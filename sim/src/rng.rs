//! Positional random numbers: the k-th draw of a stream depends on (seed, stream, k) and on nothing else.
//!
//! So removing a fault, a client or a message leaves all other draws unchanged, which makes a failing plan shrinkable.
//! The mixing is fast, not cryptographic: this module does not make keys or nonces for real nodes.

/// The random numbers of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    seed: u64,
}

impl Draws {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed: mix(seed ^ 0x636f_6e74_696e_7575) }
    }

    /// 64 uniform bits: draw number `k` of a stream.
    pub(crate) const fn bits(self, stream: u64, k: u64) -> u64 {
        mix(self.seed ^ mix(stream.wrapping_add(mix(k))))
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub(crate) const fn below(self, stream: u64, k: u64, bound: u64) -> u64 {
        ((self.bits(stream, k) as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `low` to `high`, both included; `low` when the range is empty.
    pub(crate) const fn between(self, stream: u64, k: u64, low: u64, high: u64) -> u64 {
        low + self.below(stream, k, high.saturating_sub(low).saturating_add(1))
    }

    /// True with probability `ppm` per million.
    pub(crate) const fn chance(self, stream: u64, k: u64, ppm: u64) -> bool {
        ppm > 0 && self.below(stream, k, 1_000_000) < ppm
    }

    /// A generator that takes consecutive draws from a stream of its own.
    pub(crate) const fn dice(self, stream: u64) -> Dice {
        Dice { draws: self, stream, k: 0 }
    }
}

/// The id of a stream: a label, and a number that tells its instances apart.
pub(crate) const fn stream(label: &str, instance: u64) -> u64 {
    let bytes = label.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash ^ mix(instance.wrapping_add(1))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit affects every output bit.
pub(crate) const fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Consecutive draws from one stream.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    draws: Draws,
    stream: u64,
    k: u64,
}

impl Dice {
    pub(crate) const fn bits(&mut self) -> u64 {
        self.k += 1;
        self.draws.bits(self.stream, self.k)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    pub(crate) const fn chance(&mut self, ppm: u64) -> bool {
        self.below(1_000_000) < ppm
    }

    /// One of the items.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_its_position_alone() {
        let draws = Draws::new(7);
        let (a, b) = (stream("a", 0), stream("b", 0));
        let before: Vec<u64> = (0..8).map(|k| draws.bits(a, k)).collect();
        let _ = draws.bits(b, 3);
        assert_eq!(before, (0..8).map(|k| draws.bits(a, k)).collect::<Vec<_>>());
        assert_ne!(draws.bits(a, 0), draws.bits(b, 0));
        assert_ne!(draws.bits(a, 0), Draws::new(8).bits(a, 0));
        assert_ne!(stream("a", 0), stream("a", 1));
    }

    #[test]
    fn rates_are_as_stated() {
        let draws = Draws::new(1);
        let hits = (0..100_000).filter(|k| draws.chance(5, *k, 100_000)).count();
        assert!((9_000..11_000).contains(&hits), "{hits}");
        assert!((0..1000).all(|k| !draws.chance(5, k, 0)));
        assert!((0..1000).all(|k| (3..=5).contains(&draws.between(6, k, 3, 5))));
    }
}
