//! Client of a cluster: commands and reads for any state machine, and the verbs of the built-in key-value machine.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use raft_client::{Client, Options};
//!
//! let client = Client::new(Options::new(vec!["127.0.0.1:6004".parse()?]));
//! client.put("pizzatoppings", "peporoni peppr cheddar").await?;
//! assert!(client.get("pizzatoppings").await?.result.is_some());
//! let visits = client.incr("visits", 1).await?;
//! println!("visit {:?} stands at index {} of the log", visits.result, visits.index);
//! # Ok(())
//! # }
//! ```
//!
//! A request is followed until its deadline: over broken connections, elections and busy nodes, to the leader and to
//! whoever leads next. A command keeps its name ([`Stamp`]) over all its attempts, and the cluster applies each name
//! once, so that following a command never doubles it. What is not known at the end is said to be unknown ([`Error`]).
//!
//! | module | what it knows |
//! |---|---|
//! | `client`, `kv` | requests, and the machine's verbs |
//! | `operation` | what operators want: leadership that moves, nodes that leave |
//! | `session` | session, sequence numbers, what the client has the answers of |
//! | `renewal` | keeps an idle session from expiring |
//! | `pursuit` | one request: attempts and pauses until it is settled |
//! | `verdict` | what each failure tells of the command, and where to go on (pure) |
//! | `leader`, `backoff` | which node to ask (pure), and when again (pure) |
//! | `connections`, `discovery` | shared connections, the pinned cluster; other nodes' addresses |
//! | `endpoints` | where the list of nodes comes from |
//! | [`mod@bench`] | load from many clients, measured |

mod backoff;
pub mod bench;
mod client;
mod connections;
mod discovery;
pub mod endpoints;
mod error;
mod kv;
mod leader;
mod operation;
mod options;
mod pursuit;
mod renewal;
mod session;
mod verdict;

pub use client::{Answer, Client, Receipt};
pub use error::{Error, Refusal, Tried};
pub use operation::{LEAVE_PATIENCE, SNAPSHOT_PATIENCE, SnapshotTaken};
pub use options::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_ENDPOINT, DEFAULT_PATIENCE, DEFAULT_TIMEOUT, Options,
};
pub use raft::rpc::client::{
    LeaderHint, LogFilter, MAX_COMMAND_BYTES, MemberStatus, NodeStatus, SESSION_WINDOW,
};
pub use raft::rpc::operation::OperationError;
pub use raft::rpc::wire::{Endpoint, EndpointError};
pub use session::Stamp;
pub use state_machine::kv::command::Swap;
pub use state_machine::kv::list::{DEFAULT_LIST_PAIRS, List, MAX_LIST_PAIRS, Range};
