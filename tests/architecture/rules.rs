//! The rules of the house, each a function from the source to its violations.
//!
//! Owns: what is forbidden, and the limits.
//! Must not know: where files lie on disk; it sees text only, so that a violation can be planted.
//! Invariant: a rule that cannot decide reports; it never passes in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::page::{Inside, Page};
use super::scan::{Reference, scan};
use super::source::{Files, Krate, Source, load};

const MAX_LINES: usize = 500;
/// Test files list cases; they may be longer.
const MAX_TEST_LINES: usize = 800;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The source is not a tree of modules that compile from their usual places.
    Tree,
    /// A module is missing in the table, or the table has one that does not exist.
    Table,
    /// An import that does not go down.
    Layer,
    /// Modules that import each other in a ring.
    Cycle,
    /// A crate or path outside its fence.
    Fence,
    /// A file without a `//!` header.
    Header,
    Length,
    /// `#[path]` or `include!`.
    Hidden,
    /// `unwrap()` or `expect()` without a comment that proves it.
    Unproven,
}

#[derive(Debug)]
pub struct Violation {
    pub rule: Rule,
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {:?}: {}", self.path, self.line, self.rule, self.what)
    }
}

/// Everything in `files` that breaks the rules of `page`.
pub fn check(files: &Files, page: &Page) -> Vec<Violation> {
    let (sources, broken) = load(files);
    let mut house = House { page, violations: Vec::new(), imports: BTreeMap::new() };
    for (path, what) in broken {
        house.report(Rule::Tree, &path, 1, what);
    }
    house.table(&sources);
    for source in &sources {
        house.file(source);
        if !source.test {
            house.code(source);
        }
    }
    house.cycles();
    house.violations
}

struct House<'a> {
    page: &'a Page,
    violations: Vec<Violation>,
    /// Module of the root crate to the modules that it imports.
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl House<'_> {
    fn report(&mut self, rule: Rule, path: &str, line: usize, what: impl Into<String>) {
        self.violations.push(Violation { rule, path: path.to_owned(), line, what: what.into() });
    }

    fn table(&mut self, sources: &[Source]) {
        let present: BTreeSet<&str> = sources.iter().filter_map(room).collect();
        for module in present.iter().filter(|module| !self.page.modules.contains_key(**module)) {
            let path = format!("src/{module}");
            self.report(Rule::Table, &path, 1, format!("`{module}` is not in the layer table"));
        }
        for module in self.page.modules.keys().filter(|module| !present.contains(module.as_str())) {
            let what = format!("the layer table lists `{module}`, which does not exist");
            self.report(Rule::Table, "docs/ARCHITECTURE.md", 1, what);
        }
    }

    fn file(&mut self, source: &Source) {
        let header = source.text.lines().next().and_then(|line| line.strip_prefix("//!"));
        if header.is_none_or(|text| text.trim().is_empty()) {
            self.report(Rule::Header, &source.path, 1, "the file does not begin with a `//!` header");
        }
        let limit = if source.test { MAX_TEST_LINES } else { MAX_LINES };
        let lines = source.text.lines().count();
        if lines > limit {
            self.report(
                Rule::Length,
                &source.path,
                limit,
                format!("{lines} lines, over the limit of {limit}"),
            );
        }
    }

    fn code(&mut self, source: &Source) {
        let found = scan(&source.text, &source.syntax, &source.module);
        for line in found.hidden {
            self.report(Rule::Hidden, &source.path, line, "source must be where its module says");
        }
        for line in found.unproven {
            let what = "`unwrap()` or `expect()` without a comment that proves it";
            self.report(Rule::Unproven, &source.path, line, what);
        }
        for reference in &found.references {
            self.fences(source, reference);
            self.import(source, reference);
        }
    }

    fn fences(&mut self, source: &Source, reference: &Reference) {
        for fence in &self.page.fences {
            let hit = fence.patterns.iter().find(|pattern| names(pattern, &reference.segments));
            let Some(pattern) = hit else { continue };
            let allowed = match &fence.inside {
                Inside::Only(places) => places.iter().any(|place| is_in(source, place)),
                Inside::FromLayer(layer) => {
                    let place = room(source).and_then(|module| self.page.modules.get(module));
                    place.is_none_or(|place| place.layer >= *layer)
                }
            };
            if !allowed {
                let what = format!("`{}` is outside the fence of `{pattern}`", reference.segments.join("::"));
                self.report(Rule::Fence, &source.path, reference.line, what);
            }
        }
    }

    fn import(&mut self, source: &Source, reference: &Reference) {
        let Some(target) = target(source.krate, reference) else { return };
        let named = reference.segments.join("::");
        let (importer, layered) = match room(source) {
            Some(module) => (module, true),
            None => ("", false),
        };
        if target == importer {
            return;
        }
        let verdict = if !self.page.modules.contains_key(&target) {
            Some("names no module of the layer table: import from the module that owns it")
        } else if matches!(source.krate, Krate::Lan | Krate::Mount) {
            Some("this crate must not know bcai")
        } else if layered && self.page.modules.contains_key(importer) {
            self.imports.entry(importer.to_owned()).or_default().insert(target.clone());
            (!self.page.may_import(importer, &target)).then_some("does not go down a layer")
        } else {
            None
        };
        if let Some(verdict) = verdict {
            self.report(Rule::Layer, &source.path, reference.line, format!("`{named}` {verdict}"));
        }
    }

    fn cycles(&mut self) {
        let mut rings = BTreeSet::new();
        for start in self.imports.keys() {
            let mut trail = vec![start.clone()];
            find_rings(&self.imports, &mut trail, &mut rings);
        }
        for ring in rings {
            let path = format!("src/{}", ring[0]);
            self.report(Rule::Cycle, &path, 1, ring.join(" -> "));
        }
    }
}

