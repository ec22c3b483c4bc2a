//! How much may be sent or received in a second.
//!
//! Owns: the form of a limit. Must not know: who keeps to it. Invariant and trust: as `config`. Threads: plain values.

use std::str::FromStr;

use bytesize::ByteSize;

/// Bytes a second, or as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

impl Limit {
    /// Bytes a second that a limit is at least: what waits for less looks to others as if it had gone.
    pub const MIN: u64 = 64 << 10;
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self(None));
        }
        let rate = text.parse::<ByteSize>().map(|rate| rate.as_u64()).unwrap_or(0);
        if rate < Self::MIN {
            return Err(format!("expected {LIMIT}"));
        }
        Ok(Self(Some(rate)))
    }
}

/// What a limit looks like.
pub(super) const LIMIT: &str = "unlimited, or bytes a second such as 10MiB, at least 64KiB";
