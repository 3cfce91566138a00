//! Every kind of crash, under load from clients that are killed themselves: while nothing else goes on, in the middle of a
//! snapshot, in the middle of an install, and in the middle of a restore.

use std::fs;
use std::path::PathBuf;

use crate::harness::cluster::{CRAWLING, Cluster, ORDERED_SNAPSHOTS, QUICK};
use crate::harness::load::{CLIENTS, Load};
use crate::harness::node::Flags;
use crate::harness::program::Program;
use crate::harness::wait::eventually;
use crate::mortal::{Forgetful, Mortal};
use crate::snapshots::{fill, is_compacted, take_snapshot};
use crate::typed::{ask, say};

/// Commands that show that the cluster is at work.
const SOME: u64 = 100;
/// Big values, that take about four seconds at the pace of [`CRAWLING`]: enough to be in the middle once.
const VALUES: usize = 16;
/// The same, to be in the middle again and again.
const MANY_VALUES: usize = 48;
/// Clients that are killed again and again, beside those that live on.
const MORTALS: usize = 4;

/// A cluster, and clients that keep account.
struct Scene {
    cluster: Cluster,
    load: Load,
    forgetful: Forgetful,
}

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Raft(usize),
    Machine(usize),
    All,
}

impl Scene {
    async fn begin(cluster: Cluster, name: &'static str) -> Self {
        let mut load = Load::start(&cluster, name);
        for client in CLIENTS..CLIENTS + MORTALS {
            load.add(client, Mortal::new(&cluster, client).await);
        }
        let forgetful = Forgetful::start(&cluster).await;
        Self { cluster, load, forgetful }
    }

    /// How processes that are started from now on take and send snapshots.
    fn pace(&mut self, flags: Flags) {
        for node in self.cluster.numbers() {
            self.cluster.node(node).set_flags(flags);
        }
    }

    /// kill -9, and a supervisor.
    async fn crash(&mut self, victim: Victim) {
        match victim {
            Victim::Raft(node) => self.cluster.node(node).bounce(Program::Raft).await,
            Victim::Machine(node) => self.cluster.node(node).bounce(Program::StateMachine).await,
            Victim::All => {
                for node in self.cluster.numbers() {
                    self.cluster.node(node).kill_all();
                }
                for node in self.cluster.numbers() {
                    self.cluster.node(node).start_all().await;
                }
            }
        }
    }

    /// Everything is whole again, and nothing is lost or done twice.
    async fn end(self) {
        let Self { cluster, load, forgetful } = self;
        load.proceeds(SOME).await;
        cluster.all_catch_up().await;
        let ledger = load.stop().await;
        let killed = ledger.failures().iter().filter(|why| why.starts_with("killed")).count();
        println!("{} commands, {killed} clients killed over theirs", ledger.acknowledged());
        assert!(killed > 0, "no client was killed");
        ledger.check(&cluster).await;
        forgetful.check(&cluster).await;
    }
}

/// A file of a node's snapshots.
fn snapshot_file(cluster: &mut Cluster, node: usize, name: &str) -> PathBuf {
    cluster.node(node).data_dir().join("raft/snapshots").join(name)
}

#[tokio::test]
async fn clients_and_every_kind_of_process_are_killed_and_nothing_is_lost_or_done_twice() {
    let mut scene = Scene::begin(Cluster::form(3, QUICK).await, "plain").await;
    let leader = scene.cluster.leader().await;
    let follower = scene.cluster.follower().await;
    scene.load.proceeds(SOME).await;
    for victim in [
        Victim::Raft(leader),
        Victim::Raft(follower),
        Victim::Machine(leader),
        Victim::Machine(follower),
        Victim::All,
    ] {
        scene.crash(victim).await;
        scene.load.proceeds(SOME).await;
        scene.cluster.all_catch_up().await;
    }
    scene.end().await;
}

