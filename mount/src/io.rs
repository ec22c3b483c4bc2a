//! How the contents of files reach their readers: the ways there are, and the one that a mount uses.
//!
//! Owns: the names of the ways, and what is remembered when the machine refuses the one that was asked for.
//! Must not know: how any of them is done.
//! Invariant: a mount goes from what was asked for to the next best, once, and says why: `ZeroOpen` only before any
//! file was opened, since the kernel does not mix it with what was opened before.
//! Trust, threads: plain values behind one lock, held for a copy.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the contents of files reach their readers. Pages that the kernel has are read without asking in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// Opening a file asks nobody either. Needs Linux 5.1.
    ZeroOpen,
    /// Files for which the tree has a [`Backing`](crate::Backing) are read by the kernel itself. Needs Linux 6.9
    /// and CAP_SYS_ADMIN.
    Passthrough,
    /// Opening asks the mount, reading asks it for what the kernel does not have. Works everywhere.
    Cached,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroOpen => "zero-open",
            Self::Passthrough => "passthrough",
            Self::Cached => "cached",
        })
    }
}

/// The way a mount uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoInUse {
    pub io: Io,
    /// Why it is not the one asked for.
    pub refusal: Option<String>,
}

/// The way a mount uses, as its threads see it.
#[derive(Debug, Clone)]
pub(crate) struct Way(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    in_use: Mutex<IoInUse>,
    opens: AtomicU64,
}

impl Way {
    pub(crate) fn new(io: Io) -> Self {
        let in_use = Mutex::new(IoInUse { io, refusal: None });
        Self(Arc::new(Inner { in_use, opens: AtomicU64::new(0) }))
    }

    fn lock(&self) -> MutexGuard<'_, IoInUse> {
        self.0.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> IoInUse {
        self.lock().clone()
    }

    pub(crate) fn is(&self, io: Io) -> bool {
        self.lock().io == io
    }

    pub(crate) fn count_open(&self) {
        self.0.opens.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn opens(&self) -> u64 {
        self.0.opens.load(Ordering::Relaxed)
    }

    /// Passthrough is impossible, and no file has been opened yet. `zero_open`: whether the kernel has that.
    pub(crate) fn refuse_passthrough(&self, zero_open: bool, cause: impl Into<String>) {
        self.refuse_for(if zero_open { Io::ZeroOpen } else { Io::Cached }, cause);
    }

    /// From here on it is `Cached`; the first reason stays.
    pub(crate) fn refuse(&self, cause: impl Into<String>) {
        self.refuse_for(Io::Cached, cause);
    }

    fn refuse_for(&self, io: Io, cause: impl Into<String>) {
        let mut way = self.lock();
        if way.refusal.is_none() && way.io != Io::Cached {
            *way = IoInUse { io, refusal: Some(cause.into()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_stays() {
        let way = Way::new(Io::Passthrough);
        way.refuse("no right");
        way.refuse("no kernel");
        assert_eq!(way.get(), IoInUse { io: Io::Cached, refusal: Some("no right".into()) });
    }

    #[test]
    fn without_passthrough_opening_costs_nothing_if_the_kernel_has_that() {
        for (zero_open, instead) in [(true, Io::ZeroOpen), (false, Io::Cached)] {
            let way = Way::new(Io::Passthrough);
            way.refuse_passthrough(zero_open, "no right");
            assert_eq!(way.get(), IoInUse { io: instead, refusal: Some("no right".into()) });
        }
    }
}
