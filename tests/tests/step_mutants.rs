//! Planted bugs of long work: what is captured, restored or freed goes in slices, and keeps no memory beside its own.
//! Each scenario passes without its mutant and fails with it.
//!
//! The active mutant is global to the process, so this file holds a single test.

use bytes::Bytes;
use continuum_core::api::{Change, Edit, Mutation};
use continuum_core::config::Bounds;
use continuum_core::id::Index;
use continuum_core::state::{Command, Kind, Operation, Slice, StateMachine};

/// Bytes of a value, and of one slice.
const VALUE_BYTES: usize = 16 << 10;
const SLICE_BYTES: usize = 2 * VALUE_BYTES;
const KEYS: u32 = 64;

/// A state of some keys with large values.
fn state() -> StateMachine {
    let mut state = StateMachine::new(Kind::Keys);
    state.limit(Bounds { chunk_bytes: 3 * VALUE_BYTES, ..Bounds::default() });
    for key in 0..KEYS {
        let change = Change::Put(vec![7; VALUE_BYTES].into());
        let edits = vec![Edit { field: Bytes::new(), change }];
        let key = Bytes::copy_from_slice(&key.to_be_bytes());
        let mutations = vec![Mutation { key, edits, context: None }];
        let command = Command { session: None, operation: Operation::Write { mutations } };
        state.apply(Index(state.applied().0 + 1), 0, &command.encode().expect("it is short"));
    }
    state
}

/// All chunks of a state, and the number of slices that filled none.
fn captured(state: &mut StateMachine) -> (Vec<Bytes>, usize) {
    assert!(state.begin_capture());
    let (mut chunks, mut slices) = (Vec::new(), 0);
    loop {
        match state.next_slice(SLICE_BYTES) {
            Slice::More => slices += 1,
            Slice::Chunk(chunk) => chunks.push(chunk),
            Slice::Done => return (chunks, slices),
        }
    }
}

fn a_slice_of_a_capture_ends_with_its_budget() {
    let (_, slices) = captured(&mut state());
    assert!(slices >= KEYS as usize / 6, "{slices} slices of at most three values");
}

fn a_chunk_holds_its_own_bytes_alone() {
    for chunk in captured(&mut state()).0 {
        let length = chunk.len();
        let whole = chunk.try_into_mut().expect("nobody else holds it");
        assert!(whole.capacity() <= length, "{} {length}", whole.capacity());
    }
}

const SCENARIOS: &[(&str, fn())] = &[
    ("state.capture.pins_the_rest", a_chunk_holds_its_own_bytes_alone),
    ("state.capture.unsliced", a_slice_of_a_capture_ends_with_its_budget),
];

#[test]
fn each_scenario_fails_with_its_mutant_and_passes_without() {
    continuum_tests::mutants::expose(SCENARIOS);
}
