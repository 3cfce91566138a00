//! Requests of clients, peers and of this node itself: handed to the stages, passed on to the leader, answered.

use raft::consensus::NodeId;
use raft::pipeline::digest_entries::{EntriesEvent, Submission};
use raft::pipeline::{QueryOutcome, QueryRefused, SubmitOutcome, SubmitRefused};
use raft::rpc::peer::LeaveAnswer;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::World;
use super::event::{Body, Call, Event, Packet, Reply};
use super::plan::Plant;
use raft::rpc::client::Outcome;

/// Who has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A client, at one of its attempts.
    Client {
        /// Which client.
        client: usize,
        /// Which attempt.
        attempt: u64,
    },
    /// A peer that passes on.
    Peer {
        /// Where it lives.
        slot: usize,
        /// Which start of it.
        start: u64,
        /// Its number for this.
        number: u64,
    },
    /// This node's keeper of snapshots.
    Keeper,
    /// This node, which wants to leave.
    Leaver,
}

/// Somebody who waits for one of the stages.
#[derive(Debug)]
pub struct Caller {
    whom: Whom,
    call: Call,
    waits: Waits,
}

#[derive(Debug)]
enum Waits {
    Submit(oneshot::Receiver<SubmitOutcome>),
    Query(oneshot::Receiver<QueryOutcome>),
    Leave(oneshot::Receiver<Result<LeaveAnswer, Option<NodeId>>>),
    Turn(oneshot::Receiver<Result<bool, Option<NodeId>>>),
}

impl World {
    /// Hands a request to the first stage.
    pub fn serve(&mut self, slot: usize, whom: Whom, call: Call) {
        let patience_ticks = self.plan.patience_ticks;
        if self.plan.plant == Some(Plant::ReadWithoutAsking)
            && let (Call::Query(query), Whom::Client { client, attempt }) = (&call, whom)
        {
            return self.read_without_asking(slot, client, attempt, query);
        }
        let (event, waits) = match call.clone() {
            Call::Submit { kind, session, sequence, acked_below, body } => {
                let (reply, answer) = oneshot::channel();
                let submission = Submission {
                    kind,
                    session,
                    sequence,
                    acked_below,
                    body,
                    patience_ticks,
                    reply,
                };
                (EntriesEvent::Submit(submission), Waits::Submit(answer))
            }
            Call::Query(query) => {
                let (reply, answer) = oneshot::channel();
                (EntriesEvent::Query { query, patience_ticks, reply }, Waits::Query(answer))
            }
            Call::Leave(node) => {
                let (reply, answer) = oneshot::channel();
                (EntriesEvent::Leave { node, reply }, Waits::Leave(answer))
            }
            Call::Turn(node, request) => {
                let (reply, answer) = oneshot::channel();
                (EntriesEvent::SnapshotTurn { node, request, reply }, Waits::Turn(answer))
            }
        };
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.callers.push(Caller { whom, call, waits });
        self.hear(slot, event);
    }

