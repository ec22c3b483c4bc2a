//! Where a node keeps what it owns.
//!
//! Owns: the choice of folders: one home for everything, or the system's and the user's usual places.
//! Must not know: what is inside the files.
//! Invariant: two nodes with different homes share nothing.
//! Trust: the environment is the user's.
//! Threads: built once, read-only.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

/// Longest path the kernel takes for a unix socket, with its terminating zero (`sun_path`, unix(7)).
const SOCKET_PATH_MAX: usize = 108;

/// No usable folders: the user's to fix.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    #[error("no home directory: set HOME, or give this node a folder of its own with --home or BCAI_HOME")]
    NoHome,
    #[error(
        "{} is too long for a unix socket ({max} bytes at most): choose a shorter --home",
        path.display(), max = SOCKET_PATH_MAX - 1
    )]
    SocketPathTooLong { path: PathBuf },
    #[error("cannot use {}: {source}", path.display())]
    Unusable { path: PathBuf, source: std::io::Error },
}

/// The folders and files of one node.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Set when everything lives under one folder (`BCAI_HOME` or `--home`).
    pub home: Option<PathBuf>,
    config: Vec<PathBuf>,
    data: PathBuf,
    run: PathBuf,
}

impl Paths {
    /// The folders of `home`, or without one: root's under `/etc`, `/var/lib` and `/run`, others' XDG folders.
    pub fn find(home: Option<&Path>) -> Result<Self, PathsError> {
        match home {
            Some(home) => Self::under(home),
            None if rustix::process::geteuid().is_root() => Self::checked(Self {
                home: None,
                config: vec!["/etc/bcai/config.toml".into()],
                // Published data may be the only copy there is, so it lives with the state and
                // not under /var/cache, which administrators rightly wipe.
                data: "/var/lib/bcai".into(),
                run: "/run/bcai".into(),
            }),
            None => Self::of_user(),
        }
    }

    /// Everything under one folder, which need not exist yet.
    pub fn under(home: &Path) -> Result<Self, PathsError> {
        // The daemon leaves the caller's directory, so a relative home must be settled here.
        let home =
            std::path::absolute(home).map_err(|source| PathsError::Unusable { path: home.into(), source })?;
        Self::checked(Self {
            config: vec![home.join("config.toml")],
            data: home.clone(),
            run: home.join("run"),
            home: Some(home),
        })
    }

    fn of_user() -> Result<Self, PathsError> {
        let base = etcetera::choose_base_strategy().map_err(|_| PathsError::NoHome)?;
        let data = base.data_dir().join("bcai");
        // Not $XDG_RUNTIME_DIR: it is another one, or none, in a cron job and after a new login, and a second set of
        // lock and socket would hide the daemon that is running.
        let run = data.join("run");
        let user = base.config_dir().join("bcai/config.toml");
        Self::checked(Self { home: None, config: vec!["/etc/bcai/config.toml".into(), user], data, run })
    }

    fn checked(self) -> Result<Self, PathsError> {
        let socket = self.socket();
        if socket.as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(PathsError::SocketPathTooLong { path: socket });
        }
        Ok(self)
    }

    /// Creates the folders a daemon writes to, closed to other users.
    pub fn create(&self) -> Result<(), PathsError> {
        use std::os::unix::fs::DirBuilderExt;
        use std::os::unix::fs::PermissionsExt;
        let create = |dir: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        // A home may be a folder that the user made with other things in it; what is in these is ours alone.
        let close = |dir: &Path| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
        for dir in [&self.run, &self.networks(), &self.store()] {
            create(dir)
                .and_then(|()| close(dir))
                .map_err(|source| PathsError::Unusable { path: dir.clone(), source })?;
        }
        Ok(())
    }

    /// Configuration files, the least specific first.
    pub fn config_files(&self) -> Vec<PathBuf> {
        self.config.clone()
    }

    /// The file that `bcai init` writes.
    pub fn user_config(&self) -> &Path {
        // Every constructor lists at least one file.
        &self.config[self.config.len() - 1]
    }

    /// The node's secret key.
    pub fn identity(&self) -> PathBuf {
        self.data.join("identity.key")
    }

    /// The key that is about to take its place.
    pub fn next_identity(&self) -> PathBuf {
        self.data.join("identity.key.next")
    }

    /// An earlier key of this node that still votes.
    pub fn voting_key(&self) -> PathBuf {
        self.data.join("voting.key")
    }

    /// The keys of encrypted datasets.
    pub fn dataset_keys(&self) -> PathBuf {
        self.data.join("dataset.keys")
    }

    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// One file per network that this node follows, and the consensus logs of those it validates.
    pub fn networks(&self) -> PathBuf {
        self.data.join("networks")
    }

    /// Small facts that outlive the daemon: mounts to restore, the port once chosen, the default network.
    pub fn state(&self) -> PathBuf {
        self.data.join("state.json")
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// Held by the running daemon; contains its process id.
    pub fn lock(&self) -> PathBuf {
        self.run.join("daemon.lock")
    }

    /// What a daemon in the background prints.
    pub fn daemon_log(&self) -> PathBuf {
        self.run.join("daemon.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_holds_everything() {
        let paths = Paths::under(Path::new("/srv/node")).unwrap();
        for path in
            [paths.identity(), paths.store(), paths.socket(), paths.state(), paths.user_config().into()]
        {
            assert!(path.starts_with("/srv/node"), "{}", path.display());
        }
    }

    #[test]
    fn a_home_too_long_for_a_socket_is_refused_by_name() {
        let long = PathBuf::from("/").join("x".repeat(120));
        assert!(matches!(Paths::under(&long), Err(PathsError::SocketPathTooLong { .. })));
    }
}
