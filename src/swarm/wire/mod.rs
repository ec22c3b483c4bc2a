//! The frames and messages of `/bcai/swarm/1`.
//!
//! Owns: the byte layout of every message, and its limits.
//! Must not know: what a message leads to.
//! Invariant: a message has one encoding; `decode` accepts only what `encode` writes. A frame is never longer
//! than [`HEADER_LEN`] + [`MAX_PAYLOAD`] bytes, whatever its type, so a type from a later version can be skipped.
//! Trust: takes bytes from anyone.
//! Threads: pure functions.
//!
//! A frame, integers little-endian:
//!
//! ```text
//!  0      1       2        4          8                16
//! +------+-------+--------+----------+----------------+---------------- - -
//! | type | flags | zero   | length   | request        | payload: `length` bytes
//! +------+-------+--------+----------+----------------+---------------- - -
//! ```
//!
//! `request` and `flags` are zero except in `Data`. The payload of every other message is canonical CBOR.
//! The payload of the first `Data` frame of an object (flag bit 0) begins with its head:
//!
//! ```text
//!  0       1         4           8            12
//! +-------+---------+-----------+------------+------ - -
//! | codec | zero    | plain_len | stored_len | bytes
//! +-------+---------+-----------+------------+------ - -
//! ```

use minicbor::{Decode, Encode};

use super::{Class, Lane};
use crate::codec::{self, CodecError};
use crate::id::ObjectId;
use forms::{AttachForm, CancelForm, CreditForm, HaveForm, RedirectForm, RejectForm, WantForm, WatchForm};

mod forms;

/// Length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 16;
/// The longest payload of any frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Length of what precedes an object's bytes in its first `Data` frame.
pub const DATA_HEAD_LEN: usize = 12;
/// The most objects or requests that one message may name.
pub const MAX_NAMED: usize = 1024;
/// The longest program name in a [`Hello`], in bytes.
pub const MAX_AGENT: usize = 64;

const DATA: u8 = 3;
const FIRST: u8 = 1;
/// The longest name of a peer, in bytes: a multihash of a public key.
pub const MAX_PEER: usize = 64;

/// Bits of [`Hello::features`]: `Watch`, `Have` and `Redirect` are understood.
pub const WATCHES: u64 = 1;
/// The sender tells when an object has come, by a [`Credit`] of nothing for its request.
pub const TELLS: u64 = 2;

/// Bytes that are not a message. Always the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a frame of {0} bytes, over the limit of {MAX_PAYLOAD}")]
    FrameTooLong(u32),
    #[error("a frame of type {kind} with fields set that its type does not use")]
    StrayFields { kind: u8 },
    #[error("a data frame of {0} bytes, too short for its head")]
    NoHead(usize),
    #[error("{what} of {value} is outside of its limits")]
    OutOfRange { what: &'static str, value: u64 },
}

/// What precedes every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message type; one that is unknown here is skipped.
    pub kind: u8,
    /// Zero except in `Data`.
    pub flags: u8,
    /// Length of the payload, in bytes.
    pub len: u32,
    /// Zero except in `Data`.
    pub request: u64,
}

impl Header {
    /// The header of a `Data` frame with `len` bytes of payload.
    pub fn data(request: u64, first: bool, len: u32) -> Header {
        Header { kind: DATA, flags: if first { FIRST } else { 0 }, len, request }
    }

    /// Whether this is a `Data` frame, and if so, whether it is the first of its object.
    pub fn as_data(&self) -> Option<bool> {
        (self.kind == DATA).then_some(self.flags & FIRST != 0)
    }

    /// The header's 16 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.kind;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..].copy_from_slice(&self.request.to_le_bytes());
        bytes
    }

    /// Checks the length, and, for a type known here, that nothing is set which the type does not use.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, WireError> {
        let [kind, flags, zero_a, zero_b, l0, l1, l2, l3, request @ ..] = *bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let header = Header { kind, flags, len, request: u64::from_le_bytes(request) };
        if len as usize > MAX_PAYLOAD {
            return Err(WireError::FrameTooLong(len));
        }
        let reserved = zero_a != 0 || zero_b != 0;
        let stray = match kind {
            DATA => reserved || flags & !FIRST != 0,
            _ if Message::NAMES.iter().any(|(known, _)| *known == kind) => {
                reserved || flags != 0 || header.request != 0
            }
            _ => false,
        };
        if stray { Err(WireError::StrayFields { kind }) } else { Ok(header) }
    }
}

