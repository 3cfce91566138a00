//! The network that everything here goes over: tokio's sockets.
//!
//! With the feature `simulated-network` these are turmoil's instead, which have the same names and behave likewise inside a
//! simulation. The feature is for the tests of whole processes and can be in no release build.

use std::io;
#[cfg(not(feature = "simulated-network"))]
use std::time::Duration;

#[cfg(not(feature = "simulated-network"))]
pub use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
#[cfg(feature = "simulated-network")]
pub use turmoil::net::{TcpListener, TcpStream, UdpSocket, lookup_host};

/// A connection that carries nothing for so long is asked whether its other end is still there: one that went without a close (a
/// power cut, a forgotten NAT entry) would keep its place for ever where nothing is sent to it.
#[cfg(not(feature = "simulated-network"))]
const IDLE: Duration = Duration::from_secs(30);
/// Between two questions.
#[cfg(not(feature = "simulated-network"))]
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection is over. (Where a limit is set for what is unacknowledged, as for HTTP, the
/// system goes by that.)
#[cfg(not(feature = "simulated-network"))]
const QUESTIONS: u32 = 3;

/// Sets what every connection of ours has: small messages go at once, and a dead other end is noticed.
///
/// # Errors
/// What the system says; most often the connection is over.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    #[cfg(not(feature = "simulated-network"))]
    {
        use rustix::net::sockopt;
        sockopt::set_tcp_keepidle(stream, IDLE)?;
        sockopt::set_tcp_keepintvl(stream, ASK_EVERY)?;
        sockopt::set_tcp_keepcnt(stream, QUESTIONS)?;
        sockopt::set_socket_keepalive(stream, true)?;
    }
    stream.set_nodelay(true)
}

#[cfg(all(feature = "simulated-network", not(debug_assertions)))]
compile_error!(
    "the feature `simulated-network` is for tests: a release build talks to nobody with it"
);
