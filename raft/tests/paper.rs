//! Figure 2 of the extended Raft paper, rule by rule: each test is one of its sentences, named with the section that it
//! refers to. Replica 1 of three is looked at; the tests speak for the other two. Figure 13, on snapshots, is in a file of its own.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "paper/figure_13.rs"]
mod figure_13;
#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use raft::consensus::{
    AppendOutcome, AppendRequest, AppendResponse, Entry, Envelope, HardState, Index, Input, LogId,
    Message, NodeId, Output, Payload, Proposal, ProposalId, RoleName, Term, Token, VoteRequest,
    VoteResponse,
};
use support::node::Node;
use support::{membership, quick_config};

const LONGEST_TIMEOUT_TICKS: u32 = 12;

/// Replica 1, whose log holds the configuration of three at index 1 and then commands of these terms.
fn replica(term: u64, log_terms: &[u64]) -> Node {
    voted(term, None, log_terms)
}

fn voted(term: u64, vote: Option<u64>, log_terms: &[u64]) -> Node {
    let hard_state = HardState { term: Term(term), vote: vote.map(NodeId) };
    Node::restored(quick_config(NodeId(1), 7), hard_state, log(log_terms), Index(0))
}

fn log(terms: &[u64]) -> Vec<Entry> {
    let first =
        Entry { id: id(1, 1), payload: Payload::Membership(Box::new(membership(&[1, 2, 3], &[]))) };
    let commands = terms.iter().zip(2..).map(|(&term, index)| entry(index, term));
    std::iter::once(first).chain(commands).collect()
}

fn id(index: u64, term: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { id: id(index, term), payload: Payload::Command(Bytes::from(format!("{index}@{term}"))) }
}

/// What the replica's log holds, as `(index, term)`.
fn held(node: &Node) -> Vec<(u64, u64)> {
    node.disk
        .read(Index(2), Index(99))
        .iter()
        .map(|entry| (entry.id.index.0, entry.id.term.0))
        .collect()
}

