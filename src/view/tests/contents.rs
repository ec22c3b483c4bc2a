//! Which files and objects a walk over contents meets, against a naive one.

use std::collections::HashMap;

use super::model::{NaiveWalk, directory};
use super::*;
use crate::fetch::Class;
use crate::id::FileHash;
use crate::manifest::Content;

fn globs(patterns: &[&str]) -> Globs {
    Globs::new(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>()).unwrap()
}

async fn all(view: &Arc<View>, globs: Globs, class: Option<Class>) -> (Vec<ObjectId>, Vec<FileContent>) {
    let mut contents = Contents::new(view.clone(), globs, class);
    let (mut trees, mut files) = (Vec::new(), Vec::new());
    while let Some(found) = contents.next().await.unwrap() {
        trees.extend(found.trees);
        files.extend(found.files);
    }
    (trees, files)
}

async fn objects(view: &View, file: &FileContent) -> Vec<(ObjectId, u64)> {
    let (mut objects, mut all) = (file.objects(), Vec::new());
    while let Some(more) = objects.next(view, Class::Fault).await.unwrap() {
        all.extend(more);
    }
    all
}

#[test]
fn as_many_files_match_as_in_a_naive_walk() {
    let patterns: &[&[&str]] = &[&[], &["a*/**"], &["**/b"], &["a/b", "c"], &["?/*/[a-c]*", "b*"]];
    check(40, directory(), |names| {
        block_on(async {
            let (built, naive) = NaiveWalk::build(&names, 3);
            let (home, trees) = (Home::new(), tree_count(&built));
            let view = home.view(built).await;
            let mut files = HashMap::new();
            for walked in naive.walked.iter().filter(|walked| !walked.is_dir && !walked.is_link) {
                files.insert(walked.ino, view.content(walked.ino).await.is_ok());
            }
            for patterns in patterns {
                let globs = globs(patterns);
                let meant = naive.walked.iter().filter(|walked| {
                    let ends = walked.path.match_indices('/').map(|(at, _)| at).chain([walked.path.len()]);
                    let matches =
                        ends.map(|end| &walked.path[..end]).any(|path| globs.matches(path.as_bytes()));
                    // Without patterns each file is met once; with them, under each name that matches.
                    matches && !walked.is_dir && files[&walked.ino] && !(walked.is_link && globs.is_all())
                });
                let expected = meant.count();
                let (met, found) = all(&view, globs.clone(), Some(Class::Fault)).await;
                assert_eq!(found.len(), expected, "{patterns:?}");
                if globs.is_all() {
                    assert_eq!(met.len(), trees, "each tree node once");
                }
            }
        });
        Ok(())
    });
}

/// Tree nodes by the number of places they are met in: equal directories are one object.
fn tree_count(built: &Built) -> usize {
    let trees = built.objects.iter().filter(|object| object.id().kind == Kind::Tree);
    trees.count()
}

