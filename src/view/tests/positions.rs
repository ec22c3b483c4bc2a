//! Inode numbers, names and listings against a plain walk.

use proptest::prelude::*;

use super::model::{NaiveWalk, directory};
use super::*;
use crate::manifest::{Content, Xattr};

async fn list(view: &View, ino: u64, batch: usize) -> Listing {
    let mut whole = Listing { parent: 0, entries: vec![] };
    loop {
        let next = whole.entries.last().map_or(0, |entry| entry.next);
        let part = view.read_dir(ino, next, batch).await.unwrap();
        assert!(part.entries.len() <= batch);
        whole.parent = part.parent;
        if part.entries.is_empty() {
            return whole;
        }
        whole.entries.extend(part.entries);
    }
}

async fn compare(view: Arc<View>, naive: NaiveWalk, batch: usize) -> Result<(), TestCaseError> {
    let last = naive.walked.iter().map(|walked| walked.ino).max().unwrap_or(ROOT);
    prop_assert_eq!(view.stat_fs().inodes, last);
    for walked in &naive.walked {
        let inode = view.resolve(walked.path.as_bytes()).await.unwrap();
        prop_assert_eq!(inode.ino, walked.ino);
        let name = walked.path.rsplit('/').next().unwrap();
        let attr = view.lookup(walked.parent, name.as_bytes()).await.unwrap().unwrap();
        prop_assert_eq!(&attr, &view.attr(walked.ino).await.unwrap());
        prop_assert_eq!((attr.ino, attr.mtime.0), (walked.ino, walked.ino as i64));
        prop_assert_eq!(attr.kind == FileKind::Dir, walked.is_dir);
        prop_assert_eq!(view.lookup(walked.parent, b"none").await.unwrap(), None);
        if !walked.is_link {
            prop_assert_eq!(view.path(walked.ino).await.unwrap(), walked.path.as_bytes());
            prop_assert_eq!(view.inode(walked.ino).await.unwrap().parent, walked.parent);
        }
        if !walked.is_dir {
            let below = view.lookup(walked.ino, b"a").await;
            prop_assert!(matches!(below, Err(ViewError::NotADirectory(_))), "{below:?}");
        }
    }
    let beyond = view.inode(last + 1).await;
    prop_assert!(matches!(beyond, Err(ViewError::NotFound(_))), "{beyond:?}");
    for ino in [0, u64::MAX] {
        prop_assert!(matches!(view.inode(ino).await, Err(ViewError::NotFound(_))));
    }

    let dirs = naive.walked.iter().filter(|walked| walked.is_dir).map(|walked| (walked.ino, walked.parent));
    for (ino, parent) in dirs.chain([(ROOT, ROOT)]) {
        let listing = list(&view, ino, batch).await;
        let expected: Vec<_> = naive
            .walked
            .iter()
            .filter(|walked| walked.parent == ino)
            .map(|walked| (walked.path.rsplit('/').next().unwrap().as_bytes().to_vec(), walked.ino))
            .collect();
        let found: Vec<_> =
            listing.entries.iter().map(|entry| (entry.name.clone(), entry.attr.ino)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(listing.parent, parent);
    }

    let mut walk = Walk::new(view.clone(), ROOT);
    for walked in &naive.walked {
        let found = walk.next().await.unwrap().unwrap();
        prop_assert_eq!((found.path.as_slice(), found.attr.ino), (walked.path.as_bytes(), walked.ino));
    }
    prop_assert_eq!(walk.next().await.unwrap(), None);
    Ok(())
}

#[test]
fn positions_are_those_of_a_plain_walk() {
    let home = Home::new();
    check(96, (directory(), 2..6usize, 1..9usize), |(names, fan, batch)| {
        let (built, naive) = NaiveWalk::build(&names, fan);
        block_on(async { compare(home.view(built).await, naive, batch).await })
    });
}

#[test]
fn paths_are_refused_or_not_found_for_the_right_reason() {
    let home = Home::new();
    let mut builder = Builder::new(4);
    let below = builder.directory(&[entry("file", file(meta(0o644)))]);
    let dir = Node::Dir { meta: meta(0o755), tree: below.tree, totals: below.totals };
    let built = builder.finish(meta(0o755), &[entry("dir", dir)]);
    block_on(async {
        let view = home.view(built).await;
        assert_eq!(view.resolve(b"").await.unwrap().ino, ROOT);
        assert_eq!(view.resolve(b"/./dir//file").await.unwrap().ino, 3);
        assert!(matches!(view.resolve(b"dir/no").await, Err(ViewError::NotFound(path)) if path == "dir/no"));
        assert!(matches!(view.resolve(b"dir/file/x").await, Err(ViewError::NotADirectory(_))));
        assert!(matches!(view.resolve(b"dir/../dir").await, Err(ViewError::BadPath(_))));
    });
}

fn file(meta: Meta) -> Node {
    Node::File { meta, nlink: 2, size: 0, content: Content::Empty }
}

#[test]
fn owners_rights_and_attributes_are_presented() {
    let home = Home::new();
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.to_vec() };
    let meta =
        Meta { xattrs: vec![xattr("user.bcai.hash", b"stale"), xattr("user.note", b"kept")], ..meta(0o6755) };
    let built = Builder::new(4).finish(meta.clone(), &[entry("tool", file(meta))]);
    let id = built.id;
    block_on(async {
        let view = home.view(built).await;
        let attr = view.attr(2).await.unwrap();
        assert_eq!((attr.mode, attr.nlink, attr.mtime), (0o755, 2, (1_700_000_000, 5)));
        assert_eq!(attr.uid, rustix::process::getuid().as_raw());
        assert_eq!(view.attr(ROOT).await.unwrap().mode, 0o755);
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(view.xattr(2, b"user.note").await.unwrap(), b"kept");
        assert_eq!(view.xattr(2, b"user.bcai.hash").await.unwrap(), empty.as_bytes());
        assert_eq!(view.xattr(2, b"user.bcai.chunks").await.unwrap(), b"0");
        assert_eq!(view.xattr(ROOT, b"user.bcai.snapshot").await.unwrap(), id.to_string().as_bytes());
        for name in [&b"user.bcai.version"[..], b"user.bcai.no", b"user.no"] {
            assert!(matches!(view.xattr(2, name).await, Err(ViewError::NoXattr)));
        }
        assert_eq!(view.list_xattrs(2).await.unwrap(), [b"user.note"]);

        let version = Some(Version { name: "v1".into(), height: 7 });
        let options = Options { owner: Owner::Kept, version, keys: None };
        let view = View::open(home.fetcher(), Cache::default(), id, options).await.unwrap();
        let attr = view.attr(2).await.unwrap();
        assert_eq!((attr.uid, attr.gid), (1234, 5678));
        assert_eq!(view.xattr(2, b"user.bcai.version").await.unwrap(), b"v1");
        assert_eq!(view.xattr(2, b"user.bcai.height").await.unwrap(), b"7");
    });
}

