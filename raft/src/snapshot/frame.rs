//! Frames: the pieces of a snapshot's file, each of which can be judged as soon as it is there.
//!
//! A file is a row of frames without gaps. Integers are little-endian.
//!
//! | byte | size | content |
//! |---:|---:|---|
//! | 0 | 4 | bytes of the payload |
//! | 4 | 4 | CRC32C of the file's id (16 bytes), the frame's offset in the file (8 bytes), then bytes 0 to 3 and 8 to the end |
//! | 8 | 1 | kind |
//! | 9 | … | payload |
//!
//! | kind | frame | how often, in this order | payload |
//! |---:|---|---|---|
//! | 1 | head | once | magic 8, version 4, id 16, cluster 16, postcard of [`SnapshotMeta`] |
//! | 2 | session table | any number | 1 byte to 256 KiB |
//! | 3 | machine | any number | 1 byte to 256 KiB |
//! | 4 | end | once | frames before it 8, bytes before it 8, CRC32C of their checksums 4 |
//!
//! The id is random for each file. Because it and the offset are part of every checksum, a frame is whole only in its own
//! file and at its own place: a lost, repeated or foreign one is found where it stands, and so is whatever follows a
//! cut. A file is complete when its end is there. The head up to the id is the same in all later versions.

use crate::consensus::SnapshotMeta;
use crate::wal::{decode_meta, encode_meta};

use super::SnapshotId;

/// Format of the file. Version 1 is the first.
pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"OUTRRAFT";

/// Bytes of a frame besides its payload.
pub(super) const HEADER_BYTES: usize = 9;
/// Most payload bytes of a piece of the session table or of the machine's stream.
pub const PIECE_BYTES: usize = 256 << 10;
/// Most payload bytes of a head: a membership of thousands of nodes.
pub(super) const MAX_HEAD_BYTES: usize = 1 << 20;
/// Longest session table, in bytes.
pub const MAX_IMAGE_BYTES: u64 = 256 << 20;
const HEAD_FIXED_BYTES: usize = 44;
const END_PAYLOAD_BYTES: usize = 20;
/// Bytes of the last frame.
pub(super) const END_BYTES: usize = HEADER_BYTES + END_PAYLOAD_BYTES;

/// What a frame holds. The order is that of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    #[default]
    Head = 1,
    Image = 2,
    Machine = 3,
    End = 4,
}

/// Content of the first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: SnapshotId,
    pub(super) cluster: u128,
    pub(super) meta: SnapshotMeta,
}

/// Why a frame is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is not as it was written, or not at its place.
    Damage(String),
    /// Another version of the format.
    Version(u32),
}

impl From<&str> for Flaw {
    fn from(what: &str) -> Self {
        Self::Damage(what.to_owned())
    }
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut payload = MAGIC.to_vec();
        payload.extend(VERSION.to_le_bytes());
        payload.extend(self.id.0.to_le_bytes());
        payload.extend(self.cluster.to_le_bytes());
        payload.extend(encode_meta(&self.meta));
        payload
    }

    fn decode(payload: &[u8]) -> Result<Self, Flaw> {
        let (id, version) = id_and_version(payload)?;
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        let meta = payload.get(HEAD_FIXED_BYTES..).ok_or("the head is too short")?;
        let meta = decode_meta(meta).map_err(|error| Flaw::Damage(error.to_string()))?;
        Ok(Self { id, cluster: number(&payload[28..HEAD_FIXED_BYTES]), meta })
    }
}

/// What every version has at the start of a file's first payload.
fn id_and_version(payload: &[u8]) -> Result<(SnapshotId, u32), Flaw> {
    let fixed = payload.get(..28).filter(|fixed| fixed[..8] == MAGIC);
    let fixed = fixed.ok_or("this is no snapshot of raft")?;
    Ok((SnapshotId(number(&fixed[12..])), u32_at(fixed, 8)))
}

/// How far a file has been followed: by whoever writes it, reads it or receives it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Once the head is known.
    id: Option<SnapshotId>,
    /// Bytes of the frames so far: where the next one stands.
    pub(super) offset: u64,
    frames: u64,
    /// CRC32C of their checksums.
    chain: u32,
    /// Kind of the last one.
    kind: Option<Kind>,
    image_bytes: u64,
}

impl Progress {
    /// Completes a frame that stands here: `frame` has its payload, and room before it for the header.
    pub(super) fn seal(&mut self, id: SnapshotId, kind: Kind, frame: &mut [u8]) {
        let payload_bytes = u32::try_from(frame.len() - HEADER_BYTES).expect("limited to far less");
        frame[..4].copy_from_slice(&payload_bytes.to_le_bytes());
        frame[8] = kind as u8;
        let sum = checksum(id, self.offset, frame);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        self.pass(id, kind, frame);
    }

