//! The commands of the scripts.

use std::error::Error;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use raft::consensus::{
    Config, Envelope, Index, Input, Membership, MembershipChange, NodeId, Proposal, ProposalId,
    ReadId, RoleName,
};

use crate::cluster::Cluster;
use crate::support::node::Node;
use crate::support::print;
use crate::support::{membership, quick_config};

type Done = Result<(), Box<dyn Error>>;

impl Runner for Cluster {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "cluster" => self.cluster(&mut args)?,
            "elect" => self.elect(node(&mut args)?)?,
            "campaign" => self.step(node(&mut args)?, Input::Campaign),
            "tick" => self.tick(&mut args)?,
            "timeout" => self.timeout(node(&mut args)?)?,
            "deliver" => self.deliver_some(&mut args)?,
            "lose" => self.lose(&mut args)?,
            "repeat" => self.repeat(&mut args)?,
            "stabilize" => self.stabilize(),
            "cut" => self.cut(&mut args)?,
            "isolate" => self.isolate(node(&mut args)?),
            "heal" => self.cut.clear(),
            "crash" => self.crash(&mut args)?,
            "start" => self.start(node(&mut args)?)?,
            "disk" => self.disk(&mut args)?,
            "propose" => self.propose(&mut args)?,
            "read" => self.read(node(&mut args)?),
            "change" => self.change(&mut args)?,
            "transfer" => self.transfer(&mut args)?,
            "linklost" => self.link_lost(&mut args)?,
            "unreachable" => self.unreachable(&mut args)?,
            "transfer-failed" => self.transfer_failed(&mut args)?,
            "snapshot" => self.snapshot(&mut args)?,
            "received" => self.received(node(&mut args)?)?,
            "status" => self.status(),
            "log" => self.log(node(&mut args)?)?,
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        let mut text = std::mem::take(&mut self.lines).join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        Ok(text)
    }
}

impl Cluster {
    /// `cluster voters="1,2,3" [learners=4] [empty=5] [setting=value]…`: nodes that begin with this configuration, and some
    /// with nothing.
    fn cluster(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let first = wanted(args)?;
        let empty = ids(args.take_key("empty").unwrap_or_default())?;
        let mut settings = quick_config(NodeId(0), 7);
        while let Some((key, value)) = args.next_key() {
            set(&mut settings, key, value.parse()?)?;
        }
        let members: Vec<NodeId> = first.members().into_iter().collect();
        for id in members.iter().copied().chain(empty.iter().map(|&id| NodeId(id))) {
            self.nodes.insert(id, Node::new(Config { id, ..settings.clone() }));
        }
        for id in members {
            self.step(id, Input::Bootstrap(first.clone()));
        }
        Ok(())
    }

    /// `elect 1`: it campaigns, and all that follows is delivered.
    fn elect(&mut self, id: NodeId) -> Done {
        self.step(id, Input::Campaign);
        self.stabilize();
        let status = self.nodes[&id].raft().status();
        if status.role != RoleName::Leader {
            return Err(format!("{} was not elected: {status:?}", print::node(id)).into());
        }
        self.lines = vec![format!("{} leads term {}", print::node(id), status.term)];
        Ok(())
    }

    /// `tick [1] [times=3]`: time passes, for one node or for all.
    fn tick(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let times: u32 = args.take_key("times").unwrap_or("1").parse()?;
        let ids: Vec<NodeId> = match args.next_pos() {
            Some(id) => vec![NodeId(id.parse()?)],
            None => self.nodes.keys().copied().collect(),
        };
        for _ in 0..times {
            for &id in &ids {
                self.step(id, Input::Tick);
            }
        }
        Ok(())
    }

    /// `timeout 1`: time passes for one node until its role changes.
    fn timeout(&mut self, id: NodeId) -> Done {
        let before = self.nodes[&id].raft().status().role;
        for _ in 0..20 {
            self.step(id, Input::Tick);
            if self.nodes[&id].raft().status().role != before {
                return Ok(());
            }
        }
        Err("nothing happened in 20 ticks".into())
    }

