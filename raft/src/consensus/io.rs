//! The contract between the pure core and whoever runs it: what goes in, what comes out, and in which order to act.

use super::message::Envelope;
use super::types::{
    BatchNo, Entry, HardState, Index, LogId, Membership, NodeId, ProposalId, ReadId, SnapshotMeta,
    Term,
};
use bytes::Bytes;

/// Settings of a replica. Ticks are the runtime's unit of time (10 ms by default).
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica.
    pub id: NodeId,
    /// Seeds everything that is random here (election timeouts).
    pub seed: u64,
    /// A leader speaks to each follower at least this often, in ticks; ≥ 1.
    pub heartbeat_ticks: u32,
    /// Shortest election timeout, in ticks; > `heartbeat_ticks`. Also the leader's lease and disk-stall limit.
    pub election_ticks_min: u32,
    /// Longest election timeout, in ticks, inclusive; > `election_ticks_min`.
    pub election_ticks_max: u32,
    /// Longest random delay before the early pre-vote after [`Input::LinkLost`], in ticks, inclusive.
    pub link_lost_ticks_max: u32,
    /// Most bytes of entries in one append ([`Entry::weight_bytes`]); one entry always fits.
    pub max_append_bytes: usize,
    /// Most appends in flight to one peer.
    pub window_messages: usize,
    /// Most bytes in flight to one peer.
    pub window_bytes: usize,
    /// Payloads of the newest entries kept in memory, in bytes.
    pub log_cache_bytes: usize,
    /// Appended but not committed bytes past which a leader refuses proposals with `Busy`.
    pub max_uncommitted_bytes: usize,
}

/// What a restarting replica knows from its disk.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Last durable hard state.
    pub hard_state: HardState,
    /// The last entry that the log no longer holds, with the configuration in force there; none for a whole log.
    pub base: Option<SnapshotMeta>,
    /// The newest durable snapshot: not before `base`, and the log holds its last entry or begins after it. Required when
    /// there is a base.
    pub snapshot: Option<SnapshotMeta>,
    /// Runs of terms in log order: (first index of the run, term). Empty when there is no entry.
    pub terms: Vec<(Index, Term)>,
    /// End of the log; equals the base, or zero, when there is no entry.
    pub last: LogId,
    /// Every membership entry of the log, ascending.
    pub memberships: Vec<(Index, Membership)>,
    /// Commit hint; the core takes max(hint, snapshot) bounded by `last`.
    pub commit_index: Index,
    /// The newest entries with payloads, consecutive up to `last`; may be fewer than the log holds.
    pub tail: Vec<Entry>,
}

/// A command to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Repeated in [`Output::accepted`] or [`Output::refused`].
    pub id: ProposalId,
    /// Opaque.
    pub command: Bytes,
}

/// A wanted configuration. The core walks there by joint consensus where the voters differ; leaving the joint state
/// happens by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipChange {
    /// Repeated in [`Output::accepted`] or [`Output::refused`].
    pub id: ProposalId,
    /// Index of the configuration that this change was computed from; refused if another one is in force by now.
    pub based_on: Index,
    /// The wanted configuration, not joint (`outgoing` empty), with at least one voter.
    pub target: Membership,
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// One tick of time has passed.
    Tick,
    /// A message arrived. Others' bytes: anything impossible in it is dropped and counted, never a panic.
    Message(Envelope),
    /// Commands to append, in order.
    Propose(Vec<Proposal>),
    /// A linearizable read asks for its read index (thesis §6.4).
    Read(ReadId),
    /// Change the configuration.
    ChangeMembership(MembershipChange),
    /// First configuration of a new cluster; ignored unless log and hard state are empty.
    Bootstrap(Membership),
    /// Everything up to and including `batch` is durable; `hard_state` and `last` are what the log then holds.
    Synced {
        /// Highest durable batch.
        batch: BatchNo,
        /// Durable hard state.
        hard_state: HardState,
        /// Durable end of the log.
        last: LogId,
    },
    /// Answers [`Output::fetch`]; consecutive entries.
    Fetched(Vec<Entry>),
    /// All connections of this leader's process were closed by its side: it is most likely dead (never safety, only
    /// a shorter timer).
    LinkLost(NodeId),
    /// The connection to a peer broke: the messages in flight are lost, so replication to it goes back to probing. A snapshot
    /// that it is being sent goes another way, and is not concerned.
    PeerUnreachable(NodeId),
    /// The peer does not get the snapshot that it was offered: it is probed, and offered the newest one when it still needs it.
    SnapshotFailed(NodeId),
    /// The state machine has applied everything up to here.
    Applied(Index),
    /// A snapshot of our own is durable, of entries that were ready. It need not be the newest.
    SnapshotTaken {
        /// It.
        meta: SnapshotMeta,
        /// The log may drop everything up to and including this index, but never more than the snapshot includes. It does so
        /// later as long as a peer that is being sent a snapshot needs what comes after that.
        compact_to: Index,
    },
    /// A snapshot from the leader is durable. Also the right answer to an offer of one that has been durable for long.
    SnapshotReceived(SnapshotMeta),
    /// Hand leadership to this voter (thesis §3.10).
    Transfer(NodeId),
    /// Campaign now, as an operator's wish.
    Campaign,
}

