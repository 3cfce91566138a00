//! The core and its disk, carried out as the runtime would.

use std::collections::VecDeque;

use raft::consensus::{
    BatchNo, Config, Entry, Envelope, HardState, Index, Input, LogId, Output, Persist, Raft,
    SnapshotMeta,
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
}

impl Node {
    /// A node that starts with an empty disk.
    pub fn new(config: Config) -> Self {
        let mut node = Self {
            config,
            raft: None,
            disk: Disk::default(),
            held: VecDeque::new(),
            incarnation: 0,
        };
        node.start();
        node
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
        let mut node = Self { config, raft: None, disk, held: VecDeque::new(), incarnation: 0 };
        node.start();
        node
    }

    pub fn start(&mut self) {
        assert!(self.raft.is_none(), "started twice");
        self.incarnation += 1;
        let config = Config { seed: self.config.seed ^ self.incarnation, ..self.config.clone() };
        self.raft = Some(Raft::new(config, self.disk.restore(2)));
    }

    /// The process dies. Of what was not synced, this many batches have reached the disk by chance.
    pub fn crash(&mut self, surviving_batches: usize) {
        self.raft = None;
        self.held.clear();
        self.disk.crash(surviving_batches);
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
        if let Some(to) = output.compact_to {
            self.disk.compact(to);
        }
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
            return None;
        }
        self.disk.sync(batches);
        let batch = self.disk.durable_batch();
        let mut released = Vec::new();
        while let Some((_, messages)) = self.held.pop_front_if(|(after, _)| *after <= batch) {
            released.extend(messages);
        }
        let hard_state = self.disk.durable_hard_state();
        Some((Input::Synced { batch, hard_state, last: self.disk.durable_last() }, released))
    }

    /// Describes a snapshot of everything that the state machine may have applied, and stores it.
    pub fn take_snapshot(&mut self) -> Option<SnapshotMeta> {
        let index = self.raft().ready_index();
        let term = self.raft().term_at(index).filter(|_| index > Index(0))?;
        let (membership_index, membership) = self.disk.membership_at(index);
        let meta = SnapshotMeta { last: LogId { term, index }, membership, membership_index };
        self.disk.store_snapshot(meta.clone());
        Some(meta)
    }
}
