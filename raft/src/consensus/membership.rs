//! Configurations and which of them is in force.
//!
//! A change of voters walks `current → joint → target` (paper §6); everything else (learners, addresses) is one entry.
//! A configuration is in force from the moment its entry is appended, committed or not, and until it is truncated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::types::{Index, Membership, NodeId};

impl Membership {
    /// Whether a joint change is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` counts in decisions, on either side of a joint configuration.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` belongs to the configuration at all.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everyone who receives the log, ascending, each once.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Whether `id` alone decides.
    pub fn is_sole_voter(&self, id: NodeId) -> bool {
        !self.is_joint() && self.voters.len() == 1 && self.voters.contains(&id)
    }

    /// Checks the type's invariants, for configurations that come from elsewhere.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.voters.is_empty() {
            return Err("a configuration without voters");
        }
        if !self.voters.is_disjoint(&self.learners) {
            return Err("a configuration in which a voter is also a learner");
        }
        let members = self.members();
        if members.contains(&NodeId(0)) {
            return Err("a configuration with node id zero");
        }
        if !members.iter().eq(self.nodes.keys()) {
            return Err("a configuration whose addresses are not those of its members");
        }
        Ok(())
    }

    /// The first entry on the way to `target`: joint where the voters differ, else `target` itself.
    pub(super) fn step_towards(&self, target: &Self) -> Self {
        debug_assert!(
            !self.is_joint() && !target.is_joint(),
            "a change starts and ends outside a joint state"
        );
        if self.voters == target.voters {
            return target.clone();
        }
        let mut joint = target.clone();
        joint.outgoing.clone_from(&self.voters);
        for id in &self.voters {
            if let (false, Some(info)) = (joint.nodes.contains_key(id), self.nodes.get(id)) {
                joint.nodes.insert(*id, info.clone());
            }
        }
        joint
    }

    /// What a joint configuration becomes: the outgoing voters are gone, or learners where it says so.
    pub(super) fn leave_joint(&self) -> Self {
        let mut left = Self { outgoing: BTreeSet::new(), ..self.clone() };
        let stays: BTreeMap<_, _> = left
            .nodes
            .iter()
            .filter(|(id, _)| left.contains(**id))
            .map(|(id, info)| (*id, info.clone()))
            .collect();
        left.nodes = stays;
        left
    }
}

/// Every configuration since the log's base: the one in force, those that it could still fall back to, and those that
/// were in force before.
///
/// Invariant: `committed` is a position in `entries`, which ascend by index; the first of them was in force at the base.
#[derive(Clone, Debug)]
pub(super) struct MembershipHistory {
    entries: VecDeque<(Index, Membership)>,
    /// Position of the newest committed one.
    committed: usize,
}

impl MembershipHistory {
    /// Starts from a configuration that is committed: that of the log's base, or the empty one of a new node.
    pub(super) fn new(index: Index, membership: Membership) -> Self {
        Self { entries: VecDeque::from([(index, membership)]), committed: 0 }
    }

    pub(super) fn in_force(&self) -> &Membership {
        &self.newest().1
    }

    pub(super) fn index(&self) -> Index {
        self.newest().0
    }

    pub(super) fn is_committed(&self) -> bool {
        self.committed + 1 == self.entries.len()
    }

    /// The configuration in force at `index`, which is not below the base, and where it stands.
    pub(super) fn at(&self, index: Index) -> &(Index, Membership) {
        let after = self.entries.partition_point(|(at, _)| *at <= index);
        &self.entries[after.saturating_sub(1)]
    }

    /// Whether `id` may stand for election. A node that is not a voter of an uncommitted configuration may still be
    /// the only one that can win and commit it (thesis §4.2.2); it believes that it is out only once that is committed.
    pub(super) fn may_campaign(&self, id: NodeId) -> bool {
        self.entries.range(self.committed..).any(|(_, membership)| membership.is_voter(id))
    }

    pub(super) fn append(&mut self, index: Index, membership: Membership) {
        assert!(
            index > self.index() || index == Index(0),
            "configurations are appended in log order"
        );
        self.entries.push_back((index, membership));
    }

    /// Forgets configurations at `from` and above; says whether another one is in force now.
    pub(super) fn truncate(&mut self, from: Index) -> bool {
        let before = self.entries.len();
        while !self.is_committed() && self.index() >= from {
            self.entries.pop_back();
        }
        self.entries.len() != before
    }

    /// Everything up to `index` is committed: what lies before the newest of those can never return.
    pub(super) fn commit(&mut self, index: Index) {
        while self.entries.get(self.committed + 1).is_some_and(|(at, _)| *at <= index) {
            self.committed += 1;
        }
    }

    /// The log begins after `base` now, which is committed.
    pub(super) fn compact(&mut self, base: Index) {
        while self.entries.get(1).is_some_and(|(at, _)| *at <= base) {
            self.entries.pop_front();
            self.committed -= 1;
        }
    }

    /// A snapshot up to `last`, where the log begins now, brings its own configuration; later ones stay.
    pub(super) fn install(&mut self, last: Index, index: Index, membership: Membership) {
        self.entries.retain(|(at, _)| *at > last);
        self.entries.push_front((index, membership));
        self.committed = 0;
    }

    fn newest(&self) -> &(Index, Membership) {
        self.entries.back().expect("a history always holds the committed configuration")
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::NodeInfo;
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        let mut made = Membership {
            voters: ids(voters),
            outgoing: ids(outgoing),
            learners: ids(learners),
            nodes: BTreeMap::new(),
        };
        made.nodes = made.members().into_iter().map(|id| (id, NodeInfo::default())).collect();
        made
    }

