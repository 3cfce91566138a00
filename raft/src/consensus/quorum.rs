//! Majorities: pure arithmetic over a [`Membership`]. Nothing else in this crate counts votes or replicas.
//!
//! While a change is under way a decision needs a majority of the incoming *and* of the outgoing voters (paper §6).
//! The sizes come from the replicated configuration only, never from who happens to be reachable.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{Membership, NodeId};

/// The highest value that a quorum has reached: the committed index when asked for match indexes, the confirmed round
/// when asked for acknowledged rounds. `None` when nobody votes.
pub(super) fn reached<T: Ord>(
    membership: &Membership,
    value_of: impl Fn(NodeId) -> T,
) -> Option<T> {
    let incoming = reached_by_majority(&membership.voters, &value_of)?;
    match reached_by_majority(&membership.outgoing, &value_of) {
        Some(outgoing) => Some(incoming.min(outgoing)),
        None => Some(incoming),
    }
}

/// Whether those for whom `holds` is true make a quorum.
pub(super) fn is_quorum(membership: &Membership, holds: impl Fn(NodeId) -> bool) -> bool {
    reached(membership, holds).unwrap_or(false)
}

fn reached_by_majority<T: Ord>(
    voters: &BTreeSet<NodeId>,
    value_of: &impl Fn(NodeId) -> T,
) -> Option<T> {
    let mut values: Vec<T> = voters.iter().map(|&id| value_of(id)).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    // With n values in descending order, the one at n/2 is reached by n/2 + 1 voters: the smallest majority.
    values.into_iter().nth(voters.len() / 2)
}

/// Where an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A quorum granted.
    Won,
    /// No quorum can be reached any more.
    Lost,
    /// Answers are missing.
    Open,
}

/// The answers to one (pre-)election. The first answer of each voter stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    votes: BTreeMap<NodeId, bool>,
}

impl Tally {
    pub(super) fn record(&mut self, voter: NodeId, granted: bool) {
        self.votes.entry(voter).or_insert(granted);
    }

    pub(super) fn has_refused(&self, voter: NodeId) -> bool {
        self.votes.get(&voter) == Some(&false)
    }

