//! `bcai diff` against a plain comparison of the directories that were published.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Site, noise};
use serde_json::Value;

/// What a name is, but for its time: `touch` and the tests' own speed would make it random.
type File = (String, u32, Vec<u8>);

fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<Vec<u8>, File>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let (kind, content) = match meta.file_type() {
            kind if kind.is_dir() => ("dir", Vec::new()),
            kind if kind.is_symlink() => {
                ("link", fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            }
            _ => ("file", fs::read(&path).unwrap()),
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        found.insert(name, (kind.into(), mode, content));
        if meta.is_dir() {
            walk(root, &path, found);
        }
    }
}

fn files(root: &Path) -> BTreeMap<Vec<u8>, File> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// `+`, `-` and `~` with names, as they must come out, times left aside.
fn expected(before: &BTreeMap<Vec<u8>, File>, after: &BTreeMap<Vec<u8>, File>) -> Vec<(String, Vec<u8>)> {
    let mut rows = Vec::new();
    for name in before.keys().chain(after.keys()) {
        let row = match (before.get(name), after.get(name)) {
            (Some(a), Some(b)) if a.0 != b.0 => vec![("removed", name), ("added", name)],
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) => vec![("changed", name)],
            (Some(_), None) => vec![("removed", name)],
            _ => vec![("added", name)],
        };
        rows.extend(row.into_iter().map(|(change, name)| (change.to_owned(), name.clone())));
    }
    rows.sort();
    rows.dedup();
    rows
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'\\', [b'x', a, b, more @ ..]) => {
                let hex = [*a, *b];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                rest = more;
            }
            (b'\\', [b'\\', more @ ..]) => {
                bytes.push(b'\\');
                rest = more;
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

fn rows(site: &Site, before: &str, after: &str) -> Vec<Value> {
    let text = site.ok(["--json", "diff", before, after]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `bcai diff` says, without rows in which only a time differs.
fn found(rows: &[Value]) -> Vec<(String, Vec<u8>)> {
    let is_more = |row: &&Value| row["aspects"] != serde_json::json!(["time"]) && row["path"] != "";
    let pair =
        |row: &Value| (row["change"].as_str().unwrap().to_owned(), unescape(row["path"].as_str().unwrap()));
    let mut found: Vec<_> = rows.iter().filter(is_more).map(pair).collect();
    let order: Vec<_> = found.iter().map(|(_, path)| path.clone()).collect();
    found.sort();
    assert_eq!(found.len(), order.len());
    found
}

fn publish(site: &Site, source: &Path, version: &str) -> BTreeMap<Vec<u8>, File> {
    site.publish(source, &format!("data@{version}"));
    files(source)
}

#[test]
fn every_kind_of_difference_is_found_and_nothing_else() {
    let site = Site::initialised();
    let source = site.dir("source");
    let at = |name: &str| source.join(name);
    // More entries than fit one node, so that directories are trees of nodes.
    fs::create_dir(at("many")).unwrap();
    for i in 0..3000 {
        fs::write(at(&format!("many/{i:05}")), format!("{i}")).unwrap();
    }
    for dir in ["same", "gone", "gone/deeper", "turns", "late"] {
        fs::create_dir(at(dir)).unwrap();
        fs::write(at(&format!("{dir}/file")), dir).unwrap();
    }
    fs::write(at("large"), noise(1, 8 << 20)).unwrap();
    fs::write(at("moved"), noise(2, 300_000)).unwrap();
    symlink("large", at("link")).unwrap();
    fs::write(at("mode"), "m").unwrap();
    fs::write(at("becomes-dir"), "b").unwrap();
    fs::write(at("hard"), "one inode").unwrap();
    fs::hard_link(at("hard"), at("late/also-hard")).unwrap();
    let odd = source.join(std::ffi::OsStr::from_bytes(b"odd\xff\\\n"));
    fs::write(&odd, "o").unwrap();
    let v1 = publish(&site, &source, "v1");

    assert_eq!(rows(&site, "data@v1", "v1"), Vec::<Value>::new());
    assert_eq!(
        site.ok(["diff", "data@v1", "data@v1", "--stat"]).trim(),
        "0 added, 0 removed, 0 changed; files that differ: 0 B before, 0 B after; new: 0 B in 0 chunks"
    );

    // At both ends, in the middle and over a border between nodes.
    for i in (0..3000).step_by(611) {
        fs::write(at(&format!("many/{i:05}")), "other").unwrap();
    }
    for i in 1000..1200 {
        fs::remove_file(at(&format!("many/{i:05}"))).unwrap();
    }
    for name in ["many/00000a", "many/02999a", "many/00500a", "a-first", "zz-last"] {
        fs::write(at(name), name).unwrap();
    }
    fs::remove_dir_all(at("gone")).unwrap();
    fs::remove_dir_all(at("turns")).unwrap();
    fs::write(at("turns"), "a file now").unwrap();
    fs::remove_file(at("becomes-dir")).unwrap();
    fs::create_dir_all(at("becomes-dir/below")).unwrap();
    let mut large = noise(1, 8 << 20);
    large[4 << 20] ^= 1;
    fs::write(at("large"), large).unwrap();
    fs::rename(at("moved"), at("new-place")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&odd, "p").unwrap();
    fs::write(at("hard"), "all names of it").unwrap();
    let v2 = publish(&site, &source, "v2");

    let there = rows(&site, "data@v1", "v2");
    // Here all positions have moved, so that further names of a file are other entries, and are compared.
    assert_eq!(found(&there), expected(&v1, &v2));
    let back = rows(&site, "data@v2", "data@v1");
    assert_eq!(found(&back), expected(&v2, &v1));
    assert_eq!(there.len(), back.len());
    // Where they have not, the further name is the same entry, and the change shows at the first one alone.
    fs::write(at("hard"), "once more").unwrap();
    publish(&site, &source, "v3");
    assert_eq!(found(&rows(&site, "data@v2", "v3")), [("changed".to_owned(), b"hard".to_vec())]);

    let row = |path: &str| there.iter().find(|row| row["path"] == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(row("mode")["aspects"], serde_json::json!(["mode"]));
    assert_eq!(
        (&row("mode")["before"]["mode"], &row("mode")["after"]["mode"]),
        (&0o644.into(), &0o600.into())
    );
    assert_eq!(row("link")["after"]["target"], "elsewhere");
    assert_eq!(row("large")["aspects"][0], "content");
    let hash = blake3::hash(&fs::read(at("large")).unwrap()).to_string();
    assert_eq!(row("large")["after"]["hash"], hash);

    // Of the large file one chunk is new, and of the moved one none.
    let stat = site.json(["diff", "data@v1", "v2", "--stat"]);
    let new = stat["new"]["bytes"].as_u64().unwrap();
    let small: u64 = v2
        .iter()
        .filter(|(name, _)| name.as_slice() != b"large" && name.as_slice() != b"new-place")
        .map(|(_, file)| file.2.len() as u64)
        .sum();
    assert!(new > 0 && new <= (512 << 10) + small, "{stat}");
    assert!(stat["bytes_after"].as_u64().unwrap() > 8 << 20, "{stat}");
    let counted = |change: &str| there.iter().filter(|row| row["change"] == change).count() as u64;
    for change in ["added", "removed", "changed"] {
        assert_eq!(stat[change].as_u64(), Some(counted(change)), "{change}");
    }
    let text = site.ok(["diff", "data@v1", "data@v2"]);
    for line in [
        "- gone/",
        "- gone/deeper/file",
        "+ becomes-dir/below/",
        "~ mode  mode 644 -> 600",
        "~ link  target large -> elsewhere",
    ] {
        assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}\n{text}");
    }
    assert!(text.contains("odd\\xff\\\\\\x0a"), "{text}");
}

#[test]
fn versions_that_are_elsewhere_are_compared_without_their_contents() {
    let site = Site::initialised();
    let source = site.dir("source");
    fs::write(source.join("large"), noise(1, 16 << 20)).unwrap();
    fs::create_dir(source.join("dir")).unwrap();
    fs::write(source.join("dir/small"), "1").unwrap();
    let uri = site.publish(&source, "data@v1");
    fs::write(source.join("dir/small"), "22").unwrap();
    site.publish(&source, "data@v2");
    let reader = Site::new();
    let text = reader.ok(["diff", &uri, "v2"]);
    assert!(text.contains("~ dir/small  content 1 B -> 2 B"), "{text}");
    let stat = reader.json(["diff", &uri, "v2", "--stat"]);
    assert_eq!(stat["new"], serde_json::json!({"chunks": 1, "bytes": 2, "at_most": false}));
    let fetched = reader.status()["fetch"]["fetched_bytes"].as_u64().unwrap();
    assert!(fetched < 1 << 20, "{fetched} bytes of directories");

    assert!(reader.fails(10, ["diff", &uri, "v9"]).contains("v9"));
    assert!(site.fails(10, ["diff", "data@v1", "nothing@v1"]).contains("nothing"));
    let snapshot = site.json(["list"])[0]["versions"][1]["snapshot"].as_str().unwrap().to_owned();
    assert!(site.ok(["diff", "data@v1", &snapshot]).contains("dir/small"));
    // A reader that has had enough is no failure.
    let mut head = Command::new("sh");
    let bcai =
        format!("{} --home {} diff data@v1 v2 | head -n 0", site.program.display(), site.home.display());
    assert!(head.args(["-c", &bcai]).status().unwrap().success());
}
