//! Where this node shows itself on a web page.
//!
//! Owns: what is known of that. Must not know: how a page is served.
//! Invariant: an address is said to be open only while somebody listens there.
//! Trust: none needed. Threads: any; the lock is held for a copy only.

use std::sync::{Mutex, PoisonError};

use super::Node;
use super::report::PageStatus;

/// Nothing while no page is wanted.
#[derive(Debug, Default)]
pub(super) struct Page(Mutex<Option<PageStatus>>);

impl Node {
    /// Takes note of where the page is to be had, or why it is not.
    pub fn set_page(&self, page: PageStatus) {
        *self.page.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
    }

    pub(super) fn page(&self) -> Option<PageStatus> {
        self.page.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
