//! Rows about files: kept by the commit, replaced by name, and gone when nobody can want them.

use super::*;
use crate::store::{DirId, Listing};

const TREE: DirId = (1, 2);
const DIR: DirId = (1, 77);

fn row(first: &str, last: &str) -> Listing {
    let bytes = format!("{first} to {last}").into_bytes();
    Listing { dir: DIR, first: first.into(), last: last.into(), bytes }
}

fn found(store: &Store, tree: DirId, first: &str, last: &str) -> Vec<String> {
    let rows = store.listings(tree, DIR, first.as_bytes(), last.as_bytes()).unwrap();
    rows.into_iter().map(|row| String::from_utf8(row).unwrap()).collect()
}

#[test]
fn rows_are_found_by_the_names_they_are_about() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    assert!(found(&store, TREE, "a", "z").is_empty(), "an index without such tables");
    for (first, last) in [("a", "f"), ("g", "k"), ("l", "z")] {
        store.keep_listing(TREE, row(first, last)).unwrap();
    }
    assert!(found(&store, TREE, "a", "z").is_empty(), "before the commit");
    store.commit().unwrap();
    assert_eq!(found(&store, TREE, "a", "f"), ["a to f"]);
    assert_eq!(found(&store, TREE, "b", "g"), ["a to f", "g to k"]);
    assert_eq!(found(&store, TREE, "h", "zz"), ["g to k", "l to z"]);
    assert!(found(&store, TREE, "zzz", "zzzz").is_empty());
    assert!(found(&store, (2, 1), "a", "z").is_empty(), "another tree");
    store.keep_listing(TREE, row("e", "h")).unwrap();
    store.commit().unwrap();
    drop(store);
    let store = open(dir.path(), MIB);
    assert_eq!(found(&store, TREE, "a", "z"), ["e to h", "g to k", "l to z"]);
}

#[test]
fn sixty_four_trees_have_rows() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    for tree in 0..70 {
        store.keep_listing((9, tree), row("a", "f")).unwrap();
        store.commit().unwrap();
        // One of them is in use all the time, though nothing is news.
        store.tidy_listings((9, 0), |_| true).unwrap();
    }
    let kept: Vec<u64> = (0..70).filter(|tree| !found(&store, (9, *tree), "a", "f").is_empty()).collect();
    assert_eq!(kept, [0].into_iter().chain(7..70).collect::<Vec<_>>());
}

#[test]
fn directories_that_a_tree_no_longer_has_lose_their_rows() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    for number in 0..3000 {
        let last = format!("{number:05}").into_bytes();
        let row = Listing { dir: (1, number % 3), first: last.clone(), last, bytes: b"row".to_vec() };
        store.keep_listing(TREE, row.clone()).unwrap();
        store.keep_listing((5, 5), row).unwrap();
    }
    store.tidy_listings(TREE, |(_, ino)| ino == 1).unwrap();
    let rows = |tree, ino| store.listings(tree, (1, ino), b"0", b"9").unwrap().len();
    assert_eq!([0, 1, 2].map(|ino| rows(TREE, ino)), [0, 1000, 0]);
    assert_eq!([0, 1, 2].map(|ino| rows((5, 5), ino)), [1000; 3]);
}

/// So that the memory for rows stays bounded when nothing is stored.
#[test]
fn many_rows_are_committed_by_themselves() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    for _ in 0..5 {
        store.keep_listing(TREE, Listing { bytes: vec![7; 1 << 20], ..row("a", "f") }).unwrap();
    }
    assert_eq!(store.listings(TREE, DIR, b"a", b"f").unwrap().len(), 1);
}

#[test]
fn an_index_built_again_has_none() {
    let dir = temp();
    let store = open(dir.path(), MIB);
    store.put(&[chunk(1, 1000)], Keep::Published).unwrap();
    store.keep_listing(TREE, row("a", "f")).unwrap();
    store.commit().unwrap();
    assert_eq!(found(&store, TREE, "a", "f").len(), 1);
    drop(store);
    std::fs::remove_file(dir.path().join("index.redb")).unwrap();
    assert!(found(&open(dir.path(), MIB), TREE, "a", "f").is_empty());
}
