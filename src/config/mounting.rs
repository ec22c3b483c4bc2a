//! What can be chosen for a mount.
//!
//! Owns: the names of the choices. Must not know: what they do.
//! Invariant: that of `config`. Trust: the user's. Threads: pure values.

use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// How the contents of a mount shall reach their readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Io {
    /// What suits the sizes of the files and what this machine allows.
    #[default]
    Auto,
    /// Large files are read by the kernel itself, from a copy on disk.
    Passthrough,
    /// Opening a file costs nothing; for very many small ones.
    ZeroOpen,
    /// Neither; works everywhere.
    Cached,
}

impl FromStr for Io {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "passthrough" => Ok(Self::Passthrough),
            "zero-open" => Ok(Self::ZeroOpen),
            "cached" => Ok(Self::Cached),
            _ => Err(format!("unknown io mode `{name}`; known: auto, passthrough, zero-open, cached")),
        }
    }
}

/// Where what is read in a mount and is not here comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fetch {
    /// From nobody.
    Local,
    /// From the best peer; from others what it fails on.
    Best,
    /// From whoever has it.
    #[default]
    Spread,
    /// The same; but several peers must have said first how far the log has come that says which version is meant.
    Quorum,
}

impl Fetch {
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Best => "best",
            Self::Spread => "spread",
            Self::Quorum => "quorum",
        }
    }
}

impl FromStr for Fetch {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Local, Self::Best, Self::Spread, Self::Quorum];
        let known = all.into_iter().find(|fetch| fetch.name() == name);
        known.ok_or_else(|| format!("unknown fetch strategy `{name}`; known: local, best, spread, quorum"))
    }
}

/// How far ahead of its readers a mount fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readahead {
    /// As far as is found to be of use.
    #[default]
    Auto,
    /// So many bytes ahead of each reader; 0: nothing is fetched before it is asked for.
    Fixed(u64),
}

impl Readahead {
    /// What can be asked for by hand, but for 0. Less than an object is nothing, more than a cache holds is in vain.
    const BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

    /// Bytes, where they do not follow what is measured.
    pub fn fixed(self) -> Option<u64> {
        match self {
            Self::Auto => None,
            Self::Fixed(bytes) => Some(bytes),
        }
    }
}

impl FromStr for Readahead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse::<ByteSize>().map(|size| size.as_u64()) {
            Ok(bytes) if bytes == 0 || Self::BYTES.contains(&bytes) => Ok(Self::Fixed(bytes)),
            _ => Err(format!("`{text}` is no way to read ahead; known: {READAHEAD}")),
        }
    }
}

/// What that looks like.
pub(super) const READAHEAD: &str = "auto, 0 (nothing), or a size such as 8MiB, from 64KiB to 1GiB";
