//! The peers' contract, translated into messages of the core.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use tarpc::context::Context;
use tokio::sync::oneshot;

use super::Shared;
use super::client_service::ClientServer;
use crate::consensus::{AppendRequest, Envelope, Index, Message, NodeId, Term, Token};
use crate::entries;
use crate::forward;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::client::{self, ChangeSession, OpenSession, Submit};
use crate::rpc::operation::Operate;
use crate::rpc::peer::{
    Answers, AppendEntries, AppendReply, Ballot, BallotReply, Forward, Forwarded, InstallReply,
    InstallSnapshot, PeerService, SnapshotOffer, SnapshotPiece, SnapshotRefusal,
};

/// Batches of one peer that wait for their last answers; further ones are answered as a whole only.
const MAX_PARKED_BATCHES: usize = 1024;

/// Serves one peer.
#[derive(Clone, Debug)]
pub(super) struct PeerServer {
    shared: Shared,
    peer: NodeId,
    local: ClientServer,
    parked: Arc<Mutex<Parked>>,
}

/// Requests of a batch that have no answer yet: the answers, as they come, with the places of their requests.
type Unanswered = BoxStream<'static, (u32, Forwarded)>;

/// Batches that were answered in part. They go with their connection.
#[derive(Default)]
struct Parked {
    batches: BTreeMap<u64, Unanswered>,
    newest: u64,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("batches", &self.batches.len()).finish_non_exhaustive()
    }
}

impl PeerServer {
    pub(super) fn new(shared: Shared, peer: NodeId) -> Self {
        let local = ClientServer::new(shared.clone());
        Self { shared, peer, local, parked: Arc::default() }
    }

    fn envelope(&self, term: Term, body: Message) -> Envelope {
        Envelope { from: self.peer, to: self.shared.node.id, term, token: Token::default(), body }
    }

    /// The core's answer. Some questions get none (from outside of the configuration, say): then this waits until the
    /// caller gives up, and is dropped with its call.
    async fn ask(&self, question: Envelope) -> Envelope {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.inbox.send(EntriesEvent::PeerAsks { question, reply }).await;
        match (sent, answer.await) {
            (Ok(()), Ok(answer)) => answer,
            _ => std::future::pending().await,
        }
    }

    async fn ask_for_vote(&self, term: Term, question: Message) -> BallotReply {
        let answer = self.ask(self.envelope(term, question)).await;
        let (Message::VoteResponse(response) | Message::PreVoteResponse(response)) = answer.body
        else {
            unreachable!("the core answers a vote by {:?}", answer.body);
        };
        BallotReply { term: answer.term, response }
    }

    async fn forward_one(&self, request: Forward) -> Forwarded {
        let due = |remaining_ms: u32| {
            let remaining = Duration::from_millis(remaining_ms.into());
            Instant::now() + remaining.min(self.shared.request_timeout)
        };
        match request {
            Forward::Submit { session, sequence, acked_below, command, remaining_ms } => {
                let request = Submit { session, sequence, acked_below, command, forward: false };
                let submitted = self.local.submit_until(due(remaining_ms), request).await;
                Forwarded::Submit(submitted.map(|done| (done.index, done.outcome)))
            }
            Forward::OpenSession { remaining_ms, ttl_ms } => {
                let request = OpenSession { forward: false, ttl_ms };
                let opened = self.local.open_session_until(due(remaining_ms), request).await;
                Forwarded::Submit(opened.map(|open| (open.session, nothing())))
            }
            Forward::ChangeSession { session, change, remaining_ms } => {
                let request = ChangeSession { session, change, forward: false };
                let changed = self.local.change_session_until(due(remaining_ms), request).await;
                Forwarded::Submit(changed.map(|index| (index, nothing())))
            }
            Forward::Query { query, remaining_ms } => {
                let request = client::Query { query, forward: false };
                Forwarded::Query(self.local.query_until(due(remaining_ms), request).await)
            }
            Forward::Operate { operation, remaining_ms } => {
                let request = Operate { operation, forward: false };
                // A node that leaves takes its own time for it, which the caller knows.
                let due = Instant::now() + Duration::from_millis(remaining_ms.into());
                Forwarded::Operate(self.local.operate_until(due, request).await)
            }
            Forward::Leave => Forwarded::Leave(self.local.may_leave(self.peer).await),
            Forward::SnapshotTurn(request) => {
                Forwarded::SnapshotTurn(self.local.snapshot_turn(self.peer, request).await)
            }
        }
    }

