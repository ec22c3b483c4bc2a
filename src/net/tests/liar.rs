//! A peer that says of a log whatever a test has it say.

use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use tokio::task::AbortHandle;

use super::options;
use crate::id::{Genesis, HeaderId};
use crate::net::log_wire::{self, MAX_REQUEST, Request, Response};
use crate::net::shared::LOG_PROTOCOL;
use crate::net::transport;

/// What it says.
pub(crate) struct Lies {
    pub(crate) document: Vec<u8>,
    pub(crate) head: (u64, HeaderId),
    /// The header at the head's height, with what is to make others believe it.
    pub(crate) update: Vec<u8>,
    pub(crate) blocks: Vec<Vec<u8>>,
}

/// It listens until it is dropped.
pub(crate) struct LogLiar {
    pub(crate) address: String,
    tasks: [AbortHandle; 2],
}

impl Drop for LogLiar {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl LogLiar {
    pub(crate) async fn start(seed: u8, genesis: Genesis, lies: Lies) -> LogLiar {
        let mut swarm = transport::build(&options(seed, 0)).unwrap().0;
        let peer = *swarm.local_peer_id();
        let mut incoming = swarm.behaviour().streams.control().accept(LOG_PROTOCOL);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(peer).unwrap().to_string();
            }
        };
        let driving = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let lying = tokio::spawn(async move {
            while let Some((_, mut stream)) = incoming.next().await {
                let Ok(request) = log_wire::read(&mut stream, "a request", MAX_REQUEST).await else {
                    continue;
                };
                let response = answer(&lies, genesis, &request);
                let _ = log_wire::write(&mut stream, &response).await;
            }
        });
        LogLiar { address, tasks: [driving.abort_handle(), lying.abort_handle()] }
    }
}

fn answer(lies: &Lies, genesis: Genesis, request: &Request) -> Response {
    if *request.genesis() != genesis {
        return Response::Unknown;
    }
    match request {
        Request::Document { .. } => Response::Document { document: lies.document.clone().into() },
        Request::Head { .. } => Response::Head { height: lies.head.0, header: Some(lies.head.1) },
        Request::Update { .. } => Response::Update { update: lies.update.clone().into() },
        Request::Blocks { .. } => {
            Response::Blocks { blocks: lies.blocks.iter().cloned().map(Into::into).collect() }
        }
        Request::Submit { .. } | Request::Show { .. } => Response::failed("not now"),
    }
}
