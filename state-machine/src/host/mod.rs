//! [`Host`]: everything between the contract and a [`Machine`] that is the same for all machines.
//!
//! It knows whose data the machine holds and lets only the newest boot of that raft in, keeps batches in order, skips what is
//! applied, refuses gaps, bounds answers, and frames snapshots. It has no thread, clock or socket: a call comes in with a *ticket*
//! and the time, and answers go out with the tickets they belong to. An `Err` from here means that the machine is broken: the
//! process ends and nothing of that call is acknowledged.

mod pinned;
mod transfer;
mod waiting;

use std::time::{Duration, Instant};

use crate::attachment::{Attachment, AttachmentStore};
use crate::entries::Entry;
use crate::machine::{Machine, MachineError};
use crate::rpc::{
    AccessError, Applied, Apply, ApplyError, Attach, AttachError, CONTRACT_VERSION, CommandResult,
    Info, MAX_RESULT_BYTES, Notify, Query, QueryError, Validate, Verdict,
};
pub use pinned::PinnedSnapshot;
pub use transfer::SNAPSHOT_IDLE;
use transfer::{Pinned, Restore};
use waiting::{Batch, WaitingBatches};

/// How long a batch waits for its predecessor before the gap counts as real.
pub const PREDECESSOR_WAIT: Duration = Duration::from_secs(1);

/// The most batches that wait for a predecessor; one more is refused at once.
pub const MAX_WAITING_BATCHES: usize = 8;

/// The most bytes of results in the answer to one batch; further results are left out as [`CommandResult::Skipped`].
pub const MAX_ANSWER_BYTES: usize = 6 << 20;

/// Answers to batches, each with the ticket of its call.
pub type ApplyAnswers<T> = Vec<(T, Result<Applied, ApplyError>)>;

/// A machine and the rules of the contract around it. `T` is the ticket of an `apply` call.
pub struct Host<M, T> {
    machine: M,
    attachments: Box<dyn AttachmentStore>,
    attachment: Option<Attachment>,
    waiting: WaitingBatches<T>,
    snapshot: Option<Pinned>,
    restore: Option<Restore>,
    /// Names the next snapshot or restore.
    next_transfer: u64,
}

impl<M: Machine, T> Host<M, T> {
    /// Takes a machine as it was opened.
    ///
    /// # Errors
    /// The attachment cannot be read.
    pub fn new(machine: M, attachments: Box<dyn AttachmentStore>) -> Result<Self, MachineError> {
        Ok(Host {
            attachment: attachments.load()?,
            machine,
            attachments,
            waiting: WaitingBatches::new(),
            snapshot: None,
            restore: None,
            next_transfer: 1,
        })
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Lets a raft in, or says why not. A newer boot drops what an older one had under way; its waiting batches are answered.
    ///
    /// # Errors
    /// The machine is broken, or the attachment could not be made durable.
    pub fn attach(
        &mut self,
        request: &Attach,
    ) -> Result<(Result<Info, AttachError>, ApplyAnswers<T>), MachineError> {
        if let Err(refused) = self.judge(request) {
            return Ok((Err(refused), Vec::new()));
        }
        let Attach { cluster, node, boot, .. } = *request;
        let attachment = Attachment { cluster, node, boot };
        let mut fenced = Vec::new();
        if self.attachment != Some(attachment) {
            self.attachments.store(&attachment)?;
            self.attachment = Some(attachment);
            self.abandon_transfers();
            let error = ApplyError::Access(AccessError::Fenced { newest: boot });
            fenced.extend(self.waiting.drain().map(|ticket| (ticket, Err(error.clone()))));
        }
        Ok((Ok(self.info()), fenced))
    }

    fn judge(&self, request: &Attach) -> Result<(), AttachError> {
        let Attach { contract, cluster, node, boot } = *request;
        if contract != CONTRACT_VERSION {
            return Err(AttachError::Contract { ours: CONTRACT_VERSION, theirs: contract });
        }
        if node == 0 {
            return Err(AttachError::NoNode);
        }
        match self.attachment {
            None => match self.machine.applied().index {
                0 => Ok(()),
                applied_index => Err(AttachError::NoRecord { applied_index }),
            },
            Some(ours) if ours.cluster != cluster => {
                Err(AttachError::ForeignCluster { ours: ours.cluster, theirs: cluster })
            }
            Some(ours) if ours.node != node => {
                Err(AttachError::ForeignNode { ours: ours.node, theirs: node })
            }
            Some(ours) if ours.boot > boot => {
                Err(AttachError::Fenced { newest: ours.boot, theirs: boot })
            }
            Some(_) => Ok(()),
        }
    }

    fn info(&self) -> Info {
        let applied = self.machine.applied();
        Info {
            name: self.machine.name().to_owned(),
            version: self.machine.version().to_owned(),
            contract: CONTRACT_VERSION,
            applied_term: applied.term,
            applied_index: applied.index,
            durable_index: self.machine.durable_index(),
            digest: self.machine.digest(),
            wants_snapshot: self.machine.wants_snapshot(),
        }
    }

    /// Only the newest boot that attached may go on.
    fn check_boot(&self, boot: u64) -> Result<(), AccessError> {
        match self.attachment {
            Some(ours) if ours.boot == boot => Ok(()),
            Some(ours) if ours.boot > boot => Err(AccessError::Fenced { newest: ours.boot }),
            Some(_) | None => Err(AccessError::NotAttached),
        }
    }

    /// Applies a batch and those that waited for it, or lets it wait. An empty batch asks for the durable index.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn apply(
        &mut self,
        now: Instant,
        request: &Apply,
        ticket: T,
    ) -> Result<ApplyAnswers<T>, MachineError> {
        let entries = match self.check_batch(request) {
            Ok(entries) => entries,
            Err(refused) => return Ok(vec![(ticket, Err(refused))]),
        };
        let batch = Batch { first_index: request.first_index, entries, ticket };
        let expected = self.machine.applied().index + 1;
        if batch.first_index > expected {
            let refused = self.waiting.push(now + PREDECESSOR_WAIT, batch).err();
            return Ok(refused.map(|batch| batch.refuse_gap(expected)).into_iter().collect());
        }
        let mut answers = vec![self.run(batch)?];
        while let Some(next) = self.waiting.pop_ready(self.machine.applied().index + 1) {
            answers.push(self.run(next)?);
        }
        Ok(answers)
    }

