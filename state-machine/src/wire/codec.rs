//! Messages as bytes: postcard in bounded frames, under tarpc.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::poll_immediate;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::server::{BaseChannel, Channel, Serve};
use tarpc::tokio_serde::{Deserializer, Serializer};
use tarpc::tokio_util::codec::{LengthDelimitedCodec, length_delimited};
use tarpc::{ClientMessage, Response};

use super::endpoint::Io;

/// Longest frame that either end accepts, in bytes, without its length prefix.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;
/// Longest deadline that a caller may ask for. A longer one is cut to this; tarpc itself would panic on an absurd one.
pub const MAX_DEADLINE: Duration = Duration::from_hours(1);
/// Requests that one connection may have open; one more is answered with an error at once.
pub const MAX_REQUESTS_PER_CONNECTION: usize = 4096;

/// postcard, bounded and without panics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codec;

/// Those bytes are not a message of this contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct MalformedMessage(String);

fn encode<T: Serialize>(item: &T) -> io::Result<Bytes> {
    postcard::to_stdvec(item).map(Bytes::from).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    // tarpc adds the peer's deadline to the clock while decoding, and panics where that overflows.
    let malformed =
        |what: String| io::Error::new(io::ErrorKind::InvalidData, MalformedMessage(what));
    match catch_unwind(AssertUnwindSafe(|| postcard::take_from_bytes(bytes))) {
        Ok(Ok((message, []))) => Ok(message),
        Ok(Ok((_, rest))) => Err(malformed(format!("{} bytes too many", rest.len()))),
        Ok(Err(error)) => Err(malformed(error.to_string())),
        Err(_panic) => Err(malformed("absurd deadline".to_owned())),
    }
}

impl<T: Serialize> Serializer<T> for Codec {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> io::Result<Bytes> {
        encode(item)
    }
}

impl<T: DeserializeOwned> Deserializer<ClientMessage<T>> for Codec {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<ClientMessage<T>> {
        let mut message = decode(bytes)?;
        if let ClientMessage::Request(request) = &mut message {
            let latest = Instant::now() + MAX_DEADLINE;
            request.context.deadline = request.context.deadline.min(latest);
        }
        Ok(message)
    }
}

impl<T: DeserializeOwned> Deserializer<Response<T>> for Codec {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<Response<T>> {
        decode(bytes)
    }
}

/// A tarpc transport over a connection, for either end.
pub type Transport<Item, SinkItem> = tarpc::serde_transport::Transport<Io, Item, SinkItem, Codec>;

/// The calling end of a connection whose hellos are done.
pub fn client_transport<Req, Resp>(io: Io) -> Transport<Response<Resp>, ClientMessage<Req>>
where
    Req: Serialize,
    Resp: DeserializeOwned,
{
    tarpc::serde_transport::new(framing().new_framed(io), Codec)
}

fn framing() -> length_delimited::Builder {
    let mut builder = LengthDelimitedCodec::builder();
    builder.max_frame_length(MAX_FRAME_BYTES);
    builder
}

/// Whether a connection ended because the other end closed it or its process died, as opposed to a frame that one end
/// could not accept.
pub fn closed_by_other_end(end: &io::Result<()>) -> bool {
    let Err(error) = end else { return true };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // tarpc shares the transport's error among those who wait; a shared error is of another type.
        let shared = error.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
        if let Some(error) = shared.or_else(|| error.downcast_ref()) {
            if closes(error.kind()) {
                return true;
            }
            // An error that wraps another one passes over itself in `source`.
            cause = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
        } else {
            cause = error.source();
        }
    }
    false
}

fn closes(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// Serves one connection whose hellos are done, until it closes.
///
/// Handlers start in stream order: each is polled once before the next request is read, so what a handler enqueues
/// before its first `await` is enqueued in the order in which the caller sent it. A handler is dropped when its
/// caller cancels, its deadline passes or the connection closes: no handler may hold state of its own.
///
/// # Errors
/// Why the connection ended, if not by an orderly close: a malformed or oversized frame, or a broken connection.
pub async fn serve_connection<Req, Resp, S>(io: Io, serve: S) -> io::Result<()>
where
    Req: DeserializeOwned + tarpc::RequestName,
    Resp: Serialize,
    S: Serve<Req = Req, Resp = Resp> + Clone,
{
    let transport: Transport<ClientMessage<Req>, Response<Resp>> =
        tarpc::serde_transport::new(framing().new_framed(io), Codec);
    let channel = BaseChannel::with_defaults(transport);
    let mut requests =
        Box::pin(channel.max_concurrent_requests(MAX_REQUESTS_PER_CONNECTION).requests());
    let mut handlers = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = handlers.next(), if !handlers.is_empty() => {}
            request = requests.next() => match request {
                Some(Ok(request)) => {
                    let mut handler = Box::pin(request.execute(serve.clone()));
                    if poll_immediate(&mut handler).await.is_none() {
                        handlers.push(handler);
                    }
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tarpc::ChannelError;

    use super::*;

    /// The wire form of `ClientMessage<u8>::Request` with the deadline given in seconds from now.
    fn request_due_in(secs: u64) -> BytesMut {
        let trace = ([0_u8; 16], 0_u64, 1_u8);
        let context = ((secs, 0_u32), trace);
        let message = postcard::to_stdvec(&(0_u8, context, 1_u64, 7_u8)).unwrap();
        BytesMut::from(&message[..])
    }

    fn decode_request(bytes: &BytesMut) -> io::Result<ClientMessage<u8>> {
        Pin::new(&mut Codec).deserialize(bytes)
    }

    #[test]
    fn hostile_deadline_is_cut_or_refused_without_a_panic() {
        for secs in [0, 1, 10_u64.pow(10), u64::MAX / 2, u64::MAX] {
            match decode_request(&request_due_in(secs)) {
                Ok(ClientMessage::Request(request)) => {
                    assert!(request.context.deadline <= Instant::now() + MAX_DEADLINE);
                    assert_eq!((request.id, request.message), (1, 7));
                }
                Ok(other) => panic!("not a request: {other:?}"),
                Err(error) => assert!(secs > u64::MAX / 4, "{secs}: {error}"),
            }
        }
    }

    #[test]
    fn every_cut_and_every_extension_of_a_message_is_refused() {
        let whole = request_due_in(10);
        for length in 0..whole.len() {
            assert!(decode_request(&BytesMut::from(&whole[..length])).is_err(), "cut at {length}");
        }
        let mut longer = whole.clone();
        longer.extend_from_slice(&[0]);
        assert!(decode_request(&longer).unwrap_err().to_string().contains("1 bytes too many"));
    }

    #[test]
    fn a_closed_connection_is_told_from_a_bad_frame() {
        let nested = |kind: io::ErrorKind| io::Error::other(io::Error::from(kind));
        let by_tarpc =
            |kind: io::ErrorKind| io::Error::other(ChannelError::Read(Arc::new(nested(kind))));
        assert!(closed_by_other_end(&Ok(())));
        for (kind, closes) in [
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::BrokenPipe, true),
            (io::ErrorKind::InvalidData, false),
        ] {
            assert_eq!(closed_by_other_end(&Err(nested(kind))), closes, "{kind}");
            assert_eq!(closed_by_other_end(&Err(by_tarpc(kind))), closes, "{kind}");
        }
    }

    #[test]
    fn huge_element_count_does_not_allocate() {
        let claims_2_pow_60_elements =
            BytesMut::from(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10][..]);
        assert!(decode::<Vec<u64>>(&claims_2_pow_60_elements).is_err());
    }
}
