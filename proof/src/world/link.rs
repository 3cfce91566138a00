//! The link from raft to its state machine: a pipe between two processes of one machine, in order, and broken when either ends.

use raft::consensus::{Index, LogId, Term};
use raft::pipeline::digest_commits::{CommitsEvent, MachineCall, MachineEvent, MachineTask};
use rand::RngExt;
use state_machine::host::ApplyAnswers;
use state_machine::machine::MachineError;
use state_machine::rpc::{
    Apply, Attach, AttachError, BeginSnapshot, CONTRACT_VERSION, Info, Query, ReadSnapshot,
};

use super::World;
use super::agenda::{MS, SECOND, Time};
use super::event::{Event, Heard, MachineWork, Part, ToMachine};
use super::invariants::check_let_in;
use super::machine::Ticket;
use super::restore::Loading;

/// Raft's end of it.
#[derive(Default)]
pub struct Link {
    /// Counts attachments.
    pub attachment: u64,
    /// Whether the machine has let us in.
    pub is_up: bool,
    /// Whether it is being tried.
    pub tries: bool,
    /// Nothing arrives before this: both directions are in order, mostly.
    next: [Time; 2],
    /// Answers to batches are read in the order of the batches, whatever overtakes them.
    next_applied: Time,
    /// Calls of this attachment and older ones do not arrive before then: their connection is broken.
    pub stragglers: (u64, Time),
    /// A restore under way.
    pub loading: Option<Loading>,
}

impl World {
    /// Connects, if the node knows its cluster and there is a machine.
    pub fn connect_link(&mut self, slot: usize) {
        let (process, here) = (self.raft_of(slot), &mut self.slots[slot]);
        let Some(raft) = &mut here.raft else { return };
        raft.link.tries = false;
        if here.cluster.is_none() || here.machine.is_none() {
            raft.link.tries = true;
            let pause = self.rng.random_range(20 * MS..500 * MS);
            return self.at(pause, Event::Connect(process));
        }
        raft.link.attachment += 1;
        raft.link.loading = None;
        let node = here.node;
        self.tell_machine(slot, MachineWork::Attach(node));
    }

    /// Calls the machine.
    pub fn tell_machine(&mut self, slot: usize, what: MachineWork) {
        let machine = self.slots[slot].process(slot, Part::Machine);
        let (start, boot) = (self.raft_of(slot).start, self.slots[slot].boot);
        let delay = self.pipe(slot, 0, false);
        let Some(raft) = &self.slots[slot].raft else { return };
        let call = ToMachine { start, boot, attachment: raft.link.attachment, what };
        self.at(delay, Event::Machine(machine, Box::new(call)));
    }

    /// How long the pipe takes in a direction.
    fn pipe(&mut self, slot: usize, direction: usize, is_applied: bool) -> Time {
        let (now, took) = (self.now, self.rng.random_range(20..400));
        let Some(raft) = &mut self.slots[slot].raft else { return took };
        let next = &mut raft.link.next[direction];
        // Calls of one connection are served beside each other: two may change places.
        let at = if self.rng.random_bool(0.02) { now + took } else { (now + took).max(*next + 1) };
        *next = at;
        if is_applied {
            raft.link.next_applied = at.max(raft.link.next_applied + 1);
            return raft.link.next_applied - now;
        }
        at - now
    }

