//! Operators who wait for leadership to move: each is told who leads once that is known, or why nothing moved.

use super::Reply;
use crate::consensus::{NodeId, RoleName, Status, Term};

/// What whoever wanted leadership to move gets: who leads now.
pub type HandoverOutcome = Result<NodeId, HandoverRefused>;

/// Why leadership did not move as wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverRefused {
    /// Nothing was begun: only a leader hands over.
    NotLeader {
        /// Who may lead.
        leader: Option<NodeId>,
    },
    /// Nothing was begun: leadership is being handed to another node, or too many wait for it.
    Busy,
    /// Nothing was begun: the node is not in the configuration.
    Unknown(NodeId),
    /// Nothing was begun: the node is a learner.
    Learner(NodeId),
    /// Nothing was begun: the node leads already.
    AlreadyLeads(NodeId),
    /// Nothing was begun: there is no other voter that could lead.
    NoSuccessor,
    /// The target did not take over in time; this leader goes on.
    Abandoned {
        /// To whom it was to go.
        target: NodeId,
    },
    /// Another node leads now.
    Elsewhere {
        /// Who.
        leader: NodeId,
    },
    /// Nobody is known to lead yet.
    Open,
}

/// Most operators that wait at once.
const MAX_WAITING: usize = 16;

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    waiting: Vec<Handover>,
}

#[derive(Debug)]
struct Handover {
    target: NodeId,
    /// Term in which it began.
    term: Term,
    expires: u64,
    reply: Reply<HandoverOutcome>,
}

impl Handovers {
    /// Waits until `target` leads in a later term than the present one, or until another outcome is clear.
    pub(super) fn wait(
        &mut self,
        target: NodeId,
        term: Term,
        expires: u64,
        reply: Reply<HandoverOutcome>,
    ) {
        if self.is_full() {
            return drop(reply.send(Err(HandoverRefused::Busy)));
        }
        self.waiting.push(Handover { target, term, expires, reply });
    }

    /// Whether one more would be turned away.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tells everybody whose outcome is clear by now.
    pub(super) fn settle(&mut self, status: &Status, now: u64) {
        let (open, clear): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|handover| (outcome(&handover, status, now), handover))
            .partition(|(outcome, _)| outcome.is_none());
        self.waiting.extend(open.into_iter().map(|(_, handover)| handover));
        for (outcome, handover) in clear {
            drop(handover.reply.send(outcome.unwrap_or(Err(HandoverRefused::Open))));
        }
    }
}

/// What is clear by now, if anything.
fn outcome(handover: &Handover, status: &Status, now: u64) -> Option<HandoverOutcome> {
    let target = handover.target;
    match status.leader {
        Some(leader) if status.term > handover.term => Some(if leader == target {
            Ok(leader)
        } else {
            Err(HandoverRefused::Elsewhere { leader })
        }),
        // A campaign of our own that came to nothing: the leader of the same term is heard again.
        Some(leader) if leader != status.id => Some(Err(HandoverRefused::Elsewhere { leader })),
        Some(_) if status.transferring_to != Some(target) => {
            Some(Err(HandoverRefused::Abandoned { target }))
        }
        Some(_) | None if now >= handover.expires => Some(Err(match status.role {
            RoleName::Leader => HandoverRefused::Abandoned { target },
            RoleName::Follower | RoleName::PreCandidate | RoleName::Candidate => {
                HandoverRefused::Open
            }
        })),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::consensus::{Index, LogId, Membership};

    const US: NodeId = NodeId(1);
    const TARGET: NodeId = NodeId(2);
    const OTHER: NodeId = NodeId(3);

    fn status(role: RoleName, term: u64, leader: Option<NodeId>) -> Status {
        Status {
            id: US,
            role,
            term: Term(term),
            leader,
            commit_index: Index(1),
            first_index: Index(1),
            last: LogId::default(),
            snapshot_index: Index(0),
            membership: Membership::default(),
            membership_index: Index(1),
            membership_committed: true,
            leader_ready: role == RoleName::Leader,
            peers: Vec::new(),
            transferring_to: None,
        }
    }

    /// What a caller is told who has waited since term 5 for `target`, until tick 100.
    fn told(target: NodeId, status: &Status, now: u64) -> Option<HandoverOutcome> {
        let (reply, mut answer) = oneshot::channel();
        let mut handovers = Handovers::default();
        handovers.wait(target, Term(5), 100, reply);
        handovers.settle(status, now);
        let told = answer.try_recv().ok();
        assert_eq!(told.is_some(), handovers.is_empty());
        told
    }

    #[test]
    fn whoever_waits_is_told_as_soon_as_the_outcome_is_clear() {
        use RoleName::{Candidate, Follower, Leader, PreCandidate};
        let running = Status { transferring_to: Some(TARGET), ..status(Leader, 5, Some(US)) };
        let elsewhere = |leader| Some(Err(HandoverRefused::Elsewhere { leader }));
        let abandoned = Some(Err(HandoverRefused::Abandoned { target: TARGET }));
        for (what, target, status, now, expected) in [
            ("under way", TARGET, running.clone(), 50, None),
            ("in vain", TARGET, status(Leader, 5, Some(US)), 50, abandoned.clone()),
            ("too late", TARGET, running, 100, abandoned),
            ("nobody yet", TARGET, status(Follower, 6, None), 50, None),
            (
                "nobody in time",
                TARGET,
                status(Follower, 6, None),
                100,
                Some(Err(HandoverRefused::Open)),
            ),
            ("done", TARGET, status(Follower, 6, Some(TARGET)), 50, Some(Ok(TARGET))),
            ("another won", TARGET, status(Follower, 6, Some(OTHER)), 50, elsewhere(OTHER)),
            ("led again", TARGET, status(Leader, 7, Some(US)), 50, elsewhere(US)),
            ("campaigns", US, status(PreCandidate, 5, None), 50, None),
            ("campaigns on", US, status(Candidate, 6, None), 50, None),
            ("campaigned", US, status(Leader, 6, Some(US)), 50, Some(Ok(US))),
            ("was refused", US, status(Follower, 5, Some(OTHER)), 50, elsewhere(OTHER)),
        ] {
            assert_eq!(told(target, &status, now), expected, "{what}");
        }
    }

    #[test]
    fn waiting_is_bounded() {
        let mut handovers = Handovers::default();
        let mut answers = Vec::new();
        for _ in 0..=MAX_WAITING {
            let (reply, answer) = oneshot::channel();
            handovers.wait(TARGET, Term(5), 100, reply);
            answers.push(answer);
        }
        assert_eq!(answers.pop().unwrap().try_recv().unwrap(), Err(HandoverRefused::Busy));
        assert!(answers[0].try_recv().is_err());
    }
}
