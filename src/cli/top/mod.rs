//! `bcai top`.
//!
//! Owns: the terminal while it runs, its keys, and when the node is asked.
//! Must not know: what is shown where (`screen`).
//! Invariant: the terminal is what it was when the command ends, however it ends. Never starts a node just to look at it.
//! Trust: as `cli`. Threads: the main thread.

mod screen;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::Context;
use crate::api::{Client, route};
use crate::node::report::Status;
use crate::node::{Error, Kind, Node};
use screen::{Moment, Screen};

/// How often the node is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer of the node is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a key is waited for at a time.
const POLL: Duration = Duration::from_millis(100);

/// Watch the node: mounts, reads, cache, transfers, peers, logs and alerts, every second
///
/// Keys: q, Esc or Ctrl-C ends it; space holds the picture and lets it go on; the arrows, Page Up, Page Down, Home and End move in
/// it. 80 columns are enough, and fewer will do; with NO_COLOR set it has no colours. Rates are those of the last second, of peers those of
/// the last three, as the bytes travel.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai top\n  NO_COLOR=1 bcai top")]
pub struct Top {}

impl Top {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        if ctx.output.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(Error::usage("bcai top needs a terminal")
                .hint("`bcai --json status` and the metrics of the daemon are for programs"));
        }
        if Node::running(&ctx.paths)?.is_none() {
            return Err(Error::new(Kind::NotFound, "no node is running").hint("start it with `bcai daemon`"));
        }
        let client = Client::new(&ctx.paths.socket());
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let failed = |error| Error::new(Kind::Failed, format!("the terminal cannot be used: {error}"));
        // Whoever ends it from elsewhere gets the terminal back as well.
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGTERM] {
            signal_hook::flag::register(signal, stop.clone()).map_err(failed)?;
        }
        let ended = ratatui::try_init()
            .map_err(failed)
            .and_then(|mut terminal| watch(ctx, &client, &mut terminal, Screen::new(colour), &stop));
        // Also when it is gone: then there is nobody to tell.
        let _ = ratatui::try_restore();
        ended
    }
}

/// What comes from the terminal.
enum Keys {
    None,
    Pressed,
    /// The terminal is no more.
    Gone,
}

/// Waits for a key. That the terminal is gone is found out here: whoever reads from it then gets nothing, again and again.
fn keys(within: Duration) -> io::Result<Keys> {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    let within = Timespec::try_from(within).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&within)) {
        // A signal, which the caller looks for.
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(Keys::None),
        Ok(_) if polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => Ok(Keys::Gone),
        Ok(_) => Ok(Keys::Pressed),
        Err(error) => Err(error.into()),
    }
}

fn watch(
    ctx: &Context,
    client: &Client,
    terminal: &mut ratatui::DefaultTerminal,
    mut screen: Screen,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::new(Kind::Failed, format!("the terminal cannot be used: {error}"));
    let mut asked: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        if !screen.is_held() && asked.is_none_or(|at| at.elapsed() >= EVERY) {
            asked = Some(Instant::now());
            // A node that is away for a moment, as in an upgrade, is waited for.
            let status = ctx.block_on(async {
                let asked = client.get::<Status>(route::STATUS);
                let silent = |_| Error::new(Kind::Unreachable, "the node does not answer");
                tokio::time::timeout(PATIENCE, asked).await.map_err(silent)?
            });
            screen.see(Moment { at: Instant::now(), status: status.map_err(|error| error.message) });
        }
        terminal.draw(|frame| screen.draw(frame)).map_err(failed)?;
        let within = match keys(POLL).map_err(failed)? {
            Keys::Gone => return Ok(()),
            Keys::Pressed => POLL,
            // Of several that came together all but the first wait within the library, and so does a change of size.
            Keys::None => Duration::ZERO,
        };
        if !event::poll(within).map_err(failed)? {
            continue;
        }
        let Event::Key(key) = event::read().map_err(failed)? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
            KeyCode::Char(' ') => screen.hold(),
            KeyCode::Up => screen.scroll(-1),
            KeyCode::Down => screen.scroll(1),
            KeyCode::PageUp => screen.scroll(-10),
            KeyCode::PageDown => screen.scroll(10),
            KeyCode::Home => screen.scroll(i32::MIN),
            KeyCode::End => screen.scroll(i32::MAX),
            _ => {}
        }
    }
    Ok(())
}
