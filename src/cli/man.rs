//! `bcai man`, and the manual pages.
//!
//! Owns: the pages: one for `bcai`, one for each command and subcommand, made from the definition of the command line.
//! Must not know: any command.
//! Invariant: `man/` holds exactly what `pages` returns; a test compares them.
//! Trust: no input. Threads: the main thread.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;

use crate::config::{KEYS, variable};
use crate::node::Error;

/// Print a manual page
///
/// Without a command it prints bcai(1). To read it: bcai man publish | man -l -
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai man publish | man -l -\n  bcai man keys-grant | man -l -")]
pub struct Man {
    /// The command whose page to print
    command: Option<String>,
}

impl Man {
    pub fn run(self) -> Result<(), Error> {
        let wanted = match self.command.as_deref() {
            None => "bcai.1".to_owned(),
            Some("mount.bcai") => "mount.bcai.8".to_owned(),
            Some(command) => format!("bcai-{command}.1"),
        };
        let pages = pages().map_err(|error| Error::new(crate::node::Kind::Failed, error.to_string()))?;
        match pages.into_iter().find(|(name, _)| *name == wanted) {
            Some((_, page)) => {
                super::output::print(page.trim_end());
                Ok(())
            }
            None => Err(Error::not_found(format!("no manual page `{wanted}`"))
                .hint("`bcai --help` lists the commands")),
        }
    }
}

/// Every manual page: file name and roff text.
pub fn pages() -> io::Result<Vec<(String, String)>> {
    let mut definition = super::definition();
    definition.build();
    let mut pages = vec![("bcai.1".to_owned(), main_page(&definition)?)];
    add_subcommands(&mut pages, "bcai", &definition)?;
    pages.push(("mount.bcai.8".to_owned(), helper_page()?));
    Ok(pages)
}

/// One page for each command below `parent`, whose page is called `prefix`.
fn add_subcommands(
    pages: &mut Vec<(String, String)>,
    prefix: &str,
    parent: &clap::Command,
) -> io::Result<()> {
    for command in parent.get_subcommands() {
        let name = format!("{prefix}-{}", command.get_name());
        let named = command.clone().name(name.clone().leak() as &str).display_name(name.clone());
        pages.push((format!("{name}.1"), page(&named, &["See also", &format!("{prefix}(1)")])?));
        add_subcommands(pages, &name, command)?;
    }
    Ok(())
}

/// Administrators look for it in section 8.
fn helper_page() -> io::Result<String> {
    let page = clap_mangen::Man::new(super::helper_definition()).section("8");
    rendered(page, &["See also", "bcai-mount(1), mount(8), fstab(5)"])
}

fn main_page(definition: &clap::Command) -> io::Result<String> {
    let mut text = page(definition, &[])?;
    // Writing to a string cannot fail.
    let _ = write!(text, ".SH CONFIGURATION\n{}\n", CONFIGURATION);
    for key in KEYS {
        let _ = write!(
            text,
            ".TP\n\\fB{}\\fR (${}), default {}\n{}\n",
            roff(key.name),
            roff(&variable(key.name)),
            roff(key.default),
            roff(key.help)
        );
    }
    let _ = write!(text, ".SH FILES\n{FILES}\n");
    Ok(text)
}

const CONFIGURATION: &str = "Every key can be set in a TOML file, in the environment and with \\-c KEY=VALUE. \
The command line wins over the environment, that over the user's file, that over the system's file. \
`bcai doctor` shows each effective value and where it came from.";

const FILES: &str = ".TP\n$BCAI_HOME/\nwith BCAI_HOME or \\-\\-home: everything this node owns\n\
.TP\n/etc/bcai/config.toml, /var/lib/bcai, /run/bcai\nroot's settings, data and socket\n\
.TP\n~/.config/bcai/config.toml, ~/.local/share/bcai\nthe same for other users";

fn page(command: &clap::Command, see_also: &[&str]) -> io::Result<String> {
    rendered(clap_mangen::Man::new(command.clone()), see_also)
}

fn rendered(page: clap_mangen::Man, see_also: &[&str]) -> io::Result<String> {
    let mut roff_bytes = Vec::new();
    page.render(&mut roff_bytes)?;
    if let [title, text] = see_also {
        writeln!(roff_bytes, ".SH {}\n{}", title.to_uppercase(), roff(text))?;
    }
    String::from_utf8(roff_bytes).map_err(io::Error::other)
}

/// Text as roff takes it literally.
fn roff(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_an_example() {
        let without = pages().unwrap().into_iter().filter(|(_, page)| !page.contains("Example"));
        assert_eq!(without.map(|(name, _)| name).collect::<Vec<_>>(), [""; 0]);
    }
}
