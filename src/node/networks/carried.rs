//! A log that a file brings instead of peers.
//!
//! Owns: how such a log comes to be followed here, and what becomes of one that contradicts ours.
//! Must not know: the file. Invariant: as of `networks`: every block is checked against its quorum.
//! Trust: the file is anybody's; that the network is meant, the caller knows from its user.
//! Threads: the runtime.

use std::sync::Arc;

use super::heads::refused;
use super::{Error, Genesis, GenesisDoc, Networks, off};
use crate::chain::{Chain, ChainError};
use crate::log::Block;
use crate::log::light::{LightError, Pin, Signed, Trusted, Update};

impl Networks {
    /// The log of a network, which this node belongs to from now on; and whether it did before.
    pub(in crate::node) async fn carry_in(
        self: &Arc<Self>,
        genesis: Genesis,
        document: &[u8],
    ) -> Result<(Arc<Chain>, bool), Error> {
        let _changing = self.changing.lock().await;
        if let Some(chain) = self.registry.get(&genesis) {
            self.check_whole(&genesis)?;
            return Ok((chain, true));
        }
        let document = GenesisDoc::decode_as(document, genesis)?;
        let chain = self.adopt(&document)?;
        // A validator decides only after it has caught up with its peers: the file does not know what it has signed.
        self.tasks.spawn(self.clone().follow(chain.clone()));
        Ok((chain, false))
    }

    /// Takes over a block of a file, `from`, whose log ends at height `head`, or compares it with ours.
    pub(in crate::node) async fn carry_block(
        &self,
        chain: &Chain,
        bytes: &[u8],
        head: u64,
        from: &str,
    ) -> Result<(), Error> {
        let block = Block::decode(bytes)?;
        let (height, header, certificate) =
            (block.header.height, block.header.clone(), block.certificate.clone());
        // Of what both have only the last is compared: each block names the one before it.
        if height < head.min(chain.ledger().height()) {
            return Ok(());
        }
        match off(|| chain.commit(block)) {
            Ok(_) => Ok(()),
            Err(error @ ChainError::Fork { .. }) => {
                let own = off(|| chain.update(height))?;
                let pin = Pin { height, header: own.signed.header.id() };
                let Update { signed: Signed { validators, .. }, next } = own.clone();
                let trusted =
                    Trusted::at_pin(chain.document(), pin, &own).map_err(|error| refused(from, &error))?;
                let theirs = Update { signed: Signed { header, certificate, validators }, next };
                match trusted.advance(&theirs) {
                    Err(LightError::Fork(fork)) => Err(self.on_fork(chain, *fork).await),
                    _ => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}
