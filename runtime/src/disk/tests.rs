//! Tests of a store in real files: opening, group commit, torn and damaged bytes, wrong directories.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;
use continuum_core::files::Piece;
use continuum_core::id::{
    FederationId, GroupId, NodeId, SnapshotFile, SnapshotId, StoreId, Term, Token,
};
use continuum_core::raft::{self, Configuration, Position};
use continuum_core::replication;
use continuum_core::wal::{RecoverError, Write};

use super::*;

mod damage;

const OWNER: StoreOwner = StoreOwner { federation: FederationId([1; 16]), node: NodeId([2; 16]) };
const STORE: StoreId = StoreId([3; 16]);
const RESERVE: u64 = 64 << 10;

fn open(path: &Path) -> Result<(FileDisk, Opened), OpenError> {
    let mut disk = FileDisk::new(path.to_owned(), RESERVE);
    let opened = disk.open(OWNER, STORE)?;
    Ok((disk, opened))
}

fn error(path: &Path) -> OpenError {
    match open(path) {
        Ok(_) => panic!("the store must not open"),
        Err(error) => error,
    }
}

fn token(seq: u64) -> Token {
    Token { lane: 0, seq }
}

const fn of_group(write: raft::Write) -> Write {
    Write::Group { group: GroupId(0), write }
}

fn hard(term: u64) -> Write {
    of_group(raft::Write::Hard { term: Term(term), vote: None })
}

/// Waits until all writes up to `until` are durable, and returns the number of syncs.
fn durable(opened: &mut Opened, until: Token) -> usize {
    let mut syncs = 0;
    loop {
        match opened.events.blocking_recv().expect("the disk lives") {
            DiskEvent::Persisted { token, .. } => {
                syncs += 1;
                if token >= until {
                    return syncs;
                }
            }
            DiskEvent::Space { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Writes `terms` from token `first` on, one sync each.
fn write(disk: &mut FileDisk, opened: &mut Opened, first: u64, terms: &[u64]) {
    for (at, term) in terms.iter().enumerate() {
        let token = token(first + at as u64);
        disk.submit(DiskRequest::Persist(token, hard(*term)));
        durable(opened, token);
    }
}

fn terms(opened: &Opened) -> Vec<u64> {
    let term = |(_, write): &(Token, Write)| match write {
        Write::Group { write: raft::Write::Hard { term, .. }, .. } => term.0,
        other => panic!("{other:?}"),
    };
    opened.writes.iter().map(term).collect()
}

fn segment(path: &Path) -> PathBuf {
    path.join("lane-0/0000000000000001.log")
}

#[test]
fn durable_writes_survive_a_restart_and_tokens_continue() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    assert_eq!((opened.store, opened.writes.len()), (STORE, 0));
    write(&mut disk, &mut opened, 1, &[1, 2, 3]);
    drop(disk);
    let (mut disk, mut opened) = open(&path).unwrap();
    assert_eq!(terms(&opened), [1, 2, 3]);
    assert_eq!(opened.torn, None);
    write(&mut disk, &mut opened, 4, &[4]);
    drop(disk);
    assert_eq!(terms(&open(&path).unwrap().1), [1, 2, 3, 4]);
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("STORE"), mode("LOCK")), (0o700, 0o600, 0o600));
}

#[test]
fn writes_that_wait_for_a_sync_share_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, mut opened) = open(&dir.path().join("data")).unwrap();
    for seq in 1..=2000 {
        disk.submit(DiskRequest::Persist(token(seq), hard(seq)));
    }
    let syncs = durable(&mut opened, token(2000));
    // Each sync covers all writes that arrived during the previous one, so 2000 writes need far fewer syncs.
    assert!(syncs < 1000, "{syncs} syncs");
    drop(disk);
    let (_disk, opened) = open(&dir.path().join("data")).unwrap();
    assert_eq!(terms(&opened), (1..=2000).collect::<Vec<_>>());
}

