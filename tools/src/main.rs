//! What developers of bcai run.
//!
//! Owns: the command line; writing the manual pages into `man/`.
//! Must not know: what is on the pages; the command line describes itself. How a corpus is made or a row measured.
//! Invariant: `man` run twice changes nothing.
//! Trust: developers only. Threads: the main thread.

mod compare;
mod corpus;
mod groups;
mod log;
mod machine;
mod measure;
mod report;
mod scratch;
mod site;
mod stop;
mod survive;
mod swarm;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

/// Tools for developers of bcai
#[derive(Debug, Parser)]
enum Tool {
    /// Write the manual pages
    Man {
        /// Where to
        #[arg(default_value = "man")]
        dir: PathBuf,
    },
    /// Make a corpus, the same for the same seed and scale, and print where it is
    ///
    /// `compare --dir DIR` uses corpora that it finds complete in DIR, and leaves them there.
    Corpus {
        kind: corpus::Kind,
        /// A folder for it; the corpus gets a folder of its own in there
        dir: PathBuf,
        #[command(flatten)]
        size: corpus::Size,
    },
    /// Measure bcai beside other means to the same end, and say which targets are met
    Compare(compare::Compare),
    Log(log::Log),
    Swarm(swarm::Swarm),
    Peer(swarm::Peer),
    Crowd(swarm::Crowd),
    Distance(swarm::Distance),
    Survive(survive::Survive),
}

fn main() -> anyhow::Result<()> {
    match Tool::parse() {
        Tool::Man { dir } => man(&dir),
        Tool::Corpus { kind, dir, size } => {
            let stop = stop::on_signals()?;
            println!("{}", corpus::make(kind, &dir, size, &stop)?.path.display());
            Ok(())
        }
        Tool::Compare(compare) => compare.run(),
        Tool::Log(log) => log.run(),
        Tool::Swarm(swarm) => swarm.run(),
        Tool::Peer(peer) => peer.run(),
        Tool::Crowd(crowd) => crowd.run(),
        Tool::Distance(distance) => distance.run(),
        Tool::Survive(survive) => survive.run(),
    }
}

/// Writes every page and removes pages of commands that are gone.
fn man(dir: &std::path::Path) -> anyhow::Result<()> {
    let pages = bcai::cli::pages().context("cannot render the manual pages")?;
    let wanted: BTreeSet<_> = pages.iter().map(|(name, _)| dir.join(name)).collect();
    for (name, page) in &pages {
        let path = dir.join(name);
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for file in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "1") && !wanted.contains(&path) {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    println!("{} pages in {}", pages.len(), dir.display());
    Ok(())
}
