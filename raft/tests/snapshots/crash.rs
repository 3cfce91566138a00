//! Power cuts, crashes and refusals at every operation.

use std::sync::Arc;

use raft::snapshot::{Description, SnapshotError, Store};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::model::{CLUSTER, Content, content, disk_with, open, read, small, take, try_open};
use crate::simulated_disk::{Fault, SimulatedDisk};

/// What a node goes through; each step but the last ends with a newer snapshot.
struct Course {
    taken: [Content; 3],
    received: (Content, Description, Vec<u8>),
}

impl Course {
    fn new() -> Self {
        let received = content(4, 600, 2000);
        let (_, offered, _, file) = disk_with(&received);
        let taken = [content(1, 700, 1500), small(2), content(3, 0, 5000)];
        Self { taken, received: (received, offered, file) }
    }

    /// Goes through all of it; the disk's mark says how many snapshots are finished.
    fn run(&self, disk: &SimulatedDisk, store: &Store) -> Result<(), SnapshotError> {
        for (content, finished) in self.taken.iter().zip(1..) {
            take(store, content)?;
            disk.mark(finished);
        }
        let (_, offered, file) = &self.received;
        let (first, second) = file.split_at(900);
        let mut receiving = store.receive(offered, CLUSTER)?;
        receiving.push(0, first)?;
        drop(receiving);
        let mut receiving = store.receive(offered, CLUSTER)?;
        let offset = usize::try_from(receiving.offset()).unwrap();
        receiving.push(receiving.offset(), &file[offset..offset + second.len() / 2])?;
        receiving
            .push(receiving.offset(), &file[usize::try_from(receiving.offset()).unwrap()..])?;
        receiving.finish()?;
        disk.mark(4);
        let mut dropped = store.take(&small(5).meta, CLUSTER, b"")?;
        dropped.push(b"something")
    }

    /// The newest snapshot after so many are finished.
    fn newest(&self, finished: usize) -> Option<&Content> {
        let all = self.taken.iter().chain([&self.received.0]);
        finished.checked_sub(1).and_then(|at| all.into_iter().nth(at))
    }

    /// What is there must be whole, and the newest one is of `finished`, or the next one.
    fn check(&self, disk: &Arc<SimulatedDisk>, finished: usize) {
        let store = open(disk);
        for description in store.all() {
            let content = read(&store, &description).unwrap();
            let index = usize::try_from(description.meta.last.index.0).unwrap();
            assert_eq!(Some(&content), self.newest(index));
        }
        let newest = store.newest().map(|newest| newest.meta);
        let allowed = [finished, finished + 1];
        let is_allowed = |count: &usize| self.newest(*count).map(|c| &c.meta) == newest.as_ref();
        assert!(
            allowed.iter().any(is_allowed),
            "{finished} finished, but the newest is {newest:?}"
        );
        assert!(store.all().len() <= 2);
        assert!(disk.files(".tmp").is_empty());
        let later = take(&store, &small(9)).unwrap();
        assert_eq!(open(&disk.power_cut(|| false)).newest(), Some(later));
    }
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_or_the_new_one_whole() {
    let course = Course::new();
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    disk.record();
    course.run(&disk, &store).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let snapshots = disk.snapshots();
    assert!(snapshots.len() > 40, "only {} operations", snapshots.len());
    for (finished, snapshot) in snapshots {
        course.check(&snapshot.copy(), finished);
        course.check(&snapshot.power_cut(|| false), finished);
        course.check(&snapshot.power_cut(|| true), finished);
        for share in [0.1, 0.5, 0.9] {
            course.check(&snapshot.power_cut(|| rng.random_bool(share)), finished);
        }
    }
}

#[test]
fn a_power_cut_while_damage_is_set_aside_changes_nothing_but_its_name() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let older = take(&store, &small(1)).unwrap();
    take(&store, &small(2)).unwrap();
    let (path, _) = disk.files(".snapshot").pop().unwrap();
    disk.flip(&path, 77);
    disk.record();
    try_open(&disk).unwrap();
    let snapshots = disk.snapshots();
    assert!(!snapshots.is_empty());
    for (_, snapshot) in snapshots {
        for keeps in [false, true] {
            let disk = snapshot.power_cut(|| keeps);
            assert_eq!(try_open(&disk).unwrap().0.newest(), Some(older.clone()));
            assert_eq!(disk.files("").len(), 2);
        }
    }
}

#[test]
fn an_error_at_any_operation_is_named_and_leaves_the_old_or_the_new_one_whole() {
    let course = Course::new();
    let operations = {
        let disk = SimulatedDisk::new();
        let store = open(&disk);
        let opened = disk.operations();
        course.run(&disk, &store).unwrap();
        opened..disk.operations()
    };
    for fault in [Fault::Error, Fault::NoSpace] {
        for at in operations.clone() {
            let disk = SimulatedDisk::new();
            let store = open(&disk);
            disk.fail_at(at, fault);
            let outcome = course.run(&disk, &store);
            let is_named = match (&outcome, fault) {
                // Only the removal of what is old may fail without a word to the caller.
                (Ok(()), _) => disk.trace()[at].starts_with("remove"),
                (Err(SnapshotError::Disk(_)), Fault::Error)
                | (Err(SnapshotError::NoSpace(_)), Fault::NoSpace) => true,
                (Err(_), _) => false,
            };
            assert!(is_named, "{at} {}: {outcome:?}", disk.trace()[at]);
            if outcome.is_err() {
                assert!(disk.files(".tmp").is_empty() && disk.files(".part").is_empty());
            }
            let finished = disk.marked();
            // The process goes on, or ends, or the power fails.
            for description in store.all() {
                read(&store, &description).unwrap();
            }
            course.check(&disk.copy(), finished);
            course.check(&disk.power_cut(|| false), finished);
            course.check(&disk.power_cut(|| true), finished);
            take(&store, &small(9)).unwrap();
        }
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_is_lost() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let old = take(&store, &small(1)).unwrap();
    disk.set_capacity(Some(100_000));
    let outcome = take(&store, &content(2, 0, 600_000));
    let Err(error @ SnapshotError::NoSpace(_)) = outcome else { panic!("{outcome:?}") };
    assert!(
        error.to_string().contains("taking.tmp") && error.to_string().contains("nothing is lost")
    );
    assert_eq!(store.newest(), Some(old.clone()));
    assert_eq!(disk.files("").len(), 1, "the space is given back");

    let (_, offered, _, file) = disk_with(&content(2, 0, 600_000));
    let mut receiving = store.receive(&offered, CLUSTER).unwrap();
    let outcome = receiving.push(0, &file);
    assert!(matches!(outcome, Err(SnapshotError::NoSpace(_))), "{outcome:?}");
    assert_eq!(disk.files("").len(), 1, "the space is given back");
    drop(receiving);
    disk.set_capacity(None);
    take(&store, &content(2, 0, 600_000)).unwrap();
    assert_eq!(store.all().first(), Some(&old));
}
