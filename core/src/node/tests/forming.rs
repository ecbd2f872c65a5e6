//! How federations begin, and how nodes come in.

use super::*;

#[test]
fn one_node_founds_and_serves() {
    let mut world = federation(1, 1);
    assert!(is_committed(&world.ask(0, put("locks", "a", "1"))));
    assert_eq!(value(world.ask(0, get("locks", "a"))), Some(b"1".to_vec()));
    assert!(is_committed(&world.ask(0, put("notes", "b", "2"))));
    assert_eq!(value(world.ask(0, get("notes", "b"))), Some(b"2".to_vec()));
}

#[test]
fn three_nodes_found_and_every_node_serves() {
    let mut world = federation(3, 2);
    for at in 0..3 {
        let key = address(at).0;
        assert!(is_committed(&world.ask(at, put("locks", &key, "x"))));
        assert!(is_committed(&world.ask(at, put("notes", &key, "y"))));
    }
    world.run(3000);
    for at in 0..3 {
        for of in 0..3 {
            let key = address(of).0;
            assert_eq!(value(world.ask(at, get("locks", &key))), Some(b"x".to_vec()));
            assert_eq!(value(world.ask(at, get("notes", &key))), Some(b"y".to_vec()));
        }
    }
}
