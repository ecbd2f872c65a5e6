#![doc = include_str!("standing.md")]

use crate::api::Request;
use crate::id::{GroupId, Replica};
use crate::{gossip, mutant, raft, reach, replication};

use super::machine::Node;
use super::{Founding, Message};

/// The standing of a sender with its receiver, the least first. A higher standing includes the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It holds a certificate of the federation, and the receiver knows nothing else of it.
    Stranger,
    /// The registry or group 0's newest configuration names it.
    Member,
    /// It is a learner of the newest known configuration of the message's group.
    Learner,
    /// It is a voter of the newest known configuration of the message's group.
    Voter,
}

/// The senders that a receiver outside any federation listens to. Each of them is a stranger to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unformed {
    /// Nobody may send the message.
    Nobody,
    /// Only a node that the receiver looked for itself: an address of the operator's list proved to be it.
    Sought,
    /// Every holder of a certificate may send the message.
    Anyone,
}

/// A row of the table: which senders may send a kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// The least standing with a receiver that is in a federation. `None`: nobody may send the message.
    formed: Option<Standing>,
    /// The senders that a receiver outside any federation listens to.
    unformed: Unformed,
}

/// The reasons of the table.
const REASON_SOUGHT: &str = "told by a node that this one did not look for";
const REASON_UNFORMED: &str = "for a node that is in no federation";
const REASON_NOBODY: &str = "a message that no node sends";
const REASON_VOTER: &str = "a voter's message of no voter";
const REASON_LEARNER: &str = "a group's message of no member of the group";
const REASON_MEMBER: &str = "a member's message of no member";

