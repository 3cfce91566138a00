//! What a leader knows of one peer, and what it may send it next.

use std::collections::VecDeque;

use super::io::{Config, PeerStatus};
use super::log::Log;
use super::message::AppendOutcome;
use super::types::{Index, Term};

/// How entries flow to a peer.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    /// Where the logs agree is not known: one empty append at a time looks for it.
    Probe {
        /// A probe is under way; the next one leaves with its answer or with the next heartbeat.
        waiting: bool,
    },
    /// The logs agree below `next_index`: entries are sent ahead of their acknowledgements.
    Replicate {
        /// What is under way.
        window: Window,
    },
    /// The peer needs entries that are compacted: it was offered the snapshot that ends at `last`.
    Snapshot {
        /// Last entry of the snapshot.
        last: Index,
    },
}

/// Appends under way to one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    in_flight: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Window {
    /// Whether one more append may leave.
    pub(super) fn has_room(&self, config: &Config) -> bool {
        self.in_flight.len() < config.window_messages && self.bytes < config.window_bytes
    }

    /// An append that ends at `last` left.
    pub(super) fn push(&mut self, last: Index, bytes: usize) {
        self.in_flight.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `match_index` arrived.
    pub(super) fn release(&mut self, match_index: Index) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= match_index) {
            self.bytes -= bytes;
        }
    }
}

/// Catching up is measured in rounds: each ends when the peer holds what the leader's log held when the round began. A
/// peer has caught up when a round took less than an election timeout (thesis §4.2.1).
#[derive(Clone, Copy, Debug)]
struct Round {
    target: Index,
    ticks: u32,
}

/// A peer took a snapshot and needs the log that we held then: if that were compacted before it has come so far, it would
/// need a snapshot again.
#[derive(Clone, Copy, Debug)]
struct Resuming {
    /// It has come far enough here.
    to: Index,
    /// Ticks since it came further.
    stuck_ticks: u32,
}

/// A peer that answers heartbeats and takes no entry for so many times the silence of a dead one has a disk that hangs. The
/// log must not grow for as long as it pleases; should it come back, it gets a snapshot.
const STUCK_SILENCES: u32 = 50;

/// Invariant: `match_index < next_index ≤ last + 1`.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The peer's log is durable and equal to ours up to here; never goes back.
    pub(super) match_index: Index,
    /// The next entry to send.
    pub(super) next_index: Index,
    pub(super) mode: Mode,
    /// Ticks since the last answer, saturating.
    pub(super) silent_ticks: u32,
    /// Newest round of reads that the peer has answered.
    pub(super) read_seq: u64,
    /// Set when the peer is no longer a member: it still receives the log so that it learns this, until the ticks are
    /// used up after the change is committed.
    pub(super) departing_ticks: Option<u32>,
    round: Round,
    caught_up: bool,
    resuming: Option<Resuming>,
}

impl Progress {
    /// A new leader assumes that its peers' logs equal its own up to `last` and sends what follows at once.
    pub(super) fn optimistic(last: Index) -> Self {
        Self {
            match_index: Index(0),
            next_index: last.next(),
            mode: Mode::Replicate { window: Window::default() },
            silent_ticks: 0,
            read_seq: 0,
            departing_ticks: None,
            round: Round { target: last, ticks: 0 },
            caught_up: false,
            resuming: None,
        }
    }

    /// A peer that has just been added most likely has nothing.
    pub(super) fn unknown(last: Index) -> Self {
        Self { mode: Mode::Probe { waiting: false }, ..Self::optimistic(last) }
    }

    /// Looks for the agreement again with the next heartbeat: after what is known to agree, or after `base` where the log
    /// begins later than that.
    pub(super) fn probe(&mut self, base: Index) {
        self.next_index = self.match_index.max(base).next();
        self.mode = Mode::Probe { waiting: true };
    }

    /// The peer is offered the snapshot that ends at `last`.
    pub(super) fn offer_snapshot(&mut self, last: Index) {
        self.mode = Mode::Snapshot { last };
        self.resuming = None;
    }

    /// A tick passed. `election_ticks` is the longest round of a peer that keeps up.
    pub(super) fn tick(&mut self, election_ticks: u32) {
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        self.round.ticks = self.round.ticks.saturating_add(1);
        if let Some(resuming) = &mut self.resuming {
            resuming.stuck_ticks = resuming.stuck_ticks.saturating_add(1);
        }
        if self.round.ticks >= election_ticks {
            self.caught_up = false;
        }
    }

    /// A tick passed after the change that removed the peer was committed. Says whether it still is to be told.
    pub(super) fn stays(&mut self) -> bool {
        match &mut self.departing_ticks {
            None => true,
            Some(ticks) => {
                *ticks = ticks.saturating_sub(1);
                *ticks > 0
            }
        }
    }

