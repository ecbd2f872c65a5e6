//! Peers: views of members, acks, admitted processes, changes of health, choices.

use continuum_core::api::Health;
use continuum_core::config::Config;
use continuum_core::coordinator::{Choice, Coordinator, Event, Liveness};
use continuum_core::gossip::{Body, Incarnation, Load, Member, Message, ProbeInfo, State, Update};
use continuum_core::id::{Address, Boot, Contact, NodeId, Replica, StoreId};
use continuum_core::machine::{Machine as _, Now, Outbox};
use continuum_core::time::{Instant, WallTime};

use super::super::ack_from_pinged_member::{self, Probes};
use super::super::cheapest_is_chosen::{Asked, Loads};
use super::super::health_hysteresis::{self, HealthChanges};
use super::super::one_process_per_identity::{self, AdmittedPeers, Identified};
use super::super::views::Held;
use super::super::{
    bounded_dials, cheapest_is_chosen, incarnation_precedence, standing, suspect_is_told,
    suspicion_before_death, suspicion_refuted, verified_contacts_only,
};
use super::{Planted, bad, good};
use crate::verdict::Verdict;

pub(super) fn all() -> Vec<Planted> {
    [members(), probes(), processes(), choices(), costs(), hostile()].concat()
}

const fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn replica(number: u8) -> Replica {
    Replica { node: node(number), ..Replica::default() }
}

fn held(refutations: u64, state: State) -> Held {
    (Incarnation { refutations, ..Incarnation::default() }, state)
}

fn update(number: u8, (incarnation, state): Held) -> Update {
    let replica = replica(number);
    Update { replica, incarnation, state, address: Address::default(), confirmations: Vec::new() }
}

fn ping(updates: Vec<Update>) -> Message {
    let sender = update(1, held(0, State::Alive));
    Message { body: Body::Ping { number: 1 }, sender: sender.into(), updates, loads: Vec::new() }
}

/// A message in which a node says that it, or another one, has this load.
fn report(of: NodeId, requests: u32) -> Message {
    let load = Load { node: of, boot: Boot::default(), version: 1, requests };
    Message { loads: vec![load], ..ping(Vec::new()) }
}

/// A coordinator that knows member 1, after these events.
fn coordinator(events: Vec<Event>) -> Coordinator {
    let mut coordinator = Coordinator::new(node(0), Config::default().coordinator);
    let mut out = Outbox::new();
    let now = Now { mono: Instant::from_millis(0), wall: WallTime(0) };
    let known = [Event::Add { node: node(1) }];
    for event in known.into_iter().chain(events) {
        coordinator.step(now, event, &mut out);
    }
    coordinator
}

fn members() -> Vec<Planted> {
    let turns = |before, now| incarnation_precedence::check(node(2), before, now, false);
    let says = |before, now| incarnation_precedence::check(node(2), before, now, true);
    let of_boot = |count| {
        let boot = Boot { count, nonce: 1 };
        (Incarnation { boot, refutations: 0 }, State::Alive)
    };
    let dies = |before, now, hears| suspicion_before_death::check(node(2), before, now, hears);
    let own = |refutations| Member {
        replica: Replica::default(),
        name: String::new(),
        address: Address::default(),
        incarnation: held(refutations, State::Alive).0,
        state: State::Alive,
        load: 0,
    };
    let (alive, suspect) = (held(1, State::Alive), held(1, State::Suspect));
    let told = ping(vec![update(2, suspect)]);
    vec![
        good("a member is suspected", turns(alive, suspect)),
        good("a member refutes", turns(suspect, held(2, State::Alive))),
        bad(
            "an incarnation backwards",
            incarnation_precedence::NAME,
            turns(alive, held(0, State::Dead)),
        ),
        bad("a boot backwards", incarnation_precedence::NAME, turns(of_boot(9), of_boot(3))),
        good("a member that says who it is", says(of_boot(9), of_boot(3))),
        bad(
            "a member that takes a refutation back",
            incarnation_precedence::NAME,
            says(alive, held(0, State::Alive)),
        ),
        bad("alive without refutation", incarnation_precedence::NAME, turns(suspect, alive)),
        good("dead by gossip", dies(alive, held(1, State::Dead), true)),
        bad(
            "dead by one probe",
            suspicion_before_death::NAME,
            dies(alive, held(1, State::Dead), false),
        ),
        good("a suspicion refuted", suspicion_refuted::check(&own(2), Some(suspect))),
        bad(
            "a suspicion not refuted",
            suspicion_refuted::NAME,
            suspicion_refuted::check(&own(1), Some(suspect)),
        ),
        good(
            "a claim that nobody believes",
            suspicion_refuted::check(&own(1), Some(held(1 << 40, State::Dead))),
        ),
        good("a suspect is told", suspect_is_told::check(replica(2), suspect, &told)),
        bad(
            "a suspect is not told",
            suspect_is_told::NAME,
            suspect_is_told::check(replica(2), suspect, &ping(Vec::new())),
        ),
    ]
}

/// A probe of node 2 by ping 7, for which node 3 was asked to help, is answered.
fn answered_by(by: Option<(NodeId, u64)>) -> Verdict {
    let mut probes = Probes::default();
    let body = Body::PingRequest { number: 7, target: node(2) };
    probes.record_request(node(3), &Message { body, ..ping(Vec::new()) });
    let helpers = [node(3)];
    let probing = ProbeInfo { target: node(2), number: 7, acked: true, helpers: &helpers };
    probes.check_probe(&probing, by)
}

