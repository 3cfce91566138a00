//! What can happen.

use bytes::Bytes;
use raft::command::Kind;
use raft::consensus::{Envelope, NodeId, SnapshotMeta, Term};
use raft::pipeline::digest_commits::{MachineCall, MachineEvent};
use raft::pipeline::digest_entries::EntriesEvent;
use raft::rpc::client::Outcome;
use raft::rpc::peer::{
    InstallReply, LeaveAnswer, SnapshotOffer, SnapshotPiece, SnapshotRefusal, TurnRequest,
};
use state_machine::rpc::{Attach, Restoring, SnapshotChunk, SnapshotInfo};

use super::clients::Wakeup;
use super::nemesis::Relief;

/// One of a machine's three processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Consensus.
    Raft,
    /// The replicated program.
    Machine,
    /// Gossip.
    Member,
}

/// One run of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// On which machine.
    pub slot: usize,
    /// Which.
    pub part: Part,
    /// Its how manieth start.
    pub start: u64,
}

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// Of raft's time.
    Tick(Process),
    /// The first stage digests what waits.
    Wake(Process),
    /// The second one.
    WakeCommits(Process),
    /// The log's write and sync come to their end.
    Synced(Process),
    /// The first stage is told something.
    Hear(Process, Box<EntriesEvent>),
    /// A message arrives.
    Packet(Box<Packet>),
    /// The link to the state machine hears something.
    Link(Process, Box<Heard>),
    /// The link connects.
    Connect(Process),
    /// The state machine is called.
    Machine(Process, Box<ToMachine>),
    /// The state machine makes durable what it applied, and looks at its clock.
    MachineSync(Process),
    /// The keeper of snapshots looks whether one is due.
    Look(Process),
    /// A node that wants to leave asks.
    Leaving(Process),
    /// Raft and member look at each other.
    Roster(Process),
    /// A step of a transfer to a peer has had no answer.
    SendLate(Process, NodeId, u64),
    /// A timer of gossip.
    Gossip(Process),
    /// Of a client.
    Client(usize, Wakeup),
    /// A process starts.
    Start(usize, Part),
    /// A machine gets new, empty disks, and with them a new identity, if it still has its so manieth.
    Replace(usize, u64),
    /// This run of raft ends.
    End(Process),
    /// Something goes wrong.
    Nemesis,
    /// Something that went wrong is over.
    Relief(Relief),
}

impl Event {
    /// The process that it is about, without which it does not happen.
    pub fn process(&self) -> Option<Process> {
        match self {
            Self::Tick(process)
            | Self::Wake(process)
            | Self::WakeCommits(process)
            | Self::Synced(process)
            | Self::Hear(process, _)
            | Self::Link(process, _)
            | Self::Connect(process)
            | Self::Machine(process, _)
            | Self::MachineSync(process)
            | Self::Look(process)
            | Self::Leaving(process)
            | Self::Roster(process)
            | Self::SendLate(process, ..)
            | Self::Gossip(process)
            | Self::End(process) => Some(*process),
            Self::Packet(_)
            | Self::Client(..)
            | Self::Start(..)
            | Self::Replace(..)
            | Self::Nemesis
            | Self::Relief(_) => None,
        }
    }

    /// For the trace.
    pub fn number(&self) -> u64 {
        let (kind, slot) = match self {
            Self::Tick(process) => (0, process.slot),
            Self::Wake(process) => (1, process.slot),
            Self::WakeCommits(process) => (2, process.slot),
            Self::Synced(process) => (3, process.slot),
            Self::Hear(process, _) => (4, process.slot),
            Self::Packet(packet) => (5, packet.to),
            Self::Link(process, _) => (6, process.slot),
            Self::Connect(process) => (7, process.slot),
            Self::Machine(process, _) => (8, process.slot),
            Self::MachineSync(process) => (9, process.slot),
            Self::Look(process) => (10, process.slot),
            Self::Leaving(process) => (11, process.slot),
            Self::Roster(process) => (12, process.slot),
            Self::SendLate(process, ..) => (13, process.slot),
            Self::Gossip(process) => (14, process.slot),
            Self::Client(client, _) => (15, *client),
            Self::Start(slot, _) => (16, *slot),
            Self::Replace(slot, _) => (17, *slot),
            Self::Nemesis => (18, 0),
            Self::Relief(_) => (19, 0),
            Self::End(process) => (20, process.slot),
        };
        kind << 3 | (slot as u64 & 7)
    }
}

