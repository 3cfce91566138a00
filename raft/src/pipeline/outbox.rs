//! Messages that promise something durable wait here until it is.

use std::collections::VecDeque;

use crate::consensus::{BatchNo, Envelope};

/// Messages by the batch that must be durable before they leave. Bounded by the peers' windows: a message is an answer
/// to one of theirs, or one of the few that a candidate sends.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    held: VecDeque<(BatchNo, Envelope)>,
    /// Newest batch given to the log.
    handed: BatchNo,
    /// Newest durable batch.
    durable: BatchNo,
}

impl Outbox {
    /// `batch` was given to the log.
    pub(super) fn handed(&mut self, batch: BatchNo) {
        debug_assert_eq!(batch.0, self.handed.0 + 1, "batches have no gaps");
        self.handed = batch;
    }

    /// Holds messages until everything handed so far is durable. Returns them when it is already.
    #[must_use]
    pub(super) fn hold(&mut self, messages: Vec<Envelope>) -> Vec<Envelope> {
        if self.durable == self.handed {
            return messages;
        }
        let batch = self.handed;
        self.held.extend(messages.into_iter().map(|message| (batch, message)));
        Vec::new()
    }

    /// Everything up to `batch` is durable: these may leave.
    #[must_use]
    pub(super) fn synced(&mut self, batch: BatchNo) -> Vec<Envelope> {
        self.durable = batch;
        let free = self.held.partition_point(|(needed, _)| *needed <= batch);
        self.held.drain(..free).map(|(_, message)| message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Message, NodeId, Term, Token};

    fn message(token: u64) -> Vec<Envelope> {
        let (from, to, term) = (NodeId(1), NodeId(2), Term(1));
        vec![Envelope { from, to, term, token: Token(token), body: Message::TimeoutNow }]
    }

    #[test]
    fn nothing_leaves_before_its_batch_is_durable() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.hold(message(1)), message(1), "nothing is outstanding");
        outbox.handed(BatchNo(1));
        assert_eq!(outbox.hold(message(2)), []);
        outbox.handed(BatchNo(2));
        assert_eq!(outbox.hold(message(3)), []);
        assert_eq!(outbox.synced(BatchNo(1)), message(2));
        assert_eq!(outbox.synced(BatchNo(2)), message(3));
        assert_eq!(outbox.hold(message(4)), message(4));
    }
}
