//! SWIM without I/O.

pub mod member;

pub use member::{Incarnation, MemberId, Profile, State, Tags, TagsError};
