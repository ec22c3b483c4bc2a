//! `bcai peers`.
//!
//! Owns: its subcommands and how peers and limits are shown.
//! Must not know: how peers are measured, or how bytes are held back.
//! Invariant: what is ordered is in force when the command returns.
//! Trust: as `cli`; addresses of peers are what they say, and are escaped. Threads: the main thread.

use std::str::FromStr;

use clap::{Args, Subcommand};

use super::{Context, output};
use crate::api::route;
use crate::config::Limit;
use crate::node::Error;
use crate::node::report::{AddPeerRequest, LimitRequest, Limits, NewLimit, PeerOf, PeerRequest, PeerStatus};

/// Show whom this node talks to, and say whom it shall talk to and how fast
///
/// A peer has a grade: excellent, good, fair, poor or critical. It is the worst of what its round trip, its rate, the share
/// of its failures and its availability are worth. PEER is its id, or as much of the end (or the beginning) of it as no
/// other peer has.
///
/// WINDOW is how much of what no reader waits for may be on its way from a peer at a time. It follows QUEUEING, the time that
/// this waits on its way: below 40 ms the window grows, above it shrinks, so that a link is full and readers hardly wait
/// behind it.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  bcai peers\n  bcai peers add /ip4/192.0.2.7/tcp/4001\n  bcai peers block f7Qk\n  bcai peers limit --upload 10MiB --download unlimited"
)]
pub struct Peers {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List every known peer, the connected and the best first (what `bcai peers` alone does)
    #[command(
        after_help = "Examples:\n  bcai peers list\n  bcai peers --json | jq '.[] | select(.state == \"connected\")'"
    )]
    List,
    /// Connect to a peer, and from now on whenever it can be
    #[command(after_help = "Example:\n  bcai peers add /ip4/192.0.2.7/tcp/4001")]
    Add {
        /// Such as /ip4/192.0.2.7/tcp/4001, with or without /p2p/PEER
        address: String,
    },
    /// Disconnect a peer, ask it for nothing and refuse its connections, until it is allowed
    #[command(after_help = "Example:\n  bcai peers block f7Qk")]
    Block {
        /// A peer that is known, or the whole id of any
        peer: String,
    },
    /// Lift the block of a peer, or the ban of one that sent wrong bytes
    #[command(after_help = "Example:\n  bcai peers allow f7Qk")]
    Allow {
        /// As `bcai peers` shows it
        peer: String,
    },
    /// Limit the bytes of objects sent and received in a second, or show the limits
    ///
    /// A limit counts at once, also for what is under way, for all peers together, and after a restart, unless
    /// net.upload_limit or net.download_limit is set: then the setting wins at every start. Readers who wait go first; a
    /// limit holds for them as well. It is at least 64KiB.
    #[command(
        after_help = "Examples:\n  bcai peers limit\n  bcai peers limit --upload 10MiB --download unlimited"
    )]
    Limit {
        /// Bytes a second, such as 10MiB, or `unlimited`
        #[arg(long, value_name = "RATE")]
        upload: Option<Rate>,
        /// The same for bytes received
        #[arg(long, value_name = "RATE")]
        download: Option<Rate>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Rate(NewLimit);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(|Limit(rate)| Self(rate.map_or(NewLimit::Unlimited, NewLimit::Rate)))
    }
}

impl Peers {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        match self.what.unwrap_or(What::List) {
            What::List => {
                let peers: Vec<PeerStatus> =
                    ctx.with_daemon(async |client| client.get(route::PEERS).await)?;
                ctx.output.result(&peers, |peers| table(peers));
                Ok(())
            }
            What::Add { address } => order(ctx, route::PEER_ADD, &AddPeerRequest { address }, "connected to"),
            What::Block { peer } => order(ctx, route::PEER_BLOCK, &PeerRequest { peer }, "blocked"),
            What::Allow { peer } => order(ctx, route::PEER_ALLOW, &PeerRequest { peer }, "allowed"),
            What::Limit { upload, download } => {
                let new = |rate: Option<Rate>| rate.map(|Rate(rate)| rate);
                let request = LimitRequest { upload: new(upload), download: new(download) };
                let now: Limits =
                    ctx.with_daemon(async |client| client.post(route::LIMIT, &request).await)?;
                ctx.output.result(&now, limits);
                for (asked, set, key) in [
                    (upload, now.upload_set, "net.upload_limit"),
                    (download, now.download_set, "net.download_limit"),
                ] {
                    if asked.is_some() && set {
                        ctx.output
                            .note(&format!("{key} is set, and wins again when the node is next started"));
                    }
                }
                Ok(())
            }
        }
    }
}

fn order(ctx: &Context, route: &str, request: &impl serde::Serialize, done: &str) -> Result<(), Error> {
    let peer: PeerOf = ctx.with_daemon(async |client| client.post(route, request).await)?;
    ctx.output.confirm(&peer, |peer| format!("{done} {}", peer.peer_id));
    Ok(())
}

/// Both limits in one line.
pub fn limits(limits: &Limits) -> String {
    let rate = |limit: Option<u64>| limit.map_or("unlimited".into(), |rate| output::rate(rate, 1.0));
    format!("upload {}, download {}", rate(limits.upload), rate(limits.download))
}

fn table(peers: &[PeerStatus]) -> String {
    let rate = |rate: f64| if rate < 1.0 { "-".into() } else { output::rate(rate as u64, 1.0) };
    let rows = peers.iter().map(|peer| {
        vec![
            peer.peer_id.clone(),
            if peer.relayed { "relayed".into() } else { peer.state.clone() },
            peer.grade.clone(),
            peer.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1} ms")),
            rate(peer.rate_in),
            rate(peer.rate_out),
            peer.window_bytes.map_or("-".into(), output::size),
            peer.queueing_ms.map_or("-".into(), |ms| format!("{ms:.0} ms")),
            output::size(peer.bytes_in),
            output::size(peer.bytes_out),
            format!("{} ({:.1}%)", peer.failures, peer.failure_share * 100.0),
            output::safe(&peer.address),
        ]
    });
    let header = [
        "PEER",
        "STATE",
        "GRADE",
        "ROUND TRIP",
        "RATE IN",
        "RATE OUT",
        "WINDOW",
        "QUEUEING",
        "BYTES IN",
        "BYTES OUT",
        "FAILURES",
        "ADDRESS",
    ];
    output::table(&header, rows)
}
