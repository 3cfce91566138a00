//! What a log should hold, and random histories of one.

use std::path::Path;
use std::sync::Arc;

use raft::consensus::{
    BatchNo, Entry, HardState, Index, LogId, Membership, NodeId, NodeInfo, Payload, Persist,
    Restored, SnapshotMeta, Term,
};
use raft::wal::{Disk, OpenError, Options, Wal, WriteError};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::simulated_disk::SimulatedDisk;

/// Where the logs of these tests lie.
pub(crate) const DIR: &str = "/wal";

/// Small segments, everything in a fixed order.
pub(crate) fn options() -> Options {
    Options { segment_bytes: 4096, tail_cache_bytes: 3000, sync: true, background: false, seed: 1 }
}

/// Opens the log; each open gets its own salts.
pub(crate) fn open<D: Disk + 'static>(
    disk: &Arc<D>,
    seed: u64,
) -> Result<(Wal, Restored), OpenError> {
    let disk: Arc<dyn Disk> = Arc::<D>::clone(disk);
    Wal::open(disk, Path::new(DIR), Options { seed, ..options() })
}

/// One step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One append of these batches.
    Append(Vec<Persist>),
    /// The log begins after this.
    Compact(SnapshotMeta),
    /// The log is asked how far it may be compacted so that so many bytes of the entries up to an index stay, and begins after
    /// that, if that is any progress.
    Trail { index: Index, keep_bytes: u64, base: SnapshotMeta },
    /// The process ends and starts again; nothing is lost.
    Reopen,
}

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    pub(crate) base: Option<SnapshotMeta>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) commit_index: Index,
}

impl Model {
    /// End of the log.
    pub(crate) fn last(&self) -> LogId {
        let base = self.base.as_ref().map_or(LogId::default(), |base| base.last);
        self.entries.last().map_or(base, |entry| entry.id)
    }

    fn first(&self) -> u64 {
        self.last().index.0 + 1 - self.entries.len() as u64
    }

    fn membership(&self) -> (Index, Membership) {
        let of_entries = self.entries.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.id.index, (**membership).clone())),
            Payload::Noop | Payload::Command(_) => None,
        });
        let of_base =
            || self.base.as_ref().map(|base| (base.membership_index, base.membership.clone()));
        of_entries.or_else(of_base).unwrap_or_default()
    }

    /// Follows a step.
    pub(crate) fn follow(&mut self, step: &Step) {
        match step {
            Step::Append(batches) => batches.iter().for_each(|batch| self.persist(batch)),
            Step::Compact(base) | Step::Trail { base, .. } => self.compact(base),
            Step::Reopen => {}
        }
    }

    /// Describes the log at one of its entries, or at its base.
    pub(crate) fn describe(&self, last: LogId) -> SnapshotMeta {
        let up_to = |entry: &&Entry| entry.id.index <= last.index;
        let entries = self.entries.iter().filter(up_to).cloned().collect();
        let (membership_index, membership) = Self { entries, ..self.clone() }.membership();
        SnapshotMeta { last, membership, membership_index }
    }

    /// Where the log may begin so that of the entries up to `index` at least so many bytes of records stay.
    fn trailing(&self, index: Index, keep_bytes: u64) -> LogId {
        let mut bytes = 0;
        for entry in self.entries.iter().rev().filter(|entry| entry.id.index <= index) {
            if bytes >= keep_bytes {
                return entry.id;
            }
            bytes += record_bytes(entry);
        }
        self.base.as_ref().map_or(LogId::default(), |base| base.last)
    }

    fn persist(&mut self, batch: &Persist) {
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = batch.truncate_from {
            self.entries.retain(|entry| entry.id.index < from);
        }
        self.entries.extend(batch.append.iter().cloned());
        self.commit_index = self.commit_index.max(batch.commit_index);
    }

    fn compact(&mut self, meta: &SnapshotMeta) {
        if meta.last.index <= self.base.as_ref().map_or(Index(0), |base| base.last.index) {
            return;
        }
        if self.entries.iter().any(|entry| entry.id == meta.last) {
            self.entries.retain(|entry| entry.id.index > meta.last.index);
        } else {
            self.entries.clear();
        }
        self.base = Some(meta.clone());
        self.commit_index = self.commit_index.max(meta.last.index);
    }

    /// Whether this may be what was found; [`Model::check`] looks closer.
    pub(crate) fn is_like(&self, restored: &Restored) -> bool {
        (self.last(), self.hard_state, self.commit_index, &self.base)
            == (restored.last, restored.hard_state, restored.commit_index, &restored.base)
    }

    /// Panics unless the log holds exactly this.
    pub(crate) fn check(&self, wal: &mut Wal, restored: &Restored) {
        assert_eq!(restored.hard_state, self.hard_state);
        assert_eq!((&restored.base, &restored.snapshot), (&self.base, &None));
        assert_eq!(restored.last, self.last());
        assert_eq!(restored.commit_index, self.commit_index);
        assert_eq!(restored.terms, self.terms());
        assert_eq!(restored.memberships, self.memberships());
        assert!(self.entries.ends_with(&restored.tail), "the tail is the end of the log");
        let limit = options().tail_cache_bytes;
        let next = self.entries.len().checked_sub(restored.tail.len() + 1);
        assert!(command_bytes(&restored.tail) <= limit, "the tail is bounded");
        assert!(
            next.is_none_or(|at| weight_bytes(&self.entries[at..]) > limit),
            "the tail is as long as it may be"
        );
        self.check_entries(wal);
    }

    /// Panics unless reading returns exactly these entries.
    pub(crate) fn check_entries(&self, wal: &mut Wal) {
        assert_eq!((wal.last(), wal.hard_state()), (self.last(), self.hard_state));
        assert_eq!(wal.first_index(), Index(self.first()));
        let (mut next, last) = (self.first(), self.last().index.0);
        let mut read = Vec::new();
        while next <= last {
            let some = wal.read(Index(next), Index(last), 1500).unwrap();
            assert!(!some.is_empty());
            next += some.len() as u64;
            read.extend(some);
        }
        assert_eq!(read, self.entries);
    }

    fn terms(&self) -> Vec<(Index, Term)> {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for Entry { id, .. } in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != id.term) {
                terms.push((id.index, id.term));
            }
        }
        terms
    }

    fn memberships(&self) -> Vec<(Index, Membership)> {
        let memberships = self.entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.id.index, (**membership).clone())),
            Payload::Noop | Payload::Command(_) => None,
        });
        memberships.collect()
    }
}

