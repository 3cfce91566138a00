//! How a cluster comes to be.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use raft_client::{Client, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::TcpStream;

use crate::harness::cluster::Cluster;
use crate::harness::process::Node;

#[test]
fn one_node_forms_and_answers() {
    let mut cluster = Cluster::new(1);
    cluster.add_node();
    let endpoint = cluster.nodes[0].endpoint();
    let done = Rc::new(Cell::new(false));
    let is_done = Rc::clone(&done);
    cluster.sim.client("client", async move {
        let client = Client::new(Options {
            timeout: Duration::from_secs(30),
            ..Options::new(vec![endpoint.parse()?])
        });
        client.put("key", "value").await?;
        assert_eq!(client.get("key").await?.result.unwrap(), "value");
        done.set(true);
        Ok(())
    });
    cluster.until("an answer", Duration::from_secs(30), |_| is_done.get());
}

/// The HTTP side of each node, over the same simulated network.
#[test]
fn nodes_of_a_whole_cluster_are_ready_by_http() {
    let mut cluster = Cluster::formed(18, 3);
    let endpoints: Vec<String> = cluster.nodes.iter().map(Node::http_endpoint).collect();
    let ready = Rc::new(Cell::new(0));
    let counted = Rc::clone(&ready);
    cluster.sim.client("curl", async move {
        for endpoint in endpoints {
            let mut stream = TcpStream::connect(endpoint).await?;
            let request = "GET /readyz HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            counted.set(counted.get() + 1);
        }
        Ok(())
    });
    cluster.until("all are ready", Duration::from_secs(10), |_| ready.get() == 3);
}
