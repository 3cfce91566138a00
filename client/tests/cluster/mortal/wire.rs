//! A wire between a client's process and the cluster. It can be told at which moment of a request the process is to die, and
//! says so when that has come; whatever it carries goes no further then.

use std::io;
use std::sync::{Arc, Mutex};

use raft::rpc::wire::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// Length of a hello, in either direction.
const HELLO_BYTES: usize = 52;

/// When a client's process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// It has sent its command, and the cluster has not seen a byte of it.
    Unsent,
    /// The command has just gone to the cluster.
    Sent,
    /// The cluster has answered, and the client does not know.
    Answered,
}

/// The plan for the process that comes next.
struct Doom {
    moment: Moment,
    /// Requests that pass before the one that counts.
    after: usize,
    /// Connections that were made since: what an earlier one carried may be anything.
    connections: usize,
    reached: oneshot::Sender<Certainty>,
}

/// Whether what is known of the command rests on this wire alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// It was sent in no other way.
    Sure,
    /// An attempt before this one may have arrived.
    Doubtful,
}

/// A wire. Its connections go to each node in turn, and end with it.
pub(super) struct Wire {
    address: String,
    doom: Arc<Mutex<Option<Doom>>>,
    task: AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub(super) async fn to(nodes: Vec<Endpoint>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let doom = Arc::default();
        let task = tokio::spawn(carry_all(listener, nodes, Arc::clone(&doom))).abort_handle();
        Self { address, doom, task }
    }

    /// `host:port` of the client's end.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The next process dies at this moment of its request, the first one after so many.
    pub(super) fn doom(&self, moment: Moment, after: usize) -> oneshot::Receiver<Certainty> {
        let (reached, told) = oneshot::channel();
        let doom = Doom { moment, after, connections: 0, reached };
        *self.doom.lock().expect("no panic inside") = Some(doom);
        told
    }

    /// The next process lives.
    pub(super) fn spare(&self) {
        *self.doom.lock().expect("no panic inside") = None;
    }
}

async fn carry_all(listener: TcpListener, nodes: Vec<Endpoint>, doom: Arc<Mutex<Option<Doom>>>) {
    let mut connections = JoinSet::new();
    for node in nodes.iter().cycle() {
        let (client, _) = listener.accept().await.expect("the listener lives");
        let address = node.to_string();
        let doom = Arc::clone(&doom);
        connections.spawn(async move {
            // It breaks with either end: the client finds another way.
            let _broken = carry(client, &address, &doom).await;
        });
    }
}

async fn carry(
    mut client: TcpStream,
    node: &str,
    doom: &Mutex<Option<Doom>>,
) -> Result<(), io::Error> {
    let plan = doom.lock().expect("no panic inside").as_mut().map(|doom| {
        doom.connections += 1;
        (doom.moment, doom.after)
    });
    let mut node = TcpStream::connect(node).await?;
    let Some((moment, after)) = plan else {
        return copy_bidirectional(&mut client, &mut node).await.map(drop);
    };
    let mut hello = [0; HELLO_BYTES];
    client.read_exact(&mut hello).await?;
    node.write_all(&hello).await?;
    node.read_exact(&mut hello).await?;
    client.write_all(&hello).await?;
    for _ in 0..after {
        let request = frame(&mut client).await?;
        node.write_all(&request).await?;
        let answer = frame(&mut node).await?;
        client.write_all(&answer).await?;
    }
    let request = frame(&mut client).await?;
    if moment != Moment::Unsent {
        node.write_all(&request).await?;
    }
    if moment == Moment::Answered {
        frame(&mut node).await?;
    }
    if let Some(Doom { connections, reached, .. }) = doom.lock().expect("no panic inside").take() {
        let is_only = after == 0 || connections == 1;
        // Its client may have been killed for another reason.
        let _unheard = reached.send(if is_only { Certainty::Sure } else { Certainty::Doubtful });
    }
    // Nothing more passes, and the node's end stays open until the process is dead.
    client.read_to_end(&mut Vec::new()).await.map(drop)
}

/// One frame of the contract, its length included.
async fn frame(from: &mut TcpStream) -> Result<Vec<u8>, io::Error> {
    let length = from.read_u32().await?;
    let mut frame = length.to_be_bytes().to_vec();
    let mut body = vec![0; usize::try_from(length).expect("32 bits fit")];
    from.read_exact(&mut body).await?;
    frame.extend(body);
    Ok(frame)
}
