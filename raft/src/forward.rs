//! Passing requests on: from a node that does not lead to the one that does (or to the one that an operator means), one hop,
//! in batches.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::deadline;
use crate::rpc::client::{Answer, Outcome, QueryError, SubmitError};
use crate::rpc::operation::{Operated, OperationError};
use crate::rpc::peer::{Answers, Forward, Forwarded, LeaveAnswer, PeerServiceClient, TurnRequest};

/// Most requests in one batch.
pub const BATCH_ITEMS: usize = 256;
/// A batch is closed when its requests hold this many bytes: with one more of the longest it still fits into a frame.
const BATCH_BYTES: usize = 1024 * 1024;
/// Most bytes of results in the answer to a batch, which has to fit into a frame too.
const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024;

/// Outcome of a command that was passed on.
pub type SubmitResult = Result<(u64, Outcome), SubmitError>;
/// Outcome of a read that was passed on.
pub type QueryResult = Result<Answer, QueryError>;

/// Outcome of an operator's wish that was passed on.
pub type OperateResult = Result<Operated, OperationError>;
/// The leader's word to a node that wants to leave.
pub type LeaveResult = Result<LeaveAnswer, OperationError>;
/// Whether a node may take a snapshot now.
pub type TurnResult = Result<bool, OperationError>;

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
    Operate(oneshot::Sender<OperateResult>),
    Leave(oneshot::Sender<LeaveResult>),
    SnapshotTurn(oneshot::Sender<TurnResult>),
}

impl ForwardItem {
    /// A command, a new session or a change of one, to be answered until `due`.
    pub fn submit(request: Forward, due: Instant) -> (Self, oneshot::Receiver<SubmitResult>) {
        let (caller, answer) = oneshot::channel();
        (Self { request, due, caller: Caller::Submit(caller) }, answer)
    }

    /// A read, to be answered until `due`.
    pub fn query(request: Forward, due: Instant) -> (Self, oneshot::Receiver<QueryResult>) {
        let (caller, answer) = oneshot::channel();
        (Self { request, due, caller: Caller::Query(caller) }, answer)
    }

    /// An operator's wish, to be answered until `due`.
    pub fn operate(request: Forward, due: Instant) -> (Self, oneshot::Receiver<OperateResult>) {
        let (caller, answer) = oneshot::channel();
        (Self { request, due, caller: Caller::Operate(caller) }, answer)
    }

    /// This node's wish to leave, to be answered until `due`.
    pub fn leave(due: Instant) -> (Self, oneshot::Receiver<LeaveResult>) {
        let (caller, answer) = oneshot::channel();
        (Self { request: Forward::Leave, due, caller: Caller::Leave(caller) }, answer)
    }

    /// This node's wish for a turn to take a snapshot, to be answered until `due`.
    pub fn snapshot_turn(
        request: TurnRequest,
        due: Instant,
    ) -> (Self, oneshot::Receiver<TurnResult>) {
        let (caller, answer) = oneshot::channel();
        let request = Forward::SnapshotTurn(request);
        (Self { request, due, caller: Caller::SnapshotTurn(caller) }, answer)
    }

    /// Whether nobody waits for the answer any more: then it need not be sent.
    pub fn is_abandoned(&self) -> bool {
        match &self.caller {
            Caller::Submit(caller) => caller.is_closed(),
            Caller::Query(caller) => caller.is_closed(),
            Caller::Operate(caller) => caller.is_closed(),
            Caller::Leave(caller) => caller.is_closed(),
            Caller::SnapshotTurn(caller) => caller.is_closed(),
        }
    }

    /// Answers a command as the other node would.
    #[cfg(test)]
    pub(crate) fn answer_for_tests(self, result: SubmitResult) {
        self.caller.answer(Ok(Forwarded::Submit(result)));
    }

    /// Nothing was sent.
    pub fn refuse(self) {
        self.caller.answer(Err(Failure::NotSent));
    }

    fn weight_bytes(&self) -> usize {
        match &self.request {
            Forward::Submit { command, .. } => command.len(),
            Forward::Query { query, .. } => query.len(),
            Forward::OpenSession { .. }
            | Forward::ChangeSession { .. }
            | Forward::Operate { .. }
            | Forward::Leave
            | Forward::SnapshotTurn(_) => 0,
        }
    }
}

