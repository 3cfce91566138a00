//! The network that everything here goes over: tokio's sockets.
//!
//! With the feature `simulated-network` these are turmoil's instead, which have the same names and behave likewise inside a
//! simulation. The feature is for the tests of whole processes and can be in no release build.

#[cfg(not(feature = "simulated-network"))]
pub use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
#[cfg(feature = "simulated-network")]
pub use turmoil::net::{TcpListener, TcpStream, UdpSocket, lookup_host};

#[cfg(all(feature = "simulated-network", not(debug_assertions)))]
compile_error!(
    "the feature `simulated-network` is for tests: a release build talks to nobody with it"
);
