//! Small files: whose data a machine holds, and its settings.

use std::ffi::OsString;
use std::fs;

use state_machine::attachment::{Attachment, AttachmentFile, AttachmentStore};
use state_machine::config::Flags;
use state_machine::startup::{Loaded, SettingError, load};

use crate::scratch::directory;

/// The file `attachment`: what is read was written just so.
pub(crate) fn attachment(bytes: &[u8]) -> bool {
    let directory = directory("attachment");
    let file = directory.join("attachment");
    fs::write(&file, bytes).unwrap();
    let mut store = AttachmentFile::new(&directory);
    match store.load() {
        Ok(found) => {
            store.store(&found.expect("the file is there")).unwrap();
            assert_eq!(fs::read(&file).unwrap(), bytes, "there is one way to write it");
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("attachment"), "{error}");
            false
        }
    }
}

pub(crate) fn attachment_seeds() -> Vec<Vec<u8>> {
    let directory = directory("attachment-seeds");
    let seed = |attachment| {
        AttachmentFile::new(&directory).store(&attachment).unwrap();
        fs::read(directory.join("attachment")).unwrap()
    };
    vec![
        seed(Attachment { cluster: 1, node: 2, boot: 3 }),
        seed(Attachment { cluster: u128::MAX / 3, node: u64::MAX, boot: 0 }),
    ]
}

/// A file of settings: taken and printed as it is read, or refused by a word that says what is wrong.
pub(crate) fn settings(bytes: &[u8]) -> bool {
    match load_file(bytes) {
        Ok(loaded) => {
            let again = load_file(loaded.print().unwrap().as_bytes()).unwrap();
            let text = |settings: &Flags| serde_json::to_string(settings).unwrap();
            assert_eq!(text(&again.settings), text(&loaded.settings));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn load_file(bytes: &[u8]) -> Result<Loaded<Flags>, SettingError> {
    let file = directory("settings").join("machine.toml");
    fs::write(&file, bytes).unwrap();
    load([OsString::from("state-machine"), OsString::from("--config"), file.into_os_string()])
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let printed = load::<Flags>(["state-machine"]).unwrap().print().unwrap();
    let few = "machine = \"register\"\nport_base = 7000\nbind = \"::1\"\n";
    vec![printed.into_bytes(), few.as_bytes().to_vec(), Vec::new()]
}
