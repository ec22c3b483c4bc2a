//! The command line: one file per command.
//!
//! Owns: arguments, exit codes, what is printed where.
//! Must not know: how anything is done; every command asks the daemon through `api`.
//! Invariant: results go to stdout, everything else to stderr; every failure leaves through `report`.
//! Trust: arguments are the user's; names from datasets are escaped before they reach a terminal.
//! Threads: the main thread; the daemon command starts its own runtime.

mod alerts;
mod bugreport;
mod bundle;
mod cache;
mod cat;
mod completions;
mod daemon;
mod demo;
mod diff;
mod doctor;
mod export;
mod gc;
mod init;
mod keys;
mod list;
mod log;
mod ls;
mod man;
mod mount;
mod mount_helper;
mod notify;
mod output;
mod passphrase;
mod peers;
mod pin;
mod prefetch;
mod publish;
mod remount;
mod restart;
mod snapshot;
mod status;
mod stop;
mod tag;
mod top;
mod trace;
mod unmount;
mod validator;
mod verify;
mod yank;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::OsStringValueParser;
use clap::{CommandFactory, Parser, Subcommand, ValueHint};

use crate::config::{Config, Paths};
use crate::node::{Error, Kind};
pub use man::pages;
use output::Output;

/// Versioned datasets as ordinary files, fetched from peers and verified against a signed log.
#[derive(Debug, Parser)]
#[command(name = "bcai", version = VERSION, max_term_width = 100, after_help = EXAMPLES_AND_EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Keep everything this node owns under one folder
    #[arg(long, global = true, env = "BCAI_HOME", value_name = "DIR", value_parser = OsStringValueParser::new(), value_hint = ValueHint::DirPath)]
    home: Option<OsString>,

    /// Set a configuration key for this run (see CONFIGURATION in bcai(1))
    #[arg(short, long = "config", global = true, value_name = "KEY=VALUE")]
    config: Vec<String>,

    /// Print one JSON document instead of text, and progress as JSON lines on stderr
    #[arg(long, global = true)]
    json: bool,

    /// Print no progress and no confirmations
    #[arg(short, long, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

/// The version, and of a release build the commit that it was built from (`build.rs`).
const VERSION: &str = env!("PROGRAM_VERSION");

const EXAMPLES_AND_EXIT_CODES: &str = "Examples:\n  bcai init\n  bcai publish ./photos photos@v1\n  bcai mount photos@v1 /mnt/photos\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 10 not found, 11 busy or locked, 12 not allowed, \
13 failed verification, 14 unreachable or timed out.";

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Daemon(daemon::Daemon),
    Stop(stop::Stop),
    Restart(restart::Restart),
    Snapshot(snapshot::Snapshot),
    Publish(publish::Publish),
    Tag(tag::Tag),
    Yank(yank::Yank),
    Mount(mount::Mount),
    Remount(remount::Remount),
    Unmount(unmount::Unmount),
    List(list::List),
    Log(log::Log),
    Ls(ls::Ls),
    Cat(cat::Cat),
    Export(export::Export),
    Bundle(bundle::Bundle),
    Diff(diff::Diff),
    Prefetch(prefetch::Prefetch),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Cache(cache::Cache),
    Gc(gc::Gc),
    Verify(verify::Verify),
    Keys(keys::Keys),
    Validator(validator::Validator),
    Status(status::Status),
    Top(top::Top),
    Trace(trace::Trace),
    Peers(peers::Peers),
    Alerts(alerts::Alerts),
    Doctor(doctor::Doctor),
    Bugreport(bugreport::Bugreport),
    Demo(demo::Demo),
    Completions(completions::Completions),
    Man(man::Man),
}

/// What every command needs: where the node lives, its settings, and how to print.
struct Context {
    paths: Paths,
    config: Config,
    flags: Vec<String>,
    output: Output,
}

/// Runs the command of this process and returns its exit code.
pub fn main() -> ExitCode {
    if let Some(code) = mount_helper::main() {
        return code;
    }
    let cli = Cli::parse();
    let output = Output { json: cli.json, quiet: cli.quiet };
    match run(cli) {
        Ok(code) => code,
        Err(error) => report(&output, &error),
    }
}