/// How an object is packed, told in its first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHead {
    /// Number of the packing; its meaning is the store's.
    pub codec: u8,
    /// Length of the object, in bytes.
    pub plain_len: u32,
    /// Length of the object as it travels, in bytes.
    pub stored_len: u32,
}

impl DataHead {
    /// The head's 12 bytes.
    pub fn encode(&self) -> [u8; DATA_HEAD_LEN] {
        let mut bytes = [0; DATA_HEAD_LEN];
        bytes[0] = self.codec;
        bytes[4..8].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes[8..].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes
    }

    /// Splits the payload of an object's first frame. Whether the lengths are allowed is for the session to say.
    pub fn split(payload: &[u8]) -> Result<(DataHead, &[u8]), WireError> {
        let (head, rest) =
            payload.split_first_chunk::<DATA_HEAD_LEN>().ok_or(WireError::NoHead(payload.len()))?;
        let [codec, z0, z1, z2, p0, p1, p2, p3, s0, s1, s2, s3] = *head;
        if [z0, z1, z2] != [0; 3] {
            return Err(WireError::StrayFields { kind: DATA });
        }
        let plain_len = u32::from_le_bytes([p0, p1, p2, p3]);
        let stored_len = u32::from_le_bytes([s0, s1, s2, s3]);
        Ok((DataHead { codec, plain_len, stored_len }, rest))
    }
}

/// The first message each way on a control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Hello {
    /// Chosen by the side that wants, repeated by the other; names the session when its lanes are attached.
    #[n(0)]
    pub session: u64,
    /// A bit for each later message type that the sender understands, or other thing that it does: [`WATCHES`], [`TELLS`].
    #[n(1)]
    pub features: u64,
    /// How many unanswered wanted objects the sender accepts.
    #[n(2)]
    pub max_wants: u32,
    /// The sender's program and version, for people.
    #[n(3)]
    pub agent: String,
}

/// The first message each way on a lane: which stream of which session it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    pub session: u64,
    pub lane: Lane,
}

/// Asks for objects. The n-th of them is request `first + n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Above every request made before on this session.
    pub first: u64,
    pub class: Class,
    /// After so many milliseconds an answer is of no use; the server may answer `Busy` at once when it cannot keep it.
    pub deadline_ms: u32,
    /// Bytes that may be sent for each of the objects before more credit is given; at least 1.
    pub credit: u32,
    /// 1 to [`MAX_NAMED`] of them.
    pub objects: Vec<ObjectId>,
}

/// Why an object is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not now; another peer may be quicker.
    Busy,
    /// Not here.
    Missing,
    /// As the reader asked.
    Cancelled,
    /// A reason from a later version; to be handled as `Busy`.
    Other(u8),
}

/// The answer to requests whose object is not (or no further) sent. Travels on their lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    /// 1 to [`MAX_NAMED`] of them.
    pub requests: Vec<u64>,
}

/// Takes requests back. Each is still answered: by its data if that is on its way, else by `Reject{Cancelled}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// 1 to [`MAX_NAMED`] of them.
    pub requests: Vec<u64>,
}

/// Further bytes that may be sent, for each request named. Nothing, for one that is answered, tells that its object has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// Request and bytes; 1 to [`MAX_NAMED`] of them.
    pub grants: Vec<(u64, u32)>,
}

/// Asks to be told which objects are here, and which have come later. The n-th of them is watch `first + n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Above every watch made before on this session.
    pub first: u64,
    /// 1 to [`MAX_NAMED`] of them.
    pub objects: Vec<ObjectId>,
}

/// How things stand with an object at the side that is asked. The numbers are part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Presence {
    /// It can be wanted.
    Here = 0,
    /// It is wanted there too.
    Coming = 1,
    Absent = 2,
}

/// The answer to watches, and later news of them. Travels on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    pub presence: Presence,
    /// 1 to [`MAX_NAMED`] of them.
    pub watches: Vec<u64>,
}

/// The answer to requests of bulk classes whose object was just sent to another peer: it is to be had there. Travels on
/// their lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The id of that peer, as bytes; 1 to [`MAX_PEER`] of them.
    pub peer: Vec<u8>,
    /// 1 to [`MAX_NAMED`] of them.
    pub requests: Vec<u64>,
}

/// Every message but `Data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Hello(Hello),
    Want(Want),
    Reject(Reject),
    Cancel(Cancel),
    Credit(Credit),
    Attach(Attach),
    Watch(Watch),
    Have(Have),
    Redirect(Redirect),
}

