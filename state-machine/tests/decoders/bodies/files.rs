//! Small files: whose data a machine holds, and its settings.

use std::fs;

use state_machine::attachment::{Attachment, AttachmentFile, AttachmentStore};
use state_machine::config::Flags;
use state_machine::startup::{SettingError, load};

use super::settings::{self, Understood};
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

pub(crate) fn settings(bytes: &[u8]) -> bool {
    settings::is_read_as_printed("state-machine", bytes, |arguments| {
        let loaded = load::<Flags>(arguments)?;
        let said = serde_json::to_string(&loaded.settings).unwrap();
        Ok::<_, SettingError>(Understood { printed: loaded.print().unwrap(), said })
    })
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let printed = load::<Flags>(["state-machine"]).unwrap().print().unwrap();
    let few = "machine = \"register\"\nport_base = 7000\nbind = \"::1\"\n";
    vec![printed.into_bytes(), few.as_bytes().to_vec(), Vec::new()]
}
