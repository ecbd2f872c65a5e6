//! Marks and mutants. A mark counts how often a run reached a line of code; a mutant is a planted bug that proves that
//! the simulator's oracles see it.
//!
//! Both exist only under the feature `instrument`, which the simulator and the tests enable. Without it `reach!` is
//! empty and `mutant!` is the constant `false`, so no shipped binary contains their names.
//!
//! Every name is in a table below; the compiler refuses any other. The counters and the active mutant belong to the
//! whole process, so a parallel campaign runs in several processes.

/// Counts that the run reached this line: `reach!("raft.election.won")`.
#[macro_export]
macro_rules! reach {
    ($name:literal) => {{
        #[cfg(feature = "instrument")]
        {
            const SITE: usize = $crate::mark::instrument::mark($name);
            $crate::mark::instrument::hit(SITE);
        }
    }};
}

/// Whether the named planted bug is active: `if mutant!("raft.vote.not_persisted") { .. }`.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(feature = "instrument")]
        {
            const SITE: usize = $crate::mark::instrument::mutant($name);
            $crate::mark::instrument::is_active(SITE)
        }
        #[cfg(not(feature = "instrument"))]
        {
            false
        }
    }};
}

/// The tables and counters behind the macros.
#[cfg(feature = "instrument")]
pub mod instrument {
    use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    /// Every mark, as `<machine>.<what>.<case>`.
    pub const MARKS: &[&str] = &[
        // raft
        "raft.append.already_committed",
        "raft.append.conflict",
        "raft.append.hole_probed",
        "raft.append.overtaken",
        "raft.append.truncated",
        "raft.commit.old_term_waits",
        "raft.commit.unblocks",
        "raft.conflict.backtracked",
        "raft.conflict.late",
        "raft.conflict.lost",
        "raft.election.campaign",
        "raft.election.conceded",
        "raft.election.lost",
        "raft.election.pre_vote",
        "raft.election.pre_vote_denied",
        "raft.election.pre_vote_granted",
        "raft.election.quorum_lost",
        "raft.election.stepped_down",
        "raft.election.won",
        "raft.leader.no_voter",
        "raft.log.compacted",
        "raft.membership.changed",
        "raft.membership.refused",
        "raft.message.rejected",
        "raft.propose.refused",
        "raft.read.confirmed",
        "raft.read.during_transfer",
        "raft.read.forwarded",
        "raft.read.leadership_lost",
        "raft.read.round",
        "raft.read.timed_out",
        "raft.snapshot.corrupt",
        "raft.snapshot.installed",
        "raft.snapshot.needed",
        "raft.snapshot.not_needed",
        "raft.snapshot.receiver_forgot",
        "raft.snapshot.refused",
        "raft.snapshot.refused_by_peer",
        "raft.snapshot.resumed",
        "raft.snapshot.superseded",
        "raft.snapshot.unknown_offer",
        "raft.term.later_answer",
        "raft.term.of_a_learner",
        "raft.term.stale_leader",
        "raft.transfer.begun",
        "raft.transfer.expired",
        "raft.transfer.nobody",
        "raft.transfer.taken",
        "raft.transfer.told",
        "raft.vote.denied",
        "raft.vote.disruption_ignored",
        "raft.vote.granted",
        // api
        "api.context.foreign",
        // replication
        "replication.ack.enough",
        "replication.author.again",
        "replication.author.below_the_top",
        "replication.author.refused",
        "replication.author.too_many_siblings",
        "replication.author.unseen_context",
        "replication.checkpoint.done",
        "replication.checkpoint.sliced",
        "replication.clock.fell_back",
        "replication.counter.late",
        "replication.deferred.added",
        "replication.deferred.applied",
        "replication.deferred.full",
        "replication.discard.pruned",
        "replication.forged.context",
        "replication.forged.write",
        "replication.message.rejected",
        "replication.message.unknown_shard",
        "replication.push.parted",
        "replication.push.resumed",
        "replication.push.withheld",
        "replication.restore.snapshot",
        "replication.restore.tail",
        "replication.roots.differ",
        "replication.roots.equal",
        "replication.session.begun",
        "replication.session.done",
        "replication.session.learnt",
        "replication.session.refused",
        "replication.session.stale_answer",
        "replication.session.stalled",
        "replication.session.timeout",
        "replication.shard.closed",
        "replication.shard.opened",
        "replication.sync.context_too_large",
        "replication.sync.equivocation",
        "replication.sync.page",
        "replication.sync.partial_removal",
        "replication.sync.removal",
        "replication.write.again",
        "replication.write.equivocation",
        "replication.write.merged",
        "replication.write.partly_dead",
        "replication.write.replaced",
        // gossip
        "gossip.update.unknown",
        "gossip.connected.asked",
        "gossip.load.old",
        "gossip.member.back_from_death",
        "gossip.member.recalled",
        "gossip.member.new_store",
        "gossip.member.restarted",
        "gossip.member.table_full",
        "gossip.message.rejected",
        "gossip.pause.reset",
        "gossip.probe.begun",
        "gossip.probe.dead_pinged",
        "gossip.probe.failed",
        "gossip.probe.helper_asked",
        "gossip.probe.nack_missing",
        "gossip.probe.saved_by_helper",
        "gossip.relay.ack",
        "gossip.relay.nack",
        "gossip.relay.refused",
        "gossip.self.left",
        "gossip.self.other_life",
        "gossip.self.refuted",
        "gossip.broadcast.sent_enough",
        "gossip.suspicion.begun",
        "gossip.suspicion.confirmed",
        "gossip.suspicion.ran_out",
        "gossip.sync.begun",
        "gossip.sync.death_softened",
        "gossip.sync.paged",
        "gossip.sync.stray_answer",
        // discovery
        "discovery.alone",
        "discovery.candidate.evicted",
        "discovery.candidate.refused",
        "discovery.candidate.table_full",
        "discovery.contacts.saved",
        "discovery.dial",
        "discovery.dial.needless",
        "discovery.dial.too_many",
        "discovery.dial.unanswered",
        "discovery.contacts.sent",
        "discovery.contacts.too_often",
        "discovery.verify.new",
        "discovery.verify.ourselves",
        "discovery.verify.refused",
        "discovery.verify.returned",
        "discovery.verify.second_address",
        // coordinator
        "coordinator.balance.panic",
        "coordinator.balance.passed_over",
        "coordinator.balance.suspect",
        "coordinator.health.dwells",
        "coordinator.health.slow_start",
        "coordinator.leaders.full",
        "coordinator.link.bad",
        "coordinator.link.flapped",
        "coordinator.members.full",
        "coordinator.members.unknown",
        "coordinator.requests.ejected",
        "coordinator.requests.half_open",
        // state
        "state.command.too_long",
        "state.halted",
        "state.capture.waits",
        "state.session.older",
        "state.session.repeated",
        "state.session.unknown",
        "state.session.full",
        "state.session.evicted",
        "state.registry.not_bootstrapped",
        "state.registry.bootstrapped_twice",
        "state.registry.bootstrapped",
        "state.registry.rejoined",
        "state.registry.members_full",
        "state.registry.store_replaced",
        "state.registry.bad_name",
        "state.registry.namespace_exists",
        "state.registry.namespaces_full",
        "state.registry.created",
        "state.registry.deleted",
        "state.registry.key_rotated",
        "state.registry.repeated_member",
        "state.kv.refused",
        "state.kv.conflict",
        "state.kv.page_full",
        "state.capture.chunk",
        "state.capture.restored",
        "state.snapshot_map.overlaid",
        "state.snapshot_map.merged",
        // wal
        "wal.segment.opened",
        "wal.recover.clean",
        "wal.recover.torn",
        "wal.recover.stale",
        "wal.recover.rot",
        "wal.recover.rot_at_beginning",
        "wal.recover.rot_before_segment",
        "wal.recover.rot_in_header",
        "wal.recover.misdirected",
        "wal.recover.forked",
        "wal.recover.foreign",
        "wal.recover.hole",
        "wal.recover.empty",
        "wal.recover.empty_segment",
        // node
        "node.apply.captured",
        "node.apply.continued",
        "node.apply.halted",
        "node.apply.halted_leader",
        "node.apply.installed",
        "node.apply.snapshot_refused",
        "node.peers.cloned_alive",
        "node.peers.forked",
        "node.peers.linked_still",
        "node.peers.refused_by_peer",
        "node.peers.restarted",
        "node.peers.stale",
        "node.peers.wrong_store",
        "node.checkpoint.discarded",
        "node.checkpoint.file_kept",
        "node.checkpoint.group",
        "node.checkpoint.named_again",
        "node.checkpoint.node",
        "node.checkpoint.registry",
        "node.checkpoint.released",
        "node.checkpoint.shard",
        "node.fenced",
        "node.formed",
        "node.doubt.condemned",
        "node.doubt.resumed",
        "node.doubt.settled",
        "node.doubt.suspended",
        "node.request.suspended",
        "node.forward.forgotten",
        "node.forward.late_answer",
        "node.forward.link_lost",
        "node.forward.no_link",
        "node.forward.of_other_boot",
        "node.forward.repeated",
        "node.forward.sent",
        "node.forward.turned_away",
        "node.bootstrap.aborted",
        "node.bootstrap.decided",
        "node.bootstrap.declined",
        "node.bootstrap.expired",
        "node.bootstrap.late_acceptance",
        "node.bootstrap.offered",
        "node.bootstrap.unfit",
        "node.founding.aborted",
        "node.founding.accepted",
        "node.founding.asked",
        "node.founding.declined",
        "node.founding.formed",
        "node.founding.outlived",
        "node.founding.released",
        "node.founding.told",
        "node.founding.told_on_request",
        "node.genesis.other",
        "node.genesis.rival",
        "node.join.bound",
        "node.join.of_rival",
        "node.group.aligned",
        "node.group.forgotten",
        "node.group.closed",
        "node.group.opened",
        "node.hold.dropped",
        "node.hold.message",
        "node.hold.repeated",
        "node.hold.reply",
        "node.join.asked",
        "node.join.entry_changed",
        "node.join.forgotten",
        "node.join.in",
        "node.join.in_anothers_name",
        "node.join.sent_to_leader",
        "node.join.too_often",
        "node.join.of_earlier_store",
        "node.read.waits_for_apply",
        "node.request.busy",
        "node.request.disk_full",
        "node.request.disk_slow",
        "node.request.expired",
        "node.request.memory_full",
        "node.request.resolving_name",
        "node.request.out_of_bounds",
        "node.request.refused",
        "node.request.replicated",
        "node.request.retried",
        "node.request.skipped",
        "node.request.superseded",
        "node.request.waits_for_leader",
        "node.restore.leftover",
        "node.session.repeated",
        "node.session.forgotten",
        "node.session.duplicate",
        "node.standing.refused",
        "node.start",
        "node.stopping",
        "node.storage.full_changed",
        "node.storage.full_still",
        "node.wire.no_link",
    ];

