//! `bcai validator`.
//!
//! Owns: its subcommands, and how validators are shown.
//! Must not know: who may change what, or how weights follow.
//! Invariant: what was asked for is in the log when a command returns; when it is felt is said.
//! Trust: as `cli`. Threads: the main thread.

use clap::{Args, Subcommand};

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{
    NewParams, OperatorDecided, OperatorRequest, OwnPart, ValidatorRow, ValidatorsReport,
};

/// Who decides the network: show it, and take part
///
/// Validators are weighed by the policy of the network. What changes is decided at once, and felt two epochs later: `status`
/// shows when epochs end. KEY is the key of a node as `bcai keys` shows it there.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  bcai validator\n  bcai validator join\n  bcai validator stake KEY 100"
)]
pub struct Validator {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the validators, their weights, and this node's part (what `bcai validator` alone does)
    #[command(after_help = "Example:\n  bcai validator status")]
    Status,
    /// Make this node a validator
    ///
    /// It needs the role validator: an admin runs `bcai keys grant KEY validator`. After two epochs it begins to vote by
    /// itself; it must then be reachable by the other validators. At most a tenth of the weight moves in an epoch.
    #[command(after_help = "Example:\n  bcai validator join")]
    Join,
    /// Stop being a validator
    ///
    /// Leave the node running until `status` shows that it has no weight any more.
    #[command(after_help = "Example:\n  bcai validator leave")]
    Leave,
    /// Let an operator that was jailed join again, with another voting key (admins)
    #[command(after_help = "Example:\n  bcai validator release KEY")]
    Release {
        /// The operator's key
        #[arg(value_name = "KEY")]
        operator: String,
    },
    /// Say how much stake somebody has (admins)
    ///
    /// Stake counts under the policies delegated and hybrid. It is what the admins vouch for; there is no coin.
    #[command(after_help = "Example:\n  bcai validator stake KEY 100")]
    Stake {
        /// Whose
        #[arg(value_name = "KEY")]
        holder: String,
        /// Instead of what it was; 0 takes it away
        amount: u64,
    },
    /// Put this node's stake behind an operator, or behind this node again
    #[command(after_help = "Example:\n  bcai validator delegate KEY")]
    Delegate {
        /// The operator's key; this node's own takes it back
        #[arg(value_name = "KEY")]
        operator: String,
    },
    /// Change parameters of the network (admins)
    #[command(
        after_help = "Examples:\n  bcai validator params --heartbeat 60\n  bcai validator params --policy delegated --replicas 3"
    )]
    Params {
        /// How validators are weighed: equal, delegated (by stake), useful-work (by proven storage) or hybrid (both)
        ///
        /// Nodes of this version do not prove what they store by themselves, so that scores stay 0.
        #[arg(long)]
        policy: Option<String>,
        /// Longest time without a height, in seconds
        #[arg(long, value_name = "SECONDS")]
        heartbeat: Option<u64>,
        /// How long the next height is put off, in milliseconds, so that entries share it; 0: not at all
        #[arg(long, value_name = "MS")]
        block_time: Option<u64>,
        /// How long an epoch lasts at least, in seconds
        #[arg(long, value_name = "SECONDS")]
        epoch: Option<u64>,
        /// Most operators that vote
        #[arg(long, value_name = "N")]
        seats: Option<u32>,
        /// Acknowledgements of storage nodes that a version needs
        #[arg(long, value_name = "N")]
        replicas: Option<u32>,
        /// Auditors who confirm that something is stored
        #[arg(long, value_name = "N")]
        audits: Option<u32>,
        /// Whether a new name needs the role publisher
        #[arg(long, value_name = "BOOL")]
        publishers_only: Option<bool>,
        /// Whether only members are shown the log and what is in its datasets: who has a role, a right, a name, a vote or stake
        #[arg(long, value_name = "BOOL")]
        members_only: Option<bool>,
    },
}

