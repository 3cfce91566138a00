//! Real processes on loopback: clusters that form, lose processes and nodes, and get them back; bad input from all sides.
//!
//! The programs are taken from beside this executable: `cargo build --workspace --bins` makes them.
#![cfg(test)]

mod bad_input;
mod bench;
mod command_line;
mod crashes;
mod damage;
mod formation;
mod harness;
mod http;
mod kv;
mod leadership;
mod leaving;
mod library;
mod machine;
mod members;
mod middle;
mod mortal;
mod privacy;
mod refusals;
mod settings;
mod snapshots;
mod typed;
