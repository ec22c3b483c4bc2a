//! `bcai alerts`.
//!
//! Owns: its subcommands and how alerts are shown.
//! Must not know: what is worth an alert.
//! Invariant: never starts a node just to ask what is wrong with it.
//! Trust: as `cli`; texts may hold foreign names and are escaped. Threads: the main thread.

use clap::{Args, Subcommand};

use super::{Context, output};
use crate::api::{Client, route};
use crate::node::report::{AckRequest, Acknowledged, Alert, AlertState};
use crate::node::{Error, Kind, Node};

/// Show what is wrong with this node and what to do, and take note of it
///
/// An alert holds as long as its cause: it clears by itself. One that was acknowledged is not shown by `bcai status`
/// any more, until it has cleared and comes back, or gets worse.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  bcai alerts\n  bcai alerts ack no-peers\n  bcai alerts list --all --json | jq .[].id",
    args_conflicts_with_subcommands = true
)]
pub struct Alerts {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Args)]
struct List {
    /// Also those that have cleared since the node was started
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the alerts that hold, the worst first (what `bcai alerts` alone does)
    #[command(after_help = "Example:\n  bcai alerts list --all")]
    List(List),
    /// Take note of an alert
    #[command(after_help = "Examples:\n  bcai alerts ack no-peers\n  bcai alerts ack --all")]
    Ack {
        /// As `bcai alerts` shows it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Of all that hold
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
}

impl Alerts {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        if Node::running(&ctx.paths)?.is_none() {
            return Err(Error::new(Kind::NotFound, "no node is running").hint("start it with `bcai daemon`"));
        }
        let client = Client::new(&ctx.paths.socket());
        match self.what.unwrap_or(What::List(self.list)) {
            What::List(List { all }) => {
                let mut alerts: Vec<Alert> = ctx.block_on(async { client.get(route::ALERTS).await })?;
                alerts.retain(|alert| all || alert.state != AlertState::Cleared);
                ctx.output.result(&alerts, |alerts| text(alerts));
            }
            What::Ack { id, .. } => {
                let request = id.map_or(AckRequest::All, AckRequest::One);
                let done: Acknowledged =
                    ctx.block_on(async { client.post(route::ALERTS_ACK, &request).await })?;
                ctx.output.confirm(&done, |done| format!("{} acknowledged", done.alerts));
            }
        }
        Ok(())
    }
}

fn text(alerts: &[Alert]) -> String {
    if alerts.is_empty() {
        return "nothing is wrong".into();
    }
    let blocks = alerts.iter().map(|alert| {
        let times = if alert.count == 1 { String::new() } else { format!(", for the {}. time", alert.count) };
        let until = match alert.state {
            AlertState::Cleared => {
                format!("{} to {}", output::time(alert.first_ms), output::time(alert.last_ms))
            }
            AlertState::Active | AlertState::Acknowledged => {
                format!("since {}", output::time(alert.first_ms))
            }
        };
        format!(
            "{} {} ({}, {until}{times})\n  {}\n  {}",
            alert.severity,
            output::safe(&alert.id),
            alert.state,
            output::safe(&alert.text),
            output::safe(&alert.remedy)
        )
    });
    blocks.collect::<Vec<_>>().join("\n")
}
