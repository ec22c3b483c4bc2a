//! Another version on a directory where one is mounted.
//!
//! Owns: when a mount changes to another version: when a user says so, and when the name that it follows means another.
//! Must not know: how the kernel is made to see it (`bcai_mount`).
//! Invariant: a mount that cannot change stays what it is. Only a tag that was written out, `NAME@latest` or `NAME@TAG`,
//! is followed; `NAME`, `NAME@VERSION` and a snapshot stay until a user says otherwise.
//! Trust: as `resolve`: the log decides what a name means.
//! Threads: one task for each mount that follows, ended with the mount; one that lets go of versions no longer used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::error::{Error, Kind};
use super::mounts::blocking;
use super::report::{MountRequest, Mounted, RemountRequest, Remounted, Resolved, VersionOf};
use super::{Named, Node, Reference, Uri, off};
use crate::chain::Chain;
use crate::log::Ledger;

/// Pause between two tries to change to a version whose content cannot be had.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How often versions that were mounted before are looked at, to let go of those that nobody uses.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// Whether a reference that means this version now may mean another one later, and was written so that this is wanted.
pub(super) fn is_followed(reference: &str, version: Option<&VersionOf>) -> bool {
    let selector = match reference.parse() {
        Ok(
            Reference::Named(Named { selector, .. })
            | Reference::Uri(Uri { named: Named { selector, .. }, .. }),
        ) => selector,
        _ => None,
    };
    selector.is_some_and(|selector| version.is_some_and(|version| version.version != selector))
}

impl Node {
    /// Puts what a reference means now in place of what is mounted, at one moment; without one, what the reference of the
    /// mount means now. Files that are open stay what they were.
    pub async fn remount(self: &Arc<Self>, request: &RemountRequest) -> Result<Remounted, Error> {
        let dir = off(|| request.dir.canonicalize()).unwrap_or_else(|_| request.dir.clone());
        let _claim = self.mounts.claim_in_turn(&dir).await?;
        let Some(mount) = self.mounts.request(&dir) else {
            return Err(Error::not_found(format!("nothing is mounted by this node at {}", dir.display()))
                .hint("`bcai status` lists its mounts; `bcai mount` mounts"));
        };
        let reference = request.reference.clone().unwrap_or_else(|| mount.reference.clone());
        let mount = MountRequest { reference, ..mount };
        let (resolved, quorum) = self.resolve_for(&mount).await?;
        let followed = self.follow(&dir, &mount, resolved.version.as_ref());
        let mut changed = self.change(&dir, mount, resolved, followed).await?;
        changed.mounted = Mounted { quorum, ..self.with_withdrawal(changed.mounted) };
        Ok(changed)
    }

    /// Changes the mount on `dir`, which is claimed.
    async fn change(
        self: &Arc<Self>,
        dir: &Path,
        request: MountRequest,
        resolved: Resolved,
        followed: Option<DropGuard>,
    ) -> Result<Remounted, Error> {
        let _kept = self.sweeping.read().await;
        let gone = || Error::not_found(format!("{} has been unmounted meanwhile", dir.display()));
        let before = self.mounts.report(dir).ok_or_else(gone)?;
        let ready = match before.snapshot == resolved.snapshot {
            true => None,
            false => {
                let ready = self.prepare(&request, resolved.clone()).await?;
                let mount = self.mounts.mount(dir).ok_or_else(gone)?;
                let (tree, node, on, next) = (
                    self.tree(&ready, dir, request.readahead),
                    self.clone(),
                    dir.to_owned(),
                    resolved.clone(),
                );
                let announce = move |slot| node.mounts.announce(&on, slot, &next);
                blocking(move || mount.switch(tree, announce)).await?;
                Some(ready)
            }
        };
        let changed = ready.is_some();
        let mounted =
            self.mounts.changed(dir, request, resolved.version, ready, followed).ok_or_else(gone)?;
        off(|| self.save_mounts());
        if changed {
            tracing::info!(dir = %dir.display(), snapshot = mounted.snapshot, "another version is mounted");
        }
        Ok(Remounted { changed, before: before.version, before_snapshot: before.snapshot, mounted })
    }