    /// `deliver [from=1] [to=2]`: one round of what is under way.
    fn deliver_some(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let matches = selection(args)?;
        self.deliver(matches);
        Ok(())
    }

    /// `lose [from=1] [to=2]`: what is under way never arrives.
    fn lose(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let matches = selection(args)?;
        self.under_way.retain(|envelope| !matches(envelope));
        Ok(())
    }

    /// `repeat [from=1] [to=2]`: what is under way arrives once now, and again later.
    fn repeat(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let matches = selection(args)?;
        let copies: Vec<Envelope> =
            self.under_way.iter().filter(|envelope| matches(envelope)).cloned().collect();
        self.deliver(matches);
        self.under_way.extend(copies);
        Ok(())
    }

    /// `cut 1 2 [oneway=true]`: nothing passes from 1 to 2, nor back unless told so.
    fn cut(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let (from, to) = (node(args)?, node(args)?);
        self.cut.insert((from, to));
        if args.take_key("oneway").is_none() {
            self.cut.insert((to, from));
        }
        Ok(())
    }

    fn isolate(&mut self, id: NodeId) {
        for &other in self.nodes.keys().filter(|&&other| other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// `crash 1 [keep=2]`: of what was not synced, this many batches have reached the disk.
    fn crash(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let id = node(args)?;
        let keep = args.take_key("keep").unwrap_or("0").parse()?;
        self.known(id)?.crash(keep);
        self.under_way.retain(|envelope| envelope.to != id);
        Ok(())
    }

    fn start(&mut self, id: NodeId) -> Done {
        self.known(id)?.start();
        let raft = self.nodes[&id].raft();
        let hard_state = raft.hard_state();
        let vote = hard_state.vote.map_or("nobody".to_owned(), print::node);
        let line = format!(
            "{} starts in term {}, voted for {vote}, last {}, commit {}",
            print::node(id),
            hard_state.term,
            raft.last(),
            raft.commit_index()
        );
        self.lines.push(line);
        Ok(())
    }

    /// `disk 1 wait`: its disk answers only to `disk 1 sync [batches=1]`, until `disk 1 go`.
    fn disk(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let id = node(args)?;
        match args.next_pos() {
            Some("wait") => drop(self.manual_sync.insert(id)),
            Some("sync") => {
                let batches = args.take_key("batches").map_or(Ok(usize::MAX), str::parse)?;
                self.sync(id, batches);
            }
            Some("go") => {
                self.manual_sync.remove(&id);
                self.sync(id, usize::MAX);
            }
            other => return Err(format!("a disk can wait, sync or go, not {other:?}").into()),
        }
        Ok(())
    }

    /// `propose 1 a b c`: one batch of commands.
    fn propose(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let id = node(args)?;
        let mut proposals = Vec::new();
        while let Some(command) = args.next_pos() {
            self.serial += 1;
            let command = Bytes::from(command.to_owned());
            proposals.push(Proposal { id: ProposalId(self.serial), command });
        }
        self.step(id, Input::Propose(proposals));
        Ok(())
    }

    fn read(&mut self, id: NodeId) {
        self.serial += 1;
        let read = ReadId(self.serial);
        self.step(id, Input::Read(read));
    }

    /// `change 1 voters=1,2 [learners=3] [based_on=1]`.
    fn change(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let id = node(args)?;
        let target = wanted(args)?;
        let in_force = self.nodes[&id].raft().status().membership_index;
        let based_on =
            args.take_key("based_on").map_or(Ok(in_force), |index| index.parse().map(Index))?;
        self.serial += 1;
        let change = MembershipChange { id: ProposalId(self.serial), based_on, target };
        self.step(id, Input::ChangeMembership(change));
        Ok(())
    }

    fn transfer(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let (id, target) = (node(args)?, node(args)?);
        self.step(id, Input::Transfer(target));
        Ok(())
    }

    fn link_lost(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let (id, leader) = (node(args)?, node(args)?);
        self.step(id, Input::LinkLost(leader));
        Ok(())
    }

    fn unreachable(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let (id, peer) = (node(args)?, node(args)?);
        self.step(id, Input::PeerUnreachable(peer));
        Ok(())
    }

    fn transfer_failed(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let (id, peer) = (node(args)?, node(args)?);
        self.step(id, Input::SnapshotFailed(peer));
        Ok(())
    }

    /// `snapshot 1 [compact_to=3]`: it takes one of everything that is ready, and drops everything up to there, or all that the
    /// snapshot includes.
    fn snapshot(&mut self, args: &mut ArgumentConsumer<'_>) -> Done {
        let id = node(args)?;
        let meta =
            self.known(id)?.take_snapshot().ok_or("there is nothing to take a snapshot of")?;
        let compact_to = match args.take_key("compact_to") {
            Some(index) => Index(index.parse()?),
            None => meta.last.index,
        };
        self.step(id, Input::SnapshotTaken { meta, compact_to });
        Ok(())
    }

    /// `received 1`: the snapshot that it was offered last is complete and durable.
    fn received(&mut self, id: NodeId) -> Done {
        let meta = self.offered.get(&id).cloned().ok_or("no snapshot was offered")?;
        self.known(id)?.disk.store_snapshot(meta.clone());
        self.step(id, Input::SnapshotReceived(meta));
        Ok(())
    }

    fn status(&mut self) {
        for (id, node) in &self.nodes {
            let Some(raft) = node.up() else {
                self.lines.push(format!("{} is down", print::node(*id)));
                continue;
            };
            let status = raft.status();
            let line = format!(
                "{} {} term {} leader {} commit {} last {} configuration at {}: {}",
                print::node(*id),
                print::role(status.role),
                status.term,
                status.leader.map_or("-".to_owned(), print::node),
                status.commit_index,
                status.last,
                status.membership_index,
                print::membership(&status.membership)
            );
            self.lines.push(line);
        }
    }

    fn log(&mut self, id: NodeId) -> Done {
        let entries = self.known(id)?.disk.read(Index(1), Index(u64::MAX));
        self.lines.extend(entries.iter().map(print::entry));
        Ok(())
    }

    fn known(&mut self, id: NodeId) -> Result<&mut Node, Box<dyn Error>> {
        self.nodes
            .get_mut(&id)
            .ok_or_else(|| format!("{} is not in the cluster", print::node(id)).into())
    }
}

fn node(args: &mut ArgumentConsumer<'_>) -> Result<NodeId, Box<dyn Error>> {
    Ok(NodeId(args.next_pos().ok_or("which node?")?.parse()?))
}

fn ids(text: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    text.split(',').filter(|id| !id.is_empty()).map(|id| Ok(id.parse()?)).collect()
}

fn wanted(args: &mut ArgumentConsumer<'_>) -> Result<Membership, Box<dyn Error>> {
    let voters = ids(args.take_key("voters").unwrap_or_default())?;
    let learners = ids(args.take_key("learners").unwrap_or_default())?;
    Ok(membership(&voters, &learners))
}

fn selection(
    args: &mut ArgumentConsumer<'_>,
) -> Result<impl Fn(&Envelope) -> bool + use<>, Box<dyn Error>> {
    let from: Option<u64> = args.take_key("from").map(str::parse).transpose()?;
    let to: Option<u64> = args.take_key("to").map(str::parse).transpose()?;
    Ok(move |envelope: &Envelope| {
        from.is_none_or(|id| envelope.from == NodeId(id))
            && to.is_none_or(|id| envelope.to == NodeId(id))
    })
}

fn set(config: &mut Config, key: &str, value: usize) -> Done {
    match key {
        "max_append_bytes" => config.max_append_bytes = value,
        "window_messages" => config.window_messages = value,
        "log_cache_bytes" => config.log_cache_bytes = value,
        "max_uncommitted_bytes" => config.max_uncommitted_bytes = value,
        other => return Err(format!("unknown setting {other}").into()),
    }
    Ok(())
}
