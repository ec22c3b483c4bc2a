//! The process of the supervisor.
//!
//! Owns: the start of daemons, when to start another and when to give up, what is kept from one to the next.
//! Must not know: what they do; messages come through `wire`.
//! Invariant: as long as it runs, there is a daemon, or one is about to be started. What is kept is what the daemons asked for, to
//! the last message of one that died.
//! Trust: as `supervisor`.
//! Threads: one, which waits for three things: a signal, a message, the end of the daemon. It needs no memory for any of them but
//! the messages themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use zeroize::Zeroizing;

use super::wire::{self, Kept, Message};
use super::{RESTART, SupervisorError};

/// A daemon that dies is started again at once, unless so many have died within `RECENT`: then after `PAUSE`.
const BURST: usize = 10;
const RECENT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// After a daemon that ended before it was ready, the next one is waited with, twice as long each time, up to `LONGEST`.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// After so many in a row there is no point in going on, and none in letting the users of mounts wait. With the pauses that is
/// more than a minute.
const MAX_FAILED: u32 = 12;
/// Things kept; each mount is one.
const MAX_KEPT: usize = 1024;

/// How to start a daemon.
pub struct Plan {
    /// The path counts and not the file that it leads to now: an upgrade puts another one there.
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Holds the lock of the node's folders. Each daemon is given it too, so it is held as long as either of the two lives.
    pub lock: OwnedFd,
    /// What unlocks the node's keys.
    pub secret: Option<Zeroizing<Vec<u8>>>,
}

/// How a daemon ended.
struct Ended {
    /// None if it was killed, or could not even be started.
    code: Option<u8>,
    words: String,
    was_ready: bool,
}

struct Supervisor {
    plan: Plan,
    signals: UnixStream,
    kept: BTreeMap<u64, Kept>,
    /// The user wants an end.
    is_stopping: bool,
}

/// Runs daemons until one was stopped, or none can be started. Gives the code to exit with: that of the last.
pub fn run(plan: Plan) -> Result<u8, SupervisorError> {
    let (signals, sender) = UnixStream::pair()?;
    signals.set_nonblocking(true)?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    let mut supervisor = Supervisor { plan, signals, kept: BTreeMap::new(), is_stopping: false };
    let (mut deaths, mut failed, mut before) = (VecDeque::new(), 0, String::new());
    loop {
        let ended = supervisor.one(&before);
        let code = ended.code.unwrap_or(1);
        let is_first = before.is_empty();
        before = ended.words;
        failed = if ended.was_ready { 0 } else { failed + 1 };
        let is_over = code == 0 || supervisor.is_stopping;
        if is_over || failed > MAX_FAILED || (is_first && !ended.was_ready) {
            return Ok(code);
        }
        if ended.code != Some(RESTART) && !supervisor.wait(pause(&mut deaths, failed))? {
            return Ok(code);
        }
    }
}

