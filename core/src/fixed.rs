//! Fixed-point integers: logarithms and roots without floating point.
