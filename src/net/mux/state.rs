//! What the task of a connection, its streams and libp2p share.
//!
//! Owns: the streams, what is to be sent, and whose turn it is.
//! Must not know: the byte stream below.
//! Invariant: of the streams that wait to write, the one whose last frame is the longest ago comes first. While any waits, there is
//! something to be sent, or the task is about to look.
//! Trust: nothing here is decided by the peer but through `incoming`.
//! Threads: any; the lock is held for one step, or to copy one frame.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::entry::{Entry, wake};
use super::frame::{Flags, HEADER_LEN, Header, Kind};
use super::pieces::{Piece, Pool};
use super::pulse::Pulse;
use super::{FRAME, GROWTH, MAX_OUTGOING, MAX_STREAMS, MuxError, UNSENT};

/// A frame is not made shorter than this only because there is no more room.
const SHORT: usize = 4 << 10;
/// Bytes of answers to the peer that wait to be sent, before nothing more is read of it.
const CLOGGED: usize = 8 << 10;

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) pool: Arc<Pool>,
}

impl Shared {
    pub(super) fn new(pool: Arc<Pool>, is_client: bool) -> Shared {
        let state = State {
            pool: pool.clone(),
            is_client,
            streams: BTreeMap::new(),
            next_id: Some(if is_client { 1 } else { 2 }),
            opened: 0,
            arrived: VecDeque::new(),
            control: Vec::new(),
            data: VecDeque::new(),
            unsent: 0,
            turns: BTreeSet::new(),
            served: 0,
            was_idle: true,
            growth: GROWTH,
            pulse: Pulse::default(),
            is_busy: false,
            is_closing: false,
            has_said_goodbye: false,
            end: None,
            has_ended: false,
            task: None,
            muxer: None,
            opener: None,
        };
        Shared { state: Mutex::new(state), pool }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // What panics under the lock is a defect here; the connection then ends with its task.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct State {
    pub(super) pool: Arc<Pool>,
    is_client: bool,
    pub(super) streams: BTreeMap<u32, Entry>,
    /// Nothing when there are no more.
    next_id: Option<u32>,
    /// Streams that this side has opened.
    opened: usize,
    /// Streams that came and were not taken.
    pub(super) arrived: VecDeque<u32>,

    /// Frames without data, which go first.
    pub(super) control: Vec<u8>,
    /// Frames of streams in their order.
    data: VecDeque<Piece>,
    /// Bytes that were in `data` and were not sent yet.
    unsent: usize,
    /// The streams that wait for room: when their last frame was taken, and their id. Those that were called have no waker any more.
    pub(super) turns: BTreeSet<(u64, u32)>,
    pub(super) served: u64,
    /// The task had nothing to send when it looked last.
    was_idle: bool,

    /// By how much windows may grow yet.
    growth: u32,
    pub(super) pulse: Pulse,

    /// The task will look for what is to be sent without being woken.
    is_busy: bool,
    is_closing: bool,
    has_said_goodbye: bool,
    /// Why the connection has ended, until that is told.
    end: Option<MuxError>,
    has_ended: bool,

    task: Option<Waker>,
    /// Who waits for streams to come and for the end: both are libp2p's task.
    pub(super) muxer: Option<Waker>,
    opener: Option<Waker>,
}

/// The side of libp2p.
impl State {
    pub(super) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<u32> {
        match self.arrived.pop_front() {
            Some(id) => Poll::Ready(id),
            None => wait(&mut self.muxer, cx),
        }
    }

    pub(super) fn poll_open(&mut self, cx: &Context<'_>) -> Poll<Result<u32, MuxError>> {
        if self.has_ended || self.is_closing {
            return Poll::Ready(Err(MuxError::Closed));
        }
        if self.opened >= MAX_OUTGOING || self.streams.len() >= MAX_STREAMS {
            return wait(&mut self.opener, cx);
        }
        let Some(id) = self.next_id else { return Poll::Ready(Err(MuxError::NoMoreStreams)) };
        self.next_id = id.checked_add(2);
        self.opened += 1;
        self.streams.insert(id, Entry::new(true, self.served, Instant::now()));
        Poll::Ready(Ok(id))
    }

