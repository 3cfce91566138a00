//! Where the list of nodes comes from: what was said, else the environment, else a file that a launcher left, else the
//! default of a single node on this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use raft::rpc::wire::{Endpoint, EndpointError};

use crate::options::DEFAULT_ENDPOINT;

/// Environment variable with endpoints, separated by commas.
pub const ENDPOINTS_VARIABLE: &str = "OUTRIGGER_ENDPOINTS";
/// Environment variable with the path of an endpoints file.
pub const ENDPOINTS_FILE_VARIABLE: &str = "OUTRIGGER_ENDPOINTS_FILE";
/// The file that is read if it is there and nothing else was said.
pub const DEFAULT_FILE: &str = "data/endpoints";
/// Longest endpoints file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where to look, first to last.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Endpoints said on the spot.
    pub list: Option<String>,
    /// An endpoints file named on the spot.
    pub file: Option<PathBuf>,
    /// [`ENDPOINTS_VARIABLE`].
    pub environment_list: Option<String>,
    /// [`ENDPOINTS_FILE_VARIABLE`].
    pub environment_file: Option<PathBuf>,
    /// [`DEFAULT_FILE`]; need not exist.
    pub default_file: Option<PathBuf>,
}

/// Why there are no endpoints.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    /// One of them is none.
    #[error("{place}: {source}")]
    Malformed {
        /// Where it stands.
        place: String,
        /// What is wrong.
        source: EndpointError,
    },
    /// None at all.
    #[error(
        "{place}: no endpoint; write host:port, several separated by commas or on lines of their own"
    )]
    Empty {
        /// Where they should stand.
        place: String,
    },
    /// The file cannot be read.
    #[error("cannot read the endpoints file {}: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Sources {
    /// What the environment says.
    pub fn from_environment() -> Self {
        Self {
            environment_list: std::env::var(ENDPOINTS_VARIABLE).ok(),
            environment_file: std::env::var_os(ENDPOINTS_FILE_VARIABLE).map(PathBuf::from),
            ..Self::default()
        }
    }

    /// The endpoints of the first source that was given.
    ///
    /// # Errors
    /// That source is of no use; the others are not asked then.
    pub fn resolve(&self) -> Result<Vec<Endpoint>, EndpointsError> {
        if let Some(list) = &self.list {
            return parse(list, "--endpoints");
        }
        if let Some(file) = &self.file {
            return read(file);
        }
        if let Some(list) = &self.environment_list {
            return parse(list, ENDPOINTS_VARIABLE);
        }
        if let Some(file) = &self.environment_file {
            return read(file);
        }
        match &self.default_file {
            Some(file) if file.exists() => read(file),
            _ => parse(DEFAULT_ENDPOINT, "the default"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Endpoint>, EndpointsError> {
    let unreadable = |source| EndpointsError::Unreadable { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_FILE_BYTES {
        let long = format!("{bytes} bytes are more than the limit of {MAX_FILE_BYTES} bytes");
        return Err(unreadable(io::Error::other(long)));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    parse(&text, &path.display().to_string())
}

/// Reads endpoints that are separated by commas or line ends; `#` begins a comment.
fn parse(text: &str, place: &str) -> Result<Vec<Endpoint>, EndpointsError> {
    let endpoints = text
        .lines()
        .enumerate()
        .flat_map(|(at, line)| {
            let content = line.split('#').next().unwrap_or_default();
            content.split(',').map(move |word| (at + 1, word.trim()))
        })
        .filter(|(_, word)| !word.is_empty())
        .map(|(line, word)| {
            let place =
                if text.contains('\n') { format!("{place}:{line}") } else { place.to_owned() };
            word.parse().map_err(|source| EndpointsError::Malformed { place, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err(EndpointsError::Empty { place: place.to_owned() });
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(sources: &Sources) -> String {
        match sources.resolve() {
            Ok(endpoints) => {
                endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn first_source_that_was_given_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let mut sources = Sources {
            list: Some("a:1, b:2".to_owned()),
            file: file("named", "# all of them\nc:3 # first\n\nd:4\n"),
            environment_list: Some("e:5".to_owned()),
            environment_file: file("environment", "f:6"),
            default_file: file("default", "g:7,h:8"),
        };
        assert_eq!(resolve(&sources), "a:1 b:2");
        sources.list = None;
        assert_eq!(resolve(&sources), "c:3 d:4");
        sources.file = None;
        assert_eq!(resolve(&sources), "e:5");
        sources.environment_list = None;
        assert_eq!(resolve(&sources), "f:6");
        sources.environment_file = None;
        assert_eq!(resolve(&sources), "g:7 h:8");
        sources.default_file = Some(directory.path().join("missing"));
        assert_eq!(resolve(&sources), DEFAULT_ENDPOINT);
    }

    #[test]
    fn bad_sources_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints");
        fs::write(&path, "a:1\nnonsense\n").unwrap();
        let line = format!("{}:2: \"nonsense\"", path.display());
        let missing = directory.path().join("missing");
        for (sources, part) in [
            (
                Sources { list: Some(" , ".to_owned()), ..Sources::default() },
                "--endpoints: no endp",
            ),
            (
                Sources { list: Some("a:x".to_owned()), ..Sources::default() },
                "--endpoints: \"a:x\"",
            ),
            (Sources { file: Some(path), ..Sources::default() }, line.as_str()),
            (
                Sources { file: Some(missing), ..Sources::default() },
                "cannot read the endpoints file",
            ),
        ] {
            let text = resolve(&sources);
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
}
