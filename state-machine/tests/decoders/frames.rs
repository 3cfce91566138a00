//! Messages of tarpc in postcard, as a connection has them once its hellos are done.

#![allow(dead_code, reason = "each crate needs a part of it")]

use std::pin::Pin;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::tokio_serde::Deserializer;
use tarpc::{ClientMessage, Response};

use super::Codec;

/// Frames behind their lengths, as on the wire; what is cut off at the end is the last one.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap().min(rest.len());
        let (frame, rest) = rest.split_at(length);
        bytes = rest;
        Some(frame)
    })
}

/// The opposite of [`frames`].
pub(crate) fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
    let framed = |frame: &Vec<u8>| [&length_of(frame)[..], frame].concat();
    frames.iter().flat_map(framed).collect()
}

fn length_of(frame: &[u8]) -> [u8; 4] {
    u32::try_from(frame.len()).unwrap().to_be_bytes()
}

/// What a server makes of a frame.
pub(crate) fn request<T: Serialize + DeserializeOwned>(frame: &[u8]) -> Option<ClientMessage<T>> {
    let bytes = BytesMut::from(frame);
    let message: ClientMessage<T> = Pin::new(&mut Codec).deserialize(&bytes).ok()?;
    if let ClientMessage::Request(request) = &message {
        comes_back(&request.message);
    }
    Some(message)
}

/// What a caller makes of a frame.
pub(crate) fn answer<T: Serialize + DeserializeOwned>(frame: &[u8]) -> Option<(u64, T)> {
    let bytes = BytesMut::from(frame);
    let answer: Response<T> = Pin::new(&mut Codec).deserialize(&bytes).ok()?;
    let message = answer.message.ok()?;
    comes_back(&message);
    Some((answer.request_id, message))
}

/// What was decoded is encoded so that it decodes to the same.
fn comes_back<T: Serialize + DeserializeOwned>(message: &T) {
    let bytes = postcard::to_stdvec(message).unwrap();
    let (again, rest) = postcard::take_from_bytes::<T>(&bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(postcard::to_stdvec(&again).unwrap(), bytes);
}

/// A request's frame with this id, due in ten seconds.
pub(crate) fn request_frame<T: Serialize>(id: u64, message: &T) -> Vec<u8> {
    const REQUEST: u8 = 0;
    let due_in = (10_u64, 0_u32);
    let trace = ([0_u8; 16], 0_u64, 1_u8);
    postcard::to_stdvec(&(REQUEST, (due_in, trace), id, message)).unwrap()
}

/// An answer's frame.
pub(crate) fn answer_frame<T: Serialize>(id: u64, message: &T) -> Vec<u8> {
    let message: Result<&T, ()> = Ok(message);
    postcard::to_stdvec(&(id, message)).unwrap()
}