/// As the table of records says.
fn record_bytes(entry: &Entry) -> u64 {
    let payload = match &entry.payload {
        Payload::Noop => 0,
        Payload::Command(command) => command.len(),
        Payload::Membership(membership) => postcard::to_stdvec(&**membership).unwrap().len(),
    };
    21 + payload as u64
}

fn command_bytes(entries: &[Entry]) -> usize {
    let is_command = |entry: &&Entry| matches!(entry.payload, Payload::Command(_));
    entries.iter().filter(is_command).map(Entry::weight_bytes).sum()
}

fn weight_bytes(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::weight_bytes).sum()
}

/// Opens the log: it must hold the state after the first `acknowledged` steps, or after one more.
pub(crate) fn open_to(
    disk: &Arc<SimulatedDisk>,
    steps: &[(Step, Model)],
    acknowledged: usize,
    seed: u64,
) -> (Wal, Model) {
    let state = |count: usize| match count.min(steps.len()) {
        0 => Model::default(),
        count => steps[count - 1].1.clone(),
    };
    let opened = open(disk, seed);
    let (mut wal, restored) = opened.unwrap_or_else(|error| panic!("{error}\n{:#?}", disk.trace()));
    let states = [state(acknowledged), state(acknowledged + 1)];
    let model = states.into_iter().find(|model| model.is_like(&restored));
    let model =
        model.unwrap_or_else(|| panic!("a state that was never acknowledged: {restored:?}"));
    model.check(&mut wal, &restored);
    (wal, model)
}

/// Says, when a test fails, at which point of which history.
pub(crate) struct At {
    pub(crate) seed: u64,
    pub(crate) operation: usize,
}

impl Drop for At {
    #[expect(clippy::print_stderr, reason = "the only place where a failing test can say more")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("history {}, operation {}", self.seed, self.operation);
        }
    }
}

/// Carries out a step on a log; `Reopen` is the caller's.
pub(crate) fn carry_out(wal: &mut Wal, step: &Step) -> Result<(), WriteError> {
    match step {
        Step::Append(batches) => {
            let durable = wal.append(batches)?;
            assert_eq!(durable.batch, batches.last().unwrap().batch);
            assert_eq!((durable.last, durable.hard_state), (wal.last(), wal.hard_state()));
            Ok(())
        }
        Step::Compact(meta) => wal.compact(meta),
        Step::Trail { index, keep_bytes, base } => {
            assert_eq!(wal.trailing(*index, *keep_bytes), base.last.index, "{index} {keep_bytes}");
            wal.compact(base)
        }
        Step::Reopen => Ok(()),
    }
}

