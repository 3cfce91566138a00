//! The UDP sockets: gossip, and for an introducer one more that listens for joins.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::debug;

use crate::codec::MAX_DATAGRAM_BYTES;
use crate::swim::Datagram;
use crate::wire::net::UdpSocket;

/// Pause after a failed receive, so that a lasting failure does not spin.
const RECEIVE_PAUSE: Duration = Duration::from_millis(10);

/// Which socket a datagram came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The members' own.
    Gossip,
    /// The one for joins.
    Introducer,
}

/// A datagram that arrived. It may be longer than any of ours, never longer than the buffer.
#[derive(Debug)]
pub struct Arrived {
    /// Through which socket.
    pub door: Door,
    /// Its source.
    pub from: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The bound sockets.
#[derive(Debug)]
pub struct Sockets {
    gossip: UdpSocket,
    introducer: Option<UdpSocket>,
}

impl Sockets {
    /// Binds them.
    ///
    /// # Errors
    /// Names the address that cannot be had.
    pub async fn bind(ip: IpAddr, gossip: u16, introducer: Option<u16>) -> Result<Self, BindError> {
        let gossip = bind(ip, gossip).await?;
        let introducer = match introducer {
            Some(port) => Some(bind(ip, port).await?),
            None => None,
        };
        Ok(Self { gossip, introducer })
    }

    /// The bound addresses, gossip first.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn addresses(&self) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
        let introducer = self.introducer.as_ref().map(UdpSocket::local_addr).transpose()?;
        Ok((self.gossip.local_addr()?, introducer))
    }

    /// Waits for a datagram. Loses none when cancelled.
    pub async fn receive(&self) -> Arrived {
        loop {
            let (door, received) = tokio::select! {
                received = receive(&self.gossip) => (Door::Gossip, received),
                received = receive_if(self.introducer.as_ref()) => (Door::Introducer, received),
            };
            match received {
                Ok((bytes, from)) => return Arrived { door, from, bytes },
                Err(error) => {
                    debug!(%error, ?door, "receive failed");
                    tokio::time::sleep(RECEIVE_PAUSE).await;
                }
            }
        }
    }

    /// Sends at once or not at all: the protocol lives with losses. An answer leaves through the socket that the
    /// question came through, so that it passes firewalls.
    pub fn send(&self, datagram: &Datagram, asked_through: Option<(Door, SocketAddr)>) {
        let socket = match (&self.introducer, asked_through) {
            (Some(introducer), Some((Door::Introducer, asker))) if asker == datagram.to => {
                introducer
            }
            (Some(_) | None, _) => &self.gossip,
        };
        if let Err(error) = socket.try_send_to(&datagram.bytes, datagram.to) {
            debug!(%error, to = %datagram.to, "send failed");
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}/{protocol}: {source}; if another process has it, choose another --port-base"
)]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// Why.
    pub source: io::Error,
}

async fn bind(ip: IpAddr, port: u16) -> Result<UdpSocket, BindError> {
    let address = SocketAddr::new(ip, port);
    let refused = |source| BindError { address, protocol: "udp", source };
    UdpSocket::bind(address).await.map_err(refused)
}

/// One byte more than the longest, so that a longer one is recognised.
async fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
    let (length, from) = socket.recv_from(&mut buffer).await?;
    Ok((buffer[..length].to_vec(), from))
}

async fn receive_if(socket: Option<&UdpSocket>) -> io::Result<(Vec<u8>, SocketAddr)> {
    match socket {
        Some(socket) => receive(socket).await,
        None => std::future::pending().await,
    }
}
