//! The settings of a storage node.
//!
//! Owns: their values. Must not know: what replicas are. Invariant and trust: as `config`. Threads: plain values.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ConfigError, Setting, parse};
use crate::net::MAX_ZONE;

/// What a storage node goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// Where it is; empty if nobody said.
    pub zone: String,
    /// How long another may be silent before it counts as lost.
    pub lost_after: Duration,
    /// How long a version is held after it was withdrawn.
    pub keep_withdrawn: Duration,
}

impl Replicas {
    pub(super) fn from_settings(settings: &BTreeMap<&'static str, Setting>) -> Result<Self, ConfigError> {
        let zone = &settings["replicas.zone"];
        if zone.value.len() > MAX_ZONE {
            return Err(ConfigError::BadValue {
                key: "replicas.zone",
                value: zone.value.clone(),
                origin: zone.origin.clone(),
                expected: format!("a text of at most {MAX_ZONE} bytes"),
            });
        }
        let seconds = |key: &'static str, unit: u64, expected: &str| {
            let number: u64 = parse(key, &settings[key], expected)?;
            Ok(Duration::from_secs(number.saturating_mul(unit)))
        };
        Ok(Self {
            zone: zone.value.clone(),
            lost_after: seconds("replicas.lost_after", 1, "a number of seconds")?,
            keep_withdrawn: seconds("replicas.keep_withdrawn", 86_400, "a number of days")?,
        })
    }
}
