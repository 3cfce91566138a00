//! What clients asked and were promised: the outside view, against which the cluster is judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::consensus::{Index, Input, NodeId, Output, Proposal, ProposalId, ReadId};

/// Requests under way.
#[derive(Debug, Default)]
pub struct Clients {
    serial: u64,
    /// Highest index that anybody knew to be committed when the read was asked, and whom it was asked of.
    reads: BTreeMap<ReadId, (NodeId, Index)>,
    pub answered_reads: u64,
    pub refused_reads: u64,
}

impl Clients {
    /// A few commands with content that never repeats.
    pub fn commands(&mut self, count: usize) -> Input {
        let proposals = (0..count).map(|_| {
            self.serial += 1;
            Proposal {
                id: ProposalId(self.serial),
                command: Bytes::from(format!("command {}", self.serial)),
            }
        });
        Input::Propose(proposals.collect())
    }

    /// One command of at least so many bytes, with content that never repeats.
    pub fn command_of(&mut self, bytes: usize) -> Input {
        self.serial += 1;
        let command = format!("{:<bytes$}", format!("command {}", self.serial));
        let id = ProposalId(self.serial);
        Input::Propose(vec![Proposal { id, command: Bytes::from(command) }])
    }

    pub fn proposal_id(&mut self) -> ProposalId {
        self.serial += 1;
        ProposalId(self.serial)
    }

    pub fn read(&mut self, node: NodeId, committed: Index) -> Input {
        self.serial += 1;
        let read = ReadId(self.serial);
        self.reads.insert(read, (node, committed));
        Input::Read(read)
    }

    /// A read sees everything that was committed before it was asked, and is answered once.
    pub fn observe(&mut self, node: NodeId, output: &Output) {
        for (read, index) in &output.reads {
            let (asked, committed) = self.reads.remove(read).expect("a read is answered once");
            assert_eq!(asked, node, "a read is answered where it was asked");
            assert!(
                *index >= committed,
                "a read at {index} misses what was committed up to {committed}"
            );
            self.answered_reads += 1;
        }
        for (read, _) in &output.refused_reads {
            self.reads.remove(read).expect("a read is answered once");
            self.refused_reads += 1;
        }
    }

    /// The process that would have answered is gone.
    pub fn forget(&mut self, node: NodeId) {
        self.reads.retain(|_, (asked, _)| *asked != node);
    }

    pub fn waiting_reads(&self) -> usize {
        self.reads.len()
    }
}
