//! `digest_entries` around a real core of one voter: callers go along with exactly their entries.

use bytes::Bytes;
use raft::command::Kind;
use raft::consensus::{
    AppendOutcome, AppendResponse, Config, Envelope, Index, LogId, Membership, Message, NodeId,
    NodeInfo, Raft, Restored, Term, Token,
};
use raft::pipeline::digest_entries::{
    DigestEntries, EntriesActions, EntriesEvent, FetchFor, MAX_WAITING_CALLERS, Submission,
};
use raft::pipeline::handover::{HandoverOutcome, HandoverRefused};
use raft::pipeline::{Committed, FromCommits, Reply, SubmitOutcome, SubmitRefused, ToCommits};
use raft::roster::{Autopilot, Policy};
use raft::rpc::peer::LeaveAnswer;
use tokio::sync::oneshot;

const NODE: NodeId = NodeId(1);

pub(crate) fn stage(log_cache_bytes: usize) -> DigestEntries {
    let config = Config {
        id: NODE,
        seed: 1,
        heartbeat_ticks: 5,
        election_ticks_min: 30,
        election_ticks_max: 60,
        link_lost_ticks_max: 3,
        max_append_bytes: 1024 * 1024,
        window_messages: 16,
        window_bytes: 4 * 1024 * 1024,
        log_cache_bytes,
        max_uncommitted_bytes: 64 * 1024 * 1024,
    };
    let policy = Policy {
        target_voters: 5,
        max_learners: 20,
        min_voters: 3,
        promote_after_ticks: 10,
        dead_after_ticks: 3_000,
        wish_ticks: 200,
        settle_ticks: 30,
        silent_ticks: 30,
    };
    let raft = Raft::new(config, Restored::default());
    DigestEntries::new(raft, &[], Index(1), Autopilot::new(policy))
}

/// Steps the stage, makes what it wants durable at once, takes what goes to the second stage, and gathers it.
pub(crate) fn settle(stage: &mut DigestEntries, first: Vec<EntriesEvent>) -> EntriesActions {
    let mut all = EntriesActions::default();
    let mut events = first;
    loop {
        let actions = stage.handle(&mut events, 1_000);
        let durable = actions.persist.last().map(|persist| {
            let raft = stage.raft();
            (persist.batch, raft.hard_state(), raft.last())
        });
        all.fetch.extend(actions.fetch);
        let before = all.persist.len();
        all.compact.extend(actions.compact.into_iter().map(|(after, base)| (before + after, base)));
        events.extend(actions.to_commits.iter().filter_map(taken));
        all.to_commits.extend(actions.to_commits);
        if let Some((batch, hard_state, last)) = durable {
            events.push(EntriesEvent::Synced { batch, hard_state, last });
        }
        if events.is_empty() {
            return all;
        }
    }
}

pub(crate) fn leader(log_cache_bytes: usize) -> DigestEntries {
    let mut stage = stage(log_cache_bytes);
    let membership = Membership {
        voters: [NODE].into(),
        nodes: [(NODE, NodeInfo::default())].into(),
        ..Membership::default()
    };
    settle(&mut stage, vec![EntriesEvent::Bootstrap(membership)]);
    for _ in 0..100 {
        settle(&mut stage, vec![EntriesEvent::Tick]);
    }
    assert!(stage.raft().status().leader_ready);
    stage
}

pub(crate) fn submission(body: Bytes) -> (EntriesEvent, oneshot::Receiver<SubmitOutcome>) {
    let (reply, answer) = oneshot::channel();
    let event = EntriesEvent::Submit(Submission {
        kind: Kind::Apply,
        session: 0,
        sequence: 0,
        acked_below: 0,
        body,
        patience_ticks: 50,
        reply,
    });
    (event, answer)
}

pub(crate) fn batch(message: &ToCommits) -> Option<&Vec<Committed>> {
    if let ToCommits::Committed(batch) = message { Some(batch) } else { None }
}

fn taken(message: &ToCommits) -> Option<EntriesEvent> {
    let last = batch(message)?.last()?.entry.id.index;
    Some(EntriesEvent::FromCommits(FromCommits::Taken(last)))
}

fn committed(actions: &EntriesActions) -> Vec<(u64, bool)> {
    let batches = actions.to_commits.iter().filter_map(batch);
    batches.flatten().map(|c| (c.entry.id.index.0, c.waiting.is_some())).collect()
}

