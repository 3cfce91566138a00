//! A network that loses, delays, reorders and repeats messages, and that can be cut in one direction only.

use std::collections::{BTreeMap, BTreeSet};

use raft::consensus::{Entry, Envelope, Message, NodeId};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

/// A late answer takes that long at least, and up to so many ticks more.
const LATE_TICKS: u64 = 20;
const LATER_TICKS: u64 = 200;
/// A hundred heartbeats.
pub const STRAGGLER_TICKS: u64 = 200;

/// What a message without entries takes on a wire, about.
const HEADER_BYTES: usize = 64;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Chance that a message is lost.
    pub loss: f64,
    /// Chance that a message arrives twice.
    pub duplication: f64,
    /// Longest delay, in ticks, inclusive; two messages with different delays overtake each other.
    pub delay_ticks: u64,
    /// Chance that an answer is held back for [`LATE_TICKS`] and a part of [`LATER_TICKS`].
    pub late_answers: f64,
    /// Chance that a copy is held back for up to `straggler_ticks`: until its term, or its sender's whole reign, is over.
    pub stragglers: f64,
    /// [`STRAGGLER_TICKS`], mostly.
    pub straggler_ticks: u64,
}

impl Weather {
    pub const CALM: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        delay_ticks: 0,
        late_answers: 0.0,
        stragglers: 0.0,
        straggler_ticks: STRAGGLER_TICKS,
    };
}

/// Messages under way and links that are cut.
#[derive(Debug)]
pub struct Network {
    pub weather: Weather,
    under_way: BTreeMap<(u64, u64), Envelope>,
    sent: u64,
    /// Requests that somebody sent, lost ones too; a copy is none.
    pub requests: u64,
    /// About the bytes of all that was sent, answers too.
    pub bytes: usize,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Large messages are lost, all of those with entries, and small ones pass.
    pub passes_only_small: bool,
}

impl Network {
    pub fn new(weather: Weather) -> Self {
        Self {
            weather,
            under_way: BTreeMap::new(),
            sent: 0,
            requests: 0,
            bytes: 0,
            cut: BTreeSet::new(),
            passes_only_small: false,
        }
    }

    /// Says whether at least one copy is under way.
    pub fn send(&mut self, now: u64, envelope: Envelope, rng: &mut Xoshiro256PlusPlus) -> bool {
        self.requests += u64::from(!envelope.body.is_answer());
        self.bytes += size_bytes(&envelope);
        let too_large = self.passes_only_small && size_bytes(&envelope) > HEADER_BYTES;
        let cut = self.cut.contains(&(envelope.from, envelope.to));
        if cut || too_large || rng.random_bool(self.weather.loss) {
            return false;
        }
        if rng.random_bool(self.weather.duplication) {
            self.enqueue(now, envelope.clone(), rng);
        }
        self.enqueue(now, envelope, rng);
        true
    }

    /// The next message that is due.
    pub fn receive(&mut self, now: u64) -> Option<Envelope> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Nothing passes from `from` to `to` any more.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Connections of this node are gone with all that was on them.
    pub fn reset(&mut self, node: NodeId) {
        self.under_way.retain(|_, envelope| envelope.from != node);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    fn enqueue(&mut self, now: u64, envelope: Envelope, rng: &mut Xoshiro256PlusPlus) {
        let straggles = rng.random_bool(self.weather.stragglers);
        let longest =
            if straggles { self.weather.straggler_ticks } else { self.weather.delay_ticks };
        let is_late = self.weather.late_answers > 0.0
            && envelope.body.is_answer()
            && rng.random_bool(self.weather.late_answers);
        let delay = rng.random_range(0..=longest);
        let delay = if is_late { late_ticks(rng) } else { delay };
        let due = now + delay;
        // A random number in front of the serial one shuffles what is due in the same tick.
        let order = if longest == 0 { 0 } else { rng.random_range(0..16) };
        self.sent += 1;
        self.under_way.insert((due, order << 48 | self.sent), envelope);
    }
}

/// What a message takes on a wire, about.
fn size_bytes(envelope: &Envelope) -> usize {
    let entries = match &envelope.body {
        Message::Append(request) => request.entries.iter().map(Entry::weight_bytes).sum(),
        Message::PreVote(_)
        | Message::PreVoteResponse(_)
        | Message::Vote(_)
        | Message::VoteResponse(_)
        | Message::AppendResponse(_)
        | Message::InstallSnapshot(_)
        | Message::SnapshotResponse(_)
        | Message::TimeoutNow => 0,
    };
    HEADER_BYTES + entries
}

/// Short delays are more frequent than long ones.
fn late_ticks(rng: &mut Xoshiro256PlusPlus) -> u64 {
    let most = rng.random_range(0..=LATER_TICKS);
    LATE_TICKS + rng.random_range(0..=most)
}
