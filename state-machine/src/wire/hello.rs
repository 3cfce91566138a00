//! The first exchange of a connection: who is there, of which cluster, and in which version.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::endpoint::Io;

/// How long the other end may take for its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Version of hello, framing and contracts that this build speaks, lowest and highest.
pub const WIRE_VERSIONS: (u8, u8) = (1, 1);

/// Which contract a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Service {
    /// raft to raft.
    Peer = 1,
    /// Anybody to raft.
    Client = 2,
    /// raft to state-machine.
    StateMachine = 3,
    /// raft to member.
    Member = 4,
}

impl Service {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Peer),
            2 => Some(Self::Client),
            3 => Some(Self::StateMachine),
            4 => Some(Self::Member),
            _ => None,
        }
    }
}

/// First bytes of a connection, in both directions.
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 4 | `OUTR` |
/// | 4 | 1 | [`Service`] |
/// | 5 | 1 | lowest version spoken |
/// | 6 | 1 | highest version spoken |
/// | 7 | 1 | 0, or in an answer why the connection is refused ([`Refusal`]) |
/// | 8 | 16 | cluster id, big-endian; 0 = none yet |
/// | 24 | 8 | sender's node id, big-endian; 0 = not a node |
/// | 32 | 8 | sender's boot counter, big-endian |
/// | 40 | 8 | node id that the sender expects to reach, big-endian; 0 = whoever answers |
/// | 48 | 4 | CRC32C of the above, big-endian |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The contract.
    pub service: Service,
    /// Lowest and highest version spoken.
    pub versions: (u8, u8),
    /// Cluster id; zero means none yet.
    pub cluster: u128,
    /// Node id; zero for a client.
    pub node: u64,
    /// Boot counter of the process.
    pub boot: u64,
    /// Node that the sender expects at the other end; zero means any.
    pub expected: u64,
}

/// Why a connection is refused at its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// The versions do not overlap.
    #[error("no protocol version in common")]
    Version = 1,
    /// Another contract is served there.
    #[error("another service answers at this address")]
    Service = 2,
    /// The two ends belong to different clusters.
    #[error("the other end belongs to another cluster")]
    ForeignCluster = 3,
    /// Another node answers at this address.
    #[error("another node answers at this address")]
    WrongNode = 4,
    /// A newer process of the same node has connected before.
    #[error(
        "a newer process of this node is known: this one runs on an old copy of its data directory"
    )]
    StaleBoot = 5,
    /// Too many connections.
    #[error("too many connections")]
    Busy = 6,
}

impl Refusal {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Version),
            2 => Some(Self::Service),
            3 => Some(Self::ForeignCluster),
            4 => Some(Self::WrongNode),
            5 => Some(Self::StaleBoot),
            6 => Some(Self::Busy),
            _ => None,
        }
    }
}

/// Why the first exchange failed. Nothing was asked of the other end yet.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The connection broke.
    #[error("connection failed before its hello: {0}")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("no hello within {} s", HELLO_TIMEOUT.as_secs())]
    Timeout,
    /// Those bytes are not ours.
    #[error("the other end does not speak this protocol (first bytes {0:02x?})")]
    NotOutrigger([u8; 4]),
    /// A bit was lost on the way, or somebody builds hellos by hand.
    #[error("damaged hello")]
    Damaged,
    /// We refused the other end.
    #[error("refused: {refusal} (cluster {:032x}, node {:016x}, boot {})", theirs.cluster, theirs.node, theirs.boot)]
    Refused {
        /// Why.
        refusal: Refusal,
        /// What it had said of itself.
        theirs: Hello,
    },
    /// The other end refused us.
    #[error("refused by the other end: {refusal} (its cluster is {:032x}, its node {:016x})", theirs.cluster, theirs.node)]
    RefusedByPeer {
        /// Why.
        refusal: Refusal,
        /// What it says of itself.
        theirs: Hello,
    },
}

impl Hello {
    const BYTES: usize = 52;
    const MAGIC: [u8; 4] = *b"OUTR";