fn probes() -> Vec<Planted> {
    vec![
        good("the target answers", answered_by(Some((node(2), 7)))),
        good("an asked helper answers", answered_by(Some((node(3), 7)))),
        bad("a bystander vouches", ack_from_pinged_member::NAME, answered_by(Some((node(4), 7)))),
        bad(
            "an answer to another ping counts",
            ack_from_pinged_member::NAME,
            answered_by(Some((node(2), 6))),
        ),
        bad("silence counts as an answer", ack_from_pinged_member::NAME, answered_by(None)),
    ]
}

fn processes() -> Vec<Planted> {
    let process = |count, nonce| Identified {
        peer: node(2),
        store: StoreId([1; 16]),
        boot: Boot { count, nonce },
    };
    let after = |there: Identified, refused| {
        let mut admitted = AdmittedPeers::default();
        admitted.check(process(5, 1), false)?;
        admitted.check(there, refused)
    };
    let wiped = Identified { store: StoreId([2; 16]), ..process(1, 1) };
    let boot = |count| Boot { count, nonce: 0 };
    vec![
        good("a restarted process is admitted", after(process(6, 9), false)),
        good("an old process is refused", after(process(4, 9), true)),
        good("a new disk is another replica", after(wiped, false)),
        bad("an old process admitted", one_process_per_identity::NAME, after(process(4, 9), false)),
        bad("a clone admitted", one_process_per_identity::NAME, after(process(5, 9), false)),
        good(
            "a message after the boot is durable",
            one_process_per_identity::check_sent(boot(3), boot(3)),
        ),
        bad(
            "a message before the boot is durable",
            one_process_per_identity::NAME,
            one_process_per_identity::check_sent(boot(3), boot(2)),
        ),
    ]
}

fn choices() -> Vec<Planted> {
    let changes = |first: (Health, Health), second: (Health, Health), ms| {
        let mut seen = HealthChanges::default();
        let member = (node(2), Some(State::Alive));
        seen.check(Instant::from_millis(0), 1_000, member, first)?;
        seen.check(Instant::from_millis(ms), 1_000, member, second)
    };
    let (healthy, suspect, unhealthy) = (Health::Healthy, Health::Suspect, Health::Unhealthy);
    let falls = (healthy, suspect);
    let contact = |number: u8| Contact { node: Some(node(number)), address: Address::default() };
    let tells = |told: &[Contact]| verified_contacts_only::check([contact(1)].into_iter(), told);
    let chosen = |number| {
        cheapest_is_chosen::check_chosen(&[(3, node(1)), (2, node(2))], Some(node(number)))
    };
    vec![
        good("health changes after a dwell", changes(falls, (suspect, healthy), 1_000)),
        bad(
            "health changes within a dwell",
            health_hysteresis::NAME,
            changes(falls, (suspect, healthy), 999),
        ),
        bad(
            "from unhealthy to healthy in one step",
            health_hysteresis::NAME,
            changes(falls, (unhealthy, healthy), 2_000),
        ),
        good("a verified contact passed on", tells(&[contact(1)])),
        bad("an unverified contact passed on", verified_contacts_only::NAME, tells(&[contact(2)])),
        good("the cheapest is chosen", chosen(2)),
        bad("a dearer one is chosen", cheapest_is_chosen::NAME, chosen(1)),
    ]
}

fn costs() -> Vec<Planted> {
    let mut loads = Loads::default();
    loads.reports(node(1), &report(node(1), 7));
    loads.reports(node(2), &report(node(1), 9));
    let costs = |coordinator: &Coordinator, open, is_asked: bool| {
        let asked = Asked { open, asked: |_| is_asked };
        cheapest_is_chosen::check_costs(coordinator, Some(&loads), &asked)
    };
    let told = |load| {
        coordinator(vec![Event::LivenessChanged { node: node(1), liveness: Liveness::Alive, load }])
    };
    let failed = coordinator(vec![Event::RequestEnded { node: node(1), answered: false }]);
    let mut busy = coordinator(Vec::new());
    busy.choose(Choice::LeastLoaded, [node(1)].into_iter());
    vec![
        good("a load that was reported", costs(&told(7), 0, false)),
        bad(
            "a load that another node reported",
            cheapest_is_chosen::NAME,
            costs(&told(9), 0, false),
        ),
        good("a charge for a request that failed", costs(&failed, 0, true)),
        bad("a charge without a request", cheapest_is_chosen::NAME, costs(&failed, 0, false)),
        good("a request under way", costs(&busy, 1, true)),
        bad(
            "a request under way that nobody waits for",
            cheapest_is_chosen::NAME,
            costs(&busy, 0, true),
        ),
    ]
}

fn hostile() -> Vec<Planted> {
    let planted = |(name, is_good, verdict)| match is_good {
        true => good(name, verdict),
        false => bad(name, standing::NAME, verdict),
    };
    let stranger = Address(format!("{}1", bounded_dials::STRANGERS_ADDRESS));
    let dial = |address: &Address| bounded_dials::check_address(address);
    let mut all: Vec<Planted> = standing::planted().into_iter().map(planted).collect();
    all.push(good("a member's address is dialled", dial(&Address("n1:7000".to_owned()))));
    all.push(bad("a stranger's address is dialled", bounded_dials::NAME, dial(&stranger)));
    all
}
