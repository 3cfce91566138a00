//! A follower accepts what its leader sends and waits; a learner is a follower that does not count.

use super::Raft;
use super::candidate::Candidate;
use super::io::RoleName;
use super::message::{
    AppendOutcome, AppendRequest, AppendResponse, Message, SnapshotResponse, VoteRequest,
};
use super::replica::{Origin, Promise, Replica, Role};
use super::types::{Entry, HardState, Index, LogId, NodeId, SnapshotMeta, Term};

/// The data of a follower.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Whether the link to the leader was lost: then it gets no protection from elections until it speaks again.
    link_lost: bool,
    elapsed_ticks: u32,
    timeout_ticks: u32,
    /// A snapshot that the leader has offered: answered once it is durable.
    offered: Option<(Origin, LogId)>,
    /// Who was let pass by a pre-vote lately.
    favourite: Option<Favourite>,
}

/// Several who notice a dead leader at the same moment would all be let pass and then split the votes. So for a heartbeat's
/// time after somebody was, only those with a longer log, or with an equal one and a higher id, are let pass too.
#[derive(Clone, Copy, Debug)]
struct Favourite {
    rank: (LogId, NodeId),
    ticks_left: u32,
}

impl Role for Follower {
    const NAME: RoleName = RoleName::Follower;
}

impl Favourite {
    fn tick(self) -> Option<Self> {
        let ticks_left = self.ticks_left - 1;
        (ticks_left > 0).then_some(Self { ticks_left, ..self })
    }
}

impl Follower {
    pub(super) fn new(timeout_ticks: u32) -> Self {
        Self { link_lost: false, elapsed_ticks: 0, timeout_ticks, offered: None, favourite: None }
    }
}

impl<R: Role> Replica<R> {
    /// Follows: in a new term, or because the role has ended in this one.
    pub(super) fn into_follower(
        mut self,
        term: Term,
        leader: Option<NodeId>,
        reason: &'static str,
    ) -> Replica<Follower> {
        if term > self.common.term() {
            self.common.set_hard_state(HardState { term, vote: None });
        }
        let timeout_ticks = self.common.random_election_ticks();
        self.with_role(Follower::new(timeout_ticks), leader, reason)
    }
}

