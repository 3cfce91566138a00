//! The two stages wake, digest, and have their actions carried out, as the tasks around them do it.

use raft::consensus::{Event as CoreEvent, Message, RoleName};
use raft::pipeline::digest_commits::CommitsEvent;
use raft::pipeline::digest_entries::{EntriesActions, EntriesEvent};
use raft::tasks::token;
use raft::wal::{Question, Request};
use rand::RngExt;
use std::hash::Hasher;
use std::sync::Arc;

use super::World;
use super::agenda::MS;
use super::event::{Event, Process};
use super::invariants::Before;

impl World {
    /// A tick of raft's time, and the next one.
    pub fn tick(&mut self, process: Process) {
        let tick = self.slots[process.slot].tick;
        self.at(tick, Event::Tick(process));
        self.hear(process.slot, EntriesEvent::Tick);
    }

    /// The first stage is told something, and wakes soon.
    pub fn hear(&mut self, slot: usize, event: EntriesEvent) {
        let process = self.raft_of(slot);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.inbox.push(event);
        if !raft.is_awake {
            raft.is_awake = true;
            // What comes meanwhile is digested with it.
            let delay = if self.rng.random_bool(0.7) { 20 } else { self.rng.random_range(20..MS) };
            self.at(delay, Event::Wake(process));
        }
    }

    /// The second stage is told something, and wakes soon.
    pub fn hear_commits(&mut self, slot: usize, event: CommitsEvent) {
        let process = self.raft_of(slot);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.commits_inbox.push(event);
        if !raft.commits_awake {
            raft.commits_awake = true;
            let delay = if self.rng.random_bool(0.7) { 10 } else { self.rng.random_range(10..MS) };
            self.at(delay, Event::WakeCommits(process));
        }
    }

    /// The first stage digests what waits.
    pub fn wake(&mut self, slot: usize) {
        let wall_ms = self.slots[slot].wall_ms(self.now);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.is_awake = false;
        let before = Before::of(raft);
        let mut events = std::mem::take(&mut raft.inbox);
        let actions = raft.entries.handle(&mut events, wall_ms);
        raft.inbox = events;
        let core = raft.entries.raft();
        self.trace.write_u64(core.commit_index().0 << 16 ^ core.hard_state().term.0);
        self.trace.write_u64((actions.send.len() * 64 + actions.persist.len()) as u64);
        self.check_step(slot, &before, &actions);
        self.carry_out(slot, actions);
        self.answer_peers(slot);
        self.answer_callers(slot);
        self.go_on_keeping(slot);
    }

    fn carry_out(&mut self, slot: usize, actions: EntriesActions) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let mut bases = actions.compact.into_iter().peekable();
        let log = &mut raft.log.waiting;
        for (place, persist) in actions.persist.into_iter().enumerate() {
            while let Some((_, base)) = bases.next_if(|(after, _)| *after <= place) {
                log.push(Request::Compact(base));
            }
            raft.metrics.note_handed(persist.batch);
            log.push(Request::Persist(persist));
        }
        log.extend(bases.map(|(_, base)| Request::Compact(base)));
        let keep_bytes = self.plan.keep_trailing_bytes;
        let trailing = actions.trailing.map(|index| Question::Trailing { index, keep_bytes });
        let weigh = actions.weigh_after.map(|after| Question::Weigh { after });
        log.extend(trailing.into_iter().chain(weigh).map(Request::Ask));
        for (purpose, range, max_bytes) in actions.fetch {
            let (from, to, max_bytes) =
                (range.from, range.to, max_bytes.min(self.plan.fetch_bytes));
            let question = Question::Fetch { token: token(purpose), from, to, max_bytes };
            log.push(Request::Ask(question));
        }
        for event in actions.events {
            self.note(slot, event);
        }
        self.begin_sync(slot);
        for envelope in actions.send {
            if let Message::InstallSnapshot(meta) = envelope.body {
                self.begin_sending(slot, envelope.to, envelope.term, envelope.token, &meta);
            } else {
                self.ask_peer(slot, envelope);
            }
        }
        for message in actions.to_commits {
            self.hear_commits(slot, CommitsEvent::FromEntries(message));
        }
    }

    fn note(&mut self, slot: usize, event: CoreEvent) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        match event {
            CoreEvent::RoleChanged { role, .. } => {
                self.coverage.count("role changes");
                if role != RoleName::Leader {
                    raft.sendings.clear();
                }
            }
            CoreEvent::LeaderChanged { leader, .. } => raft.leader = leader,
            CoreEvent::MembershipChanged { membership, .. } => {
                self.coverage.count("configurations in force");
                raft.membership = Arc::new(membership);
            }
            CoreEvent::Dropped { .. } => self.coverage.count("messages dropped by the core"),
        }
    }

    /// The second stage digests what waits.
    pub fn wake_commits(&mut self, slot: usize) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.commits_awake = false;
        let mut events = std::mem::take(&mut raft.commits_inbox);
        let actions = raft.commits.handle(&mut events);
        raft.commits_inbox = events;
        for call in actions.calls {
            self.carry_call(slot, call);
        }
        for message in actions.to_entries {
            self.hear(slot, EntriesEvent::FromCommits(message));
        }
        self.answer_callers(slot);
        self.go_on_keeping(slot);
    }
}
