//! Operators' wishes: carried out here or passed on to the node that they belong to.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::client_service::{ClientServer, remaining_ms};
use crate::consensus::NodeId;
use crate::forward::{ForwardItem, LeaveResult, OperateResult, TurnResult};
use crate::pipeline::digest_entries::EntriesEvent;
use crate::pipeline::handover::{HandoverOutcome, HandoverRefused};
use crate::rpc::client::LeaderHint;
use crate::rpc::operation::{Operate, Operated, Operation, OperationError};
use crate::rpc::peer::{Forward, TurnRequest};

/// No wish is waited for longer than this.
const LONGEST_OPERATION: Duration = Duration::from_mins(10);
/// A handover is over one way or the other within this many of the longest election timeouts.
const HANDOVER_TIMEOUTS: u32 = 3;

impl ClientServer {
    pub(super) async fn operate_until(&self, due: Instant, request: Operate) -> OperateResult {
        let due = due.min(Instant::now() + LONGEST_OPERATION);
        let Operate { operation, forward } = request;
        let is_ours = |node: u64| node == 0 || node == self.shared.node.id.0;
        match operation {
            Operation::Transfer { node } => self.transfer(due, node, forward).await,
            Operation::Campaign { node } if is_ours(node) => self.campaign(due).await,
            Operation::Leave { node } if is_ours(node) => self.leave(due).await,
            Operation::Snapshot { node } if is_ours(node) => self.take_snapshot(due).await,
            Operation::Campaign { node }
            | Operation::Leave { node }
            | Operation::Snapshot { node } => {
                if !forward || !self.shared.routes.borrow().contains_key(&NodeId(node)) {
                    return Err(OperationError::UnknownNode { node });
                }
                self.ask(NodeId(node), due, operation).await
            }
        }
    }

    /// The leader's word to a node that wants to leave.
    pub(super) async fn may_leave(&self, node: NodeId) -> LeaveResult {
        let (reply, answer) = oneshot::channel();
        self.send(EntriesEvent::Leave { node, reply }).await?;
        let answer = answer.await.map_err(|_gone| stopping())?;
        answer.map_err(|leader| OperationError::NotLeader { hint: self.hint(leader) })
    }

    async fn transfer(&self, due: Instant, node: u64, forward: bool) -> OperateResult {
        let target = Some(NodeId(node)).filter(|target| target.0 != 0);
        let moved = self.hand_over(due, target).await?;
        let leader = match moved {
            Err(HandoverRefused::NotLeader { leader }) => leader,
            moved => return self.explain(&moved),
        };
        let operation = Operation::Transfer { node };
        match leader.filter(|_| forward) {
            Some(leader) => self.ask(leader, due, operation).await,
            None => Err(OperationError::NotLeader { hint: self.hint(leader) }),
        }
    }

    /// Asks the leader to hand over to this node; where none answers, stands for election.
    async fn campaign(&self, due: Instant) -> OperateResult {
        let ours = self.shared.node.id;
        let leader = *self.shared.leader.borrow();
        let wanted = match leader {
            Some(leader) if leader != ours => {
                let half = Instant::now() + due.saturating_duration_since(Instant::now()) / 2;
                let operation = Operation::Transfer { node: ours.0 };
                self.ask(leader, half, operation).await
            }
            Some(_) | None => Err(OperationError::NotLeader { hint: None }),
        };
        match wanted {
            Err(OperationError::NotLeader { .. } | OperationError::Unknown { .. }) => {}
            other => return other,
        }
        let (reply, outcome) = oneshot::channel();
        let patience_ticks = self.handover_ticks(due);
        self.send(EntriesEvent::Campaign { patience_ticks, reply }).await?;
        self.explain(&outcome.await.map_err(|_gone| stopping())?)
    }

    async fn hand_over(
        &self,
        due: Instant,
        target: Option<NodeId>,
    ) -> Result<HandoverOutcome, OperationError> {
        let (reply, outcome) = oneshot::channel();
        let patience_ticks = self.handover_ticks(due);
        self.send(EntriesEvent::HandOver { target, patience_ticks, reply }).await?;
        outcome.await.map_err(|_gone| stopping())
    }

