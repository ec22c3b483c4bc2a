//! Connections of the hostile peer, and frames on its streams.
//!
//! Owns: the libp2p swarm and its task.
//! Must not know: what is sent, and why.
//! Invariant: whoever it was told to dial is dialled again while it is not connected.
//! Trust: it listens to anyone. Threads: one task drives the connections.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use anyhow::{Context, bail};
use bcai::swarm::wire::{HEADER_LEN, Header, Message};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux,
};
use libp2p_stream::{Control, IncomingStreams};

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/bcai/swarm/1");
/// How long the first connections may take.
const CONNECTING: Duration = Duration::from_secs(20);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(200);

pub type Reader = ReadHalf<Stream>;
pub type Writer = WriteHalf<Stream>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

pub struct Link {
    pub me: PeerId,
    /// Where it listens.
    pub address: String,
    /// Who it was told to dial.
    pub dialled: Vec<PeerId>,
    pub control: Control,
    incoming: IncomingStreams,
}

impl Link {
    /// Listens, and returns when everybody in `dial` is connected.
    pub async fn start(listen: &str, dial: &[String]) -> anyhow::Result<Link> {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|key| Behaviour {
                identify: identify::Behaviour::new(identify::Config::new("bcai/1".to_owned(), key.public())),
                ping: ping::Behaviour::default(),
                streams: libp2p_stream::Behaviour::new(),
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(24 * 3600)))
            .build();
        let me = *swarm.local_peer_id();
        let mut control = swarm.behaviour().streams.new_control();
        let incoming = control.accept(PROTOCOL)?;
        swarm.listen_on(listen.parse()?)?;
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break format!("{address}/p2p/{me}");
            }
        };
        let mut targets = HashMap::new();
        for text in dial {
            let address: Multiaddr = text.parse().with_context(|| format!("`{text}` is no address"))?;
            let Some(libp2p::multiaddr::Protocol::P2p(peer)) = address.iter().last() else {
                bail!("`{text}` does not end in /p2p/ID");
            };
            targets.insert(peer, address);
        }
        let dialled = targets.keys().copied().collect();
        let connect = until_connected(&mut swarm, &targets);
        tokio::time::timeout(CONNECTING, connect).await.context("not everybody could be connected")?;
        tokio::spawn(async move {
            loop {
                until_connected(&mut swarm, &targets).await;
                // Nobody is lost as long as nothing is heard of it.
                swarm.select_next_some().await;
            }
        });
        Ok(Link { me, address, dialled, control, incoming })
    }

    /// The next stream that somebody opens.
    pub async fn incoming(&mut self) -> Option<(PeerId, Stream)> {
        self.incoming.next().await
    }
}

/// Dials whoever is not connected, again and again.
async fn until_connected(swarm: &mut Swarm<Behaviour>, targets: &HashMap<PeerId, Multiaddr>) {
    loop {
        let mut connected = true;
        for (peer, address) in targets {
            if !swarm.is_connected(peer) {
                connected = false;
                // One that is being dialled already is what is wanted.
                let _ = swarm.dial(address.clone());
            }
        }
        if connected {
            return;
        }
        let pause = tokio::time::sleep(AGAIN);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = swarm.select_next_some() => {}
            }
        }
    }
}

/// The next frame.
pub async fn frame(reader: &mut Reader) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_LEN];
    reader.read_exact(&mut bytes).await?;
    // Decoding bounds the length.
    let header = Header::decode(&bytes).map_err(io::Error::other)?;
    let mut payload = vec![0; header.len as usize];
    reader.read_exact(&mut payload).await?;
    Ok((header, payload))
}

/// The next frame as a message; `None` if it is none that is known here.
pub async fn message(reader: &mut Reader) -> io::Result<Option<Message>> {
    let (header, payload) = frame(reader).await?;
    Message::decode(&header, &payload).map_err(io::Error::other)
}

pub async fn write(writer: &mut Writer, message: &Message) -> io::Result<()> {
    writer.write_all(&message.encode()).await?;
    writer.flush().await
}
