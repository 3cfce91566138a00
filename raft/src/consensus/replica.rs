//! What all roles share: the persistent state, the log, and the output that the current step fills.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::durability::Durability;
use super::io::{Config, Event, Output, Persist, Refusal, Restored, RoleName};
use super::log::Log;
use super::membership::MembershipHistory;
use super::message::{Envelope, Message, VoteRequest, VoteResponse};
use super::types::{
    Entry, HardState, Index, LogId, Membership, NodeId, Payload, ProposalId, SnapshotMeta, Term,
    Token,
};

/// A replica in one role. The role owns the data that only it has, so a follower cannot count replicas and a candidate
/// cannot propose; the only ways from role to role are the `into_*` methods (paper Figure 4).
#[derive(Clone, Debug)]
pub struct Replica<R> {
    pub(super) common: Common,
    pub(super) role: R,
}

/// The data of one role.
pub trait Role {
    /// Which role.
    const NAME: RoleName;

    /// Ends the role; whoever waits for it is told to ask `leader`.
    fn abandon(self, _leader: Option<NodeId>, _output: &mut Output)
    where
        Self: Sized,
    {
    }
}

impl<R: Role> Replica<R> {
    /// Changes the role, in which `leader` is whom to follow, and says so.
    pub(super) fn with_role<N: Role>(
        mut self,
        role: N,
        leader: Option<NodeId>,
        reason: &'static str,
    ) -> Replica<N> {
        self.role.abandon(leader, &mut self.common.output);
        if N::NAME != R::NAME {
            let event = Event::RoleChanged { role: N::NAME, term: self.common.term(), reason };
            self.common.output.events.push(event);
        }
        self.common.set_leader(leader);
        Replica { common: self.common, role }
    }
}

/// Where a request came from: everything that its answer needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) from: NodeId,
    pub(super) term: Term,
    pub(super) token: Token,
}

/// Whether an answer promises something that has to be on disk before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// Nothing, or nothing that is not on disk already.
    None,
    /// What this step, or one before it, handed to the disk.
    Durable,
}

/// State and tools of every role.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) config: Config,
    hard_state: HardState,
    leader: Option<NodeId>,
    pub(super) log: Log,
    pub(super) memberships: MembershipHistory,
    /// The newest durable snapshot that we know of; the log begins after its last entry or holds that.
    pub(super) snapshot: Option<SnapshotMeta>,
    /// A newer durable one, of entries that are not ready here: it counts once they are. Whoever keeps the files may have removed
    /// the one before for it.
    early_snapshot: Option<SnapshotMeta>,
    /// Up to here the log may be compacted as far as we alone are concerned.
    compact_wish: Index,
    pub(super) durability: Durability,
    commit_index: Index,
    /// What `Output::ready_index` last said.
    ready_reported: Index,
    /// Ticks since the start.
    now: u64,
    rng: Xoshiro256PlusPlus,
    pub(super) output: Output,
}

