//! The corpora, fed to their decoders on any toolchain.

use std::fs;
use std::path::Path;

use crate::harness::Target;

/// Of each target: files in its corpus.
const MOST_FILES: usize = 300;
/// Of all targets of a crate together.
const MOST_BYTES: usize = 1 << 20;

/// Feeds every target with its seeds, which it must understand, and with its corpus in `fuzz/corpus/NAME`.
///
/// With `OUTRIGGER_WRITE_SEEDS` the seeds are put into the corpora.
#[track_caller]
pub(crate) fn replay(package: &Path, targets: &[Target]) {
    let corpora = package.join("fuzz/corpus");
    let mut bytes_in_all = 0;
    for target in targets {
        let corpus = corpora.join(target.name);
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            assert!(target.feed(&seed), "{} does not understand seed {number}", target.name);
            if std::env::var_os("OUTRIGGER_WRITE_SEEDS").is_some() {
                fs::create_dir_all(&corpus).unwrap();
                fs::write(corpus.join(format!("seed-{number:02}")), seed).unwrap();
            }
        }
        let files = files(&corpus);
        assert!(!files.is_empty(), "{} is empty", corpus.display());
        assert!(files.len() <= MOST_FILES, "{} holds {} files", corpus.display(), files.len());
        let mut understood = 0;
        for (name, bytes) in &files {
            let _at = At { target: target.name, file: name };
            understood += usize::from(target.feed(bytes));
            bytes_in_all += bytes.len();
        }
        say(&format!("{}: {} inputs, {understood} understood", target.name, files.len()));
    }
    assert!(bytes_in_all <= MOST_BYTES, "{} holds {bytes_in_all} bytes", corpora.display());
    let names = fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name());
    for name in names {
        let is_known = targets.iter().any(|target| name == target.name);
        assert!(is_known, "nothing decodes the corpus {}", name.display());
    }
}

fn files(corpus: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(corpus) else { return Vec::new() };
    let named = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    let mut files: Vec<_> = entries.map(|entry| named(entry.unwrap())).collect();
    files.sort();
    files
}

/// Says, when a test fails, at which input.
struct At<'a> {
    target: &'a str,
    file: &'a str,
}

impl Drop for At<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("fuzz/corpus/{}/{}", self.target, self.file));
        }
    }
}

#[expect(clippy::print_stderr, reason = "what a test has done, and where it failed")]
fn say(line: &str) {
    eprintln!("{line}");
}
