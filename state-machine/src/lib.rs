//! The replicated program's side of the contract.

pub mod wire;
