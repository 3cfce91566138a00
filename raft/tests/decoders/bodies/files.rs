//! Small files: who this node is, and its settings.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use raft::config::Settings;
use raft::identity::{DataDir, IdentityError};
use state_machine::startup::{Loaded, SettingError, load};

use crate::scratch::directory;

/// A data directory with a log in it.
fn node(name: &str) -> PathBuf {
    let dir = directory(name);
    let wal = directory(&format!("{name}/wal"));
    fs::write(wal.join("00000001.wal"), "").unwrap();
    dir
}

/// The file `identity` of a data directory: read or refused by its name, and unchanged until the node starts.
pub(crate) fn identity(bytes: &[u8]) -> bool {
    let dir = node("node");
    let file = dir.join("identity");
    fs::write(&file, bytes).unwrap();
    let outcome = DataDir::open(&dir);
    assert_eq!(fs::read(&file).unwrap(), bytes, "nobody has written to it");
    match outcome {
        Ok(data_dir) => data_dir.identity().node.0 != 0,
        Err(IdentityError::Damaged { path, .. }) => {
            assert_eq!(path, file);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn identity_seeds() -> Vec<Vec<u8>> {
    let dir = node("seeds");
    let mut data_dir = DataDir::open(&dir).unwrap();
    let mut seeds = Vec::new();
    let mut keep = || seeds.push(fs::read(dir.join("identity")).unwrap());
    data_dir.begin_boot(true).unwrap();
    keep();
    data_dir.found_cluster().unwrap();
    keep();
    data_dir.finish_founding().unwrap();
    keep();
    seeds
}

/// A file of settings: taken, or refused by a word that says what is wrong.
pub(crate) fn settings(bytes: &[u8]) -> bool {
    match load_file(bytes) {
        Ok(loaded) => {
            let again = load_file(loaded.print().unwrap().as_bytes()).unwrap();
            let text = |settings: &Settings| serde_json::to_string(settings).unwrap();
            assert_eq!(text(&again.settings), text(&loaded.settings), "printed as it is read");
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn load_file(bytes: &[u8]) -> Result<Loaded<Settings>, SettingError> {
    let file = directory("settings").join("raft.toml");
    fs::write(&file, bytes).unwrap();
    load([OsString::from("raft"), OsString::from("--config"), file.into_os_string()])
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let printed = load::<Settings>(["raft", "--name=one"]).unwrap().print().unwrap();
    let few = "preset = \"original\"\nport_base = 7000\nbind = \"0.0.0.0\"\nname = \"one\"\n";
    vec![printed.into_bytes(), few.as_bytes().to_vec(), Vec::new()]
}
