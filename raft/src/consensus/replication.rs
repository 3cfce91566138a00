//! How a leader keeps its peers' logs equal to its own (paper §5.3; pipelining: thesis §10.2.1).
//!
//! Entries leave at the end of a step, so that one step gives a peer one append however many commands it brought.
//! Heartbeats are empty appends that name the entry before `next_index`: they are answered without an fsync, and a gap
//! that a lost append left behind shows within one heartbeat.

use super::Raft;
use super::io::{Fetch, Output};
use super::leader::Leader;
use super::log::within_bytes;
use super::message::{AppendRequest, AppendResponse, Message, SnapshotResponse};
use super::progress::{Mode, Progress, Rejection};
use super::replica::{Common, Replica};
use super::types::{Entry, Index, NodeId};

/// Most entries asked for at once; the log may answer with fewer.
const MAX_FETCH_ENTRIES: u64 = 4096;

/// What is being read from the log for peers that are far behind. One read serves all who wait for the same entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetches {
    running: Vec<(Fetch, u32)>,
}

impl Fetches {
    /// Asks for entries from `from` on, up to `to`, unless they are on their way.
    fn want(&mut self, from: Index, to: Index, output: &mut Output) {
        if self.running.iter().any(|(fetch, _)| (fetch.from..=fetch.to).contains(&from)) {
            return;
        }
        let to = to.min(Index(from.0 + MAX_FETCH_ENTRIES - 1));
        let fetch = Fetch { from, to };
        self.running.push((fetch, 0));
        output.fetch.push(fetch);
    }

    /// The log answered with entries from `first` on.
    fn done(&mut self, first: Index) {
        self.running.retain(|(fetch, _)| fetch.from != first);
    }

    /// A read that found nothing is asked for again after an election timeout.
    pub(super) fn tick(&mut self, election_ticks: u32) {
        self.running.retain_mut(|(_, age_ticks)| {
            *age_ticks += 1;
            *age_ticks < election_ticks
        });
    }
}

impl Replica<Leader> {
    /// Sends every peer what it may be sent. Ends each step of a leader.
    pub(super) fn replicate(&mut self) {
        let read_seq = self.role.reads.seq();
        for (&peer, progress) in &mut self.role.progress {
            replicate_to(&mut self.common, &mut self.role.fetches, peer, progress, read_seq);
        }
    }

    /// Sends everyone an empty append: it keeps followers quiet, carries commit index and round of reads, and probes.
    pub(super) fn heartbeat(&mut self) {
        let read_seq = self.role.reads.seq();
        for (&peer, progress) in &mut self.role.progress {
            if let Mode::Probe { waiting } = &mut progress.mode {
                *waiting = true;
            }
            send_append(&mut self.common, peer, progress.next_index.prev(), Vec::new(), read_seq);
        }
    }

    pub(super) fn on_append_response(mut self, peer: NodeId, response: AppendResponse) -> Raft {
        let last = self.common.log.last().index;
        let Some(progress) = self.role.progress.get_mut(&peer) else { return self.into() };
        if response.read_seq > self.role.reads.seq() {
            self.common.drop_message(peer, "an answer to a round of reads that never was");
            return self.into();
        }
        let outcome = Rejection::split(response.outcome);
        if outcome.is_ok_and(|match_index| match_index > last) {
            self.common.drop_message(peer, "an answer beyond the end of our log");
            return self.into();
        }
        progress.heard(response.read_seq);
        let advanced = match outcome {
            Ok(match_index) => {
                let election_ticks = self.common.config.election_ticks_min;
                progress.accepted(match_index, &self.common.log, election_ticks)
            }
            Err(rejection) => {
                progress.rejected(rejection, &self.common.log);
                false
            }
        };
        self.advance_transfer();
        self.serve_reads();
        if advanced { self.advance_commit() } else { self.into() }
    }

    /// A peer holds the snapshot that it was offered, or could not take it: then it is offered again when probing shows
    /// that it still needs it.
    pub(super) fn on_snapshot_response(mut self, peer: NodeId, response: SnapshotResponse) -> Raft {
        let last = self.common.log.last().index;
        let installed = response.installed.map(|id| id.index);
        if installed.is_some_and(|index| index > last) {
            self.common.drop_message(peer, "a snapshot beyond the end of our log");
            return self.into();
        }
        let Some(progress) = self.role.progress.get_mut(&peer) else { return self.into() };
        progress.heard(0);
        let election_ticks = self.common.config.election_ticks_min;
        let advanced = installed
            .is_some_and(|index| progress.accepted(index, &self.common.log, election_ticks));
        // No transfer is under way any more: what was installed may be older than what was offered last, and than our log.
        if progress.is_sent_snapshot() {
            progress.probe(self.common.log.base().index);
        }
        if advanced { self.advance_commit() } else { self.into() }
    }

    /// The messages under way to this peer are lost. It is probed with the next heartbeat; one that is being sent a snapshot is
    /// not, because what it needs next has to stay in the log.
    pub(super) fn on_peer_unreachable(mut self, peer: NodeId) -> Raft {
        if let Some(progress) = self.role.progress.get_mut(&peer)
            && !progress.is_sent_snapshot()
        {
            progress.probe(self.common.log.base().index);
        }
        self.into()
    }

