//! Who lacks what a leader's log has dropped, and what may come in between. Nothing else goes wrong here.

use raft::consensus::{Index, Input, NodeId, PeerStatus, SnapshotMeta};

use crate::support::membership;
use crate::world::World;

const HEARTBEAT_TICKS: u64 = 2;
const PATIENCE_TICKS: u64 = 120;

/// Three voters, of which the last one was cut off while entries were committed.
struct Scene {
    world: World,
    leader: NodeId,
    other: NodeId,
    behind: NodeId,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::calm(seed);
        world.bootstrap(&[1, 2, 3]);
        let settled = (0..PATIENCE_TICKS).any(|_| {
            world.tick();
            world.settled_leader().is_some()
        });
        assert!(settled, "a healthy cluster has a leader");
        let leader = world.settled_leader().expect("it was just there").id;
        let [other, behind] = followers(leader);
        let mut scene = Self { world, leader, other, behind };
        scene.world.holds_streams = true;
        scene.world.cut_off(behind);
        scene.commit(20);
        scene
    }

    /// The leader has snapshot and base; the one that is behind can be reached again.
    fn compacted(seed: u64, snapshot: u64, base: u64) -> Self {
        let mut scene = Self::new(seed);
        scene.take_snapshot(scene.leader, snapshot, base);
        scene.world.network.heal();
        scene
    }

    /// The one that is behind was offered the leader's snapshot.
    fn offered(seed: u64, snapshot: u64, base: u64) -> Self {
        let mut scene = Self::compacted(seed, snapshot, base);
        scene.until("it is offered a snapshot", |scene| scene.offers() == 1);
        scene
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let happens = (0..PATIENCE_TICKS).any(|_| {
            self.world.tick();
            is_so(self)
        });
        assert!(happens, "in vain: {what}");
    }

    fn commit(&mut self, commands: usize) {
        let commands = self.world.clients.commands(commands);
        self.world.step(self.leader, commands);
        let last = self.world.nodes[&self.leader].raft().last().index;
        self.until("it is committed", |scene| {
            let ready = |id: NodeId| scene.world.nodes[&id].raft().ready_index();
            ready(scene.leader) >= last && ready(scene.other) >= last
        });
    }

    fn take_snapshot(&mut self, id: NodeId, index: u64, compact_to: u64) {
        let meta = self.describe(id, index);
        let node = self.world.nodes.get_mut(&id).expect("a known node");
        node.disk.store_snapshot(meta.clone());
        self.world.step(id, Input::SnapshotTaken { meta, compact_to: Index(compact_to) });
    }

    fn describe(&self, id: NodeId, index: u64) -> SnapshotMeta {
        self.world.nodes[&id].raft().describe(Index(index)).expect("it is committed and held")
    }

    fn arrive(&mut self, meta: SnapshotMeta) {
        let node = self.world.nodes.get_mut(&self.behind).expect("a known node");
        node.disk.store_snapshot(meta.clone());
        self.world.step(self.behind, Input::SnapshotReceived(meta));
    }

    fn offers(&self) -> usize {
        self.world.offers.len()
    }

    fn installs(&self) -> u64 {
        self.world.coverage.installs
    }

    fn first_index(&self) -> Index {
        self.world.nodes[&self.leader].raft().first_index()
    }

    /// What the leader knows of the one that is behind.
    fn progress(&self) -> PeerStatus {
        let peers = self.world.nodes[&self.leader].raft().status().peers;
        peers.into_iter().find(|(id, _)| *id == self.behind).expect("it is a member").1
    }

    fn all_agree(&self) -> bool {
        let committed = self.world.invariants.committed.last();
        self.world
            .nodes
            .values()
            .filter(|node| {
                node.is_up() && node.raft().status().membership == membership(&[1, 2, 3], &[])
            })
            .all(|node| node.raft().ready_index() == committed)
    }
}

fn followers(leader: NodeId) -> [NodeId; 2] {
    let mut ids = (1..=3).map(NodeId).filter(|id| *id != leader);
    [ids.next().expect("there are three"), ids.next().expect("there are three")]
}

#[test]
fn one_that_lacks_what_was_dropped_gets_the_snapshot_without_any_new_entry() {
    let mut scene = Scene::compacted(1, 20, 20);
    let last = scene.world.nodes[&scene.leader].raft().last();
    scene.world.holds_streams = false;
    scene.until("it catches up", Scene::all_agree);
    assert_eq!(scene.installs(), 1);
    assert_eq!(scene.world.nodes[&scene.behind].raft().last(), last, "nothing was proposed");
}