    /// What the second stage wants of the machine.
    pub fn carry_call(&mut self, slot: usize, call: MachineCall) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        if call.attachment != raft.link.attachment || !raft.link.is_up {
            return;
        }
        match call.task {
            MachineTask::Refuse(reason) => {
                self.coverage.count("state machines refused");
                self.link_down(slot, &reason, 5 * SECOND);
            }
            MachineTask::Restore(meta) => self.begin_restore(slot, meta),
            task @ (MachineTask::Apply { .. } | MachineTask::Query { .. }) => {
                let attachment = call.attachment;
                self.tell_machine(slot, MachineWork::Task(MachineCall { attachment, task }));
            }
        }
    }

    /// The link is down; it is tried again.
    pub fn link_down(&mut self, slot: usize, reason: &str, pause: Time) {
        let process = self.raft_of(slot);
        let Some(raft) = &mut self.slots[slot].raft else { return };
        raft.link.is_up = false;
        raft.link.loading = None;
        let event = MachineEvent::Detached { reason: reason.to_owned() };
        let tries = std::mem::replace(&mut raft.link.tries, true);
        self.hear_commits(slot, CommitsEvent::Machine(event));
        if !tries {
            self.at(pause, Event::Connect(process));
        }
    }

    /// The link hears something.
    pub fn hear_link(&mut self, slot: usize, heard: Heard) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let current = raft.link.attachment;
        match heard {
            Heard::Event(attachment, event) if attachment == current => {
                raft.link.is_up |= matches!(event, MachineEvent::Attached { .. });
                self.hear_commits(slot, CommitsEvent::Machine(event));
            }
            Heard::Down(attachment, reason) if attachment == current => {
                let pause = self.rng.random_range(20 * MS..500 * MS);
                self.link_down(slot, &reason, pause);
            }
            Heard::Refused(attachment, reason) if attachment == current => {
                self.link_down(slot, &reason, 5 * SECOND);
            }
            Heard::Restoring(attachment, state) if attachment == current => {
                self.go_on_restoring(slot, state);
            }
            Heard::Pinned(info) => self.hear_pinned(slot, info),
            Heard::Piece(piece) => self.hear_piece(slot, piece),
            Heard::Event(..) | Heard::Down(..) | Heard::Refused(..) | Heard::Restoring(..) => {}
        }
    }

    /// The machine is called.
    pub fn call_machine(&mut self, slot: usize, call: ToMachine) {
        if let Some(until) = self.is_straggler(slot, &call) {
            let machine = self.slots[slot].process(slot, Part::Machine);
            let at = until + self.rng.random_range(0..MS);
            return self.agenda.push(at, Event::Machine(machine, Box::new(call)));
        }
        let ToMachine { start, boot, attachment, what } = call;
        let ticket = (start, attachment);
        let done = match what {
            MachineWork::Stray(attach) => self.turn_away(slot, &attach),
            MachineWork::Attach(node) => self.attach_machine(slot, ticket, node.0, boot),
            MachineWork::Task(MachineCall { task, .. }) => self.run_task(slot, ticket, boot, task),
            MachineWork::Restore(step) => self.restore_machine(slot, ticket, boot, step),
            MachineWork::Pin => self.pin(slot, ticket, boot),
            MachineWork::ReadPinned(snapshot, offset) => {
                self.read_pinned(slot, ticket, &ReadSnapshot { boot, snapshot, offset })
            }
        };
        if let Err(error) = done {
            self.machine_broke(slot, &error);
        }
    }

    /// Until when a call on a broken connection is held up.
    fn is_straggler(&self, slot: usize, call: &ToMachine) -> Option<Time> {
        let raft = self.slots[slot].raft.as_ref()?;
        let (attachment, until) = raft.link.stragglers;
        let is_late = call.start == self.raft_of(slot).start && call.attachment <= attachment;
        Some(until).filter(|until| is_late && *until > self.now)
    }

    /// Sends what the machine has to say to that start of raft.
    pub fn machine_says(&mut self, slot: usize, (start, _): Ticket, heard: Heard) {
        let raft = self.raft_of(slot);
        if raft.start == start {
            let is_applied = matches!(heard, Heard::Event(_, MachineEvent::Applied { .. }));
            let delay = self.pipe(slot, 1, is_applied);
            self.at(delay, Event::Link(raft, Box::new(heard)));
        }
    }

    fn attach_machine(
        &mut self,
        slot: usize,
        ticket: Ticket,
        node: u64,
        boot: u64,
    ) -> Result<(), MachineError> {
        let attach = Attach { contract: CONTRACT_VERSION, cluster: super::CLUSTER, node, boot };
        let Some(answer) = self.let_in(slot, &attach)? else { return Ok(()) };
        let heard = match answer {
            Ok(info) => {
                let applied = LogId::new(Term(info.applied_term), Index(info.applied_index));
                let attachment = ticket.1;
                Heard::Event(attachment, MachineEvent::Attached { attachment, applied })
            }
            Err(refused) => Heard::Refused(ticket.1, refused.to_string()),
        };
        self.machine_says(slot, ticket, heard);
        Ok(())
    }

    /// Somebody who has no business here wants to be let in.
    fn turn_away(&mut self, slot: usize, attach: &Attach) -> Result<(), MachineError> {
        if let Some(Err(_refused)) = self.let_in(slot, attach)? {
            self.coverage.count("strays that were turned away");
        }
        Ok(())
    }

    /// Somebody wants to be let in.
    fn let_in(
        &mut self,
        slot: usize,
        attach: &Attach,
    ) -> Result<Option<Result<Info, AttachError>>, MachineError> {
        let Some(machine) = &mut self.slots[slot].machine else { return Ok(None) };
        let before = machine.attachment();
        let (answer, fenced) = machine.host.attach(attach)?;
        if answer.is_ok() {
            check_let_in(slot, before, attach);
        }
        self.answer_batches(slot, fenced);
        Ok(Some(answer))
    }

    fn run_task(
        &mut self,
        slot: usize,
        ticket: Ticket,
        boot: u64,
        task: MachineTask,
    ) -> Result<(), MachineError> {
        let now = self.host_now();
        match task {
            MachineTask::Apply { first, entries } => {
                self.check_fed(slot, first, &entries);
                let Some(machine) = &mut self.slots[slot].machine else { return Ok(()) };
                let request = Apply { boot, first_index: first.0, entries };
                let answers = machine.host.apply(now, &request, ticket)?;
                let place = machine.place();
                self.check_state(slot, place);
                self.answer_batches(slot, answers);
            }
            MachineTask::Query { query, read_index, bytes } => {
                let Some(machine) = &mut self.slots[slot].machine else { return Ok(()) };
                let request = Query { boot, min_applied_index: read_index.0, query: bytes };
                let heard = match machine.host.query(&request)? {
                    Ok(result) => Heard::Event(ticket.1, MachineEvent::Answered { query, result }),
                    Err(refused) => Heard::Down(ticket.1, refused.to_string()),
                };
                self.machine_says(slot, ticket, heard);
            }
            MachineTask::Restore(_) | MachineTask::Refuse(_) => {}
        }
        Ok(())
    }

    fn answer_batches(&mut self, slot: usize, answers: ApplyAnswers<Ticket>) {
        for (ticket, answer) in answers {
            let heard = match answer {
                Ok(applied) => {
                    Heard::Event(ticket.1, MachineEvent::Applied { results: applied.results })
                }
                Err(refused) => Heard::Down(ticket.1, refused.to_string()),
            };
            self.machine_says(slot, ticket, heard);
        }
    }

    fn pin(&mut self, slot: usize, ticket: Ticket, boot: u64) -> Result<(), MachineError> {
        let now = self.host_now();
        let Some(machine) = &mut self.slots[slot].machine else { return Ok(()) };
        let pinned = machine.host.begin_snapshot(now, &BeginSnapshot { boot })?.ok();
        let (info, pinned) = pinned.unzip();
        machine.pinned = pinned;
        self.machine_says(slot, ticket, Heard::Pinned(info));
        Ok(())
    }

    fn read_pinned(
        &mut self,
        slot: usize,
        ticket: Ticket,
        request: &ReadSnapshot,
    ) -> Result<(), MachineError> {
        let now = self.host_now();
        let Some(machine) = &mut self.slots[slot].machine else { return Ok(()) };
        let piece = match machine.host.pinned_snapshot(now, request) {
            Ok(pinned) => pinned.read(request.offset)?.ok(),
            Err(_refused) => None,
        };
        self.machine_says(slot, ticket, Heard::Piece(piece));
        Ok(())
    }

    /// Now and then a machine makes durable what it applied, and batches that wait too long are refused.
    pub fn sync_machine(&mut self, slot: usize) {
        let (process, now) = (self.slots[slot].process(slot, Part::Machine), self.host_now());
        let pause = self.rng.random_range(200 * MS..1_500 * MS);
        self.at(pause, Event::MachineSync(process));
        let Some(machine) = &mut self.slots[slot].machine else { return };
        if let Err(error) = machine.host.sync() {
            return self.machine_broke(slot, &error);
        }
        let Some(machine) = &mut self.slots[slot].machine else { return };
        let expired = machine.host.expire(now);
        self.answer_batches(slot, expired);
    }
}