    /// Follows the name of a mount from now on, if it is one that is followed, until what is returned is dropped.
    pub(super) fn follow(
        self: &Arc<Self>,
        dir: &Path,
        request: &MountRequest,
        version: Option<&VersionOf>,
    ) -> Option<DropGuard> {
        if !is_followed(&request.reference, version) {
            return None;
        }
        let chain = self.chain_of(version?)?;
        let token = self.stop.child_token();
        let following = self.clone().keep_up(dir.to_owned(), chain.subscribe());
        tokio::spawn(token.clone().run_until_cancelled_owned(following));
        Some(token.drop_guard())
    }

    fn chain_of(&self, version: &VersionOf) -> Option<Arc<Chain>> {
        self.networks.get(&version.genesis.parse().ok()?)
    }

    async fn keep_up(self: Arc<Self>, dir: PathBuf, mut ledgers: watch::Receiver<Arc<Ledger>>) {
        loop {
            ledgers.mark_unchanged();
            // The task is ended when the mount is, and when a user gives it another name: never amid a change, which is
            // carried out by a task of its own.
            let (node, at) = (self.clone(), dir.clone());
            let changed = tokio::spawn(async move { node.bring_up(&at).await }).await;
            let again = match changed {
                Ok(Ok(())) => Duration::MAX,
                Ok(Err(error)) if error.kind == Kind::Busy => RETRY_EVERY / 5,
                Ok(Err(error)) => {
                    tracing::warn!(dir = %dir.display(), %error, "a newer version is not mounted yet");
                    RETRY_EVERY
                }
                Err(_) => return,
            };
            if let Ok(Err(_)) = tokio::time::timeout(again, ledgers.changed()).await {
                return;
            }
        }
    }

    /// Changes a mount to what its name means now, as far as is known here.
    async fn bring_up(self: &Arc<Self>, dir: &Path) -> Result<(), Error> {
        let Some(request) = self.mounts.request(dir) else { return Ok(()) };
        let resolved = self.resolve_here(&request.reference)?;
        let is_older = |mounted: &Mounted| match (&mounted.version, &resolved.version) {
            // The log that is here has not come as far as what a peer has shown of it.
            (Some(mounted), Some(resolved)) => resolved.as_of < mounted.as_of,
            _ => false,
        };
        let is_current = |mounted: &Mounted| mounted.snapshot == resolved.snapshot || is_older(mounted);
        if self.mounts.report(dir).as_ref().is_none_or(is_current) {
            return Ok(());
        }
        let _claim = self.mounts.claim(dir)?;
        // Another request may have been carried out before the claim.
        match self.mounts.request(dir).is_some_and(|now| now.reference == request.reference) {
            true => self.change(dir, request, resolved, None).await.map(|_| ()),
            false => Ok(()),
        }
    }

    /// Lets go, now and then, of what was mounted before and is no longer used.
    pub(super) fn tidy_mounts(self: &Arc<Self>) {
        let node = Arc::downgrade(self);
        let tidying = async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                let Some(node) = node.upgrade() else { return };
                for mount in node.mounts.changed_ones() {
                    if let Err(error) = blocking(move || mount.forget_old()).await {
                        tracing::debug!(%error, "what was mounted before is kept for now");
                    }
                }
            }
        };
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(tidying));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tag_that_was_written_out_is_followed() {
        let version = VersionOf {
            genesis: "0123456789abcdef".repeat(4),
            name: "photos".into(),
            version: "v1".into(),
            height: 1,
            as_of: 1,
        };
        let uri = |name: &str| format!("bcai://{}/{name}?peer=/ip4/1.2.3.4/tcp/5", version.genesis);
        for (name, followed) in
            [("photos", false), ("photos@v1", false), ("photos@latest", true), ("photos@stable", true)]
        {
            assert_eq!(is_followed(name, Some(&version)), followed, "{name}");
            assert_eq!(is_followed(&uri(name), Some(&version)), followed, "{name}");
        }
        assert!(!is_followed(&version.genesis, None), "a snapshot");
    }
}
