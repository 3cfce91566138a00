//! Asking the leader, which may be this very node, for a turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Keeper;
use crate::forward::ForwardItem;
use crate::pipeline::digest_entries::EntriesEvent;
use crate::rpc::peer::TurnRequest;

/// Longest wait for the leader's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Keeper {
    /// Whether it is this node's turn; it is not when no leader says so.
    pub(super) async fn ask_for_turn(&self, request: TurnRequest) -> bool {
        let leader = *self.leader.borrow();
        match leader {
            Some(leader) if leader == self.node.id => self.ask_here(request).await,
            Some(leader) => {
                let routes = Arc::clone(&self.routes.borrow());
                let (item, answer) =
                    ForwardItem::snapshot_turn(request, Instant::now() + ANSWER_TIMEOUT);
                let sent =
                    routes.get(&leader).is_some_and(|route| route.forwards.try_send(item).is_ok());
                sent && matches!(timeout(ANSWER_TIMEOUT, answer).await, Ok(Ok(Ok(true))))
            }
            None => false,
        }
    }

    async fn ask_here(&self, request: TurnRequest) -> bool {
        let (reply, answer) = oneshot::channel();
        let event = EntriesEvent::SnapshotTurn { node: self.node.id, request, reply };
        self.inbox.send(event).await.is_ok() && matches!(answer.await, Ok(Ok(true)))
    }
}