    /// The last frame.
    pub(super) fn end(&self) -> [u8; END_BYTES] {
        let mut frame = [0; END_BYTES];
        let payload = &mut frame[HEADER_BYTES..];
        payload[..8].copy_from_slice(&self.frames.to_le_bytes());
        payload[8..16].copy_from_slice(&self.offset.to_le_bytes());
        payload[16..].copy_from_slice(&self.chain.to_le_bytes());
        frame
    }

    /// Length of the frame that begins here with these bytes. Its header is not checked otherwise.
    pub(super) fn expect(&self, header: [u8; HEADER_BYTES]) -> Result<usize, Flaw> {
        let payload_bytes = u32_at(&header, 0) as usize;
        let kind = kind_of(header[8]).ok_or("no frame begins here")?;
        let follows = match self.kind {
            None => kind == Kind::Head,
            Some(last) => {
                kind > last || (kind == last && matches!(kind, Kind::Image | Kind::Machine))
            }
        };
        if !follows {
            return Err("a frame that cannot stand here".into());
        }
        let lengths = match kind {
            Kind::Head => HEAD_FIXED_BYTES..=MAX_HEAD_BYTES,
            Kind::Image | Kind::Machine => 1..=PIECE_BYTES,
            Kind::End => END_PAYLOAD_BYTES..=END_PAYLOAD_BYTES,
        };
        if !lengths.contains(&payload_bytes) {
            return Err("a frame of an impossible length".into());
        }
        Ok(HEADER_BYTES + payload_bytes)
    }

    /// Checks a frame, whose length is as expected, and goes on behind it.
    pub(super) fn admit(&mut self, frame: &[u8]) -> Result<Kind, Flaw> {
        let payload = &frame[HEADER_BYTES..];
        let kind = kind_of(frame[8]).ok_or("no frame begins here")?;
        let id = match self.id {
            Some(id) => id,
            None => id_and_version(payload)?.0,
        };
        if checksum(id, self.offset, frame) != u32_at(frame, 4) {
            return Err("the frame's checksum does not match".into());
        }
        if kind == Kind::End && payload != &self.end()[HEADER_BYTES..] {
            return Err("the end does not fit what is before it".into());
        }
        if kind == Kind::Image && self.image_bytes + payload.len() as u64 > MAX_IMAGE_BYTES {
            return Err("the session table is longer than possible".into());
        }
        self.pass(id, kind, frame);
        Ok(kind)
    }

    fn pass(&mut self, id: SnapshotId, kind: Kind, frame: &[u8]) {
        let is_image = kind == Kind::Image;
        self.image_bytes += if is_image { (frame.len() - HEADER_BYTES) as u64 } else { 0 };
        self.id = Some(id);
        self.offset += frame.len() as u64;
        self.frames += 1;
        self.chain = crc32c::crc32c_append(self.chain, &frame[4..8]);
        self.kind = Some(kind);
    }

    /// Frames so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Whether the end is there.
    pub(super) fn is_complete(&self) -> bool {
        self.kind == Some(Kind::End)
    }
}

/// Reads a head whose frame was admitted.
pub(super) fn head_of(frame: &[u8]) -> Result<Head, Flaw> {
    Head::decode(&frame[HEADER_BYTES..])
}

/// Checks the last frame of a file alone: that it is the end of this file, at this place.
pub(super) fn is_end(id: SnapshotId, offset: u64, frame: &[u8; END_BYTES]) -> bool {
    let bytes_before: [u8; 8] = offset.to_le_bytes();
    frame[8] == Kind::End as u8
        && u32_at(frame, 0) as usize == END_PAYLOAD_BYTES
        && checksum(id, offset, frame) == u32_at(frame, 4)
        && frame[HEADER_BYTES + 8..HEADER_BYTES + 16] == bytes_before
}

fn checksum(id: SnapshotId, offset: u64, frame: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&id.0.to_le_bytes()), &offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &frame[..4]), &frame[8..])
}

