//! Gossip on its own: five members find each other through one contact, and notice that one of them is gone.
//!
//! The network loses one message in ten. Gossip writes nothing and promises nothing, so its driver needs no disk; it
//! owes the machine boots that rise, and a transport that authenticates senders.

use continuum_core::config::GossipConfig;
use continuum_core::gossip::{Action, Event, Gossip, Incarnation, Member, Message, State};
use continuum_core::id::{Address, Boot, NodeId, Replica, StoreId};
use continuum_core::machine::{Machine, Now, Outbox};
use continuum_core::seed::Seed;
use continuum_core::time::{Instant, WallTime};

const MEMBERS: usize = 5;

fn member(at: usize) -> Member {
    Member {
        replica: Replica { node: NodeId([at as u8; 16]), store: StoreId([at as u8; 16]) },
        name: format!("n{at}"),
        address: Address(format!("host-{at}:7100")),
        incarnation: Incarnation { boot: Boot { count: 1, nonce: 7 }, refutations: 0 },
        state: State::Alive,
        load: 0,
    }
}

/// One step. Returns the messages that leave, each with its receiver.
fn step(machine: &mut Gossip, ms: u64, event: Event) -> Vec<(usize, NodeId, Message)> {
    let mut out = Outbox::new();
    machine.step(Now { mono: Instant::from_millis(ms), wall: WallTime(ms) }, event, &mut out);
    let from = machine.own().replica.node;
    let sent = out.drain().filter_map(|action| match action {
        Action::Send { to, message } => Some((usize::from(to.0[0]), from, message)),
        _ => None,
    });
    sent.collect()
}

/// The members that a machine holds, by state.
fn count(machine: &Gossip, state: State) -> usize {
    machine.members().filter(|member| member.state == state).count()
}

fn main() {
    let (config, mut loss) = (GossipConfig::default(), Seed::from_number(1).derive("loss", 0));
    let open = |at| Gossip::open(member(at), config.clone(), &Seed::from_number(at as u64));
    let mut machines: Vec<Gossip> = (0..MEMBERS).map(open).collect();
    let mut mail = Vec::new();
    for machine in &mut machines[1..] {
        let contact = member(0);
        let join = Event::Join { contact: contact.replica, address: contact.address };
        mail.extend(step(machine, 1, join));
    }
    for ms in 2..60_000 {
        let is_up = |at: usize| at < MEMBERS - 1 || ms < 20_000; // the last member stops
        for (to, from, message) in std::mem::take(&mut mail) {
            if is_up(to) && loss.below(10) > 0 {
                mail.extend(step(&mut machines[to], ms, Event::Received { from, message }));
            }
        }
        for (_, machine) in machines.iter_mut().enumerate().filter(|(at, _)| is_up(*at)) {
            mail.extend(step(machine, ms, Event::Tick));
        }
        if ms == 19_999 || ms == 59_999 {
            for (at, machine) in machines.iter().enumerate().filter(|(at, _)| is_up(*at)) {
                let (alive, dead) = (count(machine, State::Alive), count(machine, State::Dead));
                println!(
                    "after {} s member {at} holds {alive} alive, {dead} dead",
                    (ms + 1) / 1_000
                );
                let expected = if ms < 20_000 { (MEMBERS, 0) } else { (MEMBERS - 1, 1) };
                assert_eq!((alive, dead), expected);
            }
        }
    }
}

#[test]
fn runs() {
    main();
}
