//! The thread that owns a machine, and the bounded queue before it.
//!
//! A machine blocks on its storage, so it has a thread of its own. Whoever speaks to it sends a piece of work that runs on that thread,
//! in the order of sending: a query sees every batch that was sent before it. Between two pieces of work the thread looks at the
//! clock: it syncs what was applied, and refuses batches that waited too long for their predecessor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::host::{ApplyAnswers, Host};
use crate::machine::{Machine, MachineError};
use crate::rpc::{AccessError, Applied, ApplyError};

/// The most pieces of work that wait for the machine.
pub const MAX_QUEUED_CALLS: usize = 1024;

/// The most bytes of requests that wait for the machine (64 MiB).
pub const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Where the answer to a batch goes.
pub type Ticket = oneshot::Sender<Result<Applied, ApplyError>>;

/// A host whose answers go to waiting calls.
pub type LiveHost<M> = Host<M, Ticket>;

type Work<M> = Box<dyn FnOnce(&mut LiveHost<M>) -> Result<(), MachineError> + Send>;

enum Message<M> {
    Work { bytes: usize, work: Work<M> },
    Stop,
}

/// When applied entries are made durable: after the first of the two.
#[derive(Debug, Clone, Copy)]
pub struct SyncPolicy {
    /// This long after an entry was applied.
    pub interval: Duration,
    /// So many entries after the sync before.
    pub entries: u64,
}

/// How the thread ended, once it did. Dropped without a word when it panicked.
pub type Ended = oneshot::Receiver<Result<(), MachineError>>;

/// Speaks to the machine's thread.
pub struct MachineHandle<M> {
    queue: SyncSender<Message<M>>,
    queued_bytes: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl<M> Clone for MachineHandle<M> {
    fn clone(&self) -> Self {
        MachineHandle {
            queue: self.queue.clone(),
            queued_bytes: Arc::clone(&self.queued_bytes),
            stopping: Arc::clone(&self.stopping),
        }
    }
}

impl<M: Machine> MachineHandle<M> {
    /// Puts work at the end of the queue, at once; `bytes` is what its request holds.
    ///
    /// # Errors
    /// [`AccessError::Busy`] or [`AccessError::Stopping`]; the work is not done.
    pub fn send(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut LiveHost<M>) -> Result<(), MachineError> + Send + 'static,
    ) -> Result<(), AccessError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(AccessError::Stopping);
        }
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let sent = if queued + bytes > MAX_QUEUED_BYTES {
            Err(AccessError::Busy)
        } else {
            self.queue.try_send(Message::Work { bytes, work: Box::new(work) }).map_err(|error| {
                match error {
                    TrySendError::Full(_) => AccessError::Busy,
                    TrySendError::Disconnected(_) => AccessError::Stopping,
                }
            })
        };
        sent.inspect_err(|_| {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        })
    }

    /// Sends work when first polled, and waits for what it returns.
    ///
    /// # Errors
    /// [`AccessError`]; after [`AccessError::Stopping`] the work may have been done.
    pub async fn ask<R: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut LiveHost<M>) -> Result<R, MachineError> + Send + 'static,
    ) -> Result<R, AccessError> {
        let (reply, answer) = oneshot::channel();
        self.send(bytes, move |host| {
            // A caller that left needs no answer.
            drop(reply.send(work(host)?));
            Ok(())
        })?;
        answer.await.map_err(|_gone| AccessError::Stopping)
    }

    /// Takes no more work, and has the thread end after what it has, with a last sync.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let queue = self.queue.clone();
        // The queue may be full, and this thread may not wait. It is an error only when the machine's thread is gone already.
        let waiter = thread::Builder::new().name("machine-stop".to_owned());
        drop(waiter.spawn(move || drop(queue.send(Message::Stop))));
    }
}

/// Starts the thread.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn<M: Machine>(
    host: LiveHost<M>,
    policy: SyncPolicy,
) -> std::io::Result<(MachineHandle<M>, Ended)> {
    let (queue, messages) = mpsc::sync_channel(MAX_QUEUED_CALLS);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let (end, ended) = oneshot::channel();
    let worker = Worker {
        synced_index: host.machine().applied().index,
        host,
        messages,
        queued_bytes: Arc::clone(&queued_bytes),
        policy,
        sync_due: None,
    };
    thread::Builder::new()
        .name("machine".to_owned())
        .spawn(move || drop(end.send(worker.run())))?;
    Ok((MachineHandle { queue, queued_bytes, stopping: Arc::default() }, ended))
}

/// Sends answers to those who still wait for them.
pub fn deliver(answers: ApplyAnswers<Ticket>) {
    for (ticket, answer) in answers {
        drop(ticket.send(answer));
    }
}

struct Worker<M> {
    host: LiveHost<M>,
    messages: Receiver<Message<M>>,
    queued_bytes: Arc<AtomicUsize>,
    policy: SyncPolicy,
    /// The applied index at the last sync.
    synced_index: u64,
    /// When the next sync is due; none when nothing was applied since the last.
    sync_due: Option<Instant>,
}

impl<M: Machine> Worker<M> {
    fn run(mut self) -> Result<(), MachineError> {
        loop {
            match self.next_message() {
                Ok(Message::Work { bytes, work }) => {
                    self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
                    work(&mut self.host)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.keep_time(Instant::now())?;
        }
        self.host.sync()
    }

    fn next_message(&self) -> Result<Message<M>, RecvTimeoutError> {
        let wake_up = self.sync_due.into_iter().chain(self.host.next_expiry()).min();
        match wake_up {
            Some(at) => self.messages.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.messages.recv().map_err(|_gone| RecvTimeoutError::Disconnected),
        }
    }

    fn keep_time(&mut self, now: Instant) -> Result<(), MachineError> {
        deliver(self.host.expire(now));
        let applied_index = self.host.machine().applied().index;
        let unsynced = applied_index.saturating_sub(self.synced_index);
        if unsynced == 0 {
            return Ok(());
        }
        let due = *self.sync_due.get_or_insert(now + self.policy.interval);
        if due <= now || unsynced >= self.policy.entries {
            self.host.sync()?;
            self.synced_index = applied_index;
            self.sync_due = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
