//! Frames out: measured, given room, encoded, written, synced.

use super::error::{During, Impossible};
use super::log::Place;
use super::record::{Record, State};
use super::segment::Segment;
use super::{DiskError, FRAME_BYTES, MAX_RECORD_BYTES, Wal, WriteError};

impl Wal {
    /// Writes the records as one frame, or as several when they are many, and syncs each before the next.
    pub(super) fn write<'r>(
        &mut self,
        mut records: impl Iterator<Item = Record<'r>> + Clone,
    ) -> Result<(), WriteError> {
        loop {
            let (count, payload_bytes) = measure(records.clone())?;
            if count == 0 {
                return Ok(());
            }
            self.make_room(payload_bytes)?;
            self.encode(records.by_ref().take(count), payload_bytes)?;
            self.write_frame()?;
        }
    }

    /// Removes the segments before the one that holds the oldest entry, or keeps their files for another use.
    pub(super) fn drop_old_segments(&mut self) -> Result<(), DiskError> {
        let newest = self.newest().id;
        let oldest_needed = self.log.oldest_segment().unwrap_or(newest);
        let count = self.segments.partition_point(|segment| segment.id < oldest_needed);
        for segment in self.segments.drain(..count) {
            let reused = segment.is_recyclable() && self.preparer.recycle(&segment.path)?;
            if !reused {
                self.disk.remove(&segment.path).during("remove", &segment.path)?;
            }
        }
        if count > 0 { self.disk.sync_dir(&self.dir).during("sync", &self.dir) } else { Ok(()) }
    }

    /// Starts a segment that says `state` and has room for a frame of `payload_bytes`; it is not published yet.
    pub(super) fn start_segment(
        &mut self,
        id: u32,
        state: State,
        payload_bytes: usize,
    ) -> Result<Segment, DiskError> {
        let start = (id, self.next_seq, state);
        let (identity, preparer) = (&mut self.identity, &mut self.preparer);
        let segment = Segment::start(identity, preparer, &mut self.frame, start, payload_bytes)?;
        self.next_seq += 1;
        Ok(segment)
    }

    /// The segment that is written to.
    pub(super) fn newest(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log always has a segment")
    }

    /// Goes to the next segment if the frame does not fit into this one.
    fn make_room(&mut self, payload_bytes: usize) -> Result<(), WriteError> {
        if self.newest().has_room(payload_bytes) {
            return Ok(());
        }
        let id = self.newest().id + 1;
        if id == u32::MAX {
            return Err(Impossible("a segment after the last possible one".to_owned()).into());
        }
        let mut fresh = self.start_segment(id, self.log.state(), payload_bytes)?;
        fresh.publish(&*self.disk, &self.dir, self.options.sync)?;
        let end = self.newest().end();
        self.newest().seal(end)?;
        self.segments.push_back(fresh);
        self.preparer.start();
        Ok(())
    }

    /// Fills the frame buffer, and follows the records at once: if the write fails, the log is over anyway.
    fn encode<'r>(
        &mut self,
        records: impl Iterator<Item = Record<'r>>,
        payload_bytes: usize,
    ) -> Result<(), Impossible> {
        let (segment, block) = (self.newest().id, self.newest().end());
        self.frame.begin(payload_bytes);
        for record in records {
            let at = self.frame.payload_bytes();
            record.encode(|part| self.frame.put(part));
            let bytes = self.frame.payload_bytes() - at;
            self.log
                .admit(&record, Place { segment, block, at: small(at), bytes: small(bytes) })?;
        }
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), DiskError> {
        let newest = self.segments.back_mut().expect("a log always has a segment");
        newest.write(&mut self.frame, self.next_seq)?;
        self.next_seq += 1;
        if self.options.sync { newest.sync() } else { Ok(()) }
    }
}

/// How many of the records go into the next frame, and their length in bytes.
fn measure<'r>(records: impl Iterator<Item = Record<'r>>) -> Result<(usize, usize), Impossible> {
    let (mut count, mut bytes) = (0, 0);
    for record in records {
        let length = record.encoded_bytes();
        if length > MAX_RECORD_BYTES {
            let what = format!("a record of {length} bytes; the limit is {MAX_RECORD_BYTES}");
            return Err(Impossible(what));
        }
        if count > 0 && bytes + length > FRAME_BYTES {
            break;
        }
        count += 1;
        bytes += length;
    }
    Ok((count, bytes))
}

fn small(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame is limited to far less")
}
