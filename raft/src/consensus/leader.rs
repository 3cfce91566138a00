//! A leader orders the log: it appends, replicates ([`super::replication`]), commits, answers reads, changes the
//! configuration ([`super::reconfiguration`]), and steps down when it can no longer lead.

use std::collections::{BTreeMap, VecDeque};

use super::Raft;
use super::candidate::Candidate;
use super::io::{Output, PeerStatus, Proposal, Refusal, RoleName};
use super::message::Message;
use super::progress::Progress;
use super::quorum;
use super::read_index::ReadQueue;
use super::replica::{Origin, Replica, Role};
use super::replication::Fetches;
use super::types::{Entry, Index, LogId, NodeId, Payload, ReadId};

/// The data of a leader.
#[derive(Clone, Debug)]
pub struct Leader {
    /// Everyone who receives the log, but ourselves.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) reads: ReadQueue,
    pub(super) fetches: Fetches,
    /// The no-op that began this term: nothing before it is committed by counting (paper §5.4.2).
    pub(super) term_start: Index,
    uncommitted: Uncommitted,
    heartbeat_elapsed_ticks: u32,
    transfer: Option<Transfer>,
}

impl Role for Leader {
    const NAME: RoleName = RoleName::Leader;

    fn abandon(mut self, leader: Option<NodeId>, output: &mut Output) {
        let refused =
            self.reads.drain().into_iter().map(|read| (read, Refusal::NotLeader { leader }));
        output.refused_reads.extend(refused);
    }
}

/// Leadership is being handed over: nothing new is appended until it is, or until that takes too long.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    target: NodeId,
    elapsed_ticks: u32,
    told: bool,
}

