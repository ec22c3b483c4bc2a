//! `bcai daemon`, and how every other command gets hold of one.
//!
//! Owns: starting the supervisor, which starts the node, in the background; waiting until it answers, its logging.
//! Must not know: what the node does.
//! Invariant: when `connect` returns, a daemon answers on this node's socket, and there is only one.
//! Trust: as `cli`.
//! Threads: builds the daemon's runtime; otherwise the main thread. A crash leaves a socket that the next start replaces.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use super::{Context, notify, passphrase};
use crate::api::{Client, serve, serve_page};
use crate::config::{Config, LogFormat};
use crate::node::{Error, Kind, Node, Passphrase, last_words};
use crate::supervisor::{self, Keeper, RESTART, SupervisorError};

/// How long a daemon may take until it answers. Opening does not depend on the size of the cache;
/// a long log is replayed.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long clients are waited for at the end.
const ANSWERS: Duration = Duration::from_secs(5);
/// Threads for what waits for the disk or the kernel, at most. More would only queue there, and each has a stack of 0.15 MB.
const BLOCKING_THREADS: usize = 32;
/// The C library keeps what was freed in arenas, eight for each processor unless told otherwise. Objects are allocated
/// by one thread and freed by another: a node that had fetched a million small ones stayed at 330 MB, and with two
/// arenas below 100. With one, 64 peers and their transfers add 10 MB less than with two, and it takes no longer.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
/// At `info` these say several lines for every height and connection. Naming them in `log.level` brings them back.
const QUIETER: &str = "arc_malachitebft_core_consensus=warn,libp2p_swarm=warn";
const POLL: Duration = Duration::from_millis(10);

/// Start this machine's node
///
/// Other commands start it when they need it. It keeps the store, talks to peers and serves the mounts, until
/// `bcai stop`. Without --foreground the command returns when the node is ready.
///
/// A small process, the supervisor, starts it again when it dies. Since Linux 6.9 those who use its mounts notice nothing but a pause.
///
/// Where the node's keys are locked (`bcai keys passphrase`), the passphrase is asked for at the terminal, or taken from the environment
/// variable BCAI_PASSPHRASE or the file that BCAI_PASSPHRASE_FILE names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai daemon\n  bcai -c web.listen=127.0.0.1:7117 daemon --foreground")]
pub struct Daemon {
    /// Stay in the foreground and log to stderr
    #[arg(long)]
    foreground: bool,

    /// What the supervisor runs
    #[arg(long, hide = true)]
    supervised: bool,
}

impl Daemon {
    pub fn run(self, ctx: Context) -> Result<ExitCode, Error> {
        if self.supervised {
            return run_node(ctx);
        }
        if self.foreground {
            return supervise(&ctx);
        }
        if let Some(pid) = Node::running(&ctx.paths)? {
            return Err(already_running(pid));
        }
        ctx.block_on(async { connect(&ctx).await })?;
        let pid = Node::running(&ctx.paths)?;
        ctx.output.confirm(&serde_json::json!({ "pid": pid }), |_| "node is running".into());
        Ok(ExitCode::SUCCESS)
    }
}

fn already_running(pid: u32) -> Error {
    Error::new(Kind::Busy, format!("already running, pid {pid}"))
        .hint("`bcai status` shows it; `bcai restart` has it read its settings again, and `bcai stop` ends it, to start it with other words")
}

impl Context {
    /// Runs one asynchronous command to its end on this thread.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::new(Kind::Failed, format!("cannot start: {error}")))?;
        runtime.block_on(work)
    }

    /// Flags that only a starting daemon reads are no use to one that runs.
    fn note_idle_flags(&self) {
        // What an ingest needs travels with its request.
        let idle = self.flags.iter().find(|flag| !flag.starts_with("publish."));
        if let Some(flag) = idle {
            self.output
                .note(&format!("the node is running already; `-c {flag}` counts when it is next started"));
        }
    }

    /// Runs a command that talks to the daemon, started first if need be.
    pub fn with_daemon<T>(&self, work: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Error> {
        self.block_on(async { work(connect(self).await?).await })
    }
}

