//! What every connection of this project has in common: where to connect, who is at the other end, and how a message
//! becomes bytes. The `member` crate includes these very files, so that there is one copy of them.
//!
//! A connection opens with one fixed [`Hello`] in each direction, because the codec that follows is not
//! self-describing. Then come tarpc messages as postcard in frames with a 4-byte big-endian length.
//!
//! Nothing here trusts the other end: frames and decoded sizes are bounded, a deadline is clamped to
//! [`MAX_DEADLINE`], and decoding can neither panic nor read past its frame.

mod codec;
mod endpoint;
mod hello;
pub mod net;

pub use codec::{
    Codec, MAX_DEADLINE, MAX_FRAME_BYTES, MAX_REQUESTS_PER_CONNECTION, MalformedMessage, Transport,
    client_transport, closed_by_other_end, serve_connection,
};
pub use endpoint::{Endpoint, EndpointError, Io, Listener};
pub use hello::{HELLO_TIMEOUT, Hello, HelloError, Refusal, Service, WIRE_VERSIONS};
