//! One connection of raft, translated: each call is checked for who makes it, put into the machine's queue, and awaited.
//!
//! Handlers hold no state: one that is dropped, because its caller left or its deadline passed, loses an answer and nothing else.
//! A snapshot that a connection began ends with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tarpc::context::Context;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task;
use tracing::{info, warn};

use crate::host::PinnedSnapshot;
use crate::machine::{Machine, MachineError};
use crate::rpc::{
    AccessError, Applied, Apply, ApplyError, Attach, AttachError, BeginRestore, BeginSnapshot,
    CommandResult, FinishRestore, Info, Notify, Query, QueryError, ReadSnapshot, RestoreError,
    Restoring, SnapshotChunk, SnapshotError, SnapshotInfo, StateMachineService, Validate, Verdict,
    WriteRestore,
};
use crate::worker::{LiveHost, MachineHandle, deliver};

/// The machine's end of a connection.
pub struct Connection<M> {
    machine: MachineHandle<M>,
    session: Arc<Session>,
}

/// What a connection knows, from its start to its end.
#[derive(Default)]
struct Session {
    /// The boot that this connection attached with.
    boot: Mutex<Option<u64>>,
    /// The snapshot that it began.
    snapshot: Mutex<Option<Arc<PinnedSnapshot>>>,
    /// Held while a piece is read: one thread for each connection is enough.
    turn: Arc<AsyncMutex<()>>,
}

impl<M> Clone for Connection<M> {
    fn clone(&self) -> Self {
        Connection { machine: self.machine.clone(), session: Arc::clone(&self.session) }
    }
}

impl<M: Machine> Connection<M> {
    /// A connection that did not attach yet.
    pub fn new(machine: MachineHandle<M>) -> Connection<M> {
        Connection { machine, session: Arc::default() }
    }

    /// Refuses calls before `attach`, and those under another boot. Whether the boot is the newest is the host's to say.
    fn admit(&self, boot: u64) -> Result<(), AccessError> {
        let attached = *self.session.boot.lock().unwrap_or_else(PoisonError::into_inner);
        if attached == Some(boot) { Ok(()) } else { Err(AccessError::NotAttached) }
    }

    /// Reads a piece on a thread for that purpose, so that neither the machine's nor this one waits for the disk.
    async fn read_piece(
        &self,
        snapshot: Arc<PinnedSnapshot>,
        offset: u64,
    ) -> Result<SnapshotChunk, SnapshotError> {
        // Kept by the thread, which goes on when this call is dropped.
        let turn = Arc::clone(&self.session.turn).lock_owned().await;
        let reading = task::spawn_blocking(move || {
            let _turn = turn;
            snapshot.read(offset)
        });
        let broken = match reading.await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error,
            Err(panic) => {
                MachineError::Damaged { doing: "reading a snapshot", what: panic.to_string() }
            }
        };
        // A machine that is broken ends on its own thread, which alone tells why.
        let told = self.machine.ask(0, move |_| Err::<(), _>(broken)).await;
        Err(told.err().unwrap_or(AccessError::Stopping).into())
    }
}

impl<M: Machine> StateMachineService for Connection<M> {
    async fn attach(self, _: Context, request: Attach) -> Result<Info, AttachError> {
        let Attach { cluster, node, boot, .. } = request;
        let asked = self.machine.ask(0, move |host| {
            let (answer, fenced) = host.attach(&request)?;
            deliver(fenced);
            Ok(answer)
        });
        let answer = asked.await?;
        let (cluster, node) = (format!("{cluster:032x}"), format!("{node:016x}"));
        match &answer {
            Ok(Info { applied_index, durable_index, .. }) => {
                *self.session.boot.lock().unwrap_or_else(PoisonError::into_inner) = Some(boot);
                info!(cluster, node, boot, applied_index, durable_index, "raft attached");
            }
            Err(error) => warn!(cluster, node, boot, %error, "refused a raft"),
        }
        answer
    }

    async fn apply(self, _: Context, request: Apply) -> Result<Applied, ApplyError> {
        self.admit(request.boot)?;
        let (ticket, answer) = oneshot::channel();
        self.machine.send(request.entries.len_bytes(), move |host| {
            deliver(host.apply(Instant::now(), &request, ticket)?);
            Ok(())
        })?;
        answer.await.map_err(|_gone| AccessError::Stopping)?
    }

    async fn query(self, _: Context, request: Query) -> Result<CommandResult, QueryError> {
        self.admit(request.boot)?;
        self.machine.ask(request.query.len(), move |host| host.query(&request)).await?
    }

    async fn begin_snapshot(
        self,
        _: Context,
        request: BeginSnapshot,
    ) -> Result<SnapshotInfo, SnapshotError> {
        self.admit(request.boot)?;
        let pinning = move |host: &mut LiveHost<M>| host.begin_snapshot(Instant::now(), &request);
        let (info, snapshot) = self.machine.ask(0, pinning).await??;
        let before =
            self.session.snapshot.lock().unwrap_or_else(PoisonError::into_inner).replace(snapshot);
        drop(before);
        Ok(info)
    }

    async fn read_snapshot(
        self,
        _: Context,
        request: ReadSnapshot,
    ) -> Result<SnapshotChunk, SnapshotError> {
        self.admit(request.boot)?;
        let offset = request.offset;
        let finding =
            move |host: &mut LiveHost<M>| Ok(host.pinned_snapshot(Instant::now(), &request));
        let snapshot = self.machine.ask(0, finding).await??;
        self.read_piece(snapshot, offset).await
    }

    async fn begin_restore(
        self,
        _: Context,
        request: BeginRestore,
    ) -> Result<Restoring, RestoreError> {
        self.admit(request.boot)?;
        self.machine.ask(0, move |host| host.begin_restore(&request)).await?
    }

    async fn write_restore(
        self,
        _: Context,
        request: WriteRestore,
    ) -> Result<Restoring, RestoreError> {
        self.admit(request.boot)?;
        self.machine.ask(request.bytes.len(), move |host| host.write_restore(&request)).await?
    }

    async fn finish_restore(
        self,
        _: Context,
        request: FinishRestore,
    ) -> Result<Info, RestoreError> {
        self.admit(request.boot)?;
        let info = self.machine.ask(0, move |host| host.finish_restore(&request)).await??;
        info!(applied_index = info.applied_index, "restored a snapshot");
        Ok(info)
    }

    async fn notify(self, _: Context, request: Notify) -> Result<(), AccessError> {
        self.admit(request.boot)?;
        self.machine.ask(0, move |host| Ok(host.notify(&request))).await?
    }

    async fn validate(self, _: Context, request: Validate) -> Result<Verdict, AccessError> {
        self.admit(request.boot)?;
        self.machine.ask(request.command.len(), move |host| Ok(host.validate(&request))).await?
    }
}

#[cfg(test)]
mod tests;
