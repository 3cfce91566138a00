//! The thread that owns the log.
//!
//! Requests gather in a mailbox while a sync runs; then the thread takes all of them, writes once, syncs once and reports
//! the highest batch. So a batch is what arrived meanwhile: no timer, no minimum.
//!
//! [`Writer::submit`] never blocks and the mailbox has no bound of its own: whoever submits limits what is under way
//! (uncommitted bytes on a leader, the appends in flight on a follower) and can watch [`Writer::pending_bytes`].

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Durable, ReadError, Wal, WriteError};
use crate::consensus::{BatchNo, Entry, HardState, Index, LogId, Persist, SnapshotMeta};

/// What the thread reports, in this order for a drained mailbox: `Synced`, then what was asked, in the order of the
/// questions.
#[derive(Debug)]
pub enum WalEvent {
    /// Everything up to and including `batch` is durable.
    Synced {
        /// Highest durable batch.
        batch: BatchNo,
        /// Durable hard state.
        hard_state: HardState,
        /// Durable end of the log.
        last: LogId,
        /// What it took.
        cost: SyncCost,
    },
    /// Answers [`Writer::fetch`].
    Fetched {
        /// Repeated from the request.
        token: u64,
        /// What was read.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// Answers [`Writer::trailing`]: the highest index that may go.
    Trailing(Index),
    /// Answers [`Writer::weigh`]: bytes of the entries that were asked about, as records on disk.
    Weighed(u64),
    /// The log is over and the thread has ended: end the process. Reported once; nothing follows.
    Failed(WriteError),
}

/// What making one drained mailbox durable took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncCost {
    /// Time of the write and its sync.
    pub took: Duration,
    /// Entries in it.
    pub entries: usize,
    /// What they weigh as records on disk.
    pub entry_bytes: u64,
    /// Bytes that all segments take on disk afterwards.
    pub disk_bytes: u64,
}

/// Handle to the thread. Dropping it lets the thread finish what was submitted; [`Writer::close`] also waits for that.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    mailbox: Mutex<Mailbox>,
    filled: Condvar,
    pending_bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Mailbox {
    requests: Vec<Request>,
    /// Nothing more will be sent.
    closed: bool,
    /// Nothing more will be taken.
    ended: bool,
}

/// What the log is to do.
#[derive(Clone, Debug)]
pub enum Request {
    /// See [`Writer::submit`].
    Persist(Persist),
    /// See [`Writer::compact`].
    Compact(SnapshotMeta),
    /// To be answered once what was submitted before is durable.
    Ask(Question),
}

/// What the log is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// See [`Writer::fetch`].
    Fetch {
        /// Repeated in the answer.
        token: u64,
        /// First wanted.
        from: Index,
        /// Last wanted, inclusive.
        to: Index,
        /// Bound of the answer.
        max_bytes: usize,
    },
    /// See [`Writer::trailing`].
    Trailing {
        /// Entry that the log is to go on from.
        index: Index,
        /// Bytes of entries that stay before it.
        keep_bytes: u64,
    },
    /// See [`Writer::weigh`].
    Weigh {
        /// Entry before the first that counts.
        after: Index,
    },
}