    /// The snapshot does not arrive: heartbeats show what the peer needs by now.
    pub(super) fn on_snapshot_failed(mut self, peer: NodeId) -> Raft {
        if let Some(progress) = self.role.progress.get_mut(&peer)
            && progress.is_sent_snapshot()
        {
            progress.probe(self.common.log.base().index);
        }
        self.into()
    }

    /// The log must not be compacted beyond this entry: a peer needs what follows.
    pub(super) fn needed_by_peers(&self) -> Option<Index> {
        let silence_ticks = self.common.config.election_ticks_min;
        self.role.progress.values().filter_map(|peer| peer.needs_after(silence_ticks)).min()
    }

    /// Entries came from the log: they go to whoever waits for one of them, and are not kept.
    pub(super) fn on_fetched(mut self, entries: &[Entry]) -> Raft {
        let Some(first) = entries.first().map(|entry| entry.id.index) else { return self.into() };
        self.role.fetches.done(first);
        if !entries.iter().all(|entry| self.common.log.contains(entry.id)) {
            return self.into();
        }
        let read_seq = self.role.reads.seq();
        for (&peer, progress) in &mut self.role.progress {
            let skip = progress
                .next_index
                .0
                .checked_sub(first.0)
                .and_then(|skip| usize::try_from(skip).ok());
            let wanted = skip.and_then(|skip| entries.get(skip..)).unwrap_or_default();
            send_window(&mut self.common, peer, progress, wanted, read_seq);
        }
        self.into()
    }
}

/// Sends one peer what its mode and its window allow.
fn replicate_to(
    common: &mut Common,
    fetches: &mut Fetches,
    peer: NodeId,
    progress: &mut Progress,
    read_seq: u64,
) {
    if needs_snapshot(common, progress) {
        offer_snapshot(common, peer, progress);
    }
    match &mut progress.mode {
        Mode::Probe { waiting } if !*waiting => {
            *waiting = true;
            send_append(common, peer, progress.next_index.prev(), Vec::new(), read_seq);
        }
        Mode::Replicate { window }
            if window.has_room(&common.config)
                && progress.next_index <= common.log.last().index =>
        {
            let first_cached = common.log.first_cached();
            if progress.next_index < first_cached {
                fetches.want(progress.next_index, first_cached.prev(), &mut common.output);
            } else {
                send_cached(common, peer, progress, read_seq);
            }
        }
        Mode::Probe { .. } | Mode::Replicate { .. } | Mode::Snapshot { .. } => {}
    }
}

/// The entry before the next one is compacted: no append can be checked against the peer's log.
fn needs_snapshot(common: &Common, progress: &Progress) -> bool {
    !progress.is_sent_snapshot() && progress.next_index <= common.log.base().index
}

fn offer_snapshot(common: &mut Common, peer: NodeId, progress: &mut Progress) {
    let meta = common.snapshot.clone().expect("only what a snapshot includes is ever dropped");
    progress.offer_snapshot(meta.last.index);
    common.send(peer, Message::InstallSnapshot(meta));
}

/// Sends from the cache until the window is full or nothing is left.
fn send_cached(common: &mut Common, peer: NodeId, progress: &mut Progress, read_seq: u64) {
    loop {
        let (from, last) = (progress.next_index, common.log.last().index);
        let Mode::Replicate { window } = &mut progress.mode else { return };
        if from > last || !window.has_room(&common.config) {
            return;
        }
        let entries = common.log.cached(from, last, common.config.max_append_bytes);
        send_entries(common, peer, progress, entries, read_seq);
    }
}

/// Sends from `entries`, which start at `next_index`, until the window is full or nothing is left.
fn send_window(
    common: &mut Common,
    peer: NodeId,
    progress: &mut Progress,
    mut entries: &[Entry],
    read_seq: u64,
) {
    while !entries.is_empty() {
        let Mode::Replicate { window } = &mut progress.mode else { return };
        if !window.has_room(&common.config) {
            return;
        }
        let chunk: Vec<Entry> =
            within_bytes(entries.iter(), common.config.max_append_bytes).cloned().collect();
        entries = &entries[chunk.len()..];
        send_entries(common, peer, progress, chunk, read_seq);
    }
}

fn send_entries(
    common: &mut Common,
    peer: NodeId,
    progress: &mut Progress,
    entries: Vec<Entry>,
    read_seq: u64,
) {
    let Some(last) = entries.last().map(|entry| entry.id.index) else { return };
    if let Mode::Replicate { window } = &mut progress.mode {
        window.push(last, entries.iter().map(Entry::weight_bytes).sum());
    }
    let prev = progress.next_index.prev();
    progress.next_index = last.next();
    send_append(common, peer, prev, entries, read_seq);
}

/// Sends an append after `prev`, or after our log's base where `prev` is compacted: then its answer says that the peer lives
/// and follows, which is what a heartbeat asks, and perhaps that it needs no snapshot any more.
fn send_append(common: &mut Common, peer: NodeId, prev: Index, entries: Vec<Entry>, read_seq: u64) {
    let prev = common.log.id_at(prev).unwrap_or_else(|| common.log.base());
    let commit_index = common.commit_index();
    common.send(peer, Message::Append(AppendRequest { prev, entries, commit_index, read_seq }));
}