/// Steps, syncs everything and reads what is asked for; returns all that is sent.
fn step(node: &mut Node, input: Input) -> Vec<Envelope> {
    let output = node.step(input);
    let mut sent = output.messages;
    sent.extend(sync(node));
    for fetch in output.fetch {
        let entries = node.disk.read(fetch.from, fetch.to);
        sent.extend(step(node, Input::Fetched(entries)));
    }
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

fn from(sender: u64, term: u64, body: Message) -> Input {
    Input::Message(Envelope {
        from: NodeId(sender),
        to: NodeId(1),
        term: Term(term),
        token: Token(9),
        body,
    })
}

fn vote(sender: u64, term: u64, last: LogId) -> Input {
    from(sender, term, Message::Vote(VoteRequest { last, transfer: false }))
}

fn granted(sender: u64, term: u64) -> Input {
    from(
        sender,
        term,
        Message::VoteResponse(VoteResponse { asked_term: Term(term), granted: true }),
    )
}

fn would_vote(sender: u64, term: u64) -> Input {
    let response = VoteResponse { asked_term: Term(term + 1), granted: true };
    from(sender, term, Message::PreVoteResponse(response))
}

fn append(sender: u64, term: u64, prev: LogId, entries: &[Entry], commit_index: u64) -> Input {
    let entries = entries.to_vec();
    let request = AppendRequest { prev, entries, commit_index: Index(commit_index), read_seq: 0 };
    from(sender, term, Message::Append(request))
}

fn accepted(sender: u64, term: u64, match_index: u64) -> Input {
    let outcome = AppendOutcome::Accepted { match_index: Index(match_index) };
    from(sender, term, Message::AppendResponse(AppendResponse { outcome, read_seq: 0 }))
}

fn propose(serial: u64) -> Input {
    Input::Propose(vec![Proposal {
        id: ProposalId(serial),
        command: Bytes::from_static(b"command"),
    }])
}

/// The only answer to a vote.
fn is_granted(sent: &[Envelope]) -> bool {
    match sent {
        [Envelope { body: Message::VoteResponse(response), .. }] => response.granted,
        other => panic!("not one answer to a vote: {other:?}"),
    }
}

/// The only answer to an append: the match index, or nothing when it was rejected.
fn match_index(sent: &[Envelope]) -> Option<u64> {
    match sent {
        [Envelope { body: Message::AppendResponse(response), .. }] => match response.outcome {
            AppendOutcome::Accepted { match_index } => Some(match_index.0),
            AppendOutcome::Rejected { .. } => None,
        },
        other => panic!("not one answer to an append: {other:?}"),
    }
}

/// Appends in what was sent, as (receiver, index before, number of entries).
fn appends(sent: &[Envelope]) -> Vec<(u64, u64, usize)> {
    sent.iter()
        .filter_map(|envelope| match &envelope.body {
            Message::Append(request) => {
                Some((envelope.to.0, request.prev.index.0, request.entries.len()))
            }
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::Vote(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::InstallSnapshot(_)
            | Message::SnapshotResponse(_)
            | Message::TimeoutNow => None,
        })
        .collect()
}

fn role(node: &Node) -> RoleName {
    node.raft().status().role
}

/// Lets it time out and wins its pre-vote.
fn candidate(term: u64, log_terms: &[u64]) -> (Node, Vec<Envelope>) {
    let mut node = replica(term, log_terms);
    step(&mut node, Input::Campaign);
    let sent = step(&mut node, would_vote(2, term));
    (node, sent)
}

/// Leads `term + 1`; its no-op stands after the given log.
fn leader(term: u64, log_terms: &[u64]) -> (Node, Vec<Envelope>) {
    let (mut node, _) = candidate(term, log_terms);
    let sent = step(&mut node, granted(2, term + 1));
    assert_eq!(role(&node), RoleName::Leader);
    (node, sent)
}

// Persistent state on all servers.

#[test]
fn fig2_term_vote_and_log_survive_a_restart() {
    let mut node = replica(4, &[2, 4]);
    assert!(is_granted(&step(&mut node, vote(2, 5, id(3, 4)))));
    step(&mut node, append(2, 5, id(3, 4), &[entry(4, 5)], 0));
    node.crash(0);
    node.start();
    assert_eq!(node.raft().hard_state(), HardState { term: Term(5), vote: Some(NodeId(2)) });
    assert_eq!(held(&node), [(2, 2), (3, 4), (4, 5)]);
    assert!(!is_granted(&step(&mut node, vote(3, 5, id(9, 5)))));
}

#[test]
fn fig2_state_is_updated_on_disk_before_answering() {
    let mut node = replica(4, &[4]);
    let output: Output = node.step(vote(2, 5, id(2, 4)));
    assert!(output.messages.is_empty(), "a vote waits for the disk");
    assert!(is_granted(&sync(&mut node)));
    let output = node.step(append(2, 5, id(2, 4), &[entry(3, 5)], 0));
    assert!(output.messages.is_empty(), "an acknowledgement waits for the disk");
    assert_eq!(match_index(&sync(&mut node)), Some(3));
}

// RequestVote, receiver.

#[test]
fn s5_1_request_vote_1_an_old_term_is_refused() {
    let mut node = replica(5, &[4]);
    let sent = step(&mut node, vote(2, 4, id(9, 4)));
    assert!(!is_granted(&sent));
    assert_eq!(sent[0].term, Term(5), "the answer tells the candidate our term");
}

#[test]
fn s5_2_request_vote_2_one_vote_per_term_first_come_first_served() {
    let mut node = replica(4, &[4]);
    assert!(is_granted(&step(&mut node, vote(2, 5, id(2, 4)))));
    assert!(is_granted(&step(&mut node, vote(2, 5, id(2, 4)))), "the same candidate may ask again");
    assert!(!is_granted(&step(&mut node, vote(3, 5, id(2, 4)))));
    assert!(is_granted(&step(&mut node, vote(3, 6, id(2, 4)))), "a new term, a new vote");
}

#[test]
fn s5_4_1_request_vote_2_only_who_is_at_least_as_up_to_date_is_granted() {
    let table = [
        (id(4, 3), true),  // equal
        (id(5, 3), true),  // longer
        (id(2, 4), true),  // later term, shorter
        (id(3, 3), false), // same term, shorter
        (id(9, 2), false), // earlier term, longer
    ];
    for (last, expected) in table {
        let mut node = replica(4, &[2, 3, 3]);
        assert_eq!(
            is_granted(&step(&mut node, vote(2, 5, last))),
            expected,
            "candidate's last is {last}"
        );
    }
}

// AppendEntries, receiver.

#[test]
fn s5_1_append_entries_1_an_old_term_is_refused() {
    let mut node = replica(5, &[4]);
    let sent = step(&mut node, append(2, 4, id(2, 4), &[entry(3, 4)], 3));
    assert_eq!(match_index(&sent), None);
    assert_eq!(sent[0].term, Term(5));
    assert_eq!((held(&node), node.raft().commit_index()), (vec![(2, 4)], Index(0)));
}

#[test]
fn s5_3_append_entries_2_a_missing_or_different_previous_entry_is_refused() {
    for prev in [id(4, 4), id(3, 3), id(3, 5)] {
        let mut node = replica(5, &[2, 4]);
        let sent = step(&mut node, append(2, 5, prev, &[entry(prev.index.0 + 1, 5)], 0));
        assert_eq!(match_index(&sent), None, "previous is {prev}");
        assert_eq!(held(&node), [(2, 2), (3, 4)]);
    }
}

#[test]
fn s5_3_append_entries_3_a_conflicting_entry_goes_with_all_that_follow() {
    let mut node = replica(5, &[2, 2, 2, 2]);
    let sent = step(&mut node, append(2, 5, id(2, 2), &[entry(3, 4)], 0));
    assert_eq!(match_index(&sent), Some(3));
    assert_eq!(held(&node), [(2, 2), (3, 4)]);
}

#[test]
fn s5_3_append_entries_3_without_a_conflict_nothing_goes() {
    let mut node = replica(5, &[2, 2, 4, 5]);
    let late = append(2, 5, id(2, 2), &[entry(3, 2)], 0);
    assert_eq!(match_index(&step(&mut node, late)), Some(3), "only what the request proves");
    assert_eq!(held(&node), [(2, 2), (3, 2), (4, 4), (5, 5)]);
}

#[test]
fn s5_3_append_entries_4_only_what_is_new_is_appended() {
    let mut node = replica(5, &[2, 4]);
    let overlapping = [entry(2, 2), entry(3, 4), entry(4, 5)];
    let sent = step(&mut node, append(2, 5, id(1, 1), &overlapping, 0));
    assert_eq!(match_index(&sent), Some(4));
    assert_eq!(held(&node), [(2, 2), (3, 4), (4, 5)]);
    assert_eq!(
        match_index(&step(&mut node, append(2, 5, id(1, 1), &overlapping, 0))),
        Some(4),
        "a repetition"
    );
    assert_eq!(held(&node), [(2, 2), (3, 4), (4, 5)]);
}

#[test]
fn s5_3_append_entries_5_commit_follows_the_leader_up_to_the_last_new_entry() {
    let table = [(0, 0), (2, 2), (3, 3), (9, 3)];
    for (leader_commit, expected) in table {
        // The log goes on after index 3, but the request says nothing about that.
        let mut node = replica(5, &[2, 4, 4, 4]);
        step(&mut node, append(2, 5, id(2, 2), &[entry(3, 4)], leader_commit));
        assert_eq!(node.raft().commit_index(), Index(expected), "the leader's is {leader_commit}");
    }
}

// All servers.

#[test]
fn s5_3_all_servers_what_is_committed_is_handed_on_in_order() {
    let mut node = replica(5, &[2, 4]);
    let output = node.step(append(2, 5, id(3, 4), &[entry(4, 5)], 3));
    assert_eq!(output.ready_index, Some(Index(3)));
    assert_eq!(
        node.step(append(2, 5, id(4, 5), &[], 4)).ready_index,
        None,
        "4 is committed, not on our disk"
    );
    let (synced, _) = node.sync(1).expect("a batch is pending");
    assert_eq!(node.step(synced).ready_index, Some(Index(4)));
}

#[test]
fn s5_1_all_servers_a_higher_term_makes_a_follower_of_every_role() {
    let follower = replica(4, &[4]);
    let mut pre_candidate = replica(4, &[4]);
    step(&mut pre_candidate, Input::Campaign);
    let (candidate, _) = candidate(4, &[4]);
    let (leader, _) = leader(4, &[4]);
    for mut node in [follower, pre_candidate, candidate, leader] {
        step(&mut node, append(3, 9, id(2, 4), &[], 0));
        assert_eq!((role(&node), node.raft().hard_state().term), (RoleName::Follower, Term(9)));
    }
}

#[test]
fn s5_1_all_servers_a_higher_term_in_an_answer_counts_too() {
    let (mut node, _) = leader(4, &[4]);
    step(&mut node, accepted(3, 9, 0));
    assert_eq!((role(&node), node.raft().hard_state().term), (RoleName::Follower, Term(9)));
}

#[test]
fn s6_all_servers_a_higher_term_in_an_answer_of_a_stranger_does_not_count() {
    // A removed node may have grown its term alone, and a leader may still be telling it that it is out.
    let (mut node, _) = leader(4, &[4]);
    let term = node.raft().hard_state().term;
    step(&mut node, accepted(9, 99, 0));
    assert_eq!((role(&node), node.raft().hard_state().term), (RoleName::Leader, term));
}

#[test]
fn s5_1_all_servers_an_answer_of_an_old_term_changes_nothing() {
    // The acknowledgement was for a log that the follower has truncated since.
    let (mut node, _) = leader(4, &[4]);
    step(&mut node, accepted(2, 4, 3));
    assert!(node.raft().status().peers.iter().all(|(_, peer)| peer.match_index == Index(0)));
    assert_eq!(node.raft().commit_index(), Index(0));
}

// Followers.

#[test]
fn s5_2_followers_answer_candidates_and_leaders() {
    let mut node = replica(4, &[4]);
    let sent = step(&mut node, append(2, 4, id(2, 4), &[], 0));
    assert_eq!((sent[0].to, sent[0].token), (NodeId(2), Token(9)));
    let mut node = replica(4, &[4]);
    let sent = step(&mut node, vote(3, 5, id(2, 4)));
    assert_eq!((sent[0].to, sent[0].token), (NodeId(3), Token(9)));
}

#[test]
fn s5_2_followers_stand_for_election_when_no_leader_is_heard() {
    let mut node = replica(4, &[4]);
    for _ in 0..LONGEST_TIMEOUT_TICKS {
        step(&mut node, Input::Tick);
    }
    assert_ne!(role(&node), RoleName::Follower);
    assert_eq!(node.raft().hard_state().term, Term(4), "the pre-vote raises no term (thesis §9.6)");
}

#[test]
fn s5_2_followers_wait_while_a_leader_is_heard_or_a_vote_was_given() {
    let mut hears = replica(4, &[4]);
    for _ in 0..10 * LONGEST_TIMEOUT_TICKS {
        step(&mut hears, append(2, 4, id(2, 4), &[], 0));
        step(&mut hears, Input::Tick);
        assert_eq!(role(&hears), RoleName::Follower);
    }
    let mut votes = replica(4, &[4]);
    for term in 5..50 {
        step(&mut votes, vote(2, term, id(2, 4)));
        step(&mut votes, Input::Tick);
        assert_eq!(role(&votes), RoleName::Follower);
    }
}

// Candidates.

#[test]
fn s5_2_candidates_take_the_next_term_vote_for_themselves_and_ask_all_others() {
    let (node, sent) = candidate(4, &[4]);
    assert_eq!(role(&node), RoleName::Candidate);
    assert_eq!(node.raft().hard_state(), HardState { term: Term(5), vote: Some(NodeId(1)) });
    let asked: Vec<(NodeId, Term, &Message)> =
        sent.iter().map(|sent| (sent.to, sent.term, &sent.body)).collect();
    let request = Message::Vote(VoteRequest { last: id(2, 4), transfer: false });
    assert_eq!(asked, [(NodeId(2), Term(5), &request), (NodeId(3), Term(5), &request)]);
}

#[test]
fn s5_2_candidates_lead_with_the_votes_of_a_majority() {
    let (mut node, _) = candidate(4, &[4]);
    step(&mut node, granted(9, 5));
    assert_eq!(role(&node), RoleName::Candidate, "a stranger's vote does not count");
    step(&mut node, granted(3, 4));
    assert_eq!(role(&node), RoleName::Candidate, "a vote of another term does not count");
    step(&mut node, granted(3, 5));
    assert_eq!(role(&node), RoleName::Leader);
}

#[test]
fn s5_2_candidates_count_their_own_vote_only_when_it_is_durable() {
    let mut node = replica(4, &[4]);
    step(&mut node, Input::Campaign);
    let output = node.step(would_vote(2, 4));
    assert!(output.messages.is_empty() && role(&node) == RoleName::Candidate);
    node.step(granted(2, 5));
    assert_eq!(role(&node), RoleName::Candidate);
    sync(&mut node);
    assert_eq!(role(&node), RoleName::Leader);
}

#[test]
fn s5_2_candidates_follow_the_leader_of_their_term() {
    let (mut node, _) = candidate(4, &[4]);
    let sent = step(&mut node, append(3, 5, id(2, 4), &[entry(3, 5)], 0));
    assert_eq!((role(&node), match_index(&sent)), (RoleName::Follower, Some(3)));
    assert_eq!(
        node.raft().hard_state(),
        HardState { term: Term(5), vote: Some(NodeId(1)) },
        "the vote stays"
    );
}

#[test]
fn s5_2_candidates_begin_another_election_when_the_votes_are_split() {
    let (mut node, _) = candidate(4, &[4]);
    for _ in 0..LONGEST_TIMEOUT_TICKS {
        step(&mut node, Input::Tick);
    }
    assert_eq!(role(&node), RoleName::PreCandidate);
    let sent = step(&mut node, would_vote(3, 5));
    assert_eq!((role(&node), sent[0].term), (RoleName::Candidate, Term(6)));
}

// Leaders.

#[test]
fn s5_2_s8_leaders_announce_themselves_with_a_no_op() {
    let (node, sent) = leader(4, &[4]);
    assert_eq!(appends(&sent), [(2, 2, 1), (3, 2, 1)]);
    assert_eq!(node.disk.entry(Index(3)), Some(Entry { id: id(3, 5), payload: Payload::Noop }));
}

#[test]
fn s5_2_leaders_repeat_heartbeats_while_idle() {
    let (mut node, _) = leader(4, &[4]);
    let mut heartbeats = 0;
    for _ in 0..4 {
        let sent = step(&mut node, Input::Tick);
        heartbeats += appends(&sent).iter().filter(|(_, _, entries)| *entries == 0).count();
    }
    assert_eq!(heartbeats, 2 * 2, "every two ticks, to both");
}

#[test]
fn s5_3_leaders_append_a_command_and_hand_it_on_once_committed() {
    let (mut node, _) = leader(4, &[4]);
    step(&mut node, accepted(2, 5, 3));
    let output = node.step(propose(1));
    assert_eq!(output.accepted, [(ProposalId(1), id(4, 5))]);
    sync(&mut node);
    assert_eq!(node.raft().ready_index(), Index(3), "not before it is committed");
    let output = node.step(accepted(3, 5, 4));
    assert_eq!(output.ready_index, Some(Index(4)));
}

#[test]
fn s5_3_leaders_send_entries_from_next_index_on() {
    let (mut node, _) = leader(4, &[4]);
    step(&mut node, accepted(2, 5, 3));
    step(&mut node, accepted(3, 5, 3));
    let sent = step(&mut node, propose(1));
    assert_eq!(appends(&sent), [(2, 3, 1), (3, 3, 1)]);
}

#[test]
fn s5_3_leaders_advance_next_and_match_index_with_an_acknowledgement() {
    let (mut node, _) = leader(4, &[4]);
    step(&mut node, accepted(2, 5, 3));
    let status = node.raft().status();
    let matched: Vec<(u64, u64)> =
        status.peers.iter().map(|(id, peer)| (id.0, peer.match_index.0)).collect();
    assert_eq!(matched, [(2, 3), (3, 0)]);
}

#[test]
fn s5_3_leaders_go_back_and_try_again_after_a_rejection() {
    let (mut node, _) = leader(6, &[2, 4, 4, 6]);
    let outcome = AppendOutcome::Rejected {
        refused_prev: Index(5),
        conflict_term: Term(2),
        conflict_index: Index(2),
        last_index: Index(4),
    };
    let rejected = Message::AppendResponse(AppendResponse { outcome, read_seq: 0 });
    let sent = step(&mut node, from(3, 7, rejected));
    assert_eq!(appends(&sent), [(3, 2, 0)], "its term 2 is ours at index 2: a probe asks there");
    let sent = step(&mut node, accepted(3, 7, 2));
    assert_eq!(
        appends(&sent),
        [(3, 2, 1), (3, 3, 3)],
        "then everything after it: from disk, from the cache"
    );
}

#[test]
fn s5_3_leaders_commit_what_a_majority_holds() {
    let (mut node, _) = leader(4, &[4]);
    step(&mut node, propose(1));
    assert_eq!(node.raft().commit_index(), Index(0), "alone it commits nothing");
    step(&mut node, accepted(2, 5, 4));
    assert_eq!(node.raft().commit_index(), Index(4));
}

#[test]
fn s5_3_leaders_count_themselves_only_up_to_what_is_durable() {
    let (mut node, _) = leader(4, &[4]);
    node.step(propose(1));
    node.step(accepted(2, 5, 4));
    assert_eq!(node.raft().commit_index(), Index(3), "the command is on one disk only");
    sync(&mut node);
    assert_eq!(node.raft().commit_index(), Index(4));
}

#[test]
fn s5_4_2_leaders_do_not_count_replicas_of_old_terms() {
    // Figure 8 (c): the entry of term 2 reaches a majority while the leader of term 5 has nothing of its own there.
    let (mut node, _) = leader(4, &[2]);
    step(&mut node, accepted(2, 5, 2));
    assert_eq!(
        node.raft().commit_index(),
        Index(0),
        "the old entry is on a majority, and may still be overwritten"
    );
    // Figure 8 (e): with an entry of its own term on a majority, everything before it is committed too.
    step(&mut node, accepted(2, 5, 3));
    assert_eq!(node.raft().commit_index(), Index(3));
}

#[test]
fn s5_4_2_figure_8_an_old_entry_on_a_majority_can_be_overwritten() {
    // (d): we hold the entry of term 2 that was counted on a majority, and the leader of term 3 replaces it.
    let mut node = replica(2, &[2]);
    step(&mut node, append(3, 4, id(1, 1), &[entry(2, 3)], 0));
    assert_eq!(held(&node), [(2, 3)]);
}

#[test]
fn s5_3_leaders_never_overwrite_their_own_log() {
    let (mut node, _) = leader(4, &[4, 4]);
    let before = held(&node);
    let second_leader = append(2, 5, id(1, 1), &[entry(2, 5)], 2);
    let output = node.step(second_leader);
    assert_eq!(
        (output.persist, held(&node)),
        (None, before),
        "there is no second leader in a term"
    );
}
