//! What members say to each other, and how a body of it becomes bytes.
//!
//! A body is one [`Envelope`], followed by as many [`Update`]s as it has bytes for, each as postcard. So any message
//! carries news on its back (SWIM §4.1), and a view of any size is cut into datagrams between two updates.

use serde::{Deserialize, Serialize};

use super::member::{Incarnation, MemberId, Profile, Standing, State};

/// Where a message comes from and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Sender; never zero.
    pub from: MemberId,
    /// Receiver; `None` when the sender knows only an address. Another member that lives at that address now does
    /// not answer in its place.
    pub to: Option<MemberId>,
    /// Content.
    pub message: Message,
}

/// The content, besides the news it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "Are you there?"
    Ping {
        /// Repeated by the answer.
        seq: u64,
    },
    /// "I am", or a relayed "it is".
    Ack {
        /// Of the ping or the ping request.
        seq: u64,
    },
    /// "Please ping this member for me."
    PingReq {
        /// Repeated by the answer.
        seq: u64,
        /// Whom.
        target: MemberId,
    },
    /// "I asked, it has not answered yet": the helper is well, so the requester's network is too (Lifeguard §IV-A).
    Nack {
        /// Of the ping request.
        seq: u64,
    },
    /// "I want to be known." Carries the sender's own news.
    Join,
    /// Answers `Join` with news of the answerer and of as many others as fit.
    Welcome,
    /// News only.
    Gossip,
    /// "Is your view the same as mine? Else show it."
    SyncRequest {
        /// Of the sender's view.
        digest: u64,
    },
    /// A part of the sender's view.
    Sync {
        /// Whether the sender wants the receiver's view too.
        reply: bool,
    },
}

/// News of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// About whom; never zero.
    pub id: MemberId,
    /// Its state.
    pub standing: Standing,
    /// Who accuses, when the state is [`State::Suspect`].
    pub accuser: Option<MemberId>,
    /// What the member says of itself, and the incarnation it said so under, which is never above the standing's.
    /// Always there, and of the same incarnation, when the state is [`State::Alive`].
    pub profile: Option<(Incarnation, Profile)>,
}

/// Why a body is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBody {
    /// Those bytes are no envelope or update.
    #[error("bytes that are no message")]
    Undecodable,
    /// An id is zero.
    #[error("zero id")]
    ZeroId,
    /// An incarnation is impossible.
    #[error("impossible incarnation")]
    Incarnation,
    /// An alive member without its own words, or an accusation without an accuser.
    #[error("incomplete update")]
    Incomplete,
    /// A name, address or tag is out of bounds.
    #[error("profile out of bounds")]
    Profile,
}

/// A body under construction.
#[derive(Debug)]
pub struct BodyWriter {
    bytes: Vec<u8>,
    room_bytes: usize,
}

impl BodyWriter {
    /// Starts with the envelope; the whole may have `room_bytes`, which every envelope fits into.
    pub fn new(envelope: Envelope, room_bytes: usize) -> Self {
        Self { bytes: encode(&envelope), room_bytes }
    }

    /// Adds an update if it fits; tells whether it did.
    pub fn push(&mut self, update: &Update) -> bool {
        self.push_encoded(&update.encode())
    }