#[test]
fn nobody_leads_yet_so_the_caller_is_told() {
    let mut stage = stage(1024);
    let (event, mut answer) = submission(Bytes::new());
    stage.handle(&mut vec![event], 0);
    assert_eq!(answer.try_recv().unwrap(), Err(SubmitRefused::NotLeader { leader: None }));
}

#[test]
fn caller_is_handed_on_with_its_entry_once_that_is_durable() {
    let mut stage = leader(1024 * 1024);
    let last = stage.raft().last().index.0;
    let (event, mut answer) = submission(Bytes::from_static(b"x"));
    let first = stage.handle(&mut vec![event], 1_000);
    assert_eq!(committed(&first), [], "its own sync is not done");
    let persist = first.persist.last().unwrap();
    let synced = EntriesEvent::Synced {
        batch: persist.batch,
        hard_state: stage.raft().hard_state(),
        last: stage.raft().last(),
    };
    let second = settle(&mut stage, vec![synced]);
    assert_eq!(committed(&second), [(last + 1, true)]);
    assert!(answer.try_recv().is_err(), "the second stage answers");
}

#[test]
fn caller_whose_entry_is_never_committed_is_told_that_nothing_is_known() {
    let mut stage = leader(1024 * 1024);
    let (event, mut answer) = submission(Bytes::from_static(b"x"));
    // The disk hangs: nothing is reported durable.
    stage.handle(&mut vec![event], 1_000);
    for _ in 0..55 {
        stage.handle(&mut vec![EntriesEvent::Tick], 1_000);
    }
    assert!(matches!(answer.try_recv().unwrap(), Err(SubmitRefused::Unknown { .. })));
}

#[test]
fn too_many_callers_are_told_to_come_back() {
    let mut stage = leader(1024 * 1024);
    let (mut events, mut answers): (Vec<_>, Vec<_>) =
        (0..=MAX_WAITING_CALLERS).map(|_| submission(Bytes::new())).unzip();
    stage.handle(&mut events, 1_000);
    assert_eq!(answers.last_mut().unwrap().try_recv().unwrap(), Err(SubmitRefused::Busy));
    assert!(answers[MAX_WAITING_CALLERS - 1].try_recv().is_err());
}

#[test]
fn machine_that_comes_back_is_fed_from_the_log_when_memory_has_let_go() {
    let mut stage = leader(4 * 1024);
    for _ in 0..20 {
        let (event, _answer) = submission(Bytes::from(vec![7; 1024]));
        settle(&mut stage, vec![event]);
    }
    let attach = FromCommits::Attach { attachment: 3, applied: LogId::default(), from: Index(1) };
    let actions = settle(&mut stage, vec![EntriesEvent::FromCommits(attach)]);
    assert!(matches!(actions.to_commits[..], [ToCommits::FeedStarted { attachment: 3 }]));
    let (purpose, range, _) = actions.fetch[0];
    assert!(matches!(purpose, FetchFor::Feed(_)));
    assert_eq!(range.from, Index(1));
}

#[test]
fn memory_for_a_peer_that_is_far_behind_is_bounded() {
    let mut stage = stage(4 * 1024);
    let learner = NodeId(2);
    let membership = Membership {
        voters: [NODE].into(),
        learners: [learner].into(),
        nodes: [(NODE, NodeInfo::default()), (learner, NodeInfo::default())].into(),
        ..Membership::default()
    };
    settle(&mut stage, vec![EntriesEvent::Bootstrap(membership)]);
    for _ in 0..100 {
        settle(&mut stage, vec![EntriesEvent::Tick]);
    }
    for _ in 0..20 {
        let (event, _answer) = submission(Bytes::from(vec![7; 1024]));
        settle(&mut stage, vec![event]);
    }
    let outcome = AppendOutcome::Accepted { match_index: Index(0) };
    let body = Message::AppendResponse(AppendResponse { outcome, read_seq: 0 });
    let (term, token) = (stage.raft().hard_state().term, Token::default());
    let empty = Envelope { from: learner, to: NODE, term, token, body };
    let unreachable = EntriesEvent::PeerUnreachable(learner);
    let actions = settle(&mut stage, vec![unreachable, EntriesEvent::PeerSays(empty)]);
    let [(FetchFor::Core, _, max_bytes)] = actions.fetch[..] else {
        panic!("one read of the log: {:?}", actions.fetch)
    };
    assert!(max_bytes <= 8 * 1024 * 1024, "{max_bytes} bytes");
}

