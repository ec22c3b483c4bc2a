//! What is measured of the manifest log, and the targets.
//!
//! Owns: the rows. Must not know: how they are measured.
//! Invariant: every row is final: on the disk of those who have decided it, with a certificate.
//! Trust: none needed. Threads: plain values.

use clap::ValueEnum;
use serde::Serialize;

use crate::report::{self, Goal};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    OneValidator,
    FourValidators,
    Entries,
}

impl report::Row for Row {
    fn what(self) -> &'static str {
        match self {
            Self::OneValidator => "one validator: from signing a version to its certificate on disk, p50",
            Self::FourValidators => {
                "four validators on the loopback, the same, p50 over those who publish in turn"
            }
            Self::Entries => "the same four: entries decided in a second when many submit at once",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::OneValidator | Self::FourValidators => "ms",
            Self::Entries => "entries/s",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::OneValidator => Goal::AtMost(5.0),
            Self::FourValidators => Goal::AtMost(20.0),
            Self::Entries => Goal::AtLeast(1_000.0),
        }
    }
}
