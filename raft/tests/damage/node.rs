//! A node's directory, taken by its parts as a process takes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::consensus::Restored;
use raft::continuity::join;
use raft::identity::{DataDir, Identity, IdentityError};
use raft::snapshot::{SnapshotDamage, SnapshotError, Store};
use raft::wal::{Damage, Disk, OpenError, Wal};

use crate::log_model::{self, carry_out};
use crate::simulated_disk::SimulatedDisk;
use crate::snapshot_model::{CLUSTER, Content, DIR, disk_with, frame_starts, read, take};
use crate::workload::{Act, State};

/// All that a process holds.
pub(crate) struct Node {
    disk: Arc<SimulatedDisk>,
    data_dir: DataDir,
    wal: Wal,
    store: Store,
}

/// A part of the directory that is refused, or was set aside.
#[derive(Debug)]
pub(crate) enum Refused {
    Log(Damage),
    Identity(PathBuf),
}

pub(crate) fn open_identity(disk: &Arc<SimulatedDisk>) -> Result<DataDir, Refused> {
    let disk: Arc<dyn Disk> = Arc::<SimulatedDisk>::clone(disk);
    match DataDir::open_on(disk, Path::new("/")) {
        Ok(data_dir) => Ok(data_dir),
        Err(IdentityError::Damaged { path, .. }) => Err(Refused::Identity(path)),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn open_log(disk: &Arc<SimulatedDisk>, seed: u64) -> Result<(Wal, Restored), Refused> {
    log_model::open(disk, seed).map_err(|error| {
        let OpenError::Damaged(damage) = error else { panic!("{error}\n{:#?}", disk.trace()) };
        Refused::Log(damage)
    })
}

pub(crate) fn open_store(disk: &Arc<SimulatedDisk>) -> (Store, Vec<SnapshotDamage>) {
    let disk: Arc<dyn Disk> = Arc::<SimulatedDisk>::clone(disk);
    Store::open(disk, Path::new(DIR), Some(CLUSTER), 2).unwrap()
}

impl Node {
    /// In the order of a process that starts.
    fn start(disk: &Arc<SimulatedDisk>, seed: u64) -> Self {
        let mut data_dir = open_identity(disk).unwrap();
        let (wal, restored) = open_log(disk, seed).unwrap();
        let is_blank = data_dir.identity().cluster.is_none();
        let (store, _) = open_store(disk);
        join(restored, store.newest().map(|newest| newest.meta)).unwrap();
        data_dir.begin_boot(is_blank).unwrap();
        Self { disk: Arc::clone(disk), data_dir, wal, store }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Boot => unreachable!("that is another process"),
            Act::Found => drop(self.data_dir.found_cluster().unwrap()),
            Act::FinishFounding => self.data_dir.finish_founding().unwrap(),
            Act::Log(step) => carry_out(&mut self.wal, step).unwrap(),
            Act::Take(content) => drop(take(&self.store, content).unwrap()),
            Act::Receive(content) => self.receive(content),
            Act::Rot => self.rot(),
            Act::SetAside => self.set_aside(),
        }
    }

    fn receive(&self, content: &Content) {
        let (_, offered, _, file) = disk_with(content);
        let mut receiving = self.store.receive(&offered, CLUSTER).unwrap();
        receiving.push(0, &file[..file.len() / 2]).unwrap();
        drop(receiving);
        let mut receiving = self.store.receive(&offered, CLUSTER).unwrap();
        let have = usize::try_from(receiving.offset()).unwrap();
        receiving.push(receiving.offset(), &file[have..]).unwrap();
        receiving.finish().unwrap();
    }

    fn rot(&self) {
        let (path, file) = self.disk.files(".snapshot").pop().unwrap();
        let starts = frame_starts(&file);
        self.disk.flip(&path, (starts[1] + 9) * 8);
    }

    fn set_aside(&self) {
        let newest = self.store.newest().unwrap();
        let Err(SnapshotError::Damaged(damage)) = read(&self.store, &newest) else {
            panic!("damage was not noticed")
        };
        self.store.set_aside(&newest, &damage).unwrap();
    }
}

/// Carries the acts out; the disk's mark says how many are over. Fills in the identities that came of them.
pub(crate) fn run(disk: &Arc<SimulatedDisk>, acts: &mut [(Act, State)]) {
    let mut node: Option<Node> = None;
    for (number, (act, state)) in acts.iter_mut().enumerate() {
        if matches!(act, Act::Boot) {
            drop(node.take());
            node = Some(Node::start(disk, number as u64));
        } else {
            node.as_mut().unwrap().act(act);
        }
        let node = node.as_mut().unwrap();
        state.identity = Some(node.data_dir.identity());
        state.log.check_entries(&mut node.wal);
        disk.mark(number + 1);
    }
}

/// Whether a node that never started, or this one, may have that identity.
pub(crate) fn is_identity(found: Identity, expected: Option<Identity>) -> bool {
    expected.map_or(found.boot == 0 && found.cluster.is_none(), |expected| found == expected)
}