#[tokio::test]
async fn every_kind_of_crash_in_the_middle_of_a_snapshot() {
    let cluster = Cluster::form(3, CRAWLING).await;
    fill(&cluster, VALUES).await;
    let mut scene = Scene::begin(cluster, "taking").await;
    for round in 0..5 {
        let leader = scene.cluster.leader().await;
        let follower = scene.cluster.follower().await;
        let (taker, victim) = match round {
            0 => (follower, Victim::Raft(follower)),
            1 => (leader, Victim::Raft(leader)),
            2 => (follower, Victim::Machine(follower)),
            3 => (follower, Victim::Raft(leader)),
            _ => (leader, Victim::All),
        };
        let before = scene.cluster.answer(taker).await.snapshot_index;
        let (endpoints, name) = (scene.cluster.endpoints(), format!("n{taker}"));
        let taking = tokio::task::spawn_blocking(move || ask(&endpoints, &["snapshot", &name]));
        let part = snapshot_file(&mut scene.cluster, taker, "taking.tmp");
        eventually("a snapshot in the making", async || part.exists().then_some(())).await;
        scene.crash(victim).await;
        scene.load.proceeds(SOME).await;
        taking.await.expect("asking does not panic");
        scene.cluster.all_catch_up().await;
        let after = scene.cluster.answer(taker).await.snapshot_index;
        if round != 3 {
            assert_eq!(after, before, "it was cut in the middle: {victim:?}");
        }
    }
    let follower = scene.cluster.follower().await;
    take_snapshot(&scene.cluster, follower);
    scene.end().await;
}

#[tokio::test]
async fn every_kind_of_crash_in_the_middle_of_an_install_and_of_a_restore() {
    let mut cluster = Cluster::form(3, ORDERED_SNAPSHOTS).await;
    let receiver = cluster.follower().await;
    cluster.node(receiver).kill(Program::Raft);
    fill(&cluster, MANY_VALUES).await;
    let mut scene = Scene::begin(cluster, "installing").await;
    for node in scene.cluster.numbers().filter(|node| *node != receiver) {
        take_snapshot(&scene.cluster, node);
        scene.cluster.until(node, "made its log short", is_compacted).await;
    }
    scene.pace(CRAWLING);
    for node in scene.cluster.numbers().filter(|node| *node != receiver) {
        scene.crash(Victim::Raft(node)).await;
        scene.load.proceeds(SOME).await;
    }
    scene.cluster.node(receiver).start(Program::Raft).await;
    let part = snapshot_file(&mut scene.cluster, receiver, "incoming.part");
    for round in 0..5 {
        let have = || fs::metadata(&part).map_or(0, |part| part.len());
        let had = have();
        eventually("more of a snapshot arrives", async || {
            let now = have();
            (now > 0 && now != had).then_some(())
        })
        .await;
        let leader = scene.cluster.leader().await;
        let bystander = 3 - leader - receiver;
        let victim = match round {
            0 => Victim::Raft(receiver),
            1 => Victim::Machine(receiver),
            2 => Victim::Raft(leader),
            3 => Victim::Raft(bystander),
            _ => Victim::All,
        };
        let installed = scene.cluster.answer(receiver).await.snapshot_index;
        assert_eq!(installed, 0, "in the middle: {victim:?}");
        if matches!(victim, Victim::All) {
            // The rest in one go.
            scene.pace(ORDERED_SNAPSHOTS);
        }
        scene.crash(victim).await;
        scene.load.proceeds(SOME).await;
    }
    scene.cluster.until(receiver, "has a snapshot", |status| status.snapshot_index > 0).await;
    scene.cluster.all_catch_up().await;
    restore_is_cut(&mut scene, receiver).await;
    scene.cluster.all_catch_up().await;
    let leader = scene.cluster.leader().await;
    if leader != receiver {
        say(&[scene.cluster.endpoint(receiver)], &["campaign"]);
    }
    scene.end().await;
}

/// Has a node's machine rebuilt, and kills it while it is.
async fn restore_is_cut(scene: &mut Scene, node: usize) {
    let machine = scene.cluster.node(node).data_dir().join("machine");
    scene.cluster.node(node).kill(Program::StateMachine);
    fs::remove_dir_all(&machine).unwrap();
    scene.cluster.node(node).start(Program::StateMachine).await;
    let stores = || {
        let names = fs::read_dir(&machine).unwrap().map(|item| item.unwrap().file_name());
        names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("store-"))).count()
    };
    eventually("a store that is being filled", async || (stores() > 1).then_some(())).await;
    scene.crash(Victim::Machine(node)).await;
    scene.load.proceeds(SOME).await;
    let restored = scene.cluster.node(node).log_text(Program::Raft);
    assert!(restored.contains("no answer while it restores a snapshot"), "it was cut");
}
