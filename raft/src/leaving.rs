//! How this node leaves its cluster: it asks the leader again and again until a committed configuration does not name it, or
//! until it is clear that it has to stay.
//!
//! Nothing but the log says that a node is out. Until then it votes, replicates and serves; when it is out it says goodbye to
//! gossip, leaves a mark in its directory and ends. Being started again undoes all of that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use member::rpc as contract;
use member::wire::Endpoint;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::consensus::{NodeId, RoleName, Status};
use crate::deadline;
use crate::forward::{ForwardItem, LeaveResult};
use crate::node::Node;
use crate::peers::Routes;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::operation::OperationError;
use crate::rpc::peer::LeaveAnswer;

/// Between two questions to the leader, which forgets a wish that is not repeated for some of these.
pub const ASK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the answer to one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A refusal is believed when it stands for this long: others who leave at the same time may change it.
const REFUSAL_STANDS: Duration = Duration::from_secs(2);
/// Longest time for the goodbye to gossip.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether this node is to leave, and what came of it. Shared by whoever wants it to and the task that carries it out.
#[derive(Debug, Default)]
pub struct Leaving {
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Stays,
    Leaves,
    Left,
    Refused(String),
    /// It gave up, but a change that takes it out may be under way.
    Open(String),
}

impl Leaving {
    /// Wants the node to leave. It tries once more if it had to stay before.
    pub fn begin(&self) {
        self.stage.send_if_modified(|stage| match stage {
            Stage::Stays | Stage::Refused(_) | Stage::Open(_) => {
                *stage = Stage::Leaves;
                true
            }
            Stage::Leaves | Stage::Left => false,
        });
    }

