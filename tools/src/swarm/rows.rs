//! What is measured of a swarm, and the targets.
//!
//! Owns: the rows. Must not know: how they are measured.
//! Invariant: times of many are in parts of the time of one alone on the same link, which no processor changes much.
//! Trust: none needed. Threads: plain values.

use clap::ValueEnum;
use serde::Serialize;

use crate::report::{self, Goal};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    OneLink,
    FanOut,
    FanOutCopies,
    FanOutLarge,
    FanOutLargeCopies,
    FanOutHttp,
    FanOutLiar,
    FanOutChurn,
    FaultLatency,
    FaultAdded,
    Memory,
    SetUp,
    Discovery,
    OrderFat,
    OrderMiddle,
    OrderSlow,
    SmallFat,
    SmallMiddle,
    SmallSlow,
    LeftBytes,
    LeftTime,
    AheadFault,
}

pub const FAN_OUT: &[Row] = &[
    Row::OneLink,
    Row::FanOut,
    Row::FanOutCopies,
    Row::FanOutLarge,
    Row::FanOutLargeCopies,
    Row::FanOutHttp,
    Row::FanOutLiar,
    Row::FanOutChurn,
];
pub const FAULTS: &[Row] = &[Row::FaultLatency, Row::FaultAdded];
pub const MEMORY: &[Row] = &[Row::Memory];
pub const SET_UP: &[Row] = &[Row::SetUp, Row::Discovery];
pub const TUNING: &[Row] = &[
    Row::OrderFat,
    Row::OrderMiddle,
    Row::OrderSlow,
    Row::SmallFat,
    Row::SmallMiddle,
    Row::SmallSlow,
    Row::LeftBytes,
    Row::LeftTime,
    Row::AheadFault,
];

impl report::Row for Row {
    fn what(self) -> &'static str {
        match self {
            Self::OneLink => "one receiver: payload in parts of the link's rate",
            Self::FanOut => "all receivers at once, files of 1 MB: time of the last in parts of one alone",
            Self::FanOutCopies => "the same: what the source sent, in copies of the data",
            Self::FanOutLarge => "all receivers at once, one large file",
            Self::FanOutLargeCopies => "the same: what the source sent, in copies of the data",
            Self::FanOutHttp => "all receivers at once, one large file from an HTTP server",
            Self::FanOutLiar => "as fan-out, with one more peer that lies",
            Self::FanOutChurn => "as fan-out, with one receiver killed half way and started again",
            Self::FaultLatency => "reading a file of 64 KiB while a prefetch fills the link, p99",
            Self::FaultAdded => "the same: what the prefetch adds to the p99 of an idle link",
            Self::Memory => "what 64 peers and 1,000 transfers add to a node's resident memory",
            Self::SetUp => "joining a network by its URI: connection, genesis document and log",
            Self::Discovery => "from the start of a node to its connection to one found by mDNS",
            Self::OrderFat => "a large file in order over 1 Gbit/s, 80 ms there and back",
            Self::OrderMiddle => "the same over 200 Mbit/s, 20 ms",
            Self::OrderSlow => "the same over 10 Mbit/s, 40 ms",
            Self::SmallFat => "files of 16 KiB in the order of the walk over 1 Gbit/s, 80 ms",
            Self::SmallMiddle => "the same over 200 Mbit/s, 20 ms",
            Self::SmallSlow => "the same over 10 Mbit/s, 40 ms",
            Self::LeftBytes => {
                "1 MiB of each of 40 large files over 10 Mbit/s, 40 ms: fetched ahead in vain, in parts of what was read"
            }
            Self::LeftTime => "the same: how long it takes",
            Self::AheadFault => {
                "reading a file of 64 KiB beside a reader in order over 200 Mbit/s, 20 ms, p99"
            }
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::OneLink => "× rate",
            Self::FanOut | Self::FanOutLarge | Self::FanOutHttp | Self::FanOutLiar | Self::FanOutChurn => {
                "× alone"
            }
            Self::FanOutCopies | Self::FanOutLargeCopies => "copies",
            Self::FaultLatency | Self::FaultAdded | Self::SetUp | Self::Discovery | Self::AheadFault => "ms",
            Self::OrderFat | Self::OrderMiddle | Self::OrderSlow => "MB/s",
            Self::SmallFat | Self::SmallMiddle | Self::SmallSlow => "files/s",
            Self::LeftBytes => "× read",
            Self::LeftTime => "s",
            Self::Memory => "MB",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::OneLink => Goal::AtLeast(0.9),
            Self::FanOut | Self::FanOutLarge => Goal::AtMost(1.25),
            Self::FanOutCopies | Self::FanOutLargeCopies => Goal::AtMost(1.1),
            Self::FaultLatency => Goal::AtMost(100.0),
            Self::FaultAdded => Goal::AtMost(10.0),
            Self::Memory => Goal::AtMost(64.0),
            Self::SetUp => Goal::AtMost(500.0),
            Self::Discovery => Goal::AtMost(1_000.0),
            Self::OrderFat | Self::OrderMiddle | Self::SmallFat | Self::SmallMiddle => Goal::Ratio(1.0),
            Self::OrderSlow | Self::SmallSlow => Goal::Ratio(0.95),
            Self::LeftBytes => Goal::AtMost(0.5),
            Self::AheadFault => Goal::AtMost(100.0),
            Self::FanOutHttp | Self::FanOutLiar | Self::FanOutChurn | Self::LeftTime => Goal::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_group() {
        let mut grouped: Vec<Row> = [FAN_OUT, FAULTS, MEMORY, SET_UP, TUNING].concat();
        grouped.sort();
        assert!(grouped.into_iter().eq(report::all()));
    }
}