/// Adds the rings through the first module of `trail` in which that module is the least, so that each ring is
/// reported once.
fn find_rings(
    imports: &BTreeMap<String, BTreeSet<String>>,
    trail: &mut Vec<String>,
    rings: &mut BTreeSet<Vec<String>>,
) {
    let Some(targets) = trail.last().and_then(|module| imports.get(module)) else { return };
    for target in targets {
        if *target == trail[0] {
            rings.insert(trail.clone());
        } else if *target > trail[0] && !trail.contains(target) {
            trail.push(target.clone());
            find_rings(imports, trail, rings);
            trail.pop();
        }
    }
}

/// The module of the layer table that the file belongs to.
fn room(source: &Source) -> Option<&str> {
    match source.krate {
        Krate::Library => source.module.first().map(String::as_str),
        Krate::Command => Some("main"),
        Krate::Lan | Krate::Mount | Krate::Tools | Krate::Tests => None,
    }
}

/// Whether the file lies in a place that a fence names.
fn is_in(source: &Source, place: &str) -> bool {
    match place {
        "mount/" => source.krate == Krate::Mount,
        "tools/" => source.krate == Krate::Tools,
        module => room(source) == Some(module),
    }
}

/// Whether the path is one that the pattern encloses.
///
/// A crate stands at the beginning of a path; a longer pattern may stand anywhere in it, because `use`
/// shortens it; a method stands alone.
fn names(pattern: &str, segments: &[String]) -> bool {
    if let Some(family) = pattern.strip_suffix('*') {
        return segments[0].starts_with(family);
    }
    let wanted: Vec<&str> = pattern.split("::").collect();
    match wanted[..] {
        [name] => segments[0] == name.replace('-', "_"),
        _ => segments.windows(wanted.len()).any(|window| window == wanted),
    }
}

/// The module of the root crate that a path leads to; `*` when it takes the whole crate.
fn target(krate: Krate, reference: &Reference) -> Option<String> {
    let first = reference.segments[0].as_str();
    let rest = || reference.segments[1..].to_vec();
    let absolute = match (krate, first) {
        (Krate::Command | Krate::Lan | Krate::Mount | Krate::Tools, "bcai") => rest(),
        (Krate::Library, "crate" | "bcai") => rest(),
        (Krate::Library, "self" | "super") => {
            let is_step = |segment: &&String| ["self", "super"].contains(&segment.as_str());
            let steps = reference.segments.iter().take_while(is_step).count();
            let ups = reference.segments[..steps].iter().filter(|step| *step == "super").count();
            let parent = reference.within.len().saturating_sub(ups);
            [&reference.within[..parent], &reference.segments[steps..]].concat()
        }
        _ => return None,
    };
    Some(absolute.first().cloned().unwrap_or_else(|| "*".to_owned()))
}
