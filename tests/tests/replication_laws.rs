//! Laws of CRDT replication over random histories of 3 and 4 replicas that write, crash, and lose, repeat and reorder
//! messages.
//!
//! Comments in the code use the same ids: L1 to L4 merge laws (as convergence under any delivery), L5 a saved state
//! loads unchanged, L6 the executable specification, L8 no resurrection, L9 coverage, L11 redelivery, L14 and L15
//! roots, L16 decoding is total, L18 one content for each dot, L19 a crash loses nothing durable.

#[path = "replication/mod.rs"]
mod world;

use continuum_core::api::Strategy as View;
use continuum_core::replication::{Event, Message};
use proptest::collection::vec;
use proptest::prelude::*;

use world::history::{History, Move, busy_checkpoint};
use world::{SHARD, Setup, World, put, replica};

fn moves(count: usize) -> impl Strategy<Value = Vec<Move>> {
    vec(any::<Move>(), 0..count)
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn siblings_converge_to_the_specification(moves in moves(220), four: bool) {
        let setup = Setup { replicas: 3 + u8::from(four), ..Setup::default() };
        if let Err(why) = History::run(setup, &moves) {
            prop_assert!(false, "{}", why);
        }
    }

    #[test]
    fn discarding_replicas_converge(moves in moves(220)) {
        let setup = Setup { discard: true, ..Setup::default() };
        if let Err(why) = History::run(setup, &moves) {
            prop_assert!(false, "{}", why);
        }
    }

    #[test]
    fn page_size_changes_no_result(moves in moves(120), bytes in 1usize..4000) {
        let mut setup = Setup { strategy: View::HighestNodeWins, ..Setup::default() };
        setup.config.delta_bytes_max = bytes;
        if let Err(why) = History::run(setup, &moves) {
            prop_assert!(false, "{}", why);
        }
    }

    #[test]
    fn a_replica_that_gets_everything_twice_is_unchanged(moves in moves(80)) {
        let mut history = History::run(Setup::default(), &moves).map_err(TestCaseError::fail)?;
        let world = &mut history.world;
        let (root, issued) = (world.roots(), world.processes[1].disk.len());
        let replicated = world.answers.replicated.clone();
        for message in world.network.clone() {
            let event = Event::Received { from: replica(message.0), message: message.2 };
            world.step(message.1, event.clone());
            world.step(message.1, event);
        }
        prop_assert_eq!(&root, &world.roots());
        prop_assert_eq!(issued, world.processes[1].disk.len());
        prop_assert_eq!(replicated, world.answers.replicated.clone());
    }

    #[test]
    fn corrupted_messages_do_no_harm(moves in moves(60), spoils in vec((any::<u16>(), any::<u8>()), 1..40)) {
        let mut world = History::run(Setup::default(), &moves).map_err(TestCaseError::fail)?.world;
        world.mutate(0, put("k", "", "v"));
        world.advance(2_000);
        for (n, (at, byte)) in spoils.into_iter().enumerate() {
            let Some((from, to, message)) = world.network.get(n % world.network.len().max(1)).cloned() else {
                break;
            };
            let mut spoilt = continuum_core::codec::encode(&message).to_vec();
            let at = usize::from(at) % spoilt.len();
            spoilt[at] ^= byte;
            if let Ok(message) = continuum_core::codec::decode::<Message>(&spoilt, spoilt.len()) {
                world.step(to, Event::Received { from: replica(from), message });
            }
        }
        // No replica can detect a corrupted context, so roots may differ. No process may panic, and all must serve.
        for at in 0..3 {
            prop_assert!(world.processes[at].machine.root(SHARD).is_some());
            world.mutate(at, put("k", "", "w"));
            prop_assert!(world.get(at, "k", "").value.is_some());
        }
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn a_busy_shard_restores_from_its_checkpoint(number: u64) {
        busy_checkpoint(number).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn an_idle_federation_sends_little() {
    let mut world = World::new(Setup::default());
    world.mutate(0, put("k", "", "v"));
    world.converge().expect("converges");
    world.network.clear();
    world.advance(1_000);
    // Each replica sends one comparison, and there is nothing else to send.
    assert_eq!(world.network.len(), 3);
    assert!(world.network.iter().all(|(_, _, message)| matches!(message, Message::Compare { .. })));
}
