//! Each rule by which a request is followed, against nodes that answer as they are told.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::rpc::client::{LeaderHint, QueryError, SESSION_WINDOW, SessionChange, SubmitError};
use raft::rpc::operation::OperationError;
use raft_client::{Client, Endpoint, Error, MAX_COMMAND_BYTES, Options, Refusal, Stamp};
use tokio::sync::Notify;

use fake::{CLUSTER, Fake, Step};

/// Far longer than any test that is to succeed takes.
const AMPLE: Duration = Duration::from_mins(1);
/// For tests that are to run into it.
const SHORT: Duration = Duration::from_millis(150);

fn options(endpoints: &[&Endpoint]) -> Options {
    let endpoints = endpoints.iter().copied().cloned().collect();
    Options { timeout: AMPLE, patience: AMPLE, discover: false, ..Options::new(endpoints) }
}

fn client(nodes: &[&Fake]) -> Client {
    Client::new(options(&nodes.iter().map(|node| &node.endpoint).collect::<Vec<_>>()))
}

fn client_in_a_hurry(node: &Fake) -> Client {
    Client::new(Options { timeout: SHORT, ..options(&[&node.endpoint]) })
}

fn command() -> Bytes {
    Bytes::from_static(b"INCR k")
}

fn not_leader(hint: Option<&Endpoint>) -> SubmitError {
    let hint = hint.map(|endpoint| LeaderHint { node: 7, address: endpoint.to_string() });
    SubmitError::NotLeader { hint }
}

fn unknown() -> SubmitError {
    SubmitError::Unknown { reason: "the leader was lost".to_owned() }
}

/// An address where nobody listens.
async fn dead() -> Endpoint {
    Fake::start().await.crash().await
}

#[tokio::test]
async fn first_command_opens_a_session_and_later_ones_use_it() {
    let node = Fake::start().await;
    let client = client(&[&node]);
    for sequence in 1..=3 {
        let receipt = client.submit(command()).await.unwrap();
        assert_eq!(receipt.stamp, Stamp { session: 101, sequence });
        assert_eq!(receipt.result.as_deref(), Some(&b"done"[..]));
    }
    assert_eq!((node.sessions(), node.connections()), (1, 1));
    let acked: Vec<_> = node.submits().iter().map(|submit| submit.acked_below).collect();
    assert_eq!(acked, [1, 2, 3]);
    assert!(node.submits().iter().all(|submit| submit.forward));
}

#[tokio::test]
async fn named_leader_is_followed_under_the_same_name() {
    let leader = Fake::start().await;
    let follower = Fake::start().await.then([Step::Say(not_leader(Some(&leader.endpoint)))]);
    let receipt = client(&[&follower]).submit(command()).await.unwrap();
    let stamp = (receipt.stamp.session, receipt.stamp.sequence);
    assert_eq!((follower.stamps(), leader.stamps()), (vec![stamp], vec![stamp]));
}

#[tokio::test]
async fn leader_that_was_found_is_asked_first_from_then_on() {
    let leader = Fake::start().await;
    let follower = Fake::start().await.then([Step::Say(not_leader(Some(&leader.endpoint)))]);
    let client = client(&[&follower]);
    for _ in 0..3 {
        client.submit(command()).await.unwrap();
    }
    assert_eq!((follower.stamps().len(), leader.stamps().len()), (1, 3));
}

#[tokio::test]
async fn two_nodes_that_name_each_other_end_in_a_pause_not_in_a_loop() {
    let (a, b) = (Fake::start().await, Fake::start().await);
    let (to_b, to_a) = (not_leader(Some(&b.endpoint)), not_leader(Some(&a.endpoint)));
    let a = a.then([Step::Say(to_b.clone()), Step::Say(to_b)]);
    let b = b.then([Step::Say(to_a.clone()), Step::Say(to_a)]);
    client(&[&a]).submit(command()).await.unwrap();
    assert_eq!(a.stamps().len() + b.stamps().len(), 5);
}

#[tokio::test]
async fn election_is_waited_out() {
    let node = Fake::start().await.then((0..10).map(|_| Step::Say(not_leader(None))));
    let receipt = client(&[&node]).submit(command()).await.unwrap();
    let stamp = (receipt.stamp.session, receipt.stamp.sequence);
    assert_eq!(node.stamps(), vec![stamp; 11]);
}