    /// Every mutant, with one sentence on the bug.
    pub const MUTANTS: &[(&str, &str)] = &[
        // raft
        ("raft.ack.before_fsync", "a follower acknowledges entries before its disk has them"),
        (
            "raft.append.aba",
            "truncating the log keeps the durable marks of the removed entries, so new entries count as durable",
        ),
        (
            "raft.append.cuts_committed",
            "an overtaken append truncates committed entries on the disk",
        ),
        ("raft.commit.old_term", "a leader commits an entry of an older term by counting replicas"),
        (
            "raft.commit.own_disk_ignored",
            "a leader counts itself for commit before its own disk has the entries",
        ),
        (
            "raft.commit.unverified",
            "a follower commits up to the leader's commit index over entries that the leader never confirmed",
        ),
        (
            "raft.transfer.hands_back",
            "leadership is transferred back to the replica that gave it away, so two of them depose each other forever",
        ),
        ("raft.match.skipped", "a follower appends without the match check"),
        ("raft.quorum.off_by_one", "half of the voters count as a majority"),
        ("raft.read.stale_round", "a read is confirmed by a round that began before it arrived"),
        (
            "raft.read.forwarded_unconfirmed",
            "a read that a follower forwarded is confirmed by a round that began before it arrived",
        ),
        (
            "raft.read.without_noop",
            "a new leader answers reads before it knows what its predecessors committed",
        ),
        (
            "raft.snapshot.stale_installed",
            "a snapshot older than the commit index replaces the log",
        ),
        (
            "raft.term.bumped_by_heartbeat",
            "a leader takes a later term from another leader's message and goes on leading",
        ),
        ("raft.truncate.stale", "an overtaken append truncates the entries that came after it"),
        ("raft.vote.forgotten", "the record of the term leaves out the vote"),
        ("raft.vote.index_only", "votes compare the lengths of logs and not their last terms"),
        ("raft.vote.not_persisted", "votes are requested and granted before they are durable"),
        ("raft.vote.twice", "a replica votes for every candidate of a term"),
        ("raft.vote.boasts", "a candidate says that its log ends in a later term than it does"),
        ("raft.conflict.gives_way", "a leader cuts its own log to what a follower shares with it"),
        (
            "raft.append.unbounded",
            "an append carries all entries that a follower lacks, whatever the budget",
        ),
        ("raft.commit.goes_back", "a follower takes a lower commit index for a new one"),
        (
            "raft.membership.drops_learner",
            "when a learner joins, another one leaves in the same change",
        ),
        (
            "raft.membership.survives_truncation",
            "a configuration holds on though its entry was cut from the log",
        ),
        ("raft.time.falls", "a new leader counts group time from zero"),
        ("raft.transfer.ignored", "a voter that is told to take over leadership does nothing"),
        ("raft.membership.learner_votes", "a new learner becomes a voter at once"),
        ("raft.leader.any", "any member of a group may lead it"),
        (
            "raft.snapshot.recorded_unchecked",
            "a snapshot is recorded before the state machine has looked at it",
        ),
        ("raft.term.of_a_learner", "a learner's answer moves its leader to a later term"),
        // api
        ("api.context.any_shard", "a context of another shard is taken"),
        ("api.context.old_keys", "the first key stays valid for ever"),
        ("api.context.unchecked", "the seal of a context is not checked"),
        // replication
        ("replication.author.mints_named", "a write's number is one that others named"),
        ("replication.deferred.unbounded", "deferred removals have no bound"),
        ("replication.deferred.uncounted", "the memory of deferred removals is not counted"),
        ("replication.equivocation.first_stays", "of two writes with one dot the first stays"),
        ("replication.session.covers_refused", "a view covers the writes that were refused"),
        ("replication.session.refused_again", "a refused write is asked for again"),
        ("replication.session.refused_blocks", "one refused write blocks the whole view"),
        ("replication.ack.before_fsync", "a delta is acknowledged before it is durable"),
        (
            "replication.context.without_gaps",
            "a context covers all numbers below its greatest, so lost writes are never requested",
        ),
        ("replication.counter.sums_twice", "a count does not supersede its earlier totals"),
        ("replication.delete.resurrects", "a dead write that arrives again lives again"),
        ("replication.hash.skipped", "the hash of received bytes is not checked"),
        (
            "replication.lww.wall_clock",
            "the last writer is the one with the greatest millisecond, and ties go by the order of arrival",
        ),
        (
            "replication.author.supersedes_too_little",
            "a write with a context leaves what its client had read, if its replica holds that",
        ),
        (
            "replication.author.ignores_unseen",
            "a write with a context leaves what its client had read elsewhere",
        ),
        (
            "replication.replicated.counts_itself",
            "the author of a write counts as one of the other replicas that hold it",
        ),
        ("replication.page.skips_row", "a page begins one row too late"),
        ("replication.read.hides_member", "a read of a set leaves out its last member"),
        (
            "replication.author.observes_all",
            "a write with a context supersedes what its client never read",
        ),
        (
            "replication.push.before_fsync",
            "a write is pushed before it is durable, and what it superseded with it",
        ),
        (
            "replication.restore.skips_tail",
            "changes made while a checkpoint was captured are not restored",
        ),
        (
            "replication.set.removes_unseen",
            "a remove takes concurrent adds with it that its author never saw",
        ),
        (
            "replication.sync.covers_early",
            "a view covers the whole context though not all its writes fit into it",
        ),
        ("replication.hlc.unbounded", "the clock follows stamps of any lead"),
        ("replication.stamp.below_superseded", "a stamp may be below a superseded one"),
        ("replication.stamp.below_dead", "a stamp may be below those of dead writes"),
        ("replication.hlc.deaf", "the clock ignores the stamps of other nodes"),
        ("replication.author.forgets_boot", "all boots of a store write as one actor"),
        ("replication.author.refused_and_kept", "a write is refused, and applied all the same"),
        ("replication.read.by_arrival", "siblings are read in the order of their authors' arrival"),
        ("replication.compare.never", "replicas compare nothing while their link is up"),
        // gossip
        ("gossip.ack.of_anybody", "an ack counts from any sender"),
        ("gossip.buddy.silent", "a suspect is not told of its suspicion"),
        ("gossip.refute.dropped", "a node that is wrongly suspected does not refute it"),
        (
            "gossip.dead.overrides_newer_alive",
            "a death of an old incarnation beats a newer incarnation",
        ),
        ("gossip.incarnation.ignored", "any update beats what is held, whatever its incarnation"),
        ("gossip.suspect.at_once", "a failed probe declares a member dead, without a suspicion"),
        // discovery
        ("discovery.contacts.unverified", "contacts that nobody verified are sent to peers"),
        // coordinator
        ("coordinator.choice.herds", "this node's own requests in progress do not count"),
        ("coordinator.health.no_hysteresis", "one observation changes a member's health at once"),
        // state
        (
            "state.session.forgotten",
            "the reply to a session's write is not kept, so a retry is executed again",
        ),
        ("state.session.lost_in_snapshot", "a snapshot holds no sessions"),
        ("state.cas.ignored", "a compare-and-set ignores its condition"),
        (
            "state.apply.twice_after_restore",
            "a restored state counts its last entry as not applied",
        ),
        ("state.keys.lost_in_snapshot", "a snapshot holds no keys"),
        ("state.numbers.skipped_by_restore", "a restored registry skips a number"),
        ("state.registry.keeps_deleted", "a namespace that was deleted is still there"),
        // wal
        ("wal.middle.accepted", "damage in the middle of the log is cut like a tear"),
        ("wal.checksum.skipped", "a batch's digest is not compared"),
        ("wal.torn.accepted", "the readable part of an unfinished batch counts as written"),
        // node
        ("node.boot.not_persisted", "sends before this process's boot is durable"),
        (
            "node.request.counts_itself",
            "a strong write counts the answering voter as one of the others that hold it",
        ),
        ("node.canary", "panics at the first tick: proves that the pipeline reports"),
        (
            "node.checkpoint.discards_early",
            "deletes a snapshot file before its replacement is durable",
        ),
        (
            "node.checkpoint.released_early",
            "releases log records before their replacement is durable",
        ),
        ("node.fence.goes_on", "a node whose disk failed goes on"),
        ("node.forward.of_other_boot", "takes an answer to a request of an earlier process"),
        ("node.forward.duplicated", "takes a forwarded request as often as it arrives"),
        (
            "node.group.forgotten_early",
            "forgets how it voted in a deleted group that a restart brings back",
        ),
        ("node.group.left_open", "goes on with the group of a namespace that was deleted"),
        ("node.hold.skipped", "releases promises before the promised writes are durable"),
        ("node.join.without_voters", "a node that is told of its federation is not told who votes"),
        (
            "node.founding.aborted_although_formed",
            "a founder that is formed says that the founding is aborted",
        ),
        ("node.founding.acceptance_not_durable", "a voter accepts before its disk has it"),
        ("node.founding.accepts_twice", "a voter accepts a second founding beside an open one"),
        ("node.founding.beside_formed", "a federation begins beside a linked node that is formed"),
        ("node.founding.goes_on", "a founding goes on after its request was rejected"),
        ("node.founding.majority_decides", "a founding is decided once most voters accepted it"),
        ("node.founding.released_unasked", "a voter leaves a founding without its founder's word"),
        ("node.founding.forgotten", "a restart forgets which founding the node accepted"),
        ("node.genesis.unchecked_in_gossip", "gossip of another genesis is taken"),
        ("node.genesis.unchecked_in_raft", "a group's messages of another genesis are taken"),
        ("node.genesis.unchecked_in_replication", "shards take messages of another genesis"),
        ("node.join.relayed", "a member lets others in under their names"),
        ("node.join.unbounded", "peers join and change their entries as often as they like"),
        ("node.message.unknown_is_garbage", "a message of a later version ends its link"),
        (
            "node.read.stale_local",
            "serves strong reads from local state, without asking the leader",
        ),
        ("node.reply.before_durable", "answers durable writes before the disk has them"),
        (
            "node.request.other_term_counts",
            "takes any entry applied at a proposal's index for the proposal",
        ),
        ("node.session.retry_without", "repeats a write of unknown outcome that has no session"),
        ("node.apply.uncommitted", "applies entries as soon as they are in the log"),
        ("node.doubt.fence_not_durable", "starts again from a store that peers know to be a copy"),
        ("node.doubt.goes_on", "promises although a voter knows another process of this store"),
        ("node.doubt.learner_counts", "a learner's word fences a process"),
        ("node.doubt.one_is_enough", "one voter's word fences a process"),
        ("node.peers.forgets_boots", "a restart forgets which processes of members were replaced"),
        (
            "node.peers.lineage_ignored",
            "lets in a rolled-back disk once it was started often enough",
        ),
        ("node.peers.old_welcome", "lets in a process that a later one of its store replaced"),
        (
            "node.capture.claims_too_much",
            "a snapshot claims the position of the log's end, not its own",
        ),
        (
            "node.checkpoint.copy_cuts",
            "a log that is copied forward ends with a record that truncates it to the start of the copy",
        ),
        ("node.deadline.spins", "asks for a tick at once, again and again"),
        ("node.halted.ready", "a node with a halted group says that it is ready"),
        ("node.standing.anyone_refuses", "any holder of a certificate may refuse this process"),
        ("node.standing.learner_leads", "a learner's leader messages reach Raft"),
        ("node.standing.strangers_contacts", "dials the addresses that a stranger names"),
        ("node.standing.strangers_data", "takes writes from nodes that are no members"),
        ("node.request.answered_twice", "answers a request twice"),
    ];