    /// The same for one that [`Update::encode`] made.
    pub fn push_encoded(&mut self, encoded: &[u8]) -> bool {
        let fits = self.bytes.len() + encoded.len() <= self.room_bytes;
        if fits {
            self.bytes.extend_from_slice(encoded);
        }
        fits
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn encode<T: Serialize>(item: &T) -> Vec<u8> {
    postcard::to_stdvec(item).expect("plain data of known shape encodes into memory")
}

/// Reads a body. Nothing of a malformed one is used.
///
/// # Errors
/// See [`MalformedBody`].
pub fn decode_body(bytes: &[u8]) -> Result<(Envelope, Vec<Update>), MalformedBody> {
    let (envelope, mut rest): (Envelope, _) = take(bytes)?;
    check_ids([Some(envelope.from), envelope.to])?;
    let mut updates = Vec::new();
    while !rest.is_empty() {
        let (update, after) = take::<Update>(rest)?;
        update.check()?;
        updates.push(update);
        rest = after;
    }
    Ok((envelope, updates))
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), MalformedBody> {
    postcard::take_from_bytes(bytes).map_err(|_detail| MalformedBody::Undecodable)
}

fn check_ids(ids: impl IntoIterator<Item = Option<MemberId>>) -> Result<(), MalformedBody> {
    let any_zero = ids.into_iter().flatten().any(|id| id == MemberId(0));
    if any_zero { Err(MalformedBody::ZeroId) } else { Ok(()) }
}

impl Update {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    fn check(&self) -> Result<(), MalformedBody> {
        let Standing { state, incarnation } = self.standing;
        check_ids([Some(self.id), self.accuser])?;
        self.check_incarnations()?;
        let complete = match state {
            State::Alive => self.profile.as_ref().is_some_and(|(of, _)| *of == incarnation),
            State::Suspect => self.accuser.is_some(),
            State::Dead | State::Left => true,
        };
        if !complete {
            return Err(MalformedBody::Incomplete);
        }
        match &self.profile {
            Some((_, profile)) if !profile.is_valid() => Err(MalformedBody::Profile),
            Some(_) | None => Ok(()),
        }
    }

    fn check_incarnations(&self) -> Result<(), MalformedBody> {
        let Standing { state, incarnation } = self.standing;
        let believable = match state {
            State::Alive => incarnation <= Incarnation::MAX,
            State::Suspect | State::Dead | State::Left => incarnation.may_accuse(),
        };
        let ordered = self.profile.as_ref().is_none_or(|(of, _)| *of <= incarnation);
        if believable && ordered { Ok(()) } else { Err(MalformedBody::Incarnation) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::member::{MAX_ADDRESS_BYTES, MAX_NAME_BYTES, MAX_WORD_BYTES, Tags};
    use super::*;
    use crate::codec::{MAX_DATAGRAM_BYTES, SEALED_OVERHEAD_BYTES};

    fn largest_profile() -> Profile {
        Profile {
            name: "n".repeat(MAX_NAME_BYTES),
            address: "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
            tags: Tags {
                cluster: Some(u128::MAX),
                node: Some(u64::MAX),
                raft_address: "r".repeat(MAX_ADDRESS_BYTES),
                http_address: "h".repeat(MAX_ADDRESS_BYTES),
                role: "o".repeat(MAX_WORD_BYTES),
                version: "v".repeat(MAX_WORD_BYTES),
            },
        }
    }

    fn suspect(profile: Option<(Incarnation, Profile)>) -> Update {
        Update {
            id: MemberId(u64::MAX),
            standing: Standing::new(State::Suspect, Incarnation(Incarnation::MAX.0 - 1)),
            accuser: Some(MemberId(u64::MAX - 1)),
            profile,
        }
    }

    fn envelope(message: Message) -> Envelope {
        Envelope { from: MemberId(u64::MAX), to: Some(MemberId(u64::MAX)), message }
    }

    #[test]
    fn the_largest_news_fits_beside_the_largest_message_in_a_sealed_datagram() {
        let target = MemberId(u64::MAX);
        let room = MAX_DATAGRAM_BYTES - SEALED_OVERHEAD_BYTES;
        let largest = envelope(Message::PingReq { seq: u64::MAX, target });
        let mut body = BodyWriter::new(largest, room);
        assert!(
            body.push(&suspect(Some((Incarnation(Incarnation::MAX.0 - 1), largest_profile()))))
        );
        assert!(body.finish().len() <= room);
    }

    #[test]
    fn a_body_holds_what_was_written_and_no_more_than_fits() {
        let room = 200;
        let mut body = BodyWriter::new(envelope(Message::Gossip), room);
        let pushed =
            std::iter::repeat_with(|| body.push(&suspect(None))).take_while(|fit| *fit).count();
        let bytes = body.finish();
        assert!(bytes.len() <= room && pushed > 2);
        let (read, updates) = decode_body(&bytes).unwrap();
        assert_eq!(read, envelope(Message::Gossip));
        assert_eq!(updates, vec![suspect(None); pushed]);
    }

    fn alive(incarnation: u64, of: u64) -> Update {
        Update {
            id: MemberId(1),
            standing: Standing::new(State::Alive, Incarnation(incarnation)),
            accuser: None,
            profile: Some((Incarnation(of), largest_profile())),
        }
    }

    #[test]
    fn impossible_updates_are_refused_with_their_reason() {
        let dead_at = |incarnation| Update {
            standing: Standing::new(State::Dead, Incarnation(incarnation)),
            accuser: None,
            ..suspect(None)
        };
        let port_zero = Profile { address: "10.0.0.1:0".parse().unwrap(), ..largest_profile() };
        let long_name = Profile { name: "n".repeat(65), ..largest_profile() };
        for (update, expected) in [
            (alive(3, 3), Ok(())),
            (alive(3, 2), Err(MalformedBody::Incomplete)),
            (alive(3, 4), Err(MalformedBody::Incarnation)),
            (Update { profile: None, ..alive(3, 3) }, Err(MalformedBody::Incomplete)),
            (Update { accuser: None, ..suspect(None) }, Err(MalformedBody::Incomplete)),
            (Update { id: MemberId(0), ..alive(3, 3) }, Err(MalformedBody::ZeroId)),
            (Update { accuser: Some(MemberId(0)), ..suspect(None) }, Err(MalformedBody::ZeroId)),
            (alive(Incarnation::MAX.0, Incarnation::MAX.0), Ok(())),
            (alive(Incarnation::MAX.0 + 1, 1), Err(MalformedBody::Incarnation)),
            (dead_at(Incarnation::MAX.0 - 1), Ok(())),
            (dead_at(Incarnation::MAX.0), Err(MalformedBody::Incarnation)),
            (suspect(Some((Incarnation(1), port_zero))), Err(MalformedBody::Profile)),
            (suspect(Some((Incarnation(1), long_name))), Err(MalformedBody::Profile)),
        ] {
            let mut body = BodyWriter::new(envelope(Message::Gossip), MAX_DATAGRAM_BYTES);
            assert!(body.push(&update));
            assert_eq!(decode_body(&body.finish()).map(|_| ()), expected, "{update:?}");
        }
    }

    proptest! {
        #[test]
        fn raw_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1_500)) {
            let _outcome = decode_body(&bytes);
        }

        #[test]
        fn a_mutated_body_is_refused_or_still_within_bounds(at in 0_usize..1_200, value: u8) {
            let mut body = BodyWriter::new(envelope(Message::Gossip), MAX_DATAGRAM_BYTES);
            assert!(body.push(&alive(3, 3)) && body.push(&suspect(None)));
            let mut bytes = body.finish();
            let length = bytes.len();
            bytes[at % length] = value;
            for update in decode_body(&bytes).map(|(_, updates)| updates).unwrap_or_default() {
                prop_assert_eq!(update.check(), Ok(()));
            }
        }
    }
}
