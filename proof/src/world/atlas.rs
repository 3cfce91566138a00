//! The fault atlas: which disks may be damaged, so that the promise still holds.
//!
//! Promised: nothing acknowledged is lost while a majority of the voters' disks is sound, and damage on a minority never hurts. So at most
//! one disk is unsound at a time, with at least three voters, and it counts until the node that lived on it is out of the
//! configuration: by then everybody who is left has decided without it. A disk that loses what it said was durable (a lying
//! sync) may come back without what its node promised, where nothing can tell; what such a node finds is compared with what it promised,
//! and if it is less, its disk counts as lost. After a flipped bit, or a write that landed elsewhere in its file, nothing of the kind is
//! forgiven: the node must refuse its disk, or find all that it promised.

use raft::consensus::{Membership, NodeId};

/// What is damaged.
#[derive(Debug, Default)]
pub struct Atlas {
    /// The machine whose disk is unsound, and the node that lives there.
    unsound: Option<(usize, NodeId)>,
    /// Whether that disk may silently have lost what it said was durable.
    may_forget: bool,
}

impl Atlas {
    /// Whether this node's disk may be damaged now, under this configuration.
    pub fn permits(&self, node: NodeId, membership: &Membership) -> bool {
        let enough = |voters: usize| voters >= 3;
        self.unsound.is_none()
            && membership.outgoing.is_empty()
            && enough(membership.voters.len())
            && membership.contains(node)
    }

    /// This machine's disk is about to be damaged.
    pub fn mark(&mut self, slot: usize, node: NodeId, may_forget: bool) {
        self.unsound = Some((slot, node));
        self.may_forget = may_forget;
    }

    /// Whether this node's disk is the unsound one.
    pub fn is_unsound(&self, node: NodeId) -> bool {
        self.unsound.is_some_and(|(_, unsound)| unsound == node)
    }

    /// Whether this node's disk may have forgotten what it said was durable.
    pub fn may_forget(&self, node: NodeId) -> bool {
        self.may_forget && self.is_unsound(node)
    }

    /// The machine whose disk is unsound.
    pub fn unsound(&self) -> Option<(usize, NodeId)> {
        self.unsound
    }

    /// A configuration is committed: without the node whose disk was damaged, and which lives nowhere any more, all is well again.
    pub fn settle(&mut self, committed: &Membership, lives: impl Fn(NodeId) -> bool) {
        if self.unsound.is_some_and(|(_, node)| !committed.contains(node) && !lives(node)) {
            self.unsound = None;
        }
    }
}