    pub(super) fn verdict(&self, membership: &Membership) -> Verdict {
        if is_quorum(membership, |id| self.votes.get(&id) == Some(&true)) {
            Verdict::Won
        } else if is_quorum(membership, |id| !self.has_refused(id)) {
            Verdict::Open
        } else {
            Verdict::Lost
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    fn joint(
        voters: impl IntoIterator<Item = u64>,
        outgoing: impl IntoIterator<Item = u64>,
    ) -> Membership {
        Membership { voters: ids(voters), outgoing: ids(outgoing), ..Membership::default() }
    }

    #[test]
    fn a_majority_is_more_than_half_for_every_size() {
        let expected = [1, 2, 2, 3, 3, 4, 4, 5, 5];
        for (size, majority) in (1..=9).zip(expected) {
            let membership = joint(1..=size, []);
            for present in 0..=size {
                let enough = is_quorum(&membership, |id| id.0 <= present);
                assert_eq!(enough, present >= majority, "{present} of {size}");
            }
        }
    }

    #[test]
    fn two_quorums_of_one_configuration_always_share_a_voter() {
        for size in 1..=7_u64 {
            let membership = joint(1..=size, []);
            for mask in 0..1_u64 << size {
                let inside = |id: NodeId| mask & (1 << (id.0 - 1)) != 0;
                let both =
                    is_quorum(&membership, inside) && is_quorum(&membership, |id| !inside(id));
                assert!(!both, "disjoint quorums of {size}: {mask:b}");
            }
        }
    }

    /// For every change from some of five nodes to others of them.
    #[test]
    fn a_joint_quorum_shares_a_voter_with_each_quorum_of_either_side() {
        const NODES: u64 = 5;
        let of = |set: u64| (1..=NODES).filter(move |id| set & (1 << (id - 1)) != 0);
        for old in 1..1_u64 << NODES {
            for new in 1..1_u64 << NODES {
                let both = joint(of(new), of(old));
                let (old, new) = (joint(of(old), []), joint(of(new), []));
                for mask in 0..1_u64 << NODES {
                    let inside = |id: NodeId| mask & (1 << (id.0 - 1)) != 0;
                    if is_quorum(&both, inside) {
                        assert!(!is_quorum(&old, |id| !inside(id)), "{both:?}: {mask:b}");
                        assert!(!is_quorum(&new, |id| !inside(id)), "{both:?}: {mask:b}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_learner_does_not_count() {
        let membership = Membership { learners: ids(4..=9), ..joint(1..=3, []) };
        assert!(!is_quorum(&membership, |id| id.0 >= 3), "one voter and six learners");
        assert!(is_quorum(&membership, |id| id.0 <= 2), "two voters of three");
    }

    #[test]
    fn reached_is_the_median_from_above() {
        let table: [(&[u64], u64); 8] = [
            (&[7], 7),
            (&[7, 3], 3),
            (&[7, 3, 5], 5),
            (&[7, 0, 0], 0),
            (&[1, 2, 3, 4], 2),
            (&[5, 4, 3, 2, 1], 3),
            (&[9, 9, 9, 0, 0], 9),
            (&[9, 9, 0, 0, 0], 0),
        ];
        for (values, expected) in table {
            let membership = joint(0..values.len() as u64, []);
            let value_of = |id: NodeId| values[usize::try_from(id.0).unwrap()];
            assert_eq!(reached(&membership, value_of), Some(expected), "{values:?}");
        }
    }

    #[test]
    fn reached_by_both_sides_while_joint() {
        let membership = joint([1, 2, 3], [3, 4, 5]);
        let table: [([u64; 5], u64); 4] = [
            ([9, 9, 9, 0, 0], 0), // all incoming, one outgoing
            ([0, 0, 9, 9, 9], 0), // all outgoing, one incoming
            ([9, 0, 9, 5, 0], 5), // both, at different heights
            ([4, 0, 9, 5, 0], 4),
        ];
        for (values, expected) in table {
            let value_of = |id: NodeId| values[usize::try_from(id.0 - 1).unwrap()];
            assert_eq!(reached(&membership, value_of), Some(expected), "{values:?}");
        }
    }

    #[test]
    fn nobody_decides_without_voters() {
        assert_eq!(reached(&Membership::default(), |_| 1), None);
        assert!(!is_quorum(&Membership::default(), |_| true));
        assert_eq!(Tally::default().verdict(&Membership::default()), Verdict::Lost);
    }

    type Votes = &'static [(u64, bool)];

    #[test]
    fn an_election_is_won_lost_or_open() {
        let three = joint(1..=3, []);
        let four = joint(1..=4, []);
        let changing = joint([1, 2, 3], [3, 4, 5]);
        let table: [(&Membership, Votes, Verdict); 9] = [
            (&three, &[(1, true)], Verdict::Open),
            (&three, &[(1, true), (2, true)], Verdict::Won),
            (&three, &[(1, true), (2, false)], Verdict::Open),
            (&three, &[(1, true), (2, false), (3, false)], Verdict::Lost),
            (&four, &[(1, true), (2, true)], Verdict::Open),
            (&four, &[(1, true), (2, false), (3, false)], Verdict::Lost),
            (&changing, &[(1, true), (2, true), (3, true)], Verdict::Open),
            (&changing, &[(1, true), (3, true), (4, true)], Verdict::Won),
            (&changing, &[(1, true), (2, true), (4, false), (5, false)], Verdict::Lost),
        ];
        for (membership, votes, expected) in table {
            let mut tally = Tally::default();
            for &(id, granted) in votes {
                tally.record(NodeId(id), granted);
            }
            assert_eq!(tally.verdict(membership), expected, "{votes:?}");
        }
    }

    /// Each voter grants, refuses or is silent.
    #[test]
    fn every_way_to_vote_has_its_verdict() {
        for size in 1..=7_u64 {
            let membership = joint(1..=size, []);
            for way in 0..3_u64.pow(u32::try_from(size).unwrap()) {
                let mut tally = Tally::default();
                let (mut granted, mut refused) = (0, 0);
                for id in 1..=size {
                    match way / 3_u64.pow(u32::try_from(id - 1).unwrap()) % 3 {
                        0 => {
                            tally.record(NodeId(id), true);
                            granted += 1;
                        }
                        1 => {
                            tally.record(NodeId(id), false);
                            refused += 1;
                        }
                        _ => {}
                    }
                }
                let expected = if 2 * granted > size {
                    Verdict::Won
                } else if 2 * (size - refused) > size {
                    Verdict::Open
                } else {
                    Verdict::Lost
                };
                let counted = format!("{granted} for, {refused} against, of {size}");
                assert_eq!(tally.verdict(&membership), expected, "{counted}");
            }
        }
    }

    #[test]
    fn a_vote_counts_once_and_a_stranger_not_at_all() {
        let mut tally = Tally::default();
        tally.record(NodeId(2), false);
        tally.record(NodeId(2), true);
        for stranger in 7..20 {
            tally.record(NodeId(stranger), true);
        }
        assert_eq!(tally.verdict(&joint(1..=3, [])), Verdict::Open);
        assert!(tally.has_refused(NodeId(2)));
    }
}
