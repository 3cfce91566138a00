//! Entries back from the log's files.

use super::log::Place;
use super::record::{ENTRY_HEADER_BYTES, Record};
use super::{ReadError, Wal};
use crate::consensus::{Entry, Index, LogId};

impl Wal {
    /// Reads the entries `from ..= to`, or fewer once `max_bytes` ([`Entry::weight_bytes`]) are reached, but at least
    /// one. Every block read is checked. Commands that stand in one frame share one buffer.
    ///
    /// # Errors
    /// [`ReadError`]; the log goes on.
    pub fn read(
        &mut self,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let (first, last) = (self.log.first(), self.log.last().index);
        if self.stopped {
            return Err(ReadError::Stopped);
        }
        if from < first {
            return Err(ReadError::Compacted { first });
        }
        if from > to || to > last {
            return Err(ReadError::Beyond { last });
        }
        let wanted = self.wanted(from, to, max_bytes);
        let mut entries = Vec::with_capacity(wanted.len());
        for together in wanted.chunk_by(|(_, one), (_, other)| one.is_beside(other)) {
            self.read_from_frame(together, &mut entries)?;
        }
        Ok(entries)
    }

    /// The newest entries, as many as the options say.
    pub(super) fn tail(&mut self) -> Result<Vec<Entry>, ReadError> {
        let last = self.log.last().index;
        let start = self.log.tail_start(self.options.tail_cache_bytes, weight_bytes);
        if start > last { Ok(Vec::new()) } else { self.read(start, last, usize::MAX) }
    }

    fn wanted(&self, from: Index, to: Index, max_bytes: usize) -> Vec<(Index, Place)> {
        let mut bytes = 0_usize;
        (from.0..=to.0)
            .map(|index| (Index(index), self.log.place(Index(index)).expect("it is in range")))
            .take_while(|(index, place)| {
                bytes = bytes.saturating_add(weight_bytes(place));
                *index == from || bytes <= max_bytes
            })
            .collect()
    }

    /// Reads these entries, which stand in one frame.
    fn read_from_frame(
        &self,
        wanted: &[(Index, Place)],
        entries: &mut Vec<Entry>,
    ) -> Result<(), ReadError> {
        let (Some((_, first)), Some((_, last))) = (wanted.first(), wanted.last()) else {
            return Ok(());
        };
        let oldest = self.segments.front().expect("a log always has a segment").id;
        let segment = &self.segments[(first.segment - oldest) as usize];
        let frame = segment.read(*first, last.at + last.bytes - first.at)?;
        for (index, place) in wanted {
            let from = (place.at - first.at) as usize;
            match Record::decode(&frame[from..from + place.bytes as usize]) {
                Ok((Record::Entry { id, payload }, _)) if Some(id) == self.id_at(*index) => {
                    entries.push(Entry { id, payload: payload.shared(&frame) });
                }
                Ok(_) | Err(_) => {
                    return Err(segment.damage(place.block, "not the expected entry").into());
                }
            }
        }
        Ok(())
    }

    fn id_at(&self, index: Index) -> Option<LogId> {
        self.log.term(index).map(|term| LogId::new(term, index))
    }
}

/// [`Entry::weight_bytes`] of the entry at a place, without reading it (of a membership, about that).
fn weight_bytes(place: &Place) -> usize {
    (place.bytes as usize).saturating_sub(ENTRY_HEADER_BYTES) + Entry::OVERHEAD_BYTES
}
