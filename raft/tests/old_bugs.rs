//! Bugs that other systems had, each as a test that a replica with it fails. `proof/mutants.toml` says who had them, and puts
//! them into a copy of the sources to see that these tests notice. Replica 1 of three is looked at.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use raft::consensus::{
    AppendOutcome, AppendRequest, AppendResponse, Entry, Envelope, HardState, Index, Input, LogId,
    MembershipChange, Message, NodeId, Payload, Proposal, ProposalId, ReadId, RoleName, Term,
    Token, VoteRequest, VoteResponse,
};
use support::node::Node;
use support::{membership, quick_config};

/// Replica 1 in term 4, whose log holds the configuration of three and then so many commands of term 4.
fn follower(commands: u64) -> Node {
    let configuration = Payload::Membership(Box::new(membership(&[1, 2, 3], &[])));
    let first = Entry { id: id(1, 1), payload: configuration };
    let log = std::iter::once(first).chain((2..2 + commands).map(|index| entry(index, 4)));
    let hard_state = HardState { term: Term(4), vote: None };
    Node::restored(quick_config(NodeId(1), 7), hard_state, log.collect(), Index(0))
}

/// The same as a candidate of term 5, with what it sent before its disk answered.
fn candidate(commands: u64) -> (Node, Vec<Envelope>) {
    let mut node = follower(commands);
    step(&mut node, Input::Campaign);
    let response = VoteResponse { asked_term: Term(5), granted: true };
    let sent = node.step(from(2, 4, Message::PreVoteResponse(response))).messages;
    (node, sent)
}

/// The same as the leader of term 5: its no-op stands at index 3, and nobody has acknowledged it.
fn leader() -> Node {
    let (mut node, _) = candidate(1);
    sync(&mut node);
    let response = VoteResponse { asked_term: Term(5), granted: true };
    step(&mut node, from(2, 5, Message::VoteResponse(response)));
    assert_eq!(node.raft().status().role, RoleName::Leader);
    node
}

fn id(index: u64, term: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { id: id(index, term), payload: Payload::Command(Bytes::from_static(b"command")) }
}

fn from(sender: u64, term: u64, body: Message) -> Input {
    let (from, to, term) = (NodeId(sender), NodeId(1), Term(term));
    Input::Message(Envelope { from, to, term, token: Token(9), body })
}

fn append(term: u64, prev: LogId, entries: &[Entry], commit_index: u64) -> Input {
    let entries = entries.to_vec();
    let request = AppendRequest { prev, entries, commit_index: Index(commit_index), read_seq: 0 };
    from(2, term, Message::Append(request))
}

fn accepted(match_index: u64, read_seq: u64) -> Input {
    let outcome = AppendOutcome::Accepted { match_index: Index(match_index) };
    from(2, 5, Message::AppendResponse(AppendResponse { outcome, read_seq }))
}

/// Steps and syncs everything; returns all that is sent.
fn step(node: &mut Node, input: Input) -> Vec<Envelope> {
    let mut sent = node.step(input).messages;
    sent.extend(sync(node));
    sent
}

fn sync(node: &mut Node) -> Vec<Envelope> {
    let mut sent = Vec::new();
    while let Some((synced, released)) = node.sync(usize::MAX) {
        sent.extend(released);
        sent.extend(node.step(synced).messages);
    }
    sent
}

fn asks_for_a_vote(sent: &[Envelope]) -> bool {
    sent.iter().any(|envelope| matches!(envelope.body, Message::Vote(_)))
}

fn grants_a_vote(sent: &[Envelope]) -> bool {
    let granted = |envelope: &Envelope| {
        matches!(envelope.body, Message::VoteResponse(VoteResponse { granted: true, .. }))
    };
    sent.iter().any(granted)
}

#[test]
fn silence_does_not_make_a_majority_smaller() {
    let mut node = leader();
    for _ in 0..5 {
        step(&mut node, Input::Tick);
    }
    let command = Proposal { id: ProposalId(1), command: Bytes::from_static(b"command") };
    step(&mut node, Input::Propose(vec![command]));
    assert_eq!(node.raft().status().role, RoleName::Leader, "it waits for an election timeout");
    assert_eq!(node.raft().commit_index(), Index(0), "both others are silent");
}

#[test]
fn a_vote_stays_given_when_a_leader_speaks() {
    let mut node = follower(1);
    let request = |last, transfer| Message::Vote(VoteRequest { last, transfer });
    assert!(grants_a_vote(&step(&mut node, from(2, 5, request(id(2, 4), false)))));
    step(&mut node, append(5, id(2, 4), &[], 0));
    // Without the transfer it would be refused because a leader was heard just now.
    assert!(!grants_a_vote(&step(&mut node, from(3, 5, request(id(9, 5), true)))));
    assert_eq!(node.raft().hard_state().vote, Some(NodeId(2)));
}

