//! The end that the user asks for, by Ctrl-C or SIGTERM.
//!
//! Owns: the one flag that everything looks at, and the processes that are told to end with us.
//! Must not know: what is being done.
//! Invariant: after a signal `check` fails for ever and no process is started that would outlive it unnoticed.
//! Whoever owns mounts, daemons or files removes them when it is dropped, on the way out.
//! Trust: the user. Threads: any; one of its own waits for signals.

use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

/// Shared by everything that can take long.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: AtomicBool,
    /// What runs now, by a number of ours: a descriptor cannot come to mean another process, as a pid can.
    children: Mutex<Vec<(u64, OwnedFd)>>,
    next: AtomicU64,
}

impl Stop {
    /// Fails once the user wants an end.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.asked.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Asks for the end.
    pub fn now(&self) {
        let children = self.children();
        self.0.asked.store(true, Ordering::Relaxed);
        for (_, child) in children.iter() {
            // One that has ended by itself is what we want.
            let _ = pidfd_send_signal(child, Signal::TERM);
        }
    }

    /// Runs a process to its end, which is near once the user wants an end.
    pub fn output(&self, command: &mut Command) -> anyhow::Result<Output> {
        let name = command.get_program().display().to_string();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let child = {
            // Whoever asks for the end either comes before this and is heeded, or finds the child in the list.
            let mut children = self.children();
            self.check()?;
            let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
            // The id of a child is never 0 and fits, as the kernel gave it.
            let pid = Pid::from_raw(child.id() as i32).context("a process without a number")?;
            let handle = pidfd_open(pid, PidfdFlags::empty());
            children.push((number, handle.with_context(|| format!("cannot watch {name}"))?));
            child
        };
        let output = child.wait_with_output();
        self.children().retain(|(other, _)| *other != number);
        self.check()?;
        output.with_context(|| format!("cannot run {name}"))
    }

    fn children(&self) -> MutexGuard<'_, Vec<(u64, OwnedFd)>> {
        // A list that lacks or keeps an entry of a thread that panicked is still a list.
        self.0.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From now on SIGINT and SIGTERM ask for the end instead of being it.
pub fn on_signals() -> anyhow::Result<Stop> {
    let stop = Stop::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let asked = stop.clone();
    let wait = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                eprintln!("bcai-tools: cleaning up");
                asked.now();
            }
        })
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_when_the_user_wants_it() {
        let stop = Stop::default();
        let other = stop.clone();
        let running = thread::spawn(move || other.output(Command::new("sleep").arg("600")));
        while stop.children().is_empty() {
            thread::yield_now();
        }
        stop.now();
        assert!(running.join().expect("joins").is_err());
        assert!(stop.output(&mut Command::new("true")).is_err(), "nothing new is started");
    }
}