impl Replica<Follower> {
    pub(super) fn on_message(self, origin: Origin, message: Message) -> Raft {
        match message {
            Message::PreVote(request) => self.on_pre_vote(origin, request),
            Message::Vote(request) => self.on_vote(origin, request),
            Message::Append(request) => self.on_append(origin, request),
            Message::InstallSnapshot(meta) => self.on_install_snapshot(origin, &meta),
            Message::TimeoutNow => self.on_timeout_now(origin),
            // Answers to a role that has ended.
            Message::PreVoteResponse(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::SnapshotResponse(_) => self.into(),
        }
    }

    pub(super) fn on_tick(mut self) -> Raft {
        self.role.elapsed_ticks += 1;
        self.role.favourite = self.role.favourite.and_then(Favourite::tick);
        if self.role.elapsed_ticks < self.role.timeout_ticks {
            return self.into();
        }
        let link_lost = self.role.link_lost;
        self.campaign(if link_lost { "the leader's link was lost" } else { "heard no leader" })
    }

    /// The leader's process is most likely gone: it is no longer protected, and an early pre-vote finds out. Nothing
    /// but a timer changes.
    pub(super) fn on_link_lost(mut self, leader: NodeId) -> Raft {
        if self.common.leader() != Some(leader) || self.role.link_lost {
            return self.into();
        }
        self.role.link_lost = true;
        let delay_ticks = self.common.random_link_lost_ticks();
        if delay_ticks == 0 {
            return self.campaign("the leader's link was lost");
        }
        self.role.timeout_ticks =
            self.role.timeout_ticks.min(self.role.elapsed_ticks + delay_ticks);
        self.into()
    }

    /// Whether a leader was heard so recently that nobody else should be elected (thesis §4.2.3, §6.4.1).
    pub(super) fn has_lease(&self) -> bool {
        self.common.leader().is_some()
            && !self.role.link_lost
            && self.role.elapsed_ticks < self.common.config.election_ticks_min
    }

    /// The leader of this term spoke. Says no when another one did before: that cannot be.
    fn hear(&mut self, leader: NodeId) -> bool {
        if self.common.leader().is_some_and(|known| known != leader) {
            self.common.drop_message(leader, "a second leader in one term");
            return false;
        }
        self.common.set_leader(Some(leader));
        self.role.link_lost = false;
        self.role.elapsed_ticks = 0;
        self.role.timeout_ticks = self.common.random_election_ticks();
        true
    }

    fn on_pre_vote(mut self, origin: Origin, request: VoteRequest) -> Raft {
        let rank = (request.last, origin.from);
        let outranked = self.role.favourite.is_some_and(|favourite| favourite.rank > rank);
        let willing = !self.has_lease() && !outranked;
        if self.common.answer_pre_vote(origin, request, willing) {
            self.favour(rank);
        }
        self.into()
    }

    /// Somebody was let pass. An early campaign of our own, if one was planned, would only split the votes.
    pub(super) fn favour(&mut self, rank: (LogId, NodeId)) {
        let ticks_left = self.common.config.heartbeat_ticks;
        self.role.favourite = Some(Favourite { rank, ticks_left });
        if self.role.link_lost {
            self.role.timeout_ticks = self.common.random_election_ticks();
        }
    }

    fn on_vote(mut self, origin: Origin, request: VoteRequest) -> Raft {
        if self.common.decide_vote(origin, request) {
            self.role.elapsed_ticks = 0;
        }
        self.into()
    }

    /// The leader wants us to take over (thesis §3.10): no pre-vote, and its protection does not count.
    fn on_timeout_now(mut self, origin: Origin) -> Raft {
        if self.common.leader() != Some(origin.from) {
            self.common.drop_message(origin.from, "a transfer from somebody who does not lead");
            return self.into();
        }
        if !self.common.memberships.may_campaign(self.common.id()) || self.common.is_disk_stalled()
        {
            return self.into();
        }
        Candidate::begin(self, true, "leadership was handed over")
    }

    /// Entries or a heartbeat (paper §5.3). The term rule has been applied: the sender leads the current term.
    pub(super) fn on_append(mut self, origin: Origin, request: AppendRequest) -> Raft {
        if !self.hear(origin.from) {
            return self.into();
        }
        let read_seq = request.read_seq;
        let is_heartbeat = request.entries.is_empty();
        match self.accept(request) {
            Ok(Some(proven)) => self.acknowledge(origin, proven, is_heartbeat, read_seq),
            Ok(None) => self.common.drop_message(origin.from, "it contradicts a committed entry"),
            Err(outcome) => {
                let response = AppendResponse { outcome, read_seq };
                self.common.reply(origin, Promise::None, Message::AppendResponse(response));
            }
        }
        self.into()
    }

    /// Makes the log equal to the leader's as far as the request goes, and returns how far that is; `None` when the
    /// request cannot be true; the rejection when the entry before it is missing here.
    fn accept(&mut self, request: AppendRequest) -> Result<Option<Index>, AppendOutcome> {
        let AppendRequest { prev, entries, commit_index, .. } = request;
        let last = self.common.log.last();
        if prev.index > last.index {
            return Err(self.rejection(prev));
        }
        let new = match self.first_new(prev, &entries) {
            Fit::At(position) => position,
            Fit::Rejected => return Err(self.rejection(prev)),
            Fit::Impossible => return Ok(None),
        };
        let proven = Index(prev.index.0 + entries.len() as u64);
        self.replace_suffix(entries.into_iter().skip(new));
        self.common.commit_to(commit_index.min(proven));
        Ok(Some(proven))
    }

    /// Finds the first entry that the log does not hold. What was dropped is committed, so it counts as held.
    fn first_new(&self, prev: LogId, entries: &[Entry]) -> Fit {
        let (log, commit_index) = (&self.common.log, self.common.commit_index());
        let differs = |id: LogId| id.index >= log.base().index && !log.contains(id);
        if differs(prev) {
            return if prev.index <= commit_index { Fit::Impossible } else { Fit::Rejected };
        }
        if prev == log.last() {
            return Fit::At(0);
        }
        match entries.iter().position(|entry| differs(entry.id)) {
            Some(at) if entries[at].id.index <= commit_index => Fit::Impossible,
            Some(at) => Fit::At(at),
            None => Fit::At(entries.len()),
        }
    }

    /// Appends what is new, after dropping what contradicts it. Without news nothing is dropped: a request that was
    /// delayed on its way must not cut off what came after it (paper Figure 2, third rule for appends).
    fn replace_suffix(&mut self, new: impl Iterator<Item = Entry>) {
        let mut new = new.peekable();
        if let Some(first) = new.peek() {
            let from = first.id.index;
            if from <= self.common.log.last().index {
                self.common.truncate(from);
            }
        }
        for entry in new {
            self.common.append(entry);
        }
    }

    /// Vouches for the log up to `proven`. A heartbeat is answered at once with what is on disk already, so that no read
    /// waits for an fsync; an append is answered once it is on disk.
    fn acknowledge(&mut self, origin: Origin, proven: Index, is_heartbeat: bool, read_seq: u64) {
        let durable = self.common.durability.index();
        let match_index = if is_heartbeat { proven.min(durable) } else { proven };
        let outcome = AppendOutcome::Accepted { match_index };
        let promise = self.common.promise_up_to(match_index);
        self.common.reply(
            origin,
            promise,
            Message::AppendResponse(AppendResponse { outcome, read_seq }),
        );
    }

    fn rejection(&self, prev: LogId) -> AppendOutcome {
        let log = &self.common.log;
        let conflict = log.id_at(prev.index).unwrap_or_else(|| log.last());
        AppendOutcome::Rejected {
            refused_prev: prev.index,
            conflict_term: conflict.term,
            conflict_index: log.run_start(conflict.index),
            last_index: log.last().index,
        }
    }

    /// The leader offers its snapshot; the bytes come past us. What we have committed already needs none.
    pub(super) fn on_install_snapshot(mut self, origin: Origin, meta: &SnapshotMeta) -> Raft {
        if self.hear(origin.from) {
            self.role.offered = Some((origin, meta.last));
            self.answer_offer();
        }
        self.into()
    }

    /// A snapshot from the leader is durable.
    pub(super) fn on_snapshot_received(mut self, meta: SnapshotMeta) -> Raft {
        self.common.install(meta);
        self.answer_offer();
        self.into()
    }

    fn answer_offer(&mut self) {
        let committed = self.common.commit_index();
        if let Some((origin, last)) = self.role.offered.take_if(|(_, last)| last.index <= committed)
        {
            let promise = self.common.promise_up_to(last.index);
            let response = SnapshotResponse { installed: Some(last) };
            self.common.reply(origin, promise, Message::SnapshotResponse(response));
        }
    }
}

/// How a request fits the log.
enum Fit {
    /// Entries from this position on are new.
    At(usize),
    /// The entry before the request is not here.
    Rejected,
    /// It contradicts what is committed: no leader could have sent it.
    Impossible,
}
