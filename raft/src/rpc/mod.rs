//! The two contracts that a raft process serves, on one port: [`peer::PeerService`] for other rafts and
//! [`client::ClientService`] for everybody else. A connection says in its hello which one it speaks.

pub mod client;
pub mod operation;
pub mod peer;

pub use state_machine::wire;
