//! The core and its disk, carried out as the runtime would.

use std::collections::VecDeque;

use raft::consensus::{
    BatchNo, Config, Entry, Envelope, HardState, Index, Input, Output, Persist, Raft, SnapshotMeta,
};

use super::disk::Disk;

/// One replica and what belongs to it. It can crash and start again; its disk stays.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    raft: Option<Raft>,
    pub disk: Disk,
    held: VecDeque<(BatchNo, Vec<Envelope>)>,
    /// How often it was started.
    pub incarnation: u64,
    /// What its state machine has applied, which outlives it.
    pub applied: Index,
}

impl Node {
    /// A node that starts with an empty disk.
    pub fn new(config: Config) -> Self {
        Self::with(config, Disk::default())
    }

    /// A node that starts with this on its disk.
    pub fn restored(
        config: Config,
        hard_state: HardState,
        entries: Vec<Entry>,
        commit_index: Index,
    ) -> Self {
        let mut disk = Disk::default();
        disk.write(Persist {
            hard_state: Some(hard_state),
            append: entries,
            commit_index,
            ..Persist::default()
        });
        disk.crash(1);
        Self::with(config, disk)
    }

    fn with(config: Config, disk: Disk) -> Self {
        let mut node = Self {
            config,
            raft: None,
            disk,
            held: VecDeque::new(),
            incarnation: 0,
            applied: Index(0),
        };
        node.start();
        node
    }

    pub fn start(&mut self) {
        assert!(self.raft.is_none(), "started twice");
        self.incarnation += 1;
        let config = Config { seed: self.config.seed ^ self.incarnation, ..self.config.clone() };
        self.raft = Some(Raft::new(config, self.disk.restore(2)));
        self.serve_machine();
    }

    /// The process dies. Of what was not synced, this many writes have reached the disk by chance.
    pub fn crash(&mut self, surviving_writes: usize) {
        self.raft = None;
        self.held.clear();
        self.disk.crash(surviving_writes);
    }

    pub fn is_up(&self) -> bool {
        self.raft.is_some()
    }

    pub fn up(&self) -> Option<&Raft> {
        self.raft.as_ref()
    }

    /// # Panics
    /// When it is down.
    pub fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the node is up")
    }

    /// Steps the core and carries out what concerns the disk. What is left in the output's messages may be sent now.
    pub fn step(&mut self, input: Input) -> Output {
        let (raft, mut output) = self.raft.take().expect("the node is up").step(input);
        self.raft = Some(raft);
        if let Some(persist) = output.persist.clone() {
            self.disk.write(persist);
        }
        if let Some(meta) = &output.install {
            let stored = self.disk.snapshot().map_or(Index(0), |stored| stored.last.index);
            assert!(stored >= meta.last.index, "what is installed is durable");
        }
        if let Some(base) = output.compact.clone() {
            self.disk.compact(base);
        }
        self.serve_machine();
        let waiting = std::mem::take(&mut output.messages_after_sync);
        if self.disk.pending_batches() == 0 {
            output.messages.extend(waiting);
        } else if !waiting.is_empty() {
            self.held.push_back((self.disk.newest_batch(), waiting));
        }
        output
    }

    /// Syncs this many batches. Returns the input that tells the core, and the messages that waited for it.
    pub fn sync(&mut self, batches: usize) -> Option<(Input, Vec<Envelope>)> {
        if batches == 0 || self.disk.pending_batches() == 0 {
            self.disk.sync(0);
            return None;
        }
        self.disk.sync(batches);
        let batch = self.disk.durable_batch();
        let mut released = Vec::new();
        while let Some((_, messages)) = self.held.pop_front_if(|(after, _)| *after <= batch) {
            released.extend(messages);
        }
        let hard_state = self.disk.durable_hard_state();
        Some((Input::Synced { batch, hard_state, last: self.disk.log_last() }, released))
    }

    /// The state machine applies up to here, as far as it may.
    pub fn apply(&mut self, to: Index) {
        self.applied = self.applied.max(to.min(self.raft().ready_index()));
    }

    /// A machine that lacks what the log no longer holds is restored from the newest snapshot.
    fn serve_machine(&mut self) {
        if self.applied.next() < self.raft().first_index() {
            let meta = self.disk.snapshot().expect("what was dropped is in a snapshot");
            self.applied = meta.last.index;
        }
    }

    /// Describes a snapshot of everything that the state machine may have applied, and stores it.
    pub fn take_snapshot(&mut self) -> Option<SnapshotMeta> {
        let meta = self.raft().describe(self.raft().ready_index())?;
        self.disk.store_snapshot(meta.clone());
        Some(meta)
    }
}