#[test]
fn votes_are_asked_for_once_the_own_one_is_on_disk() {
    let (mut node, sent) = candidate(1);
    assert!(!asks_for_a_vote(&sent));
    assert!(asks_for_a_vote(&sync(&mut node)));
}

#[test]
fn a_new_term_is_on_disk_with_its_first_entries() {
    let mut node = follower(1);
    step(&mut node, append(5, id(2, 4), &[entry(3, 5)], 0));
    node.crash(0);
    node.start();
    assert_eq!((node.raft().hard_state().term, node.raft().last()), (Term(5), id(3, 5)));
}

#[test]
fn what_is_committed_but_not_on_disk_is_not_handed_on() {
    let mut node = follower(1);
    let output = node.step(append(5, id(2, 4), &[entry(3, 5)], 3));
    assert_eq!((node.raft().commit_index(), output.ready_index), (Index(3), Some(Index(2))));
    sync(&mut node);
    assert_eq!(node.raft().ready_index(), Index(3));
}

#[test]
fn an_append_that_was_overtaken_cuts_nothing_off() {
    let mut node = follower(3);
    step(&mut node, append(4, id(4, 4), &[], 4));
    assert_eq!(node.raft().commit_index(), Index(4));
    step(&mut node, append(4, id(2, 4), &[entry(3, 4)], 2));
    assert_eq!(node.raft().last(), id(4, 4));
}

#[test]
fn an_acknowledgement_names_what_the_append_proves() {
    let mut node = follower(3);
    let sent = step(&mut node, append(5, id(2, 4), &[entry(3, 4)], 0));
    let outcome = AppendOutcome::Accepted { match_index: Index(3) };
    let body = Message::AppendResponse(AppendResponse { outcome, read_seq: 0 });
    assert_eq!(sent.iter().map(|sent| &sent.body).collect::<Vec<_>>(), [&body]);
}

#[test]
fn a_new_leader_reads_once_an_entry_of_its_term_is_committed() {
    let mut node = leader();
    assert_eq!(node.step(Input::Read(ReadId(1))).reads, []);
    assert_eq!(node.step(accepted(2, 1)).reads, [], "its no-op is not committed");
    assert_eq!(node.step(accepted(3, 0)).reads, [], "its round has just begun");
    assert_eq!(node.step(accepted(3, 1)).reads, [(ReadId(1), Index(3))]);
}

#[test]
fn a_read_waits_for_a_round_that_began_after_it() {
    let mut node = leader();
    step(&mut node, accepted(3, 0));
    assert_eq!(node.step(Input::Read(ReadId(1))).reads, [], "however lately it was heard");
    assert_eq!(node.step(Input::Read(ReadId(2))).reads, []);
    assert_eq!(node.step(accepted(3, 1)).reads, [(ReadId(1), Index(3))]);
    assert_eq!(node.step(accepted(3, 2)).reads, [(ReadId(2), Index(3))]);
}

#[test]
fn a_joint_configuration_is_left_only_once_it_is_committed() {
    let mut node = leader();
    step(&mut node, accepted(3, 0));
    let command = Proposal { id: ProposalId(1), command: Bytes::from_static(b"command") };
    step(&mut node, Input::Propose(vec![command]));
    let target = membership(&[1, 2, 4], &[]);
    let change = MembershipChange { id: ProposalId(2), based_on: Index(1), target };
    step(&mut node, Input::ChangeMembership(change));
    step(&mut node, accepted(4, 0));
    let status = node.raft().status();
    assert_eq!((status.commit_index, status.membership_index), (Index(4), Index(5)));
    assert!(status.membership.is_joint(), "the command is committed, the configuration is not");
}

#[test]
fn a_snapshot_carries_the_configuration_at_its_end() {
    let mut node = leader();
    step(&mut node, accepted(3, 0));
    let target = membership(&[1, 2, 3], &[4]);
    let change = MembershipChange { id: ProposalId(1), based_on: Index(1), target };
    step(&mut node, Input::ChangeMembership(change));
    assert_eq!(node.raft().status().membership_index, Index(4));
    let meta = node.raft().describe(Index(3)).expect("it is committed");
    assert_eq!((meta.membership_index, meta.membership), (Index(1), membership(&[1, 2, 3], &[])));
}

#[test]
fn the_log_is_compacted_only_up_to_what_a_snapshot_holds() {
    let mut node = leader();
    step(&mut node, accepted(3, 0));
    let meta = node.raft().describe(Index(2)).expect("it is committed");
    node.disk.store_snapshot(meta.clone());
    node.apply(Index(3));
    step(&mut node, Input::SnapshotTaken { meta, compact_to: Index(u64::MAX) });
    assert_eq!(node.raft().first_index(), Index(3));
}
