//! A machine for tests: it counts entries, its snapshots can be held up and made to fail, and it knows which of them are held.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use crate::entries::Entry;
use crate::machine::{LogId, Machine, MachineError, RestoreFailure};
use crate::rpc::CommandResult;

/// The machine.
#[derive(Default)]
pub(crate) struct Probe {
    applied: LogId,
    durable_index: u64,
    pub(crate) wants_snapshot: bool,
    /// A restore finds no room to begin.
    pub(crate) has_no_place: bool,
    /// It is unknown which state is in use when a restore ends.
    pub(crate) finish_breaks: bool,
    /// Restores that were thrown away.
    pub(crate) abandoned: u32,
    pub(crate) control: Control,
}

/// What a test holds of it.
#[derive(Clone, Default)]
pub(crate) struct Control {
    held: Arc<()>,
    /// Reading waits while this is closed.
    pub(crate) gate: Arc<Gate>,
    /// Reading fails.
    pub(crate) fails: Arc<AtomicBool>,
}

impl Control {
    /// Snapshots that the machine has to keep its state for.
    pub(crate) fn pins(&self) -> usize {
        // The test's own and the machine's.
        Arc::strong_count(&self.held) - 2
    }
}

/// Open, until it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.is_closed.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.is_closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        drop(self.opened.wait_while(self.is_closed.lock().unwrap(), |closed| *closed).unwrap());
    }
}

/// Bytes of a snapshot, each of which is the applied index.
pub(crate) const BODY_BYTES: usize = 600 << 10;

struct Body {
    bytes: Cursor<Vec<u8>>,
    control: Control,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.control.gate.pass();
        if self.control.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("as the test asks for"));
        }
        self.bytes.read(buffer)
    }
}

impl Probe {
    pub(crate) fn new(control: Control) -> Probe {
        Probe { control, ..Probe::default() }
    }
}

impl Machine for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable_index(&self) -> u64 {
        self.durable_index
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<Vec<CommandResult>, MachineError> {
        for entry in entries {
            self.applied = LogId { term: entry.header.term, index: self.applied.index + 1 };
        }
        Ok(vec![CommandResult::Skipped; entries.len()])
    }

    fn query(&self, _query: &Bytes) -> Result<CommandResult, MachineError> {
        Ok(CommandResult::Skipped)
    }

    fn sync(&mut self) -> Result<(), MachineError> {
        self.durable_index = self.applied.index;
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        let byte = u8::try_from(self.applied.index).unwrap();
        let bytes = Cursor::new(vec![byte; BODY_BYTES]);
        Ok(Box::new(Body { bytes, control: self.control.clone() }))
    }

    fn wants_snapshot(&self) -> bool {
        self.wants_snapshot
    }

    fn begin_restore(&mut self) -> Result<(), RestoreFailure> {
        if self.has_no_place { Err(RestoreFailure::NoPlace(refusal())) } else { Ok(()) }
    }

    fn write_restore(&mut self, _bytes: &[u8]) -> Result<(), RestoreFailure> {
        Ok(())
    }

    fn finish_restore(&mut self, applied: LogId) -> Result<(), RestoreFailure> {
        if self.finish_breaks {
            return Err(refusal().into());
        }
        self.applied = applied;
        Ok(())
    }

    fn abandon_restore(&mut self) {
        self.abandoned += 1;
    }
}

fn refusal() -> MachineError {
    MachineError::storage("restoring")(io::Error::from(io::ErrorKind::StorageFull))
}
