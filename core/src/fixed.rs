//! Fixed-point numbers: logarithms, roots and powers of two without floating point.
//!
//! Protocol rules name logarithms ("log10 of the number of members"). Floats differ between targets in the last bit,
//! and one bit is enough to make two runs of one seed differ; integers do not. `tests/tests/fixed_floats.rs` compares
//! with floats.
//!
//! This module has no signed numbers, and no functions that no protocol needs.

/// An unsigned fixed-point number: 32 bits before the point, 32 after it. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fixed(u64);

/// Bits after the point.
const FRACTION_BITS: u32 = 32;

/// log10(2) with 64 bits after the point.
const LOG10_OF_2: u128 = 0x4d10_4d42_7de7_fbcc;

/// 2^(1/2), 2^(1/4), ... with 62 bits after the point. Each is the root of the previous one.
const ROOTS_OF_2: [u64; FRACTION_BITS as usize] = roots_of_2();

const fn roots_of_2() -> [u64; FRACTION_BITS as usize] {
    let mut roots = [0; FRACTION_BITS as usize];
    let mut last: u128 = 2 << 62;
    let mut at = 0;
    while at < roots.len() {
        last = (last << 62).isqrt();
        roots[at] = last as u64;
        at += 1;
    }
    roots
}

impl Fixed {
    /// The number 0.
    pub const ZERO: Self = Self(0);
    /// The number 1.
    pub const ONE: Self = Self(1 << FRACTION_BITS);
    /// The largest number, just below 2^32.
    pub const MAX: Self = Self(u64::MAX);

    /// A whole number.
    #[must_use]
    pub const fn from_int(n: u32) -> Self {
        Self((n as u64) << FRACTION_BITS)
    }

    /// A number from its raw bits, in units of 2^-32.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The raw bits, in units of 2^-32.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// `n / d`, truncated; the largest number when it does not fit or `d` is 0.
    #[must_use]
    pub const fn ratio(n: u64, d: u64) -> Self {
        if d == 0 {
            return Self::MAX;
        }
        Self::saturate(((n as u128) << FRACTION_BITS) / d as u128)
    }

    /// `self / other`, truncated; the largest number when it does not fit or `other` is 0.
    #[must_use]
    pub const fn over(self, other: Self) -> Self {
        Self::ratio(self.0, other.0)
    }

    /// `self * n`, truncated to a whole number; saturates.
    #[must_use]
    pub const fn of(self, n: u64) -> u64 {
        let product = (self.0 as u128 * n as u128) >> FRACTION_BITS;
        if product > u64::MAX as u128 { u64::MAX } else { product as u64 }
    }

    /// The number rounded up to a whole one.
    #[must_use]
    pub const fn ceil(self) -> u64 {
        self.0.div_ceil(1 << FRACTION_BITS)
    }

    /// The base-2 logarithm of a whole number; zero for 0. Too small by less than 2^-31.
    #[must_use]
    pub const fn log2(n: u64) -> Self {
        if n == 0 {
            return Self::ZERO;
        }
        let whole = n.ilog2();
        // The mantissa in [1, 2) with 63 bits after the point. Squaring it doubles its logarithm, so the next bit of
        // the result says whether the square reaches 2.
        let mut mantissa = (n as u128) << (63 - whole);
        let mut bits = whole as u64;
        let mut left = FRACTION_BITS;
        while left > 0 {
            mantissa = (mantissa * mantissa) >> 63;
            let carry = mantissa >> 64;
            mantissa >>= carry;
            bits = bits << 1 | carry as u64;
            left -= 1;
        }
        Self(bits)
    }

    /// The base-10 logarithm of a whole number; zero for 0. Too small by less than 2^-31.
    #[must_use]
    pub const fn log10(n: u64) -> Self {
        Self(((Self::log2(n).0 as u128 * LOG10_OF_2) >> 64) as u64)
    }

    /// The square root. Too small by less than 2^-32.
    #[must_use]
    pub const fn sqrt(self) -> Self {
        Self(((self.0 as u128) << FRACTION_BITS).isqrt() as u64)
    }

    /// Two to this power; saturates from 32 on. Too small by less than one part in 2^31 and 2^-32.
    #[must_use]
    pub const fn exp2(self) -> Self {
        let whole = (self.0 >> FRACTION_BITS) as u32;
        if whole >= FRACTION_BITS {
            return Self::MAX;
        }
        // 62 bits after the point leave room for a product just below 2.
        let mut power: u128 = 1 << 62;
        let mut at = 0;
        while at < FRACTION_BITS {
            if self.0 >> (FRACTION_BITS - 1 - at) & 1 == 1 {
                power = (power * ROOTS_OF_2[at as usize] as u128) >> 62;
            }
            at += 1;
        }
        Self::saturate((power << whole) >> (62 - FRACTION_BITS))
    }

    const fn saturate(bits: u128) -> Self {
        if bits > u64::MAX as u128 { Self::MAX } else { Self(bits as u64) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn roots_are_exact(bits: u64) {
            let root = u128::from(Fixed::from_bits(bits).sqrt().to_bits());
            let square = u128::from(bits) << 32;
            prop_assert!(root * root <= square && square < (root + 1) * (root + 1));
        }

        #[test]
        fn logarithms_grow(a: u64, b: u64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(Fixed::log2(low) <= Fixed::log2(high));
            prop_assert!(Fixed::log10(low) <= Fixed::log10(high));
        }

        #[test]
        fn products_and_ratios_agree_with_wide_integers(n: u64, d: u64, bits: u64) {
            let wide = (u128::from(n) << 32).checked_div(u128::from(d)).unwrap_or(u128::MAX);
            let ratio = u64::try_from(wide).unwrap_or(u64::MAX);
            prop_assert_eq!(Fixed::ratio(n, d).to_bits(), ratio);
            let product = u64::try_from((u128::from(bits) * u128::from(n)) >> 32).unwrap_or(u64::MAX);
            prop_assert_eq!(Fixed::from_bits(bits).of(n), product);
        }
    }

    #[test]
    fn whole_values_are_exact() {
        assert_eq!(Fixed::log2(0), Fixed::ZERO);
        assert_eq!(Fixed::log2(1), Fixed::ZERO);
        assert_eq!(Fixed::log2(1024), Fixed::from_int(10));
        assert_eq!(Fixed::from_int(3).exp2(), Fixed::from_int(8));
        assert_eq!(Fixed::from_int(32).exp2(), Fixed::MAX);
        assert_eq!(Fixed::from_int(144).sqrt(), Fixed::from_int(12));
        assert_eq!(Fixed::log10(1000).ceil(), 3);
        assert_eq!(Fixed::ratio(7, 2).ceil(), 4);
        assert_eq!(Fixed::ONE.over(Fixed::ZERO), Fixed::MAX);
    }
}
