//! etcd under load: calls to the leader over shared HTTP/2 connections.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use raft_client::bench::{Data, Kind, Target, Trouble};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::proto::{
    PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse, STATUS, StatusRequest,
    StatusResponse,
};

/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often is looked, at most.
const LOOKS: u32 = 600;

/// Who leads.
#[derive(Clone, Debug)]
pub struct Leader {
    pub endpoint: String,
    pub term: u64,
}

/// Finds the leader.
pub async fn leader(endpoints: &[String], timeout: Duration) -> Result<Leader, Trouble> {
    for _ in 0..LOOKS {
        for endpoint in endpoints {
            if let Some(term) = term_if_leader(endpoint, timeout).await {
                return Ok(Leader { endpoint: endpoint.clone(), term });
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(Trouble::new(Kind::NotLeader, &"no node says that it leads"))
}

async fn term_if_leader(endpoint: &str, timeout: Duration) -> Option<u64> {
    let mut grpc = Grpc::new(connect(endpoint, timeout).await.ok()?);
    let status: StatusResponse = call(&mut grpc, STATUS, StatusRequest {}).await.ok()?;
    let leads = status.header.is_some_and(|header| header.member_id == status.leader);
    leads.then_some(status.raft_term)
}

/// Opens connections to one node.
pub async fn connections(
    leader: &Leader,
    count: usize,
    timeout: Duration,
) -> Result<Vec<Channel>, Trouble> {
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(connect(&leader.endpoint, timeout).await?);
    }
    Ok(channels)
}

async fn connect(endpoint: &str, timeout: Duration) -> Result<Channel, Trouble> {
    let broken = |error: tonic::transport::Error| Trouble::new(Kind::Connection, &error);
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).map_err(broken)?;
    endpoint.timeout(timeout).connect_timeout(timeout).connect().await.map_err(broken)
}

/// One client of many.
pub struct Etcd {
    grpc: Grpc<Channel>,
    data: Arc<Data>,
}

impl Etcd {
    /// Shares a connection with others.
    pub fn new(channel: Channel, data: Arc<Data>) -> Self {
        Self { grpc: Grpc::new(channel), data }
    }
}

impl Target for Etcd {
    async fn put(&mut self, key: usize) -> Result<(), Trouble> {
        let (key, value) = (self.data.keys[key].clone(), self.data.values[key].clone());
        let _done: PutResponse = call(&mut self.grpc, PUT, PutRequest { key, value }).await?;
        Ok(())
    }

    async fn get(&mut self, key: usize) -> Result<(), Trouble> {
        let request = RangeRequest { key: self.data.keys[key].clone() };
        let found: RangeResponse = call(&mut self.grpc, RANGE, request).await?;
        if found.kvs.len() == 1 {
            return Ok(());
        }
        Err(Trouble::new(Kind::WrongAnswer, &"a key that was written is gone"))
    }
}

async fn call<Q, A>(grpc: &mut Grpc<Channel>, path: &'static str, request: Q) -> Result<A, Trouble>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let broken = |error: tonic::transport::Error| Trouble::new(Kind::Connection, &error);
    grpc.ready().await.map_err(broken)?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| trouble(&status))
}

fn trouble(status: &Status) -> Trouble {
    let kind = match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => Kind::Timeout,
        Code::ResourceExhausted => Kind::Busy,
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => Kind::Refused,
        _ => Kind::Unknown,
    };
    Trouble::new(kind, status)
}
