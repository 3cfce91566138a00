//! What is asked of a TCP connection beyond reading and writing.
//!
//! With the feature `simulated-network` there is no kernel to ask: see [`net`](crate::rpc::wire::net).

#[cfg(feature = "simulated-network")]
pub(super) use simulated::{limit_unacknowledged, write_at_once};
#[cfg(not(feature = "simulated-network"))]
pub(super) use system::{limit_unacknowledged, write_at_once};

#[cfg(not(feature = "simulated-network"))]
mod system {
    use std::io::{self, Write};

    use rustix::net::sockopt::set_tcp_user_timeout;

    use crate::rpc::wire::net::TcpStream;

    /// Ends a connection when what was written stays unacknowledged for so long, also behind a closed window (tcp(7)).
    pub(crate) fn limit_unacknowledged(stream: &TcpStream, limit_ms: u32) -> io::Result<()> {
        Ok(set_tcp_user_timeout(stream, limit_ms)?)
    }

    /// Writes without waiting; a fresh socket has room.
    pub(crate) fn write_at_once(stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
        stream.into_std()?.write_all(bytes)
    }
}

#[cfg(feature = "simulated-network")]
mod simulated {
    use std::io;

    use crate::rpc::wire::net::TcpStream;

    /// A simulated connection keeps nothing that was written.
    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(crate) fn limit_unacknowledged(_: &TcpStream, _: u32) -> io::Result<()> {
        Ok(())
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the system's")]
    pub(crate) fn write_at_once(stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
        stream.try_write(bytes).map(drop)
    }
}
