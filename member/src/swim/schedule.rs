//! What happens by itself as time passes.

use std::net::SocketAddr;

use rand::RngExt;
use rand::rngs::ChaCha12Rng;

use super::Swim;
use super::member::{MemberId, State};
use super::message::Message;
use super::probe::{Probe, ProbeStep};
use super::settings::{MAX_SYNC_ANSWERS_PER_SECOND, Settings};
use super::table::Entry;

/// How long after the first welcome the view is asked for, at most, in ms. Spread out, because many join at once.
const FIRST_SYNC_WITHIN_MS: u64 = 500;
/// Least time between two introductions to strangers, in ms.
const INTRODUCE_EVERY_MS: u64 = 200;

/// When things are due, in the time of the caller, and what may be done no oftener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    probe_ms: u64,
    gossip_ms: u64,
    sync_ms: u64,
    rejoin_ms: u64,
    refill_ms: u64,
    introduce_ms: u64,
    sync_answers_left: u32,
    welcomed: bool,
    /// When the caller was told to call again.
    pub(super) planned_ms: u64,
}

impl Timers {
    /// Spreads the members' periods, so that they do not all speak at once. Seeds are tried at once.
    pub(super) fn start(now_ms: u64, settings: &Settings, rng: &mut ChaCha12Rng) -> Self {
        Self {
            probe_ms: now_ms + rng.random_range(0..settings.probe_interval_ms),
            gossip_ms: now_ms + rng.random_range(0..settings.gossip_interval_ms),
            sync_ms: now_ms + rng.random_range(0..settings.sync_interval_ms),
            rejoin_ms: now_ms,
            refill_ms: now_ms,
            introduce_ms: now_ms,
            sync_answers_left: MAX_SYNC_ANSWERS_PER_SECOND,
            welcomed: false,
            planned_ms: now_ms,
        }
    }

    /// Nobody else is left: seeds are due at the faster pace from now on.
    pub(super) fn try_again_soon(&mut self, now_ms: u64, settings: &Settings) {
        self.rejoin_ms = self.rejoin_ms.min(now_ms + settings.lonely_interval_ms);
    }

    pub(super) fn sync_soon(&mut self, now_ms: u64, rng: &mut ChaCha12Rng) {
        let soon_ms = now_ms + rng.random_range(0..FIRST_SYNC_WITHIN_MS);
        self.sync_ms = self.sync_ms.min(soon_ms);
    }

    pub(super) fn is_first_welcome(&mut self) -> bool {
        !std::mem::replace(&mut self.welcomed, true)
    }

    pub(super) fn may_introduce(&mut self, now_ms: u64) -> bool {
        let may = now_ms >= self.introduce_ms;
        if may {
            self.introduce_ms = now_ms + INTRODUCE_EVERY_MS;
        }
        may
    }

    pub(super) fn may_answer_sync(&mut self) -> bool {
        let may = self.sync_answers_left > 0;
        self.sync_answers_left = self.sync_answers_left.saturating_sub(1);
        may
    }

    fn refill(&mut self, now_ms: u64) {
        if now_ms >= self.refill_ms {
            self.refill_ms = now_ms + 1_000;
            self.sync_answers_left = MAX_SYNC_ANSWERS_PER_SECOND;
        }
    }
}

/// Between three and five quarters of `interval_ms`.
fn jittered(interval_ms: u64, rng: &mut ChaCha12Rng) -> u64 {
    interval_ms * 3 / 4 + rng.random_range(0..=interval_ms / 2)
}

impl Swim {
    /// When [`Swim::tick`] is due: the call may come later, at the price of slower detection.
    pub fn next_tick_ms(&self) -> u64 {
        let timers = &self.timers;
        let probe_ms = self.probe.as_ref().map(Probe::wakeup_ms);
        let gossip_ms = (!self.news.is_empty()).then_some(timers.gossip_ms);
        let regular_ms = timers.probe_ms.min(timers.sync_ms).min(timers.rejoin_ms);
        let suspicion_ms = self.table.next_suspicion_ms(self.patience_ms());
        let others = [probe_ms, gossip_ms, self.relays.wakeup_ms(), suspicion_ms];
        others.into_iter().flatten().fold(regular_ms, u64::min)
    }

    pub(super) fn run_timers(&mut self, now_ms: u64) {
        self.timers.refill(now_ms);
        self.run_suspicions(now_ms);
        self.run_relays(now_ms);
        self.run_probe(now_ms);
        self.run_gossip(now_ms);
        self.run_sync(now_ms);
        self.run_rejoin(now_ms);
    }

