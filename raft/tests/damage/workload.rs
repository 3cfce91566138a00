//! What a node does with its directory: random, and such as a correct core could ask for.

use std::rc::Rc;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use raft::consensus::{Index, LogId, SnapshotMeta};
use raft::identity::Identity;
use raft::snapshot::Description;

use crate::log_model::{History, Model, Step};
use crate::snapshot_model::Content;

/// Operations of the disk that a workload has at least.
pub(crate) const LEAST_OPERATIONS: usize = 200;
/// Steps of the log in a workload.
const STEPS: usize = 50;
/// Snapshots that a store keeps.
const KEPT_SNAPSHOTS: usize = 2;

/// One thing that it does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// The process ends in whatever way, and starts again.
    Boot,
    /// A new cluster is made.
    Found,
    /// The new cluster has its first configuration.
    FinishFounding,
    /// A step of the log.
    Log(Step),
    /// A snapshot is taken.
    Take(Content),
    /// A leader's snapshot arrives, in pieces, with a break.
    Receive(Content),
    /// The newest snapshot rots in the middle.
    Rot,
    /// That is found, and the snapshot set aside.
    SetAside,
}

/// What the directory must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) log: Model,
    /// The newest ones, oldest first.
    pub(crate) snapshots: Vec<Content>,
    /// All that ever were: the removal of an old one is not durable at once, and need not be.
    past: Vec<Rc<Content>>,
    /// The newest one is damaged in its middle.
    pub(crate) rotten: bool,
    /// As it was when the act was over; none before the first start.
    pub(crate) identity: Option<Identity>,
}

impl State {
    fn follow(&mut self, act: &Act) {
        match act {
            Act::Log(step) => self.log.follow(step),
            Act::Take(content) | Act::Receive(content) => self.list(content.clone()),
            Act::Rot => self.rotten = true,
            Act::SetAside => {
                self.snapshots.pop();
                self.rotten = false;
            }
            Act::Boot | Act::Found | Act::FinishFounding => {}
        }
    }

    fn list(&mut self, content: Content) {
        self.past.push(Rc::new(content.clone()));
        self.snapshots.retain(|known| known.meta.last != content.meta.last);
        self.snapshots.push(content);
        self.snapshots.sort_by_key(|known| (known.meta.last.index, known.meta.last.term));
        let too_many = self.snapshots.len().saturating_sub(KEPT_SNAPSHOTS);
        self.snapshots.drain(..too_many);
    }

    /// Whether these are the snapshots that there are, and perhaps older ones.
    pub(crate) fn lists(&self, found: &[Description]) -> bool {
        let Some(older) = found.len().checked_sub(self.snapshots.len()) else { return false };
        let expected = self.snapshots.iter().map(|content| &content.meta);
        found.len() <= KEPT_SNAPSHOTS
            && expected.eq(found[older..].iter().map(|found| &found.meta))
            && found[..older].iter().all(|found| self.content(found).is_some())
    }

    /// What was taken or received under this description.
    pub(crate) fn content(&self, of: &Description) -> Option<&Content> {
        let content = self.past.iter().rfind(|content| content.meta == of.meta);
        content.map(|content| &**content)
    }

    fn newest(&self) -> Index {
        self.snapshots.last().map_or(Index(0), |newest| newest.meta.last.index)
    }

    /// The log needs no snapshot but the older one.
    fn can_spare_the_newest(&self) -> bool {
        let base = self.log.base.as_ref().map_or(Index(0), |base| base.last.index);
        let [older, newest] = &self.snapshots[..] else { return false };
        older.meta.last.index >= base && newest.meta.last.index > base
    }
}

/// Acts, each with the state after it.
pub(crate) fn workload(seed: u64) -> Vec<(Act, State)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut history = History::new(seed);
    let mut acts = Acts::default();
    for act in [Act::Boot, Act::Found, Act::FinishFounding] {
        acts.push(act);
    }
    for _ in 0..STEPS {
        let step = history.step(&acts.state.log);
        if let Step::Compact(base) | Step::Trail { base, .. } = &step {
            if acts.contradict(base) {
                continue;
            }
            acts.cover(base, &mut rng);
        }
        acts.push(if matches!(step, Step::Reopen) { Act::Boot } else { Act::Log(step) });
        if rng.random_bool(0.2) {
            acts.take_more(&mut rng);
        }
        if rng.random_bool(0.2) && acts.state.can_spare_the_newest() {
            acts.push(Act::Rot);
            acts.push(Act::SetAside);
        }
    }
    acts.done
}

fn content(meta: SnapshotMeta, rng: &mut ChaCha8Rng) -> Content {
    let mut bytes = |most: usize| vec![rng.random::<u8>(); rng.random_range(0..most)];
    Content { meta, image: bytes(700), machine: bytes(3000) }
}

#[derive(Default)]
struct Acts {
    state: State,
    done: Vec<(Act, State)>,
}

impl Acts {
    fn push(&mut self, act: Act) {
        self.state.follow(&act);
        self.done.push((act, self.state.clone()));
    }

    /// No leader sends a snapshot of another history than the one that is committed here.
    fn contradict(&self, base: &SnapshotMeta) -> bool {
        let same_place = |id: &LogId| id.index == base.last.index && *id != base.last;
        self.state.log.entries.iter().any(|entry| same_place(&entry.id))
    }

    /// What the log drops is in a snapshot before.
    fn cover(&mut self, base: &SnapshotMeta, rng: &mut ChaCha8Rng) {
        if base.last.index <= self.state.newest() {
            return;
        }
        let content = content(base.clone(), rng);
        let is_ours = base.last.index <= self.state.log.last().index;
        self.push(if is_ours { Act::Take(content) } else { Act::Receive(content) });
    }

    /// A snapshot beyond what the log has dropped, or will drop next.
    fn take_more(&mut self, rng: &mut ChaCha8Rng) {
        let log = &self.state.log;
        let last = log.entries.iter().rfind(|entry| entry.id.index <= log.commit_index);
        if let Some(last) = last.filter(|last| last.id.index > self.state.newest()) {
            self.push(Act::Take(content(log.describe(last.id), rng)));
        }
    }
}
