//! Fixed-point logarithms and powers compared with floating point. The core and its own tests use no floating point.

use continuum_core::fixed::Fixed;
use proptest::prelude::*;

const UNIT: f64 = 1.0 / 4_294_967_296.0;

fn float(x: Fixed) -> f64 {
    x.to_bits() as f64 * UNIT
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn logarithms_are_within_their_bound(n in 1..u64::MAX, shift in 0..64_u32) {
        let n = (n >> shift).max(1);
        // The error of the float itself is about 1e-14 at 64.
        let slack = 1e-13;
        let log2 = (n as f64).log2() - float(Fixed::log2(n));
        prop_assert!((-slack..2.0 * UNIT + slack).contains(&log2), "log2({n}) off by {log2}");
        let log10 = (n as f64).log10() - float(Fixed::log10(n));
        prop_assert!((-slack..2.0 * UNIT + slack).contains(&log10), "log10({n}) off by {log10}");
    }

    #[test]
    fn powers_are_within_their_bound(bits in 0..(32_u64 << 32)) {
        let x = Fixed::from_bits(bits);
        let (ours, theirs) = (float(x.exp2()), float(x).exp2());
        prop_assert!(ours <= theirs * (1.0 + 1e-13), "2^{} = {theirs}, not {ours}", float(x));
        prop_assert!(theirs - ours < theirs * 2.0 * UNIT + UNIT, "2^{} = {theirs}, not {ours}", float(x));
    }
}
