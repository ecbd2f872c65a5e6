//! Spans of soundness while faults last: answers, elections, hand-overs, deaths.

use continuum_core::api::{Level, Outcome, Reason, Receipt};
use continuum_core::gossip::State;
use continuum_core::id::{GroupId, Index, NodeId, RequestId, Role, Term};

use super::super::false_death::{self, Deaths};
use super::super::handover_succeeds::{self, Handovers};
use super::super::majority_serves::{self, Requests};
use super::super::needless_election::{self, Offices};
use super::super::soundness::tests::picture;
use super::super::soundness::{Health, Picture, Soundness, Way};
use super::{Planted, bad, good};
use crate::env::clock::MS;

const TIMEOUT_MS: u64 = 500;
const WELL: Health = Health::Well(1);
/// When every state has lasted for longer than any law asks for.
const LATE: u64 = 60_000 * MS;

pub(super) fn all() -> Vec<Planted> {
    [answers(), elections(), handovers(), deaths()].concat()
}

/// Three nodes, the last of which is down; all else has been sound since this time.
fn without_the_third(since: u64) -> Soundness {
    let mut sound = Soundness::new(3);
    sound.see(since, picture(&[WELL, WELL, Health::Silent]));
    sound
}

fn answers() -> Vec<Planted> {
    let id = RequestId(1);
    let answered = |since: u64, outcome: Outcome| {
        let (sound, mut requests) = (without_the_third(since), Requests::new(TIMEOUT_MS, false));
        requests.arrives(&sound, 0, id, LATE);
        requests.look(&sound, LATE + TIMEOUT_MS * MS)?;
        requests.answers(&sound, 0, id, &outcome)
    };
    let waits = |changes: bool| {
        let (mut sound, mut requests) = (without_the_third(0), Requests::new(TIMEOUT_MS, false));
        requests.arrives(&sound, 0, id, LATE);
        if changes {
            sound.see(LATE + 1, picture(&[WELL, Health::Silent, WELL]));
        }
        requests.look(&sound, LATE + 3 * TIMEOUT_MS * MS)
    };
    let loses = |at: u64| {
        let (mut sound, mut requests) = (Soundness::new(3), Requests::new(TIMEOUT_MS, false));
        sound.see(0, picture(&[WELL; 3]));
        let mut lost = picture(&[WELL, WELL, Health::Silent]);
        lost.votes[2] = false;
        sound.see(at, lost);
        requests.arrives(&sound, 0, id, LATE);
        requests.answers(&sound, 0, id, &Outcome::Unknown { reached: None })
    };
    let receipt = Receipt { revision: Some(Index(1)), context: None, existed: false };
    let committed = Outcome::Committed { level: Level::Durable, receipt };
    let conflict = Outcome::Rejected(Reason::Conflict { revision: None, at: 0 });
    let no_leader = || Outcome::Rejected(Reason::NoLeader);
    vec![
        good("a majority commits", answered(0, committed)),
        good("a majority finds another value", answered(0, conflict)),
        good("a majority is sound for a moment only", answered(LATE - 9, no_leader())),
        bad("a majority without a leader", majority_serves::NAME, answered(0, no_leader())),
        bad(
            "a majority does not know",
            majority_serves::NAME,
            answered(0, Outcome::Unknown { reached: None }),
        ),
        good("a majority ends", waits(true)),
        bad("a majority does not answer", majority_serves::NAME, waits(false)),
        good("the leader's store is lost a moment ago", loses(LATE - 9)),
        bad("a voter's store was lost long ago", majority_serves::NAME, loses(0)),
    ]
}

fn elections() -> Vec<Planted> {
    let (group, led) = (GroupId(1), Term(2));
    let leads = |since: u64| {
        let (sound, mut offices) = (without_the_third(since), Offices::new(TIMEOUT_MS));
        let begins = offices.turns(&sound, (0, 1), group, led, Role::Leader);
        assert_eq!(begins, Ok(()));
        (sound, offices)
    };
    let begins = |since: u64, transfers: bool| {
        let (sound, mut offices) = leads(since);
        if transfers {
            offices.transfers(group, led);
        }
        offices.campaigns(&sound, (2, LATE), group, Term(3))
    };
    let leaves = |term: u64| {
        let (sound, mut offices) = leads(0);
        offices.turns(&sound, (0, LATE), group, Term(term), Role::Follower)
    };
    vec![
        good("an election after the leader's links broke", begins(LATE - 9, false)),
        good("an election that the leader asks for", begins(0, true)),
        bad("an election beside a leader", needless_election::NAME, begins(0, false)),
        good("a leader meets a later term", leaves(3)),
        bad("a leader leaves without a reason", needless_election::NAME, leaves(2)),
    ]
}

fn handovers() -> Vec<Planted> {
    let group = GroupId(1);
    let judged = |target: Option<usize>, succeeds: bool, disturbed: bool, has_log: bool| {
        let mut sound = Soundness::new(3);
        sound.see(0, picture(&[WELL; 3]));
        let mut handovers = Handovers::new(TIMEOUT_MS);
        handovers.begins(&sound, (0, LATE), (group, Term(2)), |_| has_log);
        if let Some(target) = target {
            handovers.tells(0, group, target);
        }
        if succeeds {
            handovers.role(1, group, Term(3), Role::Leader);
        }
        if disturbed {
            sound.see(LATE + 1, picture(&[WELL, Health::Silent, WELL]));
        }
        handovers.look(&sound, LATE + 2 * TIMEOUT_MS * MS)
    };
    let name = handover_succeeds::NAME;
    vec![
        good("an office is taken over", judged(Some(1), true, false, true)),
        good("the heir crashes", judged(Some(1), false, true, true)),
        good("no heir has the log", judged(None, false, false, false)),
        bad("the heir does nothing", name, judged(Some(1), false, false, true)),
        bad("no heir is told", name, judged(None, false, false, true)),
    ]
}

fn deaths() -> Vec<Planted> {
    let member = NodeId([1; 16]);
    let number = |node: NodeId| (node == member).then_some(1);
    let dies = |change: fn(&mut Picture), by_itself: bool| {
        let mut sound = Soundness::new(3);
        let mut now = picture(&[WELL; 3]);
        change(&mut now);
        sound.see(0, now);
        let mut deaths = Deaths::default();
        deaths.turns(9, member, State::Suspect, false);
        deaths.turns(LATE, member, State::Dead, by_itself);
        deaths.check_declared(&sound, 0, number)
    };
    let held = |after_ms: u64| {
        let mut sound = Soundness::new(3);
        sound.see(0, picture(&[WELL; 3]));
        let mut deaths = Deaths::default();
        deaths.turns(9, member, State::Dead, false);
        deaths.check_held(&sound, (0, after_ms * MS), 3, number)
    };
    let cut = |picture: &mut Picture| {
        (0..3).for_each(|other| picture.ways[1][other] = Way::Cut);
    };
    let bound_ms = false_death::refuted_within_ms(3);
    vec![
        good("a stopped member dies", dies(|p| p.nodes[1] = Health::Silent, true)),
        good("a member that is cut off dies", dies(cut, true)),
        good("others report a death", dies(|_| (), false)),
        bad("a living member is declared dead", false_death::NAME, dies(|_| (), true)),
        good("a living member is held dead for a while", held(bound_ms)),
        bad("a living member stays dead", false_death::NAME, held(bound_ms + 1)),
    ]
}