#[test]
fn one_that_is_a_little_behind_gets_the_entries_that_stayed() {
    let mut scene = Scene::compacted(2, 20, 2);
    scene.until("it catches up", Scene::all_agree);
    assert_eq!((scene.offers(), scene.installs(), scene.first_index()), (0, 0, Index(3)));
}

#[test]
fn a_broken_stream_is_offered_again_within_a_heartbeat_but_not_at_once() {
    let mut scene = Scene::offered(3, 15, 10);
    assert_eq!(scene.progress().snapshot, Some(Index(15)));
    for offers in 2..6 {
        scene.world.step(scene.leader, Input::SnapshotFailed(scene.behind));
        assert_eq!(scene.offers(), offers - 1, "a refused connection must not make a busy loop");
        (0..HEARTBEAT_TICKS).for_each(|_| scene.world.tick());
        assert_eq!(scene.offers(), offers);
    }
}

#[test]
fn a_broken_link_does_not_end_a_transfer_nor_what_it_keeps_in_the_log() {
    let mut scene = Scene::offered(12, 15, 10);
    for round in 1..=5 {
        scene.commit(20);
        scene.take_snapshot(scene.leader, 20 * round + 10, 20 * round + 10);
        scene.world.step(scene.leader, Input::PeerUnreachable(scene.behind));
        (0..2 * HEARTBEAT_TICKS).for_each(|_| scene.world.tick());
    }
    assert_eq!((scene.offers(), scene.first_index()), (1, Index(16)), "what follows it stays");
    scene.arrive(scene.world.offers[0].1.clone());
    scene.until("it catches up", Scene::all_agree);
    assert_eq!((scene.offers(), scene.installs()), (1, 1));
}

#[test]
fn one_that_dies_in_the_middle_of_a_transfer_is_offered_again() {
    let mut scene = Scene::offered(4, 15, 10);
    let node = scene.world.nodes.get_mut(&scene.behind).expect("a known node");
    node.crash(0);
    node.start();
    scene.world.step(scene.leader, Input::SnapshotFailed(scene.behind));
    scene.until("it is offered again", |scene| scene.offers() == 2);
    scene.arrive(scene.world.offers[1].1.clone());
    scene.until("it catches up", Scene::all_agree);
}

#[test]
fn one_that_dies_before_it_could_say_that_it_has_the_snapshot_goes_on_from_it() {
    let mut scene = Scene::offered(5, 15, 10);
    let meta = scene.world.offers[0].1.clone();
    let node = scene.world.nodes.get_mut(&scene.behind).expect("a known node");
    node.crash(0);
    node.disk.store_snapshot(meta);
    node.start();
    // Nobody tells the leader, which still believes that the stream goes on; heartbeats show better.
    scene.until("it catches up", Scene::all_agree);
    assert_eq!((scene.offers(), scene.progress().snapshot), (1, None));
}

#[test]
fn a_transfer_under_way_is_superseded_only_once_it_breaks() {
    let mut scene = Scene::offered(6, 15, 10);
    scene.commit(20);
    scene.take_snapshot(scene.leader, 35, 30);
    (0..20).for_each(|_| scene.world.tick());
    assert_eq!((scene.offers(), scene.first_index()), (1, Index(16)), "what follows it stays");
    scene.world.step(scene.leader, Input::SnapshotFailed(scene.behind));
    scene.until("it is offered again", |scene| scene.offers() == 2);
    let newer = scene.world.offers[1].1.clone();
    assert_eq!((newer.last.index, scene.first_index()), (Index(35), Index(31)));
    // All of the older one comes after all.
    scene.arrive(scene.world.offers[0].1.clone());
    scene.arrive(newer);
    scene.until("it catches up", Scene::all_agree);
    assert_eq!(scene.installs(), 2);
}

#[test]
fn compaction_waits_for_a_peer_that_takes_a_snapshot_so_that_one_is_enough() {
    let mut scene = Scene::offered(7, 15, 10);
    for round in 1..=5 {
        scene.commit(20);
        scene.take_snapshot(scene.leader, 20 * round + 10, 20 * round + 10);
    }
    assert_eq!(scene.first_index(), Index(16));
    scene.arrive(scene.world.offers[0].1.clone());
    scene.until("it catches up", Scene::all_agree);
    assert_eq!((scene.offers(), scene.installs()), (1, 1));
    scene.until("the log is compacted", |scene| scene.first_index() == Index(111));
}