#[test]
fn a_torn_end_is_cut_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    write(&mut disk, &mut opened, 1, &[1, 2, 3]);
    disk.submit(DiskRequest::Stop);
    drop(disk);
    // Blocks: header, three batches, the seal. The seal is lost and the third batch half written.
    let file = fs::OpenOptions::new().write(true).open(segment(&path)).unwrap();
    file.write_all_at(&[0; 4096], 4 * 4096).unwrap();
    file.write_all_at(&[0; 4096 - 40], 3 * 4096 + 40).unwrap();
    let (mut disk, mut opened) = open(&path).unwrap();
    assert_eq!(terms(&opened), [1, 2]);
    assert_eq!(opened.torn.map(|torn| (torn.segment, torn.offset)), Some((1, 3 * 4096)));
    write(&mut disk, &mut opened, 3, &[7]);
    drop(disk);
    assert_eq!(terms(&open(&path).unwrap().1), [1, 2, 7]);
}

#[test]
fn a_flipped_byte_before_the_end_is_rot_and_the_store_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    write(&mut disk, &mut opened, 1, &[1, 2, 3]);
    drop(disk);
    let mut bytes = fs::read(segment(&path)).unwrap();
    bytes[2 * 4096 + 20] ^= 1;
    fs::write(segment(&path), &bytes).unwrap();
    let found = error(&path);
    let OpenError::Log { error: why, .. } = found else { panic!("{found}") };
    assert_eq!(*why, RecoverError::Rot { segment: 1, offset: 8192 });
    // Opening again changes nothing: no byte was cut.
    assert_eq!(fs::read(segment(&path)).unwrap(), bytes);
    assert!(matches!(error(&path), OpenError::Log { .. }));
}

#[test]
fn a_missing_log_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    write(&mut disk, &mut opened, 1, &[1]);
    drop(disk);
    fs::remove_file(segment(&path)).unwrap();
    assert!(matches!(error(&path), OpenError::LogMissing { .. }));
}

#[test]
fn a_store_that_never_wrote_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    drop(open(&path).unwrap());
    // An unfinished first batch: a segment of zeros.
    fs::write(segment(&path), [0; 8192]).unwrap();
    let (mut disk, mut opened) = open(&path).unwrap();
    assert_eq!(opened.writes, []);
    write(&mut disk, &mut opened, 1, &[5]);
    drop(disk);
    assert_eq!(terms(&open(&path).unwrap().1), [5]);
}

#[test]
fn each_wrong_directory_has_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (disk, _opened) = open(&path).unwrap();
    assert!(matches!(error(&path), OpenError::Locked { .. }));
    drop(disk);

    let other = StoreOwner { node: NodeId([9; 16]), ..OWNER };
    let foreign = FileDisk::new(path.clone(), RESERVE).open(other, STORE).unwrap_err();
    let OpenError::Foreign { found, .. } = foreign else { panic!("{foreign}") };
    assert_eq!(*found, OWNER);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(error(&path), OpenError::Exposed { mode: 0o750, .. }));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();

    let description = fs::read_to_string(path.join("STORE")).unwrap();
    fs::write(path.join("STORE"), description.replace("version = 1", "version = 2")).unwrap();
    let version = error(&path).to_string();
    assert!(version.contains("version 2") && version.contains("hint"), "{version}");
    fs::write(path.join("STORE"), "nonsense").unwrap();
    assert!(matches!(error(&path), OpenError::Description { .. }));

    let full = dir.path().join("photos");
    fs::create_dir(&full).unwrap();
    fs::set_permissions(&full, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(full.join("cat.jpg"), "cat").unwrap();
    assert!(matches!(error(&full), OpenError::NotAStore { .. }));

    // A directory that even root cannot make.
    assert!(matches!(error(Path::new("/proc/continuum")), OpenError::Unusable { .. }));
    assert!(matches!(error(&full.join("cat.jpg")), OpenError::Unusable { .. }));
}

