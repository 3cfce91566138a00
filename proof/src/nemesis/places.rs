//! Where the nodes of this machine are: each in a network of its own on one bridge, or all on loopback.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use anyhow::Context as _;
use tokio::process::Command;

use super::network::Network;
use super::node::Place;
use super::tools::{has, run};

/// Of a node; it has six ports.
const PORTS: u16 = 10;
/// Below what any system hands out to whoever asks for just some port.
const FIRST_PORTS: std::ops::Range<u16> = 10_000..30_000;
/// What is made here is made for every run; where one step cannot be done, all nodes are on loopback.
const TRIAL: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm && ip link set lo up && \
                     ip link add name bridge type bridge && ip netns add n && \
                     ip link add vn type veth peer name eth0 netns n && ip link set vn master bridge up && \
                     ip netns exec n true";
const UNSHARE: [&str; 7] =
    ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

/// Why this machine, or this user, cannot have namespaces with networks in them.
pub async fn obstacle_to_networks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if let Some(missing) = ["unshare", "mount", "ip"].into_iter().find(|program| !has(program)) {
        return Some(format!("needs {missing}"));
    }
    let tried = in_namespaces().args(["sh", "-c", TRIAL]).output().await;
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("needs namespaces: {}", said.lines().next().unwrap_or_default()))
        }
        Err(error) => Some(format!("cannot run unshare: {error}")),
    }
}

/// The begin of a command in network, mount and process namespaces of its own, which end with it: nothing can be left behind.
pub fn in_namespaces() -> Command {
    let mut command = Command::new("unshare");
    command.args(UNSHARE).kill_on_drop(true);
    command
}

/// All on loopback, or with an address each.
pub(super) fn places(nodes: usize, root: &Path, own_networks: bool) -> anyhow::Result<Vec<Place>> {
    let first = if own_networks { 0 } else { free_ports(nodes)? };
    let place = |number: usize| {
        let name = format!("n{number}");
        let dir = root.join(&name);
        let number = u16::try_from(number).expect("few nodes");
        let (address, port_base, namespace) = if own_networks {
            (format!("10.77.0.{}", number + 1), 6000, Some(name.clone()))
        } else {
            ("127.0.0.1".to_owned(), first + number * PORTS, None)
        };
        Place { name, dir, address, port_base, namespace, seeds: Vec::new(), clock: None }
    };
    Ok((0..nodes).map(place).collect())
}

/// The first of so many that nobody listens on; by the process, so that two runs at once do not look at the same ones first.
fn free_ports(nodes: usize) -> anyhow::Result<u16> {
    let block = PORTS * u16::try_from(nodes).context("too many nodes")?;
    let blocks = (FIRST_PORTS.end - FIRST_PORTS.start) / block;
    let start = u16::try_from(std::process::id() % u32::from(blocks))?;
    let mut firsts = (0..blocks).map(|n| FIRST_PORTS.start + (start + n) % blocks * block);
    let is_free = |port: u16| {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    firsts
        .find(|first| (*first..first + block).all(is_free))
        .context("no free ports below those that are handed out")
}

/// What the namespaces need before any node's network. The small files of the nodes' clocks are theirs alone.
pub(super) async fn make_bridge() -> anyhow::Result<()> {
    for command in [
        "ip link set lo up",
        "mount -t tmpfs tmpfs /run",
        "mount -t tmpfs tmpfs /dev/shm",
        "ip link add name bridge type bridge",
        "ip addr add 10.77.0.254/24 dev bridge",
        "ip link set bridge up",
    ] {
        run(command).await?;
    }
    Ok(())
}

pub(super) async fn make_network(namespace: &str, address: &str) -> anyhow::Result<Network> {
    for command in [
        format!("ip netns add {namespace}"),
        format!("ip link add v{namespace} type veth peer name eth0 netns {namespace}"),
        format!("ip link set v{namespace} master bridge up"),
        format!("ip -n {namespace} link set lo up"),
        format!("ip -n {namespace} addr add {address}/24 dev eth0"),
        format!("ip -n {namespace} link set eth0 up"),
    ] {
        run(&command).await?;
    }
    Ok(Network { enter: format!("ip netns exec {namespace}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_below_those_that_are_handed_out() {
        let places = places(5, Path::new("/nowhere"), false).unwrap();
        let bases: Vec<_> = places.iter().map(|place| place.port_base).collect();
        assert!(bases.windows(2).all(|pair| pair[0] + PORTS == pair[1]), "{bases:?}");
        assert!(bases[0] >= FIRST_PORTS.start && bases[4] < FIRST_PORTS.end, "{bases:?}");
        // Held now: another run does not take them.
        let held = TcpListener::bind(("127.0.0.1", bases[2] + 4)).unwrap();
        let next = super::places(5, Path::new("/nowhere"), false).unwrap();
        assert_ne!(next[0].port_base, bases[0]);
        drop(held);
    }
}