#[tokio::test]
async fn busy_node_is_asked_again_and_others_are_left_alone() {
    let busy =
        Fake::start().await.then([Step::Say(SubmitError::Busy), Step::Say(SubmitError::Busy)]);
    let other = Fake::start().await;
    client(&[&busy, &other]).submit(command()).await.unwrap();
    assert_eq!((busy.stamps().len(), other.stamps().len()), (3, 0));
}

#[tokio::test]
async fn broken_connection_is_replaced_and_the_command_keeps_its_name() {
    let node = Fake::start().await.then([Step::Break, Step::Say(unknown())]);
    let receipt = client(&[&node]).submit(command()).await.unwrap();
    let stamp = (receipt.stamp.session, receipt.stamp.sequence);
    assert_eq!((node.stamps(), node.connections()), (vec![stamp; 3], 2));
}

#[tokio::test]
async fn node_that_does_not_run_is_skipped() {
    let (nobody, node) = (dead().await, Fake::start().await);
    let client = Client::new(options(&[&nobody, &node.endpoint]));
    client.submit(command()).await.unwrap();
    assert_eq!(node.stamps().len(), 1);
}

#[tokio::test]
async fn silent_node_is_joined_by_another() {
    let silent = Fake::start().await.then([Step::Hang]);
    let node = Fake::start().await;
    let options = options(&[&silent.endpoint, &node.endpoint]);
    let client = Client::new(Options { patience: SHORT, ..options });
    client.submit(command()).await.unwrap();
    assert_eq!(silent.stamps(), node.stamps());
    client.submit(command()).await.unwrap();
    assert_eq!(node.stamps().len(), 2, "and is left alone afterwards");
}

#[tokio::test]
async fn command_that_waits_keeps_its_place_while_others_are_asked() {
    let released = Arc::<Notify>::default();
    let waiting = Fake::start().await.then([Step::Wait(Arc::clone(&released))]);
    let refusing = Fake::start().await.then([Step::Say(SubmitError::Busy), Step::Hang]);
    let options = options(&[&waiting.endpoint, &refusing.endpoint]);
    let client = Client::new(Options { patience: SHORT, ..options });
    let submit = tokio::spawn(async move { client.submit(command()).await });
    while refusing.stamps().len() < 2 {
        tokio::task::yield_now().await;
    }
    released.notify_one();
    assert_eq!(submit.await.unwrap().unwrap().index, 1);
    assert_eq!(waiting.stamps()[0], refusing.stamps()[0]);
}

#[tokio::test]
async fn time_runs_out_and_what_is_known_is_told() {
    let committed = || Step::Say(SubmitError::CommittedNotApplied { index: 8 });
    let many = 1000;
    let refusing = |first: Step, rest: SubmitError| async move {
        let steps = (0..many).map(move |_| Step::Say(rest.clone()));
        Fake::start().await.then([first]).then(steps)
    };
    let nobody = not_leader(None);

    let node = refusing(Step::Say(nobody.clone()), nobody.clone()).await;
    let error = client_in_a_hurry(&node).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader { waited, .. } if waited >= SHORT), "{error}");

    let node = refusing(Step::Break, nobody.clone()).await;
    let error = client_in_a_hurry(&node).submit(command()).await.unwrap_err();
    let Error::Unknown { stamp, .. } = error else { panic!("{error}") };
    assert_eq!(stamp, Stamp { session: 101, sequence: 1 });

    let node = refusing(committed(), unknown()).await;
    let error = client_in_a_hurry(&node).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::CommittedNotApplied { index: 8, .. }), "{error}");

    let node = refusing(Step::Say(SubmitError::Busy), SubmitError::Busy).await;
    let error = client_in_a_hurry(&node).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::Busy { .. })), "{error}");

    let node = refusing(Step::Hang, nobody).await;
    let error = client_in_a_hurry(&node).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn command_that_could_not_even_be_sent_is_surely_not_applied() {
    let nobody = dead().await;
    let client = Client::new(Options { timeout: SHORT, ..options(&[&nobody]) });
    let error = client.submit(command()).await.unwrap_err();
    assert!(matches!(&error, Error::NoLeader { tried, .. } if tried.0[0].0 == nobody), "{error}");

    let node = Fake::start().await.opening((0..1000).map(|_| unknown()));
    let error = client_in_a_hurry(&node).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader { .. }), "{error}");
    assert_eq!(node.stamps(), []);
}