#[test]
fn an_empty_directory_is_used_and_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (_disk, _opened) = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A request for a piece; the last one ends the file.
fn piece(number: u64, snapshot: u64, offset: u64, data: &'static [u8]) -> DiskRequest {
    let (snapshot, data) = (SnapshotId(snapshot), Bytes::from_static(data));
    let is_last = offset + data.len() as u64 == 10;
    DiskRequest::WriteFile(number, Piece { snapshot, offset, data, is_last })
}

/// Waits until all pieces up to this number are durable.
fn written(opened: &mut Opened, number: u64) {
    let is_it = |event: DiskEvent| match event {
        DiskEvent::FilesWritten { number: newest } => newest >= number,
        _ => false,
    };
    while !is_it(opened.events.blocking_recv().expect("the disk runs")) {}
}

fn named(snapshot: u64) -> Write {
    of_group(raft::Write::Snapshot {
        file: SnapshotFile { id: SnapshotId(snapshot), length: 10, ..SnapshotFile::default() },
        position: Position::default(),
        time_ms: 0,
        configuration: Configuration::default(),
    })
}

#[test]
fn snapshot_files_survive_once_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    disk.submit(piece(1, 1, 0, b"hello"));
    disk.submit(piece(2, 2, 0, b"cut"));
    disk.submit(piece(3, 3, 0, b"unnamed..."));
    disk.submit(piece(4, 1, 5, b"world"));
    written(&mut opened, 4);
    disk.submit(DiskRequest::Persist(token(1), named(1)));
    durable(&mut opened, token(1));
    drop(disk);
    assert_eq!(fs::read_dir(path.join("side")).unwrap().count(), 3);
    let (disk, opened) = open(&path).unwrap();
    assert_eq!(opened.writes.len(), 1, "pieces are not in the log");
    let files: Vec<_> = opened.snapshots.iter().map(|(id, data)| (id.0, &data[..])).collect();
    assert_eq!(files, [(1, &b"helloworld"[..])]);
    assert_eq!(fs::read_dir(path.join("side")).unwrap().count(), 1, "no record needs the others");
    drop(disk);
}

#[test]
fn a_discarded_snapshot_file_is_deleted_although_the_log_still_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    for snapshot in [1, 2] {
        disk.submit(piece(snapshot, snapshot, 0, b"0123456789"));
        written(&mut opened, snapshot);
        disk.submit(DiskRequest::Persist(token(snapshot), named(snapshot)));
        durable(&mut opened, token(snapshot));
    }
    disk.submit(DiskRequest::Discard(SnapshotId(1)));
    disk.submit(piece(3, 3, 0, b"the next"));
    written(&mut opened, 3);
    drop(disk);
    let (_disk, opened) = open(&path).unwrap();
    assert_eq!(opened.writes.len(), 2);
    assert_eq!(opened.snapshots.keys().map(|id| id.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn old_segments_are_deleted_when_nothing_in_them_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut disk, mut opened) = open(&path).unwrap();
    let large = || Write::Shard {
        shard: continuum_core::id::ShardId::default(),
        write: replication::Write::Dots { records: vec![Bytes::from(vec![7; 6 << 20])] },
    };
    for seq in 1..=6 {
        disk.submit(DiskRequest::Persist(token(seq), large()));
        durable(&mut opened, token(seq));
    }
    let segments = || {
        let names = fs::read_dir(path.join("lane-0")).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".log"));
        names.sort();
        names
    };
    assert_eq!(segments().len(), 3, "two writes of 6 MiB fit into a segment of 16 MiB");
    disk.submit(DiskRequest::Release(token(5)));
    disk.submit(DiskRequest::Persist(token(7), hard(1)));
    durable(&mut opened, token(7));
    assert_eq!(segments(), ["0000000000000003.log"]);
    drop(disk);
    let (_disk, opened) = open(&path).unwrap();
    let tokens: Vec<u64> = opened.writes.iter().map(|(token, _)| token.seq).collect();
    assert_eq!(tokens, [5, 6, 7]);
}
