//! Damaged stores, as an operator, a copy or a broken disk leaves them: a look refuses what an opening refuses.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A store with a log of three writes, the second of which names a snapshot file.
fn used(path: &Path) {
    let (mut disk, mut opened) = open(path).unwrap();
    write(&mut disk, &mut opened, 1, &[1]);
    disk.submit(piece(1, 1, 0, b"0123456789"));
    written(&mut opened, 1);
    disk.submit(DiskRequest::Persist(token(2), named(1)));
    durable(&mut opened, token(2));
    write(&mut disk, &mut opened, 3, &[3]);
}

/// The content of every file, and nothing for what is no file.
fn everything(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let content = kind.is_file().then(|| fs::read(entry.path()).unwrap());
            found.insert(entry.path(), content);
            folders.extend(kind.is_dir().then(|| entry.path()));
        }
    }
    found
}

type Damage = fn(&Path);

fn folder(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    fs::create_dir(path).unwrap();
}

fn file(path: &Path) {
    let _ = fs::remove_dir_all(path);
    fs::write(path, "mine").unwrap();
}

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn device(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    symlink("/dev/zero", path).unwrap();
}

fn nowhere(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    symlink("/nonexistent", path).unwrap();
}

fn gone(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
}

fn flipped(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[2 * 4096 + 20] ^= 1;
    fs::write(path, bytes).unwrap();
}

const LOG: &str = "lane-0/0000000000000001.log";
const SNAPSHOT: &str = "side/0000000000000001.snap";

#[test]
fn a_look_refuses_what_an_opening_refuses_and_changes_nothing() {
    let cases: &[(&str, &[Damage])] = &[
        ("LOCK", &[folder, pipe, device]),
        ("STORE", &[folder, file, pipe, device, gone]),
        ("FENCED", &[folder, file, pipe, device]),
        ("reserve", &[folder, pipe, device]),
        ("lane-0", &[file, pipe, device, nowhere, gone, folder]),
        (LOG, &[folder, pipe, device, nowhere, gone, flipped]),
        ("lane-0/spare", &[folder]),
        ("side", &[file, pipe, device, nowhere]),
        (SNAPSHOT, &[folder, pipe, device]),
        ("side/0000000000000007.snap", &[folder]),
        ("side/photos", &[folder]),
    ];
    for (part, damages) in cases {
        for (number, damage) in damages.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data");
            used(&path);
            damage(&path.join(part));
            let before = everything(&path);
            let looked = FileDisk::look(&path, OWNER).map(drop).map_err(|error| error.to_string());
            assert_eq!(everything(&path), before, "{part}, damage {number}");
            let opened = open(&path).map(drop).map_err(|error| error.to_string());
            assert!(opened.is_err(), "{part}, damage {number}");
            assert_eq!(looked, opened, "{part}, damage {number}");
        }
    }
}

#[test]
fn a_look_takes_what_an_opening_takes() {
    let cases: &[(&str, Damage)] = &[
        ("reserve", gone),
        ("LOCK", gone),
        ("side", gone),
        (SNAPSHOT, gone),
        ("side/0000000000000007.snap", file),
        ("lane-0/spare", file),
        ("lane-0/notes.txt", pipe),
    ];
    for (part, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        used(&path);
        damage(&path.join(part));
        let before = everything(&path);
        let content = FileDisk::look(&path, OWNER).unwrap();
        assert_eq!(everything(&path), before, "{part}");
        let Content::Sound { store, writes, snapshots } = content else { panic!("{part}") };
        let (_disk, opened) = open(&path).unwrap();
        assert_eq!((store, writes), (opened.store, opened.writes), "{part}");
        assert_eq!(snapshots, opened.snapshots, "{part}");
        assert!(matches!(FileDisk::look(&path, OWNER), Ok(Content::InUse)), "{part}");
    }
}

#[test]
fn a_look_sees_no_store_where_an_opening_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = |path: &Path| matches!(FileDisk::look(path, OWNER), Ok(Content::Fresh));
    assert!(fresh(&dir.path().join("a/b")));
    let path = dir.path().join("data");
    fs::create_dir(&path).unwrap();
    assert!(fresh(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    // A process that died while it made the store.
    fs::write(path.join("LOCK"), "").unwrap();
    fs::write(path.join("STORE.00112233445566778899aabbccddeeff.new"), "vers").unwrap();
    assert!(fresh(&path));
    assert!(open(&path).is_ok());
    nowhere(&dir.path().join("link"));
    assert!(FileDisk::look(&dir.path().join("link"), OWNER).is_err());
    assert!(open(&dir.path().join("link")).is_err());
}
