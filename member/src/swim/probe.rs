//! Probes: our own, which ends in a verdict, and those that we relay for others (SWIM §3.1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::health::Health;
use super::member::MemberId;
use super::settings::{MAX_RELAYS, Settings};

/// The one probe of a protocol period: a direct ping; without an answer in time, pings through helpers and directly
/// once more; at the end of the period, the verdict.
#[derive(Clone, Debug)]
pub struct Probe {
    target: MemberId,
    seq: u64,
    indirect_at_ms: u64,
    deadline_ms: u64,
    helpers: BTreeSet<MemberId>,
    nacks: BTreeSet<MemberId>,
    indirect: bool,
}

/// What a probe wants now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStep {
    /// Nothing yet.
    Wait,
    /// Ask helpers, and ping once more.
    AskHelpers,
    /// The target did not answer. So many signs say that the trouble may be ours: helpers that did not even say "not
    /// yet", or one when nobody could be asked (Lifeguard §IV-A).
    Failed {
        /// For the local health.
        own_trouble: usize,
    },
}

impl Probe {
    /// A probe of `target` whose first ping leaves at `now_ms`.
    pub fn start(
        now_ms: u64,
        target: MemberId,
        seq: u64,
        health: Health,
        settings: &Settings,
    ) -> Self {
        Self {
            target,
            seq,
            indirect_at_ms: now_ms + health.stretch(settings.probe_timeout_ms),
            deadline_ms: now_ms + health.stretch(settings.probe_interval_ms),
            helpers: BTreeSet::new(),
            nacks: BTreeSet::new(),
            indirect: false,
        }
    }

    /// Who is probed.
    pub fn target(&self) -> MemberId {
        self.target
    }

    /// Names the probe in its messages.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether this answers the probe: the target does, or a helper for it.
    pub fn is_answered_by(&self, seq: u64, from: MemberId) -> bool {
        seq == self.seq && (from == self.target || self.helpers.contains(&from))
    }

    /// When [`Probe::step`] has something to say.
    pub fn wakeup_ms(&self) -> u64 {
        if self.indirect { self.deadline_ms } else { self.indirect_at_ms }
    }

    /// What to do at `now_ms`.
    pub fn step(&self, now_ms: u64) -> ProbeStep {
        if now_ms >= self.deadline_ms {
            let silent = self.helpers.len() - self.nacks.len();
            let own_trouble = if self.helpers.is_empty() { 1 } else { silent };
            ProbeStep::Failed { own_trouble }
        } else if now_ms >= self.indirect_at_ms && !self.indirect {
            ProbeStep::AskHelpers
        } else {
            ProbeStep::Wait
        }
    }

    /// These helpers were asked.
    pub fn asked(&mut self, helpers: impl IntoIterator<Item = MemberId>) {
        self.helpers.extend(helpers);
        self.indirect = true;
    }

    /// A helper says "not yet".
    pub fn on_nack(&mut self, seq: u64, helper: MemberId) {
        if seq == self.seq && self.helpers.contains(&helper) {
            self.nacks.insert(helper);
        }
    }
}

/// One ping that we sent for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Who asked.
    pub requester: MemberId,
    /// Where the answer goes.
    pub address: SocketAddr,
    /// The requester's name for its probe.
    pub requester_seq: u64,
    /// When to say "not yet".
    pub nack_at_ms: u64,
    /// When to forget it.
    pub expires_ms: u64,
}

/// The pings that we sent for others, by our own sequence number; bounded, the oldest give way.
#[derive(Clone, Debug, Default)]
pub struct Relays {
    open: BTreeMap<u64, (Relay, bool)>,
}

impl Relays {
    /// Remembers a relayed ping.
    pub fn insert(&mut self, seq: u64, relay: Relay) {
        while self.open.len() >= MAX_RELAYS {
            self.open.pop_first();
        }
        self.open.insert(seq, (relay, false));
    }

    /// The target has answered: who wants to know?
    pub fn on_ack(&mut self, seq: u64) -> Option<Relay> {
        self.open.remove(&seq).map(|(relay, _)| relay)
    }

