//! How long things stay in the store, and how often they are looked at again.
//!
//! Owns: these values. Must not know: what they are done with. Invariant and trust: as `config`. Threads: plain values.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ConfigError, Setting, parse};

/// What `bcai gc` and the scrub go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// How long a version's data stays after the version was withdrawn.
    pub withdrawn: Duration,
    /// How long a snapshot stays that is in no version, from when it was built.
    pub unpublished: Duration,
    /// In what time every object of the store is hashed again; `None` for never.
    pub scrub_in: Option<Duration>,
}

impl Keeping {
    pub(super) fn from_settings(settings: &BTreeMap<&'static str, Setting>) -> Result<Self, ConfigError> {
        let days = |key: &'static str| {
            let days: u64 = parse(key, &settings[key], "a number of days")?;
            Ok(Duration::from_secs(days.saturating_mul(86_400)))
        };
        let scrub: f64 = parse("scrub.days", &settings["scrub.days"], "a number of days, such as 30 or 0.5")?;
        Ok(Self {
            withdrawn: days("gc.keep_withdrawn")?,
            unpublished: days("gc.keep_unpublished")?,
            // None as well for what is no time: less than nothing, or more than any clock shows.
            scrub_in: Duration::try_from_secs_f64(scrub * 86_400.0).ok().filter(|time| !time.is_zero()),
        })
    }
}
