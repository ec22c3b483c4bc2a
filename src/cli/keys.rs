//! `bcai keys`.
//!
//! Owns: its arguments, and how keys are shown.
//! Must not know: where keys are kept, or who may do what.
//! Invariant: no secret is ever printed. What was asked for is in the log when a command returns.
//! Trust: as `cli`. Threads: the main thread.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, exit_code, output, passphrase};
use crate::api::route;
use crate::node::report::{
    KeyInNetwork, KeysReport, RightsDecided, RightsRequest, RotatedDataset, RotatedKey,
};
use crate::node::{self, Error, Kind, Node, has_key, is_key_locked, new_key};

/// This machine's key: show it, make one, put another in its place; give rights to others'
///
/// The key is who this node is: in the logs of its networks, as the owner of what it has published, and to peers. It is in
/// identity.key, and whoever has that file can publish in its name.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Examples:\n  bcai keys\n  bcai keys rotate\n  bcai keys grant KEY validator\n  bcai keys grant KEY publisher --dataset photos\n  bcai keys revoke KEY --dataset photos\n  bcai keys rotate --dataset photos"
)]
pub struct Keys {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the public key, and what it is in each network
    #[command(after_help = "Example:\n  bcai keys show")]
    Show,
    /// Make a key for a node that has none
    ///
    /// Every command that needs a key makes it by itself; this is for those who want to give the public key to somebody
    /// first. A key that is there is never overwritten.
    #[command(after_help = "Example:\n  bcai keys new")]
    New,
    /// Put a new key in the place of this node's, in all of its networks
    ///
    /// The new key is written to disk, then an entry that both keys have signed is decided in every network that knows the
    /// old one, and only then the new one is used: for entries at once, as the peer id from the next start of the node on.
    /// Names, roles, grants and stake go over to it. If this is interrupted, or a network cannot be reached, run it
    /// again: it goes on with the same new key. A key that votes goes on voting, and stays the peer id meanwhile.
    ///
    /// With --dataset it is the key of an encrypted dataset that is rotated: later versions are sealed with the new one, which is
    /// given to all who have a right to it. Nothing is encrypted or sent again, and earlier versions stay readable by who could
    /// read them. `bcai keys revoke` does it by itself.
    #[command(after_help = "Examples:\n  bcai keys rotate\n  bcai keys rotate --dataset photos")]
    Rotate {
        /// The key of this dataset, instead of this node's own
        #[arg(long, value_name = "NAME")]
        dataset: Option<String>,
    },
    /// Lock this node's keys with a passphrase, or with another one
    ///
    /// Every start of the node asks for it then, at the terminal, or takes it from BCAI_PASSPHRASE or the file that
    /// BCAI_PASSPHRASE_FILE names. The node has to be stopped for this. Whoever forgets the passphrase has lost the keys, those of
    /// datasets too.
    #[command(
        after_help = "Examples:\n  bcai stop && bcai keys passphrase\n  bcai stop && bcai keys passphrase --remove"
    )]
    Passphrase {
        /// Unlock them for good
        #[arg(long)]
        remove: bool,
    },
    /// Give a key roles, beside those that it has
    ///
    /// The roles: reader, publisher, storage, validator (may join the validators), admin (all of these, and may give them). In
    /// the whole network an admin of it gives them; with --dataset the dataset's owner does, and only there. Readers, publishers and
    /// admins of an encrypted dataset are given its key too, which opens all versions.
    #[command(
        after_help = "Examples:\n  bcai keys grant KEY validator\n  bcai keys grant KEY reader --dataset photos"
    )]
    Grant {
        /// As `bcai keys` shows it on the other node
        key: String,
        #[arg(required = true)]
        roles: Vec<String>,
        /// Only with this dataset
        #[arg(long, value_name = "NAME")]
        dataset: Option<String>,
    },
    /// Take roles back from a key; without ROLES, all
    ///
    /// Who was given the key of an encrypted dataset keeps what opens the versions that there are; the key is rotated, so that later
    /// ones are closed to them. What was read once cannot be taken back.
    #[command(
        after_help = "Examples:\n  bcai keys revoke KEY\n  bcai keys revoke KEY reader --dataset photos"
    )]
    Revoke {
        /// As `bcai keys` shows it on the other node
        key: String,
        roles: Vec<String>,
        /// Only with this dataset
        #[arg(long, value_name = "NAME")]
        dataset: Option<String>,
    },
}

