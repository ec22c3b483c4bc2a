//! Holds the source to the layer table and the fences of `docs/ARCHITECTURE.md`.
//!
//! Every rule is first fed a planted violation, so that it is known to bite, and then the real source.

mod architecture {
    pub mod page;
    pub mod rules;
    pub mod scan;
    pub mod source;
}

use std::path::Path;

use architecture::page::Page;
use architecture::rules::{Rule, check};
use architecture::source::{Files, read};

#[test]
fn the_source_keeps_to_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("the page is in the tree");
    let page = Page::parse(&page).expect("docs/ARCHITECTURE.md");
    let files = read(root).expect("the source is readable");
    assert!(files.contains_key("src/lib.rs") && files.contains_key("mount/src/lib.rs"));
    let violations = check(&files, &page);
    let report: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "{} violations:\n{}", report.len(), report.join("\n"));
}

const PAGE: &str = "
| layer | modules | owns |
|---|---|---|
| 0 | `id` | names |
| 1 | `pack`, `log` | strangers |
| 2 | `store` | the disk |
| 3 | `config` < `cli` < `main` | a chain |

| fenced | only in | because |
|---|---|---|
| `redb` | `store` | one home |
| `fuser` | `mount/` | |
| `clap*`, `comfy-table` | `cli`, `tools/` | |
| `tokio` | layer 3 and above | |
| `std::fs`, `Instant::now`, `.elapsed` | layer 2 and above | |
";

/// A small house that keeps every rule.
fn sound() -> Files {
    let header = "//! Owns something.\n";
    let files = [
        (
            "src/lib.rs",
            "pub mod cli;\npub mod config;\npub mod id;\npub mod log;\npub mod pack;\npub mod store;\n",
        ),
        ("src/main.rs", "fn main() { bcai::cli::run() }\n"),
        ("src/id.rs", "pub struct Id;\n"),
        ("src/pack.rs", "use crate::id::Id;\npub fn pack(_: Id) {}\n"),
        ("src/log.rs", "pub fn log(_: super::id::Id) {}\n"),
        (
            "src/store/mod.rs",
            "mod index;\n#[cfg(test)]\nmod tests;\nuse std::fs;\nuse crate::{id, pack::{self}};\n",
        ),
        ("src/store/index.rs", "use super::super::id::Id;\nuse super::Store;\nfn f() { redb::open() }\n"),
        ("src/store/tests.rs", "use crate::cli;\nfn f() { tokio::spawn(x.unwrap()) }\n"),
        ("src/config.rs", "use tokio::fs;\n#[cfg(test)]\nmod tests { use fuser::Session; }\n"),
        (
            "src/cli.rs",
            "use clap::Parser;\nuse crate::config;\n#[test]\nfn t() { crate::main::x().unwrap() }\n",
        ),
        ("lan/src/lib.rs", "use std::process::Command;\n"),
        ("mount/src/lib.rs", "use fuser::Session;\nuse std::fs;\n"),
        ("tools/src/main.rs", "use bcai::cli;\nuse clap_mangen::Man;\nfn main() {}\n"),
        ("tests/cli.rs", "use bcai::*;\nfn f() { redb::open().unwrap() }\n"),
    ];
    files.map(|(path, text)| (path.to_owned(), format!("{header}{text}"))).into()
}