/// How long to wait before the next daemon, after one more has died.
fn pause(deaths: &mut VecDeque<Instant>, failed: u32) -> Duration {
    let now = Instant::now();
    deaths.push_back(now);
    deaths.retain(|death| now.duration_since(*death) < RECENT);
    match failed {
        0 if deaths.len() <= BURST => Duration::ZERO,
        0 => PAUSE,
        failed => LONGEST.min(SHORTEST * 2u32.saturating_pow(failed - 1)),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(RESTART) => "was restarted".to_owned(),
        (Some(code), _) => format!("failed with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

impl Supervisor {
    /// Starts one daemon and waits for its end.
    fn one(&mut self, before: &str) -> Ended {
        let mut was_ready = false;
        match self.start_and_attend(before, &mut was_ready) {
            Ok(status) => {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                Ended { code, words: describe(status), was_ready }
            }
            Err(error) => Ended { code: None, words: error.to_string(), was_ready },
        }
    }

    fn start_and_attend(
        &mut self,
        before: &str,
        was_ready: &mut bool,
    ) -> Result<ExitStatus, SupervisorError> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        let mut command = Command::new(&self.plan.program);
        command.args(&self.plan.args).stdin(Stdio::from(theirs)).stdout(Stdio::null()).current_dir("/");
        let mut child = command.spawn()?;
        // The command has the daemon's end of the socket: with it, the end of the daemon would not be heard.
        drop(command);
        // One that was told half of it waits for the rest for ever. One that has died already is found below.
        let greeted = self.greet(&ours, before);
        let attended = greeted.and_then(|()| self.attend(&ours, &child, was_ready));
        if attended.is_err() {
            // Nobody would hear of its end, and the next one must not find it at work.
            let _ = child.kill();
        }
        Ok(child.wait()?)
    }

    fn greet(&self, daemon: &OwnedFd, before: &str) -> Result<(), SupervisorError> {
        let lock = self.plan.lock.try_clone()?;
        let hello = Kept { id: 0, bytes: before.as_bytes().to_vec(), fds: vec![lock] };
        wire::send(daemon, &Message::Hello(hello))?;
        if let Some(secret) = &self.plan.secret {
            let mut message = Message::Secret(secret.to_vec());
            let sent = wire::send(daemon, &message);
            if let Message::Secret(bytes) = &mut message {
                zeroize::Zeroize::zeroize(bytes);
            }
            sent?;
        }
        for kept in self.kept.values() {
            let fds = kept.fds.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
            let kept = Kept { id: kept.id, bytes: kept.bytes.clone(), fds };
            wire::send(daemon, &Message::Keep(kept))?;
        }
        wire::send(daemon, &Message::Ready)
    }

    /// Does what a daemon asks for until it has died.
    fn attend(
        &mut self,
        daemon: &OwnedFd,
        child: &Child,
        was_ready: &mut bool,
    ) -> Result<(), SupervisorError> {
        // The id of a child fits and is not 0, as the kernel gave it.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(SupervisorError::Malformed)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let mut hears = true;
        loop {
            let mut sources = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&process, PollFlags::IN),
                PollFd::new(daemon, PollFlags::IN),
            ];
            // A socket at its end would always be ready.
            let waited_for = if hears { 3 } else { 2 };
            match poll(&mut sources[..waited_for], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            let [signals, end, messages] = sources.map(|source| !source.revents().is_empty());
            if messages {
                // To the last one, also of a daemon that has died.
                match wire::receive(daemon) {
                    Ok(Some(message)) => *was_ready |= self.take(message),
                    Ok(None) => hears = false,
                    Err(SupervisorError::Malformed) => {}
                    Err(error) => return Err(error),
                }
            } else if end {
                return Ok(());
            }
            if signals && self.take_signals() {
                // It may be gone by now.
                let _ = pidfd_send_signal(&process, Signal::TERM);
            }
        }
    }

    /// Whether the daemon says that it is ready.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Ready => return true,
            Message::Drop(id) => drop(self.kept.remove(&id)),
            Message::Keep(new) => {
                if let Some(kept) = self.kept.get_mut(&new.id) {
                    kept.bytes = new.bytes;
                    if !new.fds.is_empty() {
                        kept.fds = new.fds;
                    }
                } else if self.kept.len() < MAX_KEPT {
                    self.kept.insert(new.id, new);
                }
            }
            Message::Hello(_) | Message::Secret(_) => {}
        }
        false
    }

    /// Whether the user wants an end.
    fn take_signals(&mut self) -> bool {
        let mut bytes = [0; 16];
        let asked = matches!((&self.signals).read(&mut bytes), Ok(read) if read > 0);
        self.is_stopping |= asked;
        asked
    }

    /// Waits, unless the user wants an end: then false.
    fn wait(&mut self, pause: Duration) -> Result<bool, SupervisorError> {
        let until = Instant::now() + pause;
        while !self.is_stopping && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let left = left.try_into().map_err(|_| SupervisorError::Malformed)?;
            let mut sources = [PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut sources, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            self.take_signals();
        }
        Ok(!self.is_stopping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_death_costs_no_time_and_many_do() {
        let mut deaths = VecDeque::new();
        for _ in 0..BURST {
            assert_eq!(pause(&mut deaths, 0), Duration::ZERO);
        }
        assert_eq!(pause(&mut deaths, 0), PAUSE);
        let mut deaths = VecDeque::new();
        let pauses: Vec<_> = (1..=MAX_FAILED).map(|failed| pause(&mut deaths, failed)).collect();
        assert_eq!((pauses[0], pauses[11]), (SHORTEST, LONGEST));
        assert!(pauses.iter().sum::<Duration>() > Duration::from_secs(60));
    }

    fn plan(script: &str) -> Plan {
        let lock = std::fs::File::open("/dev/null").unwrap().into();
        Plan { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], lock, secret: None }
    }

    #[test]
    fn a_daemon_that_never_was_ready_is_not_started_again() {
        assert_eq!(run(plan("exit 13")).unwrap(), 13);
        assert_eq!(run(plan("exit 0")).unwrap(), 0);
        assert_eq!(run(plan("kill -9 $$")).unwrap(), 1);
    }
}
