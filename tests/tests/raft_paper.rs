//! One test a sentence of the Raft paper.

#[test]
fn placeholder() {}