    fn handover_ticks(&self, due: Instant) -> u64 {
        let limit = Instant::now() + self.shared.election_timeout * HANDOVER_TIMEOUTS;
        self.patience_ticks(due.min(limit))
    }

    async fn leave(&self, due: Instant) -> OperateResult {
        let node = self.shared.node.id.0;
        self.shared.leaving.begin();
        match timeout_at(due.into(), self.shared.leaving.outcome()).await {
            Ok(outcome) => outcome.map(|()| Operated::Left { node }),
            Err(_elapsed) => Err(unknown("it is still trying")),
        }
    }

    async fn take_snapshot(&self, due: Instant) -> OperateResult {
        let (order, taken) = oneshot::channel();
        self.shared.snapshot_orders.try_send(order).map_err(|_full| OperationError::Busy)?;
        match timeout_at(due.into(), taken).await {
            Ok(Ok(Ok(taken))) => Ok(Operated::Snapshot {
                node: self.shared.node.id.0,
                index: taken.meta.last.index.0,
                bytes: taken.bytes,
            }),
            Ok(Ok(Err(reason))) => Err(OperationError::NoSnapshot { reason }),
            Ok(Err(_gone)) => Err(stopping()),
            Err(_elapsed) => Err(unknown("it is still waiting for its turn, or being taken")),
        }
    }

    /// The leader's word to a node that wants to take a snapshot.
    pub(super) async fn snapshot_turn(&self, node: NodeId, request: TurnRequest) -> TurnResult {
        let (reply, answer) = oneshot::channel();
        self.send(EntriesEvent::SnapshotTurn { node, request, reply }).await?;
        let answer = answer.await.map_err(|_gone| stopping())?;
        answer.map_err(|leader| OperationError::NotLeader { hint: self.hint(leader) })
    }

    /// Passes a wish on.
    async fn ask(&self, node: NodeId, due: Instant, operation: Operation) -> OperateResult {
        let request = Forward::Operate { operation, remaining_ms: remaining_ms(due) };
        let (item, answer) = ForwardItem::operate(request, due);
        if !self.pass_on(Some(node), item) {
            return Err(OperationError::NotLeader { hint: self.hint(Some(node)) });
        }
        match timeout_at(due.into(), answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_gone)) => Err(unknown("the link to that node ended")),
            Err(_elapsed) => Err(unknown("no answer in time")),
        }
    }

    async fn send(&self, event: EntriesEvent) -> Result<(), OperationError> {
        self.shared.inbox.send(event).await.map_err(|_closed| stopping())
    }

    /// What came of a handover, in the contract's words.
    fn explain(&self, moved: &HandoverOutcome) -> OperateResult {
        let hint = |leader: NodeId| {
            let unknown = LeaderHint { node: leader.0, address: String::new() };
            self.hint(Some(leader)).unwrap_or(unknown)
        };
        Err(match *moved {
            Ok(leader) => return Ok(Operated::Leads(hint(leader))),
            Err(HandoverRefused::NotLeader { leader }) => {
                OperationError::NotLeader { hint: self.hint(leader) }
            }
            Err(HandoverRefused::Busy) => OperationError::Busy,
            Err(HandoverRefused::Unknown(node)) => OperationError::UnknownNode { node: node.0 },
            Err(HandoverRefused::Learner(node)) => OperationError::Learner { node: node.0 },
            Err(HandoverRefused::AlreadyLeads(node)) => {
                OperationError::AlreadyLeads { node: node.0 }
            }
            Err(HandoverRefused::NoSuccessor) => OperationError::NoSuccessor,
            Err(HandoverRefused::Abandoned { target }) => {
                OperationError::Abandoned { node: target.0 }
            }
            Err(HandoverRefused::Elsewhere { leader }) => {
                OperationError::Elsewhere { leader: hint(leader) }
            }
            Err(HandoverRefused::Open) => unknown("nobody is known to lead yet"),
        })
    }
}

fn unknown(reason: &str) -> OperationError {
    OperationError::Unknown { reason: reason.to_owned() }
}

fn stopping() -> OperationError {
    unknown("this node is stopping")
}
