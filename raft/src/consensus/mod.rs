//! Raft without I/O: a pure state machine, input in, output out.
//!
//! [`Raft::step`] takes one [`Input`] (a tick, a message, commands, "this batch is durable") and returns the next state
//! and an [`Output`] whose fields are listed in the order in which to act on them. There is no clock, socket, file or
//! task in here and no randomness but a seeded one, so a step cannot fail and the same inputs always give the same
//! outputs. Simulator, tests and production run the same code.
//!
//! # The protocol in a page
//!
//! A replica is in one of four roles, and a role owns the data that only it has:
//!
//! ```text
//!            timeout, link lost         a quorum would          a quorum did, and
//!            or operator's wish         vote for it             own vote is on disk
//!  Follower ───────────────────▶ PreCandidate ───────▶ Candidate ───────────────▶ Leader
//!     ▲                               │                    │                        │
//!     └───────────────────────────────┴────────────────────┴────────────────────────┘
//!        a higher term, a leader in this one, a lost election, no quorum heard, a stalled disk
//! ```
//!
//! - *Elections* (`candidate`): a pre-vote asks whether an election could be won and raises nobody's term; who has heard a
//!   leader within the shortest election timeout refuses both kinds of votes.
//! - *Replication* (`leader`, `replication`, `progress`, `follower`): appends are pipelined within a window; a follower that
//!   does not agree is probed, and one that is behind the log is offered a snapshot.
//! - *Commitment* (`quorum`): an entry of the leader's own term is committed when a quorum holds it durably. The leader writes
//!   its disk in parallel and counts itself only when that is done.
//! - *Durability* (`durability`): what a step wants on disk is one numbered batch. Answers that promise something wait in
//!   [`Output::messages_after_sync`] until all batches so far are durable.
//! - *Reads* (`read_index`): one round of heartbeats confirms leadership for all reads that waited when it began.
//! - *Snapshots* (`replica`, `replication`): the log begins after its base, which the newest snapshot includes; entries between
//!   the two stay for peers that are a little behind. Compaction waits for a peer that takes a snapshot, until it has what the
//!   log held when it had taken it, or is silent: else it would need the next one.
//! - *Configuration* (`membership`, `reconfiguration`): every change of voters is a joint change.
//! - *Others' bytes* (`admission`) are checked once, before anything acts on them; *our own state* (`invariants`) is asserted.
//!
//! # Where we differ from the paper
//!
//! - Pre-vote, leader stickiness and check-quorum are always on (thesis §9.6, §4.2.3, §6.2).
//! - A node that was asked by its leader to take over ignores stickiness, and so do those that it asks (thesis §3.10).
//! - A follower whose leader's process closed all its connections no longer counts as having heard it. Those who notice that
//!   at the same moment stand back for the one with the longest log and the highest id, so that they do not split the votes.
//! - A candidate asks for votes only once its own vote and its log are durable, and its own vote counts from then on. A grant
//!   must never outlive the log that it was given for.
//! - A rejected append names the conflicting term, its first index and the end of the log; agreement is found in O(terms)
//!   messages (paper §5.3, the optimisation at the end).
//! - A new leader sends entries at once instead of probing first; who rejects is probed.
//! - A heartbeat is an append that names the entry before the next one to send, and is answered with what is durable.
//! - Terms of non-members are ignored in answers, so that a removed node cannot unseat anybody. A vote request of a
//!   non-member counts when no leader is heard: our configuration may be the old one (thesis §4.2.3).
//! - A leader whose oldest write is older than an election timeout resigns; one that resigns invites a successor.
//! - Those who leave the configuration are told for another election timeout, so that they know.

#![allow(
    clippy::needless_pass_by_value,
    reason = "a handler owns its message, whether or not its role needs all of it"
)]

mod admission;
mod candidate;
mod durability;
mod follower;
mod invariants;
pub mod io;
mod leader;
mod log;
mod membership;
pub mod message;
mod progress;
mod quorum;
mod read_index;
mod reconfiguration;
mod replica;
mod replication;
mod term_rule;
pub mod types;

