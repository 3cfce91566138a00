//! The peers' contract, translated into messages of the core.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tarpc::context::Context;
use tokio::sync::oneshot;

use super::Shared;
use super::client_service::ClientServer;
use crate::consensus::{AppendRequest, Envelope, Index, Message, NodeId, Term, Token};
use crate::entries;
use crate::forward;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::client::{self, OpenSession, Submit};
use crate::rpc::peer::{
    AppendEntries, AppendReply, Ballot, BallotReply, Forward, Forwarded, PeerService,
};

/// Serves one peer.
#[derive(Clone, Debug)]
pub(super) struct PeerServer {
    shared: Shared,
    peer: NodeId,
    local: ClientServer,
}

impl PeerServer {
    pub(super) fn new(shared: Shared, peer: NodeId) -> Self {
        let local = ClientServer::new(shared.clone());
        Self { shared, peer, local }
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
            Forward::OpenSession { remaining_ms } => {
                let request = OpenSession { forward: false };
                let opened = self.local.open_session_until(due(remaining_ms), request).await;
                Forwarded::Submit(
                    opened.map(|open| (open.session, client::Outcome::Done(bytes::Bytes::new()))),
                )
            }
            Forward::Query { query, remaining_ms } => {
                let request = client::Query { query, forward: false };
                Forwarded::Query(self.local.query_until(due(remaining_ms), request).await)
            }
        }
    }
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

    async fn forward(self, _: Context, batch: Vec<Forward>) -> Vec<Forwarded> {
        let mut outcomes =
            join_all(batch.into_iter().map(|request| self.forward_one(request))).await;
        forward::bound_answer(&mut outcomes);
        outcomes
    }
}