#[test]
fn compaction_waits_for_nobody_who_is_gone() {
    let mut scene = Scene::offered(8, 15, 10);
    scene.arrive(scene.world.offers[0].1.clone());
    scene.world.cut_off(scene.behind);
    scene.commit(20);
    scene.take_snapshot(scene.leader, 35, 35);
    scene.until("the log is compacted", |scene| scene.first_index() == Index(36));
}

#[test]
fn a_peer_that_has_the_entries_after_all_needs_no_snapshot() {
    let mut scene = Scene::new(9);
    scene.world.network.heal();
    scene.until("it catches up", Scene::all_agree);
    // It hears the leader, but its answers get lost.
    scene.world.network.cut(scene.behind, scene.leader);
    scene.commit(20);
    scene.take_snapshot(scene.leader, 35, 30);
    scene.world.step(scene.leader, Input::PeerUnreachable(scene.behind));
    scene.world.network.heal();
    scene.until("it catches up", Scene::all_agree);
    assert_eq!((scene.offers(), scene.installs()), (0, 0));
}

#[test]
fn a_new_leader_with_an_older_snapshot_serves_one_that_has_a_newer_one() {
    let mut scene = Scene::new(10);
    scene.take_snapshot(scene.other, 10, 10);
    scene.take_snapshot(scene.leader, 20, 20);
    scene.world.network.heal();
    scene.until("it is offered the newer one", |scene| scene.offers() == 1);
    scene.world.nodes.get_mut(&scene.leader).expect("a known node").crash(0);
    scene.leader = scene.other;
    scene.until("it is offered the older one", |scene| scene.offers() == 2);
    let [newer, older] = [0, 1].map(|at| scene.world.offers[at].1.clone());
    assert_eq!((newer.last.index, older.last.index), (Index(20), Index(10)));
    scene.arrive(newer);
    scene.until("it catches up", Scene::all_agree);
    assert_eq!((scene.offers(), scene.installs()), (2, 1));
    // What it was offered by the new leader comes late.
    scene.arrive(older);
    scene.commit(3);
    scene.until("it goes on", Scene::all_agree);
    assert_eq!(scene.installs(), 1, "nothing goes back");
}

/// Its file may have taken the place of the one before, from which a state machine could be restored no more.
#[test]
fn a_snapshot_of_entries_that_are_not_durable_yet_counts_once_they_are() {
    let mut scene = Scene::new(13);
    scene.world.network.heal();
    scene.until("it catches up", Scene::all_agree);
    scene.world.stalled.insert(scene.behind, u64::MAX);
    scene.commit(5);
    let last = scene.world.nodes[&scene.leader].raft().last().index;
    let commits = |scene: &Scene| scene.world.nodes[&scene.behind].raft().commit_index() == last;
    scene.until("it knows what is committed", commits);
    let meta = scene.describe(scene.leader, last.0);
    scene.arrive(meta);
    let status = |scene: &Scene| scene.world.nodes[&scene.behind].raft().status();
    assert_eq!((status(&scene).snapshot_index, scene.installs()), (Index(0), 0));
    scene.world.stalled.clear();
    scene.until("it has the snapshot", |scene| status(scene).snapshot_index == last);
    assert_eq!(scene.installs(), 0, "it lacks nothing");
}

#[test]
fn a_snapshot_whose_log_was_not_compacted_before_a_crash_counts_after_it() {
    let mut scene = Scene::new(11);
    let meta = scene.describe(scene.other, 12);
    let node = scene.world.nodes.get_mut(&scene.other).expect("a known node");
    node.disk.store_snapshot(meta.clone());
    node.crash(0);
    node.start();
    let status = node.raft().status();
    assert_eq!((status.first_index, status.snapshot_index), (Index(1), Index(12)));
    // The wish is repeated with the next snapshot, or with the same one.
    scene.world.step(scene.other, Input::SnapshotTaken { meta, compact_to: Index(9) });
    let node = scene.world.nodes.get_mut(&scene.other).expect("a known node");
    assert_eq!(node.raft().first_index(), Index(10));
    node.crash(0);
    node.start();
    assert_eq!(node.raft().first_index(), Index(1), "the compaction was not durable");
}