pub use admission::check_snapshot;
pub use io::*;
pub use message::*;
pub use types::*;

use candidate::{Candidate, PreCandidate};
use follower::Follower;
use leader::Leader;
use replica::{Common, Replica};

/// A replica, whatever its role. Made by [`Raft::new`], moved by [`Raft::step`].
#[derive(Clone, Debug)]
pub enum Raft {
    /// Follows a leader or waits for one.
    Follower(Replica<Follower>),
    /// Asks whether it could win.
    PreCandidate(Replica<PreCandidate>),
    /// Asks for votes.
    Candidate(Replica<Candidate>),
    /// Leads.
    Leader(Replica<Leader>),
}

impl Raft {
    /// A follower with what its disk remembers. There is no output yet: [`Raft::ready_index`] says what may already go to
    /// the state machine, and what has to be written comes with the first step.
    ///
    /// # Panics
    /// When the settings contradict each other or what was restored does: a caller's bug, or a log that should not
    /// have been opened.
    pub fn new(config: Config, restored: Restored) -> Self {
        let mut common = Common::new(config, restored);
        let timeout_ticks = common.random_election_ticks();
        Self::Follower(Replica { common, role: Follower::new(timeout_ticks) })
    }

    /// Takes one input to the next state, and says what to do about it.
    ///
    /// # Panics
    /// When our own state is found broken (design rule: stop before it spreads), or for a [`Input::Synced`] of a batch
    /// that was never handed out. Never for what is in a message.
    #[must_use]
    pub fn step(self, input: Input) -> (Self, Output) {
        let mut next = match input {
            Input::Tick => self.tick(),
            Input::Message(envelope) => self.receive(envelope),
            Input::Propose(proposals) => self.propose(proposals),
            Input::Read(read) => self.read(read),
            Input::ChangeMembership(change) => self.change_membership(change),
            Input::Bootstrap(membership) => self.bootstrap(membership),
            Input::Synced { batch, hard_state, last } => self.synced(batch, hard_state, last),
            Input::Fetched(entries) => self.on_leader(|leader| leader.on_fetched(&entries)),
            Input::LinkLost(leader) => self.link_lost(leader),
            Input::PeerUnreachable(peer) => {
                self.on_leader(|leader| leader.on_peer_unreachable(peer))
            }
            Input::SnapshotFailed(peer) => self.on_leader(|leader| leader.on_snapshot_failed(peer)),
            // No decision here depends on the state machine: it may be slow, detached or gone.
            Input::Applied(_) => self,
            Input::SnapshotTaken { meta, compact_to } => self.snapshot_taken(&meta, compact_to),
            Input::SnapshotReceived(meta) => self.snapshot_received(meta),
            Input::Transfer(target) => self.on_leader(|leader| leader.on_transfer(target)),
            Input::Campaign => self.campaign(),
        };
        next.compact();
        if let Self::Leader(leader) = &mut next {
            leader.replicate();
        }
        let output = next.common_mut().finish();
        if cfg!(debug_assertions) {
            invariants::check(&next);
        }
        (next, output)
    }

    /// Committed and durable here: up to here entries may go to the state machine.
    pub fn ready_index(&self) -> Index {
        self.common().ready_index()
    }

    /// Known to be committed.
    pub fn commit_index(&self) -> Index {
        self.common().commit_index()
    }

