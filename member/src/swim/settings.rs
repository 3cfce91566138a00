//! The one table of the protocol's numbers.

/// Most members that are kept, dead ones included. Far above what five voters and their learners need; it bounds the
/// memory that a stranger's inventions can take.
pub const MAX_MEMBERS: usize = 1_000;
/// Most probes that are relayed for others at a time.
pub const MAX_RELAYS: usize = 256;
/// Most datagrams of one anti-entropy answer; a larger view continues with the next one.
pub const MAX_SYNC_DATAGRAMS: usize = 16;
/// Most anti-entropy answers in a second; the others ask someone else soon.
pub const MAX_SYNC_ANSWERS_PER_SECOND: u32 = 8;

/// How the protocol behaves. The defaults suit a LAN: a dead member is found in 2 to 4 s.
///
/// With n members that are not dead, and ⌈log₁₀ n⌉ taken as at least 1:
/// - suspicion lasts between `min` = `suspicion_multiplier` · max(1, log₁₀ n) · `probe_interval_ms` and
///   `suspicion_max_multiplier` · `min`; see [`Suspicion`](super::suspicion::Suspicion) for what shortens it;
/// - news is sent ⌈`retransmit_multiplier` · ln(n + 1)⌉ times by each who hears it;
/// - probe interval and timeouts are stretched by the local health (1 to `health_max` + 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Length of the protocol period, in ms: one member is probed in each.
    pub probe_interval_ms: u64,
    /// How long a direct probe may take before helpers are asked, in ms; less than half of `probe_interval_ms`.
    pub probe_timeout_ms: u64,
    /// How many others are asked to probe for us (SWIM's k).
    pub indirect_probes: usize,
    /// See above.
    pub suspicion_multiplier: u32,
    /// See above.
    pub suspicion_max_multiplier: u32,
    /// Independent accusers, besides the first, that shorten a suspicion to its minimum (Lifeguard's K).
    pub suspicion_confirmations: usize,
    /// Worst local health (Lifeguard's S).
    pub health_max: u32,
    /// How often news is sent beside the probes while there is any, in ms.
    pub gossip_interval_ms: u64,
    /// To how many at a time.
    pub gossip_fanout: usize,
    /// SWIM's λ.
    pub retransmit_multiplier: f64,
    /// How often the view is compared with a random member's, in ms; jittered by a quarter.
    pub sync_interval_ms: u64,
    /// How often seeds and dead members are tried while nobody else is known alive, in ms; jittered by a quarter.
    pub lonely_interval_ms: u64,
    /// The same while others are alive, in ms, so that groups that lost sight of each other merge again. Three tries
    /// fit into a minute.
    pub rejoin_interval_ms: u64,
    /// How many dead members are tried each time.
    pub dead_retries: usize,
    /// Dead and left members are forgotten after this, in ms. Longer than anyone sleeps with news of them.
    pub forget_after_ms: u64,
    /// When we wake up later than planned by this, in ms, it is we who were away: suspicions of others are put off by
    /// as much.
    pub away_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            probe_interval_ms: 500,
            probe_timeout_ms: 200,
            indirect_probes: 3,
            suspicion_multiplier: 4,
            suspicion_max_multiplier: 6,
            suspicion_confirmations: 2,
            health_max: 8,
            gossip_interval_ms: 200,
            gossip_fanout: 3,
            retransmit_multiplier: 3.0,
            sync_interval_ms: 10_000,
            lonely_interval_ms: 1_000,
            rejoin_interval_ms: 20_000,
            dead_retries: 3,
            forget_after_ms: 72 * 3_600_000,
            away_after_ms: 500,
        }
    }
}

impl Settings {
    /// Shortest suspicion among `members`, ourselves included, in ms.
    pub fn suspicion_min_ms(&self, members: usize) -> u64 {
        let scale = to_f64(members).log10().max(1.0);
        scaled(u64::from(self.suspicion_multiplier) * self.probe_interval_ms, scale)
    }

    /// Longest suspicion among `members`, ourselves included, in ms.
    pub fn suspicion_max_ms(&self, members: usize) -> u64 {
        u64::from(self.suspicion_max_multiplier) * self.suspicion_min_ms(members)
    }

    /// How often one piece of news is sent among `members`, ourselves included; at least once.
    pub fn retransmits(&self, members: usize) -> u32 {
        let sends = (self.retransmit_multiplier * (to_f64(members) + 1.0).ln()).ceil();
        to_u32(sends).max(1)
    }

    /// By when everyone has surely been probed once by each healthy member, in ms: two rounds of the shuffled order,
    /// less one, and the verdict (SWIM §4.3).
    pub fn first_suspicion_bound_ms(&self, members: usize) -> u64 {
        let rounds = 2 * members.saturating_sub(1).max(1) as u64;
        rounds * self.probe_interval_ms
    }
}

/// `value` · `factor`, rounded; the factor is small and positive.
pub(super) fn scaled(value: u64, factor: f64) -> u64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of at most some hours are exact in an f64, and the factor is positive"
    )]
    {
        (value as f64 * factor).round() as u64
    }
}

fn to_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn to_u32(number: f64) -> u32 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number; the cast saturates"
    )]
    {
        number as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_match_their_documentation() {
        let settings = Settings::default();
        for (members, min_ms, retransmits) in
            [(1, 2_000, 3), (5, 2_000, 6), (10, 2_000, 8), (100, 4_000, 14), (1_000, 6_000, 21)]
        {
            assert_eq!(settings.suspicion_min_ms(members), min_ms, "{members} members");
            assert_eq!(settings.suspicion_max_ms(members), 6 * min_ms, "{members} members");
            assert_eq!(settings.retransmits(members), retransmits, "{members} members");
        }
        assert_eq!(settings.first_suspicion_bound_ms(5), 4_000);
    }
}
