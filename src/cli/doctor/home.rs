//! What the folders of a node must be like.
//!
//! Owns: the disk they are on; showing what else it takes to start.
//! Must not know: what a node that runs needs. Invariant, trust and threads: those of `doctor`.

use std::path::Path;

use super::super::{Context, output, passphrase};
use super::{Check, Keys, Verdict};
use crate::node::{Finding, disk_is_low, examine, examine_identity};

pub(super) fn disk(ctx: &Context) -> Check {
    let store = ctx.paths.store();
    let existing = store.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        let found = format!("{} cannot be written", existing.display());
        return Check::bad("disk", Verdict::Fail, found, "give the node a folder of yours, with --home");
    }
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            let (free, total) = (bytes(stat.f_bavail), bytes(stat.f_blocks));
            let found =
                format!("{} of {} free for {}", output::size(free), output::size(total), store.display());
            match disk_is_low(free, total) {
                None => Check::ok("disk", found),
                Some(severity) => Check::bad(
                    "disk",
                    severity.into(),
                    found,
                    "free some space (`bcai gc --dry-run` shows what of the published data could go), lower cache.max_bytes and restart, or move the node with --home",
                ),
            }
        }
        Err(error) => Check::bad(
            "disk",
            Verdict::Fail,
            format!("{}: {error}", existing.display()),
            "give the node a folder that can be written, with --home",
        ),
    }
}

/// What a node that does not run will need.
pub(super) fn checks(ctx: &Context, keys: Keys) -> Vec<Check> {
    let mut findings = examine(&ctx.paths, &ctx.config);
    if keys == Keys::Read {
        let found = passphrase::given().and_then(|given| examine_identity(&ctx.paths, given));
        findings.insert(0, Finding { name: "identity", found });
    }
    let check = |finding: Finding| match finding.found {
        Ok(found) => Check::ok(finding.name, found),
        Err(error) => Check::failed(finding.name, error),
    };
    findings.into_iter().map(check).collect()
}
