//! Hostile clients: writes with contexts that no node gave out for their key, and of sessions that nobody opened.
//!
//! Each follows an honest write, so that it meets what that reads and writes, and puts a value that no honest client
//! writes. A node must refuse it. This module does not choose when: the plan does.

use bytes::Bytes;
use continuum_core::api::{
    Change, Context, Edit, Fingerprint, Level, Mutation, Observed, Outcome, Request, Session,
};
use continuum_core::codec;
use continuum_core::id::{Actor, Dot, SessionId};

use crate::env::requester::{Attempt, Requester};
use crate::oracle::eventual;
use crate::plan::fault::Kind;
use crate::rng::{Dice, stream};
use crate::verdict::{Broken, Verdict};
use crate::workload::history::Space;
use crate::world::{World, WorldEvent};

/// The dots that a made-up context names.
const CLAIMED: u64 = 40;

impl World {
    /// A hostile client may follow an attempt of an honest one.
    pub(super) fn attack(&mut self, attempt: Attempt, node: usize, latency: u64, honest: &Request) {
        let name = stream("client.hostile", attempt.client as u64);
        let k = attempt.op_index << 8 | u64::from(attempt.number);
        if !self.draws.chance(name, k, self.mode.hostile_ppm) {
            return;
        }
        let Request::Write { namespace, mutations, .. } = honest else { return };
        let Some(key) = mutations.first().map(|mutation| mutation.key.clone()) else { return };
        let sound = mutations.iter().find_map(|mutation| mutation.context.clone());
        let mut dice = self.draws.dice(stream("client.hostile.token", k ^ name));
        let (namespace, context, session) = if *namespace == Space::Strong.name() {
            (namespace.clone(), None, Some(never_opened(&mut dice)))
        } else {
            let (namespace, context) = self.forge(namespace, sound.as_ref(), &mut dice);
            (namespace, Some(context), None)
        };
        let value = format!("hostile.{}.{k}", attempt.client);
        let change = Change::Put(value.into_bytes().into());
        let edits = vec![Edit { field: Bytes::new(), change }];
        let mutations = vec![Mutation { key, edits, context }];
        let request = Request::Write { namespace, mutations, level: Level::Durable, session };
        self.fired.count(Kind::HostileClient);
        let requester = Requester::Hostile;
        self.schedule_in(latency, WorldEvent::Request { node, requester, request });
    }

    /// A context that no node gave out for the namespace that is returned with it.
    fn forge(
        &self,
        namespace: &str,
        sound: Option<&Context>,
        dice: &mut Dice,
    ) -> (String, Context) {
        let sound = sound.map(Context::as_bytes).filter(|token| !token.is_empty());
        let Some(token) = sound.filter(|_| dice.chance(700_000)) else {
            return (namespace.to_owned(), self.made_up(dice));
        };
        let mut bytes = token.to_vec();
        match dice.below(3) {
            0 => {
                let bit = dice.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            1 => bytes.truncate(1 + dice.below(bytes.len() as u64 - 1) as usize),
            _ => {
                let other = [Space::Siblings, Space::Discard].map(Space::name);
                let other = if namespace == other[0] { other[1] } else { other[0] };
                return (other.to_owned(), Context::from_bytes(token.clone()));
            }
        }
        (namespace.to_owned(), Context::from_bytes(bytes.into()))
    }

    /// A context that names the next writes of some node.
    fn made_up(&self, dice: &mut Dice) -> Context {
        let process = dice.pick(&self.processes);
        let actor = Actor { replica: process.replica, boot: process.boot };
        let dots = (1..=CLAIMED).map(|seq| Dot { actor, seq }).collect();
        let observed = Observed { dots, stamp: 1 << dice.below(62) };
        let mut token = vec![0, 0, 0, 1];
        token.extend((0..16).map(|_| dice.below(256) as u8));
        token.extend_from_slice(&codec::encode(&observed));
        Context::from_bytes(token.into())
    }
}

/// A session that is past its first number, and never had one.
fn never_opened(dice: &mut Dice) -> Session {
    let mut id = [0xbd; 16];
    id[..8].copy_from_slice(&dice.bits().to_be_bytes());
    let request = Fingerprint::default();
    Session { id: SessionId(id), seq: 1 + dice.below(1 << 40), request }
}

/// Judges the answer to a hostile client.
pub(super) fn check(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Committed { .. } => {
            let what = "a write with a context that no node gave out, or of a session that nobody \
                        opened, was committed"
                .to_owned();
            Err(Broken::new(eventual::PHANTOM, what))
        }
        _ => Ok(()),
    }
}