/// `dir/{one,large}`, then `last`: files of one chunk, of five chunks and a hole below several nodes, and of nothing.
fn built() -> (Built, Vec<ObjectId>) {
    let mut builder = Builder::new(2);
    let mut extents: Vec<Extent> = (0..5).map(|i| builder.chunk(vec![i; 1000])).collect();
    extents.insert(2, Extent { len: 5000, chunk: None });
    let top = builder.file(&extents);
    let content = Content::Blob { id: top.blob, chunks: top.chunks, hash: FileHash::from_bytes([0; 32]) };
    let large = Node::File { meta: meta(0o644), nlink: 1, size: top.bytes, content };
    let mut file = |seed: u8| {
        let extent = builder.chunk(vec![seed; 100]);
        let id = extent.chunk.unwrap();
        let content = Content::Chunk { id, hash: None };
        (Node::File { meta: meta(0o644), nlink: 1, size: 100, content }, ObjectId::from(id))
    };
    let ((one, one_id), (last, last_id)) = (file(100), file(101));
    let dir = builder.directory(&[entry("large", large), entry("one", one)]);
    let dir = Node::Dir { meta: meta(0o755), tree: dir.tree, totals: dir.totals };
    let empty = Node::File { meta: meta(0o644), nlink: 1, size: 0, content: Content::Empty };
    let chunks: Vec<ObjectId> = extents.iter().filter_map(|extent| Some(extent.chunk?.into())).collect();
    let built = builder.finish(
        meta(0o755),
        &[entry("a", Node::clone(&empty)), entry("dir", dir), entry("last", last), entry("z", empty)],
    );
    (built, [chunks, vec![one_id, last_id]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_in_the_order_of_positions_with_their_bytes() {
    let (built, chunks) = built();
    let home = Home::new();
    let view = home.view(built).await;
    let (_, files) = all(&view, globs(&[]), Some(Class::Fault)).await;
    assert_eq!(files.iter().map(|file| file.size).collect::<Vec<_>>(), [0, 10_000, 100, 100, 0]);
    let mut met = Vec::new();
    for file in &files {
        let objects = objects(&view, file).await;
        assert_eq!(file.is_one_object(), objects.iter().all(|(id, _)| id.kind == Kind::Chunk));
        assert_eq!(file.first(), objects.first().map(|(id, _)| *id));
        met.extend(objects.into_iter().filter(|(id, _)| id.kind == Kind::Chunk));
    }
    assert_eq!(met.iter().map(|(id, _)| *id).collect::<Vec<_>>(), chunks);
    assert_eq!(met.iter().map(|(_, len)| len).sum::<u64>(), 5 * 1000 + 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_here_can_be_passed_over() {
    let (built, _) = built();
    let id = built.id;
    let home = Home::new();
    let view = fetching::open(&home, fetching::source(&built, |_| false, None), id).await;
    assert_eq!(all(&view, globs(&[]), None).await, (vec![], vec![]), "no tree is here, and none is fetched");
    let (_, files) = all(&view, globs(&["dir/large"]), Some(Class::Fault)).await;
    let mut objects = files[0].objects();
    assert_eq!(objects.needs(), files[0].first());
    assert_eq!((objects.skip(), objects.skip()), (10_000, 0));
    assert!(objects.next(&view, Class::Fault).await.unwrap().is_none());
    // The trees are here now, the contents still are not.
    assert_eq!(all(&view, globs(&[]), None).await.1.len(), 5);
}

/// `a/sub/file`, two other directories, and `d/{linked,x}`, hard links to that file.
fn linked() -> (Built, Vec<ObjectId>, ObjectId) {
    let mut builder = Builder::new(2);
    let id = builder.chunk(vec![7; 100]).chunk.unwrap();
    let content = Content::Chunk { id, hash: None };
    let file = Node::File { meta: meta(0o644), nlink: 3, size: 100, content };
    let mut way = Vec::new();
    let mut dir = |entries: &[Entry]| {
        let dir = builder.directory(entries);
        way.push(dir.tree.into());
        Node::Dir { meta: meta(0o755), tree: dir.tree, totals: dir.totals }
    };
    let sub = dir(&[entry("file", file)]);
    let a = dir(&[entry("sub", sub)]);
    let link = || Node::Link { first: 4 };
    let d = dir(&[entry("linked", link()), entry("x", link())]);
    let others = ["b", "c"].map(|name| {
        let empty = Node::File { meta: meta(0o644), nlink: 1, size: 0, content: Content::Empty };
        entry(name, dir(&[entry(name, empty)]))
    });
    let [b, c] = others;
    way.truncate(2);
    let built = builder.finish(meta(0o755), &[entry("a", a), b, c, entry("d", d)]);
    (built, way, id.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_first_name_of_a_hard_link_is_met() {
    let (built, way, chunk) = linked();
    let (home, other, cache, id) = (Home::new(), Home::new(), Cache::default(), built.id);
    let fetcher = Fetcher::new(home.store.clone(), Some(fetching::source(&built, |_| false, None)));
    // All nodes are kept in memory since they were read from another store.
    other.put(built.objects);
    let read = View::open(other.fetcher(), cache.clone(), id, Options::default()).await.unwrap();
    all(&read, globs(&[]), None).await;
    let view = View::open(fetcher.clone(), cache, id, Options::default()).await.unwrap();
    let (trees, files) = all(&view, globs(&["d/**"]), Some(Class::Prefetch)).await;
    assert_eq!(files.iter().map(FileContent::first).collect::<Vec<_>>(), [Some(chunk); 2]);
    let times = |id| trees.iter().filter(|tree| *tree == id).count();
    assert_eq!(way.iter().map(times).collect::<Vec<_>>(), [1, 1], "once for both links");
    fetcher.flush().await;
    assert_eq!(home.store.missing(&trees, Keep::Cache).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_whose_way_is_not_here_is_passed_over() {
    let (mut built, way, _) = linked();
    let (home, id) = (Home::new(), built.id);
    let source = fetching::source(&built, |_| false, None);
    built.objects.retain(|object| !way.contains(&object.id()));
    home.put(built.objects);
    let view = fetching::open(&home, source.clone(), id).await;
    let mut contents = Contents::new(view, globs(&["d/**"]), None);
    let mut files = 0;
    while let Some(found) = contents.next().await.unwrap() {
        files += found.files.len();
    }
    assert_eq!((files, contents.has_passed_over()), (0, true));
    assert_eq!(*source.asked.lock().unwrap(), [], "nothing is fetched");
}

/// Storage nodes and their auditors must mean the same chunk by a place.
#[test]
fn the_nth_chunk_is_that_of_a_walk_over_all_files() {
    let agree = async |view: Arc<View>| {
        let mut walked = Vec::new();
        for file in all(&view, globs(&[]), Some(Class::Fault)).await.1 {
            let objects = objects(&view, &file).await;
            walked.extend(objects.into_iter().map(|(id, _)| id).filter(|id| id.kind == Kind::Chunk));
        }
        assert_eq!(walked.len() as u64, view.snapshot().totals.chunks);
        for (place, id) in (0..).zip(&walked) {
            assert_eq!(view.nth_chunk(place).await.unwrap().map(ObjectId::from), Some(*id), "{place}");
        }
        for beyond in [walked.len() as u64, u64::MAX] {
            assert_eq!(view.nth_chunk(beyond).await.unwrap(), None);
        }
    };
    block_on(async { agree(Home::new().view(built().0).await).await });
    check(20, directory(), |names| {
        block_on(async { agree(Home::new().view(NaiveWalk::build(&names, 3).0).await).await });
        Ok(())
    });
}
