//! A local network on one machine: a network namespace for each node, joined by a bridge in one more.
//!
//! Owns: the namespaces, the cables between them, and the queues that limit what goes through a cable.
//! Must not know: who runs in a namespace, and why.
//! Invariant: when a [`Lan`] is dropped, its namespaces and all that is in them are gone. Two of them never share a name.
//! Trust: `ip`, `tc`, `cat`, `nsenter` and, for routers, `sh` and `nft` of this machine, run as root.
//! Threads: any. SIGKILL leaves the namespaces `bcai-PID-…`, for `ip netns del`.
//!
//! ```text
//!  namespace of node 0               namespace of the bridge            namespace of node 1
//!  cable 192.0.2.1  ── veth ──  port0 ── bridge ── port1  ── veth ──  cable 192.0.2.2
//!     shaped: up                 shaped: down                             …
//! ```
//!
//! A node can be the router of one more, which has an address that nobody else knows of.

mod rate;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub use rate::{BadRate, Rate};

/// Nodes that have an address in 192.0.2.0/24, which is reserved for examples and leads nowhere.
const MAX_NODES: usize = 250;
/// What a queue holds at most, as the time that the link needs for it: a switch with modest buffers.
const QUEUE: &str = "50ms";

/// What a router does with packets, for `nft`.
const ROUTER: &str = "add table ip router;
    add chain ip router leaving { type nat hook postrouting priority 100; };
    add rule ip router leaving oifname cable masquerade;
    add chain ip router coming { type filter hook input priority 0; };
    add rule ip router coming iifname cable ct state new drop;
    add chain ip router passing { type filter hook forward priority 0; };
    add rule ip router passing iifname cable ct state new drop";

/// Numbers the networks of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network that cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    #[error("a network of {0} nodes: at most {MAX_NODES} have an address")]
    TooMany(usize),
    #[error("cannot run `{command}`: {source}; install iproute2, util-linux and nftables")]
    NotRun { command: String, source: std::io::Error },
    #[error("`{command}` failed: {cause}; network namespaces take root")]
    Failed { command: String, cause: String },
}

/// Nodes are numbered from 0. They go with this value, and their processes lose their network.
pub struct Lan {
    /// The beginning of all names.
    base: String,
    /// Of the bridge, then of each node.
    namespaces: Vec<String>,
    /// Of each node.
    addresses: Vec<String>,
}

impl Lan {
    /// A network of `nodes`, the link of each limited to `rate` in either direction, if that is given.
    pub fn new(nodes: usize, rate: Option<Rate>) -> Result<Lan, LanError> {
        if nodes > MAX_NODES {
            return Err(LanError::TooMany(nodes));
        }
        let base = format!("bcai-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut lan = Lan { base, namespaces: Vec::new(), addresses: Vec::new() };
        lan.add("bridge")?;
        let bridge = lan.bridge().to_owned();
        ip(&format!("-n {bridge} link add bridge type bridge mcast_snooping 0"))?;
        ip(&format!("-n {bridge} link set bridge up"))?;
        for node in 0..nodes {
            lan.add(&node.to_string())?;
            lan.addresses.push(format!("192.0.2.{}", node + 1));
            let (name, address) = (lan.namespace(node), lan.address(node));
            ip(&format!("-n {name} link add cable type veth peer name port{node} netns {bridge}"))?;
            ip(&format!("-n {name} addr add {address}/24 dev cable"))?;
            ip(&format!("-n {bridge} link set port{node} master bridge up"))?;
            ip(&format!("-n {name} link set cable up"))?;
            ip(&format!("-n {name} route add 224.0.0.0/4 dev cable"))?;
            if let Some(rate) = rate {
                shape(name, "cable", rate)?;
                shape(&bridge, &format!("port{node}"), rate)?;
            }
        }
        Ok(lan)
    }

    /// Makes `router` what stands between most homes and the internet, and a new node the machine at home, whose number is
    /// returned. What the new node sends seems to come from the router, from the same port if that is free; what comes from
    /// outside and is no answer is dropped. A router has at most one such node, which has no cable to the bridge.
    pub fn behind(&mut self, router: usize) -> Result<usize, LanError> {
        let node = self.addresses.len();
        self.add(&node.to_string())?;
        self.addresses.push(format!("10.0.{router}.2"));
        let (name, outside, address) = (self.namespace(node), self.namespace(router), self.address(node));
        let gateway = format!("10.0.{router}.1");
        ip(&format!("-n {name} link add cable type veth peer name home netns {outside}"))?;
        ip(&format!("-n {name} addr add {address}/24 dev cable"))?;
        ip(&format!("-n {outside} addr add {gateway}/24 dev home"))?;
        ip(&format!("-n {name} link set cable up"))?;
        ip(&format!("-n {outside} link set home up"))?;
        ip(&format!("-n {name} route add default via {gateway}"))?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run("ip", &["netns", "exec", outside, "sh", "-c", forward])?;
        run("ip", &["netns", "exec", outside, "nft", ROUTER])?;
        Ok(node)
    }

    /// Enters the namespace into the list first, so that it is removed whatever happens.
    fn add(&mut self, name: &str) -> Result<(), LanError> {
        let name = format!("{}-{name}", self.base);
        self.namespaces.push(name.clone());
        ip(&format!("netns add {name}"))?;
        ip(&format!("-n {name} link set lo up"))
    }

    fn bridge(&self) -> &str {
        &self.namespaces[0]
    }

    /// The name of a node's namespace.
    pub fn namespace(&self, node: usize) -> &str {
        &self.namespaces[1 + node]
    }

    /// A node's IPv4 address.
    pub fn address(&self, node: usize) -> &str {
        &self.addresses[node]
    }

    /// The words before a command that make it run at a node. Only the network is another: files and mounts are the same.
    pub fn enter(&self, node: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace(node))]
    }

    /// Pulls a node's cable, or puts it in again.
    pub fn plug(&self, node: usize, plugged: bool) -> Result<(), LanError> {
        let state = if plugged { "up" } else { "down" };
        ip(&format!("-n {} link set port{node} {state}", self.bridge()))
    }

    /// Bytes that a node has sent through its cable so far, headers of Ethernet, IP and TCP included.
    pub fn sent(&self, node: usize) -> Result<u64, LanError> {
        let args = ["netns", "exec", self.namespace(node), "cat", "/sys/class/net/cable/statistics/tx_bytes"];
        let text = run("ip", &args)?;
        let command = || format!("ip {}", args.join(" "));
        let number = text.trim().parse();
        number.map_err(|_| LanError::Failed { command: command(), cause: format!("it printed `{text}`") })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // A group of its own, so that the user's Ctrl-C does not end the cleaning up.
            let mut command = Command::new("ip");
            command.args(["netns", "del", name]).stderr(Stdio::null()).process_group(0);
            // What could not be made cannot be removed either.
            let _ = command.status();
        }
    }
}

fn shape(namespace: &str, device: &str, rate: Rate) -> Result<(), LanError> {
    let burst = rate.burst();
    let args =
        format!("-n {namespace} qdisc add dev {device} root tbf rate {rate} burst {burst} latency {QUEUE}");
    run("tc", &args.split(' ').collect::<Vec<_>>()).map(drop)
}

fn ip(args: &str) -> Result<(), LanError> {
    run("ip", &args.split(' ').collect::<Vec<_>>()).map(drop)
}

/// What a program printed.
fn run(program: &str, args: &[&str]) -> Result<String, LanError> {
    let command = || format!("{program} {}", args.join(" "));
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|source| LanError::NotRun { command: command(), source })?;
    if !output.status.success() {
        let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(LanError::Failed { command: command(), cause });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
