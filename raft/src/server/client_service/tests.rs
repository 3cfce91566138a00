//! What becomes of requests that are passed on when the leader changes. Found with a leader that was frozen: its connections
//! stay, and whoever had passed something on waited for it as long as the caller did.

use std::sync::Arc;

use super::*;
use crate::forward::ForwardItem;
use crate::identity::DataDir;
use crate::leaving::Leaving;
use crate::node::Node;
use crate::peers::Route;
use crate::pipeline::digest_commits::CommitsStatus;
use crate::roster_link::Sight;
use crate::transfer::Receiver;
use tokio::sync::mpsc;

const OLD: NodeId = NodeId(7);
const NEW: NodeId = NodeId(8);
const AMPLE: Duration = Duration::from_mins(1);

/// A node that follows, the links to two others, and who leads.
struct Follower {
    server: ClientServer,
    leader: watch::Sender<Option<NodeId>>,
    old: mpsc::Receiver<ForwardItem>,
    new: mpsc::Receiver<ForwardItem>,
    frozen: Option<ForwardItem>,
    _dir: tempfile::TempDir,
}

impl Follower {
    fn new(election_timeout: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let node = Arc::new(Node::new(
            data_dir,
            "test".to_owned(),
            "127.0.0.1:1".to_owned(),
            String::new(),
        ));
        let (leader, leader_seen) = watch::channel(Some(OLD));
        let (inbox, events) = mpsc::channel(8);
        tokio::spawn(refuse_all(events, leader_seen.clone()));
        let (to_old, old) = mpsc::channel(8);
        let (to_new, new) = mpsc::channel(8);
        let route = |forwards| Route { address: "host:1".to_owned(), forwards };
        let routes = [(OLD, route(to_old)), (NEW, route(to_new))].into();
        let status =
            CommitsStatus { applied: crate::consensus::Index(0), machine: Arc::from("none") };
        let server = ClientServer::new(Shared {
            snapshot_orders: mpsc::channel(1).0,
            receiver: Receiver::idle(dir.path(), &node),
            node,
            inbox,
            routes: watch::channel(Arc::new(routes)).1,
            commits: watch::channel(status).1,
            sight: watch::channel(Sight::default()).1,
            leader: leader_seen,
            leaving: Arc::<Leaving>::default(),
            election_timeout,
            tick: Duration::from_millis(10),
            request_timeout: AMPLE,
            fsync: true,
            metrics: Arc::default(),
        });
        Self { server, leader, old, new, frozen: None, _dir: dir }
    }

    /// Submits a command, which is passed on to the old leader; then the new one comes up.
    async fn submit_and_depose(
        &mut self,
        session: u64,
    ) -> tokio::task::JoinHandle<Result<Submitted, SubmitError>> {
        let request =
            Submit { session, sequence: 1, acked_below: 1, command: Bytes::new(), forward: true };
        let server = self.server.clone();
        let due = Instant::now() + AMPLE;
        let outcome = tokio::spawn(async move { server.submit_until(due, request).await });
        let frozen = self.old.recv().await.unwrap();
        assert!(!frozen.is_abandoned());
        // The old leader keeps it, and never answers.
        self.frozen = Some(frozen);
        self.leader.send_replace(None);
        self.leader.send_replace(Some(NEW));
        outcome
    }
}

/// A first stage that never leads.
async fn refuse_all(
    mut events: mpsc::Receiver<EntriesEvent>,
    leader: watch::Receiver<Option<NodeId>>,
) {
    while let Some(event) = events.recv().await {
        let leader = *leader.borrow();
        if let EntriesEvent::Submit(submission) = event {
            drop(submission.reply.send(Err(SubmitRefused::NotLeader { leader })));
        } else if let EntriesEvent::Query { reply, .. } = event {
            drop(reply.send(Err(QueryRefused::NotLeader { leader })));
        } else {
            panic!("{event:?}");
        }
    }
}

#[tokio::test]
async fn command_of_a_session_goes_to_the_next_leader_as_well() {
    let mut follower = Follower::new(AMPLE);
    let outcome = follower.submit_and_depose(5).await;
    follower.new.recv().await.unwrap().answer_for_tests(Ok((9, Outcome::AlreadyApplied)));
    assert_eq!(outcome.await.unwrap().unwrap().index, 9);
}

#[tokio::test]
async fn command_without_a_session_is_unknown_at_once() {
    let mut follower = Follower::new(AMPLE);
    let outcome = follower.submit_and_depose(0).await.await.unwrap();
    assert!(matches!(outcome, Err(SubmitError::Unknown { .. })), "{outcome:?}");
    assert!(follower.new.try_recv().is_err(), "it is not sent twice");
}

#[tokio::test]
async fn refusal_of_the_next_leader_does_not_settle_what_the_former_one_was_sent() {
    for refusal in [SubmitError::Busy, SubmitError::SessionExpired { session: 5 }] {
        let mut follower = Follower::new(Duration::ZERO);
        let outcome = follower.submit_and_depose(5).await;
        follower.new.recv().await.unwrap().answer_for_tests(Err(refusal.clone()));
        let outcome = outcome.await.unwrap();
        assert!(matches!(outcome, Err(SubmitError::Unknown { .. })), "{refusal}: {outcome:?}");
    }
}

#[tokio::test]
async fn command_that_a_former_leader_refuses_waits_for_the_next_one() {
    let mut follower = Follower::new(AMPLE);
    let request =
        Submit { session: 0, sequence: 0, acked_below: 0, command: Bytes::new(), forward: true };
    let (server, due) = (follower.server.clone(), Instant::now() + AMPLE);
    let outcome = tokio::spawn(async move { server.submit_until(due, request).await });
    let refused = Err(SubmitError::NotLeader { hint: None });
    follower.old.recv().await.unwrap().answer_for_tests(refused);
    follower.leader.send_replace(Some(NEW));
    follower.new.recv().await.unwrap().answer_for_tests(Ok((3, Outcome::AlreadyApplied)));
    assert_eq!(outcome.await.unwrap().unwrap().index, 3);
}

#[tokio::test]
async fn reads_are_asked_anew_at_the_next_leader() {
    let mut follower = Follower::new(AMPLE);
    let (server, due) = (follower.server.clone(), Instant::now() + AMPLE);
    let request = Query { query: Bytes::new(), forward: true };
    let asked = tokio::spawn(async move { server.query_until(due, request).await });
    let frozen = follower.old.recv().await.unwrap();
    follower.leader.send_replace(Some(NEW));
    follower.new.recv().await.unwrap();
    assert!(frozen.is_abandoned(), "nobody waits for the old one");
    asked.abort();
}
