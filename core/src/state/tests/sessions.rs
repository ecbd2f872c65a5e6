//! A write happens exactly once, whatever the log repeats.

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;

use super::{apply, capture, mutation, put, session, write};
use crate::api::{Change, Expected, Fingerprint, Reason, Session};
use crate::id::{Index, SessionId};
use crate::limits::SESSION_IDLE_MS as IDLE_MS;
use crate::state::session::{Admission, Remembered, Sessions};
use crate::state::{Kind, Reply, StateMachine};

proptest! {
    /// Commands of clients are in the log any number of times, in any order, across snapshots and restores.
    #[test]
    fn a_write_happens_once_however_often_it_is_in_the_log(
        log in proptest::collection::vec((0..3_u8, 0..5_u64, any::<bool>(), 0..9_u8), 1..80),
    ) {
        let mut machine = StateMachine::new(Kind::Keys);
        let mut latest: BTreeMap<u8, (u64, Reply)> = BTreeMap::new();
        for (client, seq, conditional, restart) in log {
            if restart == 0 {
                machine = StateMachine::restore(Kind::Keys, &capture(&machine)).unwrap();
            }
            // With a condition the first reply is sometimes a conflict, which repeats like any other.
            let change = if conditional {
                Change::Cas { expected: Expected::Absent, value: Some(vec![seq as u8].into()) }
            } else {
                Change::Put(vec![seq as u8].into())
            };
            let before = machine.keys().get(&vec![client].into()).cloned();
            let reply = apply(&mut machine, 0, &write(Some(session(client, seq)), vec![mutation(&[client], change)]));
            let after = machine.keys().get(&vec![client].into()).cloned();
            let known = latest.get(&client).cloned();
            let is_new = match known {
                None => seq == 0,
                Some((last, _)) => seq > last,
            };
            if is_new {
                prop_assert_ne!(&reply, &Reply::Rejected(Reason::SessionExpired));
                latest.insert(client, (seq, reply));
                continue;
            }
            prop_assert_eq!(before, after, "it happened again");
            match known {
                Some((last, first)) if last == seq => prop_assert_eq!(reply, first),
                _ => prop_assert_eq!(reply, Reply::Rejected(Reason::SessionExpired)),
            }
        }
    }

    /// Replicas that restored at different points forget the same sessions.
    #[test]
    fn all_replicas_forget_the_same_sessions(
        log in proptest::collection::vec((0..9_u8, 0..2_u64, 0..IDLE_MS), 1..60), at in 0..60_usize,
    ) {
        let mut one = StateMachine::new(Kind::Keys);
        one.sessions = Sessions::with_max(4);
        let mut other = one.clone();
        let mut time_ms = 0;
        for (step, (client, seq, pause_ms)) in log.into_iter().enumerate() {
            time_ms += pause_ms;
            if step == at {
                other = StateMachine::restore(Kind::Keys, &capture(&other)).unwrap();
                other.sessions.limit(4, IDLE_MS);
            }
            let command = write(Some(session(client, seq)), vec![put(&[client], &[seq as u8])]);
            prop_assert_eq!(apply(&mut one, time_ms, &command), apply(&mut other, time_ms, &command));
            prop_assert!(one.sessions().len() <= 4);
            prop_assert_eq!(one.digest(), other.digest());
        }
    }
}

/// One write of a session: the client, the number and the value, which stands for the request too.
fn asked(client: u8, seq: u64, value: u8) -> bytes::Bytes {
    let session = Session { request: Fingerprint([value; 16]), ..session(client, seq) };
    write(Some(session), vec![put(&[client], &[value])])
}

fn written(index: u64) -> Reply {
    Reply::Written { revision: Index(index), existed: false }
}

fn replaced(index: u64) -> Reply {
    Reply::Written { revision: Index(index), existed: true }
}

#[test]
fn a_full_table_forgets_the_session_that_was_used_longest_ago_and_refuses_none() {
    let mut machine = StateMachine::new(Kind::Keys);
    machine.sessions = Sessions::with_max(2);
    assert_eq!(apply(&mut machine, 0, &asked(1, 0, 7)), written(1));
    assert_eq!(apply(&mut machine, 0, &asked(2, 0, 7)), written(2));
    // A retry is a use: now the second session is the one used longest ago.
    assert_eq!(apply(&mut machine, 0, &asked(1, 0, 7)), written(1));
    assert_eq!(apply(&mut machine, 0, &asked(3, 0, 7)), written(4));
    let expired = Reply::Rejected(Reason::SessionExpired);
    assert_eq!(apply(&mut machine, 0, &asked(2, 1, 7)), expired);
    assert_eq!(apply(&mut machine, 0, &asked(1, 1, 7)), replaced(6));
    assert_eq!(machine.sessions().len(), 2);
}

#[test]
fn idle_sessions_go_when_another_opens_although_there_is_room() {
    let mut machine = StateMachine::new(Kind::Keys);
    for client in 0..9 {
        apply(&mut machine, u64::from(client), &asked(client, 0, 7));
    }
    apply(&mut machine, IDLE_MS, &asked(20, 0, 7));
    assert_eq!(machine.sessions().len(), 9, "one was idle for long enough");
    for client in 21..25 {
        apply(&mut machine, IDLE_MS * 2, &asked(client, 0, 7));
    }
    assert_eq!(machine.sessions().len(), 5, "two go for each that opens");
    assert_eq!(apply(&mut machine, IDLE_MS * 2, &asked(20, 0, 7)), written(10));
}

#[test]
fn another_request_under_a_used_number_is_refused_and_changes_nothing() {
    let mut machine = StateMachine::new(Kind::Keys);
    assert_eq!(apply(&mut machine, 0, &asked(1, 0, 7)), written(1));
    assert_eq!(apply(&mut machine, 0, &asked(1, 0, 8)), Reply::Rejected(Reason::SessionReused));
    assert_eq!(machine.keys().get(&vec![1].into()).expect("it is there").value.as_ref(), [7]);
    assert_eq!(apply(&mut machine, 0, &asked(1, 0, 7)), written(1), "the same request is a retry");
    assert_eq!(apply(&mut machine, 0, &asked(1, 1, 8)), replaced(4));
    assert_eq!(apply(&mut machine, 0, &asked(1, 1, 7)), Reply::Rejected(Reason::SessionReused));
    assert_eq!(apply(&mut machine, 0, &asked(1, 0, 7)), Reply::Rejected(Reason::SessionExpired));
}

/// More first writes than any table holds, as fast as they come: none is refused, and the table stays within its bound.
#[test]
fn no_number_of_keyed_writes_is_refused() {
    let mut sessions = Sessions::with_max(64);
    for number in 1..=10_000_u64 {
        let id = SessionId(u128::from(number).to_be_bytes());
        let session = Session { id, seq: 0, request: Fingerprint::default() };
        assert!(matches!(sessions.admit(&session, (Index(number), 0)), Admission::New));
        sessions.record(&session, (Index(number), 0), &written(number));
        assert!(sessions.len() <= 64);
    }
    assert_eq!(sessions.bytes(), 64 * crate::limits::SESSION_BYTES);
}

/// Trees are mostly three quarters full.
#[test]
fn a_session_takes_no_more_memory_than_is_counted() {
    let record = size_of::<(SessionId, Remembered)>();
    let place = size_of::<(Index, SessionId)>();
    let taken = (record + place) as u64 * 4 / 3;
    assert!(taken <= crate::limits::SESSION_BYTES, "{taken} bytes");
}
