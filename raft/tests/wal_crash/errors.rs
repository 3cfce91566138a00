//! A disk that refuses: every error ends the log, nothing acknowledged is lost, nothing is tried again.

use std::sync::Arc;

use raft::consensus::{Entry, Index, LogId, Payload, Persist, Term};
use raft::wal::{OpenError, ReadError, Wal, WriteError};

use crate::model::{At, History, Model, Step, carry_out, open, open_to};
use crate::simulated_disk::{Fault, SimulatedDisk};

/// Carries out the steps until one fails; returns how many were acknowledged, and the error.
fn run_until_error(disk: &Arc<SimulatedDisk>, steps: &[(Step, Model)]) -> (usize, Option<Failure>) {
    let mut wal = match open(disk, 0) {
        Ok((wal, _)) => wal,
        Err(error) => return (0, Some(Failure::Open(error))),
    };
    for (number, (step, _)) in steps.iter().enumerate() {
        if matches!(step, Step::Reopen) {
            drop(wal);
            match open(disk, number as u64) {
                Ok((again, _)) => wal = again,
                Err(error) => return (number, Some(Failure::Open(error))),
            }
        } else if let Err(error) = carry_out(&mut wal, step) {
            refuses_everything(&mut wal, disk);
            return (number, Some(Failure::Write(error)));
        }
    }
    (steps.len(), None)
}

#[derive(Debug)]
enum Failure {
    Open(OpenError),
    Write(WriteError),
}

fn refuses_everything(wal: &mut Wal, disk: &SimulatedDisk) {
    let operations = disk.operations();
    assert!(matches!(wal.append(&[Persist::default()]), Err(WriteError::Stopped)));
    assert!(wal.read(Index(1), Index(1), 1).is_err());
    assert_eq!(disk.operations(), operations, "nothing is tried again");
}

#[test]
fn an_error_at_any_operation_ends_the_log_and_loses_nothing_acknowledged() {
    for (seed, fault) in [(0, Fault::Error), (1, Fault::Error), (2, Fault::NoSpace)] {
        let steps = History::new(seed).steps(30);
        let all = {
            let disk = SimulatedDisk::new();
            assert_eq!(run_until_error(&disk, &steps).0, steps.len());
            disk.operations()
        };
        for at in 0..all {
            let _at = At { seed, operation: at };
            let disk = SimulatedDisk::new();
            disk.fail_at(at, fault);
            let (acknowledged, failure) = run_until_error(&disk, &steps);
            let failure = failure.expect("every error is reported");
            if fault == Fault::NoSpace {
                assert!(
                    matches!(
                        failure,
                        Failure::Open(OpenError::NoSpace(_))
                            | Failure::Write(WriteError::NoSpace(_))
                    ),
                    "{failure}"
                );
            }
            drop(open_to(&disk.power_cut(|| false), &steps, acknowledged, 50));
            drop(open_to(&disk.power_cut(|| true), &steps, acknowledged, 50));
            // The process ends, but the page cache stays: it may hold what a failed sync has lost for good.
            let restarted = disk.copy();
            let (_, model) = open_to(&restarted, &steps, acknowledged, 51);
            let (mut wal, restored) = open(&restarted.power_cut(|| false), 52).unwrap();
            model.check(&mut wal, &restored);
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
        }
    }
}

