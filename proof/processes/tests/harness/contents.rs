//! What a machine holds, asked of the machine itself.

use std::time::Duration;

use raft_client::{NodeStatus, Range};
use state_machine::kv::command::Command;
use state_machine::rpc::{self, Attach, CONTRACT_VERSION, CommandResult, Query};
use tarpc::context;

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything in the machine at this endpoint, as its own bytes. It is asked as its raft would ask, on a second connection, which
/// disturbs nothing on the first.
pub async fn read(endpoint: &str, raft: &NodeStatus) -> turmoil::Result<Vec<u8>> {
    let cluster = u128::from_str_radix(raft.cluster.as_deref().unwrap_or_default(), 16)?;
    let node = u64::from_str_radix(&raft.id, 16)?;
    let boot = raft.boot;
    let machine = rpc::connect(&endpoint.parse()?, cluster, node, boot, PATIENCE).await?;
    let attach = Attach { contract: CONTRACT_VERSION, cluster, node, boot };
    machine.client.attach(context::current(), attach).await??;
    let query = Query {
        boot,
        min_applied_index: raft.applied_index,
        query: Command::List(Range::of_prefix("".into())).encode()?,
    };
    match machine.client.query(context::current(), query).await?? {
        CommandResult::Done(pairs) => Ok(pairs.to_vec()),
        other => Err(format!("the machine has no list: {other:?}").into()),
    }
}
