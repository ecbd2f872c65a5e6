//! Commands of `sim` that are long enough for a module of their own.

pub(crate) mod shrink;
