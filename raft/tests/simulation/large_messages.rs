//! A network on which small messages pass and large ones are lost, as where two parts of it disagree on the largest packet.

use raft::consensus::NodeId;

use crate::world::World;

const SEEDS: u64 = 20;
const TICKS: u64 = 300;
/// Heartbeats are two ticks apart, and each may find that an append was lost, which is then sent again.
const MOST_REQUESTS: u64 = 2 * 2 * TICKS;

/// The leader stays, as it hears everybody; it asks again at the pace of its heartbeats, and goes on as soon as it can.
#[test]
fn appends_that_are_lost_while_heartbeats_pass_make_no_livelock() {
    for seed in 0..SEEDS {
        let mut world = World::calm(seed);
        world.bootstrap(&[1, 2, 3]);
        world.demand_progress();
        let leader = world.settled_leader().expect("somebody leads");
        let committed = world.invariants.committed.last();

        world.network.passes_only_small = true;
        let commands = world.clients.commands(5);
        world.step(leader.id, commands);
        let requests = world.network.requests;
        (0..TICKS).for_each(|_| world.tick());
        let requests = world.network.requests - requests;

        let now = world.settled_leader().expect("somebody leads");
        assert_eq!((now.id, now.term), (leader.id, leader.term), "seed {seed}: an election");
        assert_eq!(world.invariants.committed.last(), committed, "seed {seed}: nothing arrived");
        assert!(requests <= MOST_REQUESTS, "seed {seed}: {requests} requests in {TICKS} ticks");

        world.network.passes_only_small = false;
        world.demand_progress();
        let behind = world.nodes[&NodeId(1)].raft().commit_index();
        assert!(behind > committed, "seed {seed}: what waited is committed");
    }
}
