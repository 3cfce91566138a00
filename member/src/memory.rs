//! What the daemon knows of its own file: who we are, and what of it is saved. Nobody waits for the disk.

use std::sync::Arc;

use rand::RngExt;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::store::{Saved, Store, StoreError};
use crate::swim::{Incarnation, MemberId, Tags};

/// Keeps the file up to date, beside the loop.
#[derive(Debug)]
pub struct Memory {
    store: Arc<Store>,
    saved: Saved,
    saving: Option<JoinHandle<()>>,
}

impl Memory {
    /// Remembers who we are, or becomes someone new; returns the incarnation to start with, which is above all that
    /// were used before.
    ///
    /// # Errors
    /// When the file is damaged or cannot be written.
    pub fn open(store: Store) -> Result<(Self, Incarnation), StoreError> {
        let known = store.load()?.unwrap_or_else(|| Saved {
            id: MemberId(rand::rng().random_range(1..=u64::MAX)),
            reserved: Incarnation(0),
            tags: Tags::default(),
        });
        let incarnation = known.reserved.next();
        let saved = known.with_block_above(incarnation);
        store.save(&saved)?;
        Ok((Self { store: Arc::new(store), saved, saving: None }, incarnation))
    }

    /// Who we are.
    pub fn id(&self) -> MemberId {
        self.saved.id
    }

    /// The tags that were set last.
    pub fn tags(&self) -> &Tags {
        &self.saved.tags
    }

    /// Starts a save if there is something to keep and none is under way. A failure is logged and costs little: after
    /// a restart raft registers its tags again, and the others tell us our incarnation.
    pub fn keep(&mut self, used: Incarnation, tags: &Tags) {
        let current = !self.saved.is_running_out(used) && self.saved.tags == *tags;
        if current || self.saving.is_some() {
            return;
        }
        self.saved = Saved { tags: tags.clone(), ..self.saved.clone() }.with_block_above(used);
        let (store, saved) = (Arc::clone(&self.store), self.saved.clone());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = store.save(&saved) {
                warn!(%error, "tags and incarnation are not kept over a restart");
            }
        }));
    }

    /// Waits for the save under way, for ever if there is none.
    pub async fn saved(&mut self) {
        match &mut self.saving {
            Some(saving) => {
                // It logs its own failure.
                let _joined = saving.await;
                self.saving = None;
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the save under way and saves once more.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub async fn finish(&mut self) -> Result<(), StoreError> {
        if self.saving.is_some() {
            self.saved().await;
        }
        self.store.save(&self.saved)
    }
}