    /// Those that are to be told "not yet" now, each once. Forgets the expired.
    pub fn due(&mut self, now_ms: u64) -> Vec<Relay> {
        self.open.retain(|_, (relay, _)| now_ms < relay.expires_ms);
        let mut due = Vec::new();
        for (relay, told) in self.open.values_mut() {
            if !*told && now_ms >= relay.nack_at_ms {
                *told = true;
                due.push(*relay);
            }
        }
        due
    }

    /// When [`Relays::due`] has something to say.
    pub fn wakeup_ms(&self) -> Option<u64> {
        let wakeup =
            |(relay, told): &(Relay, bool)| if *told { relay.expires_ms } else { relay.nack_at_ms };
        self.open.values().map(wakeup).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(score: usize) -> Probe {
        let mut health = Health::new(8);
        health.worsen(score);
        Probe::start(1_000, MemberId(7), 42, health, &Settings::default())
    }

    #[test]
    fn a_probe_asks_helpers_then_fails() {
        let mut probe = probe(0);
        assert_eq!((probe.step(1_199), probe.wakeup_ms()), (ProbeStep::Wait, 1_200));
        assert_eq!(probe.step(1_200), ProbeStep::AskHelpers);
        probe.asked([1, 2, 3].map(MemberId));
        assert_eq!((probe.step(1_300), probe.wakeup_ms()), (ProbeStep::Wait, 1_500));
        assert_eq!(probe.step(1_500), ProbeStep::Failed { own_trouble: 3 });
    }

    #[test]
    fn only_the_target_or_a_helper_answers() {
        let mut probe = probe(0);
        probe.asked([MemberId(1)]);
        let answered = |seq, from| probe.is_answered_by(seq, MemberId(from));
        assert!(answered(42, 7) && answered(42, 1));
        assert!(!answered(41, 7) && !answered(42, 2));
    }

    #[test]
    fn poor_health_stretches_it() {
        let probe = probe(2);
        assert_eq!(
            (probe.step(1_599), probe.step(1_600)),
            (ProbeStep::Wait, ProbeStep::AskHelpers)
        );
        assert_eq!(probe.step(2_500), ProbeStep::Failed { own_trouble: 1 });
    }

    #[test]
    fn only_nacks_of_helpers_that_were_asked_count_and_each_once() {
        let mut probe = probe(0);
        probe.asked([1, 2].map(MemberId));
        probe.on_nack(42, MemberId(1));
        probe.on_nack(42, MemberId(1));
        probe.on_nack(42, MemberId(9));
        probe.on_nack(41, MemberId(2));
        assert_eq!(probe.step(1_500), ProbeStep::Failed { own_trouble: 1 });
    }

    #[test]
    fn a_relay_says_not_yet_once_and_is_forgotten() {
        let mut relays = Relays::default();
        let relay = Relay {
            requester: MemberId(1),
            address: "10.0.0.1:1".parse().unwrap(),
            requester_seq: 5,
            nack_at_ms: 160,
            expires_ms: 500,
        };
        relays.insert(1, relay);
        relays.insert(2, relay);
        assert_eq!((relays.due(159), relays.wakeup_ms()), (vec![], Some(160)));
        assert_eq!(relays.on_ack(2), Some(relay));
        assert_eq!((relays.due(160), relays.wakeup_ms()), (vec![relay], Some(500)));
        assert_eq!(relays.due(161), vec![]);
        assert_eq!((relays.due(500), relays.wakeup_ms()), (vec![], None));
        assert_eq!(relays.on_ack(1), None);
    }

    #[test]
    fn relays_are_bounded() {
        let mut relays = Relays::default();
        let relay = Relay {
            requester: MemberId(1),
            address: "10.0.0.1:1".parse().unwrap(),
            requester_seq: 5,
            nack_at_ms: 160,
            expires_ms: 500,
        };
        (0..=MAX_RELAYS as u64).for_each(|seq| relays.insert(seq, relay));
        assert_eq!(relays.due(160).len(), MAX_RELAYS);
        assert_eq!(relays.on_ack(0), None);
    }
}