/// Weight of the entries of this term that are not committed yet, by step.
#[derive(Clone, Debug, Default)]
struct Uncommitted {
    steps: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Uncommitted {
    fn push(&mut self, last: Index, bytes: usize) {
        self.steps.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn release(&mut self, commit_index: Index) {
        while let Some((_, bytes)) = self.steps.pop_front_if(|(last, _)| *last <= commit_index) {
            self.bytes -= bytes;
        }
    }
}

impl Leader {
    /// Begins a term (paper §5.2, §8): all peers are assumed to agree with our log until they say otherwise, and a no-op
    /// goes out at once.
    pub(super) fn begin(replica: Replica<Candidate>) -> Raft {
        let (id, last) = (replica.common.id(), replica.common.log.last().index);
        let peers = replica.common.membership().members().into_iter().filter(|&peer| peer != id);
        let role = Self {
            progress: peers.map(|peer| (peer, Progress::optimistic(last))).collect(),
            reads: ReadQueue::default(),
            fetches: Fetches::default(),
            term_start: last.next(),
            uncommitted: Uncommitted::default(),
            heartbeat_elapsed_ticks: 0,
            transfer: None,
        };
        let mut replica = replica.with_role(role, Some(id), "the election was won");
        replica.append(Payload::Noop);
        replica.into()
    }
}

impl Replica<Leader> {
    pub(super) fn on_message(mut self, origin: Origin, message: Message) -> Raft {
        match message {
            Message::PreVote(request) => {
                self.common.answer_pre_vote(origin, request, false);
                self.into()
            }
            Message::Vote(request) => {
                // Refused: the vote of this term is our own.
                self.common.decide_vote(origin, request);
                self.into()
            }
            Message::Append(_) | Message::InstallSnapshot(_) => {
                self.common.drop_message(origin.from, "a second leader in one term");
                self.into()
            }
            Message::AppendResponse(response) => self.on_append_response(origin.from, response),
            Message::SnapshotResponse(response) => self.on_snapshot_response(origin.from, response),
            // Answers to a role that has ended, and a transfer that only a leader may ask for.
            Message::PreVoteResponse(_) | Message::VoteResponse(_) | Message::TimeoutNow => {
                self.into()
            }
        }
    }

    pub(super) fn on_tick(mut self) -> Raft {
        let election_ticks = self.common.config.election_ticks_min;
        for progress in self.role.progress.values_mut() {
            progress.tick(election_ticks);
        }
        if !self.hears_a_quorum() {
            let term = self.common.term();
            return self
                .into_follower(term, None, "heard no quorum for an election timeout")
                .into();
        }
        if self.common.is_disk_stalled() {
            return self.resign("the disk is stalled");
        }
        self.tick_transfer();
        self.dismiss_departed();
        self.role.fetches.tick(election_ticks);
        self.role.heartbeat_elapsed_ticks += 1;
        if self.role.heartbeat_elapsed_ticks >= self.common.config.heartbeat_ticks {
            self.role.heartbeat_elapsed_ticks = 0;
            self.heartbeat();
        }
        self.into()
    }

    /// Check-quorum (thesis §6.2): who cannot reach a quorum cannot commit, and should not keep clients waiting.
    fn hears_a_quorum(&self) -> bool {
        let (id, limit) = (self.common.id(), self.common.config.election_ticks_min);
        quorum::is_quorum(self.common.membership(), |voter| {
            voter == id
                || self.role.progress.get(&voter).is_some_and(|peer| peer.silent_ticks < limit)
        })
    }

    /// Appends commands, up to the limit of what may wait for commitment.
    pub(super) fn on_propose(mut self, proposals: Vec<Proposal>) -> Raft {
        let limit_bytes = self.common.config.max_uncommitted_bytes;
        for Proposal { id, command } in proposals {
            if self.role.transfer.is_some() {
                self.common.output.refuse(id, Refusal::NotReady);
            } else if self.role.uncommitted.bytes >= limit_bytes {
                self.common.output.refuse(id, Refusal::Busy);
            } else {
                let log_id = self.append(Payload::Command(command));
                self.common.output.accepted.push((id, log_id));
            }
        }
        self.into()
    }

    /// Adds an entry of this term at the end of the log.
    pub(super) fn append(&mut self, payload: Payload) -> LogId {
        let id = LogId { term: self.common.term(), index: self.common.log.last().index.next() };
        let entry = Entry { id, payload };
        self.role.uncommitted.push(id.index, entry.weight_bytes());
        self.common.append(entry);
        id
    }

    /// A read waits for the next round of confirmation; alone, we know that we lead.
    pub(super) fn on_read(mut self, read: ReadId) -> Raft {
        if !self.role.reads.push(read) {
            self.common.output.refused_reads.push((read, Refusal::Busy));
        }
        self.serve_reads();
        self.into()
    }

    /// Begins a round if there are reads and none is under way, and answers what is confirmed. Only after an entry of our
    /// own term is committed do we know what all was committed before us (thesis §6.4).
    pub(super) fn serve_reads(&mut self) {
        if !self.is_ready() {
            return;
        }
        let id = self.common.id();
        if self.role.reads.begin(self.common.commit_index())
            && !self.common.membership().is_sole_voter(id)
        {
            self.heartbeat();
        }
        let seq = self.role.reads.seq();
        let answered = |voter| {
            if voter == id {
                seq
            } else {
                self.role.progress.get(&voter).map_or(0, |peer| peer.read_seq)
            }
        };
        let Some(confirmed) = quorum::reached(self.common.membership(), answered) else { return };
        if let Some((read_index, reads)) = self.role.reads.confirm(confirmed) {
            self.common.output.reads.extend(reads.into_iter().map(|read| (read, read_index)));
            self.serve_reads();
        }
    }

    /// Whether an entry of this term is committed.
    pub(super) fn is_ready(&self) -> bool {
        self.common.commit_index() >= self.role.term_start
    }

    /// Our own disk has moved on.
    pub(super) fn on_synced(self) -> Raft {
        self.advance_commit()
    }

    /// Commits what a quorum holds durably, ourselves included only as far as our own disk does (paper §5.3, §5.4.2;
    /// thesis §10.2.1).
    pub(super) fn advance_commit(mut self) -> Raft {
        let id = self.common.id();
        let durable = |voter| {
            if voter == id {
                self.common.durability.index()
            } else {
                self.role.progress.get(&voter).map_or(Index(0), |peer| peer.match_index)
            }
        };
        let reached = quorum::reached(self.common.membership(), durable);
        match reached {
            Some(index) if index >= self.role.term_start && self.common.commit_to(index) => {
                self.on_committed()
            }
            Some(_) | None => self.into(),
        }
    }

    fn on_committed(mut self) -> Raft {
        self.role.uncommitted.release(self.common.commit_index());
        self.leave_joint_when_committed();
        if self.is_retired() {
            return self.resign("it is no longer a voter");
        }
        self.serve_reads();
        self.into()
    }

    /// Steps down with an invitation to the best successor to campaign at once.
    fn resign(mut self, reason: &'static str) -> Raft {
        self.heartbeat();
        let voters =
            self.role.progress.iter().filter(|(id, _)| self.common.membership().is_voter(**id));
        if let Some((&successor, _)) = voters.max_by_key(|(_, peer)| peer.match_index) {
            self.common.send(successor, Message::TimeoutNow);
        }
        let term = self.common.term();
        self.into_follower(term, None, reason).into()
    }

    /// Hands leadership to `target` as soon as it holds our whole log (thesis §3.10). Somebody who does not vote, or
    /// ourselves, is no target.
    pub(super) fn on_transfer(mut self, target: NodeId) -> Raft {
        let is_target =
            target != self.common.id() && self.common.membership().voters.contains(&target);
        if is_target && self.role.transfer.is_none_or(|running| running.target != target) {
            self.role.transfer = Some(Transfer { target, elapsed_ticks: 0, told: false });
            self.advance_transfer();
        }
        self.into()
    }

    pub(super) fn is_transferring(&self) -> bool {
        self.role.transfer.is_some()
    }

    /// To whom leadership is being handed over.
    pub(super) fn transferring_to(&self) -> Option<NodeId> {
        self.role.transfer.map(|transfer| transfer.target)
    }

    pub(super) fn advance_transfer(&mut self) {
        let last = self.common.log.last().index;
        let Some(transfer) = &mut self.role.transfer else { return };
        let caught_up =
            self.role.progress.get(&transfer.target).is_some_and(|peer| peer.match_index == last);
        if caught_up && !transfer.told {
            transfer.told = true;
            self.common.send(transfer.target, Message::TimeoutNow);
        }
    }

    fn tick_transfer(&mut self) {
        let limit = self.common.config.election_ticks_min;
        self.role.transfer = self.role.transfer.and_then(|transfer| {
            let elapsed_ticks = transfer.elapsed_ticks + 1;
            (elapsed_ticks < limit).then_some(Transfer { elapsed_ticks, ..transfer })
        });
    }

    pub(super) fn peers(&self) -> Vec<(NodeId, PeerStatus)> {
        self.role.progress.iter().map(|(&id, progress)| (id, progress.status())).collect()
    }
}
