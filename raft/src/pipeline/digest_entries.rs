//! First stage: owns the core, the callers whose entries are not committed yet, and the answers that peers wait for.
//!
//! It drains all events that wait, steps the core, and hands out what to do: log and peers together, then whatever became
//! ready. It never waits for a full queue; past a bound a caller is told `Busy`, and the ticking goes on.

mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::feed::Feed;
use super::handover::{HandoverOutcome, HandoverRefused, Handovers};
use super::outbox::Outbox;
use super::pending::{Pending, Waiting};
use super::turns::Turns;
use super::{
    Committed, FromCommits, QueryOutcome, QueryRefused, Read, Reply, SubmitOutcome, SubmitRefused,
    Tickets, ToCommits,
};
use crate::command::{Command, Kind};
use crate::consensus::{
    BatchNo, Entry, Envelope, Event, Fetch, HardState, Index, Input, LogId, Membership,
    MembershipChange, NodeId, Output, Payload, Persist, Proposal, ProposalId, Raft, ReadId,
    Refusal, RoleName, SnapshotMeta, Status, Token,
};
use crate::roster::{Autopilot, Candidate};
use crate::rpc::peer::{LeaveAnswer, TurnRequest};
use crate::session::{Image, Name};

/// Callers that wait in both stages, those of commands and of reads each; one more is refused with `Busy`.
pub const MAX_WAITING_CALLERS: usize = 16 * 1024;
/// Most bytes that are read from the log at once for a peer that is far behind; it asks for the rest.
const MAX_FETCH_BYTES: usize = 4 * 1024 * 1024;
/// Ticks between two looks at what has expired and at the autopilot.
const HOUSEKEEPING_TICKS: u64 = 5;
/// A peer's request that the core does not answer is forgotten after this many ticks; the peer asks again.
const PEER_ANSWER_TICKS: u64 = 1_000;

/// A client's command, or with another `kind` than [`Kind::Apply`] its wish concerning a session.
#[derive(Debug)]
pub struct Submission {
    /// What it asks for.
    pub kind: Kind,
    /// Session, or zero.
    pub session: u64,
    /// Number within the session.
    pub sequence: u64,
    /// Lower numbers are answered.
    pub acked_below: u64,
    /// The state machine's bytes.
    pub body: Bytes,
    /// How long its caller waits, in ticks.
    pub patience_ticks: u64,
    /// Its caller.
    pub reply: Reply<SubmitOutcome>,
}

