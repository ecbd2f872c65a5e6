//! Replication against wrong clocks, lying members and hostile clients. The cases themselves are shared with the search
//! for planted bugs.

#[path = "replication/mod.rs"]
mod world;

use world::hostile;

#[test]
fn a_write_of_a_clock_years_ahead_is_visible_at_once_and_later_ones_too() {
    hostile::a_write_of_a_clock_years_ahead_is_visible_at_once_and_later_ones_too();
}

#[test]
fn a_wrong_clock_spoils_no_stamp_but_those_of_the_keys_that_it_wrote() {
    hostile::a_wrong_clock_spoils_no_stamp_but_those_of_the_keys_that_it_wrote();
}

#[test]
fn in_a_discarding_shard_a_write_after_a_deletion_beats_what_was_deleted() {
    hostile::in_a_discarding_shard_a_write_after_a_deletion_beats_what_was_deleted();
}

#[test]
fn of_two_writes_with_one_dot_the_greater_hash_wins_in_both_orders() {
    hostile::of_two_writes_with_one_dot_the_greater_hash_wins_in_both_orders();
}

#[test]
fn replicas_with_two_writes_of_one_dot_become_equal_and_an_honest_author_keeps_its_value() {
    hostile::replicas_with_two_writes_of_one_dot_become_equal_and_an_honest_author_keeps_its_value(
    );
}

#[test]
fn a_removed_element_stays_removed_when_its_write_gets_other_content() {
    hostile::a_removed_element_stays_removed_when_its_write_gets_other_content();
}

#[test]
fn a_write_under_my_name_is_merged_by_me_too_and_stops_nothing() {
    hostile::a_write_under_my_name_is_merged_by_me_too_and_stops_nothing();
}

#[test]
fn a_number_that_others_named_is_never_minted() {
    hostile::a_number_that_others_named_is_never_minted();
}

#[test]
fn a_context_that_no_node_gave_out_is_refused() {
    hostile::a_context_that_no_node_gave_out_is_refused();
}

#[test]
fn a_refused_write_is_skipped_and_others_are_learnt() {
    hostile::a_refused_write_is_skipped_and_others_are_learnt();
}

#[test]
fn deferred_removals_are_bounded_counted_and_refused_in_time() {
    hostile::deferred_removals_are_bounded_counted_and_refused_in_time();
}
