//! `bcai ls`.
//!
//! Owns: how a listing is shown.
//! Must not know: trees.
//! Invariant: only directories that are named are fetched.
//! Trust: names come from datasets; they are escaped. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{Listed, PathRequest};

/// List a directory of a dataset without mounting it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai ls photos@v1\n  bcai ls -R photos@v1/2026")]
pub struct Ls {
    /// REF or REF/PATH
    #[arg(value_name = "REF[/PATH]")]
    target: String,
    /// Descend into directories
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Ls {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let (reference, path) = split(&self.target);
        let request = PathRequest { reference, path, recursive: self.recursive };
        let rows: Vec<Listed> = ctx.with_daemon(async |client| client.post(route::LS, &request).await)?;
        ctx.output.result(&rows, |rows| text(rows));
        Ok(())
    }
}

/// Splits `NAME@VERSION/PATH`. Names may hold slashes, so the path begins at the first slash after the `@`; without
/// an `@` before it, at the first slash. A URI carries its path before the `?`.
pub fn split(target: &str) -> (String, String) {
    let Some(rest) = target.strip_prefix(SCHEME) else { return split_name(target) };
    let (head, query) = rest.split_once('?').map_or((rest, None), |(head, query)| (head, Some(query)));
    let (genesis, name) = head.split_once('/').unwrap_or((head, ""));
    let (name, path) = split_name(name);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    (format!("{SCHEME}{genesis}/{name}{query}"), path)
}

const SCHEME: &str = "bcai://";

fn split_name(target: &str) -> (String, String) {
    // An `@` that a file's name may hold comes after a dot or another character that no dataset's name ends a part
    // with; what decides is whether the text before it could be a name.
    let is_name = |text: &str| text.parse::<crate::log::Name>().is_ok();
    let selector = target.find('@').filter(|at| is_name(&target[..*at]) && !target[..*at].contains('.'));
    let from = selector.unwrap_or(0);
    let end = target[from..].find('/').map_or(target.len(), |at| from + at);
    (target[..end].to_owned(), target[end..].trim_matches('/').to_owned())
}

fn text(rows: &[Listed]) -> String {
    let lines = rows.iter().map(|row| {
        let name = match &row.target {
            Some(target) => format!("{} -> {target}", row.path),
            None => row.path.clone(),
        };
        vec![
            format!("{}{}", row.kind.chars().next().unwrap_or('?'), permissions(row.mode)),
            row.size.to_string(),
            output::time((row.mtime_s.max(0) as u64).saturating_mul(1000)),
            output::safe(&name),
        ]
    });
    output::table(&["MODE", "SIZE", "MODIFIED", "NAME"], lines)
}

/// `rwxr-x---`, from the low nine bits.
fn permissions(mode: u32) -> String {
    (0..9).rev().map(|bit| if mode >> bit & 1 == 1 { ['x', 'w', 'r'][bit % 3] } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_after_the_version() {
        let cases = [
            ("photos", "photos", ""),
            ("photos@v1", "photos@v1", ""),
            ("photos@v1/a/b", "photos@v1", "a/b"),
            ("team/photos@v1/a", "team/photos@v1", "a"),
            ("photos/a/b", "photos", "a/b"),
            (
                "bcai://abc/photos@v1/x/y?peer=/ip4/1.1.1.1/tcp/1",
                "bcai://abc/photos@v1?peer=/ip4/1.1.1.1/tcp/1",
                "x/y",
            ),
            ("bcai://abc/team/photos@v1", "bcai://abc/team/photos@v1", ""),
        ];
        for (target, reference, path) in cases {
            assert_eq!(split(target), (reference.to_owned(), path.to_owned()), "{target}");
        }
    }

    #[test]
    fn permissions_read_as_in_ls() {
        assert_eq!(permissions(0o754), "rwxr-xr--");
    }
}