    /// Waits for what came of it.
    ///
    /// # Errors
    /// Why the node stays a member, or why that is not known.
    pub async fn outcome(&self) -> Result<(), OperationError> {
        let mut stage = self.stage.subscribe();
        let is_over =
            |stage: &Stage| matches!(stage, Stage::Left | Stage::Refused(_) | Stage::Open(_));
        let done = stage.wait_for(is_over).await;
        match done.map(|stage| stage.clone()) {
            Ok(Stage::Refused(reason)) => Err(OperationError::MayNotLeave { reason }),
            Ok(Stage::Open(reason)) => Err(OperationError::Unknown { reason }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits until the node is out.
    pub async fn left(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives in self.
        drop(stage.wait_for(|stage| *stage == Stage::Left).await);
    }

    async fn wanted(&self) {
        let mut stage = self.stage.subscribe();
        drop(stage.wait_for(|stage| *stage == Stage::Leaves).await);
    }
}

/// What the task needs.
pub struct Leaver {
    /// The wish, and where its outcome is told.
    pub leaving: Arc<Leaving>,
    /// Who leaves.
    pub node: Arc<Node>,
    /// The first stage.
    pub inbox: mpsc::Sender<EntriesEvent>,
    /// Ways to the peers.
    pub routes: watch::Receiver<Routes>,
    /// The member daemon.
    pub member: Endpoint,
    /// Longest time that it may take.
    pub limit: Duration,
}

impl Leaver {
    /// Runs until the node is out.
    pub async fn run(self) {
        loop {
            self.leaving.wanted().await;
            tracing::info!(limit_ms = self.limit.as_millis(), "leaving the cluster");
            match timeout(self.limit, self.leave()).await {
                Ok(Ok(())) => {
                    self.say_goodbye().await;
                    tracing::info!("left the cluster: no longer in its configuration");
                    self.leaving.stage.send_replace(Stage::Left);
                    return;
                }
                Ok(Err(stage)) => self.stay(stage),
                Err(_elapsed) => {
                    let limit_ms = self.limit.as_millis();
                    self.stay(Stage::Open(format!("not taken out within {limit_ms} ms")));
                }
            }
        }
    }

    fn stay(&self, stage: Stage) {
        tracing::warn!(?stage, "cannot leave the cluster: stays a member of it");
        self.leaving.stage.send_replace(stage);
    }

    /// Returns once this node is out, or with the stage that it ends in.
    async fn leave(&self) -> Result<(), Stage> {
        let mut refusal = Refusal::default();
        let mut turn = 0;
        loop {
            let Some(status) = self.status().await else {
                return Err(Stage::Open("this node is stopping".to_owned()));
            };
            if is_out(&status) {
                return Ok(());
            }
            let answer = self.ask(&status, turn).await;
            turn += 1;
            match &answer {
                Ok(LeaveAnswer::Out { index }) => {
                    tracing::info!(index, "the leader says that this node is out");
                    return Ok(());
                }
                Ok(LeaveAnswer::Pending | LeaveAnswer::Refused { .. }) => {}
                Err(error) => tracing::debug!(%error, "no word on leaving"),
            }
            if let Some(reason) = refusal.after(answer, Instant::now()) {
                return Err(Stage::Refused(reason));
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn status(&self) -> Option<Status> {
        let (reply, status) = oneshot::channel();
        self.inbox.send(EntriesEvent::Status(reply)).await.ok()?;
        status.await.ok()
    }

    /// Asks the leader, which may be this very node. Where none is known the peers take turns: one that is out hears of no
    /// leader any more.
    async fn ask(&self, status: &Status, turn: usize) -> LeaveResult {
        if status.role == RoleName::Leader {
            return self.ask_here().await;
        }
        let routes = Arc::clone(&self.routes.borrow());
        let any = || routes.values().cycle().nth(turn);
        let route = status.leader.and_then(|leader| routes.get(&leader)).or_else(any);
        let (item, answer) = ForwardItem::leave(Instant::now() + ANSWER_TIMEOUT);
        if route.is_none_or(|route| route.forwards.try_send(item).is_err()) {
            return Err(OperationError::NotLeader { hint: None });
        }
        let lost = |reason: &str| OperationError::Unknown { reason: reason.to_owned() };
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(lost("the link ended")),
            Err(_elapsed) => Err(lost("no answer in time")),
        }
    }

    async fn ask_here(&self) -> LeaveResult {
        let (reply, answer) = oneshot::channel();
        let stopping = || OperationError::Unknown { reason: "this node is stopping".to_owned() };
        let event = EntriesEvent::Leave { node: self.node.id, reply };
        self.inbox.send(event).await.map_err(|_closed| stopping())?;
        let answer = answer.await.map_err(|_gone| stopping())?;
        answer.map_err(|_leader: Option<NodeId>| OperationError::NotLeader { hint: None })
    }

    /// What is said to gossip saves the others from suspecting this node. Without a daemon they will learn it by themselves.
    async fn say_goodbye(&self) {
        if let Err(error) = self.node.note_left() {
            tracing::warn!(%error, "cannot leave a mark in the data directory");
        }
        let goodbye = async {
            let client = contract::connect(&self.member, GOODBYE_TIMEOUT).await.ok()?;
            client.leave(deadline(GOODBYE_TIMEOUT)).await.ok()
        };
        if !matches!(timeout(GOODBYE_TIMEOUT, goodbye).await, Ok(Some(Ok(())))) {
            tracing::warn!("the member daemon could not be told to leave");
        }
    }
}

/// Whether this node knows by itself that it is out, or was never in.
fn is_out(status: &Status) -> bool {
    status.membership_committed && !status.membership.contains(status.id)
}

/// What the leader's refusals come to.
#[derive(Debug, Default)]
struct Refusal {
    since: Option<Instant>,
    reason: String,
}

impl Refusal {
    /// Takes an answer in; returns the reason to stay, once it stands. Silence changes nothing: when a whole cluster stops,
    /// its leader may be gone first.
    fn after(&mut self, answer: LeaveResult, now: Instant) -> Option<String> {
        match answer {
            Ok(LeaveAnswer::Refused { reason }) => {
                self.since.get_or_insert(now);
                self.reason = reason;
            }
            Ok(LeaveAnswer::Pending | LeaveAnswer::Out { .. }) => self.since = None,
            Err(_no_word) => {}
        }
        let stands = self.since.is_some_and(|since| now - since >= REFUSAL_STANDS);
        stands.then(|| self.reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stands_unless_it_is_taken_back() {
        let refused = || Ok(LeaveAnswer::Refused { reason: "too few".to_owned() });
        let silent = || Err(OperationError::NotLeader { hint: None });
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let stands = Some("too few".to_owned());
        let mut refusal = Refusal::default();
        for (ms, answer, expected) in [
            (0, refused(), None),
            (1_900, refused(), None),
            (1_950, Ok(LeaveAnswer::Pending), None),
            (2_000, silent(), None),
            (2_100, refused(), None),
            (2_200, silent(), None),
            (4_200, silent(), stands.clone()),
            (4_300, refused(), stands),
        ] {
            assert_eq!(refusal.after(answer, at(ms)), expected, "{ms}");
        }
    }

    #[tokio::test]
    async fn one_that_had_to_stay_may_try_again_and_one_that_left_stays_away() {
        let leaving = Leaving::default();
        leaving.begin();
        leaving.wanted().await;
        leaving.stage.send_replace(Stage::Refused("too few".to_owned()));
        let reason = "too few".to_owned();
        assert_eq!(leaving.outcome().await, Err(OperationError::MayNotLeave { reason }));
        leaving.begin();
        leaving.wanted().await;
        leaving.stage.send_replace(Stage::Open("no word".to_owned()));
        let reason = "no word".to_owned();
        assert_eq!(leaving.outcome().await, Err(OperationError::Unknown { reason }));
        leaving.begin();
        leaving.wanted().await;
        leaving.stage.send_replace(Stage::Left);
        leaving.begin();
        assert_eq!(leaving.outcome().await, Ok(()));
        leaving.left().await;
    }
}
