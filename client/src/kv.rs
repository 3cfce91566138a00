//! The verbs of the built-in key-value machine. Keys and values are any bytes; the machine states its limits.

use std::str::FromStr;

use bytes::Bytes;
use state_machine::kv::command::{
    Command, CommandError, MalformedAnswer, Swap, decode_swap, decode_value,
};
use state_machine::kv::list::{List, Range, decode_list};

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
        self.submit_kv(&command, |_empty| Ok(())).await
    }

    /// Removes a key, and tells whether it was there.
    ///
    /// # Errors
    /// As [`submit`](Client::submit).
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Receipt<bool>, Error> {
        let was_there = |answer: &Bytes| match &answer[..] {
            b"1" => Ok(true),
            b"0" => Ok(false),
            _ => Err(MalformedAnswer),
        };
        self.submit_kv(&Command::Del { key: key.into() }, was_there).await
    }

    /// Adds to a number, and returns the new one. A missing key counts as 0.
    ///
    /// # Errors
    /// As [`submit`](Client::submit); refused when the value is no number or would leave the range.
    pub async fn incr(&self, key: impl Into<Bytes>, by: i64) -> Result<Receipt<i64>, Error> {
        self.submit_kv(&Command::Incr { key: key.into(), by }, number).await
    }

    /// Sets a key to a value if the present one is as expected; `None` = there is none. Else tells what is there.
    ///
    /// # Errors
    /// As [`put`](Client::put); the two values together may have what one alone may have.
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Receipt<Swap>, Error> {
        let command = Command::Cas { key: key.into(), expected, value: value.into() };
        self.submit_kv(&command, decode_swap).await
    }

    /// Puts bytes behind the value of a key, and returns its new length in bytes. A missing key counts as empty.
    ///
    /// # Errors
    /// As [`submit`](Client::submit); refused when the value would be over the machine's limit.
    pub async fn append(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Receipt<u64>, Error> {
        let command = Command::Append { key: key.into(), value: value.into() };
        self.submit_kv(&command, number).await
    }

    /// Reads pairs in the order of their keys, with every change that was acknowledged before: one bounded piece. If
    /// [`List::more`], ask again after its last key; what has changed between the two pieces shows in the second.
    ///
    /// # Errors
    /// As [`query`](Client::query).
    pub async fn list(&self, range: Range) -> Result<Answer<List>, Error> {
        let Answer { read_index, result } = self.query(encode(&Command::List(range))?).await?;
        Ok(Answer { read_index, result: decode_list(&result)? })
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
        decode: impl FnOnce(&Bytes) -> Result<T, MalformedAnswer>,
    ) -> Result<Receipt<T>, Error> {
        let Receipt { stamp, index, result } = self.submit(encode(command)?).await?;
        let result = result.map(|answer| decode(&answer)).transpose()?;
        Ok(Receipt { stamp, index, result })
    }
}

fn number<T: FromStr>(answer: &Bytes) -> Result<T, MalformedAnswer> {
    let text = str::from_utf8(answer).map_err(|_not_text| MalformedAnswer)?;
    text.parse().map_err(|_no_number| MalformedAnswer)
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
