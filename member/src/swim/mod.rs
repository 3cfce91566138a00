//! SWIM without I/O: who seems to be alive, decided from datagrams and the passing of time alone.
//!
//! [`Swim`] has no clock, no socket and no randomness but a seeded one: the daemon and the simulation run the same
//! code. A call returns an [`Output`]: datagrams to send and things worth logging.
//!
//! **Detecting** (SWIM §3.1, §4.3). In each protocol period one other member is pinged, in a shuffled order in which
//! everyone has a turn. Without an answer a few helpers are asked to ping it too; without any answer by the end of the
//! period it is *suspect*. A suspect that does not refute in time is *dead*. Local health and confirmations
//! (Lifeguard) make whoever is in trouble itself slow to accuse, and lone accusers slow to be believed.
//!
//! **Spreading** (SWIM §4.1). News rides on every message and, while there is any, on a few messages of its own.
//! [`Standing::is_replaced_by`] decides which news wins. A message to someone who is not held alive begins with what
//! is held against it, so that it can refute at once: with a higher incarnation, which only it may make.
//!
//! **Converging.** From time to time the view is compared with a random member's and exchanged if it differs, so that
//! lost news does no lasting harm. While no one else is alive, seeds and dead members are tried every second, and
//! slowly for ever after, so that groups that lost sight of each other merge again.
//!
//! # Where we differ from the papers
//! - State and profile are separate registers (see [`table`]).
//! - Dead members are kept and retried; the papers forget them.
//! - A second direct ping goes out beside the indirect ones: losing one datagram is more likely than losing a path.
//! - Somebody else's suspect is probed next, which finds both the confirmation and the refutation sooner.
//! - Whoever wakes up late puts its suspicions off by the time it slept.
//! - Nobody is buried on hearsay alone: everyone who is about to bury a suspect calls it first, twice.
//! - Whoever accuses us of an incarnation that we have outbid is told so directly.

pub mod dissemination;
pub mod health;
pub mod member;
pub mod message;
mod news;
pub mod probe;
mod receive;
mod schedule;
mod send;
pub mod settings;
pub mod suspicion;
pub mod table;

use std::net::SocketAddr;

use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};

pub use member::{Incarnation, MemberId, Profile, Standing, State, Tags, TagsError};
pub use message::MalformedBody;
pub use settings::Settings;

use crate::codec::{Codec, Unreadable};
use crate::key::KeyRing;
use dissemination::Dissemination;
use health::Health;
use probe::{Probe, Relays};
use schedule::Timers;
use table::Table;

/// What a member starts with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its id.
    pub id: MemberId,
    /// Above every one that it has used before.
    pub incarnation: Incarnation,
    /// What it says of itself.
    pub profile: Profile,
    /// Shared keys, if any.
    pub keys: KeyRing,
    /// How the protocol behaves.
    pub settings: Settings,
    /// Of everything random.
    pub seed: [u8; 32],
    /// The time, in ms since any moment that stays the same.
    pub now_ms: u64,
}

/// One datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where to.
    pub to: SocketAddr,
    /// At most [`MAX_DATAGRAM_BYTES`](crate::codec::MAX_DATAGRAM_BYTES).
    pub bytes: Vec<u8>,
}

/// What to do after a call.
#[derive(Debug, Default)]
pub struct Output {
    /// Send these; losing one does no harm.
    pub send: Vec<Datagram>,
    /// Resolve the seeds and call [`Swim::join`] with what they resolve to.
    pub try_seeds: bool,
    /// For the log.
    pub events: Vec<Event>,
}

/// Something that an operator may want to read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The belief about a member changed.
    StateChanged {
        /// Who.
        id: MemberId,
        /// Its name.
        name: String,
        /// Where it gossips.
        address: SocketAddr,
        /// The former state, if it was known.
        before: Option<State>,
        /// The new one.
        after: State,
        /// That it is about.
        incarnation: Incarnation,
    },
    /// Someone held us for suspect, dead or left; we said otherwise under a new incarnation.
    Refuted {
        /// What they held.
        claim: State,
        /// Our new one.
        incarnation: Incarnation,
    },
    /// Another process uses our id at this address: a copied data directory, or our own earlier life.
    IdConflict {
        /// The other address.
        address: SocketAddr,
    },
    /// A datagram was dropped.
    Dropped {
        /// Its source.
        from: SocketAddr,
        /// Why.
        reason: DropReason,
    },
    /// A member could not be added.
    TableFull {
        /// Who.
        id: MemberId,
    },
    /// This process did not run for a while: stopped, swapped out, or its machine asleep.
    WasAway {
        /// For how long.
        away_ms: u64,
    },
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// By its wrapping.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// By its content.
    #[error(transparent)]
    Malformed(#[from] MalformedBody),
}

/// What went through since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams taken.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Datagrams dropped, foreign ones included.
    pub dropped: u64,
    /// Datagrams of other clusters.
    pub foreign: u64,
}

