//! `bcai stop`.
//!
//! Owns: ending the node and waiting until it is gone.
//! Must not know: how the node ends.
//! Invariant: when it returns, the daemon's lock is free.
//! Trust: as `cli`. Threads: the main thread.

use std::time::{Duration, Instant};

use clap::Args;

use super::Context;
use crate::api::{Client, route};
use crate::node::{Error, Kind, Node};

const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long a daemon may take to answer before its supervisor is asked.
const HEARING: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// Stop this machine's node
///
/// Mounts are detached first; one that is in use is detached lazily and stays readable as far as it is cached. To replace the node by
/// another one without ending its mounts, after an upgrade: bcai restart.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bcai stop")]
pub struct Stop {}

impl Stop {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let Some(pid) = Node::running(&ctx.paths)? else {
            ctx.output.confirm(&serde_json::json!({ "stopped": null }), |_| "no node is running".into());
            return Ok(());
        };
        ctx.block_on(async {
            let client = Client::new(&ctx.paths.socket());
            let asked = Instant::now();
            let (mut heard, mut signalled) = (false, false);
            while Node::running(&ctx.paths)?.is_some() {
                // One that is starting does not answer yet, and one that ends does not any more.
                if !heard {
                    heard = match client.post::<()>(route::STOP, &()).await {
                        Err(error) if error.kind != Kind::Unreachable => return Err(error),
                        answer => answer.is_ok(),
                    };
                }
                if !heard && !signalled && asked.elapsed() > HEARING {
                    // Its daemon cannot start, or takes long to.
                    Node::end_supervisor(&ctx.paths);
                    signalled = true;
                }
                if asked.elapsed() > STOP_DEADLINE {
                    return Err(Error::new(Kind::Busy, format!("the node, pid {pid}, did not end in time"))
                        .hint(format!(
                            "see {}; `kill -9 $(tac {})`, first the supervisor and then the daemon, loses nothing",
                            ctx.paths.daemon_log().display(),
                            ctx.paths.lock().display()
                        )));
                }
                tokio::time::sleep(POLL).await;
            }
            ctx.output.confirm(&serde_json::json!({ "stopped": pid }), |_| "node stopped".into());
            Ok(())
        })
    }
}
