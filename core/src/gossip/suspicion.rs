//! How long a member may stay suspected before it is declared dead (Lifeguard IV-B, LHA-Suspicion).
//!
//! One accuser may itself be the sick one, so it waits long; each further, independent accuser shortens the wait, down
//! to the least. Pure arithmetic and the list of confirmations; the table keeps the deadlines.

use alloc::vec::Vec;
use core::time::Duration;

use super::message::CONFIRMATIONS_MAX;
use crate::fixed::Fixed;
use crate::id::NodeId;
use crate::time::Instant;

/// The longest suspicion is this many times the shortest (Lifeguard's beta).
const LONGEST: u64 = 6;

/// The rules of all suspicions in a federation of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// With all confirmations that are waited for.
    pub(super) shortest: Duration,
    /// Without any.
    pub(super) longest: Duration,
    /// Confirmations, beyond the first accuser, that bring it down to the shortest (Lifeguard's K).
    pub(super) confirmations_wanted: u32,
}

impl Rule {
    /// The rule for `members` members that live, this node included.
    pub(super) fn new(period: Duration, multiplier: u32, members: usize) -> Self {
        // Below ten members the logarithm would shorten the suspicion below the multiplier itself.
        let log = Fixed::log10(members as u64).max(Fixed::ONE);
        let base = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let shortest = log.of(base.saturating_mul(u64::from(multiplier)));
        // The suspect and this node accuse nobody. Who waits for more confirmations than there are waits in vain.
        let others = u32::try_from(members.saturating_sub(2)).unwrap_or(u32::MAX);
        let wanted = multiplier.saturating_sub(2).min(CONFIRMATIONS_MAX as u32 - 1);
        let confirmations_wanted = if others < wanted { 0 } else { wanted };
        Self {
            shortest: Duration::from_nanos(shortest),
            longest: Duration::from_nanos(shortest.saturating_mul(LONGEST)),
            confirmations_wanted,
        }
    }

    /// The wait after `confirmed` confirmations:
    /// `max(shortest, longest - (longest - shortest) * log(confirmed + 1) / log(confirmations + 1))`.
    pub(super) fn timeout(&self, confirmed: u32) -> Duration {
        if confirmed >= self.confirmations_wanted {
            return self.shortest;
        }
        let log = |n: u32| Fixed::log2(u64::from(n) + 1);
        let share = log(confirmed).over(log(self.confirmations_wanted));
        let span = self.longest.saturating_sub(self.shortest);
        let cut = share.of(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
        self.longest.saturating_sub(Duration::from_nanos(cut)).max(self.shortest)
    }
}

/// One suspicion under way.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub(super) rule: Rule,
    /// Who accuses: at least one, each once.
    pub(super) confirmations: Vec<NodeId>,
    since: Instant,
}

impl Suspicion {
    /// A suspicion that begins now, with its first accuser.
    pub(super) fn new(rule: Rule, since: Instant, accuser: NodeId) -> Self {
        Self { rule, confirmations: alloc::vec![accuser], since }
    }

    /// Adds an accuser; whether that was news that counts.
    #[must_use]
    pub(super) fn confirm(&mut self, accuser: NodeId) -> bool {
        let full = self.confirmations.len() > self.rule.confirmations_wanted as usize;
        let fresh = !full && !self.confirmations.contains(&accuser);
        if fresh {
            self.confirmations.push(accuser);
        }
        fresh
    }

    /// When the suspect is declared dead.
    pub(super) fn ends(&self) -> Instant {
        self.since + self.rule.timeout(self.confirmations.len() as u32 - 1)
    }

    /// Starts the wait over: this node was asleep, and could not have heard a refutation.
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn confirmations_only_shorten(multiplier in 1..200_u32, members in 0..2000_usize, confirmed in 0..9_u32) {
            let rule = Rule::new(SECOND, multiplier, members);
            prop_assert!(rule.timeout(confirmed + 1) <= rule.timeout(confirmed));
            prop_assert!(rule.timeout(confirmed) >= rule.shortest && rule.timeout(confirmed) <= rule.longest);
        }
    }

    /// `max(shortest, longest - (longest - shortest) * ln(confirmed + 1) / ln(K + 1))` with `shortest` as the
    /// multiplier times `max(1, log10(members))` seconds, worked out in floating point, in microseconds.
    #[test]
    fn the_formula_is_lifeguards() {
        let worked_out = [
            (3, 9, 0, 18_000_000),
            (4, 10, 0, 24_000_000),
            (4, 100, 1, 22_762_810),
            (5, 100, 1, 35_000_000),
            (5, 100, 2, 20_375_937),
            (6, 1000, 1, 69_239_110),
            (6, 1000, 3, 30_478_220),
            (8, 1023, 2, 76_502_005),
            (8, 1023, 5, 33_616_432),
            (8, 50, 6, 13_591_760),
            (7, 16, 4, 12_717_248),
        ];
        for (multiplier, members, confirmed, micros) in worked_out {
            let timeout = Rule::new(SECOND, multiplier, members).timeout(confirmed);
            let off = timeout.abs_diff(Duration::from_micros(micros));
            assert!(
                off < Duration::from_micros(2),
                "{multiplier} {members} {confirmed}: {timeout:?}"
            );
        }
    }

    #[test]
    fn an_accuser_counts_once_and_only_as_many_as_are_waited_for() {
        let rule = Rule::new(SECOND, 4, 20);
        assert_eq!(rule.confirmations_wanted, 2);
        let mut suspicion = Suspicion::new(rule, Instant::ZERO, NodeId([1; 16]));
        assert_eq!(suspicion.ends(), Instant::ZERO + rule.longest);
        assert!(!suspicion.confirm(NodeId([1; 16])));
        assert!(suspicion.confirm(NodeId([2; 16])));
        assert!(suspicion.confirm(NodeId([3; 16])));
        assert!(!suspicion.confirm(NodeId([4; 16])));
        assert_eq!(suspicion.ends(), Instant::ZERO + rule.shortest);
    }

    #[test]
    fn too_few_members_to_confirm_means_the_shortest_wait() {
        let rule = Rule::new(SECOND, 4, 3);
        assert_eq!((rule.confirmations_wanted, rule.timeout(0)), (0, Duration::from_secs(4)));
    }
}