#[test]
fn machine_of_another_log_is_refused_by_index_and_by_term() {
    let mut stage = leader(1024 * 1024);
    let last = stage.raft().last();
    let beyond = LogId::new(last.term, last.index.next());
    let other_term = LogId::new(Term(last.term.0 + 1), last.index);
    for (attachment, applied) in [(1, beyond), (2, other_term)] {
        let attach = FromCommits::Attach { attachment, applied, from: Index(1) };
        let actions = settle(&mut stage, vec![EntriesEvent::FromCommits(attach)]);
        let refused = actions.to_commits.iter().any(|message| {
            matches!(message, ToCommits::MachineRefused { attachment: a, reason }
                if *a == attachment && reason.contains("fed from another log"))
        });
        assert!(refused, "{applied}");
    }
}

#[test]
fn stamps_never_fall() {
    let mut stage = leader(1024 * 1024);
    let mut stamps = Vec::new();
    for clock_ms in [5_000, 4_000, 6_000] {
        let (event, _answer) = submission(Bytes::new());
        let actions = stage.handle(&mut vec![event], clock_ms);
        for entry in actions.persist.iter().flat_map(|persist| &persist.append) {
            if let raft::consensus::Payload::Command(command) = &entry.payload {
                stamps.push(raft::command::Command::decode(command).unwrap().time_ms);
            }
        }
    }
    assert_eq!(stamps, [5_000, 5_000, 6_000]);
}

#[test]
fn stopping_node_takes_nothing_new_and_finishes_what_it_has() {
    let mut stage = leader(1024 * 1024);
    let (under_way, _answer) = submission(Bytes::from_static(b"x"));
    let first = stage.handle(&mut vec![under_way], 1_000);
    let (late, mut refused) = submission(Bytes::from_static(b"y"));
    stage.handle(&mut vec![EntriesEvent::Drain, late], 1_000);
    assert_eq!(refused.try_recv().unwrap(), Err(SubmitRefused::NotLeader { leader: None }));
    assert!(!stage.is_drained(), "one still waits");
    let persist = first.persist.last().unwrap();
    let synced = EntriesEvent::Synced {
        batch: persist.batch,
        hard_state: stage.raft().hard_state(),
        last: stage.raft().last(),
    };
    let actions = settle(&mut stage, vec![synced]);
    assert!(!stage.is_drained(), "its caller is with the second stage");
    drop(actions);
    assert!(stage.is_drained());
}

#[test]
fn operator_is_told_why_leadership_does_not_move() {
    let ask = |stage: &mut DigestEntries, event: fn(Reply<HandoverOutcome>) -> EntriesEvent| {
        let (reply, mut answer) = oneshot::channel();
        settle(stage, vec![event(reply)]);
        answer.try_recv().ok()
    };
    let best = |reply| EntriesEvent::HandOver { target: None, patience_ticks: 10, reply };
    let stranger =
        |reply| EntriesEvent::HandOver { target: Some(NodeId(9)), patience_ticks: 10, reply };
    let campaign = |reply| EntriesEvent::Campaign { patience_ticks: 10, reply };
    let mut alone = leader(1024);
    assert_eq!(ask(&mut alone, best), Some(Err(HandoverRefused::NoSuccessor)));
    assert_eq!(ask(&mut alone, stranger), Some(Err(HandoverRefused::Unknown(NodeId(9)))));
    assert_eq!(ask(&mut alone, campaign), Some(Err(HandoverRefused::AlreadyLeads(NODE))));
    let mut outside = stage(1024);
    assert_eq!(ask(&mut outside, best), Some(Err(HandoverRefused::NotLeader { leader: None })));
    assert_eq!(ask(&mut outside, campaign), Some(Err(HandoverRefused::Unknown(NODE))));
}

#[test]
fn the_only_voter_may_not_leave_and_who_does_not_lead_cannot_say() {
    let ask = |stage: &mut DigestEntries| {
        let (reply, mut answer) = oneshot::channel();
        settle(stage, vec![EntriesEvent::Leave { node: NODE, reply }]);
        answer.try_recv().unwrap()
    };
    assert!(matches!(ask(&mut leader(1024)), Ok(LeaveAnswer::Refused { .. })));
    assert_eq!(ask(&mut stage(1024)), Err(None));
}
