//! The two tables of `docs/ARCHITECTURE.md` that the source is held to.
//!
//! Owns: how a layer row and a fence row are written.
//! Must not know: the source.
//! Invariant: a page without one of the tables, or with a module twice, is an error, never an empty rule.

use std::collections::BTreeMap;

/// The lowest layer that a fence may name is 0; a page has at most this many.
const MAX_LAYERS: u8 = 16;

/// Where a module stands: its layer, and its place in an ordered chain within the layer.
///
/// A row lists strangers with commas (`fetch`, `chain`) and a chain with `<`: in `config` < `node` the
/// right one may use the left one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub layer: u8,
    chain: usize,
    link: usize,
}

/// Who may name what a fence encloses.
#[derive(Debug, PartialEq, Eq)]
pub enum Inside {
    /// Modules of the root crate, or other crates of the workspace with a slash: `mount/`.
    Only(Vec<String>),
    /// Modules of the root crate of this layer or a higher one; the other crates are not asked.
    FromLayer(u8),
}

/// Paths that may be named only inside a part of the source.
#[derive(Debug, PartialEq, Eq)]
pub struct Fence {
    /// A crate (`redb`), a family of crates (`clap*`), a path (`std::fs`) or a method (`.elapsed`).
    pub patterns: Vec<String>,
    pub inside: Inside,
}

/// What the page says.
#[derive(Debug)]
pub struct Page {
    pub modules: BTreeMap<String, Place>,
    pub fences: Vec<Fence>,
}

impl Page {
    /// Reads both tables; the error says what is wrong with the page.
    pub fn parse(markdown: &str) -> Result<Page, String> {
        let mut modules = BTreeMap::new();
        for row in table(markdown, &["layer", "modules"])? {
            let layer = layer(&row[0])?;
            for (chain, names) in row[1].split(',').enumerate() {
                for (link, name) in names.split('<').enumerate() {
                    let name = unquote(name)?;
                    if modules.insert(name.clone(), Place { layer, chain, link }).is_some() {
                        return Err(format!("`{name}` stands in the layer table twice"));
                    }
                }
            }
        }
        let mut fences = Vec::new();
        for row in table(markdown, &["fenced", "only in"])? {
            let patterns = row[0].split(',').map(unquote).collect::<Result<_, _>>()?;
            let inside = match row[1].strip_prefix("layer ").and_then(|rest| rest.strip_suffix(" and above"))
            {
                Some(number) => Inside::FromLayer(layer(number)?),
                None => Inside::Only(row[1].split(',').map(unquote).collect::<Result<_, _>>()?),
            };
            fences.push(Fence { patterns, inside });
        }
        Ok(Page { modules, fences })
    }

    /// Whether `from` may import `to`. Both must be in the table.
    pub fn may_import(&self, from: &str, to: &str) -> bool {
        let (from, to) = (self.modules[from], self.modules[to]);
        to.layer < from.layer || (to.layer == from.layer && to.chain == from.chain && to.link < from.link)
    }
}

/// The rows below the first table header that begins with these cells.
fn table(markdown: &str, header: &[&str]) -> Result<Vec<Vec<String>>, String> {
    let is_header = |line: &str| header.iter().zip(cells(line)).all(|(wanted, cell)| *wanted == cell);
    let mut lines = markdown.lines();
    lines
        .find(|line| line.starts_with('|') && is_header(line))
        .ok_or_else(|| format!("no table whose header begins with {header:?}"))?;
    let rows: Vec<_> = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
    match rows.iter().find(|row| row.len() < header.len()) {
        Some(row) => Err(format!("a row of the table {header:?} is too short: {row:?}")),
        None if rows.is_empty() => Err(format!("the table {header:?} has no rows")),
        None => Ok(rows),
    }
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn layer(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|&layer| layer < MAX_LAYERS).ok_or_else(|| format!("`{text}` is not a layer"))
}

fn unquote(text: &str) -> Result<String, String> {
    let name = text.trim().strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    name.map(str::to_owned).ok_or_else(|| format!("expected a name in backquotes, found `{}`", text.trim()))
}
