//! Snapshots, trees and blobs: what decodes has one spelling, and every question about it has an answer.

#![no_main]

use bcai_fuzz::manifest::{BlobNode, IndexedBlob, IndexedTree, Snapshot, TreeNode};
use bcai_fuzz::{choose, one_spelling};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 3 {
        0 => one_spelling(bytes, Snapshot::decode(bytes).ok().map(|snapshot| snapshot.encode())),
        1 => {
            let Ok(tree) = TreeNode::decode(bytes) else { return };
            one_spelling(bytes, Some(tree.encode()));
            let (entries, totals) = (tree.entries(), tree.totals());
            let index = IndexedTree::new(tree);
            for at in [0, 1, entries.saturating_sub(1), entries, u64::MAX] {
                let _ = (index.at_index(at), index.at_position(at));
            }
            if let Ok(totals) = totals {
                let _ = index.at_position(totals.inodes.saturating_sub(1));
            }
            let _ = (index.find(b""), index.find(bytes));
        }
        _ => {
            let Ok(blob) = BlobNode::decode(bytes) else { return };
            one_spelling(bytes, Some(blob.encode()));
            let totals = blob.totals();
            let index = IndexedBlob::new(blob);
            for at in [0, 1, totals.map_or(0, |(bytes, _)| bytes), u64::MAX] {
                let _ = (index.at_byte(at), index.steps_from(at).take(3).count());
            }
        }
    }
});
