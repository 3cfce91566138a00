//! What other rafts say, stepped into a core: its own invariants are checked after every step.

use bytes::Bytes;
use raft::consensus::{
    AppendOutcome, AppendRequest, AppendResponse, Entry, Envelope, Index, Input, LogId, Message,
    NodeId, Payload, Proposal, ProposalId, SnapshotMeta, SnapshotResponse, Term, Token,
    VoteRequest, VoteResponse,
};
use raft::entries;
use raft::rpc::client::SessionChange;
use raft::rpc::operation::Operation;
use raft::rpc::peer::{
    AppendEntries, AppendReply, Ballot, BallotReply, Forward, InstallReply, InstallSnapshot,
    PeerServiceRequest, PeerServiceResponse, SnapshotOffer, SnapshotPiece, TurnRequest,
};
use tarpc::ClientMessage;

use super::frames::{answer, answer_frame, framed, frames, request, request_frame};
use crate::support::membership;
use crate::support::victim::{ME, Victim};

/// Bits of a request's id that say what happens beside it: who sends it, what is synced, who answers.
#[derive(Clone, Copy)]
struct Beside(u64);

impl Beside {
    fn sender(self) -> NodeId {
        NodeId(2 + self.0 % 3)
    }

    fn happen_to(self, victim: &mut Victim) {
        let bits = |from: u32, count: u32| (self.0 >> from) & ((1 << count) - 1);
        victim.sync(usize::try_from(bits(2, 2)).unwrap());
        match bits(4, 4) {
            1 => victim.friends(),
            2 => victim.receive_snapshot(),
            3 => victim.take_snapshot(Index(bits(8, 4))),
            4 => victim.crash(usize::try_from(bits(8, 2)).unwrap()),
            5 => victim.step(Input::Campaign),
            6 => victim.step(Input::Tick),
            7 => propose(victim, bits(8, 4)),
            _ => {}
        }
    }
}

fn propose(victim: &mut Victim, id: u64) {
    let command = Bytes::from_static(b"PUT a b");
    victim.step(Input::Propose(vec![Proposal { id: ProposalId(id), command }]));
}

/// A follower, a candidate, or a leader with an entry of its own.
fn victim(role: u8) -> Victim {
    let mut victim = Victim::new();
    victim.sync(9);
    if !role.is_multiple_of(3) {
        victim.step(Input::Campaign);
        victim.sync(9);
    }
    if role % 3 > 1 {
        for _ in 0..4 {
            victim.friends();
            victim.sync(9);
        }
        propose(&mut victim, 1);
    }
    victim
}

/// A byte that says what the core is, then frames of requests.
pub(crate) fn requests(bytes: &[u8]) -> bool {
    let Some((role, bytes)) = bytes.split_first() else { return false };
    let (mut victim, mut understood) = (victim(*role), false);
    for frame in frames(bytes) {
        match request::<PeerServiceRequest>(frame) {
            Some(ClientMessage::Request(request)) => {
                let beside = Beside(request.id);
                understood |= request_arrives(&mut victim, beside, request.message);
                beside.happen_to(&mut victim);
            }
            Some(_) => understood = true,
            None => {}
        }
    }
    understood
}

/// As the server translates it.
fn request_arrives(victim: &mut Victim, beside: Beside, request: PeerServiceRequest) -> bool {
    let (term, body) = match request {
        PeerServiceRequest::AppendEntries { request } => match append(&request) {
            Some(append) => (request.term, Message::Append(append)),
            None => return false,
        },
        PeerServiceRequest::PreVote { request } => {
            (request.term, Message::PreVote(request.request))
        }
        PeerServiceRequest::RequestVote { request } => {
            (request.term, Message::Vote(request.request))
        }
        PeerServiceRequest::TimeoutNow { term } => (term, Message::TimeoutNow),
        PeerServiceRequest::InstallSnapshot { request } => {
            (request.term, Message::InstallSnapshot(request.meta))
        }
        // The bytes of a snapshot have a target of their own; the rest never reaches the core as it is.
        PeerServiceRequest::OfferSnapshot { .. }
        | PeerServiceRequest::WriteSnapshot { .. }
        | PeerServiceRequest::Forward { .. }
        | PeerServiceRequest::ForwardRest { .. } => return true,
    };
    arrives(victim, beside, term, body);
    true
}

fn append(request: &AppendEntries) -> Option<AppendRequest> {
    let entries = entries::decode(request.prev, &request.entries).ok()?;
    let again = entries::decode(request.prev, &entries::encode(&entries)).unwrap();
    assert_eq!(again, entries, "encoded as it was decoded");
    let AppendEntries { prev, commit_index, read_seq, .. } = *request;
    Some(AppendRequest { prev, entries, commit_index: Index(commit_index), read_seq })
}

fn arrives(victim: &mut Victim, beside: Beside, term: Term, body: Message) {
    let (from, token) = (beside.sender(), Token(1));
    victim.step(Input::Message(Envelope { from, to: ME, term, token, body }));
}

/// A byte that says what the core is, then frames of answers.
pub(crate) fn answers(bytes: &[u8]) -> bool {
    let Some((role, bytes)) = bytes.split_first() else { return false };
    let (mut victim, mut understood) = (victim(role.wrapping_add(2)), false);
    for frame in frames(bytes) {
        let Some((id, answer)) = answer::<PeerServiceResponse>(frame) else { continue };
        let beside = Beside(id);
        answer_arrives(&mut victim, beside, &answer);
        beside.happen_to(&mut victim);
        understood = true;
    }
    understood
}

