//! A state machine is loaded from one of our snapshots, piece by piece.

use raft::consensus::{Index, LogId, SnapshotMeta, Term};
use raft::machine_link::{SnapshotPieces, SnapshotSource, SourceError};
use raft::pipeline::digest_commits::MachineEvent;
use rand::RngExt;
use state_machine::machine::MachineError;
use state_machine::rpc::{BeginRestore, FinishRestore, RestoreError, Restoring, WriteRestore};

use super::World;
use super::agenda::{MS, SECOND};
use super::event::{Heard, MachineWork, RestoreStep};
use super::machine::{MachineProcess, Ticket};
use super::nemesis::RESTORE_ENDS;

/// A restore under way, as raft sees it.
pub struct Loading {
    pieces: Box<dyn SnapshotPieces>,
}

impl World {
    /// Opens the snapshot, and asks the machine to prepare a place.
    pub fn begin_restore(&mut self, slot: usize, meta: SnapshotMeta) {
        self.coverage.count("restores begun");
        let Some(raft) = &mut self.slots[slot].raft else { return };
        match raft.shelf.open(&meta) {
            Ok(pieces) => {
                raft.link.loading = Some(Loading { pieces });
                self.tell_machine(slot, MachineWork::Restore(RestoreStep::Begin(meta)));
            }
            Err(error) => self.source_failed(slot, &error),
        }
    }

    /// The machine has taken what it was given.
    pub fn go_on_restoring(&mut self, slot: usize, state: Restoring) {
        let Some(raft) = &mut self.slots[slot].raft else { return };
        let Some(loading) = &mut raft.link.loading else { return };
        let Restoring { restore, offset } = state;
        match loading.pieces.next_piece() {
            Ok(Some(bytes)) => {
                let step = RestoreStep::Write(restore, offset, bytes);
                self.tell_machine(slot, MachineWork::Restore(step));
            }
            Ok(None) => {
                let step = RestoreStep::Finish(restore, offset);
                self.tell_machine(slot, MachineWork::Restore(step));
            }
            Err(error) => self.source_failed(slot, &error),
        }
    }

    fn source_failed(&mut self, slot: usize, error: &SourceError) {
        let pause = if matches!(error, SourceError::Damaged(_)) { 5 * SECOND } else { 100 * MS };
        self.link_down(slot, &error.to_string(), pause);
        self.end_if_failed(slot);
    }

    /// Whether it is the end of one of the processes, or of the whole machine.
    fn restore_ends(&mut self, slot: usize) -> bool {
        if self.slots[slot].restore_ends == 0 || self.rng.random_bool(0.7) {
            return false;
        }
        self.slots[slot].restore_ends -= 1;
        self.coverage.fault(RESTORE_ENDS);
        match self.rng.random_range(0..3) {
            0 => self.kill_raft(slot),
            1 => self.kill_machine(slot),
            _ => self.cut_power(slot),
        }
        true
    }

    /// The machine's side of a step.
    pub fn restore_machine(
        &mut self,
        slot: usize,
        ticket: Ticket,
        boot: u64,
        step: RestoreStep,
    ) -> Result<(), MachineError> {
        if self.restore_ends(slot) {
            return Ok(());
        }
        let Some(machine) = &mut self.slots[slot].machine else { return Ok(()) };
        let attachment = ticket.1;
        let answer = match step {
            RestoreStep::Begin(meta) => {
                let LogId { term: Term(applied_term), index: Index(applied_index) } = meta.last;
                let request = BeginRestore { boot, applied_term, applied_index };
                machine.host.begin_restore(&request)?.map(Ok)
            }
            RestoreStep::Write(restore, offset, bytes) => {
                let checksum = crc32c::crc32c(&bytes);
                let request = WriteRestore { boot, restore, offset, bytes, checksum };
                machine.host.write_restore(&request)?.map(Ok)
            }
            RestoreStep::Finish(restore, snapshot_bytes) => {
                let request = FinishRestore { boot, restore, snapshot_bytes };
                machine.host.finish_restore(&request)?.map(Err)
            }
        };
        let heard = match answer {
            Ok(Ok(state)) => Heard::Restoring(attachment, state),
            Ok(Err(info)) => {
                self.coverage.count("restores finished");
                let applied = LogId::new(Term(info.applied_term), Index(info.applied_index));
                Heard::Event(attachment, MachineEvent::Restored { applied })
            }
            Err(bad @ RestoreError::BadSnapshot { .. }) => {
                Heard::Refused(attachment, bad.to_string())
            }
            Err(error) => Heard::Down(attachment, error.to_string()),
        };
        let place = self.slots[slot].machine.as_ref().map(MachineProcess::place);
        if let Some(place) = place {
            self.check_state(slot, place);
        }
        self.machine_says(slot, ticket, heard);
        Ok(())
    }
}
