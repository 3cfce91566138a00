//! The datagram: how a body of the protocol is wrapped for the network.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 2 | `OG` |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | flags: bit 0 = sealed; the others are zero |
//! | 4 | 4 | id of the key; zero in plain text |
//! | 8 | 16 | cluster id, big-endian; zero = none yet |
//! | 24 | 4 | plain text: CRC32C of bytes 0 to 23 and of the body, big-endian |
//! | 28 | … | plain text: the body |
//! | 24 | 24 | sealed: nonce |
//! | 48 | … | sealed: the body under XChaCha20-Poly1305 and its tag of 16 bytes; bytes 0 to 23 are associated data |
//!
//! No datagram is longer than [`MAX_DATAGRAM_BYTES`], which passes any Ethernet with a tunnel's header to spare.
//! A member with keys takes sealed datagrams only, one without keys plain ones only. Replaying an old datagram is
//! harmless: states only move with newer incarnations, and answers count only for a question that is open.

use crate::key::{KeyId, KeyRing, NONCE_BYTES, TAG_BYTES};

/// Longest datagram, sent or taken, in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 1_400;
/// Bytes around the body of a plain datagram.
pub const PLAIN_OVERHEAD_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;
/// Bytes around the body of a sealed datagram.
pub const SEALED_OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;
/// Version of the format.
pub const VERSION: u8 = 1;

const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;
const MAGIC: [u8; 2] = *b"OG";
const SEALED: u8 = 1;

/// Why a datagram is dropped unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unreadable {
    /// Longer than any of ours.
    #[error("longer than {MAX_DATAGRAM_BYTES} bytes")]
    Oversized,
    /// Too short, or not ours at all.
    #[error("not a datagram of ours")]
    Stranger,
    /// A later version of the format.
    #[error("format version {0}, this build reads {VERSION}")]
    Version(u8),
    /// A bit was lost on the way.
    #[error("wrong checksum")]
    Checksum,
    /// Plain, but we hold a key.
    #[error("plain text, but this member has a gossip key: give both the same key")]
    Plain,
    /// Sealed with a key that we do not hold, or changed on the way.
    #[error("sealed with another key, or changed on the way")]
    Key,
    /// Of another cluster.
    #[error("of another cluster, {0:032x}")]
    ForeignCluster(u128),
}

/// Wraps and unwraps datagrams for one member.
#[derive(Clone, Debug)]
pub struct Codec {
    /// The cluster it belongs to, if any.
    pub cluster: Option<u128>,
    keys: KeyRing,
}

impl Codec {
    /// For a member of `cluster` that holds `keys`.
    pub fn new(cluster: Option<u128>, keys: KeyRing) -> Self {
        Self { cluster, keys }
    }

    /// How many bytes a body may have.
    pub fn body_room_bytes(&self) -> usize {
        let overhead =
            if self.keys.is_empty() { PLAIN_OVERHEAD_BYTES } else { SEALED_OVERHEAD_BYTES };
        MAX_DATAGRAM_BYTES - overhead
    }

    /// Whether news of a member of `theirs` may enter the view of a member of our cluster: whoever has none yet is
    /// welcome, and meets everyone.
    pub fn is_compatible(&self, theirs: Option<u128>) -> bool {
        self.cluster.is_none() || theirs.is_none() || self.cluster == theirs
    }

