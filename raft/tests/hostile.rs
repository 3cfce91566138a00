//! Others' bytes never harm: a replica that is fed with arbitrary messages, in whatever state it is, neither panics nor breaks
//! its own invariants (they are checked after every step of a debug build), nor forgets what it has committed.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use raft::consensus::{
    AppendOutcome, AppendRequest, AppendResponse, Entry, Envelope, Index, Input, LogId, Membership,
    MembershipChange, Message, NodeId, NodeInfo, Payload, Proposal, ProposalId, ReadId,
    SnapshotMeta, SnapshotResponse, Term, Token, VoteRequest, VoteResponse,
};
use support::victim::{ME, Victim};

/// What happens to the replica.
#[derive(Clone, Debug)]
enum Act {
    Step(Input),
    /// A member lies in the replica's own term.
    Lie(NodeId, Message),
    /// Its peers answer what it has sent last as they should.
    Friends,
    Sync(usize),
    Crash(usize),
    TakeSnapshot(u64),
    SnapshotArrives,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..8_u64, 3 => 8..40_u64, 1 => Just(1 << 62), 1 => any::<u64>()]
}

fn term() -> impl Strategy<Value = Term> {
    number().prop_map(Term)
}

fn index() -> impl Strategy<Value = Index> {
    number().prop_map(Index)
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![20 => 1..6_u64, 1 => any::<u64>()].prop_map(NodeId)
}

fn log_id() -> impl Strategy<Value = LogId> {
    (term(), index()).prop_map(|(term, index)| LogId { term, index })
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let ids = || btree_set(node(), 0..4);
    (ids(), ids(), ids(), any::<bool>()).prop_map(|(voters, outgoing, learners, sound)| {
        let mut membership = Membership { voters, outgoing, learners, ..Membership::default() };
        if sound {
            let voters = membership.voters.clone();
            membership.learners.retain(|id| !voters.contains(id));
        }
        let named: BTreeSet<NodeId> =
            if sound { membership.members() } else { membership.voters.clone() };
        membership.nodes = named.into_iter().map(|id| (id, NodeInfo::default())).collect();
        membership
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        2 => Just(Payload::Noop),
        6 => any::<u8>().prop_map(|byte| Payload::Command(Bytes::from(vec![byte]))),
        2 => any_membership().prop_map(|membership| Payload::Membership(Box::new(membership))),
    ]
}

/// Entries that follow `prev`, mostly; sometimes any.
fn append() -> impl Strategy<Value = Message> {
    let entries = vec((0..2_u64, payload()), 0..5);
    (log_id(), entries, index(), number(), 0..10_u8).prop_map(
        |(prev, entries, commit_index, read_seq, disorder)| {
            let mut last = prev;
            let entries = entries.into_iter().map(|(newer, payload)| {
                let gap = u64::from(disorder == 0);
                let index = Index(last.index.0.saturating_add(1 + gap));
                last = LogId { term: Term(last.term.0.saturating_add(newer)), index };
                Entry { id: last, payload }
            });
            Message::Append(AppendRequest {
                prev,
                entries: entries.collect(),
                commit_index,
                read_seq,
            })
        },
    )
}

fn outcome() -> impl Strategy<Value = AppendOutcome> {
    prop_oneof![
        index().prop_map(|match_index| AppendOutcome::Accepted { match_index }),
        (index(), term(), index(), index()).prop_map(
            |(refused_prev, conflict_term, conflict_index, last_index)| {
                AppendOutcome::Rejected { refused_prev, conflict_term, conflict_index, last_index }
            }
        ),
    ]
}

fn snapshot() -> impl Strategy<Value = SnapshotMeta> {
    (log_id(), any_membership(), index()).prop_map(|(last, membership, membership_index)| {
        SnapshotMeta { last, membership, membership_index }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let request =
        || (log_id(), any::<bool>()).prop_map(|(last, transfer)| VoteRequest { last, transfer });
    let answer = || {
        (term(), any::<bool>())
            .prop_map(|(asked_term, granted)| VoteResponse { asked_term, granted })
    };
    let append_response =
        (outcome(), number()).prop_map(|(outcome, read_seq)| AppendResponse { outcome, read_seq });
    let installed =
        proptest::option::of(log_id()).prop_map(|installed| SnapshotResponse { installed });
    prop_oneof![
        1 => request().prop_map(Message::PreVote),
        1 => answer().prop_map(Message::PreVoteResponse),
        1 => request().prop_map(Message::Vote),
        1 => answer().prop_map(Message::VoteResponse),
        6 => append(),
        3 => append_response.prop_map(Message::AppendResponse),
        1 => snapshot().prop_map(Message::InstallSnapshot),
        1 => installed.prop_map(Message::SnapshotResponse),
        1 => Just(Message::TimeoutNow),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let to = prop_oneof![30 => Just(ME), 1 => node()];
    (node(), to, term(), message()).prop_map(|(from, to, term, body)| Envelope {
        from,
        to,
        term,
        token: Token(3),
        body,
    })
}

fn input() -> impl Strategy<Value = Input> {
    let proposal = |serial| Proposal { id: ProposalId(serial), command: Bytes::from_static(b"x") };
    let entry = (log_id(), payload()).prop_map(|(id, payload)| Entry { id, payload });
    let change = (any_membership(), index()).prop_map(|(target, based_on)| MembershipChange {
        id: ProposalId(0),
        based_on,
        target,
    });
    prop_oneof![
        8 => Just(Input::Tick),
        20 => envelope().prop_map(Input::Message),
        2 => vec(any::<u64>().prop_map(proposal), 0..4).prop_map(Input::Propose),
        1 => any::<u64>().prop_map(|read| Input::Read(ReadId(read))),
        1 => change.prop_map(Input::ChangeMembership),
        1 => any_membership().prop_map(Input::Bootstrap),
        1 => vec(entry, 0..3).prop_map(Input::Fetched),
        1 => node().prop_map(Input::LinkLost),
        1 => node().prop_map(Input::PeerUnreachable),
        1 => node().prop_map(Input::SnapshotFailed),
        1 => node().prop_map(Input::Transfer),
        2 => Just(Input::Campaign),
        1 => index().prop_map(Input::Applied),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => input().prop_map(Act::Step),
        4 => (2..4_u64, message()).prop_map(|(from, message)| Act::Lie(NodeId(from), message)),
        10 => Just(Act::Friends),
        6 => (1..4_usize).prop_map(Act::Sync),
        1 => (0..3_usize).prop_map(Act::Crash),
        1 => (0..8_u64).prop_map(Act::TakeSnapshot),
        1 => Just(Act::SnapshotArrives),
    ]
}

fn carry_out(victim: &mut Victim, act: Act) {
    match act {
        Act::Step(input) => victim.step(input),
        Act::Lie(from, body) => victim.is_told_by(from, body),
        Act::Friends => victim.friends(),
        Act::Sync(batches) => victim.sync(batches),
        Act::Crash(surviving) => victim.crash(surviving),
        Act::TakeSnapshot(compact_to) => victim.take_snapshot(Index(compact_to)),
        Act::SnapshotArrives => victim.receive_snapshot(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_messages_never_panic_nor_undo_a_commit(acts in vec(act(), 1..120)) {
        let mut victim = Victim::new();
        for act in acts {
            carry_out(&mut victim, act);
        }
    }
}
