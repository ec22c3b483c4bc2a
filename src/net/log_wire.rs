//! The messages of `/bcai/log/1`: one request and one response on a stream of their own.
//!
//! Owns: their encoding and its limits.
//! Must not know: what a log is; blocks, genesis documents and entries are bytes here.
//! Invariant: a message has one encoding, and no more than its limit is ever read.
//! Trust: reads what a stranger sends.
//! Threads: async.
//!
//! A message is its length (4 bytes, little-endian) and that many bytes of canonical CBOR. After its request a
//! reader closes its side of the stream; after its response a server closes the stream.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::id::{EntryId, Genesis, HeaderId};

/// The longest request, in bytes: an entry and what surrounds it.
pub(super) const MAX_REQUEST: usize = 64 << 10;
/// The longest response, in bytes.
pub(super) const MAX_RESPONSE: usize = 4 << 20;
/// Bytes of blocks that a response aims at. One block may be larger than what is left of it.
pub(super) const MAX_BLOCKS: usize = 1 << 20;
/// The longest text in a response, in bytes.
pub(super) const MAX_TEXT: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Request {
    /// The document whose hash the genesis is.
    #[n(0)]
    #[cbor(array)]
    Document {
        #[n(0)]
        genesis: Genesis,
    },
    /// How far the log has come.
    #[n(1)]
    #[cbor(array)]
    Head {
        #[n(0)]
        genesis: Genesis,
    },
    /// Blocks from height `from` on, as many as fit.
    #[n(2)]
    #[cbor(array)]
    Blocks {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        from: u64,
    },
    /// Asks for an entry to be put into the log; answered when it is decided.
    #[n(3)]
    #[cbor(array)]
    Submit {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        entry: ByteVec,
    },
    /// The header at a height, with what a light client needs to believe it.
    #[n(4)]
    #[cbor(array)]
    Update {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        height: u64,
    },
    /// What a name means, with proofs under the newest head.
    #[n(5)]
    #[cbor(array)]
    Show {
        #[n(0)]
        genesis: Genesis,
        #[n(1)]
        question: ByteVec,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Response {
    /// This log is not followed here.
    #[n(0)]
    #[cbor(array)]
    Unknown,
    #[n(1)]
    #[cbor(array)]
    Document {
        #[n(0)]
        document: ByteVec,
    },
    /// Height 0 and no header before the first block.
    #[n(2)]
    #[cbor(array)]
    Head {
        #[n(0)]
        height: u64,
        #[n(1)]
        header: Option<HeaderId>,
    },
    /// In order of height, without a gap; none when the log has not come so far.
    #[n(3)]
    #[cbor(array)]
    Blocks {
        #[n(0)]
        blocks: Vec<ByteVec>,
    },
    #[n(4)]
    #[cbor(array)]
    Submitted {
        #[n(0)]
        height: u64,
        #[n(1)]
        round: u32,
        #[n(2)]
        entry: EntryId,
    },
    /// The entry breaks a rule of the log; the same entry will not be accepted later.
    #[n(5)]
    #[cbor(array)]
    Refused {
        #[n(0)]
        cause: String,
    },
    /// It could not be done now.
    #[n(6)]
    #[cbor(array)]
    Failed {
        #[n(0)]
        cause: String,
    },
    #[n(7)]
    #[cbor(array)]
    Update {
        #[n(0)]
        update: ByteVec,
    },
    #[n(8)]
    #[cbor(array)]
    Shown {
        #[n(0)]
        shown: ByteVec,
    },
}

impl Request {
    pub(super) fn genesis(&self) -> &Genesis {
        match self {
            Request::Document { genesis }
            | Request::Head { genesis }
            | Request::Blocks { genesis, .. }
            | Request::Update { genesis, .. }
            | Request::Show { genesis, .. }
            | Request::Submit { genesis, .. } => genesis,
        }
    }
}

impl Response {
    pub(super) fn refused(cause: &str) -> Response {
        Response::Refused { cause: clip(cause) }
    }

    pub(super) fn failed(cause: &str) -> Response {
        Response::Failed { cause: clip(cause) }
    }
}

/// As much of a text as a message takes.
pub(super) fn clip(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogWireError {
    /// Before its first byte.
    #[error("the stream was closed")]
    Closed,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl LogWireError {
    /// It took longer than it may.
    pub(super) fn too_slow() -> Self {
        Self::Io(io::ErrorKind::TimedOut.into())
    }
}

/// Writes one message and closes the writing side.
pub(super) async fn write<T: Encode<()>>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), LogWireError> {
    let payload = codec::encode(message);
    stream.write_all(&(payload.len() as u32).to_le_bytes()).await?;
    stream.write_all(&payload).await?;
    Ok(stream.close().await?)
}

/// Reads one message of at most `max` bytes.
pub(super) async fn read<T>(
    stream: &mut (impl AsyncRead + Unpin),
    what: &'static str,
    max: usize,
) -> Result<T, LogWireError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let mut len = [0; 4];
    if stream.read(&mut len[..1]).await? == 0 {
        return Err(LogWireError::Closed);
    }
    stream.read_exact(&mut len[1..]).await?;
    let len = u32::from_le_bytes(len) as usize;
    if len > max {
        return Err(CodecError::TooLong { what, len, max }.into());
    }
    // Grows as bytes come, so that a length alone costs nothing.
    let mut payload = Vec::new();
    stream.take(len as u64).read_to_end(&mut payload).await?;
    if payload.len() < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(codec::decode(what, &payload, max)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    fn genesis() -> Genesis {
        Genesis::from_bytes([7; 32])
    }

    fn bytes_of<T: Encode<()>>(message: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut stream = futures::io::Cursor::new(&mut bytes);
        write(&mut stream, message).now_or_never().unwrap().unwrap();
        bytes
    }

    fn read_all<T>(bytes: &[u8], max: usize) -> Result<T, LogWireError>
    where
        T: for<'b> Decode<'b, ()> + Encode<()>,
    {
        read(&mut &bytes[..], "message", max).now_or_never().unwrap()
    }

    #[test]
    fn messages_round_trip_and_are_pinned() {
        let requests = [
            Request::Document { genesis: genesis() },
            Request::Head { genesis: genesis() },
            Request::Blocks { genesis: genesis(), from: 3 },
            Request::Submit { genesis: genesis(), entry: vec![1, 2].into() },
            Request::Update { genesis: genesis(), height: 3 },
            Request::Show { genesis: genesis(), question: vec![1].into() },
        ];
        for (number, request) in requests.into_iter().enumerate() {
            let bytes = bytes_of(&request);
            assert_eq!(bytes[4..6], [0x82, number as u8], "{request:?}");
            assert_eq!(read_all::<Request>(&bytes, MAX_REQUEST).unwrap(), request);
        }
        let expected = [&[38, 0, 0, 0, 0x82, 2, 0x82, 0x58, 32][..], &[7; 32], &[3]].concat();
        assert_eq!(bytes_of(&Request::Blocks { genesis: genesis(), from: 3 }), expected);
        let responses = [
            Response::Unknown,
            Response::Document { document: vec![1].into() },
            Response::Head { height: 0, header: None },
            Response::Blocks { blocks: vec![vec![1].into(), vec![].into()] },
            Response::Submitted { height: 1, round: 2, entry: EntryId::from_bytes([1; 32]) },
            Response::refused("no"),
            Response::failed("later"),
            Response::Update { update: vec![1].into() },
            Response::Shown { shown: vec![1].into() },
        ];
        for (number, response) in responses.into_iter().enumerate() {
            let bytes = bytes_of(&response);
            assert_eq!(bytes[4..6], [0x82, number as u8], "{response:?}");
            assert_eq!(read_all::<Response>(&bytes, MAX_RESPONSE).unwrap(), response);
        }
    }

    #[test]
    fn long_texts_are_clipped_at_a_character() {
        let Response::Failed { cause } = Response::failed(&"ü".repeat(MAX_TEXT)) else { panic!() };
        assert_eq!(cause, "ü".repeat(MAX_TEXT / 2));
    }

    #[test]
    fn lengths_are_checked_and_cut_streams_noticed() {
        let bytes = bytes_of(&Request::Head { genesis: genesis() });
        assert!(matches!(read_all::<Request>(&[], 100), Err(LogWireError::Closed)));
        for cut in 1..bytes.len() {
            assert!(matches!(read_all::<Request>(&bytes[..cut], 100), Err(LogWireError::Io(_))), "{cut}");
        }
        assert!(matches!(read_all::<Request>(&bytes, 10), Err(LogWireError::Codec(_))));
        assert!(matches!(read_all::<Request>(&[0xff; 40], MAX_REQUEST), Err(LogWireError::Codec(_))));
    }

    proptest! {
        #[test]
        fn junk_never_panics(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&(payload.len() as u32).to_le_bytes()[..], &payload].concat();
            if let Ok(request) = read_all::<Request>(&bytes, MAX_REQUEST) {
                prop_assert_eq!(&bytes_of(&request), &bytes);
            }
            if let Ok(response) = read_all::<Response>(&bytes, MAX_RESPONSE) {
                prop_assert_eq!(&bytes_of(&response), &bytes);
            }
        }
    }
}