/// A message between machines, or from and to a client.
#[derive(Clone, Debug)]
pub struct Packet {
    /// From which machine; none = a client.
    pub from: Option<usize>,
    /// To which machine, or for a reply to which client.
    pub to: usize,
    /// What is in it.
    pub body: Body,
}

/// The content of a packet.
#[derive(Clone, Debug)]
pub enum Body {
    /// A question to a peer's core, of this start of the asking process.
    Ask(u64, Envelope),
    /// Its answer.
    Answer(u64, Envelope),
    /// A request that is passed on: by which start, and its number there.
    Forward(u64, u64, Call),
    /// Its answer.
    Forwarded(u64, u64, Reply),
    /// A step of a snapshot's transfer: by which start and of which attempt.
    Snapshot(u64, u64, SnapshotStep),
    /// The answer to it, by whom.
    SnapshotReply(u64, u64, NodeId, SnapshotReply),
    /// Gossip.
    Datagram(Vec<u8>),
    /// A client's request, and of which of its attempts.
    Request(usize, u64, Call),
    /// The answer to it, and who is said to lead.
    Reply(usize, u64, Reply),
}

/// A request to a node.
#[derive(Clone, Debug)]
pub enum Call {
    /// A command.
    Submit {
        /// What it asks for.
        kind: Kind,
        /// Session, or zero.
        session: u64,
        /// Number within the session.
        sequence: u64,
        /// Answers below are known.
        acked_below: u64,
        /// The state machine's bytes.
        body: Bytes,
    },
    /// A linearizable read.
    Query(Bytes),
    /// A node wants to leave.
    Leave(NodeId),
    /// A node wants to take a snapshot.
    Turn(NodeId, TurnRequest),
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Applied at this index.
    Applied(u64, Outcome),
    /// Read.
    Read(Outcome),
    /// Surely not done; somebody else may lead.
    NotLeader(Option<NodeId>),
    /// Surely not done, now.
    Busy,
    /// The session is not known; what an earlier attempt did cannot be told.
    Expired,
    /// It is, or was, in the log: what came of it cannot be told.
    Unknown,
    /// Whether it is one's turn.
    Turn(bool),
    /// The word on leaving.
    Leave(LeaveAnswer),
}

/// A step of a snapshot's transfer.
#[derive(Clone, Debug)]
pub enum SnapshotStep {
    /// It begins, or goes on.
    Offer(SnapshotOffer),
    /// A piece.
    Piece(SnapshotPiece),
    /// All pieces are there.
    Install(Term, SnapshotMeta),
}

/// The answer to a step.
#[derive(Clone, Debug)]
pub enum SnapshotReply {
    /// So many bytes are there.
    Have(Result<u64, SnapshotRefusal>),
    /// Installed, or not.
    Installed(InstallReply),
}

/// A call of raft's to its state machine.
#[derive(Debug)]
pub struct ToMachine {
    /// By which start of raft.
    pub start: u64,
    /// That start's boot.
    pub boot: u64,
    /// Of which attachment.
    pub attachment: u64,
    /// What to do.
    pub what: MachineWork,
}

/// What is asked of a state machine.
#[derive(Debug)]
pub enum MachineWork {
    /// To let us in.
    Attach(NodeId),
    /// To let in somebody who has no business here.
    Stray(Attach),
    /// What the second stage wants.
    Task(MachineCall),
    /// To go on with a restore.
    Restore(RestoreStep),
    /// To pin its state.
    Pin,
    /// To give a piece of what is pinned.
    ReadPinned(u64, u64),
}

/// A step of a restore.
#[derive(Debug)]
pub enum RestoreStep {
    /// Prepares an empty place.
    Begin(SnapshotMeta),
    /// A piece of it.
    Write(u64, u64, Bytes),
    /// All of it is there.
    Finish(u64, u64),
}

/// What the link hears from the state machine.
#[derive(Debug)]
pub enum Heard {
    /// Something for the second stage, of this attachment.
    Event(u64, MachineEvent),
    /// The connection of this attachment is over.
    Down(u64, String),
    /// The machine does not want us, or we it.
    Refused(u64, String),
    /// A restore goes on.
    Restoring(u64, Restoring),
    /// The state is pinned, or not.
    Pinned(Option<SnapshotInfo>),
    /// A piece of it, or none to be had.
    Piece(Option<SnapshotChunk>),
}
