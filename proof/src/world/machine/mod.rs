//! A state machine's process: the real host and the real key-value machine, over an engine whose disk is a value.

mod disk;
mod engine;

use std::sync::Arc;

use bytes::Bytes;
use state_machine::attachment::Attachment;
use state_machine::host::{Host, PinnedSnapshot};
use state_machine::kv::Kv;
use state_machine::kv::command::{Command, decode_value};
use state_machine::machine::{Machine as _, MachineError};
use state_machine::rpc::CommandResult;

pub use self::disk::{MachineDisk, MachineFault};
pub use self::engine::{Sight, View, WorldEngine};

/// Whose call an answer belongs to: start of raft, attachment, and when it has to be there at the earliest.
pub type Ticket = (u64, u64);

/// The process.
pub struct MachineProcess {
    /// Between contract and machine.
    pub host: Host<Kv<WorldEngine>, Ticket>,
    /// A snapshot that is being read.
    pub pinned: Option<Arc<PinnedSnapshot>>,
    view: View,
    disk: MachineDisk,
}

impl MachineProcess {
    /// Starts on its disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn start(disk: &MachineDisk) -> Result<Self, MachineError> {
        let view = View::default();
        let engine = WorldEngine::open(disk.clone(), view.clone())?;
        let host = Host::new(Kv::new(engine), Box::new(disk.clone()))?;
        Ok(Self { host, pinned: None, view, disk: disk.clone() })
    }

    /// What it is like.
    pub fn look(&self) -> Sight {
        self.view.look()
    }

    /// Newest applied entry, and a digest of the state there.
    pub fn place(&self) -> (u64, u64) {
        let Sight { applied, digest, .. } = self.look();
        (applied, digest)
    }

    /// Whose data it holds.
    pub fn attachment(&self) -> Option<Attachment> {
        self.disk.attachment()
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Bytes> {
        let get = Command::Get { key: Bytes::copy_from_slice(key.as_bytes()) };
        let query = get.encode().expect("a short key");
        match self.host.machine().query(&query) {
            Ok(CommandResult::Done(bytes)) => decode_value(&bytes).expect("an answer to GET"),
            other => panic!("no answer to GET: {other:?}"),
        }
    }
}
