//! Blocks: the unit that a disk writes whole or not at all.
//!
//! A segment file is a row of blocks of 512 bytes, and each carries enough to be judged alone:
//!
//! | byte | size | content (integers little-endian) |
//! |---:|---:|---|
//! | 0 | 4 | CRC32C of the block's offset in the file (8 bytes), then of bytes 4 to 511 |
//! | 4 | 4 | salt: random, not zero, one for each use of a file |
//! | 8 | 8 | sequence number of the frame, ascending by one through the whole log |
//! | 16 | 4 | payload bytes of the whole frame, ≥ 1 |
//! | 20 | 4 | number of this block in its frame, from 0 |
//! | 24 | 488 | payload; zeros after the end of the frame's payload |
//!
//! So a block is one of: *zero* (never written), *whole* (as some frame wrote it at this very place), or *damaged*. A
//! power failure leaves whole blocks, new or old; only damage leaves anything else. Bytes of a value always stand
//! behind a header of ours, so a value that holds copied log bytes can never be taken for a block.

/// Bytes of a block: the smallest sector in use, so a torn write keeps or loses it as a whole.
pub(super) const BLOCK_BYTES: usize = 512;
/// Bytes of a block's header.
pub(super) const HEADER_BYTES: usize = 24;
/// Payload bytes in a block.
pub(super) const PAYLOAD_BYTES: usize = BLOCK_BYTES - HEADER_BYTES;

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Which use of the file.
    pub(super) salt: u32,
    /// Which frame.
    pub(super) seq: u64,
    /// Payload bytes of the whole frame.
    pub(super) frame_bytes: u32,
    /// Which block of the frame.
    pub(super) number: u32,
}

/// A block as found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Never written.
    Zero,
    /// As it was written, at the place where it was written.
    Whole(BlockHeader),
    /// Neither.
    Damaged,
}

/// Blocks that a frame with this payload takes.
pub(super) fn blocks_of(payload_bytes: usize) -> u64 {
    payload_bytes.div_ceil(PAYLOAD_BYTES) as u64
}

/// Offset of a block in its file, in bytes.
pub(super) fn offset_of(block: u32) -> u64 {
    u64::from(block) * BLOCK_BYTES as u64
}

/// Writes the header of `block` (512 bytes), which will stand at `place`, counted in blocks from the file's start.
pub(super) fn seal(block: &mut [u8], header: &BlockHeader, place: u32) {
    block[4..8].copy_from_slice(&header.salt.to_le_bytes());
    block[8..16].copy_from_slice(&header.seq.to_le_bytes());
    block[16..20].copy_from_slice(&header.frame_bytes.to_le_bytes());
    block[20..24].copy_from_slice(&header.number.to_le_bytes());
    let sum = checksum(block, place);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Judges `block` (512 bytes), read from `place`.
pub(super) fn look(block: &[u8], place: u32) -> Seen {
    if checksum(block, place) == u32_at(block, 0) {
        let header = BlockHeader {
            salt: u32_at(block, 4),
            seq: u64::from(u32_at(block, 8)) | u64::from(u32_at(block, 12)) << 32,
            frame_bytes: u32_at(block, 16),
            number: u32_at(block, 20),
        };
        let sane =
            header.salt != 0 && u64::from(header.number) < blocks_of(header.frame_bytes as usize);
        return if sane { Seen::Whole(header) } else { Seen::Damaged };
    }
    if block.iter().all(|byte| *byte == 0) { Seen::Zero } else { Seen::Damaged }
}

fn checksum(block: &[u8], place: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&offset_of(place).to_le_bytes()), &block[4..])
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: BlockHeader = BlockHeader { salt: 7, seq: 1 << 40, frame_bytes: 1000, number: 2 };

    fn sealed() -> Vec<u8> {
        let mut block: Vec<u8> = (0..BLOCK_BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect();
        seal(&mut block, &HEADER, 9);
        block
    }

    #[test]
    fn a_sealed_block_is_whole_at_its_place_only() {
        assert_eq!(look(&sealed(), 9), Seen::Whole(HEADER));
        assert_eq!(look(&sealed(), 8), Seen::Damaged);
        assert_eq!(look(&sealed(), 10), Seen::Damaged);
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        for bit in 0..BLOCK_BYTES * 8 {
            let mut block = sealed();
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(look(&block, 9), Seen::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn zeros_were_never_written_and_one_bit_among_them_is_damage() {
        assert_eq!(look(&[0; BLOCK_BYTES], 0), Seen::Zero);
        for bit in 0..BLOCK_BYTES * 8 {
            let mut block = [0; BLOCK_BYTES];
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(look(&block, 3), Seen::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_header_that_no_frame_writes_is_damage_even_with_a_good_sum() {
        let impossible = [
            BlockHeader { salt: 0, ..HEADER },
            BlockHeader { number: 3, ..HEADER },
            BlockHeader { frame_bytes: 0, number: 0, ..HEADER },
        ];
        for header in impossible {
            let mut block = sealed();
            seal(&mut block, &header, 9);
            assert_eq!(look(&block, 9), Seen::Damaged, "{header:?}");
        }
    }
}
