//! Small files: who this node is, and its settings.

use std::fs;
use std::path::PathBuf;

use raft::config::Settings;
use raft::identity::{DataDir, IdentityError};
use state_machine::startup::{SettingError, load};

use super::settings::{self, Understood};
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

pub(crate) fn settings(bytes: &[u8]) -> bool {
    settings::is_read_as_printed("raft", bytes, |arguments| {
        let loaded = load::<Settings>(arguments)?;
        let said = serde_json::to_string(&loaded.settings).unwrap();
        Ok::<_, SettingError>(Understood { printed: loaded.print().unwrap(), said })
    })
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let printed = load::<Settings>(["raft", "--name=one"]).unwrap().print().unwrap();
    let few = "preset = \"original\"\nport_base = 7000\nbind = \"0.0.0.0\"\nname = \"one\"\n";
    vec![printed.into_bytes(), few.as_bytes().to_vec(), Vec::new()]
}
