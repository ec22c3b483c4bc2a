//! `bcai completions`.
//!
//! Owns: nothing but the call of the generator.
//! Must not know: any command; they describe themselves.
//! Invariant: what it prints matches the commands of this very program.
//! Trust: no input. Threads: the main thread.

use clap::Args;

use crate::node::Error;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bcai completions bash > /etc/bash_completion.d/bcai")]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn run(self) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::definition(), "bcai", &mut script);
        super::output::print(String::from_utf8_lossy(&script).trim_end());
        Ok(())
    }
}