#[tokio::test]
async fn expired_session_is_replaced_if_the_command_was_never_in_doubt() {
    let expired = SubmitError::SessionExpired { session: 101 };
    let node = Fake::start().await.then([Step::Say(SubmitError::Busy), Step::Say(expired)]);
    let client = client(&[&node]);
    let receipt = client.submit(command()).await.unwrap();
    assert_eq!(receipt.stamp, Stamp { session: 102, sequence: 1 });
    assert_eq!(node.stamps(), [(101, 1), (101, 1), (102, 1)]);
    assert_eq!(client.submit(command()).await.unwrap().stamp, Stamp { session: 102, sequence: 2 });
}

#[tokio::test]
async fn session_that_expired_after_a_doubtful_attempt_leaves_the_command_unknown() {
    let expired = SubmitError::SessionExpired { session: 101 };
    let node = Fake::start().await.then([Step::Say(unknown()), Step::Say(expired)]);
    let error = client(&[&node]).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert_eq!(node.sessions(), 1);
}

#[tokio::test]
async fn many_commands_share_one_connection_and_one_session() {
    let node = Fake::start().await;
    let client = client(&[&node]);
    let submits: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.submit(command()).await })
        })
        .collect();
    for submit in submits {
        submit.await.unwrap().unwrap();
    }
    let mut sequences: Vec<_> = node.stamps().iter().map(|(_, sequence)| *sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
    assert_eq!((node.sessions(), node.connections()), (1, 1));
}

#[tokio::test]
async fn window_of_a_slow_command_is_never_left() {
    let released = Arc::<Notify>::default();
    let node = Fake::start().await.then([Step::Wait(Arc::clone(&released))]);
    let client = client(&[&node]);
    let submit = |client: Client| tokio::spawn(async move { client.submit(command()).await });
    let slow = submit(client.clone());
    while node.stamps().is_empty() {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..2 * SESSION_WINDOW).map(|_| submit(client.clone())).collect();
    while node.stamps().len() < usize::try_from(SESSION_WINDOW).unwrap() {
        tokio::task::yield_now().await;
    }
    released.notify_one();
    slow.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    for submit in node.submits() {
        assert!(submit.acked_below <= submit.sequence);
        assert!(submit.sequence < submit.acked_below + SESSION_WINDOW);
    }
}

#[tokio::test]
async fn foreign_cluster_is_refused_with_both_ids() {
    let foreign = Fake::of_cluster(0xf0).await;
    let pinned = Options { cluster: CLUSTER, ..options(&[&foreign.endpoint]) };
    let error = Client::new(pinned).submit(command()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused(Refusal::ForeignCluster { ours: CLUSTER, theirs: 0xf0, .. })
        ),
        "{error}"
    );
}

/// Its other end may be gone without a word: then nothing is ever answered over it, and no close tells.
#[tokio::test]
async fn a_connection_over_which_an_answer_never_came_is_not_used_again() {
    let node = Fake::start().await.then([Step::Hang]);
    let client = client_in_a_hurry(&node);
    let error = client.submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    while client.submit(command()).await.is_err() {}
    assert!(node.connections() > 1, "another one was opened");
}

#[tokio::test]
async fn cluster_is_pinned_by_the_first_node_and_a_foreign_one_is_left_aside() {
    let (node, foreign) = (Fake::start().await, Fake::of_cluster(0xf0).await);
    let client = client(&[&node, &foreign]);
    client.submit(command()).await.unwrap();
    let node = node.then([Step::Say(not_leader(Some(&foreign.endpoint)))]);
    client.submit(command()).await.unwrap();
    assert_eq!((node.stamps().len(), foreign.stamps().len()), (3, 0));
}

