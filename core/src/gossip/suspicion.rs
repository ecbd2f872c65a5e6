//! Suspicion timeouts: how long a member stays suspected before it is declared dead (Lifeguard IV-B, LHA-Suspicion).
//!
//! A single accuser may itself be the sick one, so its suspicion lasts long. Each independent confirmation shortens the
//! timeout, down to the shortest. This module holds the arithmetic and the confirmations. The table keeps the
//! deadlines, and `end_suspicions` in `mod.rs` declares a suspect dead when its deadline passes.

use alloc::vec::Vec;
use core::time::Duration;

use super::message::CONFIRMATIONS_MAX;
use crate::fixed::Fixed;
use crate::id::NodeId;
use crate::mutant;
use crate::time::Instant;

/// The longest timeout is this many times the shortest (Lifeguard's beta).
const LONGEST: u64 = 6;

/// The timeouts for a federation of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The timeout once all wanted confirmations arrived.
    pub(super) shortest: Duration,
    /// The timeout without a confirmation.
    pub(super) longest: Duration,
    /// Confirmations, beyond the first accuser, that shorten the timeout to the shortest (Lifeguard's K).
    pub(super) confirmations_wanted: u32,
}

impl Rule {
    /// The rule for this many live members, this node included.
    pub(super) fn new(period: Duration, multiplier: u32, members: usize) -> Self {
        // Below ten members the logarithm would make the timeout shorter than the multiplier's periods.
        let log = Fixed::log10(members as u64).max(Fixed::ONE);
        let base = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let shortest = log.of(base.saturating_mul(u64::from(multiplier)));
        // The suspect and this node cannot confirm. If fewer members are left than are wanted, none is waited for.
        let others = u32::try_from(members.saturating_sub(2)).unwrap_or(u32::MAX);
        let wanted = multiplier.saturating_sub(2).min(CONFIRMATIONS_MAX as u32 - 1);
        let confirmations_wanted = if others < wanted { 0 } else { wanted };
        Self {
            shortest: Duration::from_nanos(shortest),
            longest: Duration::from_nanos(shortest.saturating_mul(LONGEST)),
            confirmations_wanted,
        }
    }

    /// The timeout after `confirmed` confirmations:
    /// `max(shortest, longest - (longest - shortest) * log(confirmed + 1) / log(confirmations_wanted + 1))`.
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

/// The suspicion of one member.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    rule: Rule,
    /// The members that accuse the suspect: at least one, each once, the first accuser in front.
    pub(super) confirmations: Vec<NodeId>,
    since: Instant,
}

impl Suspicion {
    /// A suspicion that begins now, with its first accuser.
    pub(super) fn new(rule: Rule, since: Instant, accuser: NodeId) -> Self {
        Self { rule, confirmations: alloc::vec![accuser], since }
    }

    /// Adds a confirmation. Returns whether it is new and still wanted.
    #[must_use]
    pub(super) fn confirm(&mut self, accuser: NodeId) -> bool {
        let is_full = self.confirmations.len() > self.rule.confirmations_wanted as usize;
        let is_new = !is_full && !self.confirmations.contains(&accuser);
        if is_new {
            self.confirmations.push(accuser);
        }
        is_new
    }

    /// When the suspect is declared dead.
    pub(super) fn ends(&self) -> Instant {
        if mutant!("gossip.suspicion.too_short") {
            return self.since + Duration::from_millis(1);
        }
        self.since + self.rule.timeout(self.confirmations.len() as u32 - 1)
    }

    /// Starts the timeout again, because this node was paused and could not receive a refutation.
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

    /// `max(shortest, longest - (longest - shortest) * ln(confirmed + 1) / ln(K + 1))`, with `shortest` = multiplier
    /// times `max(1, log10(members))` seconds, in microseconds. Floating point computed the expected values.
    #[test]
    fn the_timeout_follows_lifeguards_formula() {
        let expected = [
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
        for (multiplier, members, confirmed, micros) in expected {
            let timeout = Rule::new(SECOND, multiplier, members).timeout(confirmed);
            let off = timeout.abs_diff(Duration::from_micros(micros));
            assert!(
                off < Duration::from_micros(2),
                "{multiplier} {members} {confirmed}: {timeout:?}"
            );
        }
    }

    #[test]
    fn a_confirmation_counts_once_and_only_while_wanted() {
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
    fn too_few_members_to_confirm_means_the_shortest_timeout() {
        let rule = Rule::new(SECOND, 4, 3);
        assert_eq!((rule.confirmations_wanted, rule.timeout(0)), (0, Duration::from_secs(4)));
    }
}
