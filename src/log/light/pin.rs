//! Pins: a head named by its height and hash, as the root of trust in place of the genesis.
//!
//! Owns: the text form. Must not know: where the user has it from. Invariant: parsing and printing agree.
//! Trust: what the user names is believed as the user's word. Threads: pure values.

use std::fmt;
use std::str::FromStr;

use crate::id::HeaderId;

/// A head that the user vouches for: `@HEIGHT:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    pub height: u64,
    pub header: HeaderId,
}

/// A text that is no pin: the user's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a pin: write @HEIGHT:HASH, such as @12:6f…, with the 64 hexadecimal digits of a header's id"
)]
pub struct ParsePinError(String);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}:{}", self.height, self.header)
    }
}

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        let parts = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
        let pin = parts.and_then(|(height, header)| {
            let height = height.parse().ok().filter(|height| *height > 0)?;
            Some(Self { height, header: header.parse().ok()? })
        });
        // One text for one pin: no sign, no leading zero, no upper-case digits.
        let exact = pin.filter(|pin| pin.to_string() == text);
        exact.ok_or_else(|| ParsePinError(text.chars().take(100).filter(|c| !c.is_control()).collect()))
    }
}