impl Validator {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = match self.what.unwrap_or(What::Status) {
            What::Status => {
                let report: ValidatorsReport =
                    ctx.with_daemon(async |client| client.get(route::VALIDATORS).await)?;
                ctx.output.result(&report, text);
                return Ok(());
            }
            What::Join => OperatorRequest::Join,
            What::Leave => OperatorRequest::Leave,
            What::Release { operator } => OperatorRequest::Release { operator },
            What::Stake { holder, amount } => OperatorRequest::Stake { holder, amount },
            What::Delegate { operator } => OperatorRequest::Delegate { operator },
            What::Params {
                policy,
                heartbeat,
                block_time,
                epoch,
                seats,
                replicas,
                audits,
                publishers_only,
                members_only,
            } => {
                let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1000));
                OperatorRequest::Params(NewParams {
                    policy,
                    heartbeat_ms: ms(heartbeat),
                    block_ms: block_time,
                    epoch_ms: ms(epoch),
                    seats,
                    replicas,
                    audits,
                    publishers_only,
                    members_only,
                })
            }
        };
        let done: OperatorDecided =
            ctx.with_daemon(async |client| client.post(route::VALIDATORS, &request).await)?;
        ctx.output.confirm(&done, |done| decided(done, &request));
        Ok(())
    }
}

fn decided(done: &OperatorDecided, request: &OperatorRequest) -> String {
    let was = if done.decided.already { "is so since" } else { "decided at" };
    let height = done.decided.height;
    let felt = format!(
        "weights follow from epoch {} on, {} at the earliest",
        done.epoch,
        output::time(done.earliest_ms)
    );
    let by_stake = ["delegated", "hybrid"].contains(&done.policy.as_str());
    match request {
        OperatorRequest::Params(_) => format!("{was} height {height}"),
        OperatorRequest::Stake { .. } | OperatorRequest::Delegate { .. } if !by_stake => {
            format!(
                "{was} height {height}; stake does not count under this network's policy, {}",
                done.policy
            )
        }
        OperatorRequest::Release { .. } => format!("{was} height {height}; it may join again"),
        _ => format!("{was} height {height}; {felt}"),
    }
}

fn text(report: &ValidatorsReport) -> String {
    let ValidatorsReport { params, own, .. } = report;
    let seconds = |ms: u64| output::span(ms as f64 / 1e3);
    let ends = report.epoch_started_ms.saturating_add(params.epoch_ms);
    let mut lines = vec![
        format!("network   {}", report.genesis),
        format!(
            "head      height {}{}",
            report.height,
            report.head_ms.map_or(String::new(), |ms| format!(", {}", output::time(ms)))
        ),
        format!("policy    {}, {} seats at most", params.policy, params.seats),
        format!("epoch     {}, until the first height after {}", report.epoch, output::time(ends)),
        format!(
            "lengths   heartbeat {}, block {} ms, epoch {}",
            seconds(params.heartbeat_ms),
            params.block_ms,
            seconds(params.epoch_ms)
        ),
        format!("this node {}", part(own)),
    ];
    if own.stake > 0 {
        let behind = own.behind.as_deref().unwrap_or_default();
        lines.push(format!(
            "stake     {}, behind {}",
            own.stake,
            if behind == own.key { "itself" } else { behind }
        ));
    }
    lines.push(table(report));
    lines.join("\n")
}

/// What this node is, in words.
fn part(own: &OwnPart) -> String {
    let heard = match own.others {
        0 => "alone".to_owned(),
        others => format!("connected with {} of {others} others", own.connected),
    };
    match (own.seated, own.deciding, own.standing.as_deref()) {
        (true, true, _) => format!("votes; {heard}"),
        (true, false, _) => "has a vote and does not use it: see daemon.log".to_owned(),
        (false, _, Some("active")) => format!("has joined and waits for its epoch; {heard}"),
        (false, _, Some("jailed")) => "is jailed: it signed two things at once".to_owned(),
        _ => format!("follows; {heard}"),
    }
}

fn table(report: &ValidatorsReport) -> String {
    let total = |weight: fn(&ValidatorRow) -> u64| report.validators.iter().map(weight).sum::<u64>();
    let (now, next) = (total(|row| row.weight), total(|row| row.next_weight));
    let share = |weight: u64, total: u64| match weight {
        0 => "-".to_owned(),
        weight => format!("{:.1}%", output::percent(weight, total)),
    };
    let rows = report.validators.iter().map(|row| {
        vec![
            row.operator_key.clone(),
            row.voter[..10.min(row.voter.len())].to_owned(),
            row.standing.clone(),
            share(row.weight, now),
            share(row.next_weight, next),
            row.stake.to_string(),
            row.score.to_string(),
            format!("{}/{}", row.signed, row.could_sign),
            if row.here {
                "this node"
            } else if row.connected {
                "connected"
            } else {
                "-"
            }
            .to_owned(),
        ]
    });
    output::table(
        &["OPERATOR", "VOTES BY", "STANDING", "WEIGHT", "NEXT", "STAKE", "SCORE", "SIGNED", "HERE"],
        rows,
    )
}