#[tokio::test]
async fn something_else_at_the_address_is_named_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.writable().await.unwrap();
            stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        }
    });
    let error = Client::new(options(&[&endpoint])).submit(command()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::WrongService { .. })), "{error}");
    assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
}

#[tokio::test]
async fn oversized_commands_and_queries_are_not_sent() {
    let node = Fake::start().await;
    let client = client(&[&node]);
    let long = Bytes::from(vec![b'x'; MAX_COMMAND_BYTES + 1]);
    for error in [
        client.submit(long.clone()).await.unwrap_err(),
        client.query(long).await.unwrap_err(),
        client.put("k", vec![b'x'; MAX_COMMAND_BYTES]).await.unwrap_err(),
        client.put("", "v").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Refused(_)), "{error}");
    }
    assert_eq!(node.connections(), 0);
}

#[tokio::test]
async fn reads_are_retried_and_tell_no_answer_from_no_leader() {
    let lost = QueryError::Unavailable { reason: "the leader was lost".to_owned() };
    let nobody = QueryError::NotLeader { hint: None };
    let node = Fake::start().await.reading([nobody.clone(), QueryError::Busy, lost.clone()]);
    let answer = client(&[&node]).query(Bytes::from_static(b"q")).await.unwrap();
    assert_eq!((answer.read_index, &answer.result[..]), (1, &b"q"[..]));

    let node = Fake::start().await.reading((0..1000).map(|_| nobody.clone()));
    let error = client_in_a_hurry(&node).query(command()).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader { .. }), "{error}");

    let node = Fake::start().await.reading((0..1000).map(|_| lost.clone()));
    let error = client_in_a_hurry(&node).query(command()).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

#[tokio::test]
async fn other_nodes_are_learned_and_used_when_the_named_one_is_gone() {
    let other = Fake::start().await;
    let named = Fake::start().await.knowing(&other, false);
    let client = Client::new(Options { discover: true, ..options(&[&named.endpoint]) });
    client.submit(command()).await.unwrap();
    while named.asked_for_members() == 0 {
        tokio::task::yield_now().await;
    }
    // The answer is taken in before one to a later request.
    client.submit(command()).await.unwrap();
    named.crash().await;
    client.submit(command()).await.unwrap();
    assert_eq!(other.stamps(), [(101, 3)]);
}

#[tokio::test]
async fn leader_that_a_node_knows_is_asked_directly() {
    let leader = Fake::start().await;
    let follower = Fake::start().await.knowing(&leader, true);
    let client = Client::new(Options { discover: true, ..options(&[&follower.endpoint]) });
    while leader.stamps().is_empty() {
        client.submit(command()).await.unwrap();
    }
}

#[tokio::test]
async fn command_is_repeated_under_the_name_that_is_given() {
    let node = Fake::start().await;
    let stamp = Stamp { session: 42, sequence: 5000 };
    let receipt = client(&[&node]).repeating(stamp).submit(command()).await.unwrap();
    assert_eq!((receipt.stamp, node.stamps(), node.sessions()), (stamp, vec![(42, 5000)], 0));
    assert_eq!(node.submits()[0].acked_below, 5000 - (SESSION_WINDOW - 1));

    let expired = SubmitError::SessionExpired { session: 42 };
    let node = node.then([Step::Say(expired)]);
    let error = client(&[&node]).repeating(stamp).submit(command()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unknown { stamp: named, .. } if named == stamp),
        "the attempt before may have been applied: {error:?}"
    );
}

#[tokio::test]
async fn nodes_are_told_not_to_forward() {
    let node = Fake::start().await;
    let client = Client::new(Options { forward: false, ..options(&[&node.endpoint]) });
    client.submit(command()).await.unwrap();
    assert!(!node.submits()[0].forward);
}

#[tokio::test]
async fn status_of_all_shows_the_dead_and_finds_the_unnamed() {
    let other = Fake::start().await;
    let named = Fake::start().await.knowing(&other, false);
    let nobody = dead().await;
    let statuses = Client::new(options(&[&named.endpoint, &nobody])).status_of_all().await;
    assert_eq!(statuses.len(), 3);
    for (endpoint, status) in statuses {
        assert_eq!(status.is_err(), endpoint == nobody, "{endpoint}");
    }
}

