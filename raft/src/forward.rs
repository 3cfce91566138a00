//! Passing requests on: from a node that does not lead to the one that does, one hop, in batches.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::deadline;
use crate::rpc::client::{Answer, Outcome, QueryError, SubmitError};
use crate::rpc::peer::{Forward, Forwarded, PeerServiceClient};

/// Most requests in one batch.
pub const BATCH_ITEMS: usize = 256;

/// Outcome of a command that was passed on.
pub type SubmitResult = Result<(u64, Outcome), SubmitError>;
/// Outcome of a read that was passed on.
pub type QueryResult = Result<Answer, QueryError>;

/// Something to pass on, and its caller.
#[derive(Debug)]
pub struct ForwardItem {
    request: Forward,
    due: Instant,
    caller: Caller,
}

#[derive(Debug)]
enum Caller {
    Submit(oneshot::Sender<SubmitResult>),
    Query(oneshot::Sender<QueryResult>),
}

impl ForwardItem {
    /// A command or a new session, to be answered until `due`.
    pub fn submit(request: Forward, due: Instant) -> (Self, oneshot::Receiver<SubmitResult>) {
        let (caller, answer) = oneshot::channel();
        (Self { request, due, caller: Caller::Submit(caller) }, answer)
    }

    /// A read, to be answered until `due`.
    pub fn query(request: Forward, due: Instant) -> (Self, oneshot::Receiver<QueryResult>) {
        let (caller, answer) = oneshot::channel();
        (Self { request, due, caller: Caller::Query(caller) }, answer)
    }

    /// Nothing was sent.
    pub fn refuse(self) {
        self.caller.answer(Err(Failure::NotSent));
    }
}

/// Why a batch has no answer.
#[derive(Clone, Debug)]
enum Failure {
    NotSent,
    Lost(String),
}

impl Caller {
    fn answer(self, outcome: Result<Forwarded, Failure>) {
        match self {
            Self::Submit(caller) => drop(caller.send(match outcome {
                Ok(Forwarded::Submit(result)) => result,
                Ok(Forwarded::Query(_)) => Err(SubmitError::Unknown {
                    reason: "the leader's answer does not fit".to_owned(),
                }),
                Err(Failure::NotSent) => Err(SubmitError::NotLeader { hint: None }),
                Err(Failure::Lost(reason)) => Err(SubmitError::Unknown { reason }),
            })),
            Self::Query(caller) => drop(caller.send(match outcome {
                Ok(Forwarded::Query(result)) => result,
                Ok(Forwarded::Submit(_)) => Err(QueryError::Unavailable {
                    reason: "the leader's answer does not fit".to_owned(),
                }),
                Err(Failure::NotSent) => Err(QueryError::NotLeader { hint: None }),
                Err(Failure::Lost(reason)) => Err(QueryError::Unavailable { reason }),
            })),
        }
    }
}

/// Passes a batch on and hands the answers to the callers.
pub async fn pass_on(client: PeerServiceClient, batch: Vec<ForwardItem>) {
    let now = Instant::now();
    let patience = batch.iter().map(|item| item.due.saturating_duration_since(now)).max();
    let (requests, callers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|item| (item.request, item.caller)).unzip();
    // A little longer than the leader waits, so that its own word on time-outs arrives.
    let limit = patience.unwrap_or_default() + Duration::from_secs(1);
    let outcomes = match client.forward(deadline(limit), requests).await {
        Ok(outcomes) if outcomes.len() == callers.len() => Ok(outcomes),
        Ok(_) => Err(Failure::Lost("the leader's answer does not fit".to_owned())),
        Err(error) => Err(Failure::Lost(format!("connection to the leader failed: {error}"))),
    };
    match outcomes {
        Ok(outcomes) => {
            callers
                .into_iter()
                .zip(outcomes)
                .for_each(|(caller, outcome)| caller.answer(Ok(outcome)));
        }
        Err(failure) => callers.into_iter().for_each(|caller| caller.answer(Err(failure.clone()))),
    }
}
