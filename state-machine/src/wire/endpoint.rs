//! Where a service is: a TCP address or a socket file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::either::Either;

use super::net::{self, TcpListener, TcpStream};

/// A connection of either kind.
pub type Io = Either<TcpStream, UnixStream>;

/// Where a service listens: `host:port`, or `unix:/path` for a socket file on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `host:port`; the host is resolved at each connect.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an endpoint; write host:port, [ipv6]:port or unix:/path")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err(EndpointError(text.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Connects within `limit`, name resolution included.
    ///
    /// # Errors
    /// Whatever the system says, or `TimedOut`.
    pub async fn connect(&self, limit: Duration) -> io::Result<Io> {
        let connecting = async {
            match self {
                Self::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    net::prepare(&stream)?;
                    Ok(Either::Left(stream))
                }
                Self::Unix(path) => UnixStream::connect(path).await.map(Either::Right),
            }
        };
        match timeout(limit, connecting).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} ms", limit.as_millis()),
            )),
        }
    }
}

/// A listening socket of either kind.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A socket file.
    Unix(UnixListener),
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => write!(f, "Tcp({:?})", listener.local_addr()),
            Self::Unix(listener) => write!(f, "Unix({:?})", listener.local_addr()),
        }
    }
}

impl Listener {
    /// Listens on a TCP address.
    ///
    /// # Errors
    /// Names the address; most often it is in use.
    pub async fn tcp(address: &str) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })
    }

    /// Listens on a socket file, replacing one that nobody listens on any more.
    ///
    /// # Errors
    /// Names the path: it is served by a living process, too long (about 100 bytes), or not writable.
    pub async fn unix(path: &Path) -> io::Result<Self> {
        let explain = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on unix:{}: {error}", path.display()),
            )
        };
        if UnixStream::connect(path).await.is_ok() {
            let in_use = io::Error::new(io::ErrorKind::AddrInUse, "another process listens there");
            return Err(explain(in_use));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(error)),
            _ => {}
        }
        UnixListener::bind(path).map(Self::Unix).map_err(explain)
    }

    /// The bound TCP address; none for a socket file.
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// Passing ones, such as too many open files: the caller may try again after a pause.
    pub async fn accept(&self) -> io::Result<Io> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                net::prepare(&stream)?;
                Ok(Either::Left(stream))
            }
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Either::Right(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_printed() {
        for text in ["localhost:1", "127.0.0.1:65535", "[::1]:80", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "host", ":1", "host:", "host:65536", "unix:"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("host:port"), "{text}: {error}");
        }
    }

    #[cfg(not(feature = "simulated-network"))]
    #[tokio::test]
    async fn both_ends_notice_when_the_other_is_gone_without_a_close() {
        let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_address().unwrap().to_string());
        let (client, server) =
            tokio::join!(endpoint.connect(Duration::from_secs(5)), listener.accept());
        for end in [client.unwrap(), server.unwrap()] {
            let Either::Left(stream) = end else { panic!("it is TCP") };
            assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
        }
    }

    #[tokio::test]
    async fn socket_file_of_a_dead_process_is_replaced_and_of_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(Listener::unix(&path).await.unwrap());
        let _living = Listener::unix(&path).await.unwrap();
        let error = Listener::unix(&path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("unix:"), "{error}");
    }
}
