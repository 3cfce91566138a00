//! Linearizable reads without the log (thesis §6.4): a leader notes its commit index, proves by one round of appends
//! that it still leads, and then the read may be answered once that index is applied.
//!
//! One round serves everyone who was waiting when it began. Reads that arrive meanwhile wait for the next round, which
//! begins as soon as this one is confirmed: grouping by arrival, no timer.

use super::types::{Index, ReadId};

/// Most reads that wait at once; more are refused as `Busy`.
pub(super) const MAX_WAITING_READS: usize = 65_536;

/// The reads of one leader's term.
///
/// Invariant: only the reads of the running round have an index; rounds are numbered from 1, and `seq` is the newest.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadQueue {
    seq: u64,
    round: Option<Round>,
    waiting: Vec<ReadId>,
}

#[derive(Clone, Debug)]
struct Round {
    read_index: Index,
    reads: Vec<ReadId>,
}

impl ReadQueue {
    /// Number of the newest round, to be carried by every append; zero before the first.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Puts a read into the next round; says no when too many wait.
    pub(super) fn push(&mut self, read: ReadId) -> bool {
        let fits = self.waiting.len() < MAX_WAITING_READS;
        if fits {
            self.waiting.push(read);
        }
        fits
    }

    /// Begins a round for all who wait, unless one is running. `read_index` is the leader's commit index, which has
    /// to be of its own term. Says whether a round began and must be carried to the peers.
    pub(super) fn begin(&mut self, read_index: Index) -> bool {
        if self.round.is_some() || self.waiting.is_empty() {
            return false;
        }
        self.seq += 1;
        self.round = Some(Round { read_index, reads: std::mem::take(&mut self.waiting) });
        true
    }

    /// A quorum has answered round `seq`: its reads may be answered at the index returned.
    pub(super) fn confirm(&mut self, seq: u64) -> Option<(Index, Vec<ReadId>)> {
        if seq < self.seq {
            return None;
        }
        self.round.take().map(|round| (round.read_index, round.reads))
    }

    /// Gives up: all reads that were not answered.
    pub(super) fn drain(&mut self) -> Vec<ReadId> {
        let mut reads = self.round.take().map(|round| round.reads).unwrap_or_default();
        reads.append(&mut self.waiting);
        reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(reads: &[u64]) -> ReadQueue {
        let mut queue = ReadQueue::default();
        for &read in reads {
            assert!(queue.push(ReadId(read)));
        }
        queue
    }

    #[test]
    fn one_round_serves_all_who_wait() {
        let mut queue = queue(&[1, 2, 3]);
        assert!(queue.begin(Index(7)));
        assert_eq!(
            queue.confirm(queue.seq()),
            Some((Index(7), vec![ReadId(1), ReadId(2), ReadId(3)]))
        );
        assert_eq!(queue.confirm(queue.seq()), None, "answered once");
    }

    #[test]
    fn a_read_that_arrives_during_a_round_waits_for_the_next() {
        let mut queue = queue(&[1]);
        assert!(queue.begin(Index(7)));
        queue.push(ReadId(2));
        assert!(!queue.begin(Index(8)), "one round at a time");
        assert_eq!(queue.confirm(1), Some((Index(7), vec![ReadId(1)])));
        assert_eq!(queue.confirm(1), None);
        assert!(queue.begin(Index(9)));
        assert_eq!(
            queue.confirm(1),
            None,
            "an answer to the first round does not confirm the second"
        );
        assert_eq!(queue.confirm(2), Some((Index(9), vec![ReadId(2)])));
    }

    #[test]
    fn no_round_begins_without_reads() {
        let mut queue = ReadQueue::default();
        assert!(!queue.begin(Index(7)));
        assert_eq!((queue.seq(), queue.confirm(0)), (0, None));
    }

    #[test]
    fn a_lost_leader_hands_back_every_read() {
        let mut queue = queue(&[1]);
        queue.begin(Index(7));
        queue.push(ReadId(2));
        assert_eq!(queue.drain(), [ReadId(1), ReadId(2)]);
        assert_eq!(queue.drain(), []);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = ReadQueue::default();
        assert!((0..MAX_WAITING_READS as u64).all(|read| queue.push(ReadId(read))));
        assert!(!queue.push(ReadId(u64::MAX)));
    }
}
