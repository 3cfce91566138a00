//! Looking into a log without opening it shows what an open would find, and what it would refuse.

use std::path::Path;
use std::sync::Arc;

use raft::consensus::{Entry, Index, LogId, Payload, Persist};
use raft::wal::{Inspection, Item, OpenError, inspect};

use crate::damage::{open_or_damage, small_log};
use crate::model::{At, DIR, History, Model, Step, carry_out, open};
use crate::simulated_disk::{SECTOR_BYTES, SimulatedDisk};

fn look(disk: &SimulatedDisk) -> (Vec<Item>, Inspection) {
    let mut items = Vec::new();
    let found = inspect(disk, Path::new(DIR), &mut |item| items.push(item)).unwrap();
    (items, found)
}

/// The entries that the log holds after all of this.
fn fold(items: &[Item]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        match item {
            Item::Entry(entry) => entries.push(entry.clone()),
            Item::Truncation(from) => entries.retain(|entry| entry.id.index < *from),
            Item::Base { meta, keeps_suffix: true } => {
                entries.retain(|entry| entry.id.index > meta.last.index);
            }
            Item::Base { keeps_suffix: false, .. } => entries.clear(),
            Item::Segment { .. } | Item::HardState(_) | Item::CommitHint(_) => {}
        }
    }
    entries
}

fn check(disk: &SimulatedDisk, model: &Model) {
    let before = disk.files("");
    let (items, found) = look(disk);
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    assert_eq!(disk.files(""), before, "looking changes nothing");
    let held = &found.held;
    assert_eq!(
        (held.last, held.hard_state, held.commit_index),
        (model.last(), model.hard_state, model.commit_index)
    );
    assert_eq!(held.base, model.base);
    assert_eq!(fold(&items), model.entries);
    assert_eq!(found.first.0, model.last().index.0 + 1 - model.entries.len() as u64);
}

#[test]
fn a_running_and_a_closed_log_are_seen_as_they_are() {
    for seed in 0..8 {
        let steps = History::new(seed).steps(40);
        let disk = SimulatedDisk::new();
        let (mut wal, _) = open(&disk, 0).unwrap();
        check(&disk, &Model::default());
        for (operation, (step, model)) in steps.iter().enumerate() {
            let _at = At { seed, operation };
            if matches!(step, Step::Reopen) {
                drop(wal);
                wal = open(&disk, operation as u64).unwrap().0;
            } else {
                carry_out(&mut wal, step).unwrap();
            }
            check(&disk, model);
        }
    }
}

#[test]
fn every_flipped_bit_is_a_fault_as_it_is_for_an_open() {
    let (disk, _) = small_log();
    for (path, bytes) in disk.files(".wal") {
        for bit in (0..bytes.len() * 8).step_by(7) {
            let disk = disk.copy();
            disk.flip(&path, bit);
            let (_, found) = look(&disk);
            let refused = open_or_damage(&disk, 9).map(drop).unwrap_err();
            assert!(
                matches!(&found.faults[0], OpenError::Damaged(damage) if *damage == refused),
                "bit {bit}: {refused}, but {:?}",
                found.faults
            );
        }
    }
}

/// A log with a segment for each few entries.
fn three_segments() -> (Arc<SimulatedDisk>, Vec<Entry>) {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    let mut entries = Vec::new();
    while wal.segments() < 3 {
        let id = LogId::new(raft::consensus::Term(1), Index(entries.len() as u64 + 1));
        entries.push(Entry { id, payload: Payload::Command(vec![7; 900].into()) });
        let append = entries[entries.len() - 1..].to_vec();
        wal.append(&[Persist { append, ..Persist::default() }]).unwrap();
    }
    (disk, entries)
}

fn entries_of(items: &[Item]) -> Vec<Entry> {
    let entry =
        |item: &Item| if let Item::Entry(entry) = item { Some(entry.clone()) } else { None };
    items.iter().filter_map(entry).collect()
}

#[test]
fn whole_frames_before_and_segments_behind_the_damage_are_shown() {
    let (disk, entries) = three_segments();
    let (all, _) = look(&disk);
    assert_eq!(entries_of(&all), entries);
    let segments = disk.files(".wal");
    // The second frame behind the start of the second segment.
    let (path, _) = &segments[1];
    let damaged = disk.copy();
    damaged.flip(path, 3 * SECTOR_BYTES * 8);
    let (items, found) = look(&damaged);
    let shown = entries_of(&items);
    assert_eq!(found.faults.len(), 1);
    assert!(shown.len() < entries.len() && shown.len() > entries.len() / 3, "{}", shown.len());
    assert_eq!(shown.first(), entries.first());
    assert_eq!(shown.last(), entries.last(), "the newest segment is whole");

    // A segment whose start is damaged says nothing, but the others do.
    let damaged = disk.copy();
    damaged.flip(path, 0);
    let (items, found) = look(&damaged);
    assert_eq!((found.faults.len(), found.segments.len()), (1, 2));
    assert_eq!(entries_of(&items).first(), entries.first());
    assert_eq!(entries_of(&items).last(), entries.last());
}

#[test]
fn damage_in_two_segments_is_named_twice() {
    let (disk, _) = three_segments();
    let segments = disk.files(".wal");
    for (path, _) in &segments[..2] {
        disk.flip(path, 3 * SECTOR_BYTES * 8);
    }
    let (_, found) = look(&disk);
    let file = |fault: &OpenError| {
        let OpenError::Damaged(damage) = fault else { panic!("{fault}") };
        damage.file.clone()
    };
    let files: Vec<_> = found.faults.iter().map(file).collect();
    assert_eq!(files, [segments[0].0.clone(), segments[1].0.clone()]);
}

#[test]
fn a_missing_segment_is_damage() {
    let (disk, _) = three_segments();
    let segments = disk.files(".wal");
    disk.destroy(&segments[0].0);
    let (_, found) = look(&disk);
    let refused = open_or_damage(&disk, 9).map(drop).unwrap_err();
    assert!(matches!(&found.faults[..], [OpenError::Damaged(damage)] if *damage == refused));
}