    fn is_taking_part(&self) -> bool {
        self.own.state != State::Left
    }

    fn run_relays(&mut self, now_ms: u64) {
        for relay in self.relays.due(now_ms) {
            self.send(relay.requester, relay.address, Message::Nack { seq: relay.requester_seq });
        }
    }

    fn run_probe(&mut self, now_ms: u64) {
        if let Some(probe) = self.probe.take() {
            match probe.step(now_ms) {
                ProbeStep::Wait => self.probe = Some(probe),
                ProbeStep::AskHelpers => self.ask_helpers(probe),
                ProbeStep::Failed { own_trouble } => {
                    self.health.worsen(own_trouble);
                    self.accuse(now_ms, probe.target());
                }
            }
        }
        if now_ms >= self.timers.probe_ms {
            self.timers.probe_ms = now_ms + self.health.stretch(self.settings.probe_interval_ms);
            self.start_probe(now_ms);
        }
    }

    fn start_probe(&mut self, now_ms: u64) {
        if !self.is_taking_part() || self.probe.is_some() {
            return;
        }
        let Some(target) = self.table.next_probe(self.id, &mut self.rng) else {
            self.health.improve();
            return;
        };
        let seq = self.next_seq();
        self.probe = Some(Probe::start(now_ms, target, seq, self.health, &self.settings));
        self.ping(target, seq);
    }

    fn ask_helpers(&mut self, mut probe: Probe) {
        let (target, seq) = (probe.target(), probe.seq());
        let helpers =
            self.table.sample(&mut self.rng, self.settings.indirect_probes, |id, entry| {
                id != target && entry.is_alive()
            });
        probe.asked(helpers.iter().map(|(id, _)| *id));
        self.probe = Some(probe);
        for (helper, address) in helpers {
            self.send(helper, address, Message::PingReq { seq, target });
        }
        self.ping(target, seq);
    }

    pub(super) fn ping(&mut self, target: MemberId, seq: u64) {
        if let Some(address) = self.table.get(target).map(Entry::address) {
            self.send(target, address, Message::Ping { seq });
        }
    }

    fn run_gossip(&mut self, now_ms: u64) {
        if now_ms >= self.timers.gossip_ms && !self.news.is_empty() {
            self.timers.gossip_ms = now_ms + self.settings.gossip_interval_ms;
            self.gossip_to(self.settings.gossip_fanout);
        }
    }

    /// Sends news to at most `count` random others.
    pub(super) fn gossip_to(&mut self, count: usize) {
        let others = self.table.sample(&mut self.rng, count, |_, entry| entry.is_live());
        for (id, address) in others {
            if !self.news.is_empty() {
                self.send(id, address, Message::Gossip);
            }
        }
    }

    fn run_sync(&mut self, now_ms: u64) {
        if now_ms < self.timers.sync_ms {
            return;
        }
        self.timers.sync_ms = now_ms + jittered(self.settings.sync_interval_ms, &mut self.rng);
        let forgotten =
            self.table.forget_gone_before(now_ms.saturating_sub(self.settings.forget_after_ms));
        self.stop_spreading(&forgotten);
        if self.is_taking_part() {
            let partner = self.table.sample(&mut self.rng, 1, |_, entry| entry.is_live());
            for (id, address) in partner {
                self.send_sync_request(id, address);
            }
        }
    }

    fn send_sync_request(&mut self, to: MemberId, address: SocketAddr) {
        let digest = self.table.digest(self.id, self.own);
        self.send(to, address, Message::SyncRequest { digest });
    }

    fn run_rejoin(&mut self, now_ms: u64) {
        if now_ms < self.timers.rejoin_ms {
            return;
        }
        let interval_ms = if self.table.is_lonely() {
            self.settings.lonely_interval_ms
        } else {
            self.settings.rejoin_interval_ms
        };
        self.timers.rejoin_ms = now_ms + jittered(interval_ms, &mut self.rng);
        if self.is_taking_part() {
            self.output.try_seeds = true;
            self.try_the_dead();
        }
    }

    /// Tells some dead members that they are held dead: whoever hears it refutes.
    fn try_the_dead(&mut self) {
        let count = self.settings.dead_retries;
        let dead = self
            .table
            .sample(&mut self.rng, count, |_, entry| entry.standing().state == State::Dead);
        for (id, address) in dead {
            let seq = self.next_seq();
            self.send(id, address, Message::Ping { seq });
        }
    }
}
