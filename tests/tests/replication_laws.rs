//! Laws of CRDT replication over random histories of 3 and 4 replicas that write, crash, and lose, repeat and reorder
//! messages.
//!
//! Comments in the code use the same ids: L1 to L4 merge laws (as convergence under any delivery), L5 a saved state
//! loads unchanged, L6 the executable specification, L8 no resurrection, L9 coverage, L11 redelivery, L14 and L15
//! roots, L16 decoding is total, L18 one content for each dot, L19 a crash loses nothing durable.

#[path = "replication/mod.rs"]
mod world;

use continuum_core::api::Strategy as View;
use continuum_core::config::Slices;
use continuum_core::replication::{Event, Message};
use proptest::collection::vec;
use proptest::prelude::*;

use world::history::{History, Move, busy_checkpoint};
use world::{SHARD, Setup, World, put, replica, summaries};

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

    /// Deletes cover whole scopes, and take effect in slices of one to three elements.
    #[test]
    fn slices_change_no_result(moves in moves(200), listed in 0usize..3, swept in 1usize..4, discard: bool) {
        let mut setup = Setup { discard, ..Setup::default() };
        setup.config.slices = Slices { listed, swept, freed: 1 };
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
fn many_shards_are_compared_by_what_differs() {
    summaries::quiet_shards_cost_a_message();
    summaries::a_difference_is_found_among_many_shards();
    summaries::all_shards_of_a_cold_replica_are_found();
    summaries::a_lost_push_is_found_by_its_shard();
}

#[test]
fn an_idle_federation_sends_little() {
    let mut world = World::new(Setup::default());
    world.mutate(0, put("k", "", "v"));
    world.converge().expect("converges");
    world.network.clear();
    world.advance(60_000);
    // Each of a few shards is compared with each peer now and then, and there is nothing else to send.
    assert!((1..=100).contains(&world.network.len()), "{}", world.network.len());
    assert!(world.network.iter().all(|(_, _, message)| matches!(message, Message::Compare { .. })));
}

/// A process resumes from a stamp that the wall clock's return puts out of its reach.
#[rustfmt::skip]
const RESUMES_BEYOND_REACH: &[Move] = &[
    (24, 45, 0, 0), (24, 143, 0, 0), (94, 191, 143, 12), (230, 0, 30, 0), (254, 0, 1, 0),
    (112, 13, 0, 0), (24, 115, 0, 0), (24, 41, 0, 0), (21, 0, 0, 0), (21, 0, 0, 0),
    (24, 59, 0, 0), (0, 0, 0, 0), (168, 51, 0, 0), (21, 0, 0, 0), (24, 134, 0, 17),
    (45, 0, 0, 0), (117, 0, 0, 0), (21, 0, 0, 0), (221, 209, 106, 225), (253, 211, 134, 28),
    (104, 41, 76, 124), (14, 208, 169, 51), (44, 64, 106, 78), (62, 107, 1, 138), (136, 250, 246, 246),
    (193, 133, 149, 210), (73, 217, 230, 207), (223, 230, 242, 222), (170, 146, 165, 91), (240, 219, 6, 168),
    (42, 240, 82, 187), (101, 211, 227, 62), (6, 53, 41, 232), (232, 58, 221, 48), (185, 235, 36, 93),
    (145, 41, 167, 128), (91, 133, 212, 191), (145, 255, 127, 152), (19, 215, 152, 35), (230, 130, 36, 216),
    (36, 155, 129, 148), (237, 138, 95, 235), (41, 67, 176, 23), (206, 157, 112, 184), (37, 140, 253, 186),
    (173, 125, 96, 220), (228, 69, 69, 31), (229, 246, 146, 223), (148, 63, 73, 249), (253, 17, 19, 35),
    (65, 3, 108, 10), (205, 117, 66, 127), (137, 241, 123, 182), (8, 125, 104, 67), (107, 94, 115, 74),
    (59, 223, 186, 119), (174, 147, 0, 30), (179, 8, 125, 147), (104, 101, 52, 0), (227, 130, 70, 80),
    (164, 206, 135, 207), (183, 136, 90, 241), (9, 65, 111, 213), (87, 97, 105, 23), (182, 243, 177, 230),
    (81, 60, 14, 4), (116, 4, 194, 245), (177, 34, 148, 97), (212, 253, 213, 15), (181, 66, 21, 142),
    (105, 177, 50, 23), (66, 95, 15, 235), (36, 202, 153, 226), (142, 235, 1, 52), (247, 60, 142, 42),
    (199, 66, 196, 70), (216, 111, 63, 118),
];

#[test]
fn a_clock_that_resumed_goes_back_with_the_wall_clock() {
    let setup = Setup { replicas: 4, ..Setup::default() };
    History::run(setup, RESUMES_BEYOND_REACH).map(drop).expect("the laws hold");
}