    #[test]
    fn a_change_of_voters_is_joint_and_leaves_to_its_target() {
        type Ids = &'static [u64];
        let table: [(Ids, Ids, Ids, Ids); 5] = [
            // current voters, learners → target voters, learners
            (&[1], &[2, 3], &[1, 2, 3], &[]),
            (&[1, 2, 3], &[4], &[1, 2, 4], &[]),
            (&[1, 2, 3], &[], &[1, 2], &[]),
            (&[1, 2, 3], &[], &[1, 2], &[3]),
            (&[1, 2, 3], &[], &[4, 5, 6], &[1]),
        ];
        for (voters, learners, target_voters, target_learners) in table {
            let current = membership(voters, &[], learners);
            let target = membership(target_voters, &[], target_learners);
            let joint = current.step_towards(&target);
            assert_eq!(joint.voters, target.voters);
            assert_eq!(joint.outgoing, current.voters);
            assert_eq!(joint.check(), Ok(()), "{joint:?}");
            assert_eq!(joint.leave_joint(), target);
        }
    }

    #[test]
    fn a_change_of_learners_or_addresses_is_one_entry() {
        let current = membership(&[1, 2, 3], &[], &[]);
        let mut target = membership(&[1, 2, 3], &[], &[4]);
        target.nodes.get_mut(&NodeId(2)).unwrap().raft_address = "elsewhere:1".to_owned();
        assert_eq!(current.step_towards(&target), target);
    }

    #[test]
    fn a_malformed_configuration_is_refused() {
        let mut nobody_knows_two = membership(&[1, 2], &[], &[]);
        nobody_knows_two.nodes.remove(&NodeId(2));
        let mut one_address_too_many = membership(&[1], &[], &[]);
        one_address_too_many.nodes.insert(NodeId(9), NodeInfo::default());
        let table = [
            ("without voters", membership(&[], &[], &[])),
            ("without voters", membership(&[], &[1], &[2])),
            ("also a learner", membership(&[1, 2], &[], &[2])),
            ("id zero", membership(&[0, 1], &[], &[])),
            ("addresses", nobody_knows_two),
            ("addresses", one_address_too_many),
        ];
        for (expected, malformed) in table {
            assert!(malformed.check().unwrap_err().contains(expected), "{malformed:?}");
        }
        assert_eq!(membership(&[1, 2], &[2, 3], &[3]).check(), Ok(()));
    }

    #[test]
    fn the_newest_configuration_is_in_force_until_truncated() {
        let mut history = MembershipHistory::new(Index(0), Membership::default());
        history.append(Index(1), membership(&[1], &[], &[]));
        history.append(Index(5), membership(&[1], &[], &[2]));
        assert_eq!((history.index(), history.is_committed()), (Index(5), false));
        assert_eq!(history.in_force(), &membership(&[1], &[], &[2]), "before it is committed");
        assert!(history.truncate(Index(5)));
        assert_eq!(history.index(), Index(1));
        assert!(!history.truncate(Index(2)));
        history.commit(Index(3));
        assert!(history.is_committed());
        assert!(!history.truncate(Index(1)), "a committed configuration stays");
        assert_eq!(history.in_force(), &membership(&[1], &[], &[]));
    }

    #[test]
    fn a_node_is_out_only_when_that_is_committed() {
        let mut history = MembershipHistory::new(Index(1), membership(&[1, 2], &[], &[]));
        history.append(Index(4), membership(&[1], &[], &[]));
        assert!(history.may_campaign(NodeId(2)));
        history.commit(Index(4));
        assert!(!history.may_campaign(NodeId(2)));
        assert!(history.may_campaign(NodeId(1)));
    }

    #[test]
    fn a_learner_or_a_stranger_never_campaigns() {
        let history = MembershipHistory::new(Index(1), membership(&[1], &[], &[2]));
        assert!(!history.may_campaign(NodeId(2)));
        assert!(!history.may_campaign(NodeId(3)));
        assert!(!MembershipHistory::new(Index(0), Membership::default()).may_campaign(NodeId(1)));
    }

    #[test]
    fn every_configuration_since_the_base_is_known() {
        let mut history = MembershipHistory::new(Index(0), Membership::default());
        for index in [2, 5, 9] {
            history.append(Index(index), membership(&[index], &[], &[]));
        }
        history.commit(Index(6));
        let at = |history: &MembershipHistory, index| history.at(Index(index)).0.0;
        let found: Vec<u64> = (0..11).map(|index| at(&history, index)).collect();
        assert_eq!(found, [0, 0, 2, 2, 2, 5, 5, 5, 5, 9, 9]);
        history.compact(Index(4));
        assert_eq!((at(&history, 4), at(&history, 5), history.index()), (2, 5, Index(9)));
        assert!(!history.is_committed() && !history.may_campaign(NodeId(2)));
        assert!(history.truncate(Index(7)) && history.is_committed());
        history.compact(Index(6));
        assert_eq!((history.entries.len(), history.in_force()), (1, &membership(&[5], &[], &[])));
    }

    #[test]
    fn an_installed_snapshot_keeps_later_configurations() {
        let mut history = MembershipHistory::new(Index(1), membership(&[1], &[], &[]));
        history.append(Index(5), membership(&[1], &[], &[2]));
        history.append(Index(9), membership(&[1], &[], &[2, 3]));
        history.install(Index(7), Index(6), membership(&[1, 4], &[], &[2]));
        assert_eq!(history.index(), Index(9));
        history.truncate(Index(8));
        assert_eq!(history.in_force(), &membership(&[1, 4], &[], &[2]));
    }
}
