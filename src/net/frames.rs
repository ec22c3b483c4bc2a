//! Frames of `/bcai/swarm/1` on a stream.
//!
//! Owns: reading and writing whole frames.
//! Must not know: what the messages mean.
//! Invariant: at most one frame of at most 64 KiB is held for a stream.
//! Trust: reads what a stranger sends; what is no frame is a [`Violation`].
//! Threads: async; each half of a stream belongs to one task.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::swarm::Violation;
use crate::swarm::wire::{HEADER_LEN, Header, Message};

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// Between two frames.
    #[error("the stream was closed")]
    Closed,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    #[error("the peer speaks another protocol")]
    Foreign,
    #[error("the peer broke the protocol: {0}")]
    Violation(#[from] Violation),
}

/// The reading half of a stream.
pub(super) struct FrameReader<R> {
    stream: R,
    payload: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, payload: Vec::new() }
    }

    /// The next frame, of any type.
    pub(super) async fn frame(&mut self) -> Result<(Header, &[u8]), FrameError> {
        let mut bytes = [0; HEADER_LEN];
        // An end before the first byte is an orderly one.
        if self.stream.read(&mut bytes[..1]).await? == 0 {
            return Err(FrameError::Closed);
        }
        self.stream.read_exact(&mut bytes[1..]).await?;
        // Decoding bounds the length.
        let header = Header::decode(&bytes).map_err(Violation::from)?;
        // It only grows, so that no frame is preceded by clearing what it will fill.
        let len = header.len as usize;
        if self.payload.len() < len {
            self.payload = vec![0; len];
        }
        self.stream.read_exact(&mut self.payload[..len]).await?;
        Ok((header, &self.payload[..len]))
    }

    /// The next message of a type known here. Data is out of place where this is called; `expected` says what is not.
    pub(super) async fn message(&mut self, expected: &'static str) -> Result<Message, FrameError> {
        loop {
            let (header, payload) = self.frame().await?;
            if header.as_data().is_some() {
                return Err(Violation::OutOfPlace { got: "Data", expected }.into());
            }
            if let Some(message) = Message::decode(&header, payload).map_err(Violation::from)? {
                return Ok(message);
            }
        }
    }
}

/// Writes one message and sees to it that it leaves.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    stream.write_all(&message.encode()).await?;
    stream.flush().await
}

/// The error for a message that does not belong where it came.
pub(super) fn out_of_place(got: &Message, expected: &'static str) -> FrameError {
    Violation::OutOfPlace { got: got.name(), expected }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::wire::{Cancel, MAX_PAYLOAD};

    async fn first(bytes: &[u8]) -> Result<Message, FrameError> {
        FrameReader::new(bytes).message("Cancel").await
    }

    #[tokio::test]
    async fn messages_are_read_and_later_types_skipped() {
        let cancel = Message::Cancel(Cancel { requests: vec![1, 2, 3] });
        let later = Header { kind: 77, flags: 3, len: 5, request: 9 };
        let bytes = [&later.encode()[..], b"12345", &cancel.encode()].concat();
        assert_eq!(first(&bytes).await.unwrap(), cancel);
    }

    #[tokio::test]
    async fn ends_and_junk_are_told_apart() {
        let cancel = Message::Cancel(Cancel { requests: vec![1] }).encode();
        assert!(matches!(first(&[]).await, Err(FrameError::Closed)));
        for cut in [1, HEADER_LEN, cancel.len() - 1] {
            assert!(matches!(first(&cancel[..cut]).await, Err(FrameError::Io(_))), "cut at {cut}");
        }
        let too_long = Header { kind: 77, flags: 0, len: MAX_PAYLOAD as u32 + 1, request: 0 }.encode();
        let data = Header::data(1, false, 0).encode();
        let junk = [&cancel[..HEADER_LEN], &[0xff; 3]].concat();
        for bytes in [&too_long[..], &data, &junk] {
            assert!(matches!(first(bytes).await, Err(FrameError::Violation(_))), "{bytes:x?}");
        }
    }
}
