//! One node of the demonstration, driven through its command line.
//!
//! Owns: the node's folders and the end of its daemon.
//! Must not know: the script.
//! Invariant: when it is dropped, its mounts are gone and its daemon has ended.
//! Trust: the program run is this very one. Threads: the script's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::de::DeserializeOwned;

use crate::node::{Error, Kind};

pub struct Site {
    home: PathBuf,
}

impl Site {
    pub fn new(home: PathBuf) -> Self {
        Self { home }
    }

    /// An empty directory of this site, to mount on.
    pub fn dir(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.home.with_extension(name);
        std::fs::create_dir_all(&dir).map_err(|error| Error::io("cannot create", &dir, error))?;
        Ok(dir)
    }

    /// Runs one command and takes its JSON result.
    pub fn json<T: DeserializeOwned>(&self, args: &[impl AsRef<OsStr>]) -> Result<T, Error> {
        let done = self.run(args)?;
        serde_json::from_slice(&done.stdout)
            .map_err(|error| Error::new(Kind::Failed, format!("cannot read what bcai printed: {error}")))
    }

    /// Runs one command; its failure is ours.
    pub fn run(&self, args: &[impl AsRef<OsStr>]) -> Result<Output, Error> {
        let done = self.command(args)?;
        if done.status.success() {
            return Ok(done);
        }
        #[derive(serde::Deserialize)]
        struct Failure {
            error: Error,
        }
        Err(match serde_json::from_slice::<Failure>(&done.stdout) {
            Ok(failure) => failure.error,
            Err(_) => Error::new(Kind::Failed, String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        })
    }

    fn command(&self, args: &[impl AsRef<OsStr>]) -> Result<Output, Error> {
        let program = std::env::current_exe()
            .map_err(|error| Error::new(Kind::Failed, format!("cannot find this program: {error}")))?;
        Command::new(&program)
            .arg("--home")
            .arg(&self.home)
            // Both nodes are on this machine: nothing needs to be heard by, or said to, anyone else.
            .args(["-c", "net.listen=/ip4/127.0.0.1/tcp/0", "-c", "net.mdns=false", "--json", "--quiet"])
            .args(args)
            .output()
            .map_err(|error| Error::io("cannot run", Path::new(&program), error))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The folder goes away next, so whatever is wrong with the daemon there is nothing else to do.
        if let Err(error) = self.run(&["stop"]) {
            eprintln!("bcai: {}: {error}", self.home.display());
        }
    }
}