    /// Waits for one answer at least, and takes along what else has come by then.
    async fn answer(&self, mut unanswered: Unanswered) -> Answers {
        let mut answers = Answers::default();
        let mut next = unanswered.next().await;
        while let Some((place, outcome)) = next {
            answers.places.push(place);
            answers.outcomes.push(outcome);
            next = match poll_immediate(unanswered.next()).await {
                Some(next) => next,
                None => match self.park(unanswered) {
                    Ok(ticket) => {
                        answers.rest = Some(ticket);
                        break;
                    }
                    Err(no_room) => {
                        unanswered = no_room;
                        unanswered.next().await
                    }
                },
            };
        }
        forward::bound_answer(&mut answers.outcomes);
        answers
    }

    fn park(&self, unanswered: Unanswered) -> Result<u64, Unanswered> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if parked.batches.len() >= MAX_PARKED_BATCHES {
            return Err(unanswered);
        }
        parked.newest += 1;
        let ticket = parked.newest;
        parked.batches.insert(ticket, unanswered);
        Ok(ticket)
    }
}

fn nothing() -> client::Outcome {
    client::Outcome::Done(bytes::Bytes::new())
}

impl PeerService for PeerServer {
    async fn append_entries(self, _: Context, request: AppendEntries) -> AppendReply {
        let entries = match entries::decode(request.prev, &request.entries) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "append from peer dropped");
                return std::future::pending().await;
            }
        };
        let body = Message::Append(AppendRequest {
            prev: request.prev,
            entries,
            commit_index: Index(request.commit_index),
            read_seq: request.read_seq,
        });
        let answer = self.ask(self.envelope(request.term, body)).await;
        let Message::AppendResponse(response) = answer.body else {
            unreachable!("the core answers an append by {:?}", answer.body);
        };
        AppendReply { term: answer.term, response }
    }

    async fn pre_vote(self, _: Context, Ballot { term, request }: Ballot) -> BallotReply {
        self.ask_for_vote(term, Message::PreVote(request)).await
    }

    async fn request_vote(self, _: Context, Ballot { term, request }: Ballot) -> BallotReply {
        self.ask_for_vote(term, Message::Vote(request)).await
    }

    async fn timeout_now(self, _: Context, term: Term) {
        let message = self.envelope(term, Message::TimeoutNow);
        drop(self.shared.inbox.send(EntriesEvent::PeerSays(message)).await);
    }

    async fn forward(self, _: Context, batch: Vec<Forward>) -> Answers {
        // Without what is parked: that must not keep itself alive when the connection is gone.
        let server = Self { parked: Arc::default(), ..self.clone() };
        let unanswered: FuturesUnordered<_> = (0..)
            .zip(batch)
            .map(|(place, request)| {
                let server = server.clone();
                async move { (place, server.forward_one(request).await) }
            })
            .collect();
        self.answer(unanswered.boxed()).await
    }

    async fn forward_rest(self, _: Context, ticket: u64) -> Answers {
        let parked = {
            let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            parked.batches.remove(&ticket)
        };
        match parked {
            Some(unanswered) => self.answer(unanswered).await,
            None => Answers::default(),
        }
    }

    // A task of its own: a caller that leaves must not leave a disk at work behind that the next call does not know of.
    async fn offer_snapshot(
        self,
        _: Context,
        offer: SnapshotOffer,
    ) -> Result<u64, SnapshotRefusal> {
        let (receiver, from) = (Arc::clone(&self.shared.receiver), self.peer);
        let taken = tokio::spawn(async move { receiver.offer(from, offer).await }).await;
        taken.unwrap_or_else(|panic| Err(SnapshotRefusal::Storage { reason: panic.to_string() }))
    }

    async fn write_snapshot(
        self,
        _: Context,
        piece: SnapshotPiece,
    ) -> Result<u64, SnapshotRefusal> {
        let (receiver, from) = (Arc::clone(&self.shared.receiver), self.peer);
        let taken = tokio::spawn(async move { receiver.write(from, piece).await }).await;
        taken.unwrap_or_else(|panic| Err(SnapshotRefusal::Storage { reason: panic.to_string() }))
    }

    async fn install_snapshot(self, _: Context, request: InstallSnapshot) -> InstallReply {
        let question = Message::InstallSnapshot(request.meta);
        let answer = self.ask(self.envelope(request.term, question)).await;
        let Message::SnapshotResponse(response) = answer.body else {
            unreachable!("the core answers an install by {:?}", answer.body);
        };
        InstallReply { term: answer.term, response }
    }
}