    /// The peer answered.
    pub(super) fn heard(&mut self, read_seq: u64) {
        self.silent_ticks = 0;
        self.read_seq = self.read_seq.max(read_seq);
    }

    /// The peer holds our log up to `match_index`. Says whether that is news. One that is being sent a snapshot needs it no
    /// longer once it holds what our log follows on, however it came by that.
    pub(super) fn accepted(&mut self, match_index: Index, log: &Log, election_ticks: u32) -> bool {
        let last = log.last().index;
        let advanced = match_index > self.match_index;
        self.match_index = self.match_index.max(match_index);
        self.next_index = self.next_index.max(self.match_index.next());
        match &mut self.mode {
            Mode::Replicate { window } => window.release(self.match_index),
            Mode::Probe { .. } => self.replicate(),
            Mode::Snapshot { .. } if self.match_index >= log.base().index => {
                self.resuming = Some(Resuming { to: last, stuck_ticks: 0 });
                self.replicate();
            }
            Mode::Snapshot { .. } => {}
        }
        self.resuming = self.resuming.filter(|resuming| self.match_index < resuming.to);
        if let Some(resuming) = self.resuming.as_mut().filter(|_| advanced) {
            resuming.stuck_ticks = 0;
        }
        self.end_round(last, election_ticks);
        advanced
    }

    /// The peer needs the log after this entry, so that it need not be sent another snapshot. One that was not heard for
    /// `silence_ticks` is no reason to keep anything, nor one that hangs.
    pub(super) fn needs_after(&self, silence_ticks: u32) -> Option<Index> {
        match self.mode {
            Mode::Snapshot { last } => Some(last),
            Mode::Probe { .. } | Mode::Replicate { .. } => {
                let resuming = self.resuming?;
                let is_stuck = resuming.stuck_ticks >= silence_ticks.saturating_mul(STUCK_SILENCES);
                let is_silent = self.silent_ticks >= silence_ticks;
                (!is_stuck && !is_silent).then_some(self.match_index)
            }
        }
    }

    /// Whether it is being sent a snapshot, and nothing else.
    pub(super) fn is_sent_snapshot(&self) -> bool {
        matches!(self.mode, Mode::Snapshot { .. })
    }

    /// The peer's log does not hold our entry before `next_index`: fast backtracking (paper §5.3). Each answer skips
    /// at least one whole term of the peer's or of ours, so agreement is found in O(terms) messages.
    pub(super) fn rejected(&mut self, outcome: Rejection, log: &Log) {
        let expected = match self.mode {
            Mode::Probe { .. } => outcome.refused_prev == self.next_index.prev(),
            Mode::Replicate { .. } => outcome.refused_prev < self.next_index,
            Mode::Snapshot { .. } => false,
        };
        if expected && outcome.refused_prev > self.match_index {
            let next = outcome.next_to_try(log);
            self.next_index = next.clamp(self.match_index.next(), outcome.refused_prev);
            self.mode = Mode::Probe { waiting: false };
        }
    }

    /// For operators and for whoever decides about promotions.
    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            match_index: self.match_index,
            silent_ticks: self.silent_ticks,
            caught_up: self.caught_up,
            snapshot: match self.mode {
                Mode::Snapshot { last } => Some(last),
                Mode::Probe { .. } | Mode::Replicate { .. } => None,
            },
        }
    }

    fn replicate(&mut self) {
        self.next_index = self.match_index.next();
        self.mode = Mode::Replicate { window: Window::default() };
    }

    fn end_round(&mut self, last: Index, election_ticks: u32) {
        if self.match_index >= self.round.target {
            self.caught_up = self.round.ticks < election_ticks;
            self.round = Round { target: last, ticks: 0 };
        }
    }
}

/// A rejected append, as the peer explains it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejection {
    refused_prev: Index,
    conflict_term: Term,
    conflict_index: Index,
    last_index: Index,
}

impl Rejection {
    /// Takes a message's outcome apart: the match index when it was accepted, else why not.
    pub(super) fn split(outcome: AppendOutcome) -> Result<Index, Self> {
        match outcome {
            AppendOutcome::Accepted { match_index } => Ok(match_index),
            AppendOutcome::Rejected { refused_prev, conflict_term, conflict_index, last_index } => {
                Err(Self { refused_prev, conflict_term, conflict_index, last_index })
            }
        }
    }

    /// The highest index after which the logs could agree, given that the peer's entries from `conflict_index` up to
    /// the refused one (or its end) are of `conflict_term`, and that terms never fall along a log.
    fn next_to_try(self, log: &Log) -> Index {
        let upper = self.refused_prev.prev().min(self.last_index);
        match log.last_with_term_at_most(self.conflict_term, upper) {
            Some(ours) if ours.term == self.conflict_term => ours.index.next(),
            Some(ours) => ours.index.next().min(self.conflict_index),
            None => log.base().index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Entry, LogId, Payload};
    use super::*;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(LogId::default());
        for (at, &term) in terms.iter().enumerate() {
            let id = LogId::new(Term(term), Index(at as u64 + 1));
            log.append(Entry { id, payload: Payload::Noop });
        }
        log
    }

