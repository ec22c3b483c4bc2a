//! What is measured of a daemon's end, and the targets.
//!
//! Owns: the rows. Must not know: how they are measured.
//! Invariant: a stall is of one kill: the longest read of any reader that was under way when it came, from its first system call to
//! its last.
//! Trust: none needed. Threads: plain values.

use clap::ValueEnum;
use serde::Serialize;

use crate::report::{self, Goal};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    KillWrong,
    KillFailed,
    KillLost,
    KillStall,
    Supervisor,
    UpgradeFailed,
    UpgradeStall,
    UpgradeEpoch,
}

impl report::Row for Row {
    fn what(self) -> &'static str {
        match self {
            Self::KillWrong => {
                "SIGKILLs during publishes, mounts, reads and evictions: files read with wrong bytes"
            }
            Self::KillFailed => "the same: reads, opens and listings that failed",
            Self::KillLost => "the same: versions whose publish was answered and that are lost or damaged",
            Self::KillStall => "the same: what one kill costs a reader that is at work, p99",
            Self::Supervisor => "private memory of the supervisor, with the mounts of that",
            Self::UpgradeFailed => "an epoch while the daemon is replaced: reads that failed or were wrong",
            Self::UpgradeStall => "the same: the longest read of a file",
            Self::UpgradeEpoch => "the same: time of the epoch, beside one that nothing interrupts",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::KillWrong | Self::KillFailed | Self::UpgradeFailed => "reads",
            Self::KillLost => "versions",
            Self::KillStall | Self::UpgradeStall => "ms",
            Self::Supervisor => "MB",
            Self::UpgradeEpoch => "s",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::KillWrong | Self::KillFailed | Self::KillLost | Self::UpgradeFailed => Goal::AtMost(0.0),
            Self::KillStall | Self::UpgradeStall => Goal::AtMost(1_000.0),
            Self::Supervisor | Self::UpgradeEpoch => Goal::None,
        }
    }
}
