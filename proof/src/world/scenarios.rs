//! Which lines of docs/scenarios.md worlds bring about, told by what was counted in them.

use super::coverage::Coverage;

/// A line, and what must have been counted in one world for it to have happened there: all of these.
const LINES: [(&str, &[&str]); 32] = [
    ("S1", &["crashes in the middle of a write or sync"]),
    ("S3", &["bits flipped in a log", "starts refused because of damage"]),
    ("S4", &["writes that landed elsewhere"]),
    ("S5", &["disks that forgot what they said was durable"]),
    ("S6", &["refused writes or syncs", "ends of raft because its log failed"]),
    ("S7", &["writes refused for want of room"]),
    ("S9", &["hanging disks"]),
    ("S10", &["slow disks"]),
    ("S11", &["crashes while a snapshot is written"]),
    ("S12", &["transfers of snapshots resumed", "transfers of snapshots finished"]),
    ("S13", &["bits flipped in a snapshot"]),
    ("S15", &["machines with new disks"]),
    ("N1", &["partitions in two"]),
    ("N2", &["one-way cuts"]),
    ("N3", &["partial partitions"]),
    ("N5", &["changes of weather"]),
    ("N7", &["link resets"]),
    ("P1", &["kills of raft", "power cuts of all machines", "ends of raft right after a start"]),
    ("P2", &["pauses of raft"]),
    ("P4", &["clock jumps"]),
    ("C17", &["transfers of snapshots finished"]),
    ("M2", &["configurations in force", "role changes"]),
    ("M4", &["nodes that left"]),
    ("M6", &["partitions in two", "nodes that left", "kills of raft"]),
    ("M12", &["kills of a member", "pauses of a member"]),
    ("M18", &["strays that dial a state machine", "strays that were turned away"]),
    ("K1", &["link resets", "kills of raft", "role changes"]),
    ("K2", &["restores finished"]),
    ("A1", &["kills of a state machine"]),
    ("A5", &["pauses of a state machine"]),
    ("A6", &["broken links to a state machine"]),
    ("A9", &["ends of a state machine in the middle of a restore", "restores finished"]),
];

/// The lines that worlds can bring about, as the list has them.
pub fn all() -> impl Iterator<Item = &'static str> {
    LINES.into_iter().map(|(line, _)| line)
}

/// Those that one world did.
pub fn met(coverage: &Coverage) -> impl Iterator<Item = &'static str> {
    let happened =
        |what: &&str| coverage.faults.contains_key(what) || coverage.seen.contains_key(what);
    LINES.into_iter().filter(move |(_, marks)| marks.iter().all(happened)).map(|(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::coverage::EXPECTED;
    use crate::world::nemesis::fault_names;

    #[test]
    fn every_line_is_in_the_list_and_every_mark_is_counted() {
        let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scenarios.md");
        let list = std::fs::read_to_string(list).unwrap();
        let counted: Vec<_> = EXPECTED.into_iter().chain(fault_names()).collect();
        for (line, marks) in LINES {
            assert!(list.contains(&format!("\n| {line} | ")), "{line} is not in the list");
            for mark in marks {
                assert!(counted.contains(mark), "{line}: nobody counts {mark:?}");
            }
        }
    }

    #[test]
    fn a_line_has_happened_when_all_its_marks_were_seen() {
        let mut coverage = Coverage::default();
        coverage.fault("refused writes or syncs");
        assert_eq!(met(&coverage).count(), 0);
        coverage.count("ends of raft because its log failed");
        assert!(met(&coverage).eq(["S6"]));
    }
}
