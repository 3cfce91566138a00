//! What is known of one member, and which of two pieces of news about it wins.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest address in the tags, in bytes: a full DNS name, a colon and a port.
pub const MAX_ADDRESS_BYTES: usize = 259;
/// Longest role or version in the tags, in bytes.
pub const MAX_WORD_BYTES: usize = 64;

/// Identity of one data directory: random, never zero. It is not an address: a member may come back on another one.
/// Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Orders the news about one member (SWIM §4.2). Only the member itself makes new ones: at a restart, to refute, with
/// new tags. Accusations repeat the one they accuse.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Highest that is believed. No honest member reaches it in a lifetime; a forged accusation stays below it (see
    /// [`Incarnation::may_accuse`]), so that it can always be refuted.
    pub const MAX: Self = Self(1 << 48);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1).min(Self::MAX.0))
    }

    /// Whether an accusation of this incarnation leaves room to refute it.
    pub fn may_accuse(self) -> bool {
        self < Self::MAX
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is believed about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Answers, or has not failed to yet.
    Alive,
    /// Failed to answer; has time to refute.
    Suspect,
    /// Did not refute in time.
    Dead,
    /// Said that it leaves.
    Left,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        })
    }
}

/// A state with the incarnation that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Of the member.
    pub state: State,
    /// That the state is about.
    pub incarnation: Incarnation,
}

impl Standing {
    /// A state at an incarnation.
    pub fn new(state: State, incarnation: Incarnation) -> Self {
        Self { state, incarnation }
    }

    /// Whether `heard` replaces what is known (SWIM §4.2). A newer incarnation always does and an older one never
    /// does, so stale news cannot resurrect anyone. Within one incarnation things only get worse, except that a
    /// member's own word that it left explains its silence better than "dead".
    pub fn is_replaced_by(self, heard: Self) -> bool {
        use State::{Alive, Dead, Left, Suspect};
        let newer = heard.incarnation > self.incarnation;
        let same = heard.incarnation == self.incarnation;
        match (self.state, heard.state) {
            (Alive, Suspect | Dead | Left) | (Suspect, Dead | Left) | (Dead, Left) => newer || same,
            (Alive | Suspect | Dead | Left, Alive)
            | (Suspect | Dead | Left, Suspect)
            | (Dead | Left, Dead)
            | (Left, Left) => newer,
        }
    }
}

/// What raft tells the others through us. Opaque here, but for `cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// The cluster this node belongs to; `None` before it has joined one.
    pub cluster: Option<u128>,
    /// Raft's node id.
    pub node: Option<u64>,
    /// `host:port` of the raft services; empty when there is none. At most [`MAX_ADDRESS_BYTES`].
    pub raft_address: String,
    /// `host:port` of the HTTP API; empty when there is none. At most [`MAX_ADDRESS_BYTES`].
    pub http_address: String,
    /// Display only, such as `voter`. At most [`MAX_WORD_BYTES`].
    pub role: String,
    /// Version of the raft program. At most [`MAX_WORD_BYTES`].
    pub version: String,
}

/// Why tags are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TagsError {
    /// A tag would make the member's news too large for one datagram.
    #[error("tag {field} has {bytes} bytes, more than the limit of {limit}")]
    TooLong {
        /// Which.
        field: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A tag holds control characters, which would spoil logs and terminals.
    #[error("tag {field} holds a control character")]
    Unprintable {
        /// Which.
        field: String,
    },
    /// Zero stands for "none" on the wire.
    #[error("a cluster id or node id must not be zero")]
    ZeroId,
    /// The process is about to end.
    #[error("this member is stopping")]
    Stopping,
}

impl Tags {
    /// Checks what a caller or the network gave.
    ///
    /// # Errors
    /// Names the first tag that is out of bounds.
    pub fn check(&self) -> Result<(), TagsError> {
        if self.cluster == Some(0) || self.node == Some(0) {
            return Err(TagsError::ZeroId);
        }
        check_text("raft_address", &self.raft_address, MAX_ADDRESS_BYTES)?;
        check_text("http_address", &self.http_address, MAX_ADDRESS_BYTES)?;
        check_text("role", &self.role, MAX_WORD_BYTES)?;
        check_text("version", &self.version, MAX_WORD_BYTES)
    }
}

/// Checks one text of a profile or of tags.
///
/// # Errors
/// When it is longer than `limit` bytes or holds a control character.
pub fn check_text(field: &str, text: &str, limit: usize) -> Result<(), TagsError> {
    if text.len() > limit {
        return Err(TagsError::TooLong { field: field.to_owned(), bytes: text.len(), limit });
    }
    if text.chars().any(char::is_control) {
        return Err(TagsError::Unprintable { field: field.to_owned() });
    }
    Ok(())
}

/// What a member says of itself; versioned by the incarnation it was said under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// For people only; not unique. At most [`MAX_NAME_BYTES`].
    pub name: String,
    /// Where it gossips.
    pub address: SocketAddr,
    /// As raft has set them.
    pub tags: Tags,
}

impl Profile {
    /// Whether everything is within its bounds and the address is one to send to.
    pub fn is_valid(&self) -> bool {
        let reachable = self.address.port() != 0
            && !self.address.ip().is_unspecified()
            && !self.address.ip().is_multicast();
        let name_fits = check_text("name", &self.name, MAX_NAME_BYTES).is_ok();
        reachable && name_fits && self.tags.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are what is known, columns what is heard, both in the order alive, suspect, dead, left; a cell says what
    /// incarnation wins: `=` the same one too, `>` only a newer one.
    const PRECEDENCE: [&str; 4] = [">===", ">>==", ">>>=", ">>>>"];

    #[test]
    fn which_update_wins_for_all_pairs() {
        let states = [State::Alive, State::Suspect, State::Dead, State::Left];
        for (known_state, row) in states.into_iter().zip(PRECEDENCE) {
            for (heard_state, cell) in states.into_iter().zip(row.chars()) {
                let known = Standing::new(known_state, Incarnation(5));
                let heard = |incarnation| Standing::new(heard_state, Incarnation(incarnation));
                assert!(!known.is_replaced_by(heard(4)), "{known:?} by an older {heard_state}");
                assert_eq!(
                    known.is_replaced_by(heard(5)),
                    cell == '=',
                    "{known:?} by {heard_state}"
                );
                assert!(known.is_replaced_by(heard(6)), "{known:?} by a newer {heard_state}");
            }
        }
    }

    #[test]
    fn tags_are_bounded() {
        let long = "x".repeat(MAX_ADDRESS_BYTES + 1);
        let cases = [
            (Tags::default(), true),
            (Tags { raft_address: "host:6004".to_owned(), ..Tags::default() }, true),
            (Tags { raft_address: long.clone(), ..Tags::default() }, false),
            (Tags { http_address: long, ..Tags::default() }, false),
            (Tags { role: "x".repeat(MAX_WORD_BYTES + 1), ..Tags::default() }, false),
            (Tags { version: "1\n2".to_owned(), ..Tags::default() }, false),
            (Tags { cluster: Some(0), ..Tags::default() }, false),
            (Tags { node: Some(0), ..Tags::default() }, false),
        ];
        for (tags, fine) in cases {
            assert_eq!(tags.check().is_ok(), fine, "{tags:?}");
        }
    }

    #[test]
    fn any_accusation_that_is_believed_can_be_refuted() {
        let worst = Incarnation(Incarnation::MAX.0 - 1);
        assert!(worst.may_accuse() && !Incarnation::MAX.may_accuse());
        assert!(worst.next() > worst);
        assert_eq!(Incarnation::MAX.next(), Incarnation::MAX);
    }
}