/// The definition of the command line, from which pages and completions are generated.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The same for this program as the helper of mount(8).
fn helper_definition() -> clap::Command {
    mount_helper::Helper::command()
}

fn run(cli: Cli) -> Result<ExitCode, Error> {
    let Cli { home, config, json, quiet, command } = cli;
    let output = Output { json, quiet };
    // A variable that is empty is none.
    let home = home.filter(|home| !home.is_empty()).map(PathBuf::from);
    let done = |result: Result<(), Error>| result.map(|()| ExitCode::SUCCESS);
    // Read by each command that needs it: the last ones help those whose settings are broken.
    let ctx = || Context::load(home.as_deref(), config.clone(), output);
    match command {
        Command::Init(command) => done(command.run(&ctx()?)),
        Command::Daemon(command) => command.run(ctx()?),
        Command::Stop(command) => done(command.run(&ctx()?)),
        Command::Restart(command) => done(command.run(&ctx()?)),
        Command::Snapshot(command) => done(command.run(&ctx()?)),
        Command::Publish(command) => done(command.run(&ctx()?)),
        Command::Tag(command) => done(command.run(&ctx()?)),
        Command::Yank(command) => done(command.run(&ctx()?)),
        Command::Mount(command) => done(command.run(&ctx()?)),
        Command::Remount(command) => done(command.run(&ctx()?)),
        Command::Unmount(command) => done(command.run(&ctx()?)),
        Command::List(command) => done(command.run(&ctx()?)),
        Command::Log(command) => done(command.run(&ctx()?)),
        Command::Ls(command) => done(command.run(&ctx()?)),
        Command::Cat(command) => done(command.run(&ctx()?)),
        Command::Diff(command) => done(command.run(&ctx()?)),
        Command::Export(command) => done(command.run(&ctx()?)),
        Command::Bundle(command) => done(command.run(&ctx()?)),
        Command::Prefetch(command) => command.run(&ctx()?),
        Command::Pin(command) => done(command.run(&ctx()?)),
        Command::Unpin(command) => done(command.run(&ctx()?)),
        Command::Cache(command) => done(command.run(&ctx()?)),
        Command::Gc(command) => done(command.run(&ctx()?)),
        Command::Verify(command) => command.run(ctx, output),
        Command::Validator(command) => done(command.run(&ctx()?)),
        Command::Keys(command) => command.run(&ctx()?),
        Command::Status(command) => done(command.run(&ctx()?)),
        Command::Top(command) => done(command.run(&ctx()?)),
        Command::Trace(command) => done(command.run(&ctx()?)),
        Command::Peers(command) => done(command.run(&ctx()?)),
        Command::Alerts(command) => done(command.run(&ctx()?)),
        Command::Demo(command) => done(command.run(&ctx()?)),
        Command::Doctor(command) => command.run(ctx(), output),
        Command::Bugreport(command) => done(command.run(ctx(), output)),
        Command::Completions(command) => done(command.run()),
        Command::Man(command) => done(command.run()),
    }
}

impl Context {
    fn load(home: Option<&Path>, flags: Vec<String>, output: Output) -> Result<Self, Error> {
        let paths = Paths::find(home)?;
        let config = Config::load(&paths, std::env::vars_os(), &flags)?;
        Ok(Self { paths, config, flags, output })
    }
}

/// Prints a failure for whoever is listening, and settles the exit code.
fn report(output: &Output, error: &Error) -> ExitCode {
    output.note_always(&format!("bcai: {}", output::safe_lines(&error.message)));
    if let Some(hint) = &error.hint {
        output.note_always(&format!("  {}", output::safe_lines(hint)));
    }
    if output.json {
        output.json_line(&serde_json::json!({ "error": error }));
    }
    exit_code(error.kind)
}

fn exit_code(kind: Kind) -> ExitCode {
    ExitCode::from(kind as u8)
}