/// One member's side of the protocol.
pub struct Swim {
    settings: Settings,
    rng: ChaCha12Rng,
    codec: Codec,
    id: MemberId,
    own: Standing,
    profile: Profile,
    table: Table,
    news: Dissemination,
    probe: Option<Probe>,
    relays: Relays,
    health: Health,
    timers: Timers,
    last_seq: u64,
    sync_cursor: MemberId,
    view_version: u64,
    counters: Counters,
    output: Output,
}

impl Swim {
    /// A member that knows nobody yet.
    pub fn new(start: Start) -> Self {
        let mut rng = ChaCha12Rng::from_seed(start.seed);
        let timers = Timers::start(start.now_ms, &start.settings, &mut rng);
        Self {
            codec: Codec::new(start.profile.tags.cluster, start.keys),
            id: start.id,
            own: Standing::new(State::Alive, start.incarnation),
            profile: start.profile,
            table: Table::default(),
            news: Dissemination::default(),
            probe: None,
            relays: Relays::default(),
            health: Health::new(start.settings.health_max),
            timers,
            last_seq: u64::from(rng.random::<u32>()),
            sync_cursor: MemberId(0),
            view_version: 1,
            counters: Counters::default(),
            output: Output::default(),
            settings: start.settings,
            rng,
        }
    }

    /// A datagram arrived. Others' bytes: whatever they are, nothing panics.
    pub fn handle(&mut self, now_ms: u64, from: SocketAddr, datagram: &[u8]) -> Output {
        self.wake(now_ms);
        self.counters.received += 1;
        self.counters.received_bytes += datagram.len() as u64;
        self.receive(now_ms, from, datagram);
        self.finish()
    }

    /// Time has passed; due at [`Swim::next_tick_ms`], harmless at any other time.
    pub fn tick(&mut self, now_ms: u64) -> Output {
        self.wake(now_ms);
        self.run_timers(now_ms);
        self.finish()
    }

    /// Asks whoever is at `address` to be let in.
    pub fn join(&mut self, address: SocketAddr) -> Output {
        self.send_join(address, None);
        std::mem::take(&mut self.output)
    }

    /// Says that we leave. Others' probes are still answered.
    pub fn leave(&mut self) -> Output {
        if self.own.state != State::Left {
            self.own.state = State::Left;
            self.probe = None;
            self.spread_own_news();
            self.gossip_to(usize::MAX);
        }
        std::mem::take(&mut self.output)
    }

    /// Undoes [`Swim::leave`].
    pub fn come_back(&mut self) {
        if self.own.state == State::Left {
            self.renew(self.own.incarnation);
        }
    }

    /// Replaces the tags; they must have passed [`Tags::check`].
    pub fn set_tags(&mut self, tags: Tags) {
        if self.profile.tags == tags {
            return;
        }
        self.codec.cluster = tags.cluster;
        self.profile.tags = tags;
        let codec = self.codec.clone();
        let strangers =
            self.table.retain(|entry| codec.is_compatible(entry.profile().tags.cluster));
        self.stop_spreading(&strangers);
        match self.own.state {
            State::Left => self.view_version += 1,
            State::Alive | State::Suspect | State::Dead => self.renew(self.own.incarnation),
        }
    }

    /// Whether our own latest news still has to be passed on.
    pub fn has_own_news(&self) -> bool {
        self.news.contains(self.id) && !self.table.is_lonely()
    }

    /// Our id.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Our own tags.
    pub fn tags(&self) -> &Tags {
        &self.profile.tags
    }

    /// Our own state, alive or left, and incarnation.
    pub fn own_standing(&self) -> Standing {
        self.own
    }

    /// What we say of ourselves.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Changes whenever [`Swim::view`] does; starts at 1.
    pub fn view_version(&self) -> u64 {
        self.view_version
    }

    /// Everyone, ourselves included, by id.
    pub fn view(&self) -> Vec<(MemberId, Standing, &Profile)> {
        let others = self.table.iter().map(|(id, entry)| (id, entry.standing(), entry.profile()));
        let mut view: Vec<_> = others.chain([(self.id, self.own, &self.profile)]).collect();
        view.sort_unstable_by_key(|(id, ..)| *id);
        view
    }

    /// Lifeguard's local health: 0 is healthy.
    pub fn health_score(&self) -> u32 {
        self.health.score()
    }

    /// What went through since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Notices if we were away, before anything else is done.
    fn wake(&mut self, now_ms: u64) {
        let late_ms = now_ms.saturating_sub(self.timers.planned_ms);
        if late_ms > self.settings.away_after_ms {
            self.table.put_off_suspicions(late_ms);
            self.probe = None;
            self.health.worsen(1);
            self.output.events.push(Event::WasAway { away_ms: late_ms });
        }
        self.timers.planned_ms = self.timers.planned_ms.max(now_ms);
    }

    fn finish(&mut self) -> Output {
        self.timers.planned_ms = self.timers.planned_ms.max(self.next_tick_ms());
        std::mem::take(&mut self.output)
    }
}
