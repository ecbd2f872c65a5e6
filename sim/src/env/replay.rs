//! Messages of earlier links that arrive again on a later link.
//!
//! Some messages of each direction are kept while the fault is active. A copy arrives again only after the link that
//! carried it is gone, only at the process that it was sent to, and only while its sender has the same store, because a
//! handshake proves the store. This module does not draw the rate; `link_conditions` holds it.

use continuum_core::id::StoreId;
use continuum_core::node::Message;

/// Most messages that are kept per direction.
const KEPT_MAX: usize = 16;

/// A message that was sent.
#[derive(Clone, Debug)]
pub(crate) struct SentMessage {
    /// Its link, its sender's store, and its receiver's process.
    pub(crate) epoch: u32,
    pub(crate) store: StoreId,
    pub(crate) generation: u64,
    pub(crate) print: u64,
    pub(crate) message: Message,
}

/// The messages that were kept, per direction.
#[derive(Debug)]
pub(crate) struct Replays {
    directions: Vec<Vec<SentMessage>>,
}

impl Replays {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { directions: vec![Vec::new(); nodes * nodes] }
    }

    /// Keeps a message; when there are too many, it replaces the one that `draw` chooses. A refusal belongs to one link
    /// only and is never kept.
    pub(crate) fn keep(&mut self, direction: usize, draw: u64, message: SentMessage) {
        if matches!(message.message, Message::Refused { .. }) {
            return;
        }
        let messages = &mut self.directions[direction];
        if messages.len() < KEPT_MAX {
            messages.push(message);
        } else {
            messages[(draw % KEPT_MAX as u64) as usize] = message;
        }
    }

    /// The messages that may arrive again on the link of this epoch, from this store, at this process of the receiver.
    pub(crate) fn of(
        &self,
        direction: usize,
        epoch: u32,
        store: StoreId,
        generation: u64,
    ) -> impl Iterator<Item = &SentMessage> {
        let ends = (store, generation);
        let comes = move |message: &&SentMessage| {
            message.epoch != epoch && (message.store, message.generation) == ends
        };
        self.directions[direction].iter().filter(comes)
    }

    /// The fault is over.
    pub(crate) fn clear(&mut self) {
        self.directions.iter_mut().for_each(Vec::clear);
    }
}

#[cfg(test)]
mod tests {
    use continuum_core::id::Boot;
    use continuum_core::node::Refusal;

    use super::*;

    const STORE: StoreId = StoreId([1; 16]);

    fn message(epoch: u32, generation: u64, message: Message) -> SentMessage {
        SentMessage { epoch, store: STORE, generation, print: 0, message }
    }

    #[test]
    fn a_message_is_replayed_only_on_a_later_link_to_the_same_process() {
        let mut replays = Replays::new(2);
        replays.keep(1, 0, message(3, 1, Message::Genesis { genesis: None, replaced: None }));
        assert_eq!(replays.of(1, 3, STORE, 1).count(), 0, "its link is still up");
        assert_eq!(replays.of(1, 5, STORE, 2).count(), 0, "its receiver is gone");
        assert_eq!(replays.of(2, 5, STORE, 1).count(), 0, "another direction");
        let other = StoreId([2; 16]);
        assert_eq!(replays.of(1, 5, other, 1).count(), 0, "its sender has another store");
        assert_eq!(replays.of(1, 5, STORE, 1).count(), 1);
        replays.clear();
        assert_eq!(replays.of(1, 5, STORE, 1).count(), 0);
    }

    #[test]
    fn few_messages_are_kept_and_no_refusal() {
        let mut replays = Replays::new(2);
        for draw in 0..100 {
            replays.keep(
                1,
                draw,
                message(3, 1, Message::Genesis { genesis: None, replaced: None }),
            );
            replays.keep(
                2,
                draw,
                message(
                    3,
                    1,
                    Message::Refused { refusal: Refusal::Cloned, known: Boot::default() },
                ),
            );
        }
        assert_eq!(replays.of(1, 5, STORE, 1).count(), KEPT_MAX);
        assert_eq!(replays.of(2, 5, STORE, 1).count(), 0);
    }
}