/// The rules that the sound house breaks once `path` has the content `text`.
fn planted(path: &str, text: &str) -> Vec<Rule> {
    let mut files = sound();
    files.insert(path.to_owned(), text.to_owned());
    let page = Page::parse(PAGE).expect("the page of this test");
    let mut rules: Vec<Rule> = check(&files, &page).iter().map(|violation| violation.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// The rules broken by `code` standing in `path` below a header and what was there before.
fn added(path: &str, code: &str) -> Vec<Rule> {
    let before = sound()[path].clone();
    planted(path, &format!("{before}{code}\n"))
}

#[test]
fn the_sound_house_has_no_violation() {
    let page = Page::parse(PAGE).expect("the page of this test");
    let report: Vec<String> = check(&sound(), &page).iter().map(ToString::to_string).collect();
    assert_eq!(report, Vec::<String>::new());
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    for code in [
        "use crate::store::Store;",
        "use crate::{id::Id, store};",
        "use super::store as cellar;",
        "use self::super::store;",
        "use bcai::store::Store;",
        "fn f() -> crate::store::Store { todo() }",
        "fn f() { let _ = crate::store::open(); }",
        "fn f(x: u8) { match x { crate::store::LIMIT => {} _ => {} } }",
        "impl crate::store::Disk for X {}",
        "fn f() { assert!(crate::store::open()); }",
        "macro_rules! m { () => { $crate::store::open() }; }",
        "macro_rules! m { () => { use crate::{id, store::Store}; }; }",
        "#[derive(crate::store::Row)] struct X;",
        "#[serde(with = \"crate::store::text\")] struct X;",
        "mod inner { fn f() { super::super::store::open() } }",
        "pub(crate) use crate::store::Store;",
    ] {
        assert_eq!(added("src/log.rs", code), [Rule::Layer], "{code}");
    }
}

#[test]
fn a_same_layer_import_is_found() {
    assert_eq!(added("src/pack.rs", "use crate::log::Entry;"), [Rule::Layer]);
    // A chain is one way.
    assert_eq!(added("src/cli.rs", "use crate::config::Config;"), []);
    assert_eq!(added("src/config.rs", "use crate::cli::run;"), [Rule::Layer, Rule::Cycle]);
}

#[test]
fn a_cycle_is_found() {
    assert_eq!(added("src/id.rs", "use crate::pack::pack;"), [Rule::Layer, Rule::Cycle]);
    let mut files = sound();
    files.insert("src/log.rs".into(), "//! x\nuse crate::pack::a;\n".into());
    files.insert("src/pack.rs".into(), "//! x\nuse crate::log::b;\n".into());
    let page = Page::parse(PAGE).expect("the page of this test");
    let cycles: Vec<String> = check(&files, &page)
        .iter()
        .filter(|violation| violation.rule == Rule::Cycle)
        .map(ToString::to_string)
        .collect();
    assert_eq!(cycles, ["src/log:1: Cycle: log -> pack"]);
}

#[test]
fn the_whole_crate_and_unlisted_names_cannot_be_imported() {
    for code in ["use crate::*;", "use super::*;", "use crate as all;", "use crate::Store;"] {
        assert_eq!(added("src/pack.rs", code), [Rule::Layer], "{code}");
    }
    assert_eq!(added("mount/src/lib.rs", "use bcai::id::Id;"), [Rule::Layer]);
    assert_eq!(added("lan/src/lib.rs", "use bcai::id::Id;"), [Rule::Layer]);
    assert_eq!(added("src/main.rs", "use bcai::Everything;"), [Rule::Layer]);
}

#[test]
fn a_crate_outside_its_fence_is_found_however_it_is_written() {
    for (path, code) in [
        ("src/cli.rs", "use redb::Database;"),
        ("src/cli.rs", "use redb;"),
        ("src/cli.rs", "extern crate redb;"),
        ("src/cli.rs", "fn f() { ::redb::open() }"),
        ("src/cli.rs", "fn f() { println!(\"{}\", redb::VERSION) }"),
        ("src/store/index.rs", "use fuser::Session;"),
        ("src/config.rs", "#[derive(clap::Args)] struct X;"),
        ("src/config.rs", "use clap_complete::Shell;"),
        ("src/config.rs", "use comfy_table::Table;"),
        ("mount/src/lib.rs", "use clap::Parser;"),
        ("tools/src/main.rs", "use redb::Database;"),
        ("src/store/mod.rs", "use tokio::sync::Mutex;"),
        ("src/store/mod.rs", "#[tokio::main] fn f() {}"),
        ("src/pack.rs", "use std::{io, fs};"),
        ("src/pack.rs", "fn f() { std::fs::read(p) }"),
        ("src/pack.rs", "use std::time::Instant;\nfn f() { Instant::now() }"),
        ("src/pack.rs", "fn f() { vec![std::time::Instant::now()] }"),
        ("src/pack.rs", "fn f(since: Instant) { since.elapsed() }"),
    ] {
        assert_eq!(added(path, code), [Rule::Fence], "{path}: {code}");
    }
}

#[test]
fn the_table_and_the_source_must_agree() {
    let mut files = sound();
    files.insert("src/extra.rs".into(), "//! x\n".into());
    files.entry("src/lib.rs".into()).or_default().push_str("pub mod extra;\n");
    let page = Page::parse(PAGE).expect("the page of this test");
    let rules = |files: &Files| check(files, &page).iter().map(|found| found.rule).collect::<Vec<_>>();
    assert_eq!(rules(&files), [Rule::Table]);

    let mut files = sound();
    files.remove("src/log.rs");
    let lib = files["src/lib.rs"].replace("pub mod log;\n", "");
    files.insert("src/lib.rs".into(), lib);
    assert_eq!(rules(&files), [Rule::Table]);
}

#[test]
fn a_page_that_rules_nothing_is_refused() {
    for page in [
        "",
        "| layer | modules |\n|---|---|\n",
        &PAGE.replace("`log`", "log"),
        &PAGE.replace("`log`", "`pack`"),
        &PAGE.replace("| 2 |", "| two |"),
        &PAGE.replace("| fenced |", "| free |"),
    ] {
        assert!(Page::parse(page).is_err(), "{page}");
    }
}

#[test]
fn a_file_without_a_header_is_found() {
    assert_eq!(planted("src/id.rs", "pub struct Id;\n"), [Rule::Header]);
    assert_eq!(planted("src/id.rs", "//!\npub struct Id;\n"), [Rule::Header]);
    assert_eq!(planted("mount/src/lib.rs", "// A comment is not a header.\n"), [Rule::Header]);
}

#[test]
fn source_out_of_its_place_is_found() {
    assert_eq!(added("src/id.rs", "#[path = \"id.rs\"] mod hidden {}"), [Rule::Hidden]);
    assert_eq!(added("src/id.rs", "include!(\"more.rs\");"), [Rule::Hidden]);
    assert_eq!(planted("src/store/orphan.rs", "//! x\n"), [Rule::Tree]);
    assert_eq!(added("src/id.rs", "mod absent;"), [Rule::Tree]);
    assert_eq!(added("src/id.rs", "fn ("), [Rule::Tree, Rule::Table]);
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(added("src/id.rs", &"//\n".repeat(498)), [Rule::Length]);
    assert_eq!(added("src/id.rs", &"//\n".repeat(497)), []);
    assert_eq!(added("src/store/tests.rs", &"//\n".repeat(600)), []);
    assert_eq!(added("src/store/tests.rs", &"//\n".repeat(800)), [Rule::Length]);
}

#[test]
fn an_unproven_unwrap_is_found() {
    for code in [
        "fn f() { x.unwrap() }",
        "fn f() { x.expect(\"x\") }",
        "fn f() { vec![x.unwrap()] }",
        "/// Documentation proves nothing.\nfn f() {\n x.unwrap() }",
        "fn f() { let url = \"https://\"; x.unwrap() }",
        "fn f() {\n // Of another statement.\n a();\n x.unwrap(); }",
        "#[cfg(not(test))]\nfn f() { x.unwrap() }",
        "#[cfg(any(test, unix))]\nfn f() { x.unwrap() }",
    ] {
        assert_eq!(added("src/id.rs", code), [Rule::Unproven], "{code}");
    }
    for code in [
        "fn f() { x.unwrap() // x was just set\n }",
        "fn f() {\n // x was just set\n x.unwrap() }",
        "fn f() {\n // x was just set\n let y = x\n .first()\n .unwrap(); }",
        "fn f() { x.unwrap_or(1) }",
        "const LIMIT: NonZeroU8 = NonZeroU8::new(1).unwrap();",
        "#[cfg(all(test, unix))]\nfn f() { x.unwrap() }",
    ] {
        assert_eq!(added("src/id.rs", code), [], "{code}");
    }
}
