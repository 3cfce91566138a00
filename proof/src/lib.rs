//! What shows that Outrigger can be believed. Nothing of it ships.

pub mod history;
pub mod mutants;
pub mod nemesis;
pub mod world;
