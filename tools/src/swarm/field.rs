//! Nodes on a shaped network, and what they fetch.
//!
//! Owns: which node is where, its settings, and data that no codec shrinks.
//! Must not know: what is measured.
//! Invariant: a node that is made has never run; it listens at its own address and nowhere else, so that everything that it
//! says to others goes through its link.
//! Trust: as `swarm`. Threads: the caller's; helpers are processes that end with their owner.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use bcai_lan::{Lan, Rate};
use serde_json::Value;

use crate::corpus::bytes::Random;
use crate::scratch::Scratch;
use crate::site::Site;

/// Where the publisher is; receivers come after it.
pub const SOURCE: usize = 0;
/// Bytes of a file of a dataset of many.
const FILE: u64 = 1_000_000;

pub struct Field<'a> {
    pub scratch: &'a Scratch,
    pub lan: Lan,
}

impl<'a> Field<'a> {
    /// A network of so many nodes, none of which runs yet.
    pub fn new(scratch: &'a Scratch, nodes: usize, rate: Option<Rate>) -> anyhow::Result<Self> {
        Ok(Self { scratch, lan: Lan::new(nodes, rate)? })
    }

    /// A node that has never run. Its daemon is started by its first command.
    pub fn site(&self, node: usize, settings: &[&str]) -> anyhow::Result<Site<'a>> {
        let listen = format!("net.listen=/ip4/{}/tcp/4001", self.lan.address(node));
        let mut all = vec![listen, "net.mdns=false".to_owned()];
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        Site::elsewhere(self.scratch, &format!("n{node}"), self.lan.enter(node), all)
    }

    /// The publisher, with a network of its own.
    pub fn source(&self) -> anyhow::Result<Site<'a>> {
        let site = self.site(SOURCE, &[])?;
        site.json(&["init"])?;
        Ok(site)
    }

    /// A program of ours that runs at a node.
    pub fn helper(&self, node: usize, args: &[&str]) -> anyhow::Result<Helper> {
        Helper::start(&self.lan.enter(node), args)
    }
}

/// Where a site is to be reached, by what it says.
pub fn address(site: &Site) -> anyhow::Result<String> {
    let status = site.status()?;
    let address = status.pointer("/addresses/0").and_then(Value::as_str);
    Ok(address.context("the node listens nowhere")?.to_owned())
}

/// Publishes a folder and returns its URI and the id of its snapshot.
pub fn publish(site: &Site, dir: &Path, target: &str) -> anyhow::Result<(String, String)> {
    let (published, _) = site.publish(dir, target)?;
    let text = |name: &str| match published[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("bcai publish printed no {name}: {published}"),
    };
    Ok((text("uri")?, text("snapshot")?))
}

/// Writes a folder of `count` files of `len` bytes each, other ones for each `seed`.
pub fn files(scratch: &Scratch, name: &str, seed: u64, count: u64, len: u64) -> anyhow::Result<PathBuf> {
    let dir = scratch.dir.join(name);
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for number in 0..count {
        scratch.stop.check()?;
        let path = dir.join(format!("{number:05}.bin"));
        let bytes = Random::of(seed, number).noise(usize::try_from(len)?);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(dir)
}

/// The same, `bytes` in all, in files of about a megabyte.
pub fn megabytes(scratch: &Scratch, name: &str, seed: u64, bytes: u64) -> anyhow::Result<PathBuf> {
    let count = (bytes / FILE).max(1);
    files(scratch, name, seed, count, bytes / count)
}

/// This program in another role. It is killed when this is dropped.
pub struct Helper {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts it behind `prefix`.
    pub fn start(prefix: &[String], args: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut words = prefix.iter().map(String::as_ref).chain([program.as_os_str()]);
        // There is one word at the least.
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a helper")?;
        let output = child.stdout.take().context("a helper without an output")?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    /// The next line that it prints, as JSON. Waits for it.
    pub fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot hear a helper")?;
        serde_json::from_str(&line).with_context(|| format!("a helper has ended, with `{}`", line.trim()))
    }

    /// Closes its input, which tells it to end, and returns the last line that it prints.
    pub fn end(mut self) -> anyhow::Result<Value> {
        drop(self.child.stdin.take());
        self.line()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that has ended by itself is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