#[tokio::test]
async fn what_an_operator_wants_is_not_asked_for_twice_when_it_may_have_happened() {
    let unknown = OperationError::Unknown { reason: "the link ended".to_owned() };
    let (doubtful, other) = (Fake::start().await.operating([unknown]), Fake::start().await);
    let outcome = client(&[&doubtful, &other]).transfer(None).await;
    assert!(matches!(outcome, Err(Error::Undecided { .. })), "{outcome:?}");
    assert_eq!((doubtful.asked_to_operate(), other.asked_to_operate()), (1, 0));
}

#[tokio::test]
async fn what_an_operator_wants_is_refused_or_goes_to_whoever_can_do_it() {
    let elsewhere = OperationError::NotLeader { hint: None };
    let (first, second) = (Fake::start().await.operating([elsewhere]), Fake::start().await);
    assert_eq!(client(&[&first, &second]).transfer(None).await.unwrap().node, 9);
    assert_eq!((first.asked_to_operate(), second.asked_to_operate()), (1, 1));

    let learner = OperationError::Learner { node: 4 };
    let refusing = Fake::start().await.operating([learner.clone()]);
    let refused = client(&[&refusing, &second]).campaign(4).await;
    assert_eq!(refused, Err(Error::Refused(Refusal::Operation(learner))));
}

/// A client whose session lives for so short a time that it has to be renewed at once.
fn client_with_short_lease(node: &Fake) -> Client {
    Client::new(Options { session_ttl: Duration::from_millis(60), ..options(&[&node.endpoint]) })
}

async fn changes(node: &Fake, at_least: usize) -> Vec<(u64, SessionChange)> {
    let waiting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while node.changes().len() < at_least {
            looks.tick().await;
        }
    };
    tokio::time::timeout(AMPLE, waiting).await.unwrap();
    node.changes()
}

#[tokio::test]
async fn idle_session_is_renewed_again_and_again_also_after_failures() {
    let failures = [SubmitError::Busy, unknown()];
    let node = Fake::start().await.changing(failures);
    let client = client_with_short_lease(&node);
    let session = client.submit(command()).await.unwrap().stamp.session;
    let renewals = changes(&node, 5).await;
    assert!(renewals.iter().all(|change| *change == (session, SessionChange::Renew)));
    assert_eq!(client.submit(command()).await.unwrap().stamp, Stamp { session, sequence: 2 });
    assert_eq!(node.sessions(), 1);
}

#[tokio::test]
async fn session_of_a_client_that_is_gone_is_not_renewed() {
    let node = Fake::start().await;
    let client = client_with_short_lease(&node);
    client.submit(command()).await.unwrap();
    drop(client);
    let before = node.changes().len();
    // Another one of the same kind shows that there was time for it.
    let other = client_with_short_lease(&node);
    let session = other.submit(command()).await.unwrap().stamp.session;
    let all = changes(&node, before + 4).await;
    let of_the_first = all.iter().skip(before).filter(|(renewed, _)| *renewed != session).count();
    assert!(of_the_first <= 1, "one may have been under way: {all:?}");
}

#[tokio::test]
async fn session_that_expired_while_idle_is_replaced_by_the_next_command() {
    let expired = SubmitError::SessionExpired { session: 101 };
    let node = Fake::start().await.changing([expired.clone()]);
    let client = client_with_short_lease(&node);
    assert_eq!(client.submit(command()).await.unwrap().stamp.session, 101);
    changes(&node, 1).await;
    let _node = node.then([Step::Say(expired)]);
    assert_eq!(client.submit(command()).await.unwrap().stamp.session, 102);
}

#[tokio::test]
async fn closing_ends_the_session_and_a_command_after_it_opens_another() {
    let node = Fake::start().await;
    let client = client(&[&node]);
    client.close().await.unwrap();
    assert_eq!(node.changes(), [], "there is none");
    client.submit(command()).await.unwrap();
    client.clone().close().await.unwrap();
    assert_eq!(node.changes(), [(101, SessionChange::Close)]);
    assert_eq!(client.submit(command()).await.unwrap().stamp.session, 102);
}