    /// Answers all whose answer is there.
    pub fn answer_callers(&mut self, slot: usize) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let mut settled = Vec::new();
        for mut caller in std::mem::take(&mut raft.callers) {
            match caller.waits.look() {
                Some(reply) => settled.push((caller.whom, caller.call, reply)),
                None => raft.callers.push(caller),
            }
        }
        for (whom, call, reply) in settled {
            self.pass_on_or_answer(slot, whom, call, reply);
        }
    }

    /// A request that belongs to another node goes there, one hop.
    fn pass_on_or_answer(&mut self, slot: usize, whom: Whom, call: Call, reply: Reply) {
        let may_pass_on = !matches!(whom, Whom::Peer { .. });
        if let Reply::NotLeader(Some(leader)) = reply
            && may_pass_on
            && leader != self.slots[slot].node
        {
            return self.pass_on(slot, leader, whom, call);
        }
        self.answer(slot, whom, reply);
    }

    fn pass_on(&mut self, slot: usize, leader: NodeId, whom: Whom, call: Call) {
        let start = self.raft_of(slot).start;
        let Some(&to) = self.places.get(&leader) else {
            return self.answer(slot, whom, Reply::NotLeader(None));
        };
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.last_forward += 1;
        let number = raft.last_forward;
        raft.forwarded.insert(number, (whom, call.clone()));
        while raft.forwarded.len() > 1_000 {
            // Nobody waits for these any more.
            raft.forwarded.pop_first();
        }
        self.send(slot, to, Body::Forward(start, number, call));
    }

    /// The other node has answered.
    pub fn hear_forwarded(&mut self, slot: usize, number: u64, reply: Reply) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if let Some((whom, _call)) = raft.forwarded.remove(&number) {
            self.answer(slot, whom, reply);
        }
    }

    fn answer(&mut self, slot: usize, whom: Whom, reply: Reply) {
        match whom {
            Whom::Client { client, attempt } => self.reply_to_client(client, attempt, reply),
            Whom::Peer { slot: to, start, number } => {
                self.send(slot, to, Body::Forwarded(start, number, reply));
            }
            Whom::Keeper => self.hear_turn(slot, &reply),
            Whom::Leaver => self.hear_leave(slot, &reply),
        }
    }

    /// Asks the leader for something for this node itself.
    pub fn ask_leader(&mut self, slot: usize, whom: Whom, call: Call) {
        let node = self.slots[slot].node;
        let Some(raft) = &self.slots[slot].raft else { return };
        match raft.leader {
            Some(leader) if leader == node => self.serve(slot, whom, call),
            Some(leader) => self.pass_on(slot, leader, whom, call),
            None => {}
        }
    }

    /// Sends an answer to a client.
    pub fn reply_to_client(&mut self, client: usize, attempt: u64, reply: Reply) {
        if let Some(delay) = self.network.deliver_client() {
            let body = Body::Reply(client, attempt, reply);
            self.at(delay, Event::Packet(Box::new(Packet { from: None, to: client, body })));
        }
    }

    /// A planted violation: a read is answered by whatever this node's machine holds.
    fn read_without_asking(
        &mut self,
        slot: usize,
        client: usize,
        attempt: u64,
        query: &bytes::Bytes,
    ) {
        use state_machine::machine::Machine as _;
        use state_machine::rpc::CommandResult;
        let Some(machine) = &self.slots[slot].machine else { return };
        if let Ok(CommandResult::Done(bytes)) = machine.host.machine().query(query) {
            self.reply_to_client(client, attempt, Reply::Read(Outcome::Done(bytes)));
        }
    }
}

impl Waits {
    /// The answer, if it is there by now.
    fn look(&mut self) -> Option<Reply> {
        match self {
            Self::Submit(answer) => look(answer, submitted),
            Self::Query(answer) => look(answer, queried),
            Self::Leave(answer) => look(answer, |answer| match answer {
                Ok(answer) => Reply::Leave(answer),
                Err(leader) => Reply::NotLeader(leader),
            }),
            Self::Turn(answer) => look(answer, |answer| match answer {
                Ok(granted) => Reply::Turn(granted),
                Err(leader) => Reply::NotLeader(leader),
            }),
        }
    }
}

/// None while there is no answer. Where there never will be one, nobody knows what came of it.
fn look<T>(answer: &mut oneshot::Receiver<T>, say: impl FnOnce(T) -> Reply) -> Option<Reply> {
    match answer.try_recv() {
        Ok(answer) => Some(say(answer)),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Closed) => Some(Reply::Unknown),
    }
}

fn submitted(outcome: SubmitOutcome) -> Reply {
    match outcome {
        Ok((index, outcome)) => Reply::Applied(index.0, outcome),
        Err(SubmitRefused::NotLeader { leader }) => Reply::NotLeader(leader),
        Err(SubmitRefused::Busy | SubmitRefused::NotReady) => Reply::Busy,
        Err(SubmitRefused::SessionExpired | SubmitRefused::OutsideWindow) => Reply::Expired,
        Err(
            SubmitRefused::AlreadyAcknowledged
            | SubmitRefused::CommittedNotApplied { .. }
            | SubmitRefused::Unknown { .. },
        ) => Reply::Unknown,
    }
}

fn queried(outcome: QueryOutcome) -> Reply {
    match outcome {
        Ok(answer) => Reply::Read(answer.outcome),
        Err(QueryRefused::NotLeader { leader }) => Reply::NotLeader(leader),
        Err(QueryRefused::Busy | QueryRefused::Unavailable { .. }) => Reply::Busy,
    }
}
