//! Random trees, and the numbers that a plain recursive walk gives their inodes.

use proptest::prelude::*;

use super::*;
use crate::manifest::Content;

#[derive(Debug, Clone)]
pub(super) enum Model {
    File,
    Symlink,
    /// A further name of the file or symlink that was met as number so many, if there are any yet.
    Link(usize),
    Dir(Vec<(String, Model)>),
}

pub(super) fn directory() -> impl Strategy<Value = Vec<(String, Model)>> {
    let leaf = prop_oneof![
        3 => Just(Model::File),
        1 => Just(Model::Symlink),
        1 => any::<usize>().prop_map(Model::Link),
    ];
    let node = leaf.prop_recursive(5, 200, 12, |inner| {
        prop::collection::btree_map("[a-e]{1,3}", inner, 0..12)
            .prop_map(|names| Model::Dir(names.into_iter().collect()))
    });
    prop::collection::btree_map("[a-e]{1,3}", node, 0..12).prop_map(|names| names.into_iter().collect())
}

/// One name of the tree, as the naive walk sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) path: String,
    pub(super) ino: u64,
    pub(super) parent: u64,
    pub(super) is_dir: bool,
    /// A further name: the path of `ino` is another.
    pub(super) is_link: bool,
}

#[derive(Default)]
pub(super) struct NaiveWalk {
    last: u64,
    linkable: Vec<(u64, Node)>,
    pub(super) walked: Vec<Walked>,
}

impl NaiveWalk {
    /// Builds the snapshot of a tree, numbering inodes as they are met.
    pub(super) fn build(names: &[(String, Model)], fan: usize) -> (Built, Self) {
        let mut walk = Self { last: ROOT, ..Self::default() };
        let mut builder = Builder::new(fan);
        let entries = walk.entries(&mut builder, names, "", ROOT);
        (builder.finish(meta(0o755), &entries), walk)
    }

    fn entries(
        &mut self,
        builder: &mut Builder,
        names: &[(String, Model)],
        above: &str,
        parent: u64,
    ) -> Vec<Entry> {
        let entries = names.iter().map(|(name, model)| {
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            entry(name, self.node(builder, model, path, parent))
        });
        entries.collect()
    }

    fn node(&mut self, builder: &mut Builder, model: &Model, path: String, parent: u64) -> Node {
        if let (Model::Link(number), false) = (model, self.linkable.is_empty()) {
            let (first, _) = self.linkable[number % self.linkable.len()];
            self.walked.push(Walked { path, ino: first, parent, is_dir: false, is_link: true });
            return Node::Link { first };
        }
        self.last += 1;
        let ino = self.last;
        let is_dir = matches!(model, Model::Dir(_));
        self.walked.push(Walked { path: path.clone(), ino, parent, is_dir, is_link: false });
        // The time tells inodes apart.
        let meta = Meta { mtime_s: ino as i64, ..meta(0o644) };
        let node = match model {
            Model::Dir(names) => {
                let entries = self.entries(builder, names, &path, ino);
                let top = builder.directory(&entries);
                return Node::Dir { meta, tree: top.tree, totals: top.totals };
            }
            Model::Symlink => Node::Symlink { meta, nlink: 1, target: path.into_bytes() },
            Model::File | Model::Link(_) => Node::File { meta, nlink: 1, size: 0, content: Content::Empty },
        };
        self.linkable.push((ino, node.clone()));
        node
    }
}