/// What can happen to this stage.
#[derive(Debug)]
pub enum EntriesEvent {
    /// A tick of time has passed.
    Tick,
    /// A client's command.
    Submit(Submission),
    /// A client's linearizable read.
    Query {
        /// The state machine's bytes.
        query: Bytes,
        /// How long its caller waits, in ticks.
        patience_ticks: u64,
        /// Its caller.
        reply: Reply<QueryOutcome>,
    },
    /// A peer asks; its answer goes to `reply`.
    PeerAsks {
        /// The question. Its token is ours to choose.
        question: Envelope,
        /// Where the answer goes.
        reply: oneshot::Sender<Envelope>,
    },
    /// A peer has answered one of our messages, or says something that needs no answer.
    PeerSays(Envelope),
    /// A peer cannot be reached: what was under way to it is lost.
    PeerUnreachable(NodeId),
    /// A peer does not get the snapshot that it was offered.
    SnapshotFailed(NodeId),
    /// The leader's process is gone.
    LinkLost(NodeId),
    /// The log has made everything up to `batch` durable.
    Synced {
        /// Newest durable batch.
        batch: BatchNo,
        /// Durable hard state.
        hard_state: HardState,
        /// Durable end of the log.
        last: LogId,
    },
    /// The log has read what was asked for.
    Fetched {
        /// For whom.
        purpose: FetchFor,
        /// Consecutive entries, at least one.
        entries: Vec<Entry>,
    },
    /// What the second stage was to be fed is not in the log any more.
    FeedGone {
        /// The cursor's generation.
        generation: u64,
    },
    /// A snapshot of our own is durable.
    SnapshotTaken {
        /// It.
        meta: SnapshotMeta,
        /// Last entry of the oldest one that is kept: the log goes on from that, too.
        oldest: Index,
    },
    /// The log may drop everything up to here after the snapshot that was taken last.
    Trailing(Index),
    /// Somebody takes a snapshot up to this entry and wants to know what to call it.
    Describe {
        /// Its last entry.
        index: Index,
        /// None when the log does not know that entry, or it is not committed.
        reply: Reply<Option<SnapshotMeta>>,
    },
    /// A node wants to take a snapshot of its own.
    SnapshotTurn {
        /// Which.
        node: NodeId,
        /// What it wants.
        request: TurnRequest,
        /// Whether it is its turn; the error is who may lead instead of us.
        reply: Reply<Result<bool, Option<NodeId>>>,
    },
    /// A snapshot from the leader is durable.
    SnapshotReceived {
        /// The snapshot.
        meta: SnapshotMeta,
        /// The session table in it.
        image: Box<Image>,
    },
    /// From the second stage.
    FromCommits(FromCommits),
    /// What gossip knows now.
    Candidates(Arc<Vec<Candidate>>),
    /// First configuration of a new cluster.
    Bootstrap(Membership),
    /// The process is to end: take nothing new, hand leadership over, finish what is under way.
    Drain,
    /// Somebody wants to see the core.
    Status(oneshot::Sender<Status>),
    /// An operator wants leadership to move.
    HandOver {
        /// To whom; none = the best that there is.
        target: Option<NodeId>,
        /// How long the operator waits, in ticks.
        patience_ticks: u64,
        /// Told who leads then.
        reply: Reply<HandoverOutcome>,
    },
    /// An operator wants this node to stand for election.
    Campaign {
        /// How long the operator waits, in ticks.
        patience_ticks: u64,
        /// Told who leads then.
        reply: Reply<HandoverOutcome>,
    },
    /// A node wants to leave the configuration. It asks again for as long as it wants to.
    Leave {
        /// Which.
        node: NodeId,
        /// The leader's word on it; the error is who may lead instead of us.
        reply: Reply<Result<LeaveAnswer, Option<NodeId>>>,
    },
}

/// What a read of the log is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFor {
    /// The core: a peer is far behind.
    Core,
    /// The state machine is far behind; names the cursor's generation.
    Feed(u64),
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub struct EntriesActions {
    /// Give to the log, in order.
    pub persist: Vec<Persist>,
    /// Send to peers, in order.
    pub send: Vec<Envelope>,
    /// Read from the log.
    pub fetch: Vec<(FetchFor, Fetch, usize)>,
    /// Ask the log how far it may be compacted if it is to go on from this entry, with some before it.
    pub trailing: Option<Index>,
    /// Ask the log what the entries above this one weigh: a snapshot holds the rest.
    pub weigh_after: Option<Index>,
    /// The log begins after this entry now: for the log, after so many of `persist`, which may go on from there.
    pub compact: Vec<(usize, SnapshotMeta)>,
    /// Give to the second stage, in order.
    pub to_commits: Vec<ToCommits>,
    /// Tell the operator; a change of the configuration also changes the links to peers.
    pub events: Vec<Event>,
}

/// The stage.
#[derive(Debug)]
pub struct DigestEntries {
    /// Taken out only while it is stepped.
    raft: Option<Raft>,
    now: u64,
    next_id: u64,
    /// Proposals of the present step, until the core says where they stand.
    proposed: BTreeMap<ProposalId, Waiting>,
    pending: Pending,
    reads: BTreeMap<ReadId, Read>,
    commands_waiting: Tickets,
    reads_waiting: Tickets,
    peers_waiting: BTreeMap<Token, (oneshot::Sender<Envelope>, u64)>,
    outbox: Outbox,
    feed: Feed,
    /// The snapshot that was taken last, until the log has said what may go.
    taken: Option<SnapshotMeta>,
    turns: Turns,
    turn_ticks: u64,
    /// The session table of a snapshot from the leader, while the core looks at that snapshot.
    received: Option<Box<Image>>,
    /// Latest stamp in our log: stamps never fall.
    time_ms: u64,
    autopilot: Autopilot,
    handovers: Handovers,
    /// Successors that did not take over when they were asked to since this node wants to be rid of leadership.
    passed_over: BTreeSet<NodeId>,
    draining: bool,
}

