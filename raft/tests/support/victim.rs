//! A replica that is told anything: by strangers, by liars, and by peers that answer as they should.

use raft::consensus::{
    AppendOutcome, AppendResponse, Envelope, Index, Input, Message, NodeId, SnapshotMeta,
    SnapshotResponse, Token, VoteResponse, check_snapshot,
};

use super::node::Node;
use super::{membership, quick_config};

/// The replica that is told.
pub const ME: NodeId = NodeId(1);

/// The replica, what it has sent last, and the last snapshot that it was offered.
pub struct Victim {
    pub node: Node,
    sent: Vec<Envelope>,
    offered: Option<SnapshotMeta>,
}

impl Victim {
    /// One of three voters, in whose log stands only that.
    pub fn new() -> Self {
        let mut victim =
            Self { node: Node::new(quick_config(ME, 7)), sent: Vec::new(), offered: None };
        victim.step(Input::Bootstrap(membership(&[1, 2, 3], &[])));
        victim
    }

    /// A member lies in the replica's own term.
    pub fn is_told_by(&mut self, from: NodeId, body: Message) {
        let term = self.node.raft().hard_state().term;
        self.step(Input::Message(Envelope { from, to: ME, term, token: Token(0), body }));
    }

    /// The process dies, and begins anew.
    pub fn crash(&mut self, surviving_writes: usize) {
        self.node.crash(surviving_writes);
        self.node.start();
    }

    /// A snapshot of what may be applied is taken, and the log compacted.
    pub fn take_snapshot(&mut self, compact_to: Index) {
        if let Some(meta) = self.node.take_snapshot() {
            self.step(Input::SnapshotTaken { meta, compact_to });
        }
    }

    /// The snapshot that was offered last has arrived.
    pub fn receive_snapshot(&mut self) {
        if let Some(meta) = self.offered.take() {
            self.node.disk.store_snapshot(meta.clone());
            self.step(Input::SnapshotReceived(meta));
        }
    }

    /// Steps it; what it has committed stays.
    pub fn step(&mut self, input: Input) {
        if let Input::Message(Envelope { body: Message::InstallSnapshot(meta), term, .. }) = &input
            && check_snapshot(meta, *term).is_ok()
        {
            self.offered = Some(meta.clone());
        }
        let committed = self.node.raft().commit_index();
        let before = self.node.raft().term_at(committed);
        let output = self.node.step(input);
        if let Some(meta) = self.node.raft().snapshot().cloned() {
            self.node.disk.store_snapshot(meta);
        }
        let raft = self.node.raft();
        assert!(raft.commit_index() >= committed, "the commit index fell");
        let after = raft.term_at(committed);
        assert!(after.is_none() || after == before, "a committed entry changed");
        self.sent.extend(output.messages);
    }

    /// So many of its writes become durable.
    pub fn sync(&mut self, batches: usize) {
        if let Some((synced, released)) = self.node.sync(batches) {
            self.sent.extend(released);
            self.step(synced);
        }
    }

    /// Its peers answer what it has sent last as they should.
    pub fn friends(&mut self) {
        for envelope in std::mem::take(&mut self.sent) {
            let body = match envelope.body {
                Message::PreVote(_) => Message::PreVoteResponse(VoteResponse {
                    asked_term: envelope.term.next(),
                    granted: true,
                }),
                Message::Vote(_) => {
                    Message::VoteResponse(VoteResponse { asked_term: envelope.term, granted: true })
                }
                Message::Append(request) => {
                    let match_index = Index(request.prev.index.0 + request.entries.len() as u64);
                    let outcome = AppendOutcome::Accepted { match_index };
                    Message::AppendResponse(AppendResponse { outcome, read_seq: request.read_seq })
                }
                Message::InstallSnapshot(meta) => {
                    Message::SnapshotResponse(SnapshotResponse { installed: Some(meta.last) })
                }
                Message::PreVoteResponse(_)
                | Message::VoteResponse(_)
                | Message::AppendResponse(_)
                | Message::SnapshotResponse(_)
                | Message::TimeoutNow => continue,
            };
            let (from, to, term) = (envelope.to, envelope.from, envelope.term);
            self.step(Input::Message(Envelope { from, to, term, token: Token(0), body }));
        }
    }
}
