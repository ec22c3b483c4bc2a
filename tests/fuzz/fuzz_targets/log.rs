//! Everything of the log that comes from strangers: entries, headers, blocks, proofs, notes; and a block on a ledger.

#![no_main]

use std::sync::LazyLock;

use bcai_fuzz::codec;
use bcai_fuzz::log::light::{Trusted, Update};
use bcai_fuzz::log::note::Note;
use bcai_fuzz::log::proof::VersionProof;
use bcai_fuzz::log::shown::{Question, Shown};
use bcai_fuzz::log::{Block, Body, Certificate, Entry, GenesisDoc, Header, Ledger, StateProof};
use bcai_fuzz::{choose, one_spelling};
use data_encoding::HEXLOWER;
use libfuzzer_sys::fuzz_target;

/// The log of the golden files before its first block.
static LEDGER: LazyLock<Ledger> = LazyLock::new(|| {
    let hex = include_str!("../../fixtures/log/genesis.hex").trim_end();
    let document = GenesisDoc::decode(&HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap();
    Ledger::genesis(&document).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = choose(data) else { return };
    let again = match which % 12 {
        0 => Entry::decode(bytes).ok().map(|entry| {
            let _ = (entry.verify().is_ok(), LEDGER.admit(&entry).is_ok());
            entry.encode()
        }),
        1 => Header::decode(bytes).ok().map(|header| header.encode()),
        2 => Body::decode(bytes).ok().map(|body| body.encode()),
        3 => Certificate::decode(bytes).ok().map(|certificate| certificate.encode()),
        4 => Block::decode(bytes).ok().map(|block| {
            let _ = LEDGER.apply(&block).is_ok();
            block.encode()
        }),
        5 => GenesisDoc::decode(bytes).ok().map(|document| {
            let _ = Ledger::genesis(&document).is_ok();
            document.encode()
        }),
        6 => Update::decode(bytes).ok().map(|update| {
            let _ = LEDGER.trusted().advance(&update).is_ok();
            update.encode()
        }),
        7 => Trusted::decode(bytes).ok().map(|trusted| trusted.encode()),
        8 => Shown::decode(bytes).ok().map(|shown| shown.encode()),
        9 => Question::decode(bytes).ok().map(|question| question.encode()),
        10 => VersionProof::decode(bytes).ok().map(|proof| {
            let _ = VersionProof::verify(bytes, LEDGER.network()).is_ok();
            proof.encode()
        }),
        _ => {
            if let Ok(note) = Note::parse(bytes) {
                one_spelling(bytes, Some(note.to_string().into_bytes()));
            }
            codec::decode::<StateProof>("a proof", bytes, 1 << 20).ok().map(|proof| codec::encode(&proof))
        }
    };
    one_spelling(bytes, again);
});
