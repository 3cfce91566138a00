//! Shared keys of the gossip: whoever holds one belongs to us.

use std::fmt;
use std::str::FromStr;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// Most keys in a ring.
pub const MAX_KEYS: usize = 8;
/// Bytes of a nonce, which is random: with 192 bits it never repeats.
pub const NONCE_BYTES: usize = 24;
/// Bytes that sealing adds to a text.
pub const TAG_BYTES: usize = 16;

/// Tells keys apart without telling anything about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 4]);

/// One key.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

/// Why a text is not a key. The text itself is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a gossip key is 64 hexadecimal digits (32 bytes), this has {0} characters; make one with `openssl rand -hex 32`"
)]
pub struct KeyError(usize);

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let refused = KeyError(text.chars().count());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_utf8| refused)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_digits| refused)?;
        }
        Ok(Self::new(&bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:02x?})", self.id.0)
    }
}

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let cipher = XChaCha20Poly1305::new(bytes.into());
        // The tag of an empty text tells nothing about the key; a random nonce is never all zero.
        let naming = Payload { msg: b"", aad: b"outrigger gossip key id" };
        let tag =
            cipher.encrypt(&XNonce::default(), naming).expect("an empty text is not too long");
        Self { id: KeyId([tag[0], tag[1], tag[2], tag[3]]), cipher }
    }
}

/// The keys in use: the first seals, all open. So a key is rotated by adding the new one last everywhere, then moving
/// it to the front everywhere, then dropping the old one.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// At most [`MAX_KEYS`]; more are not used. None means plaintext.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().take(MAX_KEYS).collect() }
    }

    /// Whether datagrams go out, and are taken, in plain text.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Of the key that seals.
    pub fn sealing_id(&self) -> Option<KeyId> {
        self.keys.first().map(|key| key.id)
    }

    /// Seals with the first key; `None` when there is none.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], header: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let sealed = key.cipher.encrypt(nonce.into(), Payload { msg: text, aad: header });
        Some(sealed.expect("a datagram is far below the cipher's limit"))
    }

    /// Opens with the key of this id. `None` when there is no such key or anything was changed on the way.
    pub fn open(
        &self,
        id: KeyId,
        nonce: &[u8; NONCE_BYTES],
        header: &[u8],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let payload = || Payload { msg: sealed, aad: header };
        let mut candidates = self.keys.iter().filter(|key| key.id == id);
        candidates.find_map(|key| key.cipher.decrypt(nonce.into(), payload()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_hex_and_never_printed() {
        let hex = "0123456789abcdef".repeat(4);
        let key: Key = format!(" {hex}\n").parse().unwrap();
        assert!(!format!("{key:?}").contains("0123"));
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32), &hex[1..]] {
            let error = text.parse::<Key>().unwrap_err();
            assert_eq!(error, KeyError(text.chars().count()));
        }
    }

    #[test]
    fn first_key_seals_and_every_key_opens() {
        let (old, new) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        let nonce = [9; NONCE_BYTES];
        let rotating = KeyRing::new([new.clone(), old.clone()]);
        let behind = KeyRing::new([old]);
        let sealed = behind.seal(&nonce, b"h", b"text").unwrap();
        let id = behind.sealing_id().unwrap();
        assert_eq!(rotating.open(id, &nonce, b"h", &sealed).unwrap(), b"text");
        assert_eq!(rotating.open(id, &nonce, b"x", &sealed), None);
        assert_eq!(KeyRing::new([new]).open(id, &nonce, b"h", &sealed), None);
    }
}
