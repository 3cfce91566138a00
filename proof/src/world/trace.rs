//! The trace of a run as one number: the same seed gives the same number, or the world is not deterministic.

use std::hash::Hasher;

/// FNV-1a over 64 bits: the same on every machine and in every version.
#[derive(Clone, Copy, Debug)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A word at once: quick, and all that a trace needs.
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3);
        self.0 ^= self.0 >> 29;
    }
}

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash.write_u64(u64::from_le_bytes(*word));
    }
    hash.write(rest);
    hash.finish()
}
