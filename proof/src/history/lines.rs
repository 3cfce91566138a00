//! Histories as files: one operation a line, in JSON.

use std::io::{self, BufRead, Write};

use super::{History, Operation};

impl History {
    /// Writes one operation a line.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_lines(&self, mut to: impl Write) -> io::Result<()> {
        for operation in self.operations() {
            serde_json::to_writer(&mut to, operation)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`write_lines`](Self::write_lines) wrote.
    ///
    /// # Errors
    /// The reader's; or a line is no operation.
    pub fn read_lines(from: impl BufRead) -> io::Result<Self> {
        from.lines().map(|line| Ok(serde_json::from_str::<Operation>(&line?)?)).collect()
    }
}