#[test]
fn a_full_disk_stops_the_log_by_name_and_space_brings_it_back() {
    let disk = SimulatedDisk::new();
    disk.set_capacity(Some(5 * 4096));
    let (mut wal, _) = open(&disk, 0).unwrap();
    let mut acknowledged = Vec::new();
    let error = loop {
        let index = Index(acknowledged.len() as u64 + 1);
        let payload = Payload::Command(vec![1; 600].into());
        let entry = Entry { id: LogId::new(Term(1), index), payload };
        match wal.append(&[Persist { append: vec![entry.clone()], ..Persist::default() }]) {
            Ok(_) => acknowledged.push(entry),
            Err(error) => break error,
        }
    };
    assert!(acknowledged.len() > 10);
    assert!(matches!(error, WriteError::NoSpace(_)), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    drop(wal);
    disk.set_capacity(Some(disk.files("").iter().map(|(_, bytes)| bytes.len()).sum()));
    let error = open(&disk, 1).err().expect("there is no space for a segment");
    assert!(matches!(error, OpenError::NoSpace(_)), "{error}");
    disk.set_capacity(None);
    let (mut wal, restored) = open(&disk, 2).unwrap();
    let last = restored.last.index;
    assert_eq!(wal.read(Index(1), last, usize::MAX).unwrap(), acknowledged);
}

#[test]
fn records_that_cannot_follow_are_refused_before_they_are_written() {
    let entry =
        |term, index| Entry { id: LogId::new(Term(term), Index(index)), payload: Payload::Noop };
    let good = Persist {
        append: vec![entry(2, 1), entry(2, 2), entry(2, 3)],
        commit_index: Index(2),
        hard_state: Some(raft::consensus::HardState {
            term: Term(2),
            vote: Some(raft::consensus::NodeId(1)),
        }),
        ..Persist::default()
    };
    let vote = |term, vote| {
        let vote = Some(raft::consensus::NodeId(vote));
        Some(raft::consensus::HardState { term: Term(term), vote })
    };
    let bad = [
        ("a gap", Persist { append: vec![entry(2, 5)], ..Persist::default() }),
        ("an overwrite", Persist { append: vec![entry(2, 3)], ..Persist::default() }),
        ("a term that goes back", Persist { append: vec![entry(1, 4)], ..Persist::default() }),
        (
            "a committed entry dropped",
            Persist { truncate_from: Some(Index(2)), ..Persist::default() },
        ),
        (
            "the first entry dropped",
            Persist { truncate_from: Some(Index(0)), ..Persist::default() },
        ),
        ("a second vote", Persist { hard_state: vote(2, 2), ..Persist::default() }),
        ("a hard state that goes back", Persist { hard_state: vote(1, 1), ..Persist::default() }),
    ];
    for (name, batch) in bad {
        let disk = SimulatedDisk::new();
        let (mut wal, _) = open(&disk, 0).unwrap();
        wal.append(std::slice::from_ref(&good)).unwrap();
        let before = disk.files(".wal");
        assert!(matches!(wal.append(&[batch]), Err(WriteError::Impossible(_))), "{name}");
        assert_eq!(disk.files(".wal"), before, "{name}");
        refuses_everything(&mut wal, &disk);
        drop(wal);
        let (_, restored) = open(&disk, 1).unwrap();
        assert_eq!(restored.last, LogId::new(Term(2), Index(3)), "{name}");
    }
}

#[test]
fn a_read_error_is_reported_and_the_log_goes_on() {
    let disk = SimulatedDisk::new();
    let (mut wal, _) = open(&disk, 0).unwrap();
    let entry = |index| Entry { id: LogId::new(Term(1), Index(index)), payload: Payload::Noop };
    let batch = |index| Persist { append: vec![entry(index)], ..Persist::default() };
    wal.append(&[batch(1)]).unwrap();
    disk.refuse_reads(true);
    let error = wal.read(Index(1), Index(1), 1).unwrap_err();
    assert!(matches!(error, ReadError::Disk(_)), "{error}");
    assert!(error.to_string().contains("/wal/00000001.wal"), "{error}");
    wal.append(&[batch(2)]).unwrap();
    let restarted = disk.copy();
    restarted.refuse_reads(true);
    let before = restarted.files("");
    assert!(matches!(open(&restarted, 1), Err(OpenError::Disk(_))));
    assert_eq!(restarted.files(""), before, "an unreadable log is untouched");
    disk.refuse_reads(false);
    assert_eq!(wal.read(Index(1), Index(2), 1000).unwrap(), [entry(1), entry(2)]);
}
