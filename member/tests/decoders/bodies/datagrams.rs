//! Datagrams, plain and sealed, taken by a member that knows others and has a probe under way.

use std::net::SocketAddr;

use member::codec::{Codec, MAX_DATAGRAM_BYTES};
use member::key::{Key, KeyRing, NONCE_BYTES};
use member::swim::message::{BodyWriter, Envelope, Message, Update, decode_body};
use member::swim::{Incarnation, MemberId, Profile, Settings, Standing, Start, State, Swim, Tags};

const CLUSTER: u128 = 7;
const ME: MemberId = MemberId(1);
/// Bytes before a datagram: how long the member waits before it comes, and how long it is.
const BEFORE_BYTES: usize = 4;

fn keys(count: u8) -> KeyRing {
    KeyRing::new((0..count).map(|byte| Key::new(&[byte; 32])))
}

fn address(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 6000 + u16::try_from(id % 1000).unwrap()))
}

fn profile(id: u64) -> Profile {
    let tags = Tags {
        cluster: Some(CLUSTER),
        node: Some(id),
        raft_address: format!("n{id}:6004"),
        role: "voter".to_owned(),
        ..Tags::default()
    };
    Profile { name: format!("n{id}"), address: address(id), tags }
}

fn swim(keys: KeyRing) -> Swim {
    Swim::new(Start {
        id: ME,
        incarnation: Incarnation(5),
        profile: profile(1),
        keys,
        settings: Settings::default(),
        seed: [3; 32],
        now_ms: 0,
    })
}

fn update(id: u64, state: State, incarnation: u64) -> Update {
    let accuser = (state == State::Suspect).then_some(MemberId(9));
    let profile = Some((Incarnation(incarnation), profile(id)));
    let standing = Standing::new(state, Incarnation(incarnation));
    Update { id: MemberId(id), standing, accuser, profile }
}

fn body(from: u64, message: Message, updates: &[Update]) -> Vec<u8> {
    let envelope = Envelope { from: MemberId(from), to: Some(ME), message };
    let mut body = BodyWriter::new(envelope, MAX_DATAGRAM_BYTES);
    for update in updates {
        assert!(body.push(update));
    }
    body.finish()
}

/// A member in a group of three.
fn in_a_group(keys: KeyRing) -> (Swim, Codec) {
    let codec = Codec::new(Some(CLUSTER), keys.clone());
    let mut swim = swim(keys);
    let news = [update(2, State::Alive, 3), update(3, State::Alive, 3)];
    let welcome = codec.wrap(&body(2, Message::Welcome, &news), &[1; NONCE_BYTES]);
    swim.handle(1, address(2), &welcome);
    assert_eq!(swim.view().len(), 3);
    (swim, codec)
}

/// Pieces behind a pause and a length.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (before, rest) = bytes.split_first_chunk::<BEFORE_BYTES>()?;
        let [p0, p1, l0, l1] = *before;
        let length = usize::from(u16::from_le_bytes([l0, l1])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some((u64::from(u16::from_le_bytes([p0, p1])), piece))
    })
}

fn with_before(pause_ms: u16, piece: &[u8]) -> Vec<u8> {
    let length = u16::try_from(piece.len()).unwrap().to_le_bytes();
    [&pause_ms.to_le_bytes()[..], &length, piece].concat()
}

/// What arrives, arrives from a member or from elsewhere; whatever it makes the member say is a datagram that others read.
fn take(mut swim: Swim, codec: &Codec, bytes: &[u8], wrap: impl Fn(&[u8]) -> Vec<u8>) -> bool {
    let (mut now_ms, mut understood) = (1, false);
    for (pause_ms, piece) in pieces(bytes) {
        now_ms += pause_ms;
        let datagram = wrap(piece);
        understood |= codec.unwrap(&datagram).is_ok_and(|body| decode_body(&body).is_ok());
        let outputs = [swim.tick(now_ms), swim.handle(now_ms, address(pause_ms % 4), &datagram)];
        for sent in outputs.iter().flat_map(|output| &output.send) {
            assert!(sent.bytes.len() <= MAX_DATAGRAM_BYTES);
            decode_body(&codec.unwrap(&sent.bytes).unwrap()).unwrap();
        }
        let own = swim.own_standing();
        assert!(own.incarnation <= Incarnation::MAX);
        assert!(own.state == State::Alive, "others decide nothing about us");
    }
    understood
}

/// Datagrams as they are, to a member without keys.
pub(crate) fn plain(bytes: &[u8]) -> bool {
    let (swim, codec) = in_a_group(KeyRing::default());
    take(swim, &codec, bytes, <[u8]>::to_vec)
}

/// Datagrams as they are, to a member with two keys.
pub(crate) fn sealed(bytes: &[u8]) -> bool {
    let (swim, codec) = in_a_group(keys(2));
    take(swim, &codec, bytes, <[u8]>::to_vec)
}

/// Bodies that are wrapped as they should be.
pub(crate) fn bodies(bytes: &[u8]) -> bool {
    for (_, body) in pieces(bytes) {
        let Ok((envelope, updates)) = decode_body(body) else { continue };
        let mut again = BodyWriter::new(envelope, usize::MAX);
        for update in &updates {
            assert!(again.push(update));
        }
        assert_eq!(decode_body(&again.finish()).unwrap(), (envelope, updates));
    }
    let (swim, codec) = in_a_group(KeyRing::default());
    take(swim, &codec, bytes, |body| codec.wrap(body, &[0; NONCE_BYTES]))
}

fn messages() -> Vec<Vec<u8>> {
    let alive = update(4, State::Alive, 9);
    let all = [
        update(2, State::Suspect, 3),
        update(3, State::Dead, 3),
        update(1, State::Suspect, 5),
        update(5, State::Left, 2),
    ];
    vec![
        body(2, Message::Ping { seq: 7 }, &[]),
        body(2, Message::Ack { seq: 1 }, std::slice::from_ref(&alive)),
        body(3, Message::PingReq { seq: 4, target: MemberId(2) }, &all),
        body(3, Message::Nack { seq: 1 }, &[]),
        body(4, Message::Join, std::slice::from_ref(&alive)),
        body(4, Message::Welcome, &[alive]),
        body(2, Message::Gossip, &all),
        body(2, Message::SyncRequest { digest: 5 }, &[]),
        body(2, Message::Sync { reply: true }, &all),
    ]
}

/// Each alone, and all of them with time in between.
fn conversations(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let alone = pieces.iter().map(|piece| with_before(1, piece));
    let all =
        (0..).zip(pieces).flat_map(|(place, piece)| with_before(place * 400, piece)).collect();
    alone.chain([all]).collect()
}

fn wrapped(keys: KeyRing) -> Vec<Vec<u8>> {
    let codec = Codec::new(Some(CLUSTER), keys);
    messages().iter().map(|body| codec.wrap(body, &[2; NONCE_BYTES])).collect()
}

pub(crate) fn body_seeds() -> Vec<Vec<u8>> {
    conversations(&messages())
}

pub(crate) fn plain_seeds() -> Vec<Vec<u8>> {
    conversations(&wrapped(KeyRing::default()))
}

pub(crate) fn sealed_seeds() -> Vec<Vec<u8>> {
    conversations(&wrapped(keys(2)))
}
