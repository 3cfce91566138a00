//! News that is still to be passed on (SWIM §4.1).

use std::collections::BTreeMap;

use super::member::MemberId;
use super::message::{BodyWriter, Update};

/// At most one piece of news per member, the newest, each with the number of times it was sent.
///
/// What was sent least goes first, so fresh news overtakes old news; after its budget a piece is dropped, and whoever
/// missed it all the same learns it by anti-entropy.
#[derive(Clone, Debug, Default)]
pub struct Dissemination {
    pending: BTreeMap<MemberId, Item>,
}

#[derive(Clone, Debug)]
struct Item {
    /// As bytes: a piece is sent many times.
    update: Vec<u8>,
    sent: u32,
}

impl Dissemination {
    /// Spreads news, in place of older news of the same member.
    pub fn push(&mut self, update: &Update) {
        self.pending.insert(update.id, Item { update: update.encode(), sent: 0 });
    }

    /// Spreads no news of this member any more.
    pub fn forget(&mut self, id: MemberId) {
        self.pending.remove(&id);
    }

    /// Whether there is anything to pass on.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether there is still news of this member to pass on.
    pub fn contains(&self, id: MemberId) -> bool {
        self.pending.contains_key(&id)
    }

    /// Fills a body with what was sent least, and drops what has now been sent `budget` times.
    pub fn fill(&mut self, body: &mut BodyWriter, budget: u32) {
        let mut order: Vec<(u32, MemberId)> =
            self.pending.iter().map(|(id, item)| (item.sent, *id)).collect();
        order.sort_unstable();
        for (_, id) in order {
            let Some(item) = self.pending.get_mut(&id) else { continue };
            if !body.push_encoded(&item.update) {
                continue;
            }
            item.sent += 1;
            if item.sent >= budget {
                self.pending.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::{Incarnation, Standing, State};
    use super::super::message::{Envelope, Message, decode_body};
    use super::*;

    fn dead(id: u64) -> Update {
        let standing = Standing::new(State::Dead, Incarnation(1));
        Update { id: MemberId(id), standing, accuser: None, profile: None }
    }

    /// Ids in one body that has room for `count` such updates.
    fn send(news: &mut Dissemination, count: usize, budget: u32) -> Vec<u64> {
        let envelope = Envelope { from: MemberId(9), to: None, message: Message::Gossip };
        let empty = BodyWriter::new(envelope, 1_000).finish().len();
        let mut one = BodyWriter::new(envelope, 1_000);
        one.push(&dead(1));
        let each = one.finish().len() - empty;
        let mut body = BodyWriter::new(envelope, empty + count * each);
        news.fill(&mut body, budget);
        let (_, updates) = decode_body(&body.finish()).unwrap();
        updates.iter().map(|update| update.id.0).collect()
    }

    #[test]
    fn what_was_sent_least_goes_first_until_the_budget_is_spent() {
        let mut news = Dissemination::default();
        for id in [1, 2, 3] {
            news.push(&dead(id));
        }
        assert_eq!(send(&mut news, 2, 2), [1, 2]);
        assert_eq!(send(&mut news, 2, 2), [3, 1]);
        assert_eq!(send(&mut news, 2, 2), [2, 3]);
        assert!(news.is_empty());
    }

    #[test]
    fn newer_news_starts_with_a_fresh_budget() {
        let mut news = Dissemination::default();
        news.push(&dead(1));
        assert_eq!(send(&mut news, 1, 2), [1]);
        news.push(&dead(1));
        assert_eq!(send(&mut news, 1, 2), [1]);
        assert!(news.contains(MemberId(1)));
        assert_eq!(send(&mut news, 1, 2), [1]);
        assert!(!news.contains(MemberId(1)));
    }
}