impl Writer {
    /// Starts the thread. It calls `on_event` itself, so that must be quick and must not panic.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(wal: Wal, on_event: Box<dyn FnMut(WalEvent) + Send>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let pending_bytes = Some(Arc::clone(&shared.pending_bytes));
        let worker = Worker { pending_bytes, ..Worker::new(wal, on_event) };
        let mut thread = Thread { worker, shared: Arc::clone(&shared) };
        let thread =
            std::thread::Builder::new().name("wal".to_owned()).spawn(move || thread.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over a batch; [`WalEvent::Synced`] follows. Never blocks.
    pub fn submit(&self, persist: Persist) {
        self.shared.pending_bytes.fetch_add(weight_bytes(&persist), Ordering::Relaxed);
        self.send(Request::Persist(persist));
    }

    /// Asks for the entries `from ..= to`, as with [`Wal::read`], as they stand after the batches submitted before this
    /// call (and perhaps some after it). Never blocks.
    pub fn fetch(&self, token: u64, from: Index, to: Index, max_bytes: usize) {
        self.send(Request::Ask(Question::Fetch { token, from, to, max_bytes }));
    }

    /// Asks how far the log may be compacted, as with [`Wal::trailing`]; [`WalEvent::Trailing`] answers. Never blocks.
    pub fn trailing(&self, index: Index, keep_bytes: u64) {
        self.send(Request::Ask(Question::Trailing { index, keep_bytes }));
    }

    /// Asks what the entries above this one weigh, as with [`Wal::bytes_after`]; [`WalEvent::Weighed`] answers. Never blocks.
    pub fn weigh(&self, after: Index) {
        self.send(Request::Ask(Question::Weigh { after }));
    }

    /// Makes the log begin after this entry, as with [`Wal::compact`], behind the batches submitted before.
    pub fn compact(&self, base: SnapshotMeta) {
        self.send(Request::Compact(base));
    }

    /// Bytes of entries that were submitted and are not durable yet ([`Entry::weight_bytes`]).
    pub fn pending_bytes(&self) -> usize {
        self.shared.pending_bytes.load(Ordering::Relaxed)
    }

    /// Waits until everything submitted is durable and reported, and ends the thread.
    ///
    /// # Panics
    /// If the thread did.
    pub fn close(mut self) {
        self.shut();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
    }

    fn send(&self, request: Request) {
        let mut mailbox = self.shared.mailbox();
        if !mailbox.ended {
            mailbox.requests.push(request);
            self.shared.filled.notify_one();
        }
    }

    fn shut(&self) {
        self.shared.mailbox().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Shared {
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // Nothing that holds this lock can panic half-way through a change.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for requests and takes all of them; false when there will be none.
    fn drain(&self, into: &mut Vec<Request>) -> bool {
        let is_idle = |mailbox: &mut Mailbox| mailbox.requests.is_empty() && !mailbox.closed;
        let mailbox = self.filled.wait_while(self.mailbox(), is_idle);
        std::mem::swap(&mut mailbox.unwrap_or_else(PoisonError::into_inner).requests, into);
        !into.is_empty()
    }
}

/// What runs on the thread.
struct Thread {
    worker: Worker,
    shared: Arc<Shared>,
}

impl Thread {
    fn run(&mut self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.run_until_error()));
        let mut mailbox = self.shared.mailbox();
        mailbox.ended = true;
        mailbox.requests.clear();
        drop(mailbox);
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => (self.worker.on_event)(WalEvent::Failed(error)),
            Err(panic) => {
                (self.worker.on_event)(WalEvent::Failed(WriteError::Panicked));
                resume_unwind(panic);
            }
        }
    }

    fn run_until_error(&mut self) -> Result<(), WriteError> {
        let mut requests = Vec::new();
        while self.shared.drain(&mut requests) {
            self.worker.work(requests.drain(..))?;
        }
        Ok(())
    }
}

/// The owner of the log: writes what has gathered, syncs once, reports. It has no thread of its own, so a simulator can run it.
pub struct Worker {
    wal: Wal,
    on_event: Box<dyn FnMut(WalEvent) + Send>,
    /// Batches for the next append; kept for its capacity.
    batches: Vec<Persist>,
    /// Of the writer in front of it.
    pending_bytes: Option<Arc<AtomicUsize>>,
}

impl Worker {
    /// Owns an open log and reports to `on_event`.
    pub fn new(wal: Wal, on_event: Box<dyn FnMut(WalEvent) + Send>) -> Self {
        Self { wal, on_event, batches: Vec::new(), pending_bytes: None }
    }

    /// The log, to look at.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Carries out what has gathered: one write and one sync for all of it, save where a compaction stands between; then the
    /// questions.
    ///
    /// # Errors
    /// The log is over. Nobody was told of what failed: that is the caller's part.
    pub fn work(&mut self, requests: impl Iterator<Item = Request>) -> Result<(), WriteError> {
        let mut questions = Vec::new();
        for request in requests {
            match request {
                Request::Persist(persist) => self.batches.push(persist),
                Request::Compact(base) => {
                    self.sync()?;
                    self.wal.compact(&base)?;
                }
                Request::Ask(question) => questions.push(question),
            }
        }
        self.sync()?;
        for question in questions {
            let answer = self.answer(question);
            (self.on_event)(answer);
        }
        Ok(())
    }

    fn answer(&mut self, question: Question) -> WalEvent {
        match question {
            Question::Fetch { token, from, to, max_bytes } => {
                WalEvent::Fetched { token, entries: self.wal.read(from, to, max_bytes) }
            }
            Question::Trailing { index, keep_bytes } => {
                WalEvent::Trailing(self.wal.trailing(index, keep_bytes))
            }
            Question::Weigh { after } => WalEvent::Weighed(self.wal.bytes_after(after)),
        }
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let Durable { batch, hard_state, last } = self.wal.append(&self.batches)?;
        let took = begun.elapsed();
        let entries = self.batches.iter().map(|batch| batch.append.len()).sum();
        let before = Index(last.index.0.saturating_sub(entries as u64));
        let cost = SyncCost {
            took,
            entries,
            entry_bytes: self.wal.bytes_after(before),
            disk_bytes: self.wal.disk_bytes(),
        };
        let bytes = self.batches.drain(..).map(|batch| weight_bytes(&batch)).sum();
        if let Some(pending_bytes) = &self.pending_bytes {
            pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        (self.on_event)(WalEvent::Synced { batch, hard_state, last, cost });
        Ok(())
    }
}

fn weight_bytes(persist: &Persist) -> usize {
    persist.append.iter().map(Entry::weight_bytes).sum()
}