    fn check_batch(&self, request: &Apply) -> Result<Vec<Entry>, ApplyError> {
        self.check_boot(request.boot)?;
        let entries = request.entries.decode()?;
        let first_index = request.first_index;
        let fits = first_index.checked_add(entries.len() as u64).is_some_and(|end| end < u64::MAX);
        if first_index == 0 || !fits {
            return Err(ApplyError::BadIndex { first_index, entries: entries.len() as u64 });
        }
        Ok(entries)
    }

    /// Applies what is new in a batch that starts at or before the next entry.
    fn run(&mut self, batch: Batch<T>) -> Result<(T, Result<Applied, ApplyError>), MachineError> {
        let Batch { first_index, entries, ticket } = batch;
        let known = usize::try_from(self.machine.applied().index + 1 - first_index)
            .unwrap_or(usize::MAX)
            .min(entries.len());
        let mut results = vec![CommandResult::Skipped; known];
        let new = &entries[known..];
        if let Some(last) = new.last() {
            results.extend(self.machine.apply(new)?);
            let last_index = first_index + entries.len() as u64 - 1;
            assert_eq!(results.len(), entries.len(), "a machine gives one result for each entry");
            assert_eq!(self.machine.applied().index, last_index, "a machine counts every entry");
            assert_eq!(self.machine.applied().term, last.header.term, "a machine keeps the term");
        }
        bound_results(&mut results);
        let applied = Applied {
            first_index,
            results,
            durable_index: self.machine.durable_index(),
            wants_snapshot: self.machine.wants_snapshot(),
        };
        Ok((ticket, Ok(applied)))
    }

    /// Refuses batches whose predecessor did not come in time, and lets go of a snapshot that nobody reads.
    pub fn expire(&mut self, now: Instant) -> ApplyAnswers<T> {
        if self.snapshot_expiry().is_some_and(|expiry| expiry <= now) {
            self.let_go_of_snapshot();
        }
        let expected = self.machine.applied().index + 1;
        self.waiting.expired(now).map(|batch| batch.refuse_gap(expected)).collect()
    }

    /// When [`Host::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.waiting.next_expiry().into_iter().chain(self.snapshot_expiry()).min()
    }

    /// Makes everything applied durable, as far as the machine can.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn sync(&mut self) -> Result<(), MachineError> {
        self.machine.sync()
    }

    /// Answers a read.
    ///
    /// # Errors
    /// The machine is broken.
    pub fn query(
        &self,
        request: &Query,
    ) -> Result<Result<CommandResult, QueryError>, MachineError> {
        if let Err(refused) = self.check_query(request) {
            return Ok(Err(refused));
        }
        let answer = self.machine.query(&request.query)?;
        let bytes = result_bytes(&answer);
        if bytes > MAX_RESULT_BYTES {
            return Ok(Err(QueryError::TooLarge { bytes: bytes as u64 }));
        }
        Ok(Ok(answer))
    }

    fn check_query(&self, request: &Query) -> Result<(), QueryError> {
        self.check_boot(request.boot)?;
        let bytes = request.query.len() as u64;
        if request.query.len() > MAX_RESULT_BYTES {
            return Err(QueryError::TooLarge { bytes });
        }
        let applied_index = self.machine.applied().index;
        let min_applied_index = request.min_applied_index;
        if applied_index < min_applied_index {
            return Err(QueryError::Behind { applied_index, min_applied_index });
        }
        Ok(())
    }

    /// Hands a notice on.
    ///
    /// # Errors
    /// The caller may not speak to this machine (now).
    pub fn notify(&mut self, request: &Notify) -> Result<(), AccessError> {
        self.check_boot(request.boot)?;
        self.machine.notify(&request.notice);
        Ok(())
    }

    /// Asks the machine about a command.
    ///
    /// # Errors
    /// The caller may not speak to this machine (now).
    pub fn validate(&self, request: &Validate) -> Result<Verdict, AccessError> {
        self.check_boot(request.boot)?;
        Ok(self.machine.validate(&request.command))
    }
}

/// What a result takes of the answer to its batch.
pub(crate) fn result_bytes(result: &CommandResult) -> usize {
    match result {
        CommandResult::Done(bytes) | CommandResult::Refused(bytes) => bytes.len(),
        CommandResult::Skipped => 0,
    }
}

/// Leaves out results that would not fit into one frame: single giants, and what comes after the total is full.
fn bound_results(results: &mut [CommandResult]) {
    let mut total = 0;
    for result in results {
        let bytes = result_bytes(result);
        if bytes > MAX_RESULT_BYTES || total + bytes > MAX_ANSWER_BYTES {
            *result = CommandResult::Skipped;
        } else {
            total += bytes;
        }
    }
}

#[cfg(test)]
mod pin_tests;
#[cfg(test)]
mod tests;
