//! `bcai init`.
//!
//! Owns: the first start of a node: settings file, identity, network.
//! Must not know: how a network is made or joined.
//! Invariant: running it again changes nothing.
//! Trust: as `cli`. Threads: the main thread.

use std::fmt::Write;

use clap::Args;

use super::{Context, output, passphrase};
use crate::api::route;
use crate::config::{KEYS, variable};
use crate::node::report::{CreateRequest, JoinRequest, NetworkOf};
use crate::node::{Error, new_key};

/// Create a network of your own, or join one
///
/// Makes this node's identity and a settings file. Without --join it also creates a network in which this node
/// decides which versions exist; with --join it follows the network of URI.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bcai init\n  bcai init --join 'bcai://GENESIS/photos?peer=/ip4/192.0.2.7/tcp/4001/p2p/PEER'"
)]
pub struct Init {
    /// Any bcai:// URI of the network to join
    #[arg(long, value_name = "URI")]
    join: Option<String>,

    /// Keys of the validators that decide the new network, that of this node among them, separated by commas
    ///
    /// `bcai status` on each machine prints its key. The others join with --join.
    #[arg(long, value_name = "KEY", value_delimiter = ',', conflicts_with = "join")]
    validators: Vec<String>,

    /// Lock the new key with a passphrase, which every start of the node asks for
    #[arg(long)]
    passphrase: bool,
}

impl Init {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        // Before the settings: it makes the folders, closed to other users.
        ctx.paths.create()?;
        if self.passphrase {
            new_key(&ctx.paths, Some(passphrase::new(ctx)?))?;
        }
        write_settings(ctx)?;
        let (network, done, next): (NetworkOf, _, _) = ctx.with_daemon(async |client| match self.join {
            Some(uri) => Ok((client.post(route::JOIN, &JoinRequest { uri }).await?, "joined", "bcai list")),
            None => {
                let request = CreateRequest { validators: self.validators };
                Ok((client.post(route::CREATE, &request).await?, "created", "bcai publish DIR NAME@VERSION"))
            }
        })?;
        ctx.output.confirm(&network, |network| {
            let what = if network.new { done } else { "already in" };
            format!("{what} network {}, height {}\nnext: {next}", network.genesis, network.height)
        });
        Ok(())
    }
}

/// Writes the settings file with every key at its default, commented out. One that exists is left alone.
fn write_settings(ctx: &Context) -> Result<(), Error> {
    let path = ctx.paths.user_config();
    if path.exists() {
        return Ok(());
    }
    let mut text =
        String::from("# Settings of bcai. Each line shows a default; remove the # to change it.\n");
    for key in KEYS {
        let quoted = toml::Value::String(key.default.into());
        // Writing to a string cannot fail.
        let _ = write!(text, "\n# {} (${})\n# {} = {quoted}\n", key.help, variable(key.name), key.name);
    }
    let write = || {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, text)
    };
    write().map_err(|error| Error::io("cannot write", path, error))?;
    ctx.output.note(&format!("wrote {}", output::safe(&path.display().to_string())));
    Ok(())
}
