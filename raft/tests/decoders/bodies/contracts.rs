//! What clients ask of raft, what it answers them, and what the machine and the member daemon answer raft.

use bytes::Bytes;
use member::rpc::MemberServiceResponse;
use raft::rpc::client::{
    Answer, ChangeSession, ClientServiceRequest, ClientServiceResponse, LeaderHint, OpenSession,
    Outcome, Query, SessionChange, SessionOpened, Submit, SubmitError, Submitted,
};
use raft::rpc::operation::{Operate, Operation};
use state_machine::rpc::{Applied, CommandResult, StateMachineServiceResponse};

use super::frames::{answer, answer_frame, request, request_frame};

pub(crate) fn client_requests(frame: &[u8]) -> bool {
    request::<ClientServiceRequest>(frame).is_some()
}

pub(crate) fn client_answers(frame: &[u8]) -> bool {
    answer::<ClientServiceResponse>(frame).is_some()
}

pub(crate) fn machine_answers(frame: &[u8]) -> bool {
    let Some((_, answer)) = answer::<StateMachineServiceResponse>(frame) else { return false };
    if let StateMachineServiceResponse::Apply(Ok(applied)) = answer {
        assert!(applied.results.len() <= frame.len(), "each result has a byte at least");
    }
    true
}

pub(crate) fn member_answers(frame: &[u8]) -> bool {
    answer::<MemberServiceResponse>(frame).is_some()
}

pub(crate) fn client_request_seeds() -> Vec<Vec<u8>> {
    let bytes = Bytes::from_static(b"PUT a b");
    let submit =
        Submit { session: 7, sequence: 1, acked_below: 1, command: bytes.clone(), forward: true };
    let operation = Operation::Transfer { node: 3 };
    let change = ChangeSession { session: 7, change: SessionChange::Close, forward: true };
    let requests = [
        ClientServiceRequest::OpenSession { request: OpenSession { forward: true, ttl_ms: 500 } },
        ClientServiceRequest::Submit { request: submit },
        ClientServiceRequest::Query { request: Query { query: bytes, forward: false } },
        ClientServiceRequest::Status {},
        ClientServiceRequest::Members {},
        ClientServiceRequest::Operate { request: Operate { operation, forward: true } },
        ClientServiceRequest::LogFilter { filter: Some("info".to_owned()) },
        ClientServiceRequest::ChangeSession { request: change },
    ];
    requests.iter().map(|request| request_frame(1, request)).collect()
}

pub(crate) fn client_answer_seeds() -> Vec<Vec<u8>> {
    let done = || Outcome::Done(Bytes::from_static(b"42"));
    let hint = Some(LeaderHint { node: 3, address: "host:6004".to_owned() });
    let answers = [
        ClientServiceResponse::OpenSession(Ok(SessionOpened { session: 7, ttl_ms: 9 })),
        ClientServiceResponse::Submit(Ok(Submitted { index: 9, outcome: done() })),
        ClientServiceResponse::Submit(Err(SubmitError::NotLeader { hint })),
        ClientServiceResponse::Query(Ok(Answer { read_index: 9, outcome: done() })),
        ClientServiceResponse::Members(Vec::new()),
        ClientServiceResponse::LogFilter(Err("what".to_owned())),
        ClientServiceResponse::ChangeSession(Ok(())),
    ];
    answers.iter().map(|answer| answer_frame(1, answer)).collect()
}

pub(crate) fn machine_answer_seeds() -> Vec<Vec<u8>> {
    let results = vec![
        CommandResult::Done(Bytes::from_static(b"1")),
        CommandResult::Refused(Bytes::from_static(b"no")),
        CommandResult::Skipped,
    ];
    let applied = Applied { first_index: 4, results, durable_index: 2, wants_snapshot: true };
    let query = CommandResult::Done(Bytes::from_static(b"value"));
    let answers = [
        StateMachineServiceResponse::Apply(Ok(applied)),
        StateMachineServiceResponse::Query(Ok(query)),
        StateMachineServiceResponse::Notify(Ok(())),
    ];
    answers.iter().map(|answer| answer_frame(1, answer)).collect()
}

pub(crate) fn member_answer_seeds() -> Vec<Vec<u8>> {
    let answers = [MemberServiceResponse::Join(Ok(())), MemberServiceResponse::Leave(Ok(()))];
    answers.iter().map(|answer| answer_frame(1, answer)).collect()
}