impl Keys {
    pub fn run(self, ctx: &Context) -> Result<ExitCode, Error> {
        match self.what.unwrap_or(What::Show) {
            What::Show => show(ctx).map(|()| ExitCode::SUCCESS),
            What::New => new(ctx).map(|()| ExitCode::SUCCESS),
            What::Rotate { dataset: None } => rotate(ctx),
            What::Rotate { dataset: Some(name) } => rotate_dataset(ctx, &name).map(|()| ExitCode::SUCCESS),
            What::Passphrase { remove } => change_passphrase(ctx, remove).map(|()| ExitCode::SUCCESS),
            What::Grant { key, roles, dataset } => {
                rights(ctx, &RightsRequest { key, roles, dataset, revoke: false }).map(|()| ExitCode::SUCCESS)
            }
            What::Revoke { key, roles, dataset } => {
                rights(ctx, &RightsRequest { key, roles, dataset, revoke: true }).map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

fn show(ctx: &Context) -> Result<(), Error> {
    // Looking must not make one.
    if !has_key(&ctx.paths) {
        return Err(no_key(ctx));
    }
    let keys: KeysReport = ctx.with_daemon(async |client| client.get(route::KEYS).await)?;
    ctx.output.result(&keys, text);
    Ok(())
}

fn no_key(ctx: &Context) -> Error {
    Error::not_found(format!("this node has no key: there is no {}", ctx.paths.identity().display()))
        .hint("bcai keys new makes one, and so does bcai init")
}

fn text(keys: &KeysReport) -> String {
    let mut lines = vec![format!("key      {}", keys.key), format!("peer id  {}", keys.peer_id)];
    if let Some(next) = &keys.next {
        lines.push(format!("next key {next}, not in all networks yet: bcai keys rotate goes on"));
    }
    if keys.changes_at_start {
        lines.push("         another peer id from the next start on: that of the key".to_owned());
    } else if keys.running != keys.key {
        lines.push(format!("votes by {}, an earlier key, whose peer id this is", keys.running));
    }
    lines.extend(keys.networks.iter().map(|network| in_network(network, &keys.key)));
    lines.join("\n")
}

fn in_network(network: &KeyInNetwork, key: &str) -> String {
    let roles = if network.roles.is_empty() { "none".to_owned() } else { network.roles.join(", ") };
    let mut lines =
        vec![format!("network  {}{}", network.genesis, if network.default { " (default)" } else { "" })];
    if network.key != key {
        lines.push(format!("  key    {}", network.key));
    }
    if network.first != network.key {
        lines.push(format!("  first  {}", network.first));
    }
    lines.push(format!("  roles  {roles}"));
    if !network.owns.is_empty() {
        lines.push(format!("  owns   {}", output::safe(&network.owns.join(", "))));
    }
    let granted = network.granted.iter();
    lines.extend(
        granted.map(|granted| format!("  {} in {}", granted.roles.join(", "), output::safe(&granted.name))),
    );
    lines.join("\n")
}

fn new(ctx: &Context) -> Result<(), Error> {
    let key = new_key(&ctx.paths, None)?;
    ctx.output.result(&json!({ "key": key.to_string() }), |_| key.to_string());
    Ok(())
}

fn change_passphrase(ctx: &Context, remove: bool) -> Result<(), Error> {
    if !has_key(&ctx.paths) {
        return Err(no_key(ctx));
    }
    if let Some(pid) = Node::running(&ctx.paths)? {
        return Err(Error::new(
            Kind::Busy,
            format!("the node is running, pid {pid}, and would go on with the old passphrase"),
        )
        .hint("bcai stop, then run it again"));
    }
    let old = is_key_locked(&ctx.paths).then(passphrase::present).transpose()?;
    let new = if remove { None } else { Some(passphrase::new(ctx)?) };
    let files = node::change_passphrase(&ctx.paths, old, new)?;
    let done = if remove { "unlocked" } else { "locked" };
    ctx.output
        .confirm(&json!({ "files": files, "locked": !remove }), |_| format!("{files} key file(s) {done}"));
    Ok(())
}

fn rights(ctx: &Context, request: &RightsRequest) -> Result<(), Error> {
    let done: RightsDecided =
        ctx.with_daemon(async |client| client.post(route::KEYS_RIGHTS, request).await)?;
    ctx.output.confirm(&done, |done| {
        let roles = if done.roles.is_empty() { "no role".to_owned() } else { done.roles.join(", ") };
        let place = request.dataset.as_deref().unwrap_or("this network");
        let is = if done.decided.already { "has already" } else { "has now" };
        let key = if done.has_key { ", and its key" } else { "" };
        let mut text =
            format!("{} {is} {roles} in {place}{key}, height {}", request.key, done.decided.height);
        if let Some(rotated) = &done.rotated {
            text.push('\n');
            text.push_str(&rotated_dataset(rotated));
        }
        if done.must_rotate {
            text.push_str(&format!(
                "\nLATER VERSIONS ARE STILL OPEN TO THEM: the owner of {place} has to run bcai keys rotate --dataset {place}"
            ));
        }
        output::safe_lines(&text)
    });
    Ok(())
}

fn rotate_dataset(ctx: &Context, name: &str) -> Result<(), Error> {
    let done: RotatedDataset =
        ctx.with_daemon(async |client| client.post(route::KEYS_ROTATE_DATASET, &name).await)?;
    ctx.output.confirm(&done, |done| output::safe_lines(&rotated_dataset(done)));
    Ok(())
}

fn rotated_dataset(done: &RotatedDataset) -> String {
    format!(
        "later versions of {} are sealed with generation {} of its key, which {} reader(s) were given: {:.1} ms",
        done.name,
        done.generation,
        done.readers,
        done.seconds * 1e3
    )
}

fn rotate(ctx: &Context) -> Result<ExitCode, Error> {
    let done: RotatedKey = ctx.with_daemon(async |client| client.post(route::KEYS_ROTATE, &()).await)?;
    ctx.output.confirm(&done, rotated);
    let failure = done.failed.first().map(|failed| failed.error.kind);
    Ok(failure.map_or(ExitCode::SUCCESS, |kind: Kind| exit_code(kind)))
}

fn rotated(done: &RotatedKey) -> String {
    let mut lines: Vec<String> = done
        .networks
        .iter()
        .map(|network| format!("decided at height {} of network {}", network.height, network.genesis))
        .collect();
    for failed in &done.failed {
        lines.push(format!("NOT in network {}: {}", failed.genesis, output::safe(&failed.error.message)));
    }
    if !done.failed.is_empty() {
        lines.push(format!(
            "there the old key, {}, still counts; both are kept: run bcai keys rotate again",
            done.old
        ));
        return lines.join("\n");
    }
    lines.push(format!("{} has taken the place of {}; back up identity.key", done.new, done.old));
    if done.votes {
        lines.push(
            "the old key goes on voting, from voting.key, and the peer id stays: back that up as well"
                .to_owned(),
        );
    } else if done.changes_at_start {
        lines.push(
            "the peer id changes when the node starts next (bcai stop; bcai daemon): URIs given out before name the old one"
                .to_owned(),
        );
    }
    lines.join("\n")
}
