//! Whose turn it is to take a snapshot: one node of the cluster at a time, and the leader last.
//!
//! Taking one costs its node CPU and disk. While one of three is slow the other two still make a quorum, so the leader, which
//! knows who asks, lets them take turns. A turn is a lease that its holder renews; a fresh leader, which does not know who had
//! one, grants none for as long as one may last.

use std::collections::BTreeMap;

use crate::consensus::{NodeId, Term};
use crate::rpc::peer::TurnRequest;

/// The leader's list. Nothing of it is durable: two at a time are slow, not wrong.
#[derive(Debug, Default)]
pub(super) struct Turns {
    term: Term,
    /// Nobody but a holder who says so is given a turn before.
    closed_until: u64,
    holder: Option<Lease>,
    /// Others that want a turn, and until when their wish counts.
    waiting: BTreeMap<NodeId, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    node: NodeId,
    until: u64,
}

impl Turns {
    /// Answers a node, at this tick, in the name of the leader `leader` of `term`: whether it is its turn.
    pub(super) fn ask(
        &mut self,
        (leader, term): (NodeId, Term),
        (node, request): (NodeId, TurnRequest),
        now: u64,
        lease_ticks: u64,
    ) -> bool {
        if self.term != term {
            *self = Self { term, closed_until: now + lease_ticks, ..Self::default() };
        }
        self.waiting.retain(|_, until| *until > now);
        self.holder = self.holder.filter(|lease| lease.until > now);
        let until = now + lease_ticks;
        let is_held = self.holder.is_some_and(|lease| lease.node != node);
        let granted = match request {
            TurnRequest::Over => {
                self.holder = self.holder.filter(|lease| lease.node != node);
                false
            }
            TurnRequest::Held => !is_held,
            TurnRequest::Wanted => {
                let others_first =
                    node == leader && self.waiting.keys().any(|other| *other != node);
                !is_held && now >= self.closed_until && !others_first
            }
        };
        match request {
            TurnRequest::Wanted if !granted => drop(self.waiting.insert(node, until)),
            TurnRequest::Wanted | TurnRequest::Held | TurnRequest::Over => {
                self.waiting.remove(&node);
            }
        }
        if granted {
            self.holder = Some(Lease { node, until });
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TurnRequest::{Held, Over, Wanted};

    const LEASE: u64 = 10;
    const LEADER: NodeId = NodeId(1);

    /// Turns of a leader that has led for longer than a turn lasts.
    fn settled() -> Turns {
        let mut turns = Turns::default();
        assert!(!ask(&mut turns, 9, Over, 0));
        turns
    }

    fn ask(turns: &mut Turns, node: u64, request: TurnRequest, now: u64) -> bool {
        turns.ask((LEADER, Term(1)), (NodeId(node), request), now, LEASE)
    }

    #[test]
    fn one_at_a_time_until_it_is_over() {
        let mut turns = settled();
        assert!(ask(&mut turns, 2, Wanted, 20));
        assert!(!ask(&mut turns, 3, Wanted, 21));
        assert!(!ask(&mut turns, 3, Over, 22), "that ends nobody else's turn");
        assert!(!ask(&mut turns, 3, Wanted, 23));
        assert!(!ask(&mut turns, 2, Over, 24));
        assert!(ask(&mut turns, 3, Wanted, 25));
    }

    #[test]
    fn a_turn_lasts_for_as_long_as_it_is_renewed() {
        let mut turns = settled();
        assert!(ask(&mut turns, 2, Wanted, 20));
        assert!(ask(&mut turns, 2, Held, 29));
        assert!(!ask(&mut turns, 3, Wanted, 38));
        assert!(ask(&mut turns, 3, Wanted, 39));
        assert!(!ask(&mut turns, 2, Held, 40), "too late");
    }

    #[test]
    fn the_leader_comes_last_and_not_never() {
        let mut turns = settled();
        assert!(ask(&mut turns, 2, Wanted, 20));
        assert!(!ask(&mut turns, 3, Wanted, 21));
        assert!(!ask(&mut turns, 2, Over, 22));
        assert!(!ask(&mut turns, 1, Wanted, 23), "node 3 waits");
        assert!(ask(&mut turns, 1, Wanted, 31), "node 3 did not ask again");
    }

    #[test]
    fn a_fresh_leader_grants_nothing_but_goes_on_with_what_is_under_way() {
        let mut turns = settled();
        let asked = |turns: &mut Turns, node, request, now| {
            turns.ask((NodeId(3), Term(2)), (NodeId(node), request), now, LEASE)
        };
        assert!(!asked(&mut turns, 3, Wanted, 50));
        assert!(asked(&mut turns, 2, Held, 55), "it began under the leader before");
        assert!(!asked(&mut turns, 3, Wanted, 60), "node 2 holds it");
        assert!(!asked(&mut turns, 2, Over, 61));
        assert!(asked(&mut turns, 3, Wanted, 62));
    }
}