/// A directory whose entry lies about its totals, one whose branch lies about a child, and links to nothing.
#[test]
fn promises_that_are_not_kept_are_an_error() {
    let home = Home::new();
    let mut builder = Builder::new(4);
    let below = builder.directory(&[entry("file", file(meta(0o644)))]);
    let lie = Totals { inodes: 2, ..below.totals };
    let dir = Node::Dir { meta: meta(0o755), tree: below.tree, totals: lie };
    let mut children: Vec<_> =
        ["a", "b"].map(|name| builder.directory(&[entry(name, file(meta(0o644)))])).into();
    children[1].first = crate::manifest::Name::new(b"aa").unwrap();
    let branch = builder.tree(TreeNode::Branch(children));
    let entries = [
        entry("branch", Node::Dir { meta: meta(0o755), tree: branch.tree, totals: branch.totals }),
        entry("dir", dir),
        entry("link", Node::Link { first: 2 }),
        entry("nowhere", Node::Link { first: 1000 }),
    ];
    let built = builder.finish(meta(0o755), &entries);
    block_on(async {
        let view = home.view(built).await;
        for path in ["branch/aa", "branch/b", "dir/file", "link", "nowhere"] {
            let found = view.resolve(path.as_bytes()).await;
            assert!(matches!(found, Err(ViewError::Unfit { .. })), "{path}: {found:?}");
        }
        assert!(view.resolve(b"branch/a").await.is_ok());
        assert!(matches!(view.read_dir(ROOT, 0, 10).await, Err(ViewError::Unfit { .. })));
    });
}

/// Two leaves of one directory, each in order, one reaching into the other: a publisher could hide a name from look-up
/// that a listing showed, or show one name twice with two contents.
#[test]
fn names_out_of_order_across_nodes_are_an_error() {
    let home = Home::new();
    let mut builder = Builder::new(4);
    let mut leaf = |names: &[&str]| {
        let entries: Vec<_> = names.iter().map(|name| entry(name, file(meta(0o644)))).collect();
        builder.tree(TreeNode::Leaf(entries))
    };
    let (into, twice) = ([leaf(&["a", "c"]), leaf(&["b", "d"])], [leaf(&["a", "b"]), leaf(&["b"])]);
    let (far, last) = ([leaf(&["a"]), leaf(&["b", "x"])], leaf(&["m"]));
    let ordered = [leaf(&["a", "b"]), leaf(&["c"])];
    let mut branch = |children: &[TreeChild]| builder.tree(TreeNode::Branch(children.to_vec()));
    let (into, twice, ordered) = (branch(&into), branch(&twice), branch(&ordered));
    // The bound of a branch is that of its last child.
    let far = branch(&far);
    let far = branch(&[far, last]);
    let dir = |child: &TreeChild| Node::Dir { meta: meta(0o755), tree: child.tree, totals: child.totals };
    let entries = [
        entry("far", dir(&far)),
        entry("into", dir(&into)),
        entry("ordered", dir(&ordered)),
        entry("twice", dir(&twice)),
    ];
    let built = builder.finish(meta(0o755), &entries);
    block_on(async {
        let view = home.view(built).await;
        for path in ["far/b", "into/a", "twice/a"] {
            let found = view.resolve(path.as_bytes()).await;
            assert!(matches!(found, Err(ViewError::Unfit { .. })), "{path}: {found:?}");
        }
        for path in ["far/a", "far/m", "ordered/a", "ordered/b", "ordered/c"] {
            assert!(view.resolve(path.as_bytes()).await.is_ok(), "{path}");
        }
        for dir in ["far", "into", "twice"] {
            let ino = view.resolve(dir.as_bytes()).await.unwrap().ino;
            assert!(matches!(view.read_dir(ino, 0, 10).await, Err(ViewError::Unfit { .. })), "{dir}");
        }
    });
}
