//! A file of settings, of whatever program.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;

use crate::scratch::directory;

/// What a program made of its flags: the settings printed as a file, and all that they say.
pub(crate) struct Understood {
    pub(crate) printed: String,
    pub(crate) said: String,
}

/// A file of settings is taken, and printed as it is read; or refused by a word that says what is wrong.
pub(crate) fn is_read_as_printed<E: Display>(
    program: &str,
    bytes: &[u8],
    load: impl Fn([OsString; 3]) -> Result<Understood, E>,
) -> bool {
    let file = directory("settings").join(program).with_extension("toml");
    let read = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        load([program.into(), "--config".into(), file.clone().into()])
    };
    match read(bytes) {
        Ok(first) => {
            let again = read(first.printed.as_bytes());
            let again =
                again.unwrap_or_else(|error| panic!("what was printed is refused: {error}"));
            assert_eq!(again.said, first.said, "printed as it is read");
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