impl DigestEntries {
    /// Begins with a core as it was restored, its newest entries, and the first index that the second stage has not seen.
    pub fn new(raft: Raft, tail: &[Entry], first: Index, autopilot: Autopilot) -> Self {
        let mut stage = Self {
            raft: Some(raft),
            now: 0,
            next_id: 1,
            proposed: BTreeMap::new(),
            pending: Pending::default(),
            reads: BTreeMap::new(),
            commands_waiting: Tickets::default(),
            reads_waiting: Tickets::default(),
            peers_waiting: BTreeMap::new(),
            outbox: Outbox::default(),
            feed: Feed::new(first),
            taken: None,
            turns: Turns::default(),
            turn_ticks: 1,
            received: None,
            time_ms: 0,
            autopilot,
            handovers: Handovers::default(),
            passed_over: BTreeSet::new(),
            draining: false,
        };
        stage.note_stamps(tail);
        stage
    }

    /// Begins with a snapshot whose session table has this log time: no later stamp may be earlier.
    #[must_use]
    pub fn after_time(mut self, time_ms: u64) -> Self {
        self.time_ms = self.time_ms.max(time_ms);
        self
    }

    /// Lets turns to take a snapshot last for so long.
    #[must_use]
    pub fn with_turns(self, turn_ticks: u64) -> Self {
        Self { turn_ticks, ..self }
    }

    /// Digests everything that waits. `clock_ms` is the wall clock, for stamps only.
    pub fn handle(&mut self, events: &mut Vec<EntriesEvent>, clock_ms: u64) -> EntriesActions {
        let mut actions = EntriesActions::default();
        let mut proposals = Vec::new();
        for event in events.drain(..) {
            self.digest(event, clock_ms, &mut proposals, &mut actions);
        }
        if !proposals.is_empty() {
            self.step(Input::Propose(proposals), &mut actions);
        }
        if !self.handovers.is_empty() {
            let status = self.raft().status();
            self.handovers.settle(&status, self.now);
        }
        self.feed(&mut actions);
        actions
    }

