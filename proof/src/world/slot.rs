//! A machine: its disks, its identity, its clock, and its processes.

use raft::consensus::{LogId, NodeId};

use super::agenda::Time;
use super::disk::SimulatedDisk;
use super::event::{Part, Process};
use super::machine::{MachineDisk, MachineProcess};
use super::member_process::MemberProcess;
use super::raft_process::RaftProcess;
use super::shadow::Shadow;

/// A machine.
pub struct Slot {
    /// Who lives here.
    pub node: NodeId,
    /// Counts identities.
    pub generation: u64,
    /// Counts starts of raft under this identity; in its identity file, which is written apart.
    pub boot: u64,
    /// The cluster, once known.
    pub cluster: Option<u128>,
    /// Raft's disk.
    pub disk: SimulatedDisk,
    /// The state machine's disk.
    pub machine_disk: MachineDisk,
    /// What is on raft's disk.
    pub shadow: Shadow,
    /// What may be there instead since a write was broken off.
    pub perhaps: Vec<Shadow>,
    /// Where the newest snapshot ends that is durable there: it stands for all entries before.
    pub snapshot: LogId,
    /// Raft.
    pub raft: Option<RaftProcess>,
    /// The replicated program.
    pub machine: Option<MachineProcess>,
    /// Gossip.
    pub member: Option<MemberProcess>,
    /// Of gossip, as its disk has it.
    pub incarnation: u64,
    /// Starts of each process.
    pub starts: [u64; 3],
    /// Until when each process stands still.
    pub paused_until: [Time; 3],
    /// Length of a tick here.
    pub tick: Time,
    /// What the wall clock shows too much, in ms.
    pub wall_offset_ms: i64,
    /// How long a sync takes, and until when none ends.
    pub sync: Time,
    /// Until when no sync ends.
    pub hangs_until: Time,
    /// How many of the coming restores something ends in their middle.
    pub restore_ends: u32,
    /// How many of the coming starts of raft something befalls at once.
    pub start_ends: u32,
    /// Raft has refused its disk, or has left: nothing starts here before it gets a new one.
    pub is_over: bool,
}

impl Slot {
    /// Whether this very run of the process goes on.
    pub fn runs(&self, process: Process) -> bool {
        let is_up = match process.part {
            Part::Raft => self.raft.is_some(),
            Part::Machine => self.machine.is_some(),
            Part::Member => self.member.is_some(),
        };
        is_up && self.starts[process.part as usize] == process.start
    }

    /// The present run of a process.
    pub fn process(&self, slot: usize, part: Part) -> Process {
        Process { slot, part, start: self.starts[part as usize] }
    }

    /// Until when the process stands still, if it does.
    pub fn paused(&self, part: Part, now: Time) -> Option<Time> {
        Some(self.paused_until[part as usize]).filter(|until| *until > now)
    }

    /// Whether an entry is durable here, in the log or in a snapshot.
    pub fn holds(&self, id: LogId) -> bool {
        self.shadow.holds(id) || id.index <= self.snapshot.index
    }

    /// The wall clock in ms.
    pub fn wall_ms(&self, now: Time) -> u64 {
        const BEGIN_MS: i64 = 1_700_000_000_000;
        let now = i64::try_from(now / 1_000).unwrap_or(i64::MAX / 2);
        u64::try_from(BEGIN_MS + now + self.wall_offset_ms).unwrap_or_default()
    }
}
