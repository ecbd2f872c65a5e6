//! Records of a shard, and its snapshot files.
//!
//! A record is a sealed write as it is, or tagged: a write with the edits that it leaves alive, what a view teaches
//! beyond writes, the beginning of discarding, and two marks of a snapshot file. A snapshot file is a run of records,
//! each after its length in four bytes, the highest first. This module does not restore a shard.

use std::rc::Rc;

use continuum_core::id::{Actor, Dot};

use super::dots::ExactDots;
use super::reader::Reader;
use super::write::{self, SEALED, VERSION, Written};

/// The first byte of a record that is not a sealed write.
const TAGGED: u8 = 2;
/// The tags of its kinds that this module names.
const PARTIAL: u32 = 0;
const JOIN: u32 = 1;
const DISCARDING: u32 = 2;
const HEADER: u32 = 3;
const END_OF_WRITES: u32 = 4;

/// The meaning of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A write, and the only edits that it leaves alive if the record names them.
    Write(Rc<Written>, Option<Vec<u16>>),
    /// All that a view teaches beyond writes.
    Join(Join),
    /// Anything that concerns no single write.
    Other,
}

/// All that a view teaches beyond writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Join {
    /// The numbers of each author that are seen from now on, as inclusive spans.
    context: Vec<(Actor, Vec<(u64, u64)>)>,
    /// Writes of which all edits but these are dead.
    pub(crate) removals: Vec<(Dot, Vec<u16>)>,
}

/// The meaning of a record; `None` if its bytes do not follow the format.
pub(crate) fn read(record: &[u8]) -> Option<Record> {
    if record.first() == Some(&SEALED) {
        return write::read(record).map(|write| Record::Write(Rc::new(write), None));
    }
    let mut reader = tagged(record)?;
    let read = match reader.u32()? {
        PARTIAL => {
            let write = Rc::new(write::read(reader.bytes()?)?);
            Record::Write(write, Some(live_edits(&mut reader)?))
        }
        JOIN => Record::Join(join(&mut reader)?),
        DISCARDING | END_OF_WRITES => Record::Other,
        HEADER => {
            reader.shard()?;
            reader.u64()?;
            reader.bool()?;
            Record::Other
        }
        _ => return None,
    };
    reader.is_at_end().then_some(read)
}

/// The bytes of a tagged record after its version.
fn tagged(record: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader(record);
    (reader.byte()? == TAGGED && reader.byte()? == VERSION).then_some(reader)
}

fn join(reader: &mut Reader<'_>) -> Option<Join> {
    let context = reader.list(|reader| Some((reader.actor()?, spans(reader)?)))?;
    reader.list(deferred)?;
    reader.list(cover)?;
    let removals = reader.list(|reader| Some((reader.dot()?, live_edits(reader)?)))?;
    reader.u64()?;
    Some(Join { context, removals })
}

/// Spans of numbers that ascend and do not touch. Each is how far its first number is above the least that it may be,
/// and how many numbers follow that one.
fn spans(reader: &mut Reader<'_>) -> Option<Vec<(u64, u64)>> {
    let mut least = Some(0_u64);
    reader.list(|reader| {
        let low = least?.checked_add(reader.u64()?)?;
        let high = low.checked_add(reader.u64()?)?;
        least = high.checked_add(2);
        Some((low, high))
    })
}

/// A removal of a whole scope: its path, whether that is a prefix, and the dots that it covers.
fn cover(reader: &mut Reader<'_>) -> Option<()> {
    reader.bytes()?;
    let is_prefix = reader.bool()?;
    let dots = reader.list(|reader| Some((reader.actor()?, spans(reader)?)))?;
    (is_prefix && !dots.is_empty()).then_some(())
}

/// A removal that waits for its write: a dot, then an edit, or a level and the digest of a path.
fn deferred(reader: &mut Reader<'_>) -> Option<()> {
    reader.dot()?;
    match reader.u32()? {
        0 => drop(reader.u16()?),
        1 => {
            let level = reader.u32()?;
            let _: [u8; 32] = reader.array()?;
            return (level < 3).then_some(());
        }
        _ => return None,
    }
    Some(())
}

