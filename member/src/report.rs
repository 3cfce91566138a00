//! What an operator reads: one line per event that matters, and no flood of what repeats.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use tracing::{error, info, warn};

use crate::codec::Unreadable;
use crate::swim::{DropReason, Event, MemberId, State};

/// A repeated complaint about one source is logged this often at most, in ms.
const QUIET_MS: u64 = 60_000;
/// Most sources that are told apart; the others share one place.
const MAX_SOURCES: usize = 64;

/// Who a complaint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Host(IpAddr),
    OwnId,
    Table,
    Others,
}

/// Writes events to the log.
#[derive(Debug, Default)]
pub struct Reporter {
    quiet: BTreeMap<Source, Muted>,
}

#[derive(Clone, Copy, Debug)]
struct Muted {
    until_ms: u64,
    skipped: u64,
}

impl Reporter {
    /// Writes an event, unless its like was written a short while ago.
    pub fn report(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::StateChanged { id, name, address, before, after, incarnation } => {
                let name = name.escape_debug();
                let before = before.map_or("unknown".to_owned(), |state| state.to_string());
                match after {
                    State::Alive => {
                        info!(%id, %name, %address, before, %incarnation, "member is alive");
                    }
                    State::Suspect => {
                        info!(%id, %name, %address, before, %incarnation, "member is suspect");
                    }
                    State::Dead => {
                        warn!(%id, %name, %address, before, %incarnation, "member is dead");
                    }
                    State::Left => {
                        info!(%id, %name, %address, before, %incarnation, "member has left");
                    }
                }
            }
            Event::Refuted { claim, incarnation } => {
                warn!(%claim, %incarnation, "others took us for gone; told them that we are alive");
            }
            Event::IdConflict { address } => self.conflict(now_ms, address),
            Event::Dropped { from, reason } => self.dropped(now_ms, from, reason),
            Event::TableFull { id } => self.table_full(now_ms, id),
            Event::WasAway { away_ms } => {
                warn!(away_ms, "this process did not run for a while; suspicions are put off");
            }
        }
    }

    fn conflict(&mut self, now_ms: u64, address: SocketAddr) {
        if let Some(skipped) = self.may_complain(now_ms, Source::OwnId) {
            error!(%address, skipped, "another process uses our member id; if this repeats, a data directory was copied: delete its member/identity");
        }
    }

    fn dropped(&mut self, now_ms: u64, from: SocketAddr, reason: DropReason) {
        if let Some(skipped) = self.may_complain(now_ms, Source::Host(from.ip())) {
            if let DropReason::Unreadable(Unreadable::ForeignCluster(_)) = reason {
                warn!(%from, %reason, skipped, "foreign datagram dropped; is its seed list wrong?");
            } else {
                warn!(%from, %reason, skipped, "unreadable datagram dropped");
            }
        }
    }

    fn table_full(&mut self, now_ms: u64, id: MemberId) {
        if let Some(skipped) = self.may_complain(now_ms, Source::Table) {
            warn!(%id, skipped, "too many members; not added");
        }
    }

    /// Whether to write now; if so, how many were skipped since the last time.
    fn may_complain(&mut self, now_ms: u64, source: Source) -> Option<u64> {
        if self.quiet.len() >= MAX_SOURCES {
            self.quiet.retain(|_, muted| now_ms < muted.until_ms);
        }
        let room = self.quiet.len() < MAX_SOURCES || self.quiet.contains_key(&source);
        let source = if room { source } else { Source::Others };
        let muted = self.quiet.entry(source).or_insert(Muted { until_ms: now_ms, skipped: 0 });
        if now_ms < muted.until_ms {
            muted.skipped += 1;
            return None;
        }
        let skipped = muted.skipped;
        *muted = Muted { until_ms: now_ms + QUIET_MS, skipped: 0 };
        Some(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Source {
        Source::Host(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn each_source_complains_once_a_minute_and_counts_the_rest() {
        let mut reporter = Reporter::default();
        assert_eq!(reporter.may_complain(0, host(1)), Some(0));
        assert_eq!(reporter.may_complain(1, host(1)), None);
        assert_eq!(reporter.may_complain(2, host(2)), Some(0));
        assert_eq!(reporter.may_complain(59_999, host(1)), None);
        assert_eq!(reporter.may_complain(60_000, host(1)), Some(2));
    }

    #[test]
    fn many_sources_share_one_place_and_take_bounded_memory() {
        let mut reporter = Reporter::default();
        let written = (0..=255).filter(|last| reporter.may_complain(5, host(*last)).is_some());
        assert_eq!(written.count(), MAX_SOURCES + 1);
        assert_eq!(reporter.quiet.len(), MAX_SOURCES + 1);
        assert_eq!(reporter.may_complain(60_005, host(200)), Some(0));
        assert!(reporter.quiet.len() <= 2);
    }
}