fn answer_arrives(victim: &mut Victim, beside: Beside, answer: &PeerServiceResponse) {
    let (term, body) = match answer {
        PeerServiceResponse::AppendEntries(reply) => {
            (reply.term, Message::AppendResponse(reply.response))
        }
        PeerServiceResponse::PreVote(reply) => {
            (reply.term, Message::PreVoteResponse(reply.response))
        }
        PeerServiceResponse::RequestVote(reply) => {
            (reply.term, Message::VoteResponse(reply.response))
        }
        PeerServiceResponse::InstallSnapshot(reply) => {
            (reply.term, Message::SnapshotResponse(reply.response))
        }
        PeerServiceResponse::TimeoutNow(())
        | PeerServiceResponse::Forward(_)
        | PeerServiceResponse::ForwardRest(_)
        | PeerServiceResponse::OfferSnapshot(_)
        | PeerServiceResponse::WriteSnapshot(_) => return,
    };
    arrives(victim, beside, term, body);
}

fn id(index: u64, term: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn meta(index: u64) -> SnapshotMeta {
    let membership = membership(&[1, 2, 3], &[]);
    SnapshotMeta { last: id(index, 4), membership, membership_index: Index(1) }
}

fn append_entries(prev: LogId, payloads: &[Payload], commit_index: u64) -> PeerServiceRequest {
    let entries: Vec<Entry> = (prev.index.0 + 1..)
        .zip(payloads)
        .map(|(index, payload)| Entry { id: id(index, 5), payload: payload.clone() })
        .collect();
    let entries = entries::encode(&entries);
    let request = AppendEntries { term: Term(5), prev, commit_index, read_seq: 3, entries };
    PeerServiceRequest::AppendEntries { request }
}

/// Requests of each kind, alone and as a conversation.
pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let command = Payload::Command(Bytes::from_static(b"\x01command of a client"));
    let change = Payload::Membership(Box::new(membership(&[1, 2, 3, 4], &[5])));
    let ballot = Ballot { term: Term(5), request: VoteRequest { last: id(1, 1), transfer: false } };
    let (bytes, remaining_ms) = (Bytes::from_static(b"PUT a b"), 500);
    let batch = vec![
        Forward::Submit {
            session: 1,
            sequence: 2,
            acked_below: 1,
            command: bytes.clone(),
            remaining_ms,
        },
        Forward::OpenSession { remaining_ms, ttl_ms: 9000 },
        Forward::Query { query: bytes.clone(), remaining_ms },
        Forward::Operate { operation: Operation::Snapshot { node: 0 }, remaining_ms },
        Forward::Leave,
        Forward::SnapshotTurn(TurnRequest::Wanted),
        Forward::ChangeSession { session: 1, change: SessionChange::Renew, remaining_ms },
    ];
    let offer = SnapshotOffer { term: Term(5), id: 7, meta: meta(9), bytes: 1000 };
    let piece = SnapshotPiece { term: Term(5), id: 7, offset: 0, bytes };
    let install = InstallSnapshot { term: Term(5), meta: meta(9) };
    let requests = [
        append_entries(id(1, 1), &[Payload::Noop, command.clone(), change.clone()], 2),
        append_entries(id(4, 5), &[command], 4),
        append_entries(id(2, 5), &[change], 1),
        PeerServiceRequest::PreVote { request: ballot },
        PeerServiceRequest::RequestVote { request: ballot },
        PeerServiceRequest::TimeoutNow { term: Term(5) },
        PeerServiceRequest::Forward { batch },
        PeerServiceRequest::ForwardRest { ticket: 4 },
        PeerServiceRequest::OfferSnapshot { offer },
        PeerServiceRequest::WriteSnapshot { piece },
        PeerServiceRequest::InstallSnapshot { request: install },
    ];
    conversations(&requests, request_frame)
}

/// Answers of each kind, alone and as a conversation.
pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    let append = |outcome| {
        let response = AppendResponse { outcome, read_seq: 1 };
        PeerServiceResponse::AppendEntries(AppendReply { term: Term(1), response })
    };
    let vote = VoteResponse { asked_term: Term(1), granted: true };
    let ballot = BallotReply { term: Term(1), response: vote };
    let response = SnapshotResponse { installed: Some(id(2, 1)) };
    let refused = AppendOutcome::Rejected {
        refused_prev: Index(1),
        conflict_term: Term(0),
        conflict_index: Index(0),
        last_index: Index(0),
    };
    let answers = [
        append(AppendOutcome::Accepted { match_index: Index(3) }),
        append(AppendOutcome::Accepted { match_index: Index(2) }),
        append(refused),
        PeerServiceResponse::PreVote(ballot),
        PeerServiceResponse::RequestVote(ballot),
        PeerServiceResponse::TimeoutNow(()),
        PeerServiceResponse::InstallSnapshot(InstallReply { term: Term(1), response }),
        PeerServiceResponse::OfferSnapshot(Ok(77)),
    ];
    conversations(&answers, answer_frame)
}

/// Each message alone, then all of them to a follower, a candidate and a leader, with something else in between.
fn conversations<T>(messages: &[T], frame: fn(u64, &T) -> Vec<u8>) -> Vec<Vec<u8>> {
    let role = |role: u8, frames: &[Vec<u8>]| [&[role][..], &framed(frames)].concat();
    let alone = messages.iter().map(|message| role(0, &[frame(0, message)]));
    let all = (0..3_u8).map(|number| {
        let ids = (0..).map(|place: u64| 1 + (place << 4) + (3 << 2));
        let frames: Vec<_> = ids.zip(messages).map(|(id, message)| frame(id, message)).collect();
        role(number, &frames)
    });
    alone.chain(all).collect()
}
