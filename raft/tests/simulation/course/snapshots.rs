//! Part 3D: the log stays small, and who lacks what it dropped gets a snapshot.

use super::{Lab, SNAPSHOT_INTERVAL, on_both_networks, over_seeds};

/// No log on a disk is larger, in bytes of records, however many commands were applied.
const MAX_LOG_BYTES: usize = 2000;

/// What happens to the server that falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Lives,
    IsCutOff,
    Crashes,
}

#[test]
fn snapshot_basic() {
    on_both_networks(3, |lab| thirty_rounds(lab, Victim::Lives));
}

#[test]
fn snapshot_install() {
    over_seeds(|seed| thirty_rounds(Lab::new(seed, 3), Victim::IsCutOff));
}

#[test]
fn snapshot_install_unreliable() {
    over_seeds(|seed| thirty_rounds(Lab::new(seed, 3).unreliable(), Victim::IsCutOff));
}

#[test]
fn snapshot_install_crash() {
    over_seeds(|seed| thirty_rounds(Lab::new(seed, 3), Victim::Crashes));
}

#[test]
fn snapshot_install_un_crash() {
    over_seeds(|seed| thirty_rounds(Lab::new(seed, 3).unreliable(), Victim::Crashes));
}

/// Somebody misses what makes the others take a snapshot; the logs stay small, and the victim comes back to the rest.
fn thirty_rounds(lab: Lab, fate: Victim) {
    let mut lab = lab.with_snapshots();
    lab.one(3);
    let mut leader = lab.check_one_leader();
    for round in 0..30 {
        let (mut victim, mut sender) = (lab.after(leader, 1), leader);
        if round % 3 == 1 {
            (victim, sender) = (leader, lab.after(leader, 1));
        }
        match fate {
            Victim::Lives => {}
            Victim::IsCutOff => lab.disconnect(victim),
            Victim::Crashes => lab.shut_down(victim),
        }
        lab.one(2);
        for _ in 0..SNAPSHOT_INTERVAL / 2 + lab.random(SNAPSHOT_INTERVAL) {
            lab.start(sender);
        }
        lab.one(if fate == Victim::Lives { 3 } else { 2 });
        let bytes = lab.log_bytes();
        assert!(bytes < MAX_LOG_BYTES, "a log of {bytes} bytes");
        if fate != Victim::Lives {
            lab.restart(victim);
            lab.connect(victim);
            lab.one(3);
            leader = lab.check_one_leader();
        }
    }
    let installs = lab.world.coverage.installs;
    assert!(fate == Victim::Lives || installs >= 5, "only {installs} snapshots were installed");
}

/// All crash at once, again and again.
#[test]
fn snapshot_all_crash() {
    on_both_networks(3, |lab| {
        let mut lab = lab.with_snapshots();
        lab.one(3);
        for _ in 0..5 {
            for _ in 0..SNAPSHOT_INTERVAL / 2 + lab.random(SNAPSHOT_INTERVAL) {
                lab.one(3);
            }
            let before = lab.one(3);
            lab.restart_all();
            let after = lab.one(3);
            assert!(after > before, "entry {after} comes after entry {before}");
        }
    });
}

/// A snapshot, and a restart with next to nothing in the log behind it.
#[test]
fn snapshot_init() {
    on_both_networks(3, |lab| {
        let mut lab = lab.with_snapshots();
        lab.one(3);
        for _ in 0..=SNAPSHOT_INTERVAL {
            lab.one(3);
        }
        lab.restart_all();
        lab.one(3);
        lab.restart_all();
        lab.one(3);
        assert!(lab.log_bytes() < MAX_LOG_BYTES);
    });
}
