//! A key's value in a few words of memory, so that many possible states can be held and compared.

/// Up to here a value is held as it is; every number fits.
const SHORT_BYTES: usize = 22;

/// 2^61 - 1, a prime.
const MODULUS: u64 = (1 << 61) - 1;
/// Two bases, so that two values with equal hashes need about 2^61 tries.
const BASES: [u64; 2] = [0x0123_4567_89ab_cdef, 0x1bad_5eed_0ddb_a11d];

/// What a key holds. Equal values have equal forms; of long ones only length and hash are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// There is no such key.
    Absent,
    /// At most [`SHORT_BYTES`].
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    /// Longer than that.
    Long { length: u64, hash: Hash },
}

impl Value {
    pub(super) fn of(text: Option<&str>) -> Self {
        text.map_or(Self::Absent, |text| Self::short("").followed_by(text))
    }

    pub(super) fn number(number: i64) -> Self {
        Self::short(&number.to_string())
    }

    fn short(text: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self::Short { length: u8::try_from(text.len()).expect("at most SHORT_BYTES"), bytes }
    }

    /// This value with a text behind it.
    pub(super) fn followed_by(self, text: &str) -> Self {
        let before = self.as_short();
        let length = self.length() + text.len() as u64;
        if let Some(before) = before
            && before.len() + text.len() <= SHORT_BYTES
        {
            let mut bytes = [0; SHORT_BYTES];
            bytes[..before.len()].copy_from_slice(before);
            bytes[before.len()..before.len() + text.len()].copy_from_slice(text.as_bytes());
            return Self::Short {
                length: u8::try_from(length).expect("at most SHORT_BYTES"),
                bytes,
            };
        }
        Self::Long { length, hash: self.hash().followed_by(text.as_bytes()) }
    }

    /// The number that it is; an absent key counts as 0.
    pub(super) fn as_number(&self) -> Option<i64> {
        match self {
            Self::Absent => Some(0),
            Self::Short { .. } => str::from_utf8(self.as_short()?).ok()?.parse().ok(),
            Self::Long { .. } => None,
        }
    }

    /// In bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Short { length, .. } => u64::from(*length),
            Self::Long { length, .. } => *length,
        }
    }

    pub(super) fn hash(&self) -> Hash {
        match self {
            Self::Absent => Hash::default(),
            Self::Short { length, bytes } => {
                Hash::default().followed_by(&bytes[..usize::from(*length)])
            }
            Self::Long { hash, .. } => *hash,
        }
    }

    fn as_short(&self) -> Option<&[u8]> {
        match self {
            Self::Absent => Some(&[]),
            Self::Short { length, bytes } => Some(&bytes[..usize::from(*length)]),
            Self::Long { .. } => None,
        }
    }
}

/// Two polynomials over the bytes, which can be continued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Hash([u64; 2]);

impl Hash {
    pub(super) fn followed_by(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            for (hash, base) in self.0.iter_mut().zip(BASES) {
                let next = u128::from(*hash) * u128::from(base) + u128::from(*byte) + 1;
                *hash = u64::try_from(next % u128::from(MODULUS)).expect("less than 2^61");
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_value_does_not_tell_how_it_came_about() {
        let text = "a value that is longer than what is held as it is";
        for at in 0..text.len() {
            let in_two = Value::of(Some(&text[..at])).followed_by(&text[at..]);
            assert_eq!(in_two, Value::of(Some(text)), "cut at {at}");
        }
        assert_eq!(Value::Absent.followed_by("12").followed_by("3"), Value::number(123));
        assert_ne!(Value::of(Some("")), Value::Absent);
        assert_ne!(Value::of(Some(text)), Value::of(Some(&text.replace("longer", "larger"))));
    }

    #[test]
    fn numbers_are_read_as_the_machine_reads_them() {
        assert_eq!(Value::Absent.as_number(), Some(0));
        assert_eq!(Value::number(i64::MIN).as_number(), Some(i64::MIN));
        assert_eq!(Value::of(Some("")).as_number(), None);
        assert_eq!(Value::of(Some("9;")).as_number(), None);
    }
}