    /// Wraps a body of at most [`Codec::body_room_bytes`]. The nonce must be random; it is unused in plain text.
    pub fn wrap(&self, body: &[u8], nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
        let header = self.header();
        match self.keys.seal(nonce, &header, body) {
            Some(sealed) => [&header[..], nonce, &sealed].concat(),
            None => [&header[..], &checksum(&header, body), body].concat(),
        }
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&MAGIC);
        header[2] = VERSION;
        if let Some(KeyId(id)) = self.keys.sealing_id() {
            header[3] = SEALED;
            header[4..8].copy_from_slice(&id);
        }
        header[8..].copy_from_slice(&self.cluster.unwrap_or(0).to_be_bytes());
        header
    }

    /// Unwraps a datagram: checks everything that can be checked without understanding the body, which is returned.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn unwrap(&self, datagram: &[u8]) -> Result<Vec<u8>, Unreadable> {
        if datagram.len() > MAX_DATAGRAM_BYTES {
            return Err(Unreadable::Oversized);
        }
        let (header, rest) =
            datagram.split_first_chunk::<HEADER_BYTES>().ok_or(Unreadable::Stranger)?;
        if header[..2] != MAGIC {
            return Err(Unreadable::Stranger);
        }
        if header[2] != VERSION {
            return Err(Unreadable::Version(header[2]));
        }
        let body = match header[3] {
            0 => self.unwrap_plain(header, rest)?,
            SEALED => self.unwrap_sealed(header, rest)?,
            _ => return Err(Unreadable::Stranger),
        };
        self.check_cluster(header)?;
        Ok(body)
    }

    fn unwrap_plain(
        &self,
        header: &[u8; HEADER_BYTES],
        rest: &[u8],
    ) -> Result<Vec<u8>, Unreadable> {
        let (claimed, body) =
            rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(Unreadable::Stranger)?;
        if *claimed != checksum(header, body) {
            return Err(Unreadable::Checksum);
        }
        if self.keys.is_empty() { Ok(body.to_vec()) } else { Err(Unreadable::Plain) }
    }

    fn unwrap_sealed(
        &self,
        header: &[u8; HEADER_BYTES],
        rest: &[u8],
    ) -> Result<Vec<u8>, Unreadable> {
        let (nonce, sealed) =
            rest.split_first_chunk::<NONCE_BYTES>().ok_or(Unreadable::Stranger)?;
        let id = KeyId([header[4], header[5], header[6], header[7]]);
        self.keys.open(id, nonce, header, sealed).ok_or(Unreadable::Key)
    }

    fn check_cluster(&self, header: &[u8; HEADER_BYTES]) -> Result<(), Unreadable> {
        let theirs = header[8..].iter().fold(0, |id, byte| id << 8 | u128::from(*byte));
        let theirs = Some(theirs).filter(|id| *id != 0);
        match theirs {
            Some(id) if !self.is_compatible(theirs) => Err(Unreadable::ForeignCluster(id)),
            Some(_) | None => Ok(()),
        }
    }
}

fn checksum(header: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(header), body).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::Key;

    fn plain(cluster: Option<u128>) -> Codec {
        Codec::new(cluster, KeyRing::default())
    }

    fn keyed(cluster: Option<u128>, keys: &[u8]) -> Codec {
        Codec::new(cluster, KeyRing::new(keys.iter().map(|byte| Key::new(&[*byte; 32]))))
    }

    #[test]
    fn who_reads_whom() {
        let (a, b) = (Some(7), Some(8));
        for (writer, reader, expected) in [
            (plain(None), plain(None), Ok(())),
            (plain(a), plain(None), Ok(())),
            (plain(None), plain(a), Ok(())),
            (plain(a), plain(a), Ok(())),
            (plain(a), plain(b), Err(Unreadable::ForeignCluster(7))),
            (keyed(a, &[1]), keyed(a, &[1]), Ok(())),
            (keyed(a, &[1]), keyed(a, &[2, 1]), Ok(())),
            (keyed(a, &[1]), keyed(a, &[2]), Err(Unreadable::Key)),
            (keyed(a, &[1]), keyed(b, &[1]), Err(Unreadable::ForeignCluster(7))),
            (keyed(a, &[1]), plain(a), Err(Unreadable::Key)),
            (plain(a), keyed(a, &[1]), Err(Unreadable::Plain)),
        ] {
            let datagram = writer.wrap(b"body", &[3; NONCE_BYTES]);
            let read = reader.unwrap(&datagram).map(|body| assert_eq!(body, b"body"));
            assert_eq!(read, expected, "{writer:?} to {reader:?}");
        }
    }

    #[test]
    fn the_largest_body_makes_the_largest_datagram() {
        for codec in [plain(Some(7)), keyed(Some(7), &[1])] {
            let datagram = codec.wrap(&vec![1; codec.body_room_bytes()], &[3; NONCE_BYTES]);
            assert_eq!(datagram.len(), MAX_DATAGRAM_BYTES);
            assert!(codec.unwrap(&datagram).is_ok());
            let longer = codec.wrap(&vec![1; codec.body_room_bytes() + 1], &[3; NONCE_BYTES]);
            assert_eq!(codec.unwrap(&longer), Err(Unreadable::Oversized));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for codec in [plain(Some(7)), keyed(Some(7), &[1])] {
            let whole = codec.wrap(b"some body", &[3; NONCE_BYTES]);
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(codec.unwrap(&damaged).is_err(), "bit {bit}");
            }
            for length in 0..whole.len() {
                assert!(codec.unwrap(&whole[..length]).is_err(), "cut at {length}");
            }
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut datagram = plain(None).wrap(b"", &[0; NONCE_BYTES]);
        datagram[2] = 9;
        assert_eq!(plain(None).unwrap(&datagram), Err(Unreadable::Version(9)));
    }

    proptest! {
        #[test]
        fn raw_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert!(plain(None).unwrap(&bytes).is_err());
            prop_assert!(keyed(Some(7), &[1]).unwrap(&bytes).is_err());
        }
    }
}