    /// The core, to look at.
    pub fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the core is only away while it is stepped")
    }

    /// Whether nobody waits here any more, and nobody who could lead instead of this node is still to take over.
    pub fn is_drained(&self) -> bool {
        let waiting = self.commands_waiting.outstanding() + self.reads_waiting.outstanding();
        let status = self.raft().status();
        let leads = status.role == RoleName::Leader;
        waiting == 0 && !(leads && self.autopilot.successor(&status, &BTreeSet::new()).is_some())
    }

    /// Commands are gathered in `proposals`, so that all of them become one step of the core.
    fn digest(
        &mut self,
        event: EntriesEvent,
        clock_ms: u64,
        proposals: &mut Vec<Proposal>,
        actions: &mut EntriesActions,
    ) {
        match event {
            EntriesEvent::Tick => self.tick(actions),
            EntriesEvent::Submit(submission) => self.admit(submission, clock_ms, proposals),
            EntriesEvent::Query { query, patience_ticks, reply } => {
                let expires = self.now.saturating_add(patience_ticks);
                let ticket = self.reads_waiting.issue();
                self.read(Read { query, reply, expires, ticket }, actions);
            }
            EntriesEvent::PeerAsks { question, reply } => {
                let token = Token(self.fresh_id());
                self.peers_waiting.insert(token, (reply, self.now + PEER_ANSWER_TICKS));
                self.step(Input::Message(Envelope { token, ..question }), actions);
            }
            EntriesEvent::PeerSays(message) => self.step(Input::Message(message), actions),
            EntriesEvent::PeerUnreachable(peer) => self.step(Input::PeerUnreachable(peer), actions),
            EntriesEvent::SnapshotFailed(peer) => self.step(Input::SnapshotFailed(peer), actions),
            EntriesEvent::LinkLost(leader) => self.step(Input::LinkLost(leader), actions),
            EntriesEvent::Synced { batch, hard_state, last } => {
                // What waited for this leaves before what the core has to say about it.
                let free = self.outbox.synced(batch);
                self.dispatch(free, actions);
                self.step(Input::Synced { batch, hard_state, last }, actions);
            }
            EntriesEvent::Fetched { purpose: FetchFor::Core, entries } => {
                self.step(Input::Fetched(entries), actions);
            }
            EntriesEvent::Fetched { purpose: FetchFor::Feed(generation), entries } => {
                if self.feed.end_fetch(generation) {
                    self.hand_on(entries, actions);
                }
            }
            EntriesEvent::FeedGone { generation } => self.miss(generation),
            EntriesEvent::SnapshotTaken { meta, oldest } => {
                actions.trailing = Some(oldest.min(meta.last.index));
                actions.weigh_after = Some(meta.last.index);
                self.taken = Some(meta);
            }
            EntriesEvent::Trailing(index) => self.hold_snapshot(index, actions),
            EntriesEvent::Describe { index, reply } => {
                drop(reply.send(self.raft().describe(index)));
            }
            EntriesEvent::SnapshotTurn { node, request, reply } => {
                // Whoever asked may have gone.
                let _unheard = reply.send(self.take_turns(node, request));
            }
            EntriesEvent::SnapshotReceived { meta, image } => {
                self.receive_snapshot(meta, image, actions);
            }
            EntriesEvent::FromCommits(message) => self.hear_from_commits(message, actions),
            EntriesEvent::Candidates(candidates) => self.autopilot.candidates(&candidates),
            EntriesEvent::Bootstrap(membership) => self.step(Input::Bootstrap(membership), actions),
            EntriesEvent::Drain => self.drain(actions),
            EntriesEvent::Status(reply) => drop(reply.send(self.raft().status())),
            EntriesEvent::HandOver { target, patience_ticks, reply } => {
                self.move_leadership(target, patience_ticks, reply, actions);
            }
            EntriesEvent::Campaign { patience_ticks, reply } => {
                self.campaign(patience_ticks, reply, actions);
            }
            EntriesEvent::Leave { node, reply } => {
                let status = self.raft().status();
                drop(reply.send(match status.role {
                    RoleName::Leader => Ok(self.autopilot.leave(node, &status, self.now)),
                    RoleName::Follower | RoleName::PreCandidate | RoleName::Candidate => {
                        Err(status.leader)
                    }
                }));
            }
        }
    }

    fn tick(&mut self, actions: &mut EntriesActions) {
        self.now += 1;
        self.step(Input::Tick, actions);
        actions.to_commits.push(ToCommits::Tick(self.now));
        if self.now.is_multiple_of(HOUSEKEEPING_TICKS) {
            self.expire();
            self.steer(actions);
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        let raft = self.raft.as_ref().expect("the core is only away while it is stepped");
        self.pending.expire(now, |id| {
            id.index <= raft.commit_index() && raft.term_at(id.index) == Some(id.term)
        });
        for (_, read) in self.reads.extract_if(.., |_, read| read.expires <= now) {
            let reason = "no quorum confirmed the leader in time".to_owned();
            read.answer(Err(QueryRefused::Unavailable { reason }));
        }
        self.peers_waiting.retain(|_, (reply, expires)| *expires > now && !reply.is_closed());
    }

    /// Lets the autopilot propose the next change of the configuration. A leader that is to leave or to stop hands over
    /// first.
    fn steer(&mut self, actions: &mut EntriesActions) {
        let status = self.raft().status();
        let target = self.autopilot.next_change(&status, self.now);
        let wants_rid = self.draining || self.autopilot.is_leaving(status.id);
        if status.role == RoleName::Leader && wants_rid && self.hand_over(&status, actions) {
            return;
        }
        if let Some(target) = target {
            let change = MembershipChange {
                id: ProposalId(self.fresh_id()),
                based_on: status.membership_index,
                target,
            };
            self.step(Input::ChangeMembership(change), actions);
        }
    }

    fn admit(&mut self, submission: Submission, clock_ms: u64, proposals: &mut Vec<Proposal>) {
        let Submission { kind, session, sequence, acked_below, body, patience_ticks, reply } =
            submission;
        let expires = self.now.saturating_add(patience_ticks);
        let name = Name::new(session, sequence).filter(|_| kind == Kind::Apply);
        let waiting = Waiting { reply, expires, ticket: self.commands_waiting.issue(), name };
        if self.draining {
            return waiting.answer(Err(SubmitRefused::NotLeader { leader: self.other_leader() }));
        }
        if self.commands_waiting.outstanding() > MAX_WAITING_CALLERS {
            return waiting.answer(Err(SubmitRefused::Busy));
        }
        // Remembered only once it is in the log: this node may not lead, and its clock may be wrong for a moment.
        let time_ms = self.time_ms.max(clock_ms);
        let command = Command { kind, time_ms, session, sequence, acked_below, body };
        let id = ProposalId(self.fresh_id());
        proposals.push(Proposal { id, command: command.encode() });
        self.proposed.insert(id, waiting);
    }

    fn read(&mut self, read: Read, actions: &mut EntriesActions) {
        if self.draining {
            return read.answer(Err(QueryRefused::NotLeader { leader: self.other_leader() }));
        }
        if self.reads_waiting.outstanding() > MAX_WAITING_CALLERS {
            return read.answer(Err(QueryRefused::Busy));
        }
        let id = ReadId(self.fresh_id());
        self.reads.insert(id, read);
        self.step(Input::Read(id), actions);
    }

    fn drain(&mut self, actions: &mut EntriesActions) {
        self.draining = true;
        let status = self.raft().status();
        if status.role == RoleName::Leader {
            self.hand_over(&status, actions);
        }
    }

    /// Gives leadership to the best successor: nobody has to wait for an election timeout then. One that did not take over in
    /// time is not asked again before all others were. False when there is nobody.
    fn hand_over(&mut self, status: &Status, actions: &mut EntriesActions) -> bool {
        if status.transferring_to.is_some() {
            return true;
        }
        let next = self.autopilot.successor(status, &self.passed_over).or_else(|| {
            self.passed_over.clear();
            self.autopilot.successor(status, &self.passed_over)
        });
        let Some(successor) = next else { return false };
        self.passed_over.insert(successor);
        self.step(Input::Transfer(successor), actions);
        true
    }

    fn move_leadership(
        &mut self,
        target: Option<NodeId>,
        patience_ticks: u64,
        reply: Reply<HandoverOutcome>,
        actions: &mut EntriesActions,
    ) {
        if self.handovers.is_full() {
            return drop(reply.send(Err(HandoverRefused::Busy)));
        }
        let status = self.raft().status();
        match self.choose_target(target, &status) {
            Err(refused) => drop(reply.send(Err(refused))),
            Ok(target) => {
                self.step(Input::Transfer(target), actions);
                let expires = self.now.saturating_add(patience_ticks);
                self.handovers.wait(target, status.term, expires, reply);
            }
        }
    }

    fn choose_target(
        &self,
        target: Option<NodeId>,
        status: &Status,
    ) -> Result<NodeId, HandoverRefused> {
        if status.role != RoleName::Leader {
            return Err(HandoverRefused::NotLeader { leader: status.leader });
        }
        let Some(target) = target else {
            let best = self.autopilot.successor(status, &BTreeSet::new());
            return best.ok_or(HandoverRefused::NoSuccessor);
        };
        check_candidate(target, status)?;
        if status.transferring_to.is_some_and(|running| running != target) {
            return Err(HandoverRefused::Busy);
        }
        Ok(target)
    }

    fn campaign(
        &mut self,
        patience_ticks: u64,
        reply: Reply<HandoverOutcome>,
        actions: &mut EntriesActions,
    ) {
        if self.handovers.is_full() {
            return drop(reply.send(Err(HandoverRefused::Busy)));
        }
        let status = self.raft().status();
        if let Err(refused) = check_candidate(status.id, &status) {
            return drop(reply.send(Err(refused)));
        }
        self.step(Input::Campaign, actions);
        let expires = self.now.saturating_add(patience_ticks);
        self.handovers.wait(status.id, status.term, expires, reply);
    }

    fn other_leader(&self) -> Option<NodeId> {
        let ours = self.raft().status().id;
        self.raft().leader().filter(|leader| *leader != ours)
    }

    fn hear_from_commits(&mut self, message: FromCommits, actions: &mut EntriesActions) {
        match message {
            FromCommits::Taken(last) => self.feed.taken(last),
            FromCommits::Applied(index) => self.step(Input::Applied(index), actions),
            FromCommits::Attach { attachment, applied, from } => {
                actions.to_commits.push(self.take_on(attachment, applied, from));
            }
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note_stamps(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Payload::Command(command) = &entry.payload {
                self.time_ms = self.time_ms.max(Command::time_ms_of(command));
            }
        }
    }

    fn step(&mut self, input: Input, actions: &mut EntriesActions) {
        let raft = self.raft.take().expect("the core is only away while it is stepped");
        let (raft, output) = raft.step(input);
        self.raft = Some(raft);
        self.carry_out(output, actions);
    }

    fn carry_out(&mut self, output: Output, actions: &mut EntriesActions) {
        if let Some(persist) = output.persist {
            self.outbox.handed(persist.batch);
            self.note_stamps(&persist.append);
            actions.persist.push(persist);
        }
        if let Some(meta) = output.install {
            self.install(meta, actions);
        }
        if let Some(base) = output.compact {
            self.note_base(base, actions);
        }
        self.dispatch(output.messages, actions);
        let free = self.outbox.hold(output.messages_after_sync);
        self.dispatch(free, actions);
        for (id, place) in output.accepted {
            if let Some(waiting) = self.proposed.remove(&id) {
                self.pending.insert(place, waiting);
            }
        }
        for (id, refusal) in output.refused {
            if let Some(waiting) = self.proposed.remove(&id) {
                waiting.answer(Err(submit_refused(refusal)));
            }
        }
        for (id, read_index) in output.reads {
            if let Some(read) = self.reads.remove(&id) {
                actions.to_commits.push(ToCommits::Query { read_index, read });
            }
        }
        for (id, refusal) in output.refused_reads {
            if let Some(read) = self.reads.remove(&id) {
                read.answer(Err(query_refused(refusal)));
            }
        }
        let core_reads = |fetch| (FetchFor::Core, fetch, MAX_FETCH_BYTES);
        actions.fetch.extend(output.fetch.into_iter().map(core_reads));
        actions.events.extend(output.events);
    }

    /// Answers go to the peers' waiting calls, everything else out to the peers.
    fn dispatch(&mut self, messages: Vec<Envelope>, actions: &mut EntriesActions) {
        for message in messages {
            if !message.body.is_answer() {
                actions.send.push(message);
            } else if let Some((reply, _)) = self.peers_waiting.remove(&message.token) {
                drop(reply.send(message));
            }
        }
    }

    /// Hands committed, durable entries on while there is room for them.
    fn feed(&mut self, actions: &mut EntriesActions) {
        let ready = self.raft().ready_index();
        while let Some((next, room)) = self.feed.wanted(ready) {
            let entries = self.raft().cached_entries(next, ready, room);
            if entries.is_empty() {
                let generation = self.feed.begin_fetch();
                let range = Fetch { from: next, to: ready };
                actions.fetch.push((FetchFor::Feed(generation), range, room));
                return;
            }
            self.hand_on(entries, actions);
        }
    }

    fn hand_on(&mut self, entries: Vec<Entry>, actions: &mut EntriesActions) {
        self.feed.handed(&entries);
        let leader = self.raft().leader();
        let committed = entries.into_iter().map(|entry| {
            let waiting = self.pending.take_committed(entry.id, leader);
            Committed { entry, waiting }
        });
        actions.to_commits.push(ToCommits::Committed(committed.collect()));
    }
}

/// Whether a node could be made the leader.
fn check_candidate(node: NodeId, status: &Status) -> Result<(), HandoverRefused> {
    let membership = &status.membership;
    if status.leader == Some(node) {
        Err(HandoverRefused::AlreadyLeads(node))
    } else if membership.voters.contains(&node) {
        Ok(())
    } else if membership.contains(node) {
        Err(HandoverRefused::Learner(node))
    } else {
        Err(HandoverRefused::Unknown(node))
    }
}

fn submit_refused(refusal: Refusal) -> SubmitRefused {
    match refusal {
        Refusal::NotLeader { leader } => SubmitRefused::NotLeader { leader },
        Refusal::NotReady => SubmitRefused::NotReady,
        Refusal::Busy
        | Refusal::ChangeInProgress
        | Refusal::StaleChange
        | Refusal::InvalidChange => SubmitRefused::Busy,
    }
}

fn query_refused(refusal: Refusal) -> QueryRefused {
    match refusal {
        Refusal::NotLeader { leader } => QueryRefused::NotLeader { leader },
        Refusal::Busy
        | Refusal::NotReady
        | Refusal::ChangeInProgress
        | Refusal::StaleChange
        | Refusal::InvalidChange => QueryRefused::Busy,
    }
}

/// The name that operators and clients see.
pub fn role_name(status: &Status) -> &'static str {
    match status.role {
        RoleName::Leader => "leader",
        RoleName::Candidate => "candidate",
        RoleName::PreCandidate => "pre-candidate",
        RoleName::Follower if status.membership.learners.contains(&status.id) => "learner",
        RoleName::Follower => "follower",
    }
}
