//! The kinds of faults, and which come when.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use rand::RngExt as _;
use rand::rngs::ChaCha12Rng;
use rand::seq::SliceRandom as _;

use super::node::Program;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// A node's disk is empty when it comes back.
    Wipe,
    /// kill -9 of a whole node.
    KillNode,
    /// kill -9 of every raft at once.
    KillRafts,
    /// kill -9 of everything at once.
    KillAll,
    /// kill -9 of one raft.
    KillRaft,
    /// kill -9 of one state machine.
    KillMachine,
    /// kill -9 of one gossip daemon.
    KillMember,
    /// A whole node stands still.
    PauseNode,
    /// One raft stands still.
    PauseRaft,
    /// One state machine stands still.
    PauseMachine,
    /// One node after another ends in good order and comes back.
    RollingRestart,
    /// A node hears nobody and nobody hears it.
    Isolate,
    /// A node speaks, and hears nobody.
    Deaf,
    /// A node hears, and nobody hears it.
    Mute,
    /// Two nodes do not hear each other; all others hear both.
    PartialPartition,
    /// Two nodes on one side, the others on the other one.
    Split,
    /// A fifth of what comes to a node is lost.
    Lossy,
    /// Little fits through a node's link.
    Slow,
    /// A node's disk is full.
    FullDisk,
    /// A sync of a node's log fails.
    FailingSync,
    /// A node's clock jumps.
    ClockJump,
    /// One node more, and one less again.
    Scale,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Wipe,
        Self::KillNode,
        Self::KillRafts,
        Self::KillAll,
        Self::KillRaft,
        Self::KillMachine,
        Self::KillMember,
        Self::PauseNode,
        Self::PauseRaft,
        Self::PauseMachine,
        Self::RollingRestart,
        Self::Isolate,
        Self::Deaf,
        Self::Mute,
        Self::PartialPartition,
        Self::Split,
        Self::Lossy,
        Self::Slow,
        Self::FullDisk,
        Self::FailingSync,
        Self::ClockJump,
        Self::Scale,
    ];

    /// As it is said on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it takes that not every machine has.
    #[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
    pub(super) fn need(self) -> Option<Need> {
        Some(match self {
            Self::Isolate | Self::Deaf | Self::Mute | Self::PartialPartition | Self::Split => {
                Need::Cut
            }
            Self::Lossy => Need::Loss,
            Self::Slow => Need::Delay,
            Self::FullDisk => Need::SmallDisk,
            Self::FailingSync => Need::Trace,
            Self::ClockJump => Need::Clock,
            Self::Scale => Need::Scale,
            _ => return None,
        })
    }
}

/// What not every machine has, or not for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// To drop packets between two nodes.
    Cut,
    /// To lose packets by chance.
    Loss,
    /// To hold packets back.
    Delay,
    /// A disk that can be filled.
    SmallDisk,
    /// To change what system calls of another process return.
    Trace,
    /// A clock that one node alone has.
    Clock,
    /// Nodes that come and go by a number.
    Scale,
}

/// What is not there, and why.
pub(super) type Lacks = BTreeMap<Need, String>;

/// A kind, and on whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// On which node, mostly.
    pub node: usize,
    /// And which other one, where two are meant.
    pub other: usize,
}

impl Fault {
    /// Which of a node's processes are meant.
    #[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
    pub(super) fn programs(&self) -> &'static [Program] {
        match self.kind {
            Kind::KillRaft | Kind::KillRafts | Kind::PauseRaft => &[Program::Raft],
            Kind::KillMachine | Kind::PauseMachine => &[Program::StateMachine],
            Kind::KillMember => &[Program::Member],
            _ => &Program::ALL,
        }
    }

    /// Whether it ends that program of some node, and of the program alone.
    pub(super) fn kills(&self, program: Program) -> bool {
        let kinds = [Kind::KillRaft, Kind::KillRafts, Kind::KillMachine, Kind::KillMember];
        kinds.contains(&self.kind) && self.programs().contains(&program)
    }

    /// Which pairs do not hear each other: the first does not hear the second.
    #[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
    pub(super) fn deaf_pairs(&self, nodes: usize) -> Vec<(usize, usize)> {
        let sides = |one: &[usize]| -> Vec<(usize, usize)> {
            let pairs = one.iter().flat_map(|&a| (0..nodes).map(move |b| (a, b)));
            pairs.filter(|(_, b)| !one.contains(b)).collect()
        };
        let both = |pairs: Vec<(usize, usize)>| {
            let back: Vec<_> = pairs.iter().map(|&(a, b)| (b, a)).collect();
            [pairs, back].concat()
        };
        match self.kind {
            Kind::Isolate => both(sides(&[self.node])),
            Kind::Split => both(sides(&[self.node, self.other])),
            Kind::PartialPartition => both(vec![(self.node, self.other)]),
            Kind::Deaf => sides(&[self.node]),
            Kind::Mute => sides(&[self.node]).into_iter().map(|(a, b)| (b, a)).collect(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    #[allow(clippy::wildcard_enum_match_arm, reason = "a question about few of many kinds")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Split | Kind::PartialPartition => {
                write!(f, "{} of nodes {} and {}", self.kind.name(), self.node, self.other)
            }
            // Of all nodes, or of the one that has the small disk.
            Kind::KillRafts
            | Kind::KillAll
            | Kind::RollingRestart
            | Kind::FullDisk
            | Kind::Scale => f.write_str(&self.kind.name()),
            _ => write!(f, "{} of node {}", self.kind.name(), self.node),
        }
    }
}

