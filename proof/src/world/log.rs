//! The log's thread: what gathers during a sync is the next one.

use raft::pipeline::digest_entries::EntriesEvent;
use raft::wal::Request;
use rand::RngExt;

use super::World;
use super::disk::{Fault, Hit};
use super::event::Event;
use super::plan::Plant;
use super::shadow::Shadow;

impl World {
    /// Begins a write and its sync, unless one is under way.
    pub fn begin_sync(&mut self, slot: usize) {
        let (process, now) = (self.raft_of(slot), self.now);
        let (sync, hangs_until) = (self.slots[slot].sync, self.slots[slot].hangs_until);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let log = &mut raft.log;
        if !log.under_way.is_empty() || log.waiting.is_empty() {
            return;
        }
        std::mem::swap(&mut log.waiting, &mut log.under_way);
        let writes = log.under_way.iter().any(|request| !matches!(request, Request::Ask(_)));
        let took = if writes { self.rng.random_range(sync / 2..=sync) } else { 50 };
        let end = (now + took).max(if writes { hangs_until } else { 0 });
        self.agenda.push(end, Event::Synced(process));
        if self.plan.plant == Some(Plant::AcknowledgeBeforeSync) {
            self.lie_about_sync(slot);
        }
    }

    /// The write and its sync come to their end.
    pub fn finish_sync(&mut self, slot: usize) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let requests = std::mem::take(&mut raft.log.under_way);
        let done = raft.log.worker.work(requests.iter().cloned());
        let hits = self.slots[slot].disk.take_hits();
        self.note_hits(&hits);
        if self.slots[slot].disk.is_dead() {
            self.perhaps_written(slot, &requests);
            return self.cut_power(slot);
        }
        if done.is_err() {
            // The process ends at once, and says why by its exit code.
            self.perhaps_written(slot, &requests);
            self.coverage.count("ends of raft because its log failed");
            return self.end_raft(slot);
        }
        apply(&mut self.slots[slot].shadow, &requests);
        self.slots[slot].perhaps.clear();
        if hits.contains(&Hit::Fault(Fault::Misdirect)) && self.rng.random_bool(0.5) {
            // Frames that follow give away the one that is missing: only without them its place must.
            return self.kill_raft(slot);
        }
        self.read_log_events(slot);
        self.begin_sync(slot);
    }

    /// What the log's thread has said goes to the first stage.
    fn read_log_events(&mut self, slot: usize) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if let Ok(failure) = raft.log.failures.try_recv() {
            self.coverage.count("ends of raft because of damage found while running");
            self.say(|| format!("slot {slot}: {failure}"));
            return self.end_raft(slot);
        }
        let mut events = Vec::new();
        while let Ok(event) = raft.log.said.try_recv() {
            events.push(event);
        }
        if raft.log.synced.has_changed().unwrap_or(false) {
            events.push((*raft.log.synced.borrow_and_update()).into());
        }
        for event in events {
            self.hear(slot, event);
        }
    }

    /// A planted violation: what was only handed over is said to be durable.
    fn lie_about_sync(&mut self, slot: usize) {
        let place = &self.slots[slot];
        let Some(raft) = &place.raft else { return };
        let mut batches = raft.log.under_way.iter().filter_map(|request| match request {
            Request::Persist(persist) => Some(persist.batch),
            Request::Compact(_) | Request::Ask(_) => None,
        });
        let Some(batch) = batches.next_back() else { return };
        let mut shadow = place.shadow.clone();
        apply(&mut shadow, &raft.log.under_way);
        let (hard_state, last) = (shadow.hard_state, shadow.last());
        self.hear(slot, EntriesEvent::Synced { batch, hard_state, last });
    }

    /// A write was broken off: each of its batches may be there, up to some one.
    pub fn perhaps_written(&mut self, slot: usize, requests: &[Request]) {
        let slot = &mut self.slots[slot];
        let from: Vec<_> = slot.perhaps.iter().chain([&slot.shadow]).cloned().collect();
        for mut shadow in from {
            for request in requests {
                apply(&mut shadow, std::slice::from_ref(request));
                slot.perhaps.push(shadow.clone());
            }
        }
    }
}

/// What these requests make of a log.
fn apply(shadow: &mut Shadow, requests: &[Request]) {
    for request in requests {
        match request {
            Request::Persist(persist) => shadow.append(persist),
            Request::Compact(base) => shadow.compact(base),
            Request::Ask(_) => {}
        }
    }
}
