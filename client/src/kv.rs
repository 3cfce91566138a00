//! The verbs of the built-in key-value machine. Keys and values are any bytes; the machine states its limits.

use bytes::Bytes;
use state_machine::kv::command::{Command, CommandError, MalformedAnswer, decode_value};

use crate::client::{Answer, Client, Receipt};
use crate::error::{Error, Refusal};

impl Client {
    /// Sets a key to a value.
    ///
    /// # Errors
    /// As [`submit`](Client::submit); refused when key or value are over the machine's limits.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Receipt<()>, Error> {
        let command = Command::Put { key: key.into(), value: value.into() };
        self.submit_kv(&command, |_empty| Some(())).await
    }

    /// Removes a key, and tells whether it was there.
    ///
    /// # Errors
    /// As [`submit`](Client::submit).
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Receipt<bool>, Error> {
        let was_there = |answer: &[u8]| match answer {
            b"1" => Some(true),
            b"0" => Some(false),
            _ => None,
        };
        self.submit_kv(&Command::Del { key: key.into() }, was_there).await
    }

    /// Adds to a number, and returns the new one. A missing key counts as 0.
    ///
    /// # Errors
    /// As [`submit`](Client::submit); refused when the value is no number or would leave the range.
    pub async fn incr(&self, key: impl Into<Bytes>, by: i64) -> Result<Receipt<i64>, Error> {
        let number = |answer: &[u8]| str::from_utf8(answer).ok()?.parse().ok();
        self.submit_kv(&Command::Incr { key: key.into(), by }, number).await
    }

    /// Reads a key, with every change that was acknowledged before. None: there is no such key.
    ///
    /// # Errors
    /// As [`query`](Client::query).
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Answer<Option<Bytes>>, Error> {
        let query = encode(&Command::Get { key: key.into() })?;
        let Answer { read_index, result } = self.query(query).await?;
        Ok(Answer { read_index, result: decode_value(&result)? })
    }

    async fn submit_kv<T>(
        &self,
        command: &Command,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Receipt<T>, Error> {
        let Receipt { stamp, index, result } = self.submit(encode(command)?).await?;
        let result = result.map(|answer| decode(&answer).ok_or(MalformedAnswer)).transpose()?;
        Ok(Receipt { stamp, index, result })
    }
}

/// Bytes over a limit are refused here already, as the machine would.
fn encode(command: &Command) -> Result<Bytes, Refusal> {
    command.encode().map_err(|error: CommandError| Refusal::Machine(error.to_string().into()))
}

impl From<MalformedAnswer> for Error {
    fn from(malformed: MalformedAnswer) -> Self {
        Self::Misunderstood { what: malformed.to_string() }
    }
}
