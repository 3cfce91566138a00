//! Others' bytes are checked here, once, before anything acts on them. Past this point a message is well-formed; whether
//! it is *true* is the business of the roles.

use super::message::{AppendOutcome, AppendRequest, Envelope, Message};
use super::types::{Entry, Index, LogId, NodeId, Payload, SnapshotMeta, Term};

/// Terms and indexes beyond this are no result of a real history; adding one to them never overflows.
const MAX_NUMBER: u64 = 1 << 62;

/// Why a message was not let in.
pub(super) type Reason = &'static str;

/// Checks everything that can be said about a message without knowing the replica's state, but for its id.
///
/// # Errors
/// Says what is impossible about it.
pub(super) fn check(envelope: &Envelope, receiver: NodeId) -> Result<(), Reason> {
    if envelope.to != receiver {
        return Err("addressed to another node");
    }
    if envelope.from == receiver || envelope.from == NodeId(0) {
        return Err("a sender that cannot be");
    }
    if envelope.term.0 > MAX_NUMBER {
        return Err("a term beyond any history");
    }
    match &envelope.body {
        Message::PreVote(request) | Message::Vote(request) => {
            check_id(request.last, envelope.term)?;
        }
        Message::Append(request) => check_append(request, envelope.term)?,
        Message::AppendResponse(response) => check_outcome(response.outcome)?,
        Message::InstallSnapshot(meta) => check_snapshot(meta, envelope.term)?,
        Message::SnapshotResponse(response) => {
            response.installed.map_or(Ok(()), |last| check_id(last, envelope.term))?;
        }
        Message::PreVoteResponse(response) | Message::VoteResponse(response) => {
            if response.asked_term.0 > MAX_NUMBER {
                return Err("a term beyond any history");
            }
        }
        Message::TimeoutNow => {}
    }
    if envelope.term == Term(0) && needs_a_term(&envelope.body) {
        return Err("a claim to a term before any election");
    }
    Ok(())
}

/// A new node asks and answers pre-votes in term zero; everything else stands on an election.
fn needs_a_term(message: &Message) -> bool {
    match message {
        Message::Vote(_)
        | Message::Append(_)
        | Message::InstallSnapshot(_)
        | Message::TimeoutNow => true,
        Message::PreVote(_)
        | Message::PreVoteResponse(_)
        | Message::VoteResponse(_)
        | Message::AppendResponse(_)
        | Message::SnapshotResponse(_) => false,
    }
}

fn check_index(index: Index) -> Result<(), Reason> {
    if index.0 > MAX_NUMBER { Err("an index beyond any history") } else { Ok(()) }
}

fn check_id(id: LogId, sender_term: Term) -> Result<(), Reason> {
    check_index(id.index)?;
    if id.term > sender_term {
        return Err("an entry from a term after the sender's");
    }
    if (id.index == Index(0)) != (id.term == Term(0)) {
        return Err("an entry without term or without index");
    }
    Ok(())
}

fn check_append(request: &AppendRequest, sender_term: Term) -> Result<(), Reason> {
    check_id(request.prev, sender_term)?;
    check_index(request.commit_index)?;
    let mut before = request.prev;
    for entry in &request.entries {
        check_entry(entry, before, sender_term)?;
        before = entry.id;
    }
    Ok(())
}

fn check_entry(entry: &Entry, before: LogId, sender_term: Term) -> Result<(), Reason> {
    check_id(entry.id, sender_term)?;
    if entry.id.index != before.index.next() {
        return Err("entries with a gap");
    }
    if entry.id.term < before.term {
        return Err("entries whose terms fall");
    }
    match &entry.payload {
        Payload::Membership(membership) => membership.check(),
        Payload::Noop | Payload::Command(_) => Ok(()),
    }
}

fn check_outcome(outcome: AppendOutcome) -> Result<(), Reason> {
    match outcome {
        AppendOutcome::Accepted { match_index } => check_index(match_index),
        AppendOutcome::Rejected { refused_prev, conflict_term, conflict_index, last_index } => {
            [refused_prev, conflict_index, last_index].into_iter().try_for_each(check_index)?;
            if conflict_term.0 > MAX_NUMBER {
                return Err("a term beyond any history");
            }
            Ok(())
        }
    }
}

/// Checks a snapshot's description, when it is offered and when it has arrived.
///
/// # Errors
/// Says what is impossible about it.
pub fn check_snapshot(meta: &SnapshotMeta, sender_term: Term) -> Result<(), &'static str> {
    check_id(meta.last, sender_term)?;
    if meta.last.index == Index(0) {
        return Err("a snapshot of nothing");
    }
    if meta.membership_index > meta.last.index {
        return Err("a snapshot with a configuration after its end");
    }
    meta.membership.check()
}

#[cfg(test)]
mod tests {
    use super::super::message::{SnapshotResponse, VoteRequest};
    use super::super::types::Token;
    use super::*;

    fn id(index: u64, term: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    fn envelope(body: Message) -> Envelope {
        Envelope { from: NodeId(2), to: NodeId(1), term: Term(5), token: Token(0), body }
    }

    fn append(prev: LogId, ids: &[LogId]) -> Message {
        let entries = ids.iter().map(|&id| Entry { id, payload: Payload::Noop }).collect();
        Message::Append(AppendRequest { prev, entries, commit_index: Index(0), read_seq: 0 })
    }

    #[test]
    fn impossible_messages_are_named() {
        let voterless = Entry { id: id(4, 5), payload: Payload::Membership(Box::default()) };
        let vote = |last| Message::Vote(VoteRequest { last, transfer: false });
        let table = [
            ("gap", append(id(3, 4), &[id(5, 5)])),
            ("gap", append(id(3, 4), &[id(4, 4), id(4, 4)])),
            ("fall", append(id(3, 4), &[id(4, 3)])),
            ("after the sender's", append(id(3, 4), &[id(4, 6)])),
            ("after the sender's", vote(id(3, 6))),
            ("without term", append(id(3, 0), &[])),
            ("without index", vote(id(0, 3))),
            ("beyond any history", vote(id(u64::MAX, 3))),
            (
                "without voters",
                Message::Append(AppendRequest {
                    prev: id(3, 4),
                    entries: vec![voterless],
                    commit_index: Index(0),
                    read_seq: 0,
                }),
            ),
            (
                "after the sender's",
                Message::SnapshotResponse(SnapshotResponse { installed: Some(id(3, 9)) }),
            ),
        ];
        for (expected, body) in table {
            let reason = check(&envelope(body.clone()), NodeId(1)).unwrap_err();
            assert!(reason.contains(expected), "{reason}: {body:?}");
        }
    }

    #[test]
    fn wrong_addresses_are_named() {
        let good = envelope(append(id(3, 4), &[id(4, 4), id(5, 5)]));
        assert_eq!(check(&good, NodeId(1)), Ok(()));
        assert!(check(&good, NodeId(3)).is_err());
        assert!(check(&Envelope { from: NodeId(1), ..good.clone() }, NodeId(1)).is_err());
        assert!(check(&Envelope { term: Term(0), ..good.clone() }, NodeId(1)).is_err());
        assert!(check(&Envelope { term: Term(u64::MAX), ..good }, NodeId(1)).is_err());
    }
}
