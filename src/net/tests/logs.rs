//! Log requests between nodes.

use std::path::Path;

use futures::io::AsyncReadExt;

use super::raw::{Raw, say};
use super::*;
use crate::chain::Chain;
use crate::log::{
    Block, Certificate, Entry, EntryBody, GenesisDoc, Publish, Validator, ValidatorSet, VoteKind, vote_bytes,
};
use crate::net::log_wire::MAX_REQUEST;
use crate::net::shared::LOG_PROTOCOL;
use crate::net::streams::Route;
use crate::store::LogStore;

fn chain(dir: &Path, heights: u64) -> Arc<Chain> {
    let key = key(1);
    let validators = ValidatorSet::new(vec![Validator { key: key.public(), weight: 1 }]).unwrap();
    let document = GenesisDoc::new("test".parse().unwrap(), [1; 16], 1_000, validators);
    let chain = Chain::open(LogStore::open(&dir.join("log.redb")).unwrap(), &document).unwrap();
    for height in 1..=heights {
        let ledger = chain.ledger();
        let version = format!("v{height}");
        // Many entries make blocks that do not all fit one response.
        let entries = (0..200).map(|n| {
            let body = EntryBody::Publish(Publish {
                name: format!("photos-{n}").parse().unwrap(),
                version: version.parse().unwrap(),
                snapshot: crate::id::SnapshotId::of(version.as_bytes()),
                bytes: 1,
                inodes: 1,
                parent: None,
                replicas: Vec::new(),
                copies: None,
            });
            Entry::sign(&key, ledger.network(), (height - 1) * 200 + n + 1, body)
        });
        let (header, body) = ledger.propose(entries.collect(), ledger.time_ms() + 1, key.public());
        let id = header.id();
        let vote = key.sign(&vote_bytes(ledger.network(), VoteKind::Precommit, height, 0, Some(id)));
        let certificate =
            Certificate::assemble(ledger.validators(), height, 0, id, [(key.public(), vote)]).unwrap();
        chain.commit(Block { header, body, certificate }).unwrap();
    }
    Arc::new(chain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_from_a_peer() {
    let (server, reader) = (start(1).await, start(2).await);
    let dir = TempDir::new().unwrap();
    let chain = chain(dir.path(), 40);
    let genesis = chain.genesis();
    reader.connect(&server).await;
    let peer = server.net.peer_id();
    let unknown = reader.net.head(&peer, genesis).await.unwrap_err();
    assert!(matches!(unknown, NetError::UnknownLog { .. }), "{unknown}");

    server.chains.insert(chain.clone());
    let document = reader.net.genesis(&peer, genesis).await.unwrap();
    assert_eq!(GenesisDoc::decode_as(&document, genesis).unwrap(), *chain.document());
    let head = reader.net.head(&peer, genesis).await.unwrap();
    assert_eq!((head.height, head.header), (40, chain.ledger().head().map(|header| header.id())));
    let (mut from, mut responses) = (1, 0);
    while from <= head.height {
        let blocks = reader.net.blocks(&peer, genesis, from).await.unwrap();
        responses += 1;
        for block in blocks {
            assert_eq!(Block::decode(&block).unwrap().header.height, from);
            from += 1;
        }
    }
    assert!(responses > 1, "the blocks were meant to be too large for one response");
    assert!(reader.net.blocks(&peer, genesis, 41).await.unwrap().is_empty());
    assert!(reader.net.blocks(&peer, genesis, u64::MAX).await.unwrap().is_empty());

    for (peer, expect_id) in [("nobody", false), (reader.net.peer_id().as_str(), true)] {
        match reader.net.head(peer, genesis).await.unwrap_err() {
            NetError::PeerId(_) => assert!(!expect_id),
            NetError::NotConnected { .. } => assert!(expect_id),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_are_all_answered() {
    let (server, reader) = (start(1).await, start(2).await);
    let dir = TempDir::new().unwrap();
    let chain = chain(dir.path(), 1);
    let genesis = chain.genesis();
    server.chains.insert(chain);
    reader.connect(&server).await;
    let peer = server.net.peer_id();
    let calls = (0..30).map(|_| reader.net.head(&peer, genesis));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap().height, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_handed_over_and_their_fate_comes_back() {
    let (mut server, reader) = (start(1).await, start(2).await);
    let dir = TempDir::new().unwrap();
    let chain = chain(dir.path(), 0);
    let genesis = chain.genesis();
    server.chains.insert(chain);
    reader.connect(&server).await;
    let peer = server.net.peer_id();
    let done = Submitted { height: 7, round: 1, entry: crate::id::EntryId::of(b"entry") };
    let fates = [
        Ok(done),
        Err(SubmitError::Refused("the name is taken".into())),
        Err(SubmitError::Failed("no quorum".into())),
    ];
    for fate in fates {
        let submit = reader.net.submit(&peer, genesis, b"entry".to_vec());
        let decide = async {
            let submission = server.submissions.recv().await.unwrap();
            assert_eq!((submission.genesis, &submission.entry[..]), (genesis, &b"entry"[..]));
            submission.reply.send(fate.clone()).unwrap();
        };
        match (tokio::join!(submit, decide).0, fate) {
            (Ok(got), Ok(sent)) => assert_eq!(got, sent),
            (Err(NetError::Refused { cause, .. }), Err(SubmitError::Refused(sent))) => {
                assert_eq!(cause, sent)
            }
            (Err(NetError::Failed { cause, .. }), Err(SubmitError::Failed(sent))) => assert_eq!(cause, sent),
            (got, sent) => panic!("{got:?} for {sent:?}"),
        }
    }
    // Dropped, too long, and to a node that takes none.
    let submit = reader.net.submit(&peer, genesis, b"entry".to_vec());
    let (result, ()) = tokio::join!(submit, async { drop(server.submissions.recv().await) });
    assert!(matches!(result, Err(NetError::Failed { .. })));
    let long = reader.net.submit(&peer, genesis, vec![0; MAX_REQUEST]).await;
    assert!(matches!(long, Err(NetError::Refused { .. })));
    server.submissions.close();
    assert!(matches!(reader.net.submit(&peer, genesis, vec![1]).await, Err(NetError::Failed { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_instead_of_a_request_closes_the_connection() {
    let server = start(1).await;
    let id = server.net.peer_id().parse().unwrap();
    let too_long = (MAX_REQUEST as u32 + 1).to_le_bytes().to_vec();
    let junk = [&4u32.to_le_bytes()[..], &[0xff; 4]].concat();
    for (n, bytes) in [too_long, junk].into_iter().enumerate() {
        let raw = Raw::start(10 + n as u8, Some(&server.address())).await;
        let mut stream = raw.control.open(id, LOG_PROTOCOL, Route::Shared).await.unwrap();
        say(&mut stream, &bytes).await;
        let mut answer = Vec::new();
        // Whether it ends orderly or not, nothing comes.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        until("the end", || raw.closed() == 1).await;
    }
}
