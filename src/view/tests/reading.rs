//! Reads and searches against files in memory.

use proptest::prelude::*;

use super::*;
use crate::id::{ChunkId, FileHash};
use crate::manifest::Content;

#[derive(Debug, Clone)]
enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Piece::Data),
        1 => (1..60u64).prop_map(Piece::Hole),
    ];
    prop::collection::vec(piece, 1..30).prop_map(|mut pieces| {
        // A file's format has no two holes in a row.
        pieces.dedup_by(|b, a| matches!((a, b), (Piece::Hole(_), Piece::Hole(_))));
        pieces
    })
}

fn flat(pieces: &[Piece]) -> (Vec<u8>, Vec<bool>) {
    let mut bytes = Vec::new();
    let mut is_data = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Data(data) => bytes.extend(data),
            Piece::Hole(len) => bytes.resize(bytes.len() + *len as usize, 0),
        }
        is_data.resize(bytes.len(), matches!(piece, Piece::Data(_)));
    }
    (bytes, is_data)
}

fn build(pieces: &[Piece], fan: usize) -> Built {
    let mut builder = Builder::new(fan);
    let extents: Vec<Extent> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Data(data) => builder.chunk(data.clone()),
            Piece::Hole(len) => Extent { len: *len, chunk: None },
        })
        .collect();
    let top = builder.file(&extents);
    let hash = FileHash::from_bytes(*ChunkId::of(&flat(pieces).0).as_bytes());
    let content = Content::Blob { id: top.blob, chunks: top.chunks, hash };
    let file = Node::File { meta: meta(0o644), nlink: 1, size: top.bytes, content };
    builder.finish(meta(0o755), &[entry("file", file)])
}

#[test]
fn reads_are_those_of_a_vec() {
    let home = Home::new();
    let reads = prop::collection::vec((0..1200u64, 0..400u32), 1..20);
    check(96, (pieces(), 2..6usize, reads), |(pieces, fan, reads)| {
        let (bytes, is_data) = flat(&pieces);
        block_on(async {
            let view = home.view(build(&pieces, fan)).await;
            prop_assert_eq!(&view.read(2, 0, u32::MAX).await.unwrap(), &bytes);
            for (offset, len) in reads {
                let start = bytes.len().min(offset as usize);
                let end = bytes.len().min(start + len as usize);
                prop_assert_eq!(&view.read(2, offset, len).await.unwrap(), &bytes[start..end]);
                for (what, wanted) in [(Seek::Data, true), (Seek::Hole, false)] {
                    let place = (start..bytes.len()).find(|at| is_data[*at] == wanted);
                    let end = (!wanted && start < bytes.len()).then_some(bytes.len());
                    let found = view.seek(2, offset, what).await;
                    match place.or(end) {
                        Some(expected) => prop_assert_eq!(found.unwrap(), expected as u64),
                        None => prop_assert!(matches!(found, Err(ViewError::PastEnd))),
                    }
                }
            }
            Ok(())
        })
    });
}

#[test]
fn small_files_directories_and_links_are_read_as_what_they_are() {
    let home = Home::new();
    let mut builder = Builder::new(4);
    let chunk = builder.chunk(b"one chunk".to_vec()).chunk.unwrap();
    let content = Content::Chunk { id: chunk, hash: None };
    let file = |size, content| Node::File { meta: meta(0o644), nlink: 1, size, content };
    let entries = [
        entry("chunk", file(9, content.clone())),
        entry("empty", file(0, Content::Empty)),
        entry("link", Node::Symlink { meta: meta(0o777), nlink: 1, target: b"chunk".to_vec() }),
        entry("lonely", file(10, content)),
    ];
    let built = builder.finish(meta(0o755), &entries);
    block_on(async {
        let view = home.view(built).await;
        assert_eq!(view.read(2, 4, 100).await.unwrap(), "chunk");
        assert_eq!(view.read(2, u64::MAX, 100).await.unwrap(), "");
        assert_eq!(view.read(3, 0, 100).await.unwrap(), "");
        assert_eq!(view.read_link(4).await.unwrap(), b"chunk");
        assert!(matches!(view.read_link(2).await, Err(ViewError::NotASymlink(_))));
        assert!(matches!(view.read(ROOT, 0, 100).await, Err(ViewError::IsADirectory(_))));
        assert!(matches!(view.read(4, 0, 100).await, Err(ViewError::NotAFile(_))));
        assert!(matches!(view.read(5, 0, 100).await, Err(ViewError::Unfit { .. })));
    });
}
