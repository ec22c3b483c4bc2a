//! What everybody does who has no swarm: download from the source.
//!
//! Owns: the server and the downloads.
//! Must not know: bcai. Invariant: a download counts only if it was whole.
//! Trust: `python3` and `curl` of this machine. Threads: one for each receiver.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, bail, ensure};

use super::Settings;
use super::field::{Field, SOURCE};
use crate::measure::{median, seconds};
use crate::scratch::Scratch;

const PORT: &str = "8000";

/// The server, killed when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended by itself is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Seconds of one receiver alone, and of the last of all, for the one file in `dir`.
pub fn run(scratch: &Scratch, field: &Field, settings: Settings, dir: &Path) -> anyhow::Result<(f64, f64)> {
    let command = |node: usize, program: &str, args: &[&str]| {
        let enter = field.lan.enter(node);
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).arg(program).args(args);
        command
    };
    let mut server = command(SOURCE, "python3", &["-m", "http.server", PORT, "--directory"]);
    server.arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(server.spawn().context("cannot run python3")?);
    let url = format!("http://{}:{PORT}/00000.bin", field.lan.address(SOURCE));
    let download = |node: usize| {
        let wanted = settings.size.to_string();
        let args = ["-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"];
        let mut curl = command(node, "curl", &args);
        curl.args(["-o", "/dev/null", "-w", "%{size_download}", &url]);
        let done = scratch.stop.output(&mut curl)?;
        ensure!(done.status.success(), "curl: {}", String::from_utf8_lossy(&done.stderr).trim());
        ensure!(done.stdout == wanted.as_bytes(), "curl has not downloaded {wanted} bytes");
        Ok(())
    };
    // The first waits for the server, which starts slowly.
    download(1)?;
    let (mut alone, mut all) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        alone.push(seconds(|| download(1))?.1);
        let begin = Barrier::new(settings.receivers.into());
        let slowest = thread::scope(|scope| {
            let one = |node| {
                let (begin, download) = (&begin, &download);
                scope.spawn(move || -> anyhow::Result<f64> {
                    begin.wait();
                    Ok(seconds(|| download(node))?.1)
                })
            };
            let threads: Vec<_> = (1..=usize::from(settings.receivers)).map(one).collect();
            let mut slowest = 0.0f64;
            for thread in threads {
                let Ok(taken) = thread.join() else { bail!("a download panicked") };
                slowest = slowest.max(taken?);
            }
            Ok(slowest)
        })?;
        all.push(slowest);
    }
    Ok((median(&alone), median(&all)))
}
