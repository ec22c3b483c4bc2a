//! The supervisor: a small process that starts the daemon again when it dies, and meanwhile keeps what must not die with it.
//!
//! Owns: the process (`process`), the messages between it and the daemon (`wire`), the daemon's end of them (`keeper`).
//! Must not know: what a daemon does, what it is that is kept: bytes and descriptors, which the next daemon is given as they
//! are. So a supervisor of an older version serves a newer daemon.
//! Invariant: what is kept is handed to each daemon that is started, until one gives it up. There is one daemon at a time.
//! Trust: both processes are this program, run by the same user; messages are bounded and checked all the same.
//! Threads: none of its own. SIGKILL of the supervisor leaves a daemon that works on, and that nobody starts again.

mod keeper;
mod process;
mod wire;

pub use keeper::{Hello, Keeper};
pub use process::{Plan, run};
pub use wire::Kept;

/// With this the daemon ends to be started again at once, by `bcai restart`. 0 means that it was stopped; everything else that it
/// failed.
pub const RESTART: u8 = 75;

/// What went wrong between the two processes.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("a message between supervisor and daemon: {0}")]
    Io(#[from] std::io::Error),
    #[error("a message between supervisor and daemon that makes no sense")]
    Malformed,
    #[error("more is to be kept than fits in a message")]
    TooLarge,
    #[error("this process was not started by a supervisor")]
    NoSupervisor,
}