impl Message {
    const NAMES: [(u8, &'static str); 9] = [
        (1, "Hello"),
        (2, "Want"),
        (4, "Reject"),
        (5, "Cancel"),
        (6, "Credit"),
        (7, "Attach"),
        (8, "Watch"),
        (9, "Have"),
        (10, "Redirect"),
    ];

    fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 1,
            Message::Want(_) => 2,
            Message::Reject(_) => 4,
            Message::Cancel(_) => 5,
            Message::Credit(_) => 6,
            Message::Attach(_) => 7,
            Message::Watch(_) => 8,
            Message::Have(_) => 9,
            Message::Redirect(_) => 10,
        }
    }

    /// What the message is called, for error texts.
    pub fn name(&self) -> &'static str {
        name(self.kind())
    }

    /// The whole frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        let payload = match self {
            Message::Hello(hello) => codec::encode(hello),
            Message::Want(want) => codec::encode(&WantForm::from(want)),
            Message::Reject(reject) => codec::encode(&RejectForm::from(reject)),
            Message::Cancel(cancel) => codec::encode(&CancelForm { requests: cancel.requests.clone() }),
            Message::Credit(credit) => codec::encode(&CreditForm { grants: credit.grants.clone() }),
            Message::Attach(attach) => {
                codec::encode(&AttachForm { session: attach.session, lane: attach.lane as u8 })
            }
            Message::Watch(watch) => codec::encode(&WatchForm::from(watch)),
            Message::Have(have) => codec::encode(&HaveForm::from(have)),
            Message::Redirect(redirect) => codec::encode(&RedirectForm::from(redirect)),
        };
        let header = Header { kind: self.kind(), flags: 0, len: payload.len() as u32, request: 0 };
        [&header.encode()[..], &payload].concat()
    }

    /// The message in `payload`, or `None` for a type that this version does not know and therefore skips.
    pub fn decode(header: &Header, payload: &[u8]) -> Result<Option<Message>, WireError> {
        let what = name(header.kind);
        let message = match header.kind {
            1 => Message::Hello(checked_hello(codec::decode(what, payload, MAX_PAYLOAD)?)?),
            2 => Message::Want(codec::decode::<WantForm>(what, payload, MAX_PAYLOAD)?.try_into()?),
            4 => Message::Reject(codec::decode::<RejectForm>(what, payload, MAX_PAYLOAD)?.try_into()?),
            5 => {
                let CancelForm { requests } = codec::decode(what, payload, MAX_PAYLOAD)?;
                bounded("number of requests", requests.len())?;
                Message::Cancel(Cancel { requests })
            }
            6 => {
                let CreditForm { grants } = codec::decode(what, payload, MAX_PAYLOAD)?;
                bounded("number of grants", grants.len())?;
                Message::Credit(Credit { grants })
            }
            7 => {
                let AttachForm { session, lane } = codec::decode(what, payload, MAX_PAYLOAD)?;
                let lane = Lane::try_from(lane).map_err(|byte| out_of_range("lane", byte.into()))?;
                Message::Attach(Attach { session, lane })
            }
            8 => Message::Watch(codec::decode::<WatchForm>(what, payload, MAX_PAYLOAD)?.try_into()?),
            9 => Message::Have(codec::decode::<HaveForm>(what, payload, MAX_PAYLOAD)?.try_into()?),
            10 => Message::Redirect(codec::decode::<RedirectForm>(what, payload, MAX_PAYLOAD)?.try_into()?),
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

fn name(kind: u8) -> &'static str {
    Message::NAMES.iter().find(|(known, _)| *known == kind).map_or("unknown", |(_, name)| name)
}

fn out_of_range(what: &'static str, value: u64) -> WireError {
    WireError::OutOfRange { what, value }
}

fn bounded(what: &'static str, len: usize) -> Result<(), WireError> {
    if (1..=MAX_NAMED).contains(&len) { Ok(()) } else { Err(out_of_range(what, len as u64)) }
}

fn checked_hello(hello: Hello) -> Result<Hello, WireError> {
    if hello.agent.len() > MAX_AGENT {
        return Err(out_of_range("length of the agent", hello.agent.len() as u64));
    }
    if hello.max_wants == 0 {
        return Err(out_of_range("number of wants", 0));
    }
    Ok(hello)
}

impl From<Reason> for u8 {
    fn from(reason: Reason) -> u8 {
        match reason {
            Reason::Busy => 0,
            Reason::Missing => 1,
            Reason::Cancelled => 2,
            Reason::Other(byte) => byte,
        }
    }
}

impl From<u8> for Reason {
    fn from(byte: u8) -> Reason {
        match byte {
            0 => Reason::Busy,
            1 => Reason::Missing,
            2 => Reason::Cancelled,
            other => Reason::Other(other),
        }
    }
}