/// Divides requests into batches that fit into a frame each, in order.
pub fn batches(items: impl IntoIterator<Item = ForwardItem>) -> Vec<Vec<ForwardItem>> {
    let mut batches = Vec::new();
    let mut room_bytes = 0;
    for item in items {
        if room_bytes == 0 {
            batches.push(Vec::new());
            room_bytes = BATCH_BYTES;
        }
        room_bytes = room_bytes.saturating_sub(item.weight_bytes());
        batches.last_mut().expect("one was just begun").push(item);
    }
    batches
}

/// Leaves out results that would not fit into one answer: a command's caller is told that it was applied, a reader to
/// ask again.
pub fn bound_answer(outcomes: &mut [Forwarded]) {
    let mut total_bytes = 0;
    for outcome in outcomes {
        let bytes = result_bytes(outcome);
        if total_bytes + bytes <= MAX_ANSWER_BYTES {
            total_bytes += bytes;
            continue;
        }
        match outcome {
            Forwarded::Submit(Ok((_, outcome))) => *outcome = Outcome::AlreadyApplied,
            Forwarded::Query(answer) => *answer = Err(QueryError::Busy),
            Forwarded::Submit(Err(_))
            | Forwarded::Operate(_)
            | Forwarded::Leave(_)
            | Forwarded::SnapshotTurn(_) => {}
        }
    }
}

fn result_bytes(outcome: &Forwarded) -> usize {
    let outcome = match outcome {
        Forwarded::Submit(Ok((_, outcome))) => outcome,
        Forwarded::Query(Ok(answer)) => &answer.outcome,
        Forwarded::Submit(Err(_))
        | Forwarded::Query(Err(_))
        | Forwarded::Operate(_)
        | Forwarded::Leave(_)
        | Forwarded::SnapshotTurn(_) => return 0,
    };
    match outcome {
        Outcome::Done(bytes) | Outcome::Refused(bytes) => bytes.len(),
        Outcome::AlreadyApplied => 0,
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug)]
enum Failure {
    NotSent,
    Lost(String),
}

const MISFIT: &str = "the other node's answer does not fit";

impl Caller {
    fn answer(self, outcome: Result<Forwarded, Failure>) {
        match (self, outcome) {
            (Self::Submit(caller), Ok(Forwarded::Submit(result))) => drop(caller.send(result)),
            (Self::Query(caller), Ok(Forwarded::Query(result))) => drop(caller.send(result)),
            (Self::Operate(caller), Ok(Forwarded::Operate(result))) => drop(caller.send(result)),
            (Self::Leave(caller), Ok(Forwarded::Leave(result))) => drop(caller.send(result)),
            (Self::SnapshotTurn(caller), Ok(Forwarded::SnapshotTurn(result))) => {
                drop(caller.send(result));
            }
            (caller, Ok(_)) => caller.fail(Failure::Lost(MISFIT.to_owned())),
            (caller, Err(failure)) => caller.fail(failure),
        }
    }

    fn fail(self, failure: Failure) {
        match self {
            Self::Submit(caller) => drop(caller.send(Err(match failure {
                Failure::NotSent => SubmitError::NotLeader { hint: None },
                Failure::Lost(reason) => SubmitError::Unknown { reason },
            }))),
            Self::Query(caller) => drop(caller.send(Err(match failure {
                Failure::NotSent => QueryError::NotLeader { hint: None },
                Failure::Lost(reason) => QueryError::Unavailable { reason },
            }))),
            Self::Operate(caller) => drop(caller.send(Err(operation_error(failure)))),
            Self::Leave(caller) => drop(caller.send(Err(operation_error(failure)))),
            Self::SnapshotTurn(caller) => drop(caller.send(Err(operation_error(failure)))),
        }
    }
}

fn operation_error(failure: Failure) -> OperationError {
    match failure {
        Failure::NotSent => OperationError::NotLeader { hint: None },
        Failure::Lost(reason) => OperationError::Unknown { reason },
    }
}

/// Passes a batch on and hands the answers to the callers as they come.
pub async fn pass_on(client: PeerServiceClient, batch: Vec<ForwardItem>) {
    let now = Instant::now();
    let patience = batch.iter().map(|item| item.due.saturating_duration_since(now)).max();
    let (requests, callers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|item| (item.request, item.caller)).unzip();
    // A little longer than the leader waits, so that its own word on time-outs arrives.
    let context = deadline(patience.unwrap_or_default() + Duration::from_secs(1));
    let mut callers = Unanswered(callers.into_iter().map(Some).collect());
    let mut answers = client.forward(context, requests).await;
    let failure = loop {
        match answers {
            Ok(some) => match callers.take_in(some) {
                Ok(Some(rest)) => answers = client.forward_rest(context, rest).await,
                Ok(None) => break MISFIT.to_owned(),
                Err(misfit) => break misfit,
            },
            Err(error) => break format!("connection to the other node failed: {error}"),
        }
    };
    for caller in callers.0.into_iter().flatten() {
        caller.fail(Failure::Lost(failure.clone()));
    }
}

