//! Raft without I/O: a pure state machine, input in, output out.

pub mod io;
pub mod message;
pub mod types;

pub use io::*;
pub use message::*;
pub use types::*;