fn kind_of(byte: u8) -> Option<Kind> {
    [Kind::Head, Kind::Image, Kind::Machine, Kind::End].into_iter().find(|kind| *kind as u8 == byte)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Index, LogId, Membership, NodeId, Term};
    use proptest::prelude::*;

    const ID: SnapshotId = SnapshotId(5);

    fn head() -> Head {
        let membership = Membership { voters: [NodeId(7)].into(), ..Membership::default() };
        let last = LogId::new(Term(3), Index(9));
        let meta = SnapshotMeta { last, membership, membership_index: Index(4) };
        Head { id: ID, cluster: 1 << 64 | 2, meta }
    }

    fn sealed(progress: &mut Progress, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&[0; HEADER_BYTES], payload].concat();
        progress.seal(ID, kind, &mut frame);
        frame
    }

    fn file() -> [Vec<u8>; 4] {
        let mut progress = Progress::default();
        let head = sealed(&mut progress, Kind::Head, &head().encode());
        let image = sealed(&mut progress, Kind::Image, b"ses");
        let machine = sealed(&mut progress, Kind::Machine, b"machine");
        let end = progress.end();
        [head, image, machine, sealed(&mut progress, Kind::End, &end[HEADER_BYTES..])]
    }

    fn follow(frames: &[Vec<u8>]) -> Result<Progress, Flaw> {
        let mut progress = Progress::default();
        for frame in frames {
            let length = progress.expect(*frame.first_chunk().unwrap())?;
            assert_eq!(length, frame.len());
            progress.admit(frame)?;
        }
        Ok(progress)
    }

    /// The format on disk: a change here is another [`VERSION`].
    #[test]
    fn the_format_is_as_the_tables_say() {
        let table: [&[u8]; 4] = [
            b"4\0\0\0\x22\x800\xcb\x01OUTRRAFT\x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
              \x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\x09\x01\x07\0\0\0\x04",
            b"\x03\0\0\x006K\xd9\xa1\x02ses",
            b"\x07\0\0\0\xcf\x07\x14\xfb\x03machine",
            b"\x14\0\0\0C\xf6\xde9\x04\x03\0\0\0\0\0\0\0Y\0\0\0\0\0\0\0\xef#r\x06",
        ];
        let file = file();
        assert_eq!(file, table);
        assert_eq!(head_of(&file[0]), Ok(head()));
        let progress = follow(&file).unwrap();
        assert!(progress.is_complete());
        let end: [u8; END_BYTES] = file[3].as_slice().try_into().unwrap();
        let offset = progress.offset - END_BYTES as u64;
        assert!(is_end(ID, offset, &end));
        assert!(!is_end(ID, offset + 1, &end) && !is_end(SnapshotId(6), offset, &end));
    }

    #[test]
    fn frames_in_another_order_are_refused() {
        let [head, image, machine, end] = file();
        let wrong = [
            vec![image.clone()],
            vec![end.clone()],
            vec![head.clone(), head.clone()],
            vec![head.clone(), machine.clone(), image.clone()],
            vec![head.clone(), image.clone(), end.clone()],
            vec![head, image, machine, end.clone(), end],
        ];
        for frames in wrong {
            assert!(follow(&frames).is_err(), "{frames:?}");
        }
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused_before_anything_is_read() {
        let begin = follow(&file()[..1]).unwrap();
        let header = |kind: Kind, length: usize| {
            let mut header = [0; HEADER_BYTES];
            header[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            header[8] = kind as u8;
            header
        };
        for (kind, length) in [
            (Kind::Image, 0),
            (Kind::Image, PIECE_BYTES + 1),
            (Kind::Machine, 0),
            (Kind::Machine, u32::MAX as usize),
            (Kind::End, END_PAYLOAD_BYTES + 1),
        ] {
            assert!(begin.expect(header(kind, length)).is_err(), "{kind:?} {length}");
        }
        assert!(begin.expect(header(Kind::Machine, PIECE_BYTES)).is_ok());
        assert!(Progress::default().expect(header(Kind::Head, MAX_HEAD_BYTES + 1)).is_err());
    }

    #[test]
    fn an_end_that_counts_otherwise_is_refused() {
        let [head, image, ..] = file();
        let progress = follow(&[head, image]).unwrap();
        for at in HEADER_BYTES..END_BYTES {
            let mut end = progress.end();
            end[at] ^= 1;
            let end = sealed(&mut progress.clone(), Kind::End, &end[HEADER_BYTES..]);
            assert!(progress.clone().admit(&end).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_session_table_without_end_is_refused() {
        let mut writer = follow(&file()[..1]).unwrap();
        let mut reader = writer.clone();
        let piece = vec![0; PIECE_BYTES];
        for _ in 0..MAX_IMAGE_BYTES / PIECE_BYTES as u64 {
            reader.admit(&sealed(&mut writer, Kind::Image, &piece)).unwrap();
        }
        assert!(reader.admit(&sealed(&mut writer, Kind::Image, &piece)).is_err());
    }

    proptest! {
        #[test]
        fn heads_of_others_never_panic(rest in prop::collection::vec(any::<u8>(), 0..120), starts_well: bool) {
            let start: &[u8] = if starts_well { b"OUTRRAFT\x01\0\0\0" } else { b"" };
            let payload = [start, &rest].concat();
            if let Ok(head) = Head::decode(&payload) {
                prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
            }
        }
    }
}
