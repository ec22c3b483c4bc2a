//! The passphrase of this node's keys.
//!
//! Owns: where it comes from: the environment, a file, the terminal; and how a starting daemon is told.
//! Must not know: how keys are locked.
//! Invariant: it is never shown, never an argument of a program, and never in the environment of one unless the user put it there.
//! Trust: as `cli`. Threads: the main thread, which waits for the user.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Child;

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::Context;
use crate::node::{Error, Kind, Passphrase, is_key_locked};

const VARIABLE: &str = "BCAI_PASSPHRASE";
const FILE_VARIABLE: &str = "BCAI_PASSPHRASE_FILE";
/// More than anybody types.
const MAX_LEN: u64 = 4096;

/// The passphrase that the environment gives, if it does.
pub fn given() -> Result<Option<Passphrase>, Error> {
    if let Ok(text) = std::env::var(VARIABLE) {
        return Ok(Some(Passphrase::new(text)));
    }
    let Some(path) = std::env::var_os(FILE_VARIABLE) else { return Ok(None) };
    let mut text = Zeroizing::new(String::new());
    let read = File::open(&path).and_then(|file| file.take(MAX_LEN).read_to_string(&mut text));
    read.map_err(|error| Error::io("cannot read the passphrase in", path.as_ref(), error))?;
    Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
}

/// The terminal of this process, if it has one.
fn terminal() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok().filter(|file| isatty(file))
}

/// Shows what is typed again when it goes.
struct Silence<'a>(&'a File, Termios);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

/// One line typed at the terminal, which is not shown.
fn ask(terminal: &File, question: &str) -> Result<Passphrase, Error> {
    let failed = |error: std::io::Error| Error::io("cannot ask at", "/dev/tty".as_ref(), error);
    let shown = tcgetattr(terminal).map_err(|error| failed(error.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(terminal, OptionalActions::Flush, &hidden).map_err(|error| failed(error.into()))?;
    let _silence = Silence(terminal, shown);
    let mut writer = terminal;
    write!(writer, "{question}: ").map_err(failed)?;
    let line = line(terminal).map_err(failed)?;
    let _ = writeln!(writer);
    line.ok_or_else(|| Error::new(Kind::Failed, "no passphrase was typed"))
}

/// The next line without its end; nothing if there is none.
fn line(from: impl Read) -> std::io::Result<Option<Passphrase>> {
    let mut line = Zeroizing::new(String::new());
    let read = BufReader::new(from.take(MAX_LEN)).read_line(&mut line)?;
    Ok((read > 0).then(|| Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned())))
}

fn none_given() -> Error {
    Error::new(Kind::Denied, "a passphrase is needed, and there is no terminal to ask at")
        .hint(format!("run it in a terminal, or set {VARIABLE}, or {FILE_VARIABLE} to a file that holds it"))
}

/// The passphrase that keys are locked with.
pub fn present() -> Result<Passphrase, Error> {
    match given()? {
        Some(passphrase) => Ok(passphrase),
        None => ask(&terminal().ok_or_else(none_given)?, "passphrase of this node's keys"),
    }
}

/// One that keys are to be locked with: asked for twice, or the one that the environment gives, if that is not the one that they are
/// locked with now.
pub fn new(ctx: &Context) -> Result<Passphrase, Error> {
    if let Some(given) = given()?.filter(|given| !given.is_empty() && !is_key_locked(&ctx.paths)) {
        return Ok(given);
    }
    let terminal = terminal().ok_or_else(none_given)?;
    let first = ask(&terminal, "new passphrase")?;
    if first.is_empty() {
        return Err(Error::usage("an empty passphrase locks nothing"));
    }
    if ask(&terminal, "the same again")? != first {
        return Err(Error::usage("the two were not the same; nothing was changed"));
    }
    Ok(first)
}

/// What a daemon that is about to be started in the background must be told, because it can ask nobody and finds nothing in its
/// environment.
pub fn for_daemon(ctx: &Context) -> Result<Option<Passphrase>, Error> {
    if !is_key_locked(&ctx.paths) || given()?.is_some() {
        return Ok(None);
    }
    ask(&terminal().ok_or_else(none_given)?, "passphrase of this node's keys").map(Some)
}

/// Tells it.
pub fn tell(daemon: &mut Child, passphrase: &Passphrase) {
    // One that has ended already says why in its log.
    if let Some(mut stdin) = daemon.stdin.take() {
        let _ = writeln!(stdin, "{}", passphrase.as_str());
    }
}

/// What the daemon is told by its supervisor, which was given it.
pub fn told(secret: Option<&Zeroizing<Vec<u8>>>) -> Result<Option<Passphrase>, Error> {
    let text = secret.map(|secret| std::str::from_utf8(secret).map(|text| Zeroizing::new(text.to_owned())));
    text.transpose().map_err(|error| Error::new(Kind::Failed, format!("the passphrase is no text: {error}")))
}

/// What the supervisor is given for its daemons: by its environment, at its terminal, or by who started it.
pub fn of_daemon(ctx: &Context) -> Result<Option<Passphrase>, Error> {
    if !is_key_locked(&ctx.paths) {
        return Ok(None);
    }
    if let Some(passphrase) = given()? {
        return Ok(Some(passphrase));
    }
    let stdin = std::io::stdin();
    if isatty(&stdin) {
        return present().map(Some);
    }
    // The end of nothing, for one that was started by other means: then the keys say what is missing.
    line(stdin.lock())
        .map_err(|error| Error::new(Kind::Failed, format!("cannot read the passphrase: {error}")))
}
