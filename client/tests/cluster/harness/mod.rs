//! Clusters of real processes on loopback: started, killed, frozen and restarted as an operator, a supervisor or bad luck
//! would, under load from clients that keep account of every answer.
//!
//! Whatever does not come about within [`wait::PATIENCE`] is a panic that says what was waited for, with the ends of
//! all logs.

pub(crate) mod caller;
pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod wait;
