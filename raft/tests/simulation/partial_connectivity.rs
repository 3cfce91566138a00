//! Some links are down and stay down (the partitions of real data centres). As long as somebody reaches a majority, entries
//! are committed: pre-vote and check-quorum together neither lock the cluster up nor let anybody disturb it for ever.

use raft::consensus::{Index, Input, NodeId, RoleName};

use crate::world::World;

const LONGEST_TIMEOUT_TICKS: u64 = 12;
const PATIENCE_TICKS: u64 = 10 * LONGEST_TIMEOUT_TICKS;

/// Two-way links between `1 ..= size` that are up, one bit each.
struct Links {
    pairs: Vec<(u64, u64)>,
    up: u64,
}

impl Links {
    fn all(size: u64) -> impl Iterator<Item = Self> {
        let pairs: Vec<(u64, u64)> =
            (1..=size).flat_map(|a| (a + 1..=size).map(move |b| (a, b))).collect();
        (0..1_u64 << pairs.len()).map(move |up| Self { pairs: pairs.clone(), up })
    }

    fn down(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pairs
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.up & (1 << bit) == 0)
            .map(|(_, pair)| *pair)
    }

    fn somebody_reaches_a_majority(&self, size: u64) -> bool {
        let down: Vec<(u64, u64)> = self.down().collect();
        let reached =
            |a: u64| (1..=size).filter(|&b| !down.contains(&(a.min(b), a.max(b)))).count() as u64;
        (1..=size).any(|node| reached(node) > size / 2)
    }
}

fn commits_go_on(size: u64, links: &Links, seed: u64) {
    let mut world = World::calm(seed);
    world.bootstrap(&(1..=size).collect::<Vec<_>>());
    ticks(&mut world, 4 * LONGEST_TIMEOUT_TICKS);
    assert!(world.settled_leader().is_some(), "a healthy cluster has a leader");
    for (a, b) in links.down() {
        world.network.cut(NodeId(a), NodeId(b));
        world.network.cut(NodeId(b), NodeId(a));
    }
    let before = world.invariants.committed.last();
    for _ in 0..PATIENCE_TICKS {
        ticks(&mut world, 1);
        propose_everywhere(&mut world);
        if world.invariants.committed.last() >= Index(before.0 + 10) {
            return;
        }
    }
    let down: Vec<(u64, u64)> = links.down().collect();
    panic!("no progress in {PATIENCE_TICKS} ticks without the links {down:?}, seed {seed}");
}

fn ticks(world: &mut World, count: u64) {
    (0..count).for_each(|_| world.tick());
}

fn propose_everywhere(world: &mut World) {
    let leads =
        |world: &World, id: NodeId| world.nodes[&id].raft().status().role == RoleName::Leader;
    for id in world.up().into_iter().filter(|&id| leads(world, id)).collect::<Vec<_>>() {
        let commands: Input = world.clients.commands(1);
        world.step(id, commands);
    }
}

#[test]
fn three_nodes_make_progress_whenever_one_of_them_reaches_a_majority() {
    for seed in 0..20 {
        for links in Links::all(3).filter(|links| links.somebody_reaches_a_majority(3)) {
            commits_go_on(3, &links, seed);
        }
    }
}

#[test]
fn five_nodes_make_progress_whenever_one_of_them_reaches_a_majority() {
    for links in Links::all(5).filter(|links| links.somebody_reaches_a_majority(5)) {
        commits_go_on(5, &links, 1);
    }
}
