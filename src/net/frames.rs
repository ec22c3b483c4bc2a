//! Frames of `/bcai/swarm/1` on a stream.
//!
//! Owns: reading and writing whole frames.
//! Must not know: what the messages mean.
//! Invariant: no more than the longest message that has come, 64 KiB and a header at most, is held for a stream; content goes to where it
//! belongs.
//! Trust: reads what a stranger sends; what is no frame is a [`Violation`].
//! Threads: async; each half of a stream belongs to one task.

use std::io;
use std::ops::Range;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::swarm::Violation;
use crate::swarm::wire::{HEADER_LEN, Header, Message};

/// Bytes held for a stream on which only short messages have come.
const FIRST: usize = 512;

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
    /// It only grows, so that nothing is cleared that is about to be read over.
    buffer: Vec<u8>,
    /// What has come and was not taken. A read takes what there is: it goes through many layers.
    unread: Range<usize>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: vec![0; FIRST], unread: 0..0 }
    }

    /// The next header. Its payload has to be read before the next.
    pub(super) async fn header(&mut self) -> Result<Header, FrameError> {
        // An end before the first byte is an orderly one.
        if self.unread.is_empty() && self.more(HEADER_LEN).await? == 0 {
            return Err(FrameError::Closed);
        }
        self.read(HEADER_LEN).await?;
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(self.take(HEADER_LEN));
        // Decoding bounds the length.
        Ok(Header::decode(&bytes).map_err(Violation::from)?)
    }

    /// The next frame, of any type.
    pub(super) async fn frame(&mut self) -> Result<(Header, &[u8]), FrameError> {
        let header = self.header().await?;
        let payload = self.payload(&header).await?;
        Ok((header, payload))
    }

    /// The payload after `header`.
    pub(super) async fn payload(&mut self, header: &Header) -> Result<&[u8], FrameError> {
        let len = header.len as usize;
        self.read(len).await?;
        Ok(self.take(len))
    }

    /// The next bytes of a payload, as many as `to` has. What has not come yet is read to where it belongs.
    pub(super) async fn fill(&mut self, to: &mut [u8]) -> Result<(), FrameError> {
        let come = self.unread.len().min(to.len());
        let (at_hand, rest) = to.split_at_mut(come);
        at_hand.copy_from_slice(self.take(come));
        Ok(self.stream.read_exact(rest).await?)
    }

    /// Passes over the next `len` bytes of a payload.
    pub(super) async fn skip(&mut self, mut len: usize) -> Result<(), FrameError> {
        while len > 0 {
            let part = len.min(FIRST);
            self.read(part).await?;
            self.take(part);
            len -= part;
        }
        Ok(())
    }

    /// The first `len` bytes of what has come.
    fn take(&mut self, len: usize) -> &[u8] {
        let taken = self.unread.start..self.unread.start + len;
        self.unread.start = taken.end;
        &self.buffer[taken]
    }

    /// Waits until `len` bytes have come and were not taken.
    async fn read(&mut self, len: usize) -> Result<(), FrameError> {
        while self.unread.len() < len {
            if self.more(len).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(())
    }

    /// Reads what there is, with room for `len` bytes that were not taken. Returns how much that was.
    async fn more(&mut self, len: usize) -> Result<usize, FrameError> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.buffer.len() - self.unread.start < len {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.buffer.len() < self.unread.start + len {
            self.buffer.resize(self.unread.start + len, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.unread.end..]).await?;
        self.unread.end += read;
        Ok(read)
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
    use std::pin::Pin;
    use std::task::{Context, Poll};

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

    /// Gives out a few bytes at a time, other numbers of them again and again.
    struct Trickle<'a>(&'a [u8], usize);

    impl AsyncRead for Trickle<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.1 = (self.1 * 7 + 3) % 1009;
            let len = buffer.len().min(1 + self.1);
            Pin::new(&mut self.0).poll_read(cx, &mut buffer[..len])
        }
    }

    #[tokio::test]
    async fn frames_are_whole_however_they_come() {
        let lens = [0, 1, 40, 600, 3, MAX_PAYLOAD, 0, 17, MAX_PAYLOAD - 1, 5000, 2];
        let content = |at: usize, len| vec![at as u8; len];
        let frame = |(at, len): (usize, &usize)| {
            [&Header::data(at as u64 + 1, false, *len as u32).encode()[..], &content(at, *len)].concat()
        };
        let bytes = lens.iter().enumerate().map(frame).collect::<Vec<_>>().concat();
        let mut reader = FrameReader::new(Trickle(&bytes, 5));
        for (at, len) in lens.iter().enumerate() {
            let (header, payload) = reader.frame().await.unwrap();
            assert_eq!((header.request, payload), (at as u64 + 1, &content(at, *len)[..]));
        }
        assert!(matches!(reader.frame().await, Err(FrameError::Closed)));
        assert!(reader.buffer.len() <= HEADER_LEN + MAX_PAYLOAD);

        // Filled in two parts or passed over, in turn, with no more in memory than a short message has.
        let mut reader = FrameReader::new(Trickle(&bytes, 5));
        for (at, len) in lens.iter().enumerate() {
            let header = reader.header().await.unwrap();
            let mut payload = vec![0; *len];
            let (first, second) = payload.split_at_mut(len / 3);
            match at % 3 {
                2 => reader.skip(*len).await.unwrap(),
                _ => {
                    reader.fill(first).await.unwrap();
                    reader.fill(second).await.unwrap();
                    assert_eq!((header.request, payload), (at as u64 + 1, content(at, *len)));
                }
            }
        }
        assert!(matches!(reader.header().await, Err(FrameError::Closed)));
        assert_eq!(reader.buffer.len(), FIRST);
    }

    #[tokio::test]
    async fn a_payload_that_is_cut_off_is_no_orderly_end() {
        let frame = [&Header::data(1, false, 900).encode()[..], &[7; 900]].concat();
        for cut in [HEADER_LEN, HEADER_LEN + 1, HEADER_LEN + 899] {
            let mut reader = FrameReader::new(&frame[..cut]);
            let header = reader.header().await.unwrap();
            assert!(matches!(reader.payload(&header).await, Err(FrameError::Io(_))), "cut at {cut}");
            let mut reader = FrameReader::new(&frame[..cut]);
            reader.header().await.unwrap();
            assert!(matches!(reader.fill(&mut [0; 900]).await, Err(FrameError::Io(_))), "cut at {cut}");
            let mut reader = FrameReader::new(&frame[..cut]);
            reader.header().await.unwrap();
            assert!(matches!(reader.skip(900).await, Err(FrameError::Io(_))), "cut at {cut}");
        }
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