/// Defines the kinds, their list and their names, so that the three cannot differ.
macro_rules! kinds {
    ($($kind:ident => $name:literal,)*) => {
        /// A kind of message, down to the kind that the machine behind it distinguishes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Kind { $($kind,)* }

        #[cfg(test)]
        impl Kind {
            /// All kinds, in the order of the table.
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// All reasons of the table.
            pub(super) const REASONS: &[&str] = &[
                REASON_SOUGHT, REASON_UNFORMED, REASON_NOBODY, REASON_VOTER, REASON_LEARNER, REASON_MEMBER,
            ];

            /// The kind's name in the table.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    PreVote => "raft `PreVote`",
    PreVoteReply => "raft `PreVoteReply`",
    Vote => "raft `Vote`",
    VoteReply => "raft `VoteReply`",
    Append => "raft `Append`",
    AppendAck => "raft `AppendAck`",
    AppendRejected => "raft `AppendRejected`",
    Heartbeat => "raft `Heartbeat`",
    HeartbeatAck => "raft `HeartbeatAck`",
    StaleTerm => "raft `StaleTerm`",
    SnapshotOffer => "raft `SnapshotOffer`",
    SnapshotChunk => "raft `SnapshotChunk`",
    SnapshotAck => "raft `SnapshotAck`",
    TimeoutNow => "raft `TimeoutNow`",
    ReadIndex => "raft `ReadIndex`",
    ReadIndexReply => "raft `ReadIndexReply`",
    SnapshotRefused => "raft `SnapshotRefused`",
    Delta => "replication `Delta`",
    Ack => "replication `Ack`",
    Compare => "replication `Compare`",
    Same => "replication `Same`",
    Differ => "replication `Differ`",
    Pull => "replication `Pull`",
    Page => "replication `Page`",
    View => "replication `View`",
    PullRefused => "replication `Refused`",
    Summary => "replication `Summary`",
    Ping => "gossip `Ping`",
    PingRequest => "gossip `PingRequest`",
    PingAck => "gossip `Ack`",
    PingNack => "gossip `Nack`",
    Updates => "gossip `Updates`",
    PushMembers => "gossip `Push`",
    PullMembers => "gossip `Pull`",
    Offer => "founding `Offer`",
    Accepted => "founding `Accepted`",
    Declined => "founding `Declined`",
    Asked => "founding `Asked`",
    Aborted => "founding `Aborted`",
    Formed => "founding `Formed`",
    Acknowledged => "founding `Acknowledged`",
    Genesis => "`Genesis`",
    Contacts => "`Contacts`",
    ForwardInit => "`Forward` of `Init`",
    ForwardJoin => "`Forward` of `Join`",
    ForwardStatus => "`Forward` of `Status`",
    ForwardMembers => "`Forward` of `Members`",
    ForwardNamespaces => "`Forward` of `Namespaces`",
    ForwardCreate => "`Forward` of `CreateNamespace`",
    ForwardDelete => "`Forward` of `DeleteNamespace`",
    ForwardRotate => "`Forward` of `RotateKey`",
    ForwardRead => "`Forward` of `Read`",
    ForwardWrite => "`Forward` of `Write`",
    Answer => "`Answer`",
    Refused => "`Refused`",
    Confirm => "`Confirm`",
    Confirmed => "`Confirmed`",
}

impl Kind {
    /// The kind of a message.
    pub(super) const fn of(message: &Message) -> Self {
        match message {
            Message::Raft { message, .. } => Self::of_raft(message),
            Message::Replication { message, .. } => Self::of_replication(message),
            Message::Gossip { message, .. } => Self::of_gossip(message.body),
            Message::Founding(message) => Self::of_founding(message),
            Message::Genesis { .. } => Self::Genesis,
            Message::Contacts(_) => Self::Contacts,
            Message::Forward { request, .. } => Self::of_request(request),
            Message::Answer { .. } => Self::Answer,
            Message::Refused { .. } => Self::Refused,
            Message::Confirm(_) => Self::Confirm,
            Message::Confirmed(_) => Self::Confirmed,
        }
    }

    const fn of_raft(message: &raft::Message) -> Self {
        use raft::Message as M;
        match message {
            M::PreVote { .. } => Self::PreVote,
            M::PreVoteReply { .. } => Self::PreVoteReply,
            M::Vote { .. } => Self::Vote,
            M::VoteReply { .. } => Self::VoteReply,
            M::Append { .. } => Self::Append,
            M::AppendAck { .. } => Self::AppendAck,
            M::AppendRejected { .. } => Self::AppendRejected,
            M::Heartbeat { .. } => Self::Heartbeat,
            M::HeartbeatAck { .. } => Self::HeartbeatAck,
            M::StaleTerm { .. } => Self::StaleTerm,
            M::SnapshotOffer { .. } => Self::SnapshotOffer,
            M::SnapshotChunk { .. } => Self::SnapshotChunk,
            M::SnapshotAck { .. } => Self::SnapshotAck,
            M::TimeoutNow { .. } => Self::TimeoutNow,
            M::ReadIndex { .. } => Self::ReadIndex,
            M::ReadIndexReply { .. } => Self::ReadIndexReply,
            M::SnapshotRefused { .. } => Self::SnapshotRefused,
        }
    }

    const fn of_replication(message: &replication::Message) -> Self {
        use replication::Message as M;
        match message {
            M::Delta { .. } => Self::Delta,
            M::Ack { .. } => Self::Ack,
            M::Compare { .. } => Self::Compare,
            M::Same { .. } => Self::Same,
            M::Differ { .. } => Self::Differ,
            M::Pull { .. } => Self::Pull,
            M::Page { .. } => Self::Page,
            M::View { .. } => Self::View,
            M::Refused { .. } => Self::PullRefused,
            M::Summary(_) => Self::Summary,
        }
    }

    const fn of_gossip(body: gossip::Body) -> Self {
        use gossip::Body as B;
        match body {
            B::Ping { .. } => Self::Ping,
            B::PingRequest { .. } => Self::PingRequest,
            B::Ack { .. } => Self::PingAck,
            B::Nack { .. } => Self::PingNack,
            B::Updates => Self::Updates,
            B::Push { .. } => Self::PushMembers,
            B::Pull { .. } => Self::PullMembers,
        }
    }

    const fn of_founding(message: &Founding) -> Self {
        match message {
            Founding::Offer(_) => Self::Offer,
            Founding::Accepted(_) => Self::Accepted,
            Founding::Declined { .. } => Self::Declined,
            Founding::Asked { .. } => Self::Asked,
            Founding::Aborted(_) => Self::Aborted,
            Founding::Formed(_) => Self::Formed,
            Founding::Acknowledged(_) => Self::Acknowledged,
        }
    }

    const fn of_request(request: &Request) -> Self {
        match request {
            Request::Init { .. } => Self::ForwardInit,
            Request::Join { .. } => Self::ForwardJoin,
            Request::Status => Self::ForwardStatus,
            Request::Members => Self::ForwardMembers,
            Request::Namespaces => Self::ForwardNamespaces,
            Request::CreateNamespace { .. } => Self::ForwardCreate,
            Request::DeleteNamespace { .. } => Self::ForwardDelete,
            Request::RotateKey { .. } => Self::ForwardRotate,
            Request::Read { .. } => Self::ForwardRead,
            Request::Write { .. } => Self::ForwardWrite,
        }
    }

    /// The table. The match has no wildcard, so a new kind does not compile without a row. One line has several kinds,
    /// so that it fits onto one page.
    #[rustfmt::skip]
    const fn row(self) -> Row {
        use Standing::{Learner, Member, Stranger, Voter};
        use Unformed::{Anyone, Nobody, Sought};
        let (formed, unformed) = match self {
            // A leader or a candidate sends these, and only a leader or a voter gives these answers.
            Self::PreVote | Self::PreVoteReply | Self::Vote | Self::VoteReply | Self::Append | Self::Heartbeat
            | Self::SnapshotOffer | Self::SnapshotChunk | Self::TimeoutNow | Self::ReadIndexReply => {
                (Some(Voter), Nobody)
            }
            // A follower or a learner sends these to its leader.
            Self::AppendAck | Self::AppendRejected | Self::HeartbeatAck | Self::StaleTerm | Self::SnapshotAck
            | Self::SnapshotRefused | Self::ReadIndex => (Some(Learner), Nobody),
            Self::Delta | Self::Ack | Self::Compare | Self::Same | Self::Differ | Self::Pull | Self::Page
            | Self::View | Self::PullRefused | Self::Summary => (Some(Member), Nobody),
            Self::Ping | Self::PingRequest | Self::PingAck | Self::PingNack | Self::Updates | Self::PushMembers
            | Self::PullMembers => (Some(Member), Nobody),
            // First voters are strangers to each other until the founding is decided, and a node of another federation
            // stays one. Each message is compared with the founding that the receiver takes part in.
            Self::Offer | Self::Accepted | Self::Declined | Self::Asked | Self::Aborted | Self::Formed
            | Self::Genesis => (Some(Stranger), Anyone),
            Self::Acknowledged => (Some(Voter), Nobody),
            // An address that a node is told of is dialled.
            Self::Contacts => (Some(Member), Sought),
            // An operator asks the node itself.
            Self::ForwardInit => (None, Nobody),
            // A stranger joins in its own name, and a founder asks candidates whether they are free.
            Self::ForwardJoin | Self::ForwardStatus => (Some(Stranger), Anyone),
            Self::ForwardMembers | Self::ForwardNamespaces | Self::ForwardCreate | Self::ForwardDelete
            | Self::ForwardRotate | Self::ForwardRead | Self::ForwardWrite => (Some(Member), Nobody),
            // A node outside any federation asks strangers. It checks that it asked this one.
            Self::Answer => (Some(Member), Anyone),
            Self::Refused => (Some(Voter), Nobody),
            // Every linked node may ask whether it is linked. The node that asked checks what it is answered.
            Self::Confirm | Self::Confirmed => (Some(Stranger), Anyone),
        };
        Row { formed, unformed }
    }

    /// Whether a sender of this standing may send this kind to a receiver that is in a federation or not.
    pub(super) fn judge(
        self,
        standing: Standing,
        formed: bool,
        sought: bool,
    ) -> Result<(), &'static str> {
        let row = self.row();
        if !formed {
            return match row.unformed {
                Unformed::Anyone => Ok(()),
                Unformed::Sought if sought => Ok(()),
                Unformed::Sought => Err(REASON_SOUGHT),
                Unformed::Nobody => Err(REASON_UNFORMED),
            };
        }
        match row.formed {
            None => Err(REASON_NOBODY),
            Some(least) if standing >= least => Ok(()),
            Some(Standing::Voter) => Err(REASON_VOTER),
            Some(Standing::Learner) => Err(REASON_LEARNER),
            Some(_) => Err(REASON_MEMBER),
        }
    }
}

impl Node {
    /// Judges a message by its sender's standing. Nothing else looks at a message before.
    pub(super) fn judge(&self, from: Replica, message: &Message) -> Result<(), &'static str> {
        let kind = Kind::of(message);
        let standing = match message {
            Message::Raft { group, .. } => self.standing_in(*group, from),
            _ => self.standing_in(GroupId::REGISTRY, from),
        };
        let standing = if planted(kind, standing) { Standing::Voter } else { standing };
        let formed = self.is_formed();
        // A formed node asks nobody whether it looked for the sender: the question costs a search.
        let verdict = kind.judge(standing, formed, !formed && self.is_sought(from));
        if verdict.is_err() {
            reach!("node.standing.refused");
        }
        verdict
    }

    /// The standing of a peer: a stranger, or at least a member.
    pub(super) fn standing(&self, peer: Replica) -> Standing {
        self.standing_in(GroupId::REGISTRY, peer)
    }

    /// The standing of a peer in a group, by the newest configuration that this node has, committed or not.
    fn standing_in(&self, group: GroupId, peer: Replica) -> Standing {
        if let Some(known) = self.groups.get(&group) {
            let configuration = known.raft.configuration();
            if configuration.is_voter(peer) {
                return Standing::Voter;
            }
            if configuration.is_member(peer) {
                return Standing::Learner;
            }
        }
        let registry = self.groups.get(&GroupId::REGISTRY);
        let configured = registry.is_some_and(|known| known.raft.configuration().is_member(peer));
        if configured || self.registry_view.is_member(peer) {
            Standing::Member
        } else {
            Standing::Stranger
        }
    }

    /// Whether this node looked for the peer itself.
    pub(super) fn is_sought(&self, peer: Replica) -> bool {
        self.discovery.machine.is_sought(peer.node)
    }
}