    pub(super) fn poll_end(&mut self, cx: &Context<'_>) -> Poll<MuxError> {
        if self.has_ended {
            return Poll::Ready(self.end.take().unwrap_or(MuxError::Closed));
        }
        wait(&mut self.muxer, cx)
    }

    /// Lets the connection end when everything is sent.
    pub(super) fn close(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.turns.clear();
            self.streams.values_mut().for_each(|entry| wake(&mut entry.writer));
            self.wake_task();
        }
    }

    /// The connection has ended, and everybody learns it. The first reason counts.
    pub(super) fn end(&mut self, reason: MuxError) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.end = Some(reason);
            self.turns.clear();
            self.data.drain(..).for_each(|piece| self.pool.give_back(piece));
            self.unsent = 0;
            self.control = Vec::new();
            self.streams.values_mut().for_each(Entry::wake);
            wake(&mut self.muxer);
            wake(&mut self.opener);
        }
    }
}

/// The side of the streams. Each has its entry until it is dropped.
impl State {
    /// What is to be read next; nothing at the end.
    ///
    /// Who negotiates a protocol would take an end for a refusal, so a stream that is lost is an error. One that the peer breaks off
    /// after this side has finished has an end: it may just not have waited for that.
    pub(super) fn poll_piece(&mut self, id: u32, cx: &Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Ok(None)) };
        if let Some(piece) = entry.next() {
            return Poll::Ready(Ok(Some(piece)));
        }
        if entry.is_finished || entry.is_reset && entry.is_closed {
            return Poll::Ready(Ok(None));
        }
        if entry.is_reset || self.has_ended {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        wait(&mut entry.reader, cx)
    }

    /// `len` bytes of a stream have been read.
    pub(super) fn on_read(&mut self, id: u32, len: usize) {
        let Some(entry) = self.streams.get_mut(&id).filter(|_| !self.has_ended) else { return };
        let now = Instant::now();
        let credit = entry.on_read(len, now, self.pulse.round_trip(), &mut self.growth);
        let Some(credit) = credit else { return };
        let flags = entry.flags();
        self.control(Header { kind: Kind::Window, flags, stream: id, value: credit });
        if let Some(number) = self.pulse.next(now) {
            self.control(Header { kind: Kind::Ping, flags: Flags::SYN, stream: 0, value: number });
        }
    }

    /// Takes one frame of what a stream has to write, when it is its turn.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        slices: &[IoSlice<'_>],
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.check(id)?;
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Ok(0)) };
        let whole = slices.iter().map(|slice| slice.len()).sum::<usize>().min(FRAME - HEADER_LEN);
        if whole == 0 {
            return Poll::Ready(Ok(0));
        }
        let turn = (entry.served, id);
        let most = whole.min(entry.credit as usize);
        if most == 0 {
            self.turns.remove(&turn);
            return wait(&mut entry.writer, cx);
        }
        let room = UNSENT.saturating_sub(self.unsent + HEADER_LEN);
        if room < most.min(SHORT) || self.turns.first().is_some_and(|first| *first < turn) {
            self.turns.insert(turn);
            return wait(&mut entry.writer, cx);
        }
        self.turns.remove(&turn);
        self.served += 1;
        entry.served = self.served;
        let len = most.min(room);
        entry.credit -= len as u32;
        let flags = entry.flags();
        self.data(Header { kind: Kind::Data, flags, stream: id, value: len as u32 }, slices);
        Poll::Ready(Ok(len))
    }

    /// Whether a stream can be written to.
    fn check(&self, id: u32) -> io::Result<()> {
        self.check_lost(id)?;
        match self.streams.get(&id) {
            _ if self.is_closing => Err(io::ErrorKind::ConnectionReset.into()),
            Some(entry) if entry.is_closed => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    /// Whether what was written to a stream may still arrive.
    pub(super) fn check_lost(&self, id: u32) -> io::Result<()> {
        match self.has_ended || self.streams.get(&id).is_some_and(|entry| entry.is_reset) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// A stream writes no more.
    pub(super) fn finish(&mut self, id: u32) {
        let is_over = self.has_ended || self.is_closing;
        let Some(entry) = self.streams.get_mut(&id) else { return };
        self.turns.remove(&(entry.served, id));
        if !std::mem::replace(&mut entry.is_closed, true) && !entry.is_reset && !is_over {
            let flags = entry.flags() | Flags::FIN;
            self.data(Header { kind: Kind::Data, flags, stream: id, value: 0 }, &[]);
        }
    }

    /// A stream is not held any more. What was written to it is sent yet.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(mut entry) = self.streams.remove(&id) else { return };
        self.turns.remove(&(entry.served, id));
        self.growth += entry.size - super::WINDOW;
        self.opened -= usize::from(entry.is_ours);
        wake(&mut self.opener);
        let is_told = entry.is_closed || entry.is_reset || entry.is_unheard();
        if !is_told && !self.has_ended && !self.is_closing {
            let last = if entry.is_finished { Flags::FIN } else { Flags::RST };
            let flags = entry.flags() | last;
            self.data(Header { kind: Kind::Data, flags, stream: id, value: 0 }, &[]);
        }
        entry.give_back(&self.pool);
    }
}

/// The side of the task.
impl State {
    /// Gives out everything that is to be sent. False if it is all there will be.
    pub(super) fn outgoing(
        &mut self,
        cx: &Context<'_>,
        control: &mut Vec<u8>,
        data: &mut VecDeque<Piece>,
    ) -> bool {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        if self.is_closing && self.data.is_empty() && !std::mem::replace(&mut self.has_said_goodbye, true) {
            self.control(Header { kind: Kind::GoAway, flags: Flags::NONE, stream: 0, value: 0 });
        }
        std::mem::swap(control, &mut self.control);
        std::mem::swap(data, &mut self.data);
        self.is_busy = !control.is_empty() || !data.is_empty();
        if !self.is_busy
            && let Some(&(_, id)) = self.turns.first()
        {
            // Who was called before the last look and has not come yet does not want to write any more, or comes late.
            if self.was_idle && self.streams.get(&id).is_none_or(|entry| entry.writer.is_none()) {
                self.turns.pop_first();
            }
            self.call(1);
            cx.waker().wake_by_ref();
        }
        self.was_idle = !self.is_busy;
        self.is_busy || !self.is_closing
    }

    /// Whether this side is the one that opens the stream with this id.
    pub(super) fn is_ours(&self, id: u32) -> bool {
        self.is_client == (id % 2 == 1)
    }

    /// `len` bytes of data have been sent, so others can be taken.
    pub(super) fn sent(&mut self, len: usize) {
        self.unsent -= len;
        self.call(UNSENT.saturating_sub(self.unsent) / FRAME);
    }

    /// So much is to be sent that nothing must be read that might have to be answered.
    pub(super) fn is_clogged(&self) -> bool {
        self.control.len() > CLOGGED || self.unsent > UNSENT + CLOGGED
    }

    /// Wakes the `count` streams whose turn it is.
    fn call(&mut self, count: usize) {
        for (_, id) in self.turns.iter().take(count) {
            if let Some(entry) = self.streams.get_mut(id) {
                wake(&mut entry.writer);
            }
        }
    }

    /// Puts a frame without data before everything else.
    pub(super) fn control(&mut self, header: Header) {
        self.control.extend_from_slice(&header.encode());
        self.wake_task();
    }

    /// Puts a frame behind everything else, with as much of `slices` as its header says.
    fn data(&mut self, header: Header, slices: &[IoSlice<'_>]) {
        let mut left = header.value as usize;
        self.unsent += HEADER_LEN + left;
        self.pool.append(&mut self.data, &header.encode(), HEADER_LEN + left);
        for slice in slices {
            let bytes = &slice[..slice.len().min(left)];
            self.pool.append(&mut self.data, bytes, left);
            left -= bytes.len();
        }
        self.wake_task();
    }

    fn wake_task(&mut self) {
        if !std::mem::replace(&mut self.is_busy, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
impl State {
    /// Bytes that were taken to be sent and were not, and answers to the peer.
    pub(super) fn held(&self) -> usize {
        self.control.len() + self.unsent
    }

    pub(super) fn growth(&self) -> u32 {
        self.growth
    }

    /// Bytes of memory that hold what has come and is to be read.
    pub(super) fn pieces_of_streams(&self) -> usize {
        self.streams.values().map(Entry::memory).sum()
    }
}

fn wait<T>(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
    Poll::Pending
}