    /// A hello with this build's versions.
    pub fn new(service: Service, cluster: u128, node: u64, boot: u64) -> Self {
        Self { service, versions: WIRE_VERSIONS, cluster, node, boot, expected: 0 }
    }

    /// The same, insisting on who answers.
    #[must_use]
    pub fn expecting(self, node: u64) -> Self {
        Self { expected: node, ..self }
    }

    fn encode(&self, refusal: Option<Refusal>) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&Self::MAGIC);
        bytes[4] = self.service as u8;
        bytes[5] = self.versions.0;
        bytes[6] = self.versions.1;
        bytes[7] = refusal.map_or(0, |refusal| refusal as u8);
        bytes[8..24].copy_from_slice(&self.cluster.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.node.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.boot.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.expected.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Result<(Self, u8), HelloError> {
        let field = |at: usize| bytes[at..at + 8].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        if bytes[..4] != Self::MAGIC {
            return Err(HelloError::NotOutrigger([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
        let crc = crc32c::crc32c(&bytes[..48]).to_be_bytes();
        let service = Service::from_byte(bytes[4]).filter(|_| bytes[48..] == crc);
        let hello = Self {
            service: service.ok_or(HelloError::Damaged)?,
            versions: (bytes[5], bytes[6]),
            cluster: u128::from(field(8)) << 64 | u128::from(field(16)),
            node: field(24),
            boot: field(32),
            expected: field(40),
        };
        Ok((hello, bytes[7]))
    }

    /// What speaks against a connection between the two, as seen from this side: service, versions, cluster, node.
    /// An unknown cluster (zero) at either end is left to the caller's judgement.
    fn objection(&self, theirs: &Self) -> Option<Refusal> {
        let clusters_differ =
            self.cluster != 0 && theirs.cluster != 0 && self.cluster != theirs.cluster;
        if theirs.service != self.service {
            Some(Refusal::Service)
        } else if theirs.versions.0 > self.versions.1 || theirs.versions.1 < self.versions.0 {
            Some(Refusal::Version)
        } else if clusters_differ {
            Some(Refusal::ForeignCluster)
        } else if theirs.expected != 0 && theirs.expected != self.node {
            Some(Refusal::WrongNode)
        } else {
            None
        }
    }

    /// Opens a connection: says `self` and returns what the other end says of itself.
    ///
    /// # Errors
    /// See [`HelloError`]; the connection is of no further use then.
    pub async fn open(self, io: &mut Io) -> Result<Self, HelloError> {
        let exchange = async {
            io.write_all(&self.encode(None)).await?;
            Self::read(io).await
        };
        let (theirs, verdict) =
            timeout(HELLO_TIMEOUT, exchange).await.unwrap_or(Err(HelloError::Timeout))?;
        match (verdict, Refusal::from_byte(verdict)) {
            (0, _) => {}
            (_, Some(refusal)) => return Err(HelloError::RefusedByPeer { refusal, theirs }),
            (_, None) => return Err(HelloError::Damaged),
        }
        let wrong_node =
            (self.expected != 0 && theirs.node != self.expected).then_some(Refusal::WrongNode);
        match wrong_node.or_else(|| self.objection(&theirs)) {
            Some(refusal) => Err(HelloError::Refused { refusal, theirs }),
            None => Ok(theirs),
        }
    }

    /// Answers a connection: reads the caller's hello, refuses it by the rules above or by `judge`, and says so.
    ///
    /// # Errors
    /// See [`HelloError`]; the caller has been told of a refusal.
    pub async fn answer(
        self,
        io: &mut Io,
        judge: impl FnOnce(&Self) -> Result<(), Refusal>,
    ) -> Result<Self, HelloError> {
        self.answer_as(&[self.service], io, judge).await
    }

    /// The same, where several services share a port: the caller names one of `services`.
    ///
    /// # Errors
    /// As for [`Hello::answer`].
    pub async fn answer_as(
        self,
        services: &[Service],
        io: &mut Io,
        judge: impl FnOnce(&Self) -> Result<(), Refusal>,
    ) -> Result<Self, HelloError> {
        let reading = timeout(HELLO_TIMEOUT, Self::read(io)).await;
        let (theirs, _) = reading.unwrap_or(Err(HelloError::Timeout))?;
        let service =
            if services.contains(&theirs.service) { theirs.service } else { self.service };
        let ours = Self { service, ..self };
        let refusal = ours.objection(&theirs).or_else(|| judge(&theirs).err());
        let writing = timeout(HELLO_TIMEOUT, io.write_all(&ours.encode(refusal))).await;
        writing.map_err(|_elapsed| HelloError::Timeout)??;
        match refusal {
            Some(refusal) => Err(HelloError::Refused { refusal, theirs }),
            None => Ok(theirs),
        }
    }

    async fn read(io: &mut Io) -> Result<(Self, u8), HelloError> {
        let mut bytes = [0; Self::BYTES];
        // The first bytes alone tell a stranger (an HTTP client, say) who may never send as many as a hello has.
        io.read_exact(&mut bytes[..4]).await?;
        if bytes[..4] == Self::MAGIC {
            io.read_exact(&mut bytes[4..]).await?;
        }
        Self::decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio_util::either::Either;

    use super::*;

    fn pair() -> (Io, Io) {
        let (a, b) = UnixStream::pair().unwrap();
        (Either::Right(a), Either::Right(b))
    }

    async fn meet(
        caller: Hello,
        server: Hello,
    ) -> (Result<Hello, HelloError>, Result<Hello, HelloError>) {
        let (mut a, mut b) = pair();
        tokio::join!(caller.open(&mut a), server.answer(&mut b, |_| Ok(())))
    }

    fn hello(cluster: u128, node: u64) -> Hello {
        Hello::new(Service::Peer, cluster, node, 3)
    }

    #[tokio::test]
    async fn each_end_learns_the_other() {
        let (seen_by_caller, seen_by_server) = meet(hello(7, 1), hello(7, 2)).await;
        assert_eq!(seen_by_caller.unwrap(), hello(7, 2));
        assert_eq!(seen_by_server.unwrap(), hello(7, 1));
    }

    #[tokio::test]
    async fn strangers_are_refused_at_both_ends_with_the_reason() {
        let newer = Hello { versions: (2, 3), ..hello(7, 1) };
        let client = Hello { service: Service::Client, ..hello(7, 1) };
        for (caller, expected) in [
            (hello(8, 1), Refusal::ForeignCluster),
            (newer, Refusal::Version),
            (client, Refusal::Service),
            (hello(7, 1).expecting(9), Refusal::WrongNode),
        ] {
            let (seen_by_caller, seen_by_server) = meet(caller, hello(7, 2)).await;
            assert!(matches!(seen_by_caller, Err(HelloError::RefusedByPeer { refusal, theirs })
                    if refusal == expected && theirs.node == 2));
            assert!(
                matches!(seen_by_server, Err(HelloError::Refused { refusal, .. }) if refusal == expected)
            );
        }
    }

    #[tokio::test]
    async fn judge_has_the_last_word() {
        let (mut a, mut b) = pair();
        let server = hello(7, 2);
        let (caller, _) = tokio::join!(
            hello(7, 1).open(&mut a),
            server.answer(&mut b, |theirs| {
                assert_eq!(theirs.boot, 3);
                Err(Refusal::StaleBoot)
            })
        );
        assert!(matches!(
            caller,
            Err(HelloError::RefusedByPeer { refusal: Refusal::StaleBoot, .. })
        ));
    }

    #[tokio::test]
    async fn another_protocol_is_named() {
        let (mut a, mut b) = pair();
        let (_, answer) =
            tokio::join!(a.write_all(b"GET / HTTP/1.1"), hello(7, 2).answer(&mut b, |_| Ok(())));
        assert!(matches!(answer, Err(HelloError::NotOutrigger(bytes)) if &bytes == b"GET "));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = hello(7, 2).encode(None);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