/// How many other faults come before a wiped disk in each round, at least.
const BEFORE_A_WIPE: usize = 3;

/// Deals every kind once before any comes again, so that a short run is no less mixed than a long one.
pub(super) struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

/// What matters for the choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    pub(super) nodes: usize,
    pub(super) leader: Option<usize>,
    /// The log begins later than at its first entry: who comes with an empty disk needs a snapshot.
    pub(super) is_compacted: bool,
}

impl Deck {
    pub(super) fn new(kinds: Vec<Kind>) -> Self {
        Self { kinds, left: Vec::new() }
    }

    /// Half of all faults are done to the leader, where there is a choice.
    pub(super) fn next(&mut self, chance: &mut ChaCha12Rng, scene: Scene) -> Fault {
        let Scene { nodes, leader, is_compacted } = scene;
        if self.left.is_empty() {
            self.shuffle(chance);
        }
        // It waits for its time, unless nothing else is left to wait with. They are taken from the end.
        if let [.., before, last @ Kind::Wipe] = self.left.as_mut_slice()
            && !is_compacted
        {
            std::mem::swap(before, last);
        }
        let kind = self.left.pop().expect("there are kinds");
        let any = chance.random_range(0..nodes);
        let on_leader = chance.random_bool(0.5);
        let node = leader.filter(|_| on_leader).unwrap_or(any);
        let other = (node + chance.random_range(1..nodes)) % nodes;
        Fault { kind, node, other }
    }

    fn shuffle(&mut self, chance: &mut ChaCha12Rng) {
        self.left.clone_from(&self.kinds);
        self.left.shuffle(chance);
        if let Some(place) = self.left.iter().position(|kind| *kind == Kind::Wipe) {
            let wipe = self.left.remove(place);
            self.left.insert(self.left.len().saturating_sub(BEFORE_A_WIPE), wipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        let mut chance = ChaCha12Rng::seed_from_u64(1);
        let mut deck = Deck::new(Kind::ALL.to_vec());
        for is_compacted in [false, true, false] {
            let scene = Scene { nodes: 5, leader: Some(2), is_compacted };
            let mut dealt: Vec<_> =
                Kind::ALL.iter().map(|_| deck.next(&mut chance, scene).kind).collect();
            let wipe = dealt.iter().position(|kind| *kind == Kind::Wipe);
            let expected = if is_compacted { BEFORE_A_WIPE } else { Kind::ALL.len() - 1 };
            assert_eq!(wipe, Some(expected));
            dealt.sort();
            assert_eq!(dealt, Kind::ALL);
        }
    }

    #[test]
    fn partitions_cut_what_their_names_say() {
        let cut = |kind| Fault { kind, node: 0, other: 1 }.deaf_pairs(3);
        assert_eq!(cut(Kind::Isolate), [(0, 1), (0, 2), (1, 0), (2, 0)]);
        assert_eq!(cut(Kind::Deaf), [(0, 1), (0, 2)]);
        assert_eq!(cut(Kind::Mute), [(1, 0), (2, 0)]);
        assert_eq!(cut(Kind::PartialPartition), [(0, 1), (1, 0)]);
        assert_eq!(cut(Kind::Split), [(0, 2), (1, 2), (2, 0), (2, 1)]);
        assert_eq!(cut(Kind::KillAll), []);
    }
}
