//! What is promised is on disk: votes and acknowledged entries when the answer leaves, and what a leader commits on a
//! majority of the disks of the configuration in force. The disks are asked, not the leader's view of them.

use std::collections::BTreeSet;

use raft::consensus::{AppendOutcome, Envelope, HardState, LogId, Message, NodeId, RoleName};

use super::{Nodes, Step};

pub fn check_commit(step: &Step<'_>) {
    let raft = step.node().raft();
    let advanced = raft.commit_index() > step.before.commit_index;
    // A leader that resigns with this step keeps its term; one that follows another does not.
    let as_leader = step.before.role == RoleName::Leader && raft.status().term == step.before.term;
    if !advanced || !as_leader {
        return;
    }
    let id = LogId { term: step.before.term, index: raft.commit_index() };
    assert_eq!(
        raft.term_at(id.index),
        Some(id.term),
        "a leader commits entries of its own term only"
    );
    let membership = in_force_at(step);
    for voters in [&membership.voters, &membership.outgoing] {
        assert!(
            held_by_majority(step.nodes, voters, id),
            "{id} is not on the disks of a majority of {voters:?}"
        );
    }
}

/// The configuration that the decision was made with: committing may have appended the next one.
fn in_force_at(step: &Step<'_>) -> raft::consensus::Membership {
    let appended = step.output.persist.as_ref().map_or(0, |persist| persist.append.len() as u64);
    let last = step.node().raft().last().index.0 - appended;
    step.node().disk.membership_at(raft::consensus::Index(last)).1
}

fn held_by_majority(nodes: &Nodes, voters: &BTreeSet<NodeId>, id: LogId) -> bool {
    let holders =
        voters.iter().filter(|voter| nodes.get(voter).is_some_and(|node| node.disk.holds(id)));
    voters.is_empty() || holders.count() > voters.len() / 2
}

pub fn check_sent(nodes: &Nodes, envelope: &Envelope) {
    let node = &nodes[&envelope.from];
    let on_disk = node.disk.durable_hard_state();
    match &envelope.body {
        Message::Vote(_) => {
            let own = HardState { term: envelope.term, vote: Some(envelope.from) };
            assert!(
                on_disk == own || on_disk.term > envelope.term,
                "{} asks before its own vote is durable",
                envelope.from
            );
        }
        Message::VoteResponse(response) if response.granted => {
            let given = HardState { term: envelope.term, vote: Some(envelope.to) };
            assert!(
                on_disk == given || on_disk.term > envelope.term,
                "{} votes before that is durable",
                envelope.from
            );
        }
        Message::AppendResponse(response) => {
            if let AppendOutcome::Accepted { match_index } = response.outcome {
                assert!(
                    on_disk.term >= envelope.term,
                    "{} acknowledges in a term that is not durable",
                    envelope.from
                );
                let durable =
                    node.disk.durable_last().index >= match_index || on_disk.term > envelope.term;
                assert!(
                    durable,
                    "{} acknowledges {match_index} before it is durable",
                    envelope.from
                );
            }
        }
        Message::SnapshotResponse(response) => {
            if let Some(last) = response.installed {
                assert!(
                    on_disk.term >= envelope.term,
                    "{} answers an install in a term that is not durable",
                    envelope.from
                );
                assert!(node.disk.holds(last), "{} lacks {last} on its disk", envelope.from);
            }
        }
        Message::VoteResponse(_)
        | Message::PreVote(_)
        | Message::PreVoteResponse(_)
        | Message::Append(_)
        | Message::InstallSnapshot(_)
        | Message::TimeoutNow => {}
    }
}
