//! How much goes through a link.
//!
//! Owns: the text form of rates, as `tc` has it, and the burst that suits a rate.
//! Must not know: links. Invariant: a rate is never 0, and what it prints is read as the same rate by `tc` and here.
//! Trust: the text is a developer's. Threads: plain values.

use std::fmt;
use std::str::FromStr;

/// A text that is no rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate: expected a number and kbit, mbit or gbit, such as 200mbit")]
pub struct BadRate(String);

/// Bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// Millions of bits a second.
    pub const fn mbit(count: u32) -> Rate {
        Rate(count as u64 * 1_000_000)
    }

    pub fn bytes_per_second(self) -> f64 {
        // Far below 2^53.
        self.0 as f64 / 8.0
    }

    /// Bytes that may go at once after a pause: what the link carries in 4 ms, as the kernel does not look more often, but
    /// not less than the longest packet.
    pub(crate) fn burst(self) -> u64 {
        (self.0 / 8 / 250).max(16 << 10)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate(bits) = *self;
        match bits {
            _ if bits.is_multiple_of(1_000_000_000) => write!(f, "{}gbit", bits / 1_000_000_000),
            _ if bits.is_multiple_of(1_000_000) => write!(f, "{}mbit", bits / 1_000_000),
            _ => write!(f, "{}kbit", bits / 1_000),
        }
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Rate, BadRate> {
        let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
        let read = |(name, unit): (&str, u64)| {
            let number: u32 = text.strip_suffix(name)?.parse().ok()?;
            u64::from(number).checked_mul(unit).filter(|bits| *bits > 0)
        };
        units.into_iter().find_map(read).map(Rate).ok_or_else(|| BadRate(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_printed() {
        for text in ["200mbit", "1gbit", "1500mbit", "64kbit"] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("200mbit".parse(), Ok(Rate::mbit(200)));
        for text in ["", "200", "mbit", "0mbit", "-1mbit", "1.5mbit", "5000000000gbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