/// Planted bugs: senders that count as voters although they are none.
fn planted(kind: Kind, standing: Standing) -> bool {
    match kind {
        Kind::Append | Kind::Heartbeat | Kind::SnapshotOffer | Kind::SnapshotChunk => {
            standing == Standing::Learner && mutant!("node.standing.learner_leads")
        }
        Kind::Refused => mutant!("node.standing.anyone_refuses"),
        Kind::Contacts => mutant!("node.standing.strangers_contacts"),
        Kind::Vote | Kind::PreVote | Kind::TimeoutNow => {
            standing == Standing::Learner && mutant!("node.standing.learner_campaigns")
        }
        Kind::ForwardCreate | Kind::ForwardDelete | Kind::ForwardRotate | Kind::ForwardWrite => {
            mutant!("node.standing.strangers_requests")
        }
        Kind::Ping | Kind::Updates | Kind::PushMembers => {
            mutant!("node.standing.strangers_gossip")
        }
        Kind::Delta | Kind::View | Kind::Page => mutant!("node.standing.strangers_data"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    /// The part of the documentation that the code writes itself.
    fn table() -> String {
        let mut table = String::from(
            "| kind of message | stranger | member | learner | voter | outside any federation |\n\
             |---|---|---|---|---|---|\n",
        );
        let standings = [Standing::Stranger, Standing::Member, Standing::Learner, Standing::Voter];
        for kind in Kind::ALL {
            table += &format!("| {} ", kind.name());
            for standing in standings {
                let taken = kind.judge(standing, true, false).is_ok();
                table += if taken { "| yes " } else { "| - " };
            }
            let unformed =
                [false, true].map(|sought| kind.judge(Standing::Stranger, false, sought).is_ok());
            table += match unformed {
                [true, true] => "| yes |\n",
                [false, true] => "| sought |\n",
                _ => "| - |\n",
            };
        }
        table
    }

    #[test]
    fn the_documentation_holds_the_table() {
        let page = include_str!("standing.md");
        let table = table();
        assert!(page.ends_with(&table), "standing.md must end with this table:\n{table}");
    }

    #[test]
    fn a_higher_standing_may_do_all_that_a_lower_one_may() {
        let standings = [Standing::Stranger, Standing::Member, Standing::Learner, Standing::Voter];
        for kind in Kind::ALL {
            let taken = standings.map(|standing| kind.judge(standing, true, false).is_ok());
            assert!(taken.is_sorted(), "{kind:?}: {taken:?}");
        }
    }
}