    /// Whom this replica believes to lead; itself when it leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.common().leader()
    }

    /// Its role.
    pub fn role(&self) -> RoleName {
        match self {
            Self::Follower(_) => RoleName::Follower,
            Self::PreCandidate(_) => RoleName::PreCandidate,
            Self::Candidate(_) => RoleName::Candidate,
            Self::Leader(_) => RoleName::Leader,
        }
    }

    /// Term and vote, perhaps not durable yet.
    pub fn hard_state(&self) -> HardState {
        self.common().hard_state()
    }

    /// End of the log, perhaps not durable yet.
    pub fn last(&self) -> LogId {
        self.common().log.last()
    }

    /// Term of the entry at `index`, from the one before the first to the end of the log; zero at index zero of a whole log.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.common().log.term_at(index)
    }

    /// First index that the log holds, or will when it holds anything.
    pub fn first_index(&self) -> Index {
        self.common().log.base().index.next()
    }

    /// The newest durable snapshot that the core knows of.
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.common().snapshot.as_ref()
    }

    /// Describes a snapshot that includes everything up to `index`: the entry's id and the configuration in force there. None
    /// unless `index` is committed and the log holds it, or begins right after it.
    pub fn describe(&self, index: Index) -> Option<SnapshotMeta> {
        self.common().describe(index)
    }

    /// Cached entries from `from`, consecutive, up to `to` inclusive and `max_bytes` ([`Entry::weight_bytes`]), at least
    /// one. Empty when `from` is beyond the log, or its payload has left the cache: then it is on disk.
    pub fn cached_entries(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        self.common().log.cached(from, to, max_bytes)
    }

    /// A look from outside.
    pub fn status(&self) -> Status {
        let common = self.common();
        let leader = if let Self::Leader(leader) = self { Some(leader) } else { None };
        Status {
            id: common.id(),
            role: self.role(),
            term: common.term(),
            leader: common.leader(),
            commit_index: common.commit_index(),
            first_index: common.log.base().index.next(),
            last: common.log.last(),
            snapshot_index: common.snapshot_index(),
            membership: common.membership().clone(),
            membership_index: common.memberships.index(),
            membership_committed: common.memberships.is_committed(),
            leader_ready: leader.is_some_and(Replica::is_ready),
            peers: leader.map(Replica::peers).unwrap_or_default(),
            transferring_to: leader.and_then(Replica::transferring_to),
        }
    }

    fn common(&self) -> &Common {
        match self {
            Self::Follower(replica) => &replica.common,
            Self::PreCandidate(replica) => &replica.common,
            Self::Candidate(replica) => &replica.common,
            Self::Leader(replica) => &replica.common,
        }
    }

    fn common_mut(&mut self) -> &mut Common {
        match self {
            Self::Follower(replica) => &mut replica.common,
            Self::PreCandidate(replica) => &mut replica.common,
            Self::Candidate(replica) => &mut replica.common,
            Self::Leader(replica) => &mut replica.common,
        }
    }

    fn tick(mut self) -> Self {
        self.common_mut().tick();
        match self {
            Self::Follower(replica) => replica.on_tick(),
            Self::PreCandidate(replica) => replica.on_tick(),
            Self::Candidate(replica) => replica.on_tick(),
            Self::Leader(replica) => replica.on_tick(),
        }
    }

    fn on_leader(self, act: impl FnOnce(Replica<Leader>) -> Self) -> Self {
        match self {
            Self::Leader(leader) => act(leader),
            Self::Follower(_) | Self::PreCandidate(_) | Self::Candidate(_) => self,
        }
    }

    fn refusal(&self) -> Refusal {
        Refusal::NotLeader { leader: self.common().leader() }
    }

    fn propose(mut self, proposals: Vec<Proposal>) -> Self {
        if let Self::Leader(leader) = self {
            return leader.on_propose(proposals);
        }
        let refusal = self.refusal();
        let refused = proposals.into_iter().map(|proposal| (proposal.id, refusal));
        self.common_mut().output.refused.extend(refused);
        self
    }

    fn read(mut self, read: ReadId) -> Self {
        if let Self::Leader(leader) = self {
            return leader.on_read(read);
        }
        let refusal = self.refusal();
        self.common_mut().output.refused_reads.push((read, refusal));
        self
    }

    fn change_membership(mut self, change: MembershipChange) -> Self {
        if let Self::Leader(leader) = self {
            return leader.on_change_membership(&change);
        }
        let refusal = self.refusal();
        self.common_mut().output.refused.push((change.id, refusal));
        self
    }

    /// The first entry of a new cluster's log. Whoever bootstraps with the same configuration writes the same entry, and
    /// nobody is ever elected in its term.
    fn bootstrap(mut self, membership: Membership) -> Self {
        let common = self.common_mut();
        let empty =
            common.log.last() == LogId::default() && common.hard_state() == HardState::default();
        if empty && !membership.is_joint() && membership.check().is_ok() {
            common.set_hard_state(HardState { term: Term(1), vote: None });
            let id = LogId::new(Term(1), Index(1));
            common.append(Entry { id, payload: Payload::Membership(Box::new(membership)) });
        }
        self
    }

    fn synced(mut self, batch: BatchNo, hard_state: HardState, last: LogId) -> Self {
        let common = self.common_mut();
        common.durability.synced(batch);
        let durable = common.durability.index();
        assert_eq!(
            common.durability.hard_state(),
            hard_state,
            "the disk holds another hard state than it was given"
        );
        // A snapshot may vouch for more than the log holds.
        assert!(
            last.index >= durable || durable == common.log.base().index,
            "the disk holds less than it was given"
        );
        match self {
            Self::Follower(_) | Self::PreCandidate(_) => self,
            Self::Candidate(candidate) => candidate.on_synced(),
            Self::Leader(leader) => leader.on_synced(),
        }
    }

    fn link_lost(self, leader: NodeId) -> Self {
        match self {
            Self::Follower(follower) => follower.on_link_lost(leader),
            Self::PreCandidate(_) | Self::Candidate(_) | Self::Leader(_) => self,
        }
    }

    fn snapshot_taken(mut self, meta: &SnapshotMeta, compact_to: Index) -> Self {
        let common = self.common_mut();
        common.remember_snapshot(meta);
        common.wish_to_compact(compact_to.min(meta.last.index));
        self
    }

    /// Drops what is wished and nobody needs any more.
    fn compact(&mut self) {
        if !self.common().wishes_to_compact() {
            return;
        }
        let limit = match self {
            Self::Leader(leader) => leader.needed_by_peers(),
            Self::Follower(_) | Self::PreCandidate(_) | Self::Candidate(_) => None,
        };
        self.common_mut().compact(limit);
    }

    /// A leader needs no snapshot: its log holds everything that is committed (paper §5.4.3). A candidate must not change the
    /// log that it asks votes for; the next leader offers again.
    fn snapshot_received(mut self, meta: SnapshotMeta) -> Self {
        if let Err(reason) = check_snapshot(&meta, self.common().term()) {
            let id = self.common().id();
            self.common_mut().drop_message(id, reason);
            return self;
        }
        match self {
            Self::Follower(follower) => follower.on_snapshot_received(meta),
            Self::PreCandidate(_) | Self::Candidate(_) | Self::Leader(_) => {
                self.common_mut().remember_snapshot(&meta);
                self
            }
        }
    }

    fn campaign(self) -> Self {
        match self {
            Self::Follower(replica) => replica.campaign("asked to campaign"),
            Self::PreCandidate(_) | Self::Candidate(_) | Self::Leader(_) => self,
        }
    }
}

impl From<Replica<Follower>> for Raft {
    fn from(replica: Replica<Follower>) -> Self {
        Self::Follower(replica)
    }
}

impl From<Replica<PreCandidate>> for Raft {
    fn from(replica: Replica<PreCandidate>) -> Self {
        Self::PreCandidate(replica)
    }
}

impl From<Replica<Candidate>> for Raft {
    fn from(replica: Replica<Candidate>) -> Self {
        Self::Candidate(replica)
    }
}

impl From<Replica<Leader>> for Raft {
    fn from(replica: Replica<Leader>) -> Self {
        Self::Leader(replica)
    }
}