    /// A log of so many entries, without those up to `base`.
    fn log_after(base: u64, last: usize) -> Log {
        let mut log = log(&vec![1; last]);
        if base > 0 {
            log.compact(LogId::new(Term(1), Index(base)));
        }
        log
    }

    /// What a follower with these terms would answer to a probe at `prev`.
    fn rejection(follower: &Log, prev: Index) -> Rejection {
        let at = prev.min(follower.last().index);
        Rejection {
            refused_prev: prev,
            conflict_term: follower.term_at(at).unwrap(),
            conflict_index: follower.run_start(at),
            last_index: follower.last().index,
        }
    }

    /// Probes until the logs agree, as a leader would. Returns where, and after how many rejections.
    fn find_agreement(leader: &Log, follower: &Log) -> (Index, usize) {
        let mut progress = Progress::optimistic(leader.last().index);
        for rejections in 0..100 {
            let prev = leader.id_at(progress.next_index.prev()).unwrap();
            if follower.contains(prev) {
                return (prev.index, rejections);
            }
            progress.rejected(rejection(follower, prev.index), leader);
        }
        panic!("no agreement found");
    }

    #[test]
    fn backtracking_skips_whole_terms() {
        let table: [(&[u64], &[u64], u64, usize); 9] = [
            // leader's terms, follower's terms, agreement, most rejections
            (&[1, 1, 1], &[1, 1, 1], 3, 0),
            (&[1, 1, 1], &[1], 1, 1),
            (&[1, 1, 1], &[], 0, 1),
            (&[1, 1, 1, 4, 4], &[1, 1, 1, 2, 2, 2], 3, 1),
            (&[4, 4, 4], &[2, 2, 2, 3, 3, 3], 0, 1),
            // Figure 7 of the paper: a leader of term 8 and followers (a) … (f).
            (&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6], &[1, 1, 1, 4], 4, 1),
            (&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6], &[1, 1, 1, 4, 4, 4, 4], 5, 1),
            (&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6], &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 3, 1),
            (&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 1, 1, 1, 1, 1, 1, 1], 1, 1),
        ];
        for (leader, follower, agreement, most) in table {
            let (at, rejections) = find_agreement(&log(leader), &log(follower));
            assert_eq!(at, Index(agreement), "{leader:?} {follower:?}");
            assert!(rejections <= most, "{rejections} rejections: {leader:?} {follower:?}");
        }
    }

    #[test]
    fn every_pair_of_short_logs_finds_its_longest_agreement_or_less_than_a_term_below() {
        let logs: Vec<Vec<u64>> = (0..3_u64.pow(5))
            .map(|code| (0..5).map(|digit| code / 3_u64.pow(digit) % 3 + 1).collect::<Vec<_>>())
            .filter(|terms| terms.is_sorted())
            .collect();
        for leader in &logs {
            for follower in &logs {
                for length in 0..=5 {
                    let (ours, theirs) = (log(leader), log(&follower[..length]));
                    let (at, rejections) = find_agreement(&ours, &theirs);
                    assert!(theirs.term_at(at) == ours.term_at(at));
                    assert!(rejections <= 3, "more rejections than terms: {leader:?} {follower:?}");
                }
            }
        }
    }

    #[test]
    fn nonsense_in_a_rejection_never_leaves_the_bounds() {
        let ours = log(&[1, 1, 2, 2, 3, 3]);
        for number in [0, 1, 3, 6, 7, 1 << 62] {
            let mut progress = Progress::optimistic(Index(6));
            progress.match_index = Index(2);
            let (term, index) = (Term(number), Index(number));
            let nonsense = Rejection {
                refused_prev: Index(5),
                conflict_term: term,
                conflict_index: index,
                last_index: index,
            };
            progress.rejected(nonsense, &ours);
            assert!(
                (Index(3)..=Index(5)).contains(&progress.next_index),
                "{number}: {}",
                progress.next_index
            );
        }
    }

    #[test]
    fn a_late_rejection_changes_nothing() {
        let ours = log(&[1; 9]);
        let late = Rejection {
            refused_prev: Index(4),
            conflict_term: Term(1),
            conflict_index: Index(1),
            last_index: Index(2),
        };
        let mut acknowledged = Progress::optimistic(Index(9));
        acknowledged.accepted(Index(5), &ours, 10);
        acknowledged.rejected(late, &ours);
        assert!(matches!(acknowledged.mode, Mode::Replicate { .. }));

        let mut probing = Progress::optimistic(Index(9));
        probing.next_index = Index(8);
        probing.mode = Mode::Probe { waiting: true };
        probing.rejected(late, &ours);
        assert!(matches!(probing.mode, Mode::Probe { waiting: true }));
        assert_eq!(probing.next_index, Index(8));
    }

    #[test]
    fn match_index_never_goes_back() {
        let mut progress = Progress::optimistic(Index(9));
        let ours = log(&[1; 9]);
        assert!(progress.accepted(Index(5), &ours, 10));
        assert!(!progress.accepted(Index(3), &ours, 10));
        assert_eq!((progress.match_index, progress.next_index), (Index(5), Index(10)));
        progress.probe(Index(2));
        assert_eq!((progress.match_index, progress.next_index), (Index(5), Index(6)));
        progress.probe(Index(8));
        assert_eq!((progress.match_index, progress.next_index), (Index(5), Index(9)));
    }

    #[test]
    fn a_snapshot_ends_when_the_peer_holds_what_the_log_follows_on() {
        for (holds, ends) in [(4, false), (5, true), (6, true), (7, true)] {
            let mut progress = Progress::unknown(Index(9));
            progress.mode = Mode::Snapshot { last: Index(7) };
            progress.accepted(Index(holds), &log_after(5, 9), 10);
            assert_eq!(matches!(progress.mode, Mode::Replicate { .. }), ends, "with {holds}");
            assert!(!ends || progress.next_index == Index(holds + 1));
        }
    }

    #[test]
    fn what_follows_a_snapshot_is_needed_until_the_peer_has_it_or_is_silent() {
        let mut progress = Progress::unknown(Index(9));
        assert_eq!(progress.needs_after(10), None);
        progress.mode = Mode::Snapshot { last: Index(7) };
        (0..99).for_each(|_| progress.tick(10));
        assert_eq!(progress.needs_after(10), Some(Index(7)), "the stream says when it breaks");
        progress.heard(0);
        progress.accepted(Index(7), &log_after(5, 9), 10);
        assert_eq!(progress.needs_after(10), Some(Index(7)));
        progress.accepted(Index(8), &log_after(5, 12), 10);
        assert_eq!(progress.needs_after(10), Some(Index(8)));
        (0..10).for_each(|_| progress.tick(10));
        assert_eq!(progress.needs_after(10), None, "it is silent");
        progress.heard(0);
        progress.accepted(Index(9), &log_after(5, 12), 10);
        assert_eq!(progress.needs_after(10), None, "it has all that there was");
    }

    #[test]
    fn what_follows_a_snapshot_is_not_kept_for_one_that_answers_and_takes_nothing() {
        let mut progress = Progress::unknown(Index(9));
        progress.mode = Mode::Snapshot { last: Index(7) };
        progress.accepted(Index(7), &log_after(5, 20), 10);
        let mut lives_on = |ticks: u32, match_index: u64| {
            (0..ticks).for_each(|_| {
                progress.tick(10);
                progress.heard(0);
            });
            progress.accepted(Index(match_index), &log_after(5, 20), 10);
            progress.needs_after(10)
        };
        let almost = 10 * STUCK_SILENCES - 1;
        assert_eq!(lives_on(almost, 7), Some(Index(7)));
        assert_eq!(lives_on(0, 8), Some(Index(8)), "it comes further, however slowly");
        assert_eq!(lives_on(almost, 8), Some(Index(8)));
        assert_eq!(lives_on(1, 8), None, "its disk hangs");
        assert_eq!(lives_on(1, 9), Some(Index(9)), "it is back in time");
    }

    #[test]
    fn caught_up_after_a_short_round_and_not_after_a_long_one() {
        let mut progress = Progress::unknown(Index(100));
        (0..10).for_each(|_| progress.tick(10));
        progress.accepted(Index(100), &log_after(0, 150), 10);
        assert!(!progress.status().caught_up, "the first round took an election timeout");
        (0..9).for_each(|_| progress.tick(10));
        progress.accepted(Index(150), &log_after(0, 155), 10);
        assert!(progress.status().caught_up);
        (0..10).for_each(|_| progress.tick(10));
        assert!(!progress.status().caught_up, "it has fallen behind since");
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        let config = Config {
            window_messages: 2,
            window_bytes: 100,
            ..super::super::replica::test_config()
        };
        let mut window = Window::default();
        assert!(window.has_room(&config));
        window.push(Index(3), 99);
        assert!(window.has_room(&config), "one append may pass the limit of bytes");
        window.push(Index(5), 50);
        assert!(!window.has_room(&config));
        window.release(Index(3));
        assert!(window.has_room(&config));
        window.push(Index(7), 60);
        window.release(Index(6));
        assert!(window.has_room(&config));
        assert_eq!(window.bytes, 60);
    }
}
