//! Hostile members: no message breaks the machine or makes it grow.

use continuum_core::config::GossipConfig;
use continuum_core::gossip::{Action, Body, Event, Message, State, Update};
use continuum_core::machine::{Machine, Now};
use continuum_core::time::{Instant, WallTime};
use proptest::prelude::*;

use super::driven::{Driven, ME, node, update};

fn any_update() -> impl Strategy<Value = Update> {
    let states = [State::Alive, State::Suspect, State::Dead, State::Left];
    let confirmations = proptest::collection::vec((0..12_u8).prop_map(node), 0..11);
    (0..12_u8, 4..7_u64, any::<u64>(), 0..40_u32, 0..4_usize, confirmations).prop_map(
        move |(n, boot, refutations, shift, state, confirmations)| {
            let mut made = update(n, refutations >> (shift + 24), states[state]);
            made.incarnation.boot.count = boot;
            made.confirmations = confirmations;
            made
        },
    )
}

fn any_message() -> impl Strategy<Value = (u8, Message)> {
    let body = prop_oneof![
        (0..20_u64).prop_map(|number| Body::Ping { number }),
        (0..20_u64, 0..12_u8).prop_map(|(number, n)| Body::PingRequest { number, target: node(n) }),
        (0..20_u64).prop_map(|number| Body::Ack { number }),
        (0..20_u64).prop_map(|number| Body::Nack { number }),
        Just(Body::Updates),
        (0..12_u8).prop_map(|n| Body::Push { after: Some(node(n)), upto: None }),
        (0..12_u8).prop_map(|n| Body::Push { after: None, upto: Some(node(n)) }),
        (0..12_u8).prop_map(|n| Body::Pull { after: None, upto: Some(node(n)) }),
    ];
    let updates = proptest::collection::vec(any_update(), 0..70);
    (0..12_u8, body, any_update(), updates, any::<bool>()).prop_map(
        |(n, body, sender, updates, honest)| {
            let sender = if honest { update(n, 0, State::Alive) } else { sender };
            (n, Message { body, sender: Box::new(sender), updates, loads: Vec::new() })
        },
    )
}

proptest! {
    #[test]
    fn no_message_breaks_the_machine_and_every_answer_is_bounded(
        messages in proptest::collection::vec((any_message(), 0..2_000_u64), 0..60),
    ) {
        let mut d = Driven::new(9, GossipConfig::default());
        let mut sent = 0;
        for ((from, message), pause) in messages {
            let event = Event::Received { from: node(from), message };
            let end = Instant(d.now.0 + pause * 1_000_000);
            let mut next = Some(event);
            while let Some(event) = next {
                let now = Now { mono: d.now, wall: WallTime(0) };
                d.machine.step(now, event, &mut d.out);
                for action in d.out.drain() {
                    if let Action::Send { to, message } = action {
                        prop_assert!(to != node(ME));
                        prop_assert_eq!(message.check(node(ME)), Ok(()));
                        sent += 1;
                    }
                }
                let due = d.machine.deadline().filter(|due| *due <= end);
                d.now = due.unwrap_or(end).max(d.now);
                next = due.map(|_| Event::Tick);
            }
        }
        prop_assert_eq!(d.machine.members().count(), 10);
        prop_assert!(sent < 60 * 200);
        prop_assert_eq!(d.state(ME), State::Alive);
    }
}
