//! What a run has seen: too little of it proves nothing.

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    pub leaders: u64,
    pub committed: u64,
    pub reads: u64,
    pub changes: u64,
    pub installs: u64,
    pub trailing: u64,
    pub broken_streams: u64,
    pub replaced_logs: u64,
    pub fetches: u64,
    pub crashes: u64,
    pub truncations: u64,
    pub joint_leaders: u64,
    pub handovers: u64,
    pub strandings: u64,
    pub releases: u64,
    pub leaves: u64,
    pub returns: u64,
}

impl Coverage {
    pub fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.committed += other.committed;
        self.reads += other.reads;
        self.changes += other.changes;
        self.installs += other.installs;
        self.trailing += other.trailing;
        self.broken_streams += other.broken_streams;
        self.replaced_logs += other.replaced_logs;
        self.fetches += other.fetches;
        self.crashes += other.crashes;
        self.truncations += other.truncations;
        self.joint_leaders += other.joint_leaders;
        self.handovers += other.handovers;
        self.strandings += other.strandings;
        self.releases += other.releases;
        self.leaves += other.leaves;
        self.returns += other.returns;
    }

    /// A thin run is a failure of the harness.
    pub fn demand_per_hundred_seeds(&self, hundreds: u64) {
        let table = [
            ("leaders", self.leaders, 300),
            ("committed entries", self.committed, 4_000),
            ("answered reads", self.reads, 500),
            ("changes of the configuration", self.changes, 100),
            ("installed snapshots", self.installs, 20),
            ("compactions that left entries", self.trailing, 20),
            ("broken streams", self.broken_streams, 10),
            ("logs that a snapshot replaced at a restart", self.replaced_logs, 2),
            ("fetches", self.fetches, 20),
            ("crashes", self.crashes, 300),
            ("truncations", self.truncations, 20),
            ("elections in a joint configuration", self.joint_leaders, 5),
            ("handovers", self.handovers, 100),
            ("stranded leaders", self.strandings, 100),
            ("voters that were let go", self.releases, 10),
            ("nodes that left", self.leaves, 20),
            ("voters that came back", self.returns, 2),
        ];
        for (what, seen, least) in table {
            assert!(seen >= least * hundreds, "a thin run: only {seen} {what}");
        }
    }
}
