//! More than a peer may ask for.
//!
//! Owns: what is sent to one victim, over and over.
//! Must not know: how connections come about. Invariant: it goes on, whatever the victim does.
//! Trust: none needed. Threads: one task for each victim.

use std::io;
use std::time::Duration;

use bcai::id::{Kind, ObjectId};
use bcai::swarm::serving::MAX_WANTS;
use bcai::swarm::wire::{Attach, Hello, MAX_NAMED, MAX_PAYLOAD, Message, Want};
use bcai::swarm::{Class, Lane};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::PeerId;
use libp2p_stream::Control;

use super::link::{self, PROTOCOL, Reader, Writer};

/// Streams that are opened and never say what they are for.
const MUTE: usize = 100;
/// Between two attacks: without it the victim's defence would be starved of this machine's processor.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one attack may take.
const ATTACK: Duration = Duration::from_secs(5);

pub async fn flood(mut control: Control, victim: PeerId) {
    for round in 0u64.. {
        let attack = async {
            match round % 3 {
                0 => too_many_wants(&mut control, victim, round).await,
                1 => mute_streams(&mut control, victim).await,
                _ => junk(&mut control, victim).await,
            }
        };
        // That the victim ends it is what should happen.
        let _ = tokio::time::timeout(ATTACK, attack).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(control: &mut Control, victim: PeerId) -> io::Result<(Reader, Writer)> {
    let stream = control.open_stream(victim, PROTOCOL).await.map_err(io::Error::other)?;
    Ok(stream.split())
}

/// A session like any other, in which more is wanted at once than is allowed.
async fn too_many_wants(control: &mut Control, victim: PeerId, round: u64) -> io::Result<()> {
    let (mut reader, mut writer) = open(control, victim).await?;
    let hello = Hello { session: round, features: 0, max_wants: 1, agent: "flood".into() };
    link::write(&mut writer, &Message::Hello(hello)).await?;
    link::message(&mut reader).await?;
    let mut lanes = Vec::new();
    for lane in [Lane::Urgent, Lane::Bulk] {
        let mut streams = open(control, victim).await?;
        link::write(&mut streams.1, &Message::Attach(Attach { session: round, lane })).await?;
        lanes.push(streams);
    }
    for batch in 0..=(MAX_WANTS / MAX_NAMED) as u64 {
        let first = 1 + batch * MAX_NAMED as u64;
        let object = |request: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&request.to_le_bytes());
            ObjectId { kind: Kind::Chunk, hash }
        };
        let objects = (first..).take(MAX_NAMED).map(object).collect();
        let want = Want { first, class: Class::Fault, deadline_ms: 60_000, credit: 1, objects };
        link::write(&mut writer, &Message::Want(want)).await?;
    }
    until_closed(&mut reader).await
}

/// Streams that occupy a place each.
async fn mute_streams(control: &mut Control, victim: PeerId) -> io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..MUTE {
        held.push(open(control, victim).await?);
    }
    Ok(())
}

/// Bytes that are no frame.
async fn junk(control: &mut Control, victim: PeerId) -> io::Result<()> {
    let (mut reader, mut writer) = open(control, victim).await?;
    writer.write_all(&vec![0xff; 16 * MAX_PAYLOAD]).await?;
    writer.flush().await?;
    until_closed(&mut reader).await
}

async fn until_closed(reader: &mut Reader) -> io::Result<()> {
    loop {
        link::frame(reader).await?;
    }
}
