//! Tree nodes fetched before a walk comes to them: a walk alone waits for each on its way down, which takes as many
//! round trips as there are directories.
//!
//! Owns: which nodes are known and not fetched, and how far the scout is ahead of its walk.
//! Must not know: what the walk is for.
//! Invariant: nodes are fetched in the order in which the walk comes to them, as far as they are known. At most [`AHEAD`] are
//! on their way, [`LEAD`] fetched and not yet met by the walk, and [`KNOWN`] known.
//! Trust: that of `view`. What cannot be fetched is passed over: the walk meets the same error, and says so.
//! Threads: a task of the runtime, which ends when the scout is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::View;
use super::nodes::{Tree, TreePromise};
use crate::fetch::Class;
use crate::manifest::{Node, TreeNode};

/// Nodes on their way at a time.
const AHEAD: usize = 64;
/// Nodes that are fetched before the walk comes to them.
const LEAD: usize = 512;
/// Nodes that are remembered to be fetched. The walk finds the others itself.
const KNOWN: usize = 16 << 10;

/// Where a node is: which of the entries or children leads to it, from the first node down. In the order of a walk.
type Place = Vec<u32>;

/// Fetches the nodes below one, for one walk.
pub(super) struct Scout {
    _task: AbortOnDropHandle<()>,
    /// As many permits as nodes may be fetched now.
    lead: Arc<Semaphore>,
}

impl Scout {
    /// Begins at `root`.
    pub(super) fn new(view: Arc<View>, root: TreePromise, class: Class) -> Self {
        let lead = Arc::new(Semaphore::new(LEAD));
        let task = tokio::spawn(run(view, root, class, lead.clone()));
        Self { _task: AbortOnDropHandle::new(task), lead }
    }

    /// The walk has met a node.
    pub(super) fn met(&self) {
        if self.lead.available_permits() < LEAD {
            self.lead.add_permits(1);
        }
    }
}

async fn run(view: Arc<View>, root: TreePromise, class: Class, lead: Arc<Semaphore>) {
    let mut known = BTreeMap::from([(Place::new(), root)]);
    let mut fetching = JoinSet::new();
    loop {
        while fetching.len() < AHEAD
            && let Some((place, promise)) = known.pop_first()
        {
            let (view, lead) = (view.clone(), lead.clone());
            fetching.spawn(async move {
                // The semaphore is never closed; the walk gives the permit back.
                lead.acquire().await.ok()?.forget();
                view.nodes.bring(view.nodes.stored(promise.tree), class).await.ok()?;
                let tree = view.nodes.tree(&promise, class).await.ok()?;
                Some((place, promise, tree))
            });
        }
        match fetching.join_next().await {
            Some(Ok(Some((place, promise, tree)))) => known.extend(below(&place, &promise, &tree)),
            Some(_) => {}
            None => return,
        }
        while known.len() > KNOWN {
            known.pop_last();
        }
    }
}

/// The nodes that a node leads to.
fn below(place: &Place, promise: &TreePromise, tree: &Tree) -> Vec<(Place, TreePromise)> {
    let at = |position: usize| [&place[..], &[position as u32]].concat();
    match tree.index.node() {
        TreeNode::Branch(children) => {
            let promised = children.iter().enumerate();
            promised.map(|(position, child)| (at(position), promise.of_child(children, child))).collect()
        }
        TreeNode::Leaf(entries) => {
            let directories = entries.iter().enumerate().filter_map(|(position, entry)| match entry.node {
                Node::Dir { tree, totals, .. } => {
                    Some((at(position), TreePromise::of_directory(tree, totals)))
                }
                Node::File { .. } | Node::Symlink { .. } | Node::Link { .. } => None,
            });
            directories.collect()
        }
    }
}
