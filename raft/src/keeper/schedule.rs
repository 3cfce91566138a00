//! When a snapshot is due.

/// Settings of the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Never before the log has grown by this many bytes since the last snapshot.
    pub floor_bytes: u64,
    /// Nor before it has grown by so many hundredths of that snapshot's size.
    pub ratio_percent: u64,
}

impl Schedule {
    /// Whether a log that has grown by `grown_bytes` since a snapshot of `snapshot_bytes` (zero without one) calls for another.
    /// A leader lets a quarter more come together, so that its followers are due before it.
    pub fn is_due(&self, grown_bytes: u64, snapshot_bytes: u64, leads: bool) -> bool {
        let share = snapshot_bytes / 100 * self.ratio_percent;
        let limit = self.floor_bytes.max(share);
        grown_bytes >= if leads { limit + limit / 4 } else { limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_larger_of_floor_and_ratio_decides() {
        let schedule = Schedule { floor_bytes: 64 * MIB, ratio_percent: 100 };
        // (grown, snapshot, leads) → due
        for (grown, snapshot, leads, due) in [
            (64, 0, false, true),
            (63, 0, false, false),
            (64, 63, false, true),
            (399, 400, false, false),
            (400, 400, false, true),
            (400, 400, true, false),
            (500, 400, true, true),
            (79, 0, true, false),
            (80, 0, true, true),
        ] {
            let is_due = schedule.is_due(grown * MIB, snapshot * MIB, leads);
            assert_eq!(is_due, due, "{grown} {snapshot} {leads}");
        }
    }
}
