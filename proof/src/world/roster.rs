//! Raft and member of one machine: raft registers itself there, and reads the view.

use std::sync::Arc;

use member::rpc::View;
use member::swim::{Output, Tags};
use raft::pipeline::digest_entries::EntriesEvent;
use raft::roster_link::{ROLE, ROLE_DETACHED, candidates};
use rand::RngExt;

use super::World;
use super::agenda::MS;
use super::event::{Event, Part};

/// What others know a machine's raft by.
pub fn raft_address(slot: usize) -> String {
    format!("10.0.0.{}:6004", slot + 1)
}

impl World {
    /// Raft tells gossip its news, and hears what gossip knows.
    pub fn look_at_roster(&mut self, slot: usize) {
        let (process, now) = (self.raft_of(slot), self.now);
        let pause = self.rng.random_range(100 * MS..400 * MS);
        self.at(pause, Event::Roster(process));
        let here = &mut self.slots[slot];
        let member_start = here.starts[Part::Member as usize];
        if here.paused(Part::Member, now).is_some() || here.member.is_none() {
            return;
        }
        let Some(raft) = &mut here.raft else { return };
        let attached = raft.commits.status().is_attached();
        let news = (member_start, here.cluster, attached);
        if raft.told != Some(news) {
            let tags = Tags {
                cluster: here.cluster,
                node: Some(here.node.0),
                raft_address: raft_address(slot),
                http_address: String::new(),
                role: if attached { ROLE } else { ROLE_DETACHED }.to_owned(),
                version: String::new(),
            };
            if raft.told.is_none_or(|(start, ..)| start != member_start) {
                raft.seen = 0;
            }
            raft.told = Some(news);
            self.call_member(slot, |swim, _| {
                swim.set_tags(tags);
                swim.come_back();
                Output::default()
            });
        }
        let here = &mut self.slots[slot];
        let (Some(raft), Some(member)) = (&mut here.raft, &here.member) else { return };
        if raft.seen != member.swim.view_version() {
            raft.seen = member.swim.view_version();
            let known = candidates(&View::of(&member.swim), here.cluster);
            self.hear(slot, EntriesEvent::Candidates(Arc::new(known)));
        }
    }
}