/// A random history that a correct core could ask for.
pub(crate) struct History {
    rng: ChaCha8Rng,
    batch: u64,
    /// Most payload bytes of a command.
    pub(crate) max_command_bytes: usize,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), batch: 0, max_command_bytes: 900 }
    }

    /// Random steps, with the state after each.
    pub(crate) fn steps(&mut self, count: usize) -> Vec<(Step, Model)> {
        let mut model = Model::default();
        let mut steps = Vec::new();
        for _ in 0..count {
            let step = self.step(&model);
            model.follow(&step);
            steps.push((step, model.clone()));
        }
        steps
    }

    /// A step that may follow.
    pub(crate) fn step(&mut self, model: &Model) -> Step {
        match self.rng.random_range(0..20) {
            0 => Step::Reopen,
            1 | 2 => self.snapshot(model).map_or(Step::Reopen, Step::Compact),
            3 | 4 => self.trail(model),
            _ => self.append(model),
        }
    }

    fn append(&mut self, model: &Model) -> Step {
        let mut after = model.clone();
        let batches = (0..self.rng.random_range(1..4)).map(|_| {
            let batch = self.persist(&after);
            after.persist(&batch);
            batch
        });
        Step::Append(batches.collect())
    }

    fn persist(&mut self, model: &Model) -> Persist {
        self.batch += 1;
        let mut persist = Persist { batch: BatchNo(self.batch), ..Persist::default() };
        let (mut last, mut term) = (model.last(), model.hard_state.term);
        if self.rng.random_bool(0.3) {
            term = Term(term.0.max(last.term.0) + 1);
            let vote = self.rng.random_bool(0.5).then(|| NodeId(self.rng.random_range(1..5)));
            persist.hard_state = Some(HardState { term, vote });
            if last.index > model.commit_index && self.rng.random_bool(0.6) {
                let from = Index(self.rng.random_range(model.commit_index.0 + 1..=last.index.0));
                persist.truncate_from = Some(from);
                last.index = from.prev();
            }
        }
        let count = if self.rng.random_bool(0.1) { 0 } else { self.rng.random_range(0..5) };
        for _ in 0..count {
            last = LogId::new(Term(term.0.max(last.term.0)), last.index.next());
            persist.append.push(Entry { id: last, payload: self.payload() });
        }
        let commit = model.commit_index.0..=last.index.0.max(model.commit_index.0);
        persist.commit_index = Index(self.rng.random_range(commit));
        persist
    }

    fn payload(&mut self) -> Payload {
        match self.rng.random_range(0..10) {
            0 => Payload::Noop,
            1 => Payload::Membership(Box::new(self.membership())),
            _ => {
                let bytes = self.rng.random_range(0..self.max_command_bytes);
                let start = self.rng.random_range(0..251);
                Payload::Command((0..=250).cycle().skip(start).take(bytes).collect())
            }
        }
    }

    fn membership(&mut self) -> Membership {
        let ids = (0..self.rng.random_range(1..6)).map(|_| NodeId(self.rng.random_range(1..9)));
        let nodes =
            ids.map(|id| (id, NodeInfo { name: format!("node {id}"), ..NodeInfo::default() }));
        let nodes: std::collections::BTreeMap<_, _> = nodes.collect();
        Membership { voters: nodes.keys().copied().collect(), nodes, ..Membership::default() }
    }

    fn trail(&mut self, model: &Model) -> Step {
        let index = Index(self.rng.random_range(0..=model.commit_index.0));
        let keep_bytes = self.rng.random_range(0..6000);
        Step::Trail { index, keep_bytes, base: model.describe(model.trailing(index, keep_bytes)) }
    }

    /// Of our own log up to the commit index, or sometimes one that is received.
    fn snapshot(&mut self, model: &Model) -> Option<SnapshotMeta> {
        let (membership_index, membership) = model.membership();
        let base = model.base.as_ref().map_or(0, |base| base.last.index.0);
        let last = if self.rng.random_bool(0.2) {
            let term = Term(model.last().term.0.max(model.hard_state.term.0));
            LogId::new(term, Index(model.last().index.0 + self.rng.random_range(0..5)))
        } else {
            if base >= model.commit_index.0 {
                return None;
            }
            let index = Index(self.rng.random_range(base + 1..=model.commit_index.0));
            model.entries.iter().find(|entry| entry.id.index == index)?.id
        };
        Some(SnapshotMeta { last, membership, membership_index: membership_index.min(last.index) })
    }
}
