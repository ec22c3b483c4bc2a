//! `bcai list`.
//!
//! Owns: the table of datasets.
//! Must not know: where they come from.
//! Invariant: yanked versions are shown as such, never left out.
//! Trust: names come from the log; they are escaped. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::Dataset;

/// List datasets and their versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai list\n  bcai list --json | jq -r '.[].name'")]
pub struct List {}

impl List {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let datasets: Vec<Dataset> = ctx.with_daemon(async |client| client.get(route::DATASETS).await)?;
        ctx.output.result(&datasets, |datasets| text(datasets));
        if datasets.is_empty() {
            ctx.output.note("nothing is published in the networks of this node; `bcai status` shows them, `bcai init` creates or joins one");
        }
        Ok(())
    }
}

fn text(datasets: &[Dataset]) -> String {
    // A plain name means one of the default network; with several, each row says where it is from.
    let one = datasets.iter().all(|dataset| dataset.genesis == datasets[0].genesis);
    let rows = datasets.iter().flat_map(|dataset| {
        dataset.versions.iter().map(move |version| {
            let mut notes = version.tags.clone();
            notes.extend(
                (!one).then(|| format!("network {}", &dataset.genesis[..10.min(dataset.genesis.len())])),
            );
            notes.extend(version.yanked.as_ref().map(|reason| format!("yanked: {reason}")));
            vec![
                output::safe(&format!("{}@{}", dataset.name, version.version)),
                output::size(version.bytes),
                output::time(version.time_ms),
                version.height.to_string(),
                version.snapshot[..10.min(version.snapshot.len())].to_owned(),
                output::safe(&notes.join(", ")),
            ]
        })
    });
    output::table(&["DATASET", "SIZE", "PUBLISHED", "HEIGHT", "SNAPSHOT", ""], rows)
}
