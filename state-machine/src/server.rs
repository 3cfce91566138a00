//! One connection of raft, translated: each call is checked for who makes it, put into the machine's queue, and awaited.
//!
//! Handlers hold no state: one that is dropped, because its caller left or its deadline passed, loses an answer and nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tarpc::context::Context;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::machine::Machine;
use crate::rpc::{
    AccessError, Applied, Apply, ApplyError, Attach, AttachError, BeginRestore, BeginSnapshot,
    CommandResult, FinishRestore, Info, Notify, Query, QueryError, ReadSnapshot, RestoreError,
    Restoring, SnapshotChunk, SnapshotError, SnapshotInfo, StateMachineService, Validate, Verdict,
    WriteRestore,
};
use crate::worker::{MachineHandle, deliver};

/// The machine's end of a connection.
pub struct Connection<M> {
    machine: MachineHandle<M>,
    /// The boot that this connection attached with.
    boot: Arc<Mutex<Option<u64>>>,
}

impl<M> Clone for Connection<M> {
    fn clone(&self) -> Self {
        Connection { machine: self.machine.clone(), boot: Arc::clone(&self.boot) }
    }
}

impl<M: Machine> Connection<M> {
    /// A connection that did not attach yet.
    pub fn new(machine: MachineHandle<M>) -> Connection<M> {
        Connection { machine, boot: Arc::default() }
    }

    /// Refuses calls before `attach`, and those under another boot. Whether the boot is the newest is the host's to say.
    fn admit(&self, boot: u64) -> Result<(), AccessError> {
        let attached = *self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        if attached == Some(boot) { Ok(()) } else { Err(AccessError::NotAttached) }
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
                *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = Some(boot);
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
        self.machine.ask(0, move |host| host.begin_snapshot(&request)).await?
    }

    async fn read_snapshot(
        self,
        _: Context,
        request: ReadSnapshot,
    ) -> Result<SnapshotChunk, SnapshotError> {
        self.admit(request.boot)?;
        self.machine.ask(0, move |host| host.read_snapshot(&request)).await?
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