impl Common {
    pub(super) fn new(config: Config, restored: Restored) -> Self {
        assert!(config.heartbeat_ticks >= 1, "heartbeat_ticks is at least 1");
        assert!(
            config.election_ticks_min > config.heartbeat_ticks,
            "elections take longer than heartbeats"
        );
        assert!(
            config.election_ticks_max > config.election_ticks_min,
            "election timeouts need room for chance"
        );
        assert!(
            config.window_messages >= 1 && config.window_bytes >= 1,
            "windows let one append through"
        );
        let Restored { hard_state, base, snapshot, terms, last, memberships, commit_index, tail } =
            restored;

        let base_id = base.as_ref().map_or(LogId::default(), |meta| meta.last);
        let mut history = match base {
            Some(meta) => MembershipHistory::new(meta.membership_index, meta.membership),
            None => MembershipHistory::new(Index(0), Membership::default()),
        };
        let memberships = memberships.into_iter().filter(|(index, _)| *index > base_id.index);
        memberships.for_each(|(index, membership)| history.append(index, membership));
        let log = Log::restore(base_id, &terms, last, tail);
        let snapshot_id = snapshot.as_ref().map_or(LogId::default(), |meta| meta.last);
        assert!(
            snapshot_id.index >= base_id.index && log.contains(snapshot_id),
            "the log goes on from the newest snapshot"
        );
        let commit_index = commit_index.max(snapshot_id.index).min(last.index);
        history.commit(commit_index);
        assert!(
            hard_state.term >= last.term || last == snapshot_id,
            "the term is durable before entries of it"
        );
        let mut common = Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(config.seed ^ config.id.0),
            config,
            hard_state,
            leader: None,
            log,
            memberships: history,
            snapshot,
            early_snapshot: None,
            compact_wish: base_id.index,
            durability: Durability::new(hard_state, last.index),
            commit_index,
            ready_reported: commit_index,
            now: 0,
            output: Output::default(),
        };
        common.catch_up_with_snapshot();
        common
    }

    /// A snapshot is not ordered with the log's writes: it may be durable while the term in which it was received is not.
    /// No vote of that term can have been given, so it is taken now, and goes to disk with the first step.
    fn catch_up_with_snapshot(&mut self) {
        let term = self.snapshot.as_ref().map_or(Term(0), |meta| meta.last.term);
        if term > self.term() {
            self.set_hard_state(HardState { term, vote: None });
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.config.id
    }

    pub(super) fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Leader of the current term, once it is known; ourselves when we lead.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Remembers who leads the current term and says so when it is news.
    pub(super) fn set_leader(&mut self, leader: Option<NodeId>) {
        if self.leader != leader {
            self.leader = leader;
            self.output.events.push(Event::LeaderChanged { leader, term: self.term() });
        }
    }

    pub(super) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(super) fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// Committed and durable here: the state machine outlives this process, so it must not get ahead of our log.
    pub(super) fn ready_index(&self) -> Index {
        self.commit_index.min(self.durability.index())
    }

    pub(super) fn membership(&self) -> &Membership {
        self.memberships.in_force()
    }

    pub(super) fn random_election_ticks(&mut self) -> u32 {
        self.rng.random_range(self.config.election_ticks_min..=self.config.election_ticks_max)
    }

    pub(super) fn random_link_lost_ticks(&mut self) -> u32 {
        self.rng.random_range(0..=self.config.link_lost_ticks_max)
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// Whether the oldest write has been under way for longer than an election timeout.
    pub(super) fn is_disk_stalled(&self) -> bool {
        let limit = u64::from(self.config.election_ticks_min);
        self.durability.oldest_pending().is_some_and(|since| self.now - since > limit)
    }

    /// Takes a new term or gives the vote of this one.
    ///
    /// # Panics
    /// When the term would go back or a given vote change (paper §5.2): our own state is wrong.
    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        let now = self.hard_state;
        assert!(hard_state.term >= now.term, "the term never goes back");
        assert!(
            hard_state.term > now.term || now.vote.is_none() || now.vote == hard_state.vote,
            "one vote per term"
        );
        self.hard_state = hard_state;
        self.persist().hard_state = Some(hard_state);
    }

    /// The batch that this step hands to the disk.
    fn persist(&mut self) -> &mut Persist {
        let batch = self.durability.next_batch();
        self.output.persist.get_or_insert_with(|| Persist { batch, ..Persist::default() })
    }

    /// Adds an entry at the end of the log; a configuration in it is in force at once (thesis §4.1).
    pub(super) fn append(&mut self, entry: Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.append(entry.id.index, (**membership).clone());
            self.report_membership();
        }
        self.persist().append.push(entry.clone());
        self.log.append(entry);
    }

    /// Drops `from` and everything above; a configuration in force falls back to the one before.
    ///
    /// # Panics
    /// When a committed entry would be dropped: our own state is wrong, and going on would lose data.
    pub(super) fn truncate(&mut self, from: Index) {
        self.drop_suffix(from);
        if self.memberships.truncate(from) {
            self.report_membership();
        }
    }

    fn drop_suffix(&mut self, from: Index) {
        assert!(from > self.commit_index, "a committed entry is never truncated");
        self.log.truncate(from);
        self.durability.truncate(from);
        let persist = self.persist();
        assert!(persist.append.is_empty(), "a batch truncates before it appends");
        persist.truncate_from = Some(from);
    }

    /// Commits everything up to `index`; an index that is already committed is no news.
    ///
    /// # Panics
    /// When `index` is beyond the log: our own state is wrong.
    pub(super) fn commit_to(&mut self, index: Index) -> bool {
        assert!(index <= self.log.last().index, "only what is in the log is committed");
        let advanced = index > self.commit_index;
        if advanced {
            self.commit_index = index;
            self.memberships.commit(index);
        }
        advanced
    }

    /// Takes a durable snapshot from the leader in place of the log's prefix. A suffix stays when the log holds the
    /// snapshot's last entry (paper Figure 13, step 6). One that is not ahead of what is committed here is only remembered.
    pub(super) fn install(&mut self, meta: SnapshotMeta) {
        if meta.last.index <= self.commit_index {
            self.remember_snapshot(&meta);
            return;
        }
        let in_force = self.memberships.index();
        let suffix_kept = self.log.contains(meta.last);
        if suffix_kept {
            self.log.compact(meta.last);
        } else {
            if self.log.last().index > self.commit_index {
                self.drop_suffix(self.commit_index.next());
            }
            self.log = Log::new(meta.last);
            self.memberships.truncate(self.commit_index.next());
        }
        self.durability.install(meta.last.index, suffix_kept);
        self.memberships.install(meta.last.index, meta.membership_index, meta.membership.clone());
        self.commit_to(meta.last.index);
        if self.memberships.index() != in_force {
            self.report_membership();
        }
        self.output.compact = Some(meta.clone());
        self.output.install = Some(meta.clone());
        self.snapshot = Some(meta);
    }

    /// Last entry of the newest durable snapshot; zero without one.
    pub(super) fn snapshot_index(&self) -> Index {
        self.snapshot.as_ref().map_or(Index(0), |meta| meta.last.index)
    }

    /// A snapshot is durable: it counts as soon as what it includes is ready here. What is older than another one is ignored.
    pub(super) fn remember_snapshot(&mut self, meta: &SnapshotMeta) {
        let early = self.early_snapshot.as_ref().map_or(Index(0), |early| early.last.index);
        if meta.last.index > self.snapshot_index().max(early) {
            self.early_snapshot = Some(meta.clone());
            self.adopt_snapshot();
        }
    }

    /// Takes the snapshot that came early for the newest one, if its time has come. A log that holds another entry there will
    /// never be ready so far.
    fn adopt_snapshot(&mut self) {
        let (known, ready) = (self.snapshot_index(), self.ready_index());
        let Some(early) = self.early_snapshot.take_if(|early| early.last.index <= ready) else {
            return;
        };
        if early.last.index > known && self.log.contains(early.last) {
            self.snapshot = Some(early);
        }
    }

    /// The log may drop what the newest snapshot includes, up to `wish`: at once, or as soon as nobody needs it any more.
    pub(super) fn wish_to_compact(&mut self, wish: Index) {
        self.compact_wish = self.compact_wish.max(wish.min(self.snapshot_index()));
    }

    pub(super) fn wishes_to_compact(&self) -> bool {
        self.compact_wish > self.log.base().index
    }

    /// Drops what is wished, but nothing above `limit`: that is needed.
    pub(super) fn compact(&mut self, limit: Option<Index>) {
        let to = limit.map_or(self.compact_wish, |limit| limit.min(self.compact_wish));
        if to <= self.log.base().index {
            return;
        }
        let meta = self.describe(to).expect("what a snapshot includes is in the log or before it");
        self.log.compact(meta.last);
        self.memberships.compact(to);
        self.output.compact = Some(meta);
    }

    /// Describes the log at `index`, if that is committed and the log still knows it.
    pub(super) fn describe(&self, index: Index) -> Option<SnapshotMeta> {
        let is_known = index > Index(0) && index <= self.commit_index;
        let last = self.log.id_at(index).filter(|_| is_known)?;
        let (membership_index, membership) = self.memberships.at(index).clone();
        Some(SnapshotMeta { last, membership, membership_index })
    }

    fn report_membership(&mut self) {
        let event = Event::MembershipChanged {
            membership: self.memberships.in_force().clone(),
            index: self.memberships.index(),
        };
        self.output.events.push(event);
    }

    /// Sends a request. Requests promise nothing, but for [`Self::ask_for_vote`].
    pub(super) fn send(&mut self, to: NodeId, body: Message) {
        let envelope = self.envelope(to, Token::default(), body);
        self.output.messages.push(envelope);
    }

    /// Asks for a real vote, once our own vote and our log are on disk. An earlier grant could outlive a crash in
    /// which we lost the log that it was given for, and be counted for a shorter one when we ask again in that term.
    pub(super) fn ask_for_vote(&mut self, to: NodeId, transfer: bool) {
        let request = VoteRequest { last: self.log.last(), transfer };
        let envelope = self.envelope(to, Token::default(), Message::Vote(request));
        self.output.messages_after_sync.push(envelope);
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, origin: Origin, promise: Promise, body: Message) {
        let envelope = self.envelope(origin.from, origin.token, body);
        match promise {
            Promise::None => self.output.messages.push(envelope),
            Promise::Durable => self.output.messages_after_sync.push(envelope),
        }
    }

    fn envelope(&self, to: NodeId, token: Token, body: Message) -> Envelope {
        Envelope { from: self.id(), to, term: self.term(), token, body }
    }

    /// What an answer promises that vouches for our log up to `index` in this term.
    pub(super) fn promise_up_to(&self, index: Index) -> Promise {
        let durable =
            index <= self.durability.index() && self.hard_state == self.durability.hard_state();
        if durable { Promise::None } else { Promise::Durable }
    }

    /// Drops a message that no correct peer would have sent.
    pub(super) fn drop_message(&mut self, from: NodeId, reason: &'static str) {
        self.output.events.push(Event::Dropped { from, reason });
    }

    /// Decides about a vote in the current term (paper §5.2, §5.4.1) and answers.
    pub(super) fn decide_vote(&mut self, origin: Origin, request: VoteRequest) -> bool {
        let free = self.hard_state.vote.is_none_or(|vote| vote == origin.from);
        let granted = free && request.last >= self.log.last();
        if granted && self.hard_state.vote.is_none() {
            self.set_hard_state(HardState { vote: Some(origin.from), ..self.hard_state });
        }
        let promise = if granted { Promise::Durable } else { Promise::None };
        let response = VoteResponse { asked_term: origin.term, granted };
        self.reply(origin, promise, Message::VoteResponse(response));
        granted
    }

    /// Answers a pre-vote: `willing` says whether the role has no reason against it (thesis §9.6). Changes nothing.
    pub(super) fn answer_pre_vote(
        &mut self,
        origin: Origin,
        request: VoteRequest,
        willing: bool,
    ) -> bool {
        let asked_term = origin.term.next();
        let granted = willing && asked_term > self.term() && request.last >= self.log.last();
        let response = VoteResponse { asked_term, granted };
        self.reply(origin, Promise::None, Message::PreVoteResponse(response));
        granted
    }

    /// Ends a step: numbers the batch, reports what became ready, and gives the output away.
    pub(super) fn finish(&mut self) -> Output {
        if let Some(persist) = &mut self.output.persist {
            persist.commit_index = self.commit_index;
            self.durability.hand_out(
                persist.batch,
                self.hard_state,
                self.log.last().index,
                self.now,
            );
        }
        self.adopt_snapshot();
        let ready = self.ready_index();
        if ready > self.ready_reported {
            self.ready_reported = ready;
            self.output.ready_index = Some(ready);
        }
        self.log.trim_cache(self.config.log_cache_bytes, self.durability.index());
        std::mem::take(&mut self.output)
    }
}

impl Output {
    /// Refuses a proposal or a change.
    pub(super) fn refuse(&mut self, id: ProposalId, refusal: Refusal) {
        self.refused.push((id, refusal));
    }
}

#[cfg(test)]
pub(super) fn test_config() -> Config {
    Config {
        id: NodeId(1),
        seed: 7,
        heartbeat_ticks: 5,
        election_ticks_min: 30,
        election_ticks_max: 60,
        link_lost_ticks_max: 2,
        max_append_bytes: 1 << 20,
        window_messages: 16,
        window_bytes: 4 << 20,
        log_cache_bytes: 16 << 20,
        max_uncommitted_bytes: 64 << 20,
    }
}