    static HITS: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];
    /// The index of the active mutant plus one; 0 when none is active.
    static ACTIVE: AtomicUsize = AtomicUsize::new(0);

    /// The index of a mark in the table.
    ///
    /// # Panics
    ///
    /// If the name is not in the table. The macros call this in a constant, so it fails at compile time.
    #[must_use]
    pub const fn mark(name: &str) -> usize {
        let mut at = 0;
        while at < MARKS.len() {
            if same(MARKS[at], name) {
                return at;
            }
            at += 1;
        }
        panic!("this mark is not in MARKS")
    }

    /// The index of a mutant in the table.
    ///
    /// # Panics
    ///
    /// If the name is not in the table. The macros call this in a constant, so it fails at compile time.
    #[must_use]
    pub const fn mutant(name: &str) -> usize {
        let mut at = 0;
        while at < MUTANTS.len() {
            if same(MUTANTS[at].0, name) {
                return at;
            }
            at += 1;
        }
        panic!("this mutant is not in MUTANTS")
    }

    const fn same(a: &str, b: &str) -> bool {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }

    /// Counts one hit.
    pub fn hit(site: usize) {
        HITS[site].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the mutant at `site` is active.
    #[must_use]
    pub fn is_active(site: usize) -> bool {
        ACTIVE.load(Ordering::Relaxed) == site + 1
    }

    /// Activates one mutant by name, or none. Returns false if no mutant has this name.
    pub fn activate(name: Option<&str>) -> bool {
        let found = name.map(|name| MUTANTS.iter().position(|(known, _)| *known == name));
        match found {
            None => ACTIVE.store(0, Ordering::Relaxed),
            Some(Some(site)) => ACTIVE.store(site + 1, Ordering::Relaxed),
            Some(None) => return false,
        }
        true
    }

    /// Hits of every mark since the process started, in the order of the table.
    pub fn hits() -> impl Iterator<Item = (&'static str, u64)> {
        MARKS.iter().zip(&HITS).map(|(name, hits)| (*name, hits.load(Ordering::Relaxed)))
    }
}
