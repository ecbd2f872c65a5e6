//! `crdts` from crates.io, which is rust-crdt: a `Map` from keys to one type for each kind.

use std::fmt::Debug;

use crdts::ctx::AddCtx;
use crdts::map::{Map, Op};
use crdts::{CmRDT, CvRDT, MVReg, Orswot, PNCounter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Counter, KEYS, Kind, Pair, Register, Set, WRITES};
use super::{key, member, value, writes_of};

type Actor = u64;
type Key = Vec<u8>;
type Of<K> = Map<Key, <K as Work>::Held, Actor>;

const AUTHOR: Actor = 1;

/// The change of each write, and the check of a key.
pub trait Work: Kind {
    type Held: crdts::map::Val<Actor, Op: Clone + Serialize + DeserializeOwned>
        + CvRDT
        + Debug
        + Clone
        + Serialize
        + DeserializeOwned;

    fn edit(held: &Self::Held, context: AddCtx<Actor>, write: usize) -> <Self::Held as CmRDT>::Op;

    fn check(held: &Self::Held, at: usize);
}

pub struct Two<K: Work> {
    author: Of<K>,
    other: Of<K>,
    /// Operations that the author applied and has not sent.
    made: Vec<Op<Key, K::Held, Actor>>,
    wire_bytes: usize,
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("it has an encoding")
}

impl<K: Work> Pair for Two<K> {
    fn new(_: bool) -> Self {
        Self { author: Map::new(), other: Map::new(), made: Vec::new(), wire_bytes: 0 }
    }

    fn write(&mut self) {
        for write in 0..WRITES {
            let context = self.author.read_ctx().derive_add_ctx(AUTHOR);
            let edit = |held: &K::Held, context| K::edit(held, context, write);
            let op = self.author.update(key(write), context, edit);
            self.author.apply(op.clone());
            self.made.push(op);
        }
    }

    fn deliver(&mut self) {
        let bytes = encode(&std::mem::take(&mut self.made));
        self.wire_bytes += bytes.len();
        let received: Vec<Op<Key, K::Held, Actor>> =
            postcard::from_bytes(&bytes).expect("its own bytes");
        received.into_iter().for_each(|op| self.other.apply(op));
    }

    fn catch_up(&mut self) {
        let bytes = encode(&self.author);
        self.wire_bytes += bytes.len();
        let received: Of<K> = postcard::from_bytes(&bytes).expect("its own bytes");
        self.other.merge(received);
    }

    fn wire_bytes(&self) -> usize {
        self.wire_bytes
    }

    fn check(&self, other_has: bool) {
        let replicas = [Some(&self.author), other_has.then_some(&self.other)];
        for (replica, at) in
            replicas.into_iter().flatten().flat_map(|r| (0..KEYS).map(move |k| (r, k)))
        {
            K::check(&replica.get(&key(at).to_vec()).val.expect("every key is written"), at);
        }
    }
}

impl Work for Register {
    type Held = MVReg<Vec<u8>, Actor>;

    fn edit(held: &Self::Held, context: AddCtx<Actor>, write: usize) -> <Self::Held as CmRDT>::Op {
        held.write(value(write).to_vec(), context)
    }

    fn check(held: &Self::Held, at: usize) {
        let last = writes_of(at).next_back().expect("every key is written");
        assert_eq!(held.read().val, [value(last).to_vec()]);
    }
}

impl Work for Set {
    type Held = Orswot<Vec<u8>, Actor>;

    fn edit(held: &Self::Held, context: AddCtx<Actor>, write: usize) -> <Self::Held as CmRDT>::Op {
        held.add(member(write).to_vec(), context)
    }

    fn check(held: &Self::Held, at: usize) {
        let mut members: Vec<_> = held.read().val.into_iter().collect();
        members.sort();
        assert!(members.into_iter().eq(writes_of(at).map(|write| member(write).to_vec())));
    }
}

impl Work for Counter {
    type Held = PNCounter<Actor>;

    fn edit(held: &Self::Held, context: AddCtx<Actor>, _: usize) -> <Self::Held as CmRDT>::Op {
        held.inc(context.dot.actor)
    }

    fn check(held: &Self::Held, _: usize) {
        assert_eq!(held.read(), (WRITES / KEYS).into());
    }
}
