//! A write happens exactly once, whatever the log repeats.

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;

use super::{apply, capture, mutation, put, session, write};
use crate::api::{Change, Expected, Reason, Resource};
use crate::id::{Index, SessionId};
use crate::limits::SESSION_IDLE_MS_MIN as IDLE_MS_MIN;
use crate::state::session::{Admission, Sessions};
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
        log in proptest::collection::vec((0..9_u8, 0..2_u64, 0..IDLE_MS_MIN), 1..60), at in 0..60_usize,
    ) {
        let mut one = StateMachine::new(Kind::Keys);
        one.sessions = Sessions::with_max(4);
        let mut other = one.clone();
        let mut time_ms = 0;
        for (step, (client, seq, pause_ms)) in log.into_iter().enumerate() {
            time_ms += pause_ms;
            if step == at {
                other = StateMachine::restore(Kind::Keys, &capture(&other)).unwrap();
                other.sessions.limit(4, IDLE_MS_MIN);
            }
            let command = write(Some(session(client, seq)), vec![put(&[client], &[seq as u8])]);
            prop_assert_eq!(apply(&mut one, time_ms, &command), apply(&mut other, time_ms, &command));
            prop_assert!(one.sessions().len() <= 4);
            prop_assert_eq!(one.digest(), other.digest());
        }
    }
}

#[test]
fn a_full_table_forgets_the_longest_idle_and_no_busy_one() {
    let mut machine = StateMachine::new(Kind::Keys);
    machine.sessions = Sessions::with_max(2);
    let at = |machine: &mut StateMachine, time_ms, client, seq| {
        apply(machine, time_ms, &write(Some(session(client, seq)), vec![put(&[client], b"x")]))
    };
    let written = |index| Reply::Written { revision: Index(index) };
    assert_eq!(at(&mut machine, 0, 1, 0), written(1));
    assert_eq!(at(&mut machine, 5, 2, 0), written(2));
    let full = Reply::Rejected(Reason::Full { what: Resource::Sessions });
    assert_eq!(at(&mut machine, IDLE_MS_MIN - 1, 3, 0), full);
    // A retry is a use: now the second session is the longest idle.
    assert_eq!(at(&mut machine, IDLE_MS_MIN - 1, 1, 0), written(1));
    assert_eq!(at(&mut machine, IDLE_MS_MIN + 4, 3, 0), full);
    assert_eq!(at(&mut machine, IDLE_MS_MIN + 5, 3, 0), written(6));
    let expired = Reply::Rejected(Reason::SessionExpired);
    assert_eq!(at(&mut machine, IDLE_MS_MIN + 6, 2, 1), expired);
    assert_eq!(at(&mut machine, IDLE_MS_MIN + 7, 1, 1), written(8));
    assert_eq!(machine.sessions().len(), 2);
}

#[test]
fn a_refused_opening_is_not_remembered() {
    let mut sessions = Sessions::with_max(0);
    assert!(matches!(sessions.admit(&session(1, 0), 0), Admission::Refused(Reason::Full { .. })));
    assert!(sessions.is_empty());
    assert_eq!(sessions.table.get(&SessionId([1; 16])), None);
}
