//! How a user names content: `NAME@VERSION`, `NAME@TAG`, `NAME`, a snapshot id, or a whole `bcai://` URI.
//!
//! Owns: the text form of references and its errors.
//! Must not know: which names exist.
//! Invariant: `text.parse::<Reference>()?.to_string()` parses to the same reference.
//! Trust: the text may come from a stranger's message; every part is checked before it is used.
//! Threads: pure values.

use std::fmt;
use std::str::FromStr;

use crate::id::{Genesis, SnapshotId};
use crate::log::light::{ParsePinError, Pin};
use crate::origin::{OriginUrl, UrlError};

const SCHEME: &str = "bcai://";

/// A reference that cannot be understood: the user's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("`{0}` is not a dataset reference: expected NAME, NAME@VERSION, a snapshot id or a bcai:// URI")]
    Malformed(String),
    #[error("`{uri}` has no usable network id after bcai://: expected 64 hexadecimal digits, got `{found}`")]
    BadGenesis { uri: String, found: String },
    #[error("{cause}, which follows the network id in the URI")]
    Pin { cause: ParsePinError },
    #[error("`{uri}` names no dataset: expected bcai://GENESIS/NAME@VERSION?peer=ADDRESS")]
    NoName { uri: String },
    #[error("`{uri}` has the unknown part `{part}`: only peer=ADDRESS and origin=URL may follow the `?`")]
    UnknownPart { uri: String, part: String },
    #[error("what follows origin= in the URI cannot be used: {0}")]
    Origin(#[from] UrlError),
}

/// A dataset's name and the version or tag wanted; no selector means the tag `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub selector: Option<String>,
}

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A version of a dataset in this node's own network.
    Named(Named),
    /// A snapshot, whatever its name.
    Snapshot(SnapshotId),
    Uri(Uri),
}

/// A version in a network that this node need not know yet, and where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    pub genesis: Genesis,
    /// A head that the log must have led to, for who was given it by somebody to be believed.
    pub pin: Option<Pin>,
    pub named: Named,
    pub peers: Vec<String>,
    pub origins: Vec<OriginUrl>,
}

impl FromStr for Named {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (name, selector) = match text.split_once('@') {
            Some((name, selector)) => (name, Some(selector)),
            None => (text, None),
        };
        let plain =
            |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "?@".contains(c));
        if !plain(name) || !selector.is_none_or(plain) {
            return Err(ReferenceError::Malformed(text.into()));
        }
        Ok(Self { name: name.into(), selector: selector.map(str::to_owned) })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if let Some(rest) = text.strip_prefix(SCHEME) {
            return parse_uri(text, rest);
        }
        if text.contains("://") {
            return Err(ReferenceError::Malformed(text.into()));
        }
        match text.parse() {
            Ok(id) => Ok(Self::Snapshot(id)),
            Err(_) => text.parse().map(Self::Named),
        }
    }
}

fn parse_uri(uri: &str, rest: &str) -> Result<Reference, ReferenceError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (network, name) = path.split_once('/').unwrap_or((path, ""));
    let (network, pin) = match network.find('@') {
        Some(at) => {
            (&network[..at], Some(network[at..].parse().map_err(|cause| ReferenceError::Pin { cause })?))
        }
        None => (network, None),
    };
    let genesis =
        network.parse().map_err(|_| ReferenceError::BadGenesis { uri: uri.into(), found: network.into() })?;
    if name.is_empty() {
        return Err(ReferenceError::NoName { uri: uri.into() });
    }
    let named = name.parse()?;
    let (mut peers, mut origins) = (Vec::new(), Vec::new());
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("peer", address)) if address.starts_with('/') => peers.push(address.to_owned()),
            Some(("origin", url)) => origins.push(url.parse()?),
            _ => return Err(ReferenceError::UnknownPart { uri: uri.into(), part: part.into() }),
        }
    }
    Ok(Reference::Uri(Uri { genesis, pin, named, peers, origins }))
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Some(selector) => write!(f, "{}@{selector}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(named) => named.fmt(f),
            Self::Snapshot(id) => id.fmt(f),
            Self::Uri(Uri { genesis, pin, named, peers, origins }) => {
                let pin = pin.map_or(String::new(), |pin| pin.to_string());
                write!(f, "{SCHEME}{genesis}{pin}/{named}")?;
                let peers = peers.iter().map(|peer| format!("peer={peer}"));
                let parts = peers.chain(origins.iter().map(|origin| format!("origin={origin}")));
                for (i, part) in parts.enumerate() {
                    write!(f, "{}{part}", if i == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genesis() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn every_form_round_trips() {
        let uri =
            format!("bcai://{}/team/photos@v1?peer=/ip4/1.2.3.4/tcp/5/p2p/X&peer=/dns/a/tcp/1", genesis());
        let stored = format!("{uri}&origin=s3://bucket/prefix&origin=file:///srv/data");
        let pinned = format!("bcai://{0}@12:{0}/photos@v1?peer=/ip4/1.2.3.4/tcp/5", genesis());
        for text in ["photos", "photos@v1", "team/photos@latest", &genesis(), &uri, &stored, &pinned] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        assert!(matches!(genesis().parse(), Ok(Reference::Snapshot(_))));
    }

    #[test]
    fn each_mistake_has_its_own_answer() {
        let parse = |text: &str| text.parse::<Reference>().unwrap_err();
        assert!(matches!(parse("bcai://short/photos@v1"), ReferenceError::BadGenesis { .. }));
        assert!(matches!(parse(&format!("bcai://{}", genesis())), ReferenceError::NoName { .. }));
        assert!(matches!(parse(&format!("bcai://{}@12/photos", genesis())), ReferenceError::Pin { .. }));
        assert!(matches!(parse(&format!("bcai://{}/p?x=1", genesis())), ReferenceError::UnknownPart { .. }));
        let secret = parse(&format!("bcai://{}/p@v1?origin=https://user:hunter2@h/x", genesis()));
        assert!(matches!(secret, ReferenceError::Origin(_)) && !secret.to_string().contains("hunter2"));
        for junk in
            ["", "@v1", "photos@", "a b@v1", "a@b@c", "http://x/y", &format!("bcai://{}/@v", genesis())]
        {
            assert!(matches!(parse(junk), ReferenceError::Malformed(_)), "{junk}");
        }
    }
}