/// A client of this node's daemon, which is started when none runs.
pub(super) async fn connect(ctx: &Context) -> Result<Client, Error> {
    let client = Client::new(&ctx.paths.socket());
    if client.is_up().await {
        ctx.note_idle_flags();
        return Ok(client);
    }
    ctx.paths.create()?;
    let started = Instant::now();
    let passphrase = passphrase::for_daemon(ctx)?;
    let mut child = spawn(ctx, passphrase.as_ref())?;
    while !client.is_up().await {
        if let Ok(Some(_)) = child.process.try_wait() {
            let words = child.last_words();
            if words.kind != Kind::Busy {
                return Err(words);
            }
            // It lost against another daemon: one that starts will answer, one that is ending makes room.
            if !wait_for_rival(ctx, &client).await? {
                child = spawn(ctx, passphrase.as_ref())?;
            }
        }
        if started.elapsed() > START_DEADLINE {
            return Err(Error::new(Kind::Unreachable, "the daemon did not answer in time")
                .hint(format!("see {}", ctx.paths.daemon_log().display())));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(client)
}

/// Waits until the other daemon answers, or is gone.
async fn wait_for_rival(ctx: &Context, client: &Client) -> Result<bool, Error> {
    let started = Instant::now();
    while Node::running(&ctx.paths)?.is_some() && started.elapsed() < START_DEADLINE {
        if client.is_up().await {
            return Ok(true);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(false)
}

/// A daemon that was just started, and where in its log it began to write.
struct Starting {
    process: Child,
    log: File,
    from: u64,
}

fn spawn(ctx: &Context, passphrase: Option<&Passphrase>) -> Result<Starting, Error> {
    let path = ctx.paths.daemon_log();
    let open = || OpenOptions::new().create(true).append(true).read(true).open(&path);
    let mut log = open().map_err(|error| Error::io("cannot write", &path, error))?;
    let from = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let stderr = open().map_err(|error| Error::io("cannot write", &path, error))?;
    let program = own_program()?;
    let mut command = Command::new(&program);
    if std::env::var_os(ARENAS.0).is_none() {
        command.env(ARENAS.0, ARENAS.1);
    }
    command.args(words(ctx, "--foreground"));
    let stdin = if passphrase.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::null()).stderr(stderr);
    command.current_dir("/");
    let mut process = command.spawn().map_err(|error| Error::io("cannot start", &program, error))?;
    if let Some(passphrase) = passphrase {
        passphrase::tell(&mut process, passphrase);
    }
    Ok(Starting { process, log, from })
}

impl Starting {
    /// What the daemon said before it ended, as an error of its own kind.
    fn last_words(&mut self) -> Error {
        let code = self.process.wait().ok().and_then(|status| status.code());
        let mut said = String::new();
        let _ = self.log.seek(SeekFrom::Start(self.from)).and_then(|_| self.log.read_to_string(&mut said));
        let kind = Kind::of_exit_code(code);
        match last_words(&said) {
            Some(error) => {
                let message = format!("the daemon could not start: {}", error.message);
                Error { kind, message, ..error }
            }
            None => Error::new(kind, format!("the daemon ended at once: {}", said.trim())),
        }
    }
}

fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe()
        .map_err(|error| Error::new(Kind::Failed, format!("cannot find this program: {error}")))
}

/// How this node's daemon is started, in one of its forms.
fn words(ctx: &Context, form: &str) -> Vec<OsString> {
    let home = ctx.paths.home.iter().flat_map(|home| ["--home".into(), home.clone().into_os_string()]);
    let flags = ctx.flags.iter().flat_map(|flag| ["--config".into(), flag.into()]);
    home.chain(flags).chain(["daemon".into(), form.into()]).collect()
}

/// The supervisor: starts the daemon, and starts it again.
fn supervise(ctx: &Context) -> Result<ExitCode, Error> {
    // Before it leaves the session of the terminal at which it may have to ask.
    let passphrase = passphrase::of_daemon(ctx)?;
    // A session of its own, so that Ctrl-C at the terminal that happened to start it does not end it.
    // It fails for the leader of a foreground job, whose Ctrl-C should end it.
    let _ = rustix::process::setsid();
    // It keeps two for each mount.
    raise_file_limit();
    let lock = Node::lock(&ctx.paths)?;
    let held =
        lock.try_clone().map_err(|error| Error::new(Kind::Failed, format!("cannot start: {error}")))?;
    let plan = supervisor::Plan {
        program: own_program()?,
        args: words(ctx, "--supervised"),
        lock,
        secret: passphrase.map(|passphrase| Zeroizing::new(passphrase.as_bytes().to_vec())),
    };
    let code = supervisor::run(plan).map_err(failed)?;
    // Every start writes it, and nobody answers there now, nor begins to before the lock goes.
    let _ = std::fs::remove_file(ctx.paths.socket());
    drop(held);
    Ok(ExitCode::from(code))
}

fn failed(error: SupervisorError) -> Error {
    Error::new(Kind::Failed, error.to_string())
}

/// The daemon itself: opens the node, answers on the socket, and ends in order.
fn run_node(ctx: Context) -> Result<ExitCode, Error> {
    let (keeper, hello) = Keeper::begin().map_err(failed)?;
    let passphrase = passphrase::told(hello.secret.as_ref())?;
    // A Ctrl-C at the terminal is for the supervisor, which passes it on.
    let _ = rustix::process::setsid();
    start_logging(&ctx.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Error::new(Kind::Failed, format!("cannot start: {error}")))?;
    raise_file_limit();
    runtime.block_on(async {
        let interrupted = interrupted()?;
        let page = ctx.config.web;
        let (node, listener) = Node::start(ctx.paths, ctx.config, passphrase, keeper, hello).await?;
        let stop = node.stop_token();
        if let Some(address) = page {
            serve_page(address, node.clone(), stop.clone()).await;
        }
        let server = tokio::spawn(serve(listener, node.clone(), stop.clone()));
        notify::tell(notify::READY);
        tokio::select! {
            () = stop.cancelled() => {}
            () = interrupted => stop.cancel(),
        }
        // Clients that wait for an answer of a job get it, or the end of the connection.
        let answered = async { tokio::time::timeout(ANSWERS, server).await };
        if node.restarts() {
            // Meanwhile those who read mounts are served.
            let _ = answered.await;
            node.hand_over().await;
            // Nothing is taken apart: a question that is dropped would be answered with an error.
            std::process::exit(RESTART.into());
        }
        notify::tell(notify::STOPPING);
        node.shut_down().await;
        let _ = answered.await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Ends when the process is asked to. The handlers are installed at once: a signal that comes while the node is
/// still starting must not leave dead mounts behind.
fn interrupted() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let install = |kind| {
        signal(kind).map_err(|error| Error::new(Kind::Failed, format!("cannot wait for signals: {error}")))
    };
    let (mut term, mut int) = (install(SignalKind::terminate())?, install(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Packs, peers and mounts hold files open; the default limit of 1,024 is soon reached.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn start_logging(config: &Config) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{QUIETER},{}", config.log_level))
        .map_err(|error| Error::usage(format!("`log.level` is not a filter: {error}")))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Human => logs.with_ansi(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}