/// The numbers of the edits whose bits are set: 64 in the first word, and 64 in each further one.
fn live_edits(reader: &mut Reader<'_>) -> Option<Vec<u16>> {
    let mut words = vec![reader.u64()?];
    words.extend(reader.list(Reader::u64)?);
    let edits = (0_u16..).zip(words).flat_map(|(at, word)| {
        (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
    });
    Some(edits.collect())
}

/// The dot of the write in a record, whether or not the write is intact.
pub(crate) fn dot_in(record: &[u8]) -> Option<Dot> {
    if record.first() == Some(&SEALED) {
        return write::head_of(record).map(|(_, dot)| dot);
    }
    let mut reader = tagged(record)?;
    if reader.u32()? != PARTIAL {
        return None;
    }
    write::head_of(reader.bytes()?).map(|(_, dot)| dot)
}

/// Adds the dots that a replica has seen once it has this record.
pub(crate) fn add_seen(record: &[u8], seen: &mut ExactDots) {
    if let Some(dot) = dot_in(record) {
        seen.insert(&dot);
    } else if let Some(Record::Join(join)) = read(record) {
        for (actor, spans) in join.context {
            spans.into_iter().for_each(|(low, high)| seen.insert_span(actor, low, high));
        }
    }
}

/// The dots that a replica has seen if it restores a snapshot file; `None` if the file does not follow the format.
pub(crate) fn seen_in_file(file: &[u8]) -> Option<ExactDots> {
    let (mut seen, mut reader, mut begins) = (ExactDots::default(), Reader(file), true);
    while !reader.is_at_end() {
        let length = u32::from_be_bytes(reader.array()?);
        let (record, rest) = reader.0.split_at_checked(length as usize)?;
        reader.0 = rest;
        let is_header = tagged(record).and_then(|mut reader| reader.u32()) == Some(HEADER);
        if is_header != begins {
            return None;
        }
        begins = false;
        add_seen(record, &mut seen);
    }
    (!begins).then_some(seen)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::super::write::{Op, head_of};
    use super::*;

    /// An author of one boot: its node and its store are all of one byte, its boot is 1 and its nonce 300.
    fn actor(byte: u8) -> Vec<u8> {
        [&[byte; 32][..], &[1, 0xac, 2]].concat()
    }

    /// The body of a write of shard 7, slot 2: the third of author 1, of key `k`, stamp 77. It knows author 2. It puts
    /// `v` into field `f`, supersedes edit 1 of its own first write, and whatever author 2 wrote as its ninth.
    fn body() -> Vec<u8> {
        let put = [1, b'f', 0, 1, b'v', 1, 0, 1, 1, 1, 1, 9, 0];
        let delete = [1, b'g', 1, 0, 0, 1, 1, 2, 2, 8, 11, 11];
        [&[1, 7, 2][..], &actor(1), &[3, 1, b'k', 77, 1], &actor(2), &[2], &put, &delete].concat()
    }

    fn sealed(body: &[u8]) -> Vec<u8> {
        [&[SEALED][..], &Sha256::digest(body), body].concat()
    }

    fn dot(byte: u8, seq: u64) -> Dot {
        let dot = head_of(&sealed(&[&[1, 7, 2][..], &actor(byte), &[1]].concat()));
        Dot { seq, ..dot.expect("the head of a write").1 }
    }

    fn partial(write: &[u8], live: &[u8]) -> Vec<u8> {
        assert!((128..1 << 14).contains(&write.len()), "the length takes two bytes");
        let length = [write.len() as u8 | 0x80, (write.len() >> 7) as u8];
        [&[TAGGED, VERSION, 0][..], &length, write, live].concat()
    }

    /// A view that teaches the dots 1 to 2 and 5 of author 1, defers a removal of each kind, covers a key, and leaves
    /// edits 0 and 64 of dot 4 alive.
    fn view() -> Vec<u8> {
        let context = [&[1][..], &actor(1), &[2, 1, 1, 1, 0]].concat();
        let scope = [&actor(2)[..], &[8, 1, 2], &[0; 32]].concat();
        let deferred = [&[2][..], &actor(2), &[8, 0, 3], &scope].concat();
        let removals = [&[1][..], &actor(1), &[4, 1, 1, 1]].concat();
        let covers = [&[1, 3, b'k', 0, 1, 1, 1][..], &actor(2), &[1, 4, 2]].concat();
        [&[TAGGED, VERSION, 1][..], &context, &deferred, &covers, &removals, &[77]].concat()
    }

    fn in_file(records: &[&[u8]]) -> Vec<u8> {
        let with_length =
            |record: &&[u8]| [&(record.len() as u32).to_be_bytes()[..], *record].concat();
        records.iter().flat_map(with_length).collect()
    }

    #[test]
    fn a_write_says_what_its_bytes_say() {
        let record = sealed(&body());
        let Some(Record::Write(write, None)) = read(&record) else { panic!("a sound write") };
        assert_eq!((write.shard.namespace.0, write.shard.slot), (7, 2));
        assert_eq!((write.dot, &write.key[..], write.stamp), (dot(1, 3), &b"k"[..], 77));
        let [edit, delete] = &write.edits[..] else { panic!("two edits") };
        assert_eq!((&edit.field[..], &edit.op), (&b"f"[..], &Op::Put(b"v".to_vec())));
        assert_eq!(edit.superseded, [(dot(1, 1), 1)]);
        assert_eq!((&edit.absent[..], &edit.covered[..]), (&[dot(2, 9)][..], &[][..]));
        let other = dot(2, 1).actor;
        assert_eq!(delete.op, Op::Delete);
        assert_eq!(delete.covered, [(other, 2, 8), (other, 11, 11)]);
        assert_eq!(dot_in(&record), Some(dot(1, 3)));
        let part = partial(&record, &[0b101, 0]);
        assert_eq!(read(&part), Some(Record::Write(write, Some(vec![0, 2]))));
        assert_eq!(dot_in(&part), Some(dot(1, 3)));
    }

    #[test]
    fn a_view_says_what_it_teaches() {
        let Some(Record::Join(join)) = read(&view()) else { panic!("a view") };
        assert_eq!(join.removals, [(dot(1, 4), vec![0, 64])]);
        assert_eq!(join.context, [(dot(1, 1).actor, vec![(1, 2), (5, 5)])]);
        assert_eq!(dot_in(&view()), None);
    }

    /// No record says anything if it ends early or goes on, and a sealed one if any of its bits is another.
    #[test]
    fn other_bytes_say_nothing() {
        let record = sealed(&body());
        let part = partial(&record, &[0b101, 0]);
        let discarding = [TAGGED, VERSION, 2];
        assert_eq!(read(&discarding), Some(Record::Other));
        for record in [&record[..], &part, &view(), &discarding] {
            (0..record.len()).for_each(|length| assert_eq!(read(&record[..length]), None));
            assert_eq!(read(&[record, &[0]].concat()), None);
        }
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_file_says_what_is_seen() {
        let header = [TAGGED, VERSION, 3, 7, 2, 77, 0];
        let end = [TAGGED, VERSION, 4];
        let file = in_file(&[&header, &view(), &end, &sealed(&body())]);
        let seen = seen_in_file(&file).expect("a file");
        let held = (0..9).filter(|seq| seen.contains(&dot(1, *seq)));
        assert_eq!(held.collect::<Vec<_>>(), [1, 2, 3, 5]);
        assert_eq!(seen_in_file(&file[..file.len() - 1]), None, "it ends early");
        assert_eq!(seen_in_file(&in_file(&[&view(), &end])), None, "it has no header");
        assert_eq!(seen_in_file(&in_file(&[&header, &end, &header])), None, "two files in one");
        assert_eq!(seen_in_file(&[]), None);
    }
}
