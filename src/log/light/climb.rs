//! The way from what is trusted to a later head: in one step where the signers allow it, else by halves.
//!
//! Owns: which height to ask for next. Must not know: whom to ask.
//! Invariant: asks for each height at most once, and for no more than the depth of the halving at a time.
//! Trust: what is offered is foreign; `Trusted::advance` judges it. Threads: pure values.

use super::{LightError, Trusted, Update};

/// A climb towards one height. Fetch what it wants, offer it, persist what is then trusted, and so on.
#[derive(Debug, Clone)]
pub struct Climb {
    trusted: Trusted,
    target: u64,
    /// Too far ahead so far, the nearest last. Each is at most half as far as the one before: 64 at most.
    ahead: Vec<Update>,
}

impl Climb {
    /// From `trusted` to height `target`.
    pub fn new(trusted: Trusted, target: u64) -> Self {
        Self { trusted, target, ahead: Vec::new() }
    }

    /// What is believed by now.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The height to fetch next; none when the target is reached.
    pub fn wants(&self) -> Option<u64> {
        let height = self.trusted.height();
        if height >= self.target {
            return None;
        }
        let ahead = self.ahead.last().map(|update| update.signed.header.height);
        Some(ahead.map_or(self.target, |ahead| height + (ahead - height) / 2))
    }

    /// Takes the update of the height that it wants. Returns the updates that were believed thereby, in order: a proof of
    /// the way is made of all of them. After an error the peer that gave it is to be asked for nothing more; the
    /// climb itself can go on with another's.
    pub fn offer(&mut self, update: Update) -> Result<Vec<Update>, LightError> {
        let height = update.signed.header.height;
        match self.wants() {
            Some(wanted) if wanted == height => {}
            wanted => return Err(LightError::NotAsked { wanted: wanted.unwrap_or(self.target), height }),
        }
        self.ahead.push(update);
        let mut believed = Vec::new();
        while let Some(next) = self.ahead.last() {
            match self.trusted.advance(next) {
                Ok(trusted) => {
                    self.trusted = trusted;
                    believed.extend(self.ahead.pop());
                }
                Err(LightError::TooFar { .. }) => break,
                Err(error) => {
                    // Which of them lied is not known here: all came unproven, and all are fetched again.
                    self.ahead.clear();
                    return Err(error);
                }
            }
        }
        Ok(believed)
    }
}