/// The callers of a batch, by place, who have no answer yet.
struct Unanswered(Vec<Option<Caller>>);

impl Unanswered {
    /// Hands answers on. Returns what names the rest, if there is one.
    fn take_in(&mut self, answers: Answers) -> Result<Option<u64>, String> {
        let Answers { places, outcomes, rest } = answers;
        // Answers that bring nothing would be asked for again without end.
        if places.is_empty() || places.len() != outcomes.len() {
            return Err(MISFIT.to_owned());
        }
        for (place, outcome) in places.into_iter().zip(outcomes) {
            let caller = usize::try_from(place).ok().and_then(|place| self.0.get_mut(place));
            if let Some(caller) = caller.and_then(Option::take) {
                caller.answer(Ok(outcome));
            }
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rpc::client::MAX_COMMAND_BYTES;
    use crate::rpc::wire::MAX_FRAME_BYTES;

    fn command(sequence: u64, bytes: usize) -> ForwardItem {
        let command = Bytes::from(vec![7; bytes]);
        let (session, acked_below, remaining_ms) = (0, 0, 1);
        let request = Forward::Submit { session, sequence, acked_below, command, remaining_ms };
        ForwardItem::submit(request, Instant::now()).0
    }

    fn sequences(batch: &[ForwardItem]) -> Vec<u64> {
        let sequence = |item: &ForwardItem| match item.request {
            Forward::Submit { sequence, .. } => sequence,
            Forward::OpenSession { .. }
            | Forward::ChangeSession { .. }
            | Forward::Query { .. }
            | Forward::Operate { .. }
            | Forward::Leave
            | Forward::SnapshotTurn(_) => panic!("not a command"),
        };
        batch.iter().map(sequence).collect()
    }

    #[test]
    fn a_batch_fits_into_a_frame_whatever_is_passed_on() {
        let almost = BATCH_BYTES - 1;
        let sizes = [almost, MAX_COMMAND_BYTES, 1, 2, MAX_COMMAND_BYTES, MAX_COMMAND_BYTES, 3];
        let batches = batches((0..).zip(sizes).map(|(sequence, bytes)| command(sequence, bytes)));
        let order: Vec<_> = batches.iter().map(|batch| sequences(batch)).collect();
        assert_eq!(order, [vec![0, 1], vec![2, 3, 4], vec![5], vec![6]]);
        for batch in batches {
            let requests: Vec<_> = batch.into_iter().map(|item| item.request).collect();
            let frame = postcard::to_stdvec(&requests).unwrap();
            assert!(frame.len() < MAX_FRAME_BYTES, "{} bytes", frame.len());
        }
    }

    #[test]
    fn small_requests_share_a_batch() {
        let batches = batches((0..256).map(|sequence| command(sequence, 100)));
        assert_eq!(batches.len(), 1);
        assert_eq!(sequences(&batches[0]), (0..256).collect::<Vec<_>>());
    }

    #[test]
    fn results_beyond_a_frame_are_left_out_and_nothing_untrue_is_said_of_them() {
        let outcome = || Outcome::Done(Bytes::from(vec![7; MAX_ANSWER_BYTES / 2]));
        let read = || Forwarded::Query(Ok(Answer { read_index: 1, outcome: outcome() }));
        let refused = Forwarded::Submit(Err(SubmitError::Busy));
        let applied = |index, outcome| Forwarded::Submit(Ok((index, outcome)));
        let mut outcomes = [
            applied(1, outcome()),
            read(),
            refused.clone(),
            applied(2, outcome()),
            read(),
            applied(3, Outcome::Done(Bytes::new())),
        ];
        bound_answer(&mut outcomes);
        let left_out = Forwarded::Query(Err(QueryError::Busy));
        let expected = [
            applied(1, outcome()),
            read(),
            refused,
            applied(2, Outcome::AlreadyApplied),
            left_out,
            applied(3, Outcome::Done(Bytes::new())),
        ];
        assert!(outcomes == expected);
        assert!(postcard::to_stdvec(outcomes.as_slice()).unwrap().len() < MAX_FRAME_BYTES);
    }
}
