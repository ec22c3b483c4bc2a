//! Why something about the network failed.

use std::time::Duration;

use crate::id::Genesis;

/// `Address`, `Relay`, `OtherPeer`, `Myself`, `Listen` and `Refused` are the user's to mend; `Protocol` is the peer's fault; the
/// rest may pass when tried again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetError {
    #[error(
        "`{address}` is no address to connect to: {cause}; one looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…"
    )]
    Address { address: String, cause: String },
    #[error("cannot listen on `{address}`: {cause}")]
    Listen { address: String, cause: String },
    #[error("`{address}` is no relay: {cause}; one looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…")]
    Relay { address: String, cause: String },
    #[error("{address} cannot be reached: {cause}")]
    Unreachable { address: String, cause: String },
    #[error(
        "at {address} there is {found}, not {expected}; the address is out of date or somebody else answers"
    )]
    OtherPeer { address: String, expected: String, found: String },
    #[error("{address} is this node itself")]
    Myself { address: String },
    #[error("{what} took longer than {after:?}")]
    TimedOut { what: String, after: Duration },
    #[error("the connection to {address} was not allowed: {cause}")]
    Denied { address: String, cause: String },
    #[error("`{0}` is no peer id")]
    PeerId(String),
    #[error("{peer} is not connected; connect to it first")]
    NotConnected { peer: String },
    #[error("{peer} broke off: {cause}")]
    Broken { peer: String, cause: String },
    #[error("{peer} gave an answer that makes no sense: {cause}")]
    Protocol { peer: String, cause: String },
    #[error("{peer} does not follow the log {genesis}")]
    UnknownLog { peer: String, genesis: Genesis },
    #[error("{peer} refused: {cause}")]
    Refused { peer: String, cause: String },
    #[error("{peer} could not do it now: {cause}")]
    Failed { peer: String, cause: String },
    #[error("the network cannot be set up: {0}")]
    Setup(String),
    #[error("the network is shut down")]
    Stopped,
}

impl NetError {
    pub(super) fn unsupported(address: &str) -> NetError {
        let cause = "/ip4, /ip6, /dns, /dns4 and /dns6 are supported with /tcp/PORT, /tcp/PORT/ws or /udp/PORT/quic-v1, also before /p2p/RELAY/p2p-circuit".to_owned();
        NetError::Address { address: address.to_owned(), cause }
    }
}
