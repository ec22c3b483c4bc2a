//! The source as a tree of modules, found the way the compiler finds it.
//!
//! Owns: which file is which module of which crate, and which files are test code.
//! Must not know: the layers and the rules.
//! Invariant: every `.rs` file under a `src/` is reached by `mod` declarations or reported as an orphan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::scan::is_test_only;

/// Path from the root of the repository, with forward slashes, to content.
pub type Files = BTreeMap<String, String>;

/// A crate of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Krate {
    Library,
    Command,
    Lan,
    Mount,
    Tools,
    /// Integration tests and benchmarks of any crate.
    Tests,
}

/// One file.
pub struct Source {
    pub path: String,
    pub krate: Krate,
    /// The path of the module from the root of its crate.
    pub module: Vec<String>,
    /// Compiled only for tests.
    pub test: bool,
    pub text: String,
    pub syntax: syn::File,
}

/// Reads every Rust file of the workspace below `root`.
pub fn read(root: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    for top in ["src", "tests", "benches", "lan", "mount", "tools"] {
        read_dir(root, &root.join(top), &mut files)?;
    }
    Ok(files)
}

fn read_dir(root: &Path, dir: &Path, files: &mut Files) -> std::io::Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() && path.ends_with("tests/fuzz") {
            // A workspace of its own, which takes the sources of this one in by path, and where it builds.
            continue;
        }
        if path.is_dir() {
            read_dir(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).expect("walked from the root");
            let name = relative.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
            files.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Parses the files into modules. The second value lists what is wrong with the tree: (path, reason).
pub fn load(files: &Files) -> (Vec<Source>, Vec<(String, String)>) {
    let mut tree = Tree { files, reached: BTreeSet::new(), sources: Vec::new(), broken: Vec::new() };
    for path in files.keys() {
        let krate = match path.as_str() {
            "src/lib.rs" => Krate::Library,
            "src/main.rs" => Krate::Command,
            "lan/src/lib.rs" => Krate::Lan,
            "mount/src/lib.rs" => Krate::Mount,
            "tools/src/main.rs" | "tools/src/lib.rs" => Krate::Tools,
            other if other.starts_with("tools/src/bin/") => Krate::Tools,
            other if other.starts_with("src/") || other.contains("/src/") => continue,
            _ => Krate::Tests,
        };
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
        // Test programs and their helper files need no tree: nothing is asked about their imports.
        tree.add(path, krate, Vec::new(), krate == Krate::Tests, &dir);
    }
    for path in files.keys().filter(|path| !tree.reached.contains(path.as_str())) {
        tree.broken.push((path.clone(), "no `mod` declaration leads to this file".to_owned()));
    }
    (tree.sources, tree.broken)
}

struct Tree<'a> {
    files: &'a Files,
    reached: BTreeSet<String>,
    sources: Vec<Source>,
    broken: Vec<(String, String)>,
}

impl Tree<'_> {
    /// Adds the file at `path` and the files it declares. Its child modules lie in `children`.
    fn add(&mut self, path: &str, krate: Krate, module: Vec<String>, test: bool, children: &str) {
        if !self.reached.insert(path.to_owned()) {
            return;
        }
        let text = self.files[path].clone();
        let syntax = match syn::parse_file(&text) {
            Ok(syntax) => syntax,
            Err(error) => return self.broken.push((path.to_owned(), format!("does not parse: {error}"))),
        };
        if krate != Krate::Tests {
            self.follow(&syntax.items, path, krate, &module, test, children);
        }
        self.sources.push(Source { path: path.to_owned(), krate, module, test, text, syntax });
    }

    fn follow(
        &mut self,
        items: &[syn::Item],
        from: &str,
        krate: Krate,
        module: &[String],
        test: bool,
        dir: &str,
    ) {
        for item in items {
            let syn::Item::Mod(declared) = item else { continue };
            let name = declared.ident.to_string();
            let inner = format!("{dir}/{name}");
            let test = test || is_test_only(&declared.attrs);
            let module = [module, std::slice::from_ref(&name)].concat();
            if let Some((_, items)) = &declared.content {
                self.follow(items, from, krate, &module, test, &inner);
                continue;
            }
            let candidates = [format!("{inner}.rs"), format!("{inner}/mod.rs")];
            match candidates.iter().find(|path| self.files.contains_key(*path)) {
                Some(path) => self.add(path, krate, module, test, &inner),
                None => self.broken.push((from.to_owned(), format!("there is no file for `mod {name};`"))),
            }
        }
    }
}
