//! The messages between the supervisor and the daemon.
//!
//! Owns: their layout, and how descriptors go with them.
//! Must not know: what is done about them.
//! Invariant: one message is one packet: it arrives whole or not at all, and in the order sent, also if its sender dies.
//! Trust: as `supervisor`: a packet that is cut, too long or of no known kind is refused, and its descriptors are closed.
//! Threads: any; a packet is sent with one system call.
//!
//! ```text
//! byte   0       what it is
//! bytes  1..9    which of the kept things, little endian; 0 where that makes no sense
//!        9..     bytes of the daemon's
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::SupervisorError;

const HEADER: usize = 9;
/// Bytes that may be kept with one thing.
pub(super) const MAX_BYTES: usize = 64 << 10;
/// Descriptors that may be kept with one thing.
pub(super) const MAX_FDS: usize = 4;

/// A thing that outlives the daemon.
#[derive(Debug)]
pub struct Kept {
    pub id: u64,
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// What the two say.
#[derive(Debug)]
pub(super) enum Message {
    /// Keep this, or these bytes instead of the former ones.
    Keep(Kept),
    /// Keep it no longer.
    Drop(u64),
    /// To the daemon: how it came to be started, and the lock of its folders.
    Hello(Kept),
    /// To the daemon: what unlocks its keys. To the end of the process it is nowhere else.
    Secret(Vec<u8>),
    /// To the daemon: that is all. From the daemon: it is ready.
    Ready,
}

impl Message {
    fn parts(&self) -> (u8, u64, &[u8], &[OwnedFd]) {
        match self {
            Self::Keep(kept) => (b'K', kept.id, &kept.bytes, &kept.fds),
            Self::Drop(id) => (b'D', *id, &[], &[]),
            Self::Hello(kept) => (b'H', kept.id, &kept.bytes, &kept.fds),
            Self::Secret(bytes) => (b'S', 0, bytes, &[]),
            Self::Ready => (b'R', 0, &[], &[]),
        }
    }

    fn from_parts(kind: u8, id: u64, bytes: Vec<u8>, fds: Vec<OwnedFd>) -> Option<Self> {
        match kind {
            b'K' => Some(Self::Keep(Kept { id, bytes, fds })),
            b'D' => Some(Self::Drop(id)),
            b'H' => Some(Self::Hello(Kept { id, bytes, fds })),
            b'S' => Some(Self::Secret(bytes)),
            b'R' => Some(Self::Ready),
            _ => None,
        }
    }
}

/// Sends one message.
pub(super) fn send(socket: impl AsFd, message: &Message) -> Result<(), SupervisorError> {
    let (kind, id, bytes, fds) = message.parts();
    if bytes.len() > MAX_BYTES || fds.len() > MAX_FDS {
        return Err(SupervisorError::TooLarge);
    }
    let mut header = [kind; HEADER];
    header[1..].copy_from_slice(&id.to_le_bytes());
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(SupervisorError::TooLarge);
    }
    loop {
        let parts = [IoSlice::new(&header), IoSlice::new(bytes)];
        match sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent.map(drop).map_err(std::io::Error::from)?),
        }
    }
}

/// Takes the next message, which is waited for. None when the other side is gone.
pub(super) fn receive(socket: impl AsFd) -> Result<Option<Message>, SupervisorError> {
    let mut buffer = vec![0; HEADER + MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // One that was killed before it had read everything.
            Err(Errno::CONNRESET) => return Ok(None),
            received => break received.map_err(std::io::Error::from)?,
        }
    };
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let fds: Vec<OwnedFd> = fds.collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let (header, bytes) = buffer.split_at(HEADER);
    let bytes = received.bytes.checked_sub(HEADER).and_then(|len| bytes.get(..len));
    let bytes = bytes.filter(|_| !cut).ok_or(SupervisorError::Malformed)?.to_vec();
    let id = header[1..].try_into().map(u64::from_le_bytes).map_err(|_| SupervisorError::Malformed)?;
    Message::from_parts(header[0], id, bytes, fds).map(Some).ok_or(SupervisorError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn what_is_kept_arrives_with_its_files_also_if_the_sender_is_gone() {
        let (ours, theirs) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let kept = |bytes: &[u8], fds| Message::Keep(Kept { id: 7, bytes: bytes.to_vec(), fds });
        send(&ours, &kept(b"description", vec![file.into()])).unwrap();
        send(&ours, &Message::Drop(8)).unwrap();
        send(&ours, &kept(&vec![1; MAX_BYTES], vec![])).unwrap();
        assert!(matches!(
            send(&ours, &kept(&vec![1; MAX_BYTES + 1], vec![])),
            Err(SupervisorError::TooLarge)
        ));
        drop(ours);
        let Some(Message::Keep(first)) = receive(&theirs).unwrap() else { panic!("not the first") };
        assert_eq!((first.id, first.bytes.as_slice(), first.fds.len()), (7, b"description".as_slice(), 1));
        let mut file = File::from(first.fds.into_iter().next().unwrap());
        let mut content = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        assert!(matches!(receive(&theirs).unwrap(), Some(Message::Drop(8))));
        assert!(
            matches!(receive(&theirs).unwrap(), Some(Message::Keep(kept)) if kept.bytes.len() == MAX_BYTES)
        );
        assert!(receive(&theirs).unwrap().is_none());
    }

    #[test]
    fn packets_that_make_no_sense_are_refused() {
        for packet in [&b"K"[..], b"?........", &vec![b'K'; HEADER + MAX_BYTES + 1]] {
            let (ours, theirs) = pair();
            rustix::net::send(&ours, packet, SendFlags::empty()).unwrap();
            assert!(matches!(receive(&theirs), Err(SupervisorError::Malformed)));
        }
    }
}
