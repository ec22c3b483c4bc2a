//! Directories fetched ahead of those who list them.

use super::fetching::{open, source};
use super::*;

/// A tree of directories, `fan` in each, `depth` levels, each with a file.
fn directory(builder: &mut Builder, fan: usize, depth: usize) -> TreeChild {
    let mut entries = Vec::new();
    if depth > 0 {
        for number in 0..fan {
            let below = directory(builder, fan, depth - 1);
            let node = Node::Dir { meta: meta(0o755), tree: below.tree, totals: below.totals };
            // Otherwise all of a level would be one object.
            let file =
                Node::Symlink { meta: meta(0o777), nlink: 1, target: vec![b'x'; builder.objects.len() + 1] };
            entries.push(entry(&format!("d{number:03}"), node));
            entries.push(entry(&format!("f{number:03}"), file));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
    }
    builder.directory(&entries)
}

fn built(fan: usize, depth: usize) -> Built {
    // Nodes of four items: most directories have branches.
    let mut builder = Builder::new(4);
    let top = directory(&mut builder, fan, depth);
    let root = Node::Dir { meta: meta(0o755), tree: top.tree, totals: top.totals };
    builder.finish(meta(0o755), &[entry("top", root)])
}

/// All directories in the order of the walk.
async fn directories(view: &Arc<View>) -> Vec<u64> {
    let mut walk = Walk::new(view.clone(), ROOT);
    let mut found = Vec::new();
    while let Some(next) = walk.next().await.unwrap() {
        if next.attr.kind == FileKind::Dir {
            found.push(next.attr.ino);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directories_that_follow_come_in_the_order_of_the_walk() {
    let (home, built) = (Home::new(), built(5, 3));
    let all = directories(&open(&home, source(&built, |_| false, None), built.id).await).await;
    for after in [ROOT, all[0], all[1], all[7], all[all.len() / 2], *all.last().unwrap()] {
        for count in [1, 3, 40, 1000] {
            let (home, source) = (Home::new(), source(&built, |_| false, None));
            let view = open(&home, source.clone(), built.id).await;
            let fetched = view.fetch_listings(after, count).await.unwrap();
            let expected: Vec<u64> = all.iter().copied().filter(|ino| *ino > after).take(count).collect();
            assert_eq!(fetched, expected, "{count} after {after}");
            let asked = source.asked.lock().unwrap().len();
            for ino in &fetched {
                view.read_dir(*ino, 0, 1000).await.unwrap();
            }
            // Of a directory with more directories than were asked for, as many nodes come as those take.
            let in_full = source.asked.lock().unwrap().len() == asked;
            assert!(in_full || count < 5, "{count} after {after} are here in full");
            // Siblings of what was wanted may have come with it, but not the whole tree.
            assert!(count > 3 || asked < built.objects.len() / 2, "{asked} for {count}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_directory_comes_as_a_whole() {
    let mut builder = Builder::new(4);
    let long: Vec<Entry> = (0..500)
        .map(|n| {
            let target = format!("{n}").into_bytes();
            entry(&format!("{n:04}"), Node::Symlink { meta: meta(0o777), nlink: 1, target })
        })
        .collect();
    let long = builder.directory(&long);
    let long = Node::Dir { meta: meta(0o755), tree: long.tree, totals: long.totals };
    let (home, built) = (Home::new(), builder.finish(meta(0o755), &[entry("long", long)]));
    let source = source(&built, |_| false, None);
    let view = open(&home, source.clone(), built.id).await;
    view.fetch_directory(2).await.unwrap();
    let asked = source.asked.lock().unwrap().len();
    assert_eq!(view.read_dir(2, 0, 1000).await.unwrap().entries.len(), 500);
    assert_eq!(source.asked.lock().unwrap().len(), asked);
}
