//! `bcai restart`.
//!
//! Owns: ending the node so that another takes its place, and waiting until that one answers.
//! Must not know: how mounts go from one to the other.
//! Invariant: when it returns, another process answers, and what was mounted is mounted.
//! Trust: as `cli`. Threads: the main thread.

use std::time::{Duration, Instant};

use clap::Args;

use super::Context;
use crate::api::{Client, route};
use crate::node::report::Status;
use crate::node::{Error, Kind, Node};

/// As long as a start may take.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Restart this machine's node without ending its mounts
///
/// After an upgrade: the program that is installed now takes over. Those who use mounts notice nothing but a short pause: files stay
/// open, and reads that come meanwhile are answered afterwards. Running jobs, such as a publish, end.
///
/// Settings are read anew; those given to `bcai daemon` with -c stay.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo install --path . && bcai restart")]
pub struct Restart {}

impl Restart {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let Some(_) = Node::running(&ctx.paths)? else {
            return Err(Error::new(Kind::NotFound, "no node is running").hint("start it with `bcai daemon`"));
        };
        if let Some(flag) = ctx.flags.first() {
            ctx.output.note(&format!(
                "`-c {flag}` does not count: the node keeps the words that it was started with; put it into a file, or `bcai stop` and start the node with it"
            ));
        }
        ctx.block_on(async {
            let client = Client::new(&ctx.paths.socket());
            let before: Status = client.get(route::STATUS).await?;
            client.post::<()>(route::RESTART, &()).await?;
            let asked = Instant::now();
            let now = loop {
                match client.get::<Status>(route::STATUS).await {
                    Ok(status) if status.pid != before.pid && status.mounts.len() >= before.mounts.len() => {
                        break status;
                    }
                    _ if asked.elapsed() > DEADLINE => {
                        return Err(Error::new(Kind::Unreachable, "the new daemon has not taken over in time")
                            .hint(format!("see {}", ctx.paths.daemon_log().display())));
                    }
                    _ => tokio::time::sleep(POLL).await,
                }
            };
            let report = serde_json::json!({ "was": before.pid, "pid": now.pid, "version": now.version, "mounts": now.mounts.len() });
            ctx.output.confirm(&report, |_| {
                format!("node {} runs, pid {}, {} mount(s)", now.version, now.pid, now.mounts.len())
            });
            Ok(())
        })
    }
}
