//! Headers of Yamux frames.
//!
//! Owns: the twelve bytes that stand before everything.
//! Must not know: which streams there are.
//! Invariant: what is encoded decodes to the same; nothing is allocated.
//! Trust: the peer may send any bytes; a version or a type that is not known is an error.
//! Threads: pure.
//!
//! Source: <https://github.com/hashicorp/yamux/blob/master/spec.md>. All numbers are big-endian.

use std::ops::BitOr;

use super::MuxError;

/// Version, type, flags, stream, value: 1 + 1 + 2 + 4 + 4 bytes.
pub(super) const HEADER_LEN: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Window,
    Ping,
    GoAway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(pub(super) u16);

impl Flags {
    pub(super) const NONE: Flags = Flags(0);
    /// The first frame of a stream.
    pub(super) const SYN: Flags = Flags(1);
    /// The first frame of who did not open it.
    pub(super) const ACK: Flags = Flags(2);
    /// The last frame with data.
    pub(super) const FIN: Flags = Flags(4);
    /// Both sides of the stream end at once.
    pub(super) const RST: Flags = Flags(8);

    pub(super) fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    /// 0 is the connection.
    pub(super) stream: u32,
    /// Bytes that follow, bytes of credit, the number of a ping, or why the peer goes away.
    pub(super) value: u32,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let [f0, f1] = self.flags.0.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [v0, v1, v2, v3] = self.value.to_be_bytes();
        [0, self.kind as u8, f0, f1, s0, s1, s2, s3, v0, v1, v2, v3]
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, MuxError> {
        let [version, kind, f0, f1, s0, s1, s2, s3, v0, v1, v2, v3] = *bytes;
        let kind = match (version, kind) {
            (0, 0) => Kind::Data,
            (0, 1) => Kind::Window,
            (0, 2) => Kind::Ping,
            (0, 3) => Kind::GoAway,
            _ => return Err(MuxError::Foreign { version, kind }),
        };
        Ok(Header {
            kind,
            flags: Flags(u16::from_be_bytes([f0, f1])),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            value: u32::from_be_bytes([v0, v1, v2, v3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(bytes: [u8; HEADER_LEN], kind in 0_u8..6) {
            let mut bytes = bytes;
            (bytes[0], bytes[1]) = (0, kind);
            match Header::decode(&bytes) {
                Ok(header) => prop_assert_eq!(header.encode(), bytes),
                Err(_) => prop_assert!(kind > 3),
            }
            bytes[0] = 1;
            prop_assert!(Header::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_header_is_as_the_specification_says() {
        let header =
            Header { kind: Kind::Window, flags: Flags::SYN | Flags::FIN, stream: 0x0102_0304, value: 7 };
        assert_eq!(header.encode(), [0, 1, 0, 5, 1, 2, 3, 4, 0, 0, 0, 7]);
    }
}