/// What must become durable, as one unit and in the order of [`BatchNo`]: first the truncation, then the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// Number of this batch.
    pub batch: BatchNo,
    /// New term or vote.
    pub hard_state: Option<HardState>,
    /// Drop this index and everything above it before appending.
    pub truncate_from: Option<Index>,
    /// Append these.
    pub append: Vec<Entry>,
    /// Commit index at this moment: a hint that shortens a restart; its loss is harmless.
    pub commit_index: Index,
}

/// Entries wanted from the log because their payloads left the cache: `from ..= to`, all of them durable. The answer may
/// end earlier, wherever a bound on bytes says so; an answer without entries means that the log could not be read, and
/// they are asked for again after an election timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// First wanted.
    pub from: Index,
    /// Last wanted, inclusive.
    pub to: Index,
}

/// Why a proposal, read or change was surely not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Ask there, if known.
    NotLeader {
        /// Where the leader is believed to be.
        leader: Option<NodeId>,
    },
    /// Too much is under way; try again later.
    Busy,
    /// Leader, but no entry of its own term is committed yet, or leadership is being handed over; try again soon.
    NotReady,
    /// Another configuration change is under way.
    ChangeInProgress,
    /// The change was computed from a configuration that is no longer in force.
    StaleChange,
    /// The change is malformed (no voter, a joint target, a voter without address).
    InvalidChange,
}

/// Something that an operator wants to read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The role changed.
    RoleChanged {
        /// New role.
        role: RoleName,
        /// In this term.
        term: Term,
        /// In a few words.
        reason: &'static str,
    },
    /// The leader of the term became known.
    LeaderChanged {
        /// Who.
        leader: Option<NodeId>,
        /// Of which term.
        term: Term,
    },
    /// Another configuration is in force (appended, or rolled back by a truncation).
    MembershipChanged {
        /// It.
        membership: Membership,
        /// Where it stands in the log.
        index: Index,
    },
    /// A message was dropped because it was impossible.
    Dropped {
        /// Its sender.
        from: NodeId,
        /// What was wrong.
        reason: &'static str,
    },
}

/// The role, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleName {
    /// Follows a leader or waits for one. A learner is a follower that does not vote.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// 1. Make durable; answer with [`Input::Synced`].
    pub persist: Option<Persist>,
    /// 2. Send at once, without waiting for the disk (thesis §10.2.1).
    pub messages: Vec<Envelope>,
    /// 3. Send when every batch handed out so far (this one included) is durable.
    pub messages_after_sync: Vec<Envelope>,
    /// Where each accepted proposal or change stands in the log. Not committed yet.
    pub accepted: Vec<(ProposalId, LogId)>,
    /// Proposals and changes that surely did not enter the log.
    pub refused: Vec<(ProposalId, Refusal)>,
    /// 4. Entries up to here are committed and durable here: hand them to the state machine. Set when it advanced.
    pub ready_index: Option<Index>,
    /// Reads that may be answered once this index is applied.
    pub reads: Vec<(ReadId, Index)>,
    /// Reads that must be asked elsewhere or again.
    pub refused_reads: Vec<(ReadId, Refusal)>,
    /// Payloads wanted from the log.
    pub fetch: Vec<Fetch>,
    /// The snapshot that replaced our log and must be restored into the machine. `persist` truncates what contradicts
    /// it; after that, and after `compact`, the log goes on at `last.index + 1`.
    pub install: Option<SnapshotMeta>,
    /// The log begins after this entry now, once every batch handed out so far is durable: before that, an entry which a
    /// received snapshot replaces could be taken for one that follows it. Never beyond the newest snapshot.
    pub compact: Option<SnapshotMeta>,
    /// For the log and the metrics.
    pub events: Vec<Event>,
}

/// What a leader knows of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Highest index known to be durable there.
    pub match_index: Index,
    /// Ticks since its last answer, saturating.
    pub silent_ticks: u32,
    /// Whether it has kept up long enough to become a voter (thesis §4.2.1).
    pub caught_up: bool,
    /// Last entry of the snapshot that it is being sent, because it needs what our log no longer holds.
    pub snapshot: Option<Index>,
}

/// A look at a replica.
#[derive(Clone, Debug)]
pub struct Status {
    /// This replica.
    pub id: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// Whom it believes to lead; itself when it leads.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit_index: Index,
    /// First index that its log holds, or will when it holds anything.
    pub first_index: Index,
    /// End of its log.
    pub last: LogId,
    /// Last entry of its newest snapshot; zero without one.
    pub snapshot_index: Index,
    /// Configuration in force.
    pub membership: Membership,
    /// Where that stands in the log.
    pub membership_index: Index,
    /// Whether the configuration in force is committed.
    pub membership_committed: bool,
    /// Whether this is a leader that has committed an entry of its own term.
    pub leader_ready: bool,
    /// Leader only: the others.
    pub peers: Vec<(NodeId, PeerStatus)>,
    /// Leader only: to whom leadership is being handed over.
    pub transferring_to: Option<NodeId>,
}
