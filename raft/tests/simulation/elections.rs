//! How long a cluster is without leader, in ticks, over many seeds.

use raft::consensus::{Input, NodeId, RoleName};

use crate::network::Weather;
use crate::world::World;

const SHORTEST_TIMEOUT_TICKS: u64 = 6;
const LONGEST_TIMEOUT_TICKS: u64 = 12;

/// Ticks until somebody leads and has committed an entry of its term.
fn ticks_to_a_leader(world: &mut World, limit: u64) -> Option<u64> {
    (1..=limit).find(|_| {
        world.tick();
        world.nodes.values().any(|node| node.up().is_some_and(|raft| raft.status().leader_ready))
    })
}

#[test]
fn chance_breaks_ties() {
    // Everybody starts at once with an equal log, and messages take up to a quarter of a timeout.
    let mut late = 0;
    for seed in 0..1000 {
        let mut world = World::calm(seed);
        world.network.weather = Weather { delay_ticks: 3, ..Weather::CALM };
        world.bootstrap(&[1, 2, 3, 4, 5]);
        late += u64::from(ticks_to_a_leader(&mut world, 10 * LONGEST_TIMEOUT_TICKS).is_none());
    }
    assert!(late <= 2, "{late} of 1000 clusters had no leader after ten timeouts");
}

#[test]
fn a_dead_process_is_replaced_before_the_shortest_timeout() {
    for voters in [&[1, 2, 3][..], &[1, 2, 3, 4, 5]] {
        let slow = (0..1000).filter(|&seed| !fails_over_early(seed, voters)).count();
        assert!(slow <= 20, "{slow} of 1000 clusters of {} waited for a timeout", voters.len());
    }
}

/// Kills the leader's process; its peers are told by their connections within a tick of each other.
fn fails_over_early(seed: u64, voters: &[u64]) -> bool {
    let mut world = World::calm(seed);
    world.network.weather = Weather { delay_ticks: 1, ..Weather::CALM };
    world.bootstrap(voters);
    ticks_to_a_leader(&mut world, 10 * LONGEST_TIMEOUT_TICKS)
        .expect("a healthy cluster has a leader");
    (0..5).for_each(|_| world.tick());
    let leads = |id: &NodeId| world.nodes[id].raft().status().role == RoleName::Leader;
    let leader = world.up().into_iter().find(leads).expect("the leader stays");
    world.nodes.get_mut(&leader).expect("a known node").crash(0);
    world.network.reset(leader);
    for id in world.up() {
        world.step(id, Input::LinkLost(leader));
        if seed.is_multiple_of(2) && id.0.is_multiple_of(2) {
            world.tick();
        }
    }
    ticks_to_a_leader(&mut world, 2 * SHORTEST_TIMEOUT_TICKS).is_some()
}
