//! Frames: what one sync makes durable. A frame's payload is a row of records, spread over blocks.

use super::block::{BLOCK_BYTES, BlockHeader, HEADER_BYTES, PAYLOAD_BYTES, blocks_of, seal};

/// Start of the buffer's bytes in memory. The kernel copies page by page, so a process that is killed in the middle of
/// a write leaves whole blocks too.
const ALIGNMENT_BYTES: usize = 4096;

/// Builds frames in one buffer that is used again and again.
///
/// Invariant: `bytes[start..]` is the frame so far: blocks with room for their headers, the last one perhaps short.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    payload_bytes: usize,
}

impl FrameBuffer {
    /// Starts a new frame that is expected to hold this many payload bytes.
    pub(super) fn begin(&mut self, payload_bytes: usize) {
        let frame_bytes = payload_bytes.div_ceil(PAYLOAD_BYTES) * BLOCK_BYTES;
        self.bytes.clear();
        self.bytes.reserve(frame_bytes + ALIGNMENT_BYTES);
        self.start = self.bytes.as_ptr().align_offset(ALIGNMENT_BYTES);
        // A const evaluator may refuse to align; then the frame simply starts unaligned.
        self.start = if self.start < ALIGNMENT_BYTES { self.start } else { 0 };
        self.bytes.resize(self.start, 0);
        self.payload_bytes = 0;
    }

    /// Payload bytes so far: where the next record starts.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Adds payload.
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        self.payload_bytes += bytes.len();
        while !bytes.is_empty() {
            let mut used = (self.bytes.len() - self.start) % BLOCK_BYTES;
            if used == 0 {
                self.bytes.extend_from_slice(&[0; HEADER_BYTES]);
                used = HEADER_BYTES;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - used));
            self.bytes.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Ends the frame and returns the bytes to write at block `first` of the file.
    ///
    /// # Panics
    /// If the payload is empty or does not fit a `u32`: the log's limits exclude both.
    pub(super) fn seal(&mut self, salt: u32, seq: u64, first: u32) -> &[u8] {
        assert!(self.payload_bytes > 0, "a frame holds at least one record");
        let frame_bytes =
            u32::try_from(self.payload_bytes).expect("frames are limited to far less");
        let blocks = self.payload_bytes.div_ceil(PAYLOAD_BYTES);
        self.bytes.resize(self.start + blocks * BLOCK_BYTES, 0);
        for (number, block) in (0..).zip(self.bytes[self.start..].chunks_exact_mut(BLOCK_BYTES)) {
            seal(block, &BlockHeader { salt, seq, frame_bytes, number }, first + number);
        }
        &self.bytes[self.start..]
    }
}

/// Payload bytes `from .. from + length` of a frame lie in these of its blocks: first, and how many.
pub(super) fn blocks_around(from: u32, length: u32) -> (u32, u32) {
    let payload = u32::try_from(PAYLOAD_BYTES).expect("less than a block");
    let first = from / payload;
    (first, (from + length).div_ceil(payload) - first)
}

/// Payload that block `number` of a frame holds.
pub(super) fn payload_of<'a>(block: &'a [u8], header: &BlockHeader) -> &'a [u8] {
    let before = header.number as usize * PAYLOAD_BYTES;
    let length = (header.frame_bytes as usize - before).min(PAYLOAD_BYTES);
    &block[HEADER_BYTES..HEADER_BYTES + length]
}

/// Bytes that a frame with this payload takes on disk.
pub(super) fn disk_bytes(payload_bytes: usize) -> u64 {
    blocks_of(payload_bytes) * BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::super::block::{Seen, look};
    use super::*;
    use proptest::prelude::*;

    fn payload_from(frame: &[u8], first: u32) -> Vec<u8> {
        let mut payload = Vec::new();
        for (place, block) in (first..).zip(frame.chunks(BLOCK_BYTES)) {
            let Seen::Whole(header) = look(block, place) else {
                panic!("block {place} is not whole")
            };
            assert_eq!(header.number, place - first);
            payload.extend_from_slice(payload_of(block, &header));
        }
        payload
    }

    proptest! {
        #[test]
        fn what_is_put_comes_back(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..8)) {
            let whole: Vec<u8> = parts.concat();
            prop_assume!(!whole.is_empty());
            let mut buffer = FrameBuffer::default();
            for _ in 0..2 {
                buffer.begin(whole.len());
                for part in &parts {
                    buffer.put(part);
                }
                prop_assert_eq!(buffer.payload_bytes(), whole.len());
                let frame = buffer.seal(3, 5, 11);
                prop_assert_eq!(frame.len() as u64, disk_bytes(whole.len()));
                prop_assert_eq!(payload_from(frame, 11), whole.clone());
            }
        }
    }

    #[test]
    fn blocks_around_a_range() {
        for ((from, length), expected) in [
            ((0, 1), (0, 1)),
            ((0, 488), (0, 1)),
            ((0, 489), (0, 2)),
            ((487, 1), (0, 1)),
            ((487, 2), (0, 2)),
            ((488, 1), (1, 1)),
            ((1000, 2000), (2, 5)),
        ] {
            assert_eq!(blocks_around(from, length), expected, "{from} {length}");
        }
    }

    #[test]
    fn a_frame_starts_on_a_page_in_memory() {
        let mut buffer = FrameBuffer::default();
        for length in [1, 100_000, 10] {
            buffer.begin(length);
            buffer.put(&vec![1; length]);
            assert_eq!(buffer.seal(1, 1, 0).as_ptr().align_offset(ALIGNMENT_BYTES), 0);
        }
    }
}
