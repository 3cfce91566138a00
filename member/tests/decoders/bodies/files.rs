//! Files of the member daemon: what it remembers, its settings, its keys.

use std::fs;

use member::config::Flags;
use member::startup::{SettingError, load};
use member::store::{Saved, Store, StoreError};
use member::swim::{Incarnation, MemberId, Tags};

use super::settings::{self, Understood};
use crate::scratch::directory;

/// The checksum at the end is put right, so that what it protects is looked at.
const RESEALED: u8 = 1;

/// A byte of flags, then the file `identity`: what is read is written so that it is read again.
pub(crate) fn saved(bytes: &[u8]) -> bool {
    let Some((flags, bytes)) = bytes.split_first() else { return false };
    let mut content = bytes.to_vec();
    if flags & RESEALED != 0
        && let Some((before, sum)) = content.split_last_chunk_mut::<4>()
    {
        *sum = crc32c::crc32c(before).to_be_bytes();
    }
    let directory = directory("saved");
    let file = directory.join("identity");
    fs::write(&file, &content).unwrap();
    let store = Store::open(&directory).unwrap();
    match store.load() {
        Ok(found) => {
            let found = found.expect("the file is there");
            store.save(&found).unwrap();
            assert_eq!(store.load().unwrap(), Some(found));
            true
        }
        Err(StoreError::Damaged { path, reason }) => {
            assert_eq!(path, file);
            assert!(!reason.is_empty());
            false
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn saved_seeds() -> Vec<Vec<u8>> {
    let directory = directory("saved-seeds");
    let store = Store::open(&directory).unwrap();
    let tags = Tags { cluster: Some(9), role: "voter".to_owned(), ..Tags::default() };
    let saved = Saved { id: MemberId(7), reserved: Incarnation(1000), tags };
    let mut seeds = Vec::new();
    for saved in [Saved { tags: Tags::default(), ..saved.clone() }, saved] {
        store.save(&saved).unwrap();
        let file = fs::read(directory.join("identity")).unwrap();
        seeds.extend([0, RESEALED].map(|flags| [&[flags][..], &file].concat()));
    }
    seeds
}

pub(crate) fn settings(bytes: &[u8]) -> bool {
    settings::is_read_as_printed("member", bytes, |arguments| {
        let loaded = load::<Flags>(arguments)?;
        let said = serde_json::to_string(&loaded.settings).unwrap();
        Ok::<_, SettingError>(Understood { printed: loaded.print().unwrap(), said })
    })
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let printed = load::<Flags>(["member", "--name=one"]).unwrap().print().unwrap();
    let key = "0123456789abcdef".repeat(4);
    let few = format!("seed = [\"host:6001\"]\nport_base = 7000\ngossip_key = \"{key}\"\n");
    vec![printed.into_bytes(), few.into_bytes(), Vec::new()]
}
