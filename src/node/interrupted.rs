//! What was being done when the node ended, so that its user learns of it and can do it again.
//!
//! Owns: which jobs are written down while they run. Must not know: what they do. Pins and replicas go on by themselves (`pins`).
//! Invariant: a job that has ended is not written down any more once that is told; one of less than [`WORTH`] never is.
//! Trust: `state.json` is our own. Threads: one task. A crash leaves the jobs that ran, which the next start tells of.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Error, Kind};
use super::report::{EndedJob, Outcome};
use super::transfers::JobKind;
use super::{Node, now_ms, off};

/// How long a job runs before it is worth writing down.
const WORTH: Duration = Duration::from_secs(3);

const GOES_ON: &str = "run it again: it goes on where it was";
/// Jobs that their users have to run again, and how. Any other that is cut off is nobody's loss, or gone on with by the node.
const REMEDIES: [(JobKind, &str); 7] = [
    (JobKind::Publish, GOES_ON),
    (JobKind::Snapshot, GOES_ON),
    (JobKind::Prefetch, GOES_ON),
    (JobKind::BundleExport, GOES_ON),
    (JobKind::BundleImport, GOES_ON),
    (JobKind::Gc, GOES_ON),
    (JobKind::Export, "remove what it has written, and run it again"),
];

/// A job as `state.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    pub kind: String,
    pub subject: String,
    /// When it was written down.
    pub since_ms: u64,
}

impl Node {
    /// Tells of what the last daemon did not finish, and writes down what this one is at.
    pub(super) fn remember_jobs(self: &Arc<Self>) {
        let left = self.state.get().unfinished;
        for job in left.iter().rev() {
            self.transfers.ended().add(told(job));
        }
        let (node, stop) = (self.clone(), self.stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut written = left;
            loop {
                let now = node.unfinished(&written);
                if now != written {
                    match off(|| node.state.update(|facts| facts.unfinished.clone_from(&now))) {
                        Ok(()) => written = now,
                        Err(error) => tracing::debug!(%error, "running jobs cannot be written down"),
                    }
                }
                let ended = node.transfers.ended();
                tokio::select! {
                    () = ended.next() => {}
                    () = tokio::time::sleep(WORTH) => {}
                }
            }
        }));
    }

    /// The jobs that run and are worth it.
    fn unfinished(&self, written: &[Unfinished]) -> Vec<Unfinished> {
        let is_worth = |kind: JobKind| REMEDIES.iter().any(|(known, _)| *known == kind);
        let worth = self.transfers.lasting(WORTH).into_iter().filter(|(kind, _)| is_worth(*kind));
        let jobs = worth.map(|(kind, subject)| {
            let kind = kind.to_string();
            let known = written.iter().find(|job| job.kind == kind && job.subject == subject);
            known.cloned().unwrap_or(Unfinished { kind, subject, since_ms: now_ms() })
        });
        jobs.collect()
    }
}

/// How it is told.
fn told(job: &Unfinished) -> EndedJob {
    let remedy = REMEDIES.iter().find(|(kind, _)| kind.to_string() == job.kind);
    let error = Error::new(Kind::Failed, "the node ended while it ran");
    EndedJob {
        id: 0,
        kind: job.kind.clone(),
        subject: job.subject.clone(),
        outcome: Outcome::Interrupted,
        error: Some(error.hint(remedy.map_or("run it again", |(_, remedy)| remedy))),
        ended_ms: job.since_ms,
        seconds: 0.0,
    }
}
