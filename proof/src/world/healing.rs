//! The end of a run: everything works again, and the cluster must, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rand::RngExt;

use super::World;
use super::agenda::{MS, SECOND, Time};
use super::event::{Event, Part};
use super::network::Weather;
use super::operation::text;
use crate::history::{Limit, Verdict, check, check_appends};

/// Everything is started again by then.
const STARTS: Time = 3 * SECOND;
/// From then on there must be a leader within this time.
const LEADER: Time = 8 * SECOND;
/// And so many operations must be answered within this one.
const PROGRESS: Time = 20 * SECOND;
const OPERATIONS: u64 = 40;
/// Then all machines must come to the same state.
const AGREEMENT: Time = 60 * SECOND;

impl World {
    /// Ends all misfortune.
    pub fn heal(&mut self) {
        self.nemesis.stopped = true;
        self.network.mend();
        self.network.weather = Weather::CALM;
        for slot in 0..self.slots.len() {
            let here = &mut self.slots[slot];
            here.paused_until = [0; 3];
            here.hangs_until = 0;
            here.sync = MS;
            here.disk.fill(false);
            here.disk.lie(false);
            here.machine_disk.fill(false);
            if !here.machine_disk.is_dead() {
                here.machine_disk.forget_fault();
            }
            (here.restore_ends, here.start_ends) = (0, 0);
            if !here.disk.is_dead() {
                here.disk.forget_fault();
            }
            if let Some(raft) = &mut here.raft {
                raft.leaves = false;
            }
        }
        if let Some((slot, node)) = self.atlas.unsound()
            && self.slots[slot].node == node
        {
            // The operator who was about to come comes now.
            self.replace_later(slot, 1);
        }
    }

    /// Demands a leader, then progress, then agreement, then a history that makes sense.
    pub fn demand_recovery(&mut self) {
        self.run_for(STARTS);
        self.demand("a leader", LEADER, |world| {
            world.leader().is_some_and(|slot| world.is_ready(slot))
        });
        let goal = self.clients.answered + OPERATIONS;
        self.demand("progress", PROGRESS, |world| world.clients.answered >= goal);
        self.clients.stopped = true;
        self.demand("an end of all operations", PROGRESS, |world| world.clients.are_idle());
        self.demand("agreement of all machines", AGREEMENT, Self::machines_agree);
        self.demand_bounds();
        self.judge_history();
    }

    /// Files are few, whatever happened.
    fn demand_bounds(&self) {
        for (number, slot) in self.slots.iter().enumerate() {
            let snapshots = slot.disk.files(Path::new("snapshots"));
            // Those that are kept, one that is made, one that arrives, and damaged ones that were set aside.
            assert!(
                snapshots <= self.plan.keep_snapshots + 6,
                "slot {number}: {snapshots} snapshots"
            );
        }
    }

    fn demand(&mut self, what: &str, within: Time, holds: impl Fn(&Self) -> bool) {
        let deadline = self.now + within;
        while !holds(self) {
            assert!(
                self.now < deadline,
                "healed, and no {what} within {} s: {}",
                within / SECOND,
                self.sketch()
            );
            self.step();
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Time) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn is_ready(&self, slot: usize) -> bool {
        self.slots[slot].raft.as_ref().is_some_and(|raft| raft.entries.raft().status().leader_ready)
    }

    /// Whether every node of the configuration that has a disk runs, and its machine has applied all that is committed.
    fn machines_agree(&self) -> bool {
        let Some(membership) = self.invariants.newest_membership() else { return false };
        if !membership.outgoing.is_empty() || self.leader().is_none() {
            return false;
        }
        let last = self.invariants.committed.last();
        membership.nodes.keys().filter_map(|node| self.places.get(node)).all(|slot| {
            let here = &self.slots[*slot];
            let applied = here.machine.as_ref().map(|machine| machine.place().0);
            here.raft.is_some() && applied == Some(last.0)
        })
    }

    fn judge_history(&self) {
        match check(&self.clients.history, Limit::default()) {
            Verdict::Linearizable => {}
            Verdict::Violated(violation) => panic!("not linearizable: {violation}"),
            Verdict::Undecided => panic!("the history is too hard to judge: make keys shorter"),
        }
        let slot = self.leader().expect("there is a leader");
        let machine = self.slots[slot].machine.as_ref().expect("its machine runs");
        let value = |key: &String| machine.value(key).as_ref().map(text).unwrap_or_default();
        let finals: BTreeMap<_, _> =
            self.clients.keys().map(|key| (key.clone(), value(&key))).collect();
        if let Err(violation) = check_appends(&self.clients.history, &finals) {
            panic!("not exactly once: {violation}");
        }
    }

    /// All nodes in a line each, for a failure's report.
    pub fn sketch(&self) -> String {
        let mut text = format!("committed up to {}", self.invariants.committed.last());
        for (number, slot) in self.slots.iter().enumerate() {
            let machine = slot.machine.as_ref().map(|machine| machine.place().0);
            let _ = write!(text, "\n  slot {number} {} machine {machine:?}", slot.node);
            match &slot.raft {
                Some(raft) => {
                    let status = raft.entries.raft().status();
                    let _ = write!(
                        text,
                        " {:?} term {} leader {:?} commit {} log {}..{} link {}",
                        status.role,
                        status.term,
                        status.leader,
                        status.commit_index,
                        status.first_index,
                        status.last,
                        raft.commits.status().machine,
                    );
                    let _ = write!(
                        text,
                        " voters {:?} outgoing {:?} learners {:?}",
                        status.membership.voters,
                        status.membership.outgoing,
                        status.membership.learners
                    );
                }
                None => text += if slot.is_over { " over" } else { " down" },
            }
        }
        text
    }

    /// Starts all processes of all machines.
    pub fn begin(&mut self) {
        for slot in 0..self.slots.len() {
            for part in [Part::Member, Part::Machine, Part::Raft] {
                let pause = self.rng.random_range(0..200 * MS);
                self.at(pause, Event::Start(slot, part));
            }
        }
        for client in 0..self.clients.count() {
            let pause = self.rng.random_range(SECOND..2 * SECOND);
            self.at(pause, Event::Client(client, super::clients::Wakeup::Next));
        }
        self.at(8 * SECOND, Event::Nemesis);
    }
}
