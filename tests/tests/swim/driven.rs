//! One machine driven by hand: node 0 of a federation. The test plays all other nodes.

use continuum_core::config::GossipConfig;
use continuum_core::gossip::{
    Action, Body, Event, Gossip, Incarnation, Member, Message, State, Update,
};
use continuum_core::id::{Address, Boot, NodeId, Replica, StoreId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

pub(crate) const ME: u8 = 0;

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

pub(crate) fn replica(n: u8) -> Replica {
    Replica { node: node(n), store: StoreId([n; 16]) }
}

pub(crate) fn incarnation(refutations: u64) -> Incarnation {
    Incarnation { boot: Boot { count: 5, nonce: 5 }, refutations }
}

pub(crate) fn update(n: u8, refutations: u64, state: State) -> Update {
    let confirmations = if state == State::Suspect { vec![node(9)] } else { Vec::new() };
    let address = Address(format!("host{n}:1"));
    Update {
        replica: replica(n),
        incarnation: incarnation(refutations),
        state,
        address,
        confirmations,
    }
}

pub(crate) fn message(from: u8, body: Body, updates: Vec<Update>) -> Message {
    Message { body, sender: update(from, 0, State::Alive).into(), updates, loads: Vec::new() }
}

/// Node 0 of a federation of nodes 0 to n.
pub(crate) struct Driven {
    pub(crate) machine: Gossip,
    pub(crate) now: Instant,
    pub(crate) out: Outbox<Action>,
    pub(crate) changed: Vec<Member>,
}

pub(crate) type Sent = (u64, NodeId, Message);

impl Driven {
    pub(crate) fn new(others: u8, config: GossipConfig) -> Self {
        Self::with_seed(others, config, 11)
    }

    fn with_seed(others: u8, config: GossipConfig, seed: u64) -> Self {
        let me = Member {
            replica: replica(ME),
            name: "me".into(),
            address: Address("me:1".into()),
            incarnation: incarnation(0),
            state: State::Alive,
            load: 0,
        };
        let machine = Gossip::new(me, config, &Seed::from_number(seed));
        let now = Instant::from_millis(1);
        let mut driven = Self { machine, now, out: Outbox::new(), changed: Vec::new() };
        for n in 1..=others {
            let (replica, address) = (replica(n), Address(format!("host{n}:1")));
            driven.step(Event::Add { replica, name: format!("n{n}"), address });
        }
        driven
    }

    /// Like [`Self::new`], but node 0 has heard from every member and no full sync is due soon.
    pub(crate) fn met(others: u8) -> Self {
        Self::met_as(others, 11)
    }

    /// Like [`Self::met`], with this seed.
    pub(crate) fn met_as(others: u8, seed: u64) -> Self {
        let mut driven = Self::with_seed(others, GossipConfig::default(), seed);
        for n in 1..=others {
            driven.receive(n, Body::Updates, vec![]);
        }
        driven.drain_news();
        driven
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Sent> {
        let now = Now { mono: self.now, wall: WallTime(0) };
        self.machine.step(now, event, &mut self.out);
        let (at, mut sent) = (self.now.as_millis(), Vec::new());
        for action in self.out.drain() {
            match action {
                Action::Send { to, message } => sent.push((at, to, message)),
                Action::Changed { member } => self.changed.push(member),
                Action::Rejected { why, .. } => panic!("rejected: {why}"),
            }
        }
        sent
    }

    pub(crate) fn receive(&mut self, from: u8, body: Body, updates: Vec<Update>) -> Vec<Sent> {
        self.step(Event::Received { from: node(from), message: message(from, body, updates) })
    }

    /// Advances time, with a tick at each deadline.
    pub(crate) fn run(&mut self, ms: u64) -> Vec<Sent> {
        let end = Instant(self.now.0 + ms * 1_000_000);
        let mut sent = Vec::new();
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            sent.extend(self.step(Event::Tick));
        }
        self.now = end;
        sent
    }

    /// Advances time while every member except `silent` answers every ping.
    pub(crate) fn live(&mut self, ms: u64, silent: &[u8]) -> Vec<Sent> {
        let end = Instant(self.now.0 + ms * 1_000_000);
        let mut sent = Vec::new();
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            for (at, to, said) in self.step(Event::Tick) {
                if let Body::Ping { number } = said.body
                    && !silent.contains(&to.0[0])
                {
                    self.receive(to.0[0], Body::Ack { number }, vec![]);
                }
                sent.push((at, to, said));
            }
        }
        self.now = end;
        sent
    }

    /// Sends every pending update until its retransmissions are used up.
    pub(crate) fn drain_news(&mut self) {
        for _ in 0..40 {
            self.receive(1, Body::Ping { number: 0 }, vec![]);
            self.receive(2, Body::Ping { number: 0 }, vec![]);
        }
    }

    /// Advances time to the next probe's first ping.
    pub(crate) fn next_probe(&mut self) -> (NodeId, u64) {
        self.next_tick_with_pings()[0]
    }

    /// Advances time to the next step that pings, and returns the nodes that it pings.
    pub(crate) fn next_pings(&mut self) -> Vec<NodeId> {
        self.next_tick_with_pings().into_iter().map(|(to, _)| to).collect()
    }

    fn next_tick_with_pings(&mut self) -> Vec<(NodeId, u64)> {
        loop {
            let due = self.machine.deadline().expect("a next probe is always due");
            self.now = self.now.max(due);
            let pings: Vec<_> = self.step(Event::Tick).iter().filter_map(ping).collect();
            if !pings.is_empty() {
                return pings;
            }
        }
    }

    pub(crate) fn state(&self, n: u8) -> State {
        self.machine.member(node(n)).expect("a member").state
    }

    pub(crate) fn refutations(&self, n: u8) -> u64 {
        self.machine.member(node(n)).expect("a member").incarnation.refutations
    }
}

pub(crate) fn ping((_, to, message): &Sent) -> Option<(NodeId, u64)> {
    match message.body {
        Body::Ping { number } => Some((*to, number)),
        _ => None,
    }
}

pub(crate) fn requests(sent: &[Sent]) -> Vec<(NodeId, u64, NodeId)> {
    let asked = sent.iter().filter_map(|(_, to, message)| match message.body {
        Body::PingRequest { number, target } => Some((*to, number, target)),
        _ => None,
    });
    asked.collect()
}

pub(crate) fn says(sent: &[Sent], to: u8, body: Body) -> bool {
    sent.iter().any(|(_, receiver, message)| *receiver == node(to) && message.body == body)
}
